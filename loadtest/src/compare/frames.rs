// SPDX-License-Identifier: Apache-2.0
//! Just enough of HTTP/2 (RFC 9113, 9110, HPACK RFC 7541) for a generator and a backend that must cost less than what
//! they measure: frames in and out, and header blocks made once. Used by `backend` and `client`. It decodes no header but a
//! status that stands first, and checks nothing a proxy could get wrong; conformance is tested elsewhere.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const HEAD: usize = 9;
const WINDOW: u32 = 0x7fff_ffff;
/// Where a connection's window starts, whatever the settings say.
const INITIAL_WINDOW: u32 = 65_535;

/// One frame, borrowed from what was read.
pub(crate) struct Frame<'b> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'b [u8],
    /// Bytes to drop to come to the next.
    pub(crate) length: usize,
}

/// The first frame of `bytes`, once it is there whole.
pub(crate) fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let head = bytes.get(..HEAD)?;
    let length = HEAD + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    Some(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW,
        payload: bytes.get(HEAD..length)?,
        length,
    })
}

impl Frame<'_> {
    pub(crate) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// Of a DATA or HEADERS frame, without padding and priority.
    pub(crate) fn content(&self) -> &[u8] {
        let mut content = self.payload;
        if self.flags & PADDED != 0
            && let Some((pad, rest)) = content.split_first()
        {
            content = rest
                .get(..rest.len().saturating_sub(usize::from(*pad)))
                .unwrap_or_default();
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            content = content.get(5..).unwrap_or_default();
        }
        content
    }

    /// Whether a header block begins with `:status: 200`, entry 8 of the static table; size updates may stand before it.
    pub(crate) fn says_ok(&self) -> bool {
        self.content().iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&0x88)
    }

    fn setting(&self, wanted: u16) -> Option<u32> {
        // The last one counts.
        self.payload
            .chunks_exact(6)
            .rfind(|entry| u16::from_be_bytes([entry[0], entry[1]]) == wanted)
            .map(|entry| u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
    }
}

pub(crate) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len())
        .expect("no payload here is longer than 16 KiB")
        .to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The settings both our ends begin with: no push, as large a window as there is, and the same for the connection.
pub(crate) fn put_greeting(out: &mut Vec<u8>) {
    let mut settings = Vec::with_capacity(12);
    settings.extend_from_slice(&[0, 2, 0, 0, 0, 0]);
    settings.extend_from_slice(&[0, 4]);
    settings.extend_from_slice(&WINDOW.to_be_bytes());
    put(out, SETTINGS, 0, 0, &settings);
    put(
        out,
        WINDOW_UPDATE,
        0,
        0,
        &(WINDOW - INITIAL_WINDOW).to_be_bytes(),
    );
}

/// What the other side allows, and what we owe it. Its window is not counted: every message of ours is answered before
/// the next, so that what is under way stays far below the smallest window there is.
pub(crate) struct Link {
    pub(crate) max_streams: usize,
    /// Whether our blocks may refer to the dynamic table.
    table: bool,
    /// Bytes of DATA taken since the last update of the other side's window.
    taken: u32,
    greeted: bool,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self {
            max_streams: usize::MAX,
            table: true,
            taken: 0,
            greeted: false,
        }
    }

    /// Whether the other side's settings have come: before that no header block may be sent.
    pub(crate) fn greeted(&self) -> bool {
        self.greeted
    }

    /// Sees to the frames that concern the connection, and to flow control.
    pub(crate) fn note(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                self.greeted = true;
                self.table = frame.setting(1).is_none_or(|size| size >= 4096);
                self.max_streams = frame.setting(3).map_or(usize::MAX, |most| most as usize);
                put(out, SETTINGS, ACK, 0, &[]);
            }
            PING if frame.flags & ACK == 0 => put(out, PING, ACK, 0, frame.payload),
            DATA => {
                self.taken += u32::try_from(frame.payload.len()).unwrap_or(0);
                if self.taken > WINDOW / 4 {
                    put(out, WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes());
                    self.taken = 0;
                }
            }
            _ => {}
        }
    }
}

/// A header list, encoded once for its first use on a connection, when it enters the dynamic table, and once for every
/// further use, when it is referred to: what a client library sends, without its cost.
#[derive(Clone)]
pub(crate) struct Block {
    introduced: Vec<u8>,
    referred: Vec<u8>,
    literal: Vec<u8>,
}

impl Block {
    /// `statics` are static table entries and go first; pseudo-headers must.
    pub(crate) fn new(statics: &[u8], headers: &[(&str, &str)]) -> Self {
        let start: Vec<u8> = statics.iter().map(|index| 0x80 | index).collect();
        let (mut introduced, mut referred, mut literal) = (start.clone(), start.clone(), start);
        for (at, (name, value)) in headers.iter().enumerate() {
            put_literal(&mut introduced, 0x40, name, value);
            put_literal(&mut literal, 0x00, name, value);
            // The newest entry is number 62, right after the static table.
            let index = 62 + headers.len() - 1 - at;
            referred.push(0x80 | u8::try_from(index).expect("a handful of headers"));
        }
        Self {
            introduced,
            referred,
            literal,
        }
    }

    /// The bytes that need no table.
    pub(crate) fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// The bytes for the next use; `used` says whether this connection has seen the block, and is set.
    pub(crate) fn bytes(&self, link: &Link, used: &mut bool) -> &[u8] {
        if !link.table {
            &self.literal
        } else if std::mem::replace(used, true) {
            &self.referred
        } else {
            &self.introduced
        }
    }
}

fn put_literal(out: &mut Vec<u8>, form: u8, name: &str, value: &str) {
    out.push(form);
    for text in [name, value] {
        out.push(
            u8::try_from(text.len())
                .ok()
                .filter(|length| *length < 127)
                .expect("a short text"),
        );
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_once_it_is_there_whole() {
        let mut bytes = Vec::new();
        put(&mut bytes, DATA, END_STREAM, 5, b"hello");
        assert!(first(&bytes[..bytes.len() - 1]).is_none());
        let frame = first(&bytes).unwrap();
        assert_eq!(
            (frame.kind, frame.stream, frame.content()),
            (DATA, 5, &b"hello"[..])
        );
        assert!(frame.ends_stream());
        assert_eq!(frame.length, bytes.len());
    }

    #[test]
    fn a_status_is_found_behind_a_table_size_update() {
        let frame = |payload| Frame {
            kind: HEADERS,
            flags: END_HEADERS,
            stream: 1,
            payload,
            length: 0,
        };
        assert!(frame(&[0x3f, 0x20, 0x88, 0x5f]).says_ok() || frame(&[0x20, 0x88]).says_ok());
        assert!(frame(&[0x88]).says_ok());
        assert!(!frame(&[0x8d]).says_ok());
    }

    #[test]
    fn a_block_enters_the_table_once_and_is_referred_to_afterwards() {
        let block = Block::new(&[2], &[("a", "b"), ("c", "d")]);
        let (link, mut used) = (Link::new(), false);
        assert_eq!(
            block.bytes(&link, &mut used),
            b"\x82\x40\x01a\x01b\x40\x01c\x01d"
        );
        assert_eq!(block.bytes(&link, &mut used), [0x82, 0x80 | 63, 0x80 | 62]);
    }
}
