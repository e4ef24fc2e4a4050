//! The index of a table: where its blocks lie and which keys are in which. In memory as a whole, without an allocation per
//! block. Pure bytes.
//!
//! Of a block it knows a **separator**: the shortest key that is above everything before the block and not above anything in
//! it. On disk it is entries of separator and length of the block, in pieces that are blocks themselves.

use super::block::{Block, BlockBuilder, Malformed, put_varint, take_varint};
use super::footer::HEADER_BYTES;

/// About how many bytes a piece of an index has.
const PIECE_BYTES: usize = 64 << 10;

/// Makes an index.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    piece: BlockBuilder,
    /// Those that are full.
    pieces: Vec<Vec<u8>>,
}

impl IndexBuilder {
    /// Adds a block of `len` bytes behind the last.
    pub(super) fn add(&mut self, separator: &[u8], len: u64) {
        let mut value = Vec::new();
        put_varint(&mut value, len);
        self.piece.add(separator, &value);
        if self.piece.len() >= PIECE_BYTES {
            self.end_piece();
        }
    }

    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        self.end_piece();
        self.pieces
    }

    fn end_piece(&mut self) {
        if !self.piece.is_empty() {
            self.pieces.push(self.piece.finish(<[u8]>::to_vec));
        }
    }
}

/// An index in memory.
#[derive(Debug)]
pub(super) struct BlockIndex {
    /// All separators, one behind the other.
    separators: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<u32>,
    /// Where each block begins, and where the last ends.
    offsets: Vec<u64>,
}

impl BlockIndex {
    pub(super) fn new() -> BlockIndex {
        BlockIndex { separators: Vec::new(), ends: Vec::new(), offsets: vec![HEADER_BYTES as u64] }
    }

    /// Adds the blocks of the next piece.
    pub(super) fn load(&mut self, piece: Vec<u8>) -> Result<(), Malformed> {
        let mut cursor = Block::new(piece.into())?.cursor();
        while cursor.advance()? {
            let len = take_varint(cursor.value(), &mut 0).ok_or(Malformed)?;
            let end = self.end().checked_add(len).ok_or(Malformed)?;
            if !self.ends.is_empty() && cursor.key() <= self.separator(self.ends.len() - 1) {
                return Err(Malformed);
            }
            self.separators.extend_from_slice(cursor.key());
            self.ends.push(u32::try_from(self.separators.len()).map_err(|_| Malformed)?);
            self.offsets.push(end);
        }
        Ok(())
    }

    /// Gives back what it took in advance while it was loaded.
    pub(super) fn shrink(&mut self) {
        self.separators.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.offsets.shrink_to_fit();
    }

    /// How many blocks there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where the last block ends.
    pub(super) fn end(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(HEADER_BYTES as u64)
    }

    /// Offset and length of a block.
    pub(super) fn place(&self, block: usize) -> Option<(u64, usize)> {
        let offset = *self.offsets.get(block)?;
        let end = *self.offsets.get(block + 1)?;
        Some((offset, usize::try_from(end - offset).ok()?))
    }

    /// The last block that can hold a key at or below `key`; `None` if even the first cannot.
    pub(super) fn block_of(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.separator(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1)
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.separators.capacity()
            + self.ends.capacity() * size_of::<u32>()
            + self.offsets.capacity() * size_of::<u64>()
    }

    pub(super) fn separator(&self, block: usize) -> &[u8] {
        let start = block.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.separators[start..self.ends[block] as usize]
    }
}
