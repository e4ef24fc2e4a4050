//! The segment file: its name, its header, and how a fresh one is made. Frames are `frame`'s subject.
//!
//! A segment is a header in a block of its own, then groups. Its file is as long as it will ever be from the start, and
//! filled with zeros, because then a sync has nothing to write but the data: no length, no block map.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `"BOKISEG1"` |
//! | 8 | 4 | CRC-32C over everything behind this field |
//! | 12 | 2 | version: 1 if all frames are stored as they are, else 2 |
//! | 14 | 2 | flags: in version 2, 1 = all frames are sealed; others are 0 |
//! | 16 | 16 | id of the data directory |
//! | 32 | 8 | number of the segment, from 1 |
//! | 40 | 8 | number of its first group: all groups before it are in earlier segments |
//! | 48 | 8 | when it was made, microseconds since 1970 |
//! | 56 | 4 | if its frames are sealed, the id of the key, big-endian; else 0 |
//! | 60 | 4 | 0 |
//! | 64 | 4032 | 0 |
//! | 4096 | – | groups |

use std::io;
use std::ops::Range;

use crate::coding::Coding;
use crate::error::Damage;
use crate::frame::{BLOCK_BYTES, crc32c, to_blocks};
use crate::seal::KeyId;
use crate::vfs::{Vfs, VfsFile};

/// The directory of segments.
pub const DIR: &str = "seg";

/// Where the first group of a segment is.
pub(crate) const FIRST_GROUP_AT: u64 = BLOCK_BYTES as u64;

const MAGIC: [u8; 8] = *b"BOKISEG1";
const PLAIN_VERSION: u16 = 1;
const CODED_VERSION: u16 = 2;
const SEALED: u16 = 1;
const HEADER_BYTES: usize = 64;

const CRC_AT: usize = 8;
const COVERED_AT: usize = 12;
const FLAGS_AT: usize = 14;
const DIRECTORY_AT: usize = 16;
const NUMBER_AT: usize = 32;
const FIRST_GROUP_FIELD_AT: usize = 40;
const CREATED_AT: usize = 48;
const KEY_AT: usize = 56;
const RESERVED_AT: usize = 60;

const _: () = assert!(DIRECTORY_AT + size_of::<u128>() == NUMBER_AT);
const _: () = assert!(CREATED_AT + size_of::<u64>() == KEY_AT);
const _: () = assert!(RESERVED_AT + size_of::<u32>() == HEADER_BYTES && HEADER_BYTES <= BLOCK_BYTES);

/// How much is zeroed with one write.
const ZEROED_AT_ONCE_BYTES: usize = 1 << 20;

/// What a segment's file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) directory: u128,
    pub(crate) number: u64,
    pub(crate) first_group: u64,
    pub(crate) created_us: u64,
    pub(crate) coding: Coding,
}

impl SegmentHeader {
    /// The first block of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; BLOCK_BYTES];
        out[..CRC_AT].copy_from_slice(&MAGIC);
        let (version, flags, key) = match self.coding {
            Coding::Plain => (PLAIN_VERSION, 0, 0),
            Coding::Compressed => (CODED_VERSION, 0, 0),
            Coding::Sealed(KeyId(key)) => (CODED_VERSION, SEALED, key),
        };
        out[COVERED_AT..FLAGS_AT].copy_from_slice(&version.to_le_bytes());
        out[FLAGS_AT..DIRECTORY_AT].copy_from_slice(&flags.to_le_bytes());
        out[KEY_AT..RESERVED_AT].copy_from_slice(&key.to_be_bytes());
        out[DIRECTORY_AT..NUMBER_AT].copy_from_slice(&self.directory.to_le_bytes());
        out[NUMBER_AT..FIRST_GROUP_FIELD_AT].copy_from_slice(&self.number.to_le_bytes());
        out[FIRST_GROUP_FIELD_AT..CREATED_AT].copy_from_slice(&self.first_group.to_le_bytes());
        out[CREATED_AT..KEY_AT].copy_from_slice(&self.created_us.to_le_bytes());
        let checksum = crc32c(&out[COVERED_AT..HEADER_BYTES]);
        out[CRC_AT..COVERED_AT].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads and judges a header that should be of segment `number` of `directory`.
    pub(crate) fn decode(bytes: &[u8], directory: u128, number: u64) -> Result<SegmentHeader, Damage> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Damage::SegmentHeader)?;
        let field = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let checksum = crc32c(&bytes[COVERED_AT..]).to_le_bytes();
        if bytes[..CRC_AT] != MAGIC || bytes[CRC_AT..COVERED_AT] != checksum {
            return Err(Damage::SegmentHeader);
        }
        let version = u16::from_le_bytes([bytes[COVERED_AT], bytes[COVERED_AT + 1]]);
        let flags = u16::from_le_bytes([bytes[FLAGS_AT], bytes[FLAGS_AT + 1]]);
        let key = u32::from_be_bytes([bytes[KEY_AT], bytes[KEY_AT + 1], bytes[KEY_AT + 2], bytes[KEY_AT + 3]]);
        let coding = match (version, flags) {
            (PLAIN_VERSION, _) => Coding::Plain,
            (CODED_VERSION, 0) => Coding::Compressed,
            (CODED_VERSION, SEALED) => Coding::Sealed(KeyId(key)),
            (CODED_VERSION, _) => return Err(Damage::SegmentHeader),
            _ => return Err(Damage::SegmentVersion { found: version, known: CODED_VERSION }),
        };
        let found = u128::from(field(DIRECTORY_AT)) | u128::from(field(DIRECTORY_AT + 8)) << 64;
        if found != directory {
            return Err(Damage::OtherDirectory { found });
        }
        let header = SegmentHeader {
            directory,
            number: field(NUMBER_AT),
            first_group: field(FIRST_GROUP_FIELD_AT),
            created_us: field(CREATED_AT),
            coding,
        };
        if header.number != number {
            return Err(Damage::OtherSegment { found: header.number });
        }
        // No journal has got so far, and one that had could not go on.
        if header.first_group == 0 || header.first_group > u64::MAX / 2 {
            return Err(Damage::SegmentHeader);
        }
        Ok(header)
    }
}

/// Name of a segment's file.
pub(crate) fn file_name(number: u64) -> String {
    format!("{DIR}/{number:016}.log")
}

/// Name of a segment's file until it is in use.
pub(crate) fn fresh_file_name(number: u64) -> String {
    format!("{DIR}/{number:016}.new")
}

/// What a file in the directory of segments is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A segment.
    Segment(u64),
    /// A segment that was not in use yet.
    Fresh(u64),
    /// The place file of a segment.
    Places(u64),
    /// A place file that was being written.
    FreshPlaces,
    /// Left over from a blob's replacement that did not end.
    Leftover,
    /// Not ours, or a record of the journal as a whole.
    Other,
}

impl FileKind {
    pub(crate) fn of(name: &str) -> FileKind {
        let number = |stem: &str| stem.parse().ok().filter(|number| *number > 0 && stem == format!("{number:016}"));
        match name.rsplit_once('.') {
            Some((stem, "log")) => number(stem).map_or(FileKind::Other, FileKind::Segment),
            Some((stem, "new")) => number(stem).map_or(FileKind::Other, FileKind::Fresh),
            Some((stem, "places")) => number(stem).map_or(FileKind::Other, FileKind::Places),
            Some((stem, "tmp")) if matches!(FileKind::of(stem), FileKind::Places(_)) => FileKind::FreshPlaces,
            Some((stem, "tmp")) if [crate::removed::FILE, crate::reach::FILE].contains(&stem) => FileKind::Leftover,
            _ => FileKind::Other,
        }
    }
}

/// Makes a file of `bytes` under the fresh name of segment `number`: its space is taken, and it reads as zeros. Not durable yet.
pub(crate) fn make<V: Vfs>(vfs: &V, number: u64, bytes: u64) -> io::Result<V::File> {
    let name = fresh_file_name(number);
    let file = vfs.create(&name)?;
    match file.allocate(bytes) {
        Ok(()) => Ok(file),
        Err(error) => {
            // Gives back the space; if that fails too, opening the journal again does it.
            let _ = vfs.remove(&name);
            Err(error)
        }
    }
}

/// Turns a file that reads as zeros, under its fresh name, into a segment. Its new name is not durable yet.
pub(crate) fn name<V: Vfs>(vfs: &V, file: &V::File, header: &SegmentHeader) -> io::Result<()> {
    file.write_at(&header.encode(), 0)?;
    file.sync_data()?;
    vfs.rename(&fresh_file_name(header.number), &file_name(header.number))
}

/// Fills a range with zeros, durably.
pub(crate) fn zero<F: VfsFile>(file: &F, range: Range<u64>) -> io::Result<()> {
    let most = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let zeros = vec![0; most.min(ZEROED_AT_ONCE_BYTES)];
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(&zeros[..len], at)?;
        at += len as u64;
    }
    file.sync_data()
}

/// How long a segment's file must be to hold a group of `group_bytes`, and is at the least.
pub(crate) fn file_bytes(segment_bytes: u64, group_bytes: u64) -> u64 {
    to_blocks(segment_bytes.max(FIRST_GROUP_AT + group_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let coding = Coding::Sealed(KeyId(0xaabb_ccdd));
        let header = SegmentHeader { directory: 77, number: 3, first_group: 12, created_us: 5, coding };
        for coding in [Coding::Plain, Coding::Compressed] {
            let header = SegmentHeader { coding, ..header };
            assert_eq!(SegmentHeader::decode(&header.encode(), 77, 3), Ok(header));
        }
        let mut block = header.encode();
        assert_eq!(SegmentHeader::decode(&block, 77, 3), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&block, 77, 3), Err(Damage::SegmentHeader), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_header_with_a_group_that_cannot_be_is_refused() {
        for first_group in [0, u64::MAX] {
            let block =
                SegmentHeader { directory: 77, number: 3, first_group, created_us: 5, coding: Coding::Plain }.encode();
            assert_eq!(SegmentHeader::decode(&block, 77, 3), Err(Damage::SegmentHeader));
        }
    }

    #[test]
    fn a_header_of_another_directory_or_number_is_refused() {
        let block =
            SegmentHeader { directory: 77, number: 3, first_group: 12, created_us: 5, coding: Coding::Plain }.encode();
        assert_eq!(SegmentHeader::decode(&block, 78, 3), Err(Damage::OtherDirectory { found: 77 }));
        assert_eq!(SegmentHeader::decode(&block, 77, 4), Err(Damage::OtherSegment { found: 3 }));
        assert_eq!(SegmentHeader::decode(&[], 77, 4), Err(Damage::SegmentHeader));
    }

    #[test]
    fn only_our_names_are_segments() {
        assert_eq!(FileKind::of("0000000000000042.log"), FileKind::Segment(42));
        assert_eq!(FileKind::of("0000000000000042.new"), FileKind::Fresh(42));
        assert_eq!(FileKind::of("removed.tmp"), FileKind::Leftover);
        assert_eq!(FileKind::of("0000000000000042.places"), FileKind::Places(42));
        assert_eq!(FileKind::of("0000000000000042.places.tmp"), FileKind::FreshPlaces);
        for other in
            ["42.log", "42.new", "0000000000000000.log", "+000000000000042.log", "removed", ".DS_Store", "a.log"]
        {
            assert_eq!(FileKind::of(other), FileKind::Other, "{other}");
        }
    }
}
