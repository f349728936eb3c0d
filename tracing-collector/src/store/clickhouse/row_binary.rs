// SPDX-License-Identifier: Apache-2.0
//! ClickHouse's `RowBinary` format, as far as our columns need it: numbers little-endian, strings and arrays with their
//! length before them, nothing between values. Used by `store::clickhouse` for what it inserts and reads.

/// Rows being written, column after column.
#[derive(Default)]
pub(super) struct Rows(pub(super) Vec<u8>);

impl Rows {
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.extend(value);
    }

    pub(super) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Of an array or a map; its items follow, of a map each key with its value.
    pub(super) fn length(&mut self, mut length: usize) {
        while length >= 0x80 {
            self.byte((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.byte(length as u8);
    }

    pub(super) fn array<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Rows, &T)) {
        self.length(items.len());
        for item in items {
            write(self, item);
        }
    }
}

/// Where bytes of an answer come from: a chunk at a time, nothing at the end.
pub(super) trait Chunks {
    type Error;

    fn next(&mut self) -> Result<Option<bytes::Bytes>, Self::Error>;
}

/// Why an answer could not be read.
#[derive(Debug)]
pub(super) enum ReadError<E> {
    Source(E),
    /// It ends in the middle of a row, or a length cannot be true.
    Torn,
}

/// No value of ours is larger; a longer one is a misread length.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Rows being read; holds no more than one value beside the chunk that came last.
pub(super) struct Reader<C> {
    chunks: C,
    buffer: bytes::Bytes,
}

impl<C: Chunks> Reader<C> {
    pub(super) fn new(chunks: C) -> Reader<C> {
        Reader {
            chunks,
            buffer: bytes::Bytes::new(),
        }
    }

    /// Whether another row follows.
    pub(super) fn more(&mut self) -> Result<bool, ReadError<C::Error>> {
        while self.buffer.is_empty() {
            match self.chunks.next().map_err(ReadError::Source)? {
                None => return Ok(false),
                Some(chunk) => self.buffer = chunk,
            }
        }
        Ok(true)
    }

    fn take(&mut self, length: usize) -> Result<bytes::Bytes, ReadError<C::Error>> {
        if length > MOST_BYTES {
            return Err(ReadError::Torn);
        }
        if self.buffer.len() >= length {
            return Ok(self.buffer.split_to(length));
        }
        let mut gathered = Vec::with_capacity(length.min(64 * 1024));
        while gathered.len() < length {
            if !self.more()? {
                return Err(ReadError::Torn);
            }
            let part = self
                .buffer
                .split_to(self.buffer.len().min(length - gathered.len()));
            gathered.extend_from_slice(&part);
        }
        Ok(gathered.into())
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], ReadError<C::Error>> {
        let bytes = self.take(N)?;
        bytes.as_ref().try_into().map_err(|_| ReadError::Torn)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ReadError<C::Error>> {
        Ok(self.array_of::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, ReadError<C::Error>> {
        self.array_of().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ReadError<C::Error>> {
        self.array_of().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, ReadError<C::Error>> {
        self.array_of().map(i64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, ReadError<C::Error>> {
        self.array_of().map(u128::from_le_bytes)
    }

    pub(super) fn length(&mut self) -> Result<usize, ReadError<C::Error>> {
        let mut length = 0_usize;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err(ReadError::Torn)
    }

    pub(super) fn bytes(&mut self) -> Result<bytes::Bytes, ReadError<C::Error>> {
        let length = self.length()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<String, ReadError<C::Error>> {
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, one byte a chunk.
    struct Drops(std::collections::VecDeque<u8>);

    impl Chunks for Drops {
        type Error = ();

        fn next(&mut self) -> Result<Option<bytes::Bytes>, ()> {
            Ok(self.0.pop_front().map(|byte| vec![byte].into()))
        }
    }

    #[test]
    fn what_was_written_is_read_however_it_was_cut() {
        let mut rows = Rows::default();
        rows.u64(7);
        rows.text(&"x".repeat(300));
        rows.array(&[-1_i64, 2], |rows, one| rows.i64(*one));
        rows.u128(1 << 100);
        let mut reader = Reader::new(Drops(rows.0.into()));
        assert_eq!(reader.u64().ok(), Some(7));
        assert_eq!(reader.text().map(|text| text.len()).ok(), Some(300));
        assert_eq!(reader.length().ok(), Some(2));
        assert_eq!(reader.i64().ok(), Some(-1));
        assert_eq!(reader.i64().ok(), Some(2));
        assert_eq!(reader.u128().ok(), Some(1 << 100));
        assert!(matches!(reader.more(), Ok(false)));
    }

    #[test]
    fn an_answer_that_ends_in_a_value_is_an_error() {
        let mut reader = Reader::new(Drops(vec![200, 1, b'x'].into()));
        assert!(matches!(reader.text(), Err(ReadError::Torn)));
        let mut reader = Reader::new(Drops(vec![0xff; 9].into()));
        assert!(matches!(reader.text(), Err(ReadError::Torn)));
    }
}
