//! The frame: what one piece of the journal looks like on disk. Pure bytes, no files.
//!
//! Little-endian. Frames of a group follow one another without a gap; the group as a whole starts on a block boundary and is
//! filled up with zeros to the next.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32C over the directory's id, everything behind this field, and the body |
//! | 4 | 2 | magic `"BF"` |
//! | 6 | 1 | version: 1 if the body is stored as it is, else 2 |
//! | 7 | 1 | kind: the caller's |
//! | 8 | 4 | length of the body |
//! | 12 | 1 | flags: 1 = last frame of its group; in version 2 also 2 = compressed, 4 = sealed, one of them at the least |
//! | 13 | 3 | 0 |
//! | 16 | 8 | number of the segment |
//! | 24 | 8 | number of the group: 1 for the first of a journal, then one more with each |
//! | 32 | – | body; one that is compressed and sealed was compressed first |
//!
//! The directory's id is in the checksum, not in the frame: a frame of another directory is no frame here, and nobody who
//! may only choose a body can put a frame into it.

use crc_fast::{CrcAlgorithm, Digest};

/// Bytes in front of a frame's body.
pub const FRAME_HEADER_BYTES: usize = 32;

/// Groups start on multiples of this many bytes: what the page cache and disks write as one at the least, so that writing
/// a group never touches a block that holds an older one.
pub const BLOCK_BYTES: usize = 4096;

const PLAIN_VERSION: u8 = 1;
const CODED_VERSION: u8 = 2;
/// The newest version that is known, and all before it.
pub(crate) const VERSION: u8 = CODED_VERSION;
const MAGIC: [u8; 2] = *b"BF";
const LAST: u8 = 1;
const COMPRESSED: u8 = 2;
const SEALED: u8 = 4;

const MAGIC_AT: usize = 4;
const VERSION_AT: usize = 6;
const KIND_AT: usize = 7;
const LEN_AT: usize = 8;
const FLAGS_AT: usize = 12;
const ZERO_AT: usize = 13;
const SEGMENT_AT: usize = 16;
const GROUP_AT: usize = 24;

const _: () = assert!(GROUP_AT + size_of::<u64>() == FRAME_HEADER_BYTES);
const _: () = assert!(SEGMENT_AT + size_of::<u64>() == GROUP_AT);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(512) && FRAME_HEADER_BYTES <= BLOCK_BYTES);

/// Rounds up to whole blocks.
pub(crate) const fn to_blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// A frame's header, but for its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Of what was read; what is written has the version that fits it.
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) is_last: bool,
    pub(crate) is_compressed: bool,
    pub(crate) is_sealed: bool,
    pub(crate) len: u32,
    pub(crate) segment: u64,
    pub(crate) group: u64,
}

/// Why 32 bytes are not a header of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoFrame {
    /// All of them are 0: nothing was written here.
    Zeros,
    /// The magic or what must be 0 is wrong.
    Garbage,
}

impl FrameHeader {
    /// Whether the body is not stored as it is.
    pub(crate) fn is_coded(&self) -> bool {
        self.is_compressed || self.is_sealed
    }

    /// Whether its version is known.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self.version, PLAIN_VERSION | CODED_VERSION)
    }

    /// The header's bytes; the checksum is still 0.
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[MAGIC_AT..VERSION_AT].copy_from_slice(&MAGIC);
        out[VERSION_AT] = if self.is_coded() { CODED_VERSION } else { PLAIN_VERSION };
        out[KIND_AT] = self.kind;
        out[LEN_AT..FLAGS_AT].copy_from_slice(&self.len.to_le_bytes());
        for (is_set, flag) in [(self.is_last, LAST), (self.is_compressed, COMPRESSED), (self.is_sealed, SEALED)] {
            out[FLAGS_AT] |= if is_set { flag } else { 0 };
        }
        out[SEGMENT_AT..GROUP_AT].copy_from_slice(&self.segment.to_le_bytes());
        out[GROUP_AT..].copy_from_slice(&self.group.to_le_bytes());
        out
    }

    /// Reads a header, whose checksum and version are not judged yet: checksum, magic, version and length have their place
    /// in every version, so that frames of a later one are known as such and not taken for a torn write.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, NoFrame> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(NoFrame::Zeros);
        }
        if bytes[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err(NoFrame::Garbage);
        }
        let (version, flags) = (bytes[VERSION_AT], bytes[FLAGS_AT]);
        let coded = flags & (COMPRESSED | SEALED);
        let is_possible = match version {
            PLAIN_VERSION => flags & !LAST == 0,
            CODED_VERSION => flags & !(LAST | COMPRESSED | SEALED) == 0 && coded != 0,
            _ => true,
        };
        if !is_possible || (version <= VERSION && bytes[ZERO_AT..SEGMENT_AT] != [0; 3]) {
            return Err(NoFrame::Garbage);
        }
        let number = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let mut len = [0; 4];
        len.copy_from_slice(&bytes[LEN_AT..FLAGS_AT]);
        Ok(FrameHeader {
            version,
            kind: bytes[KIND_AT],
            is_last: flags & LAST != 0,
            is_compressed: flags & COMPRESSED != 0,
            is_sealed: flags & SEALED != 0,
            len: u32::from_le_bytes(len),
            segment: number(SEGMENT_AT),
            group: number(GROUP_AT),
        })
    }
}

/// Computes the checksums of one data directory's frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checksum {
    seeded: Digest,
}

impl Checksum {
    pub(crate) fn new(directory: u128) -> Checksum {
        let mut seeded = Digest::new(CrcAlgorithm::Crc32Iscsi);
        seeded.update(&directory.to_le_bytes());
        Checksum { seeded }
    }

    fn of(&self, covered: &[u8]) -> [u8; MAGIC_AT] {
        let mut digest = self.seeded;
        digest.update(covered);
        (digest.finalize() as u32).to_le_bytes()
    }

    /// Puts the checksum into `frame`, a header with its body.
    pub(crate) fn seal(&self, frame: &mut [u8]) {
        let (checksum, covered) = frame.split_at_mut(MAGIC_AT);
        checksum.copy_from_slice(&self.of(covered));
    }

    /// Whether `frame`, a header with its body, is as it was sealed.
    pub(crate) fn is_intact(&self, frame: &[u8]) -> bool {
        frame.split_at_checked(MAGIC_AT).is_some_and(|(checksum, covered)| checksum == self.of(covered))
    }
}

/// CRC-32C of `bytes`: for headers and blobs.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FrameHeader = FrameHeader {
        version: PLAIN_VERSION,
        kind: 7,
        is_last: true,
        is_compressed: false,
        is_sealed: false,
        len: 5,
        segment: 42,
        group: u64::MAX,
    };

    #[test]
    fn headers_survive_the_round_trip() {
        for (is_compressed, is_sealed) in [(false, false), (false, true), (true, false), (true, true)] {
            let version = if is_compressed || is_sealed { CODED_VERSION } else { PLAIN_VERSION };
            let header = FrameHeader { version, is_compressed, is_sealed, ..HEADER };
            assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        }
        assert_eq!(FrameHeader::decode(&[0; FRAME_HEADER_BYTES]), Err(NoFrame::Zeros));
    }

    #[test]
    fn flags_that_a_version_does_not_have_make_no_header() {
        for (version, flags) in
            [(PLAIN_VERSION, COMPRESSED), (PLAIN_VERSION, 8), (CODED_VERSION, LAST), (CODED_VERSION, 8)]
        {
            let mut bytes = HEADER.encode();
            (bytes[VERSION_AT], bytes[FLAGS_AT]) = (version, flags);
            assert_eq!(FrameHeader::decode(&bytes), Err(NoFrame::Garbage), "version {version}, flags {flags}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let checksum = Checksum::new(9);
        let header = FrameHeader { is_last: false, ..HEADER };
        let mut frame = header.encode().to_vec();
        frame.extend_from_slice(b"hello");
        checksum.seal(&mut frame);
        assert!(checksum.is_intact(&frame));
        assert!(!Checksum::new(8).is_intact(&frame), "a frame of another directory");
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(!checksum.is_intact(&frame), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
