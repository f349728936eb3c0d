// SPDX-License-Identifier: Apache-2.0
//! What the raw bytes of HTTP/1.1 requests say that hyper does not pass on: a length beside chunked, lines that end in a
//! bare LF, a fragment. Follows heads line by line and skips bodies by their length. Pure; fed by `http::guard`. It does
//! not parse requests: hyper does, and where the two disagree the request is refused.

use super::head::HeadError;

/// Of a line that comes in pieces so much is kept: more than any length or coding that is accepted.
const KEPT: usize = 64;
/// A chunk's size line, its extensions included (RFC 9112 7.1.1 asks for a limit).
const SIZE_LINE: usize = 4096;

/// Where in the stream of requests the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In a head, or before one.
    Head,
    /// In a body of so many bytes.
    Fixed(u64),
    /// In the line that says how long a chunk is.
    Size,
    /// In a chunk.
    Chunk(u64),
    /// At the line end behind a chunk.
    ChunkEnd,
    /// In trailers.
    Trailers,
    /// Not followed any more: nothing after this is served.
    Lost,
}

/// What a connection waits for when it waits for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A request.
    Request,
    /// The rest of a request's head.
    Head,
    /// The rest of a request's body.
    Body,
}

/// Follows the bytes of one connection.
pub(super) struct Scanner {
    phase: Phase,
    /// The line so far, when it began in bytes that are gone.
    kept: [u8; KEPT],
    length: usize,
    last: u8,
    /// No request line yet: a blank line is skipped.
    before: bool,
    in_target: bool,
    declared: Option<u64>,
    chunked: bool,
    heads: u64,
    refused: Option<HeadError>,
    broken: bool,
    body: u64,
}

impl Scanner {
    pub(super) fn new() -> Scanner {
        Scanner {
            phase: Phase::Head,
            kept: [0; KEPT],
            length: 0,
            last: 0,
            before: true,
            in_target: false,
            declared: None,
            chunked: false,
            heads: 0,
            refused: None,
            broken: false,
            body: 0,
        }
    }

    /// Heads that have come whole.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Why the head after the whole ones, and all that follow, are refused.
    pub(super) fn refused(&self) -> Option<HeadError> {
        self.refused
    }

    /// Whether a body's framing is broken: what follows cannot be told from it.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Bytes of bodies so far, framing included.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body
    }

    /// What is waited for.
    pub(super) fn wanted(&self) -> Wanted {
        match self.phase {
            Phase::Head if self.before && self.length == 0 => Wanted::Request,
            Phase::Head => Wanted::Head,
            Phase::Lost if !self.broken => Wanted::Head,
            _ => Wanted::Body,
        }
    }

    /// Follows `bytes`; tells `encode` where in them a target holds a byte that belongs percent-encoded. Returns how
    /// many are followed: all, or those before the line that breaks a body.
    pub(super) fn scan(&mut self, bytes: &[u8], encode: &mut impl FnMut(usize)) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            match self.phase {
                Phase::Lost => break,
                Phase::Fixed(left) | Phase::Chunk(left) => {
                    let available = u64::try_from(rest.len()).unwrap_or(u64::MAX);
                    let taken = left.min(available);
                    self.passed(taken);
                    // No more than `rest` holds, by the line above.
                    rest = &rest[usize::try_from(taken).unwrap_or(rest.len())..];
                }
                Phase::Head | Phase::Size | Phase::ChunkEnd | Phase::Trailers => {
                    let end = memchr::memchr(b'\n', rest);
                    let line = &rest[..end.unwrap_or(rest.len())];
                    if self.phase == Phase::Head && self.before {
                        self.request_line(line, at, encode);
                    } else if self.phase != Phase::Head {
                        self.body += line.len() as u64 + 1;
                    }
                    match end {
                        Some(end) => {
                            self.line(line);
                            rest = &rest[end + 1..];
                        }
                        None => {
                            self.keep(line);
                            rest = &[];
                        }
                    }
                    if self.broken {
                        return at;
                    }
                }
            }
        }
        bytes.len()
    }

    fn passed(&mut self, taken: u64) {
        self.body += taken;
        self.phase = match self.phase {
            Phase::Fixed(left) if left == taken => Phase::Head,
            Phase::Fixed(left) => Phase::Fixed(left - taken),
            Phase::Chunk(left) if left == taken => Phase::ChunkEnd,
            Phase::Chunk(left) => Phase::Chunk(left - taken),
            other => other,
        };
    }

    /// A piece of a request line: a fragment has no place in it, and some bytes that browsers send as they are are
    /// percent-encoded (hyper takes them for an invalid target, other servers do not).
    fn request_line(&mut self, piece: &[u8], at: usize, encode: &mut impl FnMut(usize)) {
        let mut target = 0;
        if !self.in_target {
            let Some(blank) = memchr::memchr(b' ', piece) else {
                return;
            };
            self.in_target = true;
            target = blank;
        }
        for (index, byte) in piece.iter().enumerate().skip(target) {
            match byte {
                b'#' => self.lose(HeadError::Fragment),
                b'<' | b'>' | b'`' | b'"' => encode(at + index),
                _ => {}
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let Some(last) = piece.last() else { return };
        self.last = *last;
        if let Some(room) = self.kept.get_mut(self.length..) {
            let number = room.len().min(piece.len());
            room[..number].copy_from_slice(&piece[..number]);
        }
        self.length += piece.len();
        if self.phase == Phase::Size && self.length > SIZE_LINE {
            self.break_off();
        }
    }

    /// A line is whole with this piece.
    fn line(&mut self, piece: &[u8]) {
        if self.length == 0 {
            return match piece.split_last() {
                Some((b'\r', line)) => self.told(line, line.len()),
                _ => self.bare(),
            };
        }
        self.keep(piece);
        let (length, kept) = (self.length - 1, self.kept);
        self.length = 0;
        if self.last == b'\r' {
            self.told(&kept[..length.min(KEPT)], length);
        } else {
            self.bare();
        }
    }

    fn bare(&mut self) {
        if self.phase == Phase::Head {
            self.lose(HeadError::Line);
        } else {
            self.break_off();
        }
    }

    /// A line without its end; of a long one the beginning.
    fn told(&mut self, line: &[u8], length: usize) {
        match self.phase {
            Phase::Head if self.before => {
                // A blank line before a request is skipped (RFC 9112 2.2).
                if length > 0 {
                    self.before = false;
                    self.in_target = false;
                }
            }
            Phase::Head if length == 0 => self.head_ended(),
            Phase::Head => self.field(line, length),
            Phase::Size => match chunk_size(line, length) {
                Some(0) => self.phase = Phase::Trailers,
                Some(size) => self.phase = Phase::Chunk(size),
                None => self.break_off(),
            },
            Phase::ChunkEnd if length == 0 => self.phase = Phase::Size,
            Phase::ChunkEnd => self.break_off(),
            Phase::Trailers if length == 0 => self.phase = Phase::Head,
            Phase::Trailers | Phase::Fixed(_) | Phase::Chunk(_) | Phase::Lost => {}
        }
    }

    fn field(&mut self, line: &[u8], length: usize) {
        let first = line.first().copied().unwrap_or_default();
        match first | 0x20 {
            b'c' => {
                if let Some(value) = value_of(line, b"content-length") {
                    let parsed = (length <= KEPT).then(|| digits(value)).flatten();
                    match (parsed, self.declared) {
                        (Some(now), None) => self.declared = Some(now),
                        (Some(now), Some(before)) if now == before => {}
                        _ => self.lose(HeadError::ContentLength),
                    }
                }
            }
            b't' => {
                if let Some(value) = value_of(line, b"transfer-encoding") {
                    if self.chunked || length > KEPT || !value.eq_ignore_ascii_case(b"chunked") {
                        self.lose(HeadError::TransferEncoding);
                    }
                    self.chunked = true;
                }
            }
            // The upper bit of a blank is set already; HT becomes ')'.
            b' ' | b')' if matches!(first, b' ' | b'\t') => self.lose(HeadError::Line),
            _ => {}
        }
    }

    fn head_ended(&mut self) {
        let (declared, chunked) = (self.declared.take(), self.chunked);
        self.chunked = false;
        if chunked && declared.is_some() {
            return self.lose(HeadError::Ambiguous);
        }
        self.heads += 1;
        self.before = true;
        self.phase = match declared {
            _ if chunked => Phase::Size,
            Some(0) | None => Phase::Head,
            Some(length) => Phase::Fixed(length),
        };
    }

    fn lose(&mut self, error: HeadError) {
        self.phase = Phase::Lost;
        self.refused.get_or_insert(error);
    }

    fn break_off(&mut self) {
        self.broken = true;
        self.lose(HeadError::Line);
    }
}

/// The value of the field of this name, without blanks around it.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn digits(text: &[u8]) -> Option<u64> {
    let all = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| all)?;
    text.parse().ok()
}

/// `1*HEXDIG`, then the end of the line, blanks, or extensions.
fn chunk_size(line: &[u8], length: usize) -> Option<u64> {
    if length > SIZE_LINE {
        return None;
    }
    let number = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (size, rest) = line.split_at(number);
    // Fifteen digits cannot overflow, and no chunk is as large.
    let fits = (1..=15).contains(&number);
    let ended = matches!(rest.first(), None | Some(b';' | b' ' | b'\t'));
    let size = std::str::from_utf8(size).ok().filter(|_| fits && ended)?;
    u64::from_str_radix(size, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream in pieces of so many bytes.
    fn scanned(bytes: &[u8], piece: usize) -> Scanner {
        let mut scanner = Scanner::new();
        for piece in bytes.chunks(piece) {
            scanner.scan(piece, &mut |_| {});
        }
        scanner
    }

    const STREAM: &[u8] = b"\r\nPOST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        POST /b HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nt: 1\r\n\r\n\
        GET /c HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn requests_are_followed_in_pieces_of_any_size() {
        for piece in 1..=STREAM.len() {
            let scanner = scanned(STREAM, piece);
            assert_eq!((scanner.heads, scanner.refused), (3, None), "{piece}");
            assert_eq!(scanner.wanted(), Wanted::Request);
        }
    }

    #[test]
    fn what_is_waited_for_is_known_at_every_byte() {
        let wanted = |bytes: &[u8]| scanned(bytes, 7).wanted();
        assert_eq!(wanted(b""), Wanted::Request);
        assert_eq!(wanted(b"\r\n"), Wanted::Request);
        assert_eq!(wanted(b"G"), Wanted::Head);
        assert_eq!(wanted(b"GET / HTTP/1.1\r\nHost: a\r\n"), Wanted::Head);
        let post = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(wanted(post), Wanted::Body);
    }

    #[test]
    fn what_hyper_does_not_show_is_seen() {
        for (bytes, error) in [
            (
                &b"GET / HTTP/1.1\r\nContent-Length: 1\r\ntransfer-encoding: chunked\r\n\r\n"[..],
                HeadError::Ambiguous,
            ),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", HeadError::Line),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", HeadError::Line),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", HeadError::Line),
            (b"\nGET / HTTP/1.1\r\n", HeadError::Line),
            (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", HeadError::Line),
            (b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", HeadError::Line),
            (b"GET /a#b HTTP/1.1\r\n", HeadError::Fragment),
            (
                b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
                HeadError::ContentLength,
            ),
            (
                b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n",
                HeadError::ContentLength,
            ),
            (
                b"GET / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n",
                HeadError::ContentLength,
            ),
            (
                b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
                HeadError::TransferEncoding,
            ),
        ] {
            for piece in [1, 5, bytes.len()] {
                let scanner = scanned(bytes, piece);
                let what = String::from_utf8_lossy(bytes);
                assert_eq!(
                    (scanner.heads, scanner.refused),
                    (0, Some(error)),
                    "{what:?}"
                );
            }
        }
    }

    #[test]
    fn a_chunk_size_is_hexadecimal_and_its_extensions_are_bounded() {
        let long = format!("1;{}", "x".repeat(SIZE_LINE));
        for size in [
            "0x1",
            "+1",
            "",
            "1_0",
            "g",
            "1 \n",
            "1\n",
            "fffffffffffffffff",
            &long,
        ] {
            let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            let scanner = scanned(format!("{head}{size}\r\n").as_bytes(), 11);
            assert!(scanner.is_broken(), "{size:?}");
        }
    }

    #[test]
    fn bytes_of_a_target_that_belong_encoded_are_found_where_they_are() {
        let mut found = Vec::new();
        let bytes = b"GET /<a>?\"` HTTP/1.1\r\nReferer: <x>\r\n\r\n";
        Scanner::new().scan(bytes, &mut |at| found.push(at));
        assert_eq!(found, [5, 7, 9, 10]);
    }
}
