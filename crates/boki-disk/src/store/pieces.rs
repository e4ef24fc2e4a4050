//! The bytes of a blob that is stored piece by piece. Pure, no files.
//!
//! Little-endian. A header, then pieces without a gap; every piece but the last holds [`PIECE_BYTES`].
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `"BOKIBULK"` |
//! | 8 | 4 | CRC-32C over the directory's id, the blob's name, and everything behind this field |
//! | 12 | 2 | version, 1 |
//! | 14 | 2 | 0 |
//! | 16 | – | pieces |
//!
//! | offset | bytes | field of a piece |
//! |---|---|---|
//! | 0 | 4 | CRC-32C over the directory's id, the blob's name, the piece's number (8 bytes, from 0) and everything behind this field |
//! | 4 | 4 | length of the body; the highest bit is set in the last piece |
//! | 8 | – | body |
//!
//! So a piece of another blob, at another place, or the end of a blob that was cut off, is none of this blob's.

use crc_fast::{CrcAlgorithm, Digest};

use super::name::BlobName;

/// Bytes of payload in a piece that is not the last.
pub const PIECE_BYTES: usize = 64 << 10;

pub(super) const HEADER_BYTES: usize = 16;
pub(super) const PIECE_HEADER_BYTES: usize = 8;

const MAGIC: [u8; 8] = *b"BOKIBULK";
const VERSION: u16 = 1;
const CRC_AT: usize = 8;
const VERSION_AT: usize = 12;
const ZERO_AT: usize = 14;
const LAST: u32 = 1 << 31;

const _: () = assert!(ZERO_AT + size_of::<u16>() == HEADER_BYTES);
const _: () = assert!(PIECE_BYTES < LAST as usize);

/// Computes the checksums of one blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    seeded: Digest,
}

impl Seal {
    pub(super) fn new(directory: u128, name: BlobName) -> Seal {
        let mut seeded = Digest::new(CrcAlgorithm::Crc32Iscsi);
        seeded.update(&directory.to_le_bytes());
        seeded.update(&name.to_bytes());
        Seal { seeded }
    }

    pub(super) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..CRC_AT].copy_from_slice(&MAGIC);
        header[VERSION_AT..ZERO_AT].copy_from_slice(&VERSION.to_le_bytes());
        let mut digest = self.seeded;
        digest.update(&header[VERSION_AT..]);
        header[CRC_AT..VERSION_AT].copy_from_slice(&(digest.finalize() as u32).to_le_bytes());
        header
    }

    pub(super) fn check_header(&self, header: &[u8; HEADER_BYTES]) -> Result<(), &'static str> {
        if header[..CRC_AT] != MAGIC {
            return Err("it does not start as it should");
        }
        if header[VERSION_AT..ZERO_AT] != VERSION.to_le_bytes() {
            return Err("it is of another version");
        }
        if *header == self.header() { Ok(()) } else { Err("its header does not match its checksum") }
    }

    fn of_piece(&self, number: u64, covered: &[u8]) -> [u8; 4] {
        let mut digest = self.seeded;
        digest.update(&number.to_le_bytes());
        digest.update(covered);
        (digest.finalize() as u32).to_le_bytes()
    }

    /// Fills in the header of `piece`, whose body lies behind it.
    pub(super) fn seal_piece(&self, number: u64, is_last: bool, piece: &mut [u8]) {
        let len = u32::try_from(piece.len() - PIECE_HEADER_BYTES).unwrap_or(u32::MAX);
        piece[4..PIECE_HEADER_BYTES].copy_from_slice(&(len | if is_last { LAST } else { 0 }).to_le_bytes());
        let (checksum, covered) = piece.split_at_mut(4);
        checksum.copy_from_slice(&self.of_piece(number, covered));
    }

    /// Whether `piece`, a header with its body, is that piece of this blob.
    pub(super) fn check_piece(&self, number: u64, is_last: bool, piece: &[u8]) -> Result<(), &'static str> {
        let (checksum, covered) = piece.split_at_checked(4).ok_or("a piece is too short")?;
        if checksum != self.of_piece(number, covered) {
            return Err("a piece does not match its checksum");
        }
        let len = covered.first_chunk().map_or(0, |len| u32::from_le_bytes(*len));
        if (len & LAST != 0) != is_last || (len & !LAST) as usize != piece.len() - PIECE_HEADER_BYTES {
            return Err("it has another length than it should");
        }
        Ok(())
    }
}

/// How a file of `file_bytes` is divided: how many pieces, and how many bytes of payload in all.
pub(super) fn layout(file_bytes: u64) -> Option<(u64, u64)> {
    let pieces_bytes = file_bytes.checked_sub(HEADER_BYTES as u64)?;
    let whole = (PIECE_HEADER_BYTES + PIECE_BYTES) as u64;
    let count = pieces_bytes.div_ceil(whole).max(1);
    let last = pieces_bytes - (count - 1) * whole;
    let last = last.checked_sub(PIECE_HEADER_BYTES as u64)?;
    Some((count, (count - 1) * PIECE_BYTES as u64 + last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_size_says_how_it_is_divided() {
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
        let seal = Seal::new(1, BlobName { owner: 2, item: 3, part: 4, version: 5 });
        let mut piece = vec![0; PIECE_HEADER_BYTES];
        piece.extend_from_slice(b"hello");
        seal.seal_piece(0, true, &mut piece);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&seal.header()), "424f4b4942554c4bbab9693f01000000");
        assert_eq!(hex(&piece), "85b769f50500008068656c6c6f");
    }
}
