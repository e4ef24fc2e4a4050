//! The bytes of a blob that is stored piece by piece. Pure, no files.
//!
//! Little-endian. A header, then pieces without a gap; every piece but the last holds [`PIECE_BYTES`].
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `"BOKIBULK"` |
//! | 8 | 4 | CRC-32C over the directory's id, the blob's name, and everything behind this field |
//! | 12 | 2 | version: 1, or 2 if its pieces are sealed |
//! | 14 | 2 | 0 |
//! | 16 | – | pieces |
//!
//! | offset | bytes | field of a piece |
//! |---|---|---|
//! | 0 | 4 | CRC-32C over the directory's id, the blob's name, the piece's number (8 bytes, from 0) and everything behind this field |
//! | 4 | 4 | length of the body; the highest bit is set in the last piece |
//! | 8 | – | body; in version 2 a sealed unit, which is longer |
//!
//! So a piece of another blob, at another place, or the end of a blob that was cut off, is none of this blob's.
//!
//! Additional data of a unit: the directory's id (16 bytes), `"bulk"`, the name (33 bytes), the piece's number (8 bytes), and 1 byte:
//! whether it is the last.

use std::ops::Range;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};

use super::name::BlobName;
use crate::seal::{self, Keyring, SEAL_BYTES, SealError};

/// Bytes of payload in a piece that is not the last.
pub const PIECE_BYTES: usize = 64 << 10;

pub(super) const HEADER_BYTES: usize = 16;
const PIECE_HEADER_BYTES: usize = 8;

const MAGIC: [u8; 8] = *b"BOKIBULK";
const PLAIN_VERSION: u16 = 1;
const SEALED_VERSION: u16 = 2;
const CRC_AT: usize = 8;
const VERSION_AT: usize = 12;
const ZERO_AT: usize = 14;
const LAST: u32 = 1 << 31;

const _: () = assert!(ZERO_AT + size_of::<u16>() == HEADER_BYTES);
const _: () = assert!(PIECE_BYTES < LAST as usize);

/// Writes and reads the pieces of one blob.
#[derive(Clone, Debug)]
pub(super) struct Codec {
    seeded: Digest,
    /// What the additional data of every piece begins with.
    place: Vec<u8>,
    /// There if pieces are sealed.
    ring: Option<Arc<Keyring>>,
}

impl Codec {
    pub(super) fn new(directory: u128, name: BlobName, ring: Option<Arc<Keyring>>) -> Codec {
        let mut seeded = Digest::new(CrcAlgorithm::Crc32Iscsi);
        seeded.update(&directory.to_le_bytes());
        seeded.update(&name.to_bytes());
        let place = [&directory.to_le_bytes(), &b"bulk"[..], &name.to_bytes()].concat();
        Codec { seeded, place, ring }
    }

    pub(super) fn header(&self) -> [u8; HEADER_BYTES] {
        let version = if self.ring.is_some() { SEALED_VERSION } else { PLAIN_VERSION };
        let mut header = [0; HEADER_BYTES];
        header[..CRC_AT].copy_from_slice(&MAGIC);
        header[VERSION_AT..ZERO_AT].copy_from_slice(&version.to_le_bytes());
        let mut digest = self.seeded;
        digest.update(&header[VERSION_AT..]);
        header[CRC_AT..VERSION_AT].copy_from_slice(&(digest.finalize() as u32).to_le_bytes());
        header
    }

    /// Judges a blob's header, and reads what follows as it says.
    pub(super) fn check_header(&mut self, header: &[u8; HEADER_BYTES]) -> Result<(), &'static str> {
        if header[..CRC_AT] != MAGIC {
            return Err("it does not start as it should");
        }
        match u16::from_le_bytes([header[VERSION_AT], header[VERSION_AT + 1]]) {
            PLAIN_VERSION => {
                if self.ring.take().is_some_and(|ring| !ring.accepts_plain()) {
                    return Err("it is not encrypted");
                }
            }
            SEALED_VERSION if self.ring.is_none() => return Err("it is encrypted"),
            SEALED_VERSION => {}
            _ => return Err("it is of another version"),
        }
        if *header == self.header() { Ok(()) } else { Err("its header does not match its checksum") }
    }

    /// Bytes of a piece before its payload.
    pub(super) fn front_bytes(&self) -> usize {
        PIECE_HEADER_BYTES + if self.ring.is_some() { seal::HEAD_BYTES } else { 0 }
    }

    /// By how much a piece is longer than its payload.
    pub(super) fn extra_bytes(&self) -> usize {
        PIECE_HEADER_BYTES + if self.ring.is_some() { SEAL_BYTES } else { 0 }
    }

    fn checksum(&self, number: u64, covered: &[u8]) -> [u8; 4] {
        let mut digest = self.seeded;
        digest.update(&number.to_le_bytes());
        digest.update(covered);
        (digest.finalize() as u32).to_le_bytes()
    }

    fn aad(&self, number: u64, is_last: bool) -> Vec<u8> {
        [&self.place, &number.to_le_bytes()[..], &[u8::from(is_last)]].concat()
    }

    /// Completes `piece`: its payload, behind [`Codec::front_bytes`], to be filled in, and with room behind it for the rest of
    /// [`Codec::extra_bytes`].
    pub(super) fn finish_piece(&self, number: u64, is_last: bool, piece: &mut [u8]) {
        let len = u32::try_from(piece.len() - self.extra_bytes()).unwrap_or(u32::MAX);
        if let Some(ring) = &self.ring {
            ring.seal(&self.aad(number, is_last), &mut piece[PIECE_HEADER_BYTES..]);
        }
        piece[4..PIECE_HEADER_BYTES].copy_from_slice(&(len | if is_last { LAST } else { 0 }).to_le_bytes());
        let (checksum, covered) = piece.split_at_mut(4);
        checksum.copy_from_slice(&self.checksum(number, covered));
    }

    /// Where in `piece` its payload is, if it is that piece of this blob. One that is sealed is opened in place.
    pub(super) fn open_piece(
        &self,
        number: u64,
        is_last: bool,
        piece: &mut [u8],
    ) -> Result<Range<usize>, &'static str> {
        let (checksum, covered) = piece.split_at_checked(4).ok_or("a piece is too short")?;
        if checksum != self.checksum(number, covered) {
            return Err("a piece does not match its checksum");
        }
        let len = covered.first_chunk().map_or(0, |len| u32::from_le_bytes(*len));
        let payload = (len & !LAST) as usize;
        if (len & LAST != 0) != is_last || piece.len().checked_sub(self.extra_bytes()) != Some(payload) {
            return Err("it has another length than it should");
        }
        if let Some(ring) = &self.ring {
            let opened = ring.open(&self.aad(number, is_last), &mut piece[PIECE_HEADER_BYTES..]);
            opened.map_err(|error| match error {
                SealError::NotAuthentic => "a piece is not what was encrypted",
                SealError::NoKey(_) => "it is encrypted with a key that was not given",
            })?;
        }
        let front = self.front_bytes();
        Ok(front..front + payload)
    }

    /// How a file of `file_bytes` is divided: how many pieces, and how many bytes of payload in all.
    pub(super) fn layout(&self, file_bytes: u64) -> Option<(u64, u64)> {
        let pieces_bytes = file_bytes.checked_sub(HEADER_BYTES as u64)?;
        let extra = self.extra_bytes() as u64;
        let whole = extra + PIECE_BYTES as u64;
        let count = pieces_bytes.div_ceil(whole).max(1);
        let last = pieces_bytes - (count - 1) * whole;
        let last = last.checked_sub(extra)?;
        Some((count, (count - 1) * PIECE_BYTES as u64 + last))
    }
}

/// The beginning of the first piece's unit, if pieces are sealed.
pub(super) fn first_unit(head: &[u8]) -> Option<&[u8]> {
    let is_sealed = head.get(VERSION_AT..ZERO_AT)? == SEALED_VERSION.to_le_bytes();
    if is_sealed { head.get(HEADER_BYTES + PIECE_HEADER_BYTES..) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: BlobName = BlobName { owner: 2, item: 3, part: 4, version: 5 };

    #[test]
    fn a_files_size_says_how_it_is_divided() {
        let codec = Codec::new(1, NAME, None);
        let layout = |bytes| codec.layout(bytes);
        assert_eq!(layout(15), None);
        assert_eq!(layout(16), None);
        assert_eq!(layout(23), None);
        assert_eq!(layout(24), Some((1, 0)));
        assert_eq!(layout(25), Some((1, 1)));
        let whole = (PIECE_HEADER_BYTES + PIECE_BYTES) as u64;
        assert_eq!(layout(16 + whole), Some((1, PIECE_BYTES as u64)));
        assert_eq!(layout(16 + whole + 1), None);
        assert_eq!(layout(16 + whole + 9), Some((2, PIECE_BYTES as u64 + 1)));
    }

    #[test]
    fn the_bytes_are_these() {
        let codec = Codec::new(1, NAME, None);
        let mut piece = vec![0; PIECE_HEADER_BYTES];
        piece.extend_from_slice(b"hello");
        codec.finish_piece(0, true, &mut piece);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&codec.header()), "424f4b4942554c4bbab9693f01000000");
        assert_eq!(hex(&piece), "85b769f50500008068656c6c6f");
    }
}
