//! Reading and writing little-endian fields. Reading never panics: whatever is not there is an error.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::LogError;

/// The input ended early.
const SHORT: LogError = LogError::Malformed { reason: "it ends early" };

/// Takes fields off the front of a shared buffer; slices of it share its memory.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    whole: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `whole` from its start.
    #[must_use]
    pub fn new(whole: &'a Bytes) -> Reader<'a> {
        Reader { whole, at: 0 }
    }

    /// Reads `whole` from `at` on.
    #[must_use]
    pub fn at(whole: &'a Bytes, at: usize) -> Reader<'a> {
        Reader { whole, at: at.min(whole.len()) }
    }

    /// All that there was to read.
    #[must_use]
    pub fn whole(&self) -> &'a Bytes {
        self.whole
    }

    /// Offset of the next field.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.whole.len() - self.at
    }

    /// The next `len` bytes, borrowed.
    pub fn slice(&mut self, len: usize) -> Result<&'a [u8], LogError> {
        let end = self.at.checked_add(len).ok_or(SHORT)?;
        let slice = self.whole.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(slice)
    }

    /// The next `len` bytes, sharing the buffer's memory.
    pub fn bytes(&mut self, len: usize) -> Result<Bytes, LogError> {
        let start = self.at;
        self.slice(len)?;
        Ok(self.whole.slice(start..start + len))
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], LogError> {
        self.slice(N)?.try_into().map_err(|_| SHORT)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, LogError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, LogError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, LogError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, LogError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A string of up to 255 bytes behind its one-byte length.
    pub fn short_str(&mut self) -> Result<&'a str, LogError> {
        let len = usize::from(self.u8()?);
        std::str::from_utf8(self.slice(len)?).map_err(|_| LogError::Malformed { reason: "a text is not UTF-8" })
    }

    /// A string behind its four-byte length.
    pub fn long_str(&mut self) -> Result<&'a str, LogError> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.slice(len)?).map_err(|_| LogError::Malformed { reason: "a text is not UTF-8" })
    }

    /// Bytes behind their four-byte length, sharing the buffer's memory.
    pub fn long_bytes(&mut self) -> Result<Bytes, LogError> {
        let len = self.u32()? as usize;
        self.bytes(len)
    }

    /// Everything that is left, sharing the buffer's memory.
    #[must_use]
    pub fn rest(&mut self) -> Bytes {
        let rest = self.whole.slice(self.at..);
        self.at = self.whole.len();
        rest
    }

    /// That nothing is left.
    pub fn finish(&self) -> Result<(), LogError> {
        if self.remaining() == 0 { Ok(()) } else { Err(LogError::Malformed { reason: "bytes are left at its end" }) }
    }
}

/// Appends fields that [`Reader`] can take off again.
pub trait Writer {
    /// A string of up to 255 bytes behind its one-byte length; a longer one is cut at 255 bytes, which
    /// callers rule out by construction.
    fn put_short_str(&mut self, text: &str);
    /// Bytes behind their four-byte length.
    fn put_long_bytes(&mut self, bytes: &[u8]);
}

impl Writer for BytesMut {
    fn put_short_str(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        self.put_u8(len);
        self.put_slice(&bytes[..usize::from(len)]);
    }

    fn put_long_bytes(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.put_u32_le(len);
        self.put_slice(&bytes[..len as usize]);
    }
}

/// CRC-32C of `bytes`, the checksum of every frame, batch and file of Boki.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
