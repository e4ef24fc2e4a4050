//! What lies around everything in a table file: a checksum that says where it belongs, and a codec.
//!
//! The checksum covers the data directory's id, the table's number, what kind of thing it is and its offset in the file, so
//! what is of another directory, table or place does not match.

use std::fmt;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};

/// Bytes of the checksum behind everything.
pub(super) const CRC_BYTES: usize = 4;

/// What lies in a table file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 0,
    Block = 1,
    Filter = 2,
    Index = 3,
    Root = 4,
    Footer = 5,
}

/// Where in which file a block lies: no two blocks that are written have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// Id of the data directory.
    pub directory: u128,
    /// Number of the table, which is never used again.
    pub table: u64,
    /// Offset in its file, in bytes.
    pub offset: u64,
}

/// Turns blocks into what lies on disk and back: a place for a cipher or for compression.
pub trait BlockCodec: fmt::Debug + Send + Sync {
    /// Which codec this is; 0 is [`PlainBlocks`]. A table is only read by the codec that wrote it.
    fn id(&self) -> u8;
    /// Appends to `out` what is to lie on disk for `block`.
    fn seal(&self, place: &BlockPlace, block: &[u8], out: &mut Vec<u8>);
    /// The block for what lies on disk, whose checksum is right; `None` if it is not what was sealed for this place.
    fn open(&self, place: &BlockPlace, sealed: Vec<u8>) -> Option<Vec<u8>>;
}

/// Blocks lie on disk as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainBlocks;

impl BlockCodec for PlainBlocks {
    fn id(&self) -> u8 {
        0
    }

    fn seal(&self, _place: &BlockPlace, block: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(block);
    }

    fn open(&self, _place: &BlockPlace, sealed: Vec<u8>) -> Option<Vec<u8>> {
        Some(sealed)
    }
}

/// Seals and opens what lies in one table file.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    directory: u128,
    table: u64,
    seeded: Digest,
    codec: Arc<dyn BlockCodec>,
}

impl Seal {
    pub(super) fn new(directory: u128, table: u64, codec: Arc<dyn BlockCodec>) -> Seal {
        let mut seeded = Digest::new(CrcAlgorithm::Crc32Iscsi);
        seeded.update(&directory.to_le_bytes());
        seeded.update(&table.to_le_bytes());
        Seal { directory, table, seeded, codec }
    }

    pub(super) fn table(&self) -> u64 {
        self.table
    }

    pub(super) fn codec(&self) -> u8 {
        self.codec.id()
    }

    /// The checksum of `bytes`, which are of that kind and lie at that offset.
    pub(super) fn checksum(&self, kind: Kind, offset: u64, bytes: &[u8]) -> [u8; CRC_BYTES] {
        let mut place = [kind as u8; 9];
        place[1..].copy_from_slice(&offset.to_le_bytes());
        let mut digest = self.seeded;
        digest.update(&place);
        digest.update(bytes);
        (digest.finalize() as u32).to_le_bytes()
    }

    /// Appends to `out`, whose end lies at that offset of the file, what is to lie there for `block`.
    pub(super) fn close(&self, kind: Kind, offset: u64, block: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.codec.seal(&self.place(offset), block, out);
        let checksum = self.checksum(kind, offset, &out[start..]);
        out.extend_from_slice(&checksum);
    }

    /// The block for what lies at that offset.
    pub(super) fn open(&self, kind: Kind, offset: u64, mut sealed: Vec<u8>) -> Result<Vec<u8>, &'static str> {
        let (covered, checksum) = sealed.split_last_chunk::<CRC_BYTES>().ok_or("it is too short")?;
        if self.checksum(kind, offset, covered) != *checksum {
            return Err(match kind {
                Kind::Filter => "a piece of its filter does not match its checksum",
                Kind::Index | Kind::Root => "its index does not match its checksum",
                _ => "a block does not match its checksum",
            });
        }
        sealed.truncate(covered.len());
        self.codec.open(&self.place(offset), sealed).ok_or("a block cannot be opened: it was sealed otherwise")
    }

    fn place(&self, offset: u64) -> BlockPlace {
        BlockPlace { directory: self.directory, table: self.table, offset }
    }
}
