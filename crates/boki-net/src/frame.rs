//! The frame and its header.
//!
//! All integers are little-endian.
//!
//! | offset | field | |
//! |---|---|---|
//! | 0 | length | u32, of the body |
//! | 4 | kind | u8 |
//! | 5 | flags | u8 |
//! | 6 | | u16, zero |
//! | 8 | correlation | u64: an answer carries its question's |
//! | 16 | checksum | u32, CRC-32C of the body; 0 = absent |
//! | 20 | | u32, zero |
//! | 24 | body | |
//!
//! Whoever opens a connection sends the [`PREAMBLE`] before its first frame, so that a listener can tell the
//! protocol from any other by four bytes.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

/// Bytes of a frame before its body.
pub const HEADER_BYTES: usize = 24;

/// What the side that opens a connection sends first: magic, version of the framing, zeros.
pub const PREAMBLE: [u8; 8] = *b"BOKI\x01\0\0\0";

/// Largest body accepted unless configured otherwise.
pub const DEFAULT_MAX_BODY: usize = 32 << 20;

const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What its body is; the protocol above knows.
    pub kind: u8,
    /// Modifies the kind.
    pub flags: u8,
    /// Ties an answer to its question.
    pub corr: u64,
    /// The contents, sharing the receive buffer's memory.
    pub body: Bytes,
}

/// The byte stream is not one of frames. There is no way to find the next frame: the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The stream does not begin with the preamble, or with one of another version.
    #[error("the connection does not begin with Boki's preamble, version 1")]
    Preamble,
    /// A frame is larger than this side accepts.
    #[error("a frame of {len} bytes is above the limit of {limit}")]
    TooLarge {
        /// Its body's length.
        len: u32,
        /// The most that is accepted.
        limit: usize,
    },
    /// A field that must be zero is not.
    #[error("a reserved field of a frame's header is set")]
    Reserved,
    /// The body is not what was sent.
    #[error("a frame's checksum does not match its body")]
    Checksum,
    /// The stream ended inside a frame.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
}

/// The checksum of a frame that has none.
pub(crate) const ABSENT: u32 = 0;

/// A frame's header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) corr: u64,
    pub(crate) checksum: u32,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&self.len.to_le_bytes());
        out[4] = self.kind;
        out[5] = self.flags;
        out[8..16].copy_from_slice(&self.corr.to_le_bytes());
        out[16..20].copy_from_slice(&self.checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let (words, _) = bytes.as_chunks::<4>();
        let [len, kinds, corr_low, corr_high, checksum, reserved] = words else { return Err(FrameError::Truncated) };
        let [kind, flags, zero @ ..] = *kinds;
        if zero != [0; 2] || *reserved != [0; 4] {
            return Err(FrameError::Reserved);
        }
        let corr = u64::from(u32::from_le_bytes(*corr_high)) << 32 | u64::from(u32::from_le_bytes(*corr_low));
        let (len, checksum) = (u32::from_le_bytes(*len), u32::from_le_bytes(*checksum));
        Ok(Header { len, kind, flags, corr, checksum })
    }
}

/// The checksum of a body in one piece. That of an empty one is 0, "absent".
pub(crate) fn checksum(body: &[u8]) -> u32 {
    if body.is_empty() { ABSENT } else { crc_fast::crc32_iscsi(body) }
}

/// The checksum of a body in pieces.
pub(crate) fn checksum_of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(ALGORITHM);
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize() as u32
}
