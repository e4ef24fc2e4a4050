//! A table that is open: one filter probe, one search of the index and one block answer a question.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::block::{Block, Entry, Malformed, take_varint};
use super::cache::BlockCache;
use super::failure;
use super::filter::{self, BUCKET_BYTES, FilterShape, KeyHash};
use super::footer::{self, FOOTER_BYTES, Footer, HEADER_BYTES};
use super::index::BlockIndex;
use super::scan::Scan;
use super::seal::{Kind, Seal};
use crate::error::TableError;
use crate::vfs::{Vfs, VfsFile};

/// An immutable sorted table. Threads may use it at once.
#[derive(Debug)]
pub struct Table<V: Vfs> {
    file: V::File,
    name: String,
    seal: Seal,
    hash: KeyHash,
    footer: Footer,
    index: BlockIndex,
    shape: FilterShape,
    pieces: Vec<FilterPiece>,
    filter_memory: AtomicUsize,
    file_bytes: u64,
    cache: BlockCache,
    cache_file: u64,
}

/// A piece of the filter, read when it is first asked.
#[derive(Debug)]
struct FilterPiece {
    offset: u64,
    len: usize,
    bits: OnceLock<Vec<u8>>,
}

impl<V: Vfs> Table<V> {
    pub(super) fn open(
        vfs: &V,
        name: String,
        seal: Seal,
        hash: KeyHash,
        cache: BlockCache,
    ) -> Result<Self, TableError> {
        let failed = |source| failure("open", &name, source);
        let file = vfs.open(&name).map_err(failed)?;
        let file_bytes = file.len().map_err(failed)?;
        let damaged = |offset, what| TableError::Damaged { name: name.clone(), offset, what };
        let footer_offset = file_bytes.checked_sub(FOOTER_BYTES as u64).filter(|at| *at >= HEADER_BYTES as u64);
        let footer_offset = footer_offset.ok_or_else(|| damaged(0, "it is too short"))?;
        let mut header = [0; HEADER_BYTES];
        file.read_at(&mut header, 0).map_err(failed)?;
        footer::check_header(&header, &seal).map_err(|what| damaged(0, what))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(&mut footer, footer_offset).map_err(failed)?;
        let footer = Footer::decode(&footer, footer_offset, &seal).map_err(|what| damaged(footer_offset, what))?;
        let root_len = footer_offset.checked_sub(footer.root_offset).and_then(|len| usize::try_from(len).ok());
        let root_len = root_len.filter(|len| *len == footer.root_bytes as usize);
        let root_len = root_len.ok_or_else(|| damaged(footer_offset, "its parts do not fill it"))?;
        let table = Table {
            shape: FilterShape::for_keys(footer.filter_keys),
            index: BlockIndex::new(),
            pieces: Vec::new(),
            filter_memory: AtomicUsize::new(0),
            cache_file: cache.admit_file(),
            file,
            name,
            seal,
            hash,
            footer,
            file_bytes,
            cache,
        };
        table.load_index(root_len)
    }

    fn load_index(mut self, root_len: usize) -> Result<Self, TableError> {
        let Footer { root_offset, blocks_end, entries, .. } = self.footer;
        let root = self.read_sealed(Kind::Root, root_offset, root_len)?;
        let malformed = |Malformed| self.damaged(root_offset, "its root is malformed");
        let (filter, index) = parse_root(&root).map_err(malformed)?;
        let mut offset = blocks_end;
        let place = |len: u64, offset: &mut u64| {
            let at = *offset;
            *offset = at.checked_add(len).filter(|end| *end <= root_offset).ok_or(Malformed)?;
            Ok((at, usize::try_from(len).map_err(|_| Malformed)?))
        };
        let filter = filter.iter().map(|len| place(*len, &mut offset)).collect::<Result<Vec<_>, _>>();
        let filter = filter.map_err(malformed)?;
        let index = index.iter().map(|len| place(*len, &mut offset)).collect::<Result<Vec<_>, _>>();
        let index = index.map_err(malformed)?;
        if offset != root_offset || filter.len() != self.shape.pieces() {
            return Err(malformed(Malformed));
        }
        self.pieces =
            filter.into_iter().map(|(offset, len)| FilterPiece { offset, len, bits: OnceLock::new() }).collect();
        for (offset, len) in index {
            let piece = self.read_sealed(Kind::Index, offset, len)?;
            self.index.load(piece).map_err(|Malformed| self.damaged(offset, "its index is malformed"))?;
        }
        self.index.shrink();
        if self.index.end() != blocks_end || (self.index.len() == 0) != (entries == 0) {
            return Err(self.damaged(root_offset, "its index does not say where all blocks are"));
        }
        Ok(self)
    }

    /// Number of the table.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.seal.table()
    }

    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.footer.entries
    }

    /// Bytes of its file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of memory that its index takes, and what was needed of its filter so far. Blocks are the cache's.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let pieces = self.pieces.capacity() * size_of::<FilterPiece>();
        size_of::<Self>() + self.index.memory_bytes() + pieces + self.filter_memory.load(Ordering::Relaxed)
    }

    /// Bytes of memory that its whole filter takes once all of it was needed.
    #[must_use]
    pub fn filter_bytes(&self) -> u64 {
        self.shape.bytes()
    }

    /// Whether `filter_key` may be among the keys that were given to the filter; "no" is certain.
    ///
    /// # Errors
    /// [`TableError`]: the filter cannot be read, so nothing is certain.
    pub fn may_contain(&self, filter_key: &[u8]) -> Result<bool, TableError> {
        let hash = self.hash.of(filter_key);
        let Some((piece, at)) = self.shape.place(hash) else { return Ok(false) };
        let bits = self.filter_piece(piece)?;
        Ok(bits.get(at..at + BUCKET_BYTES).is_none_or(|bucket| filter::contains(bucket, hash)))
    }

    /// The first entry whose key is at or above `key`.
    ///
    /// # Errors
    /// [`TableError`]: nothing is known of such an entry.
    pub fn at_or_after(&self, key: &[u8]) -> Result<Option<Entry>, TableError> {
        let block = self.index.block_of(key).unwrap_or(0);
        match self.in_block(block, |found| found.at_or_after(key))? {
            Some(entry) => Ok(Some(entry)),
            None => self.in_block(block + 1, Block::first),
        }
    }

    /// The last entry whose key is at or below `key`.
    ///
    /// # Errors
    /// [`TableError`]: nothing is known of such an entry.
    pub fn at_or_before(&self, key: &[u8]) -> Result<Option<Entry>, TableError> {
        let Some(block) = self.index.block_of(key) else { return Ok(None) };
        match (self.in_block(block, |found| found.at_or_before(key))?, block.checked_sub(1)) {
            // The separator is below the block's first key: the entry is the last before it.
            (None, Some(before)) => self.in_block(before, Block::last),
            (found, _) => Ok(found),
        }
    }

    /// Goes through all entries in order, beside the cache.
    #[must_use]
    pub fn scan(&self) -> Scan<'_, V> {
        Scan::new(self, 0)
    }

    /// Goes through the entries in order from the first whose key is at or above `key`, beside the cache.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn scan_from(&self, key: &[u8]) -> Result<Scan<'_, V>, TableError> {
        let mut scan = Scan::new(self, self.index.block_of(key).unwrap_or(0));
        scan.skip_below(key)?;
        Ok(scan)
    }

    /// Reads the whole file and tells everything that is wrong with it.
    pub fn check(&self, found: &mut dyn FnMut(TableError)) {
        for piece in 0..self.pieces.len() {
            if let Err(error) = self.read_filter_piece(piece) {
                found(error);
            }
        }
        super::scan::check_blocks(self, found);
    }

    pub(super) fn index(&self) -> &BlockIndex {
        &self.index
    }

    pub(super) fn damaged(&self, offset: u64, what: &'static str) -> TableError {
        TableError::Damaged { name: self.name.clone(), offset, what }
    }

    /// Bytes of the file as they lie there.
    pub(super) fn read_raw(&self, offset: u64, bytes: &mut [u8]) -> Result<(), TableError> {
        self.file.read_at(bytes, offset).map_err(|source| failure("read", &self.name, source))
    }

    /// The block for what lies at that offset.
    pub(super) fn open_sealed(&self, kind: Kind, offset: u64, sealed: Vec<u8>) -> Result<Vec<u8>, TableError> {
        self.seal.open(kind, offset, sealed).map_err(|what| self.damaged(offset, what))
    }

    fn read_sealed(&self, kind: Kind, offset: u64, len: usize) -> Result<Vec<u8>, TableError> {
        let mut sealed = vec![0; len];
        self.read_raw(offset, &mut sealed)?;
        self.open_sealed(kind, offset, sealed)
    }

    fn filter_piece(&self, piece: usize) -> Result<&[u8], TableError> {
        let Some(known) = self.pieces.get(piece) else { return Err(self.damaged(0, "its filter is too short")) };
        if let Some(bits) = known.bits.get() {
            return Ok(bits);
        }
        let bits = self.read_filter_piece(piece)?;
        // Two threads may have read it; one keeps it.
        Ok(known.bits.get_or_init(|| {
            self.filter_memory.fetch_add(bits.len(), Ordering::Relaxed);
            bits
        }))
    }

    fn read_filter_piece(&self, piece: usize) -> Result<Vec<u8>, TableError> {
        let FilterPiece { offset, len, .. } = self.pieces[piece];
        let bits = self.read_sealed(Kind::Filter, offset, len)?;
        if bits.len() == self.shape.piece_bytes(piece) {
            Ok(bits)
        } else {
            Err(self.damaged(offset, "a piece of its filter has another length than it should"))
        }
    }

    /// Asks a block; `None` if there is no such block.
    fn in_block(
        &self,
        block: usize,
        ask: impl FnOnce(&Block) -> Result<Option<Entry>, Malformed>,
    ) -> Result<Option<Entry>, TableError> {
        let Some((offset, len)) = self.index.place(block) else { return Ok(None) };
        let read = || self.read_sealed(Kind::Block, offset, len).map(Bytes::from);
        let bytes = self.cache.get_or_read(self.cache_file, block as u32, read)?;
        let answer = Block::new(bytes).and_then(|block| ask(&block));
        answer.map_err(|Malformed| self.damaged(offset, "a block is malformed"))
    }
}

/// The lengths of the pieces of the filter, and of the index.
fn parse_root(root: &[u8]) -> Result<(Vec<u64>, Vec<u64>), Malformed> {
    let mut at = 0;
    let mut lens = || {
        let count = take_varint(root, &mut at).ok_or(Malformed)?;
        (0..count).map(|_| take_varint(root, &mut at).ok_or(Malformed)).collect::<Result<Vec<_>, _>>()
    };
    let parsed = (lens()?, lens()?);
    if at == root.len() { Ok(parsed) } else { Err(Malformed) }
}
