//! Writes a table from its first entry to its last.

use bytes::Bytes;

use super::block::{BlockBuilder, common_prefix, put_varint};
use super::filter::{self, BUCKET_BYTES, FilterShape, KeyHash};
use super::footer::{self, Footer};
use super::index::IndexBuilder;
use super::seal::{Kind, Seal};
use super::{DIR, TableInfo, failure};
use crate::error::TableError;
use crate::vfs::{Vfs, VfsFile};

/// Longest key.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// Longest value. One that is longer than a block has a block of its own.
pub const MAX_VALUE_BYTES: usize = 16 << 20;

/// A block ends before it gets longer than this. It lies anywhere in the file: a read costs what it costs the disk for one
/// page or two, and less would make the index longer.
const BLOCK_BYTES: usize = 4 << 10;

/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 256 << 10;

/// After so many bytes a sync, so that there is never so much to sync at once that the log's own syncs wait for it.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// Hashes that are kept in one piece of memory.
const HASHES_PER_CHUNK: usize = 8 << 10;

/// A table that is being written. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct TableWriter<V: Vfs> {
    vfs: V,
    sync: bool,
    file: V::File,
    /// The name that the file has; `None` once it has its own.
    fresh: Option<String>,
    name: String,
    seal: Seal,
    hash: KeyHash,
    block: BlockBuilder,
    /// The key in the index for the block that is being filled.
    separator: Vec<u8>,
    index: IndexBuilder,
    /// Hashes of the filter's keys. How large the filter must be is known at the end.
    hashes: Vec<Vec<u64>>,
    filter_keys: u64,
    entries: u64,
    first_key: Bytes,
    /// Not written yet.
    pending: Vec<u8>,
    written: u64,
    synced: u64,
    has_failed: bool,
}

impl<V: Vfs> TableWriter<V> {
    /// Begins the file `fresh`, which becomes `name`.
    pub(super) fn begin(
        vfs: V,
        fresh: String,
        name: String,
        seal: Seal,
        hash: KeyHash,
        sync: bool,
    ) -> Result<Self, TableError> {
        let file = vfs.create(&fresh).map_err(|source| failure("write", &name, source))?;
        let pending = footer::header(&seal).to_vec();
        Ok(TableWriter {
            vfs,
            sync,
            file,
            fresh: Some(fresh),
            name,
            seal,
            hash,
            block: BlockBuilder::default(),
            separator: Vec::new(),
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            filter_keys: 0,
            entries: 0,
            first_key: Bytes::new(),
            pending,
            written: 0,
            synced: 0,
            has_failed: false,
        })
    }

    /// Adds an entry, whose key must be greater than all before.
    ///
    /// # Errors
    /// [`TableError::Unordered`], [`TableError::TooLarge`]: nothing was added. [`TableError::Full`], [`TableError::Io`]: the
    /// table cannot be finished any more.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        if self.entries > 0 && key <= self.block.last_key() {
            return Err(TableError::Unordered { name: self.name.clone() });
        }
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            return Err(TableError::TooLarge { name: self.name.clone(), bytes: key.len().max(value.len()) });
        }
        if self.entries == 0 {
            self.first_key = Bytes::copy_from_slice(key);
        }
        if !self.block.is_empty() && self.block.len() + key.len() + value.len() > BLOCK_BYTES {
            let distinct = common_prefix(self.block.last_key(), key) + 1;
            self.end_block()?;
            self.separator.clear();
            self.separator.extend_from_slice(&key[..distinct]);
        }
        self.block.add(key, value);
        self.entries += 1;
        Ok(())
    }

    /// Puts a key into the filter: from now on [`Table::may_contain`](super::Table::may_contain) says yes to it. One that
    /// is given again takes its room again, unless it is at once.
    pub fn add_filter_key(&mut self, key: &[u8]) {
        let hash = self.hash.of(key);
        if self.hashes.last().and_then(|chunk| chunk.last()) == Some(&hash) {
            return;
        }
        match self.hashes.last_mut() {
            Some(chunk) if chunk.len() < HASHES_PER_CHUNK => chunk.push(hash),
            _ => {
                let mut chunk = Vec::with_capacity(HASHES_PER_CHUNK);
                chunk.push(hash);
                self.hashes.push(chunk);
            }
        }
        self.filter_keys += 1;
    }

    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes that the file has by now; filter and index are still to come.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end() + self.block.len() as u64
    }

    /// Writes what is left, and gives the table its name. It is durable when this returns.
    ///
    /// # Errors
    /// [`TableError::Full`], [`TableError::Io`]: there is no such table.
    pub fn finish(mut self) -> Result<TableInfo, TableError> {
        let last_key = Bytes::copy_from_slice(self.block.last_key());
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let blocks_end = self.end();
        let filter_lens = self.write_filter()?;
        let pieces = std::mem::take(&mut self.index).finish();
        let index_lens = pieces.iter().map(|piece| self.put(Kind::Index, piece)).collect::<Result<Vec<_>, _>>()?;
        let mut root = Vec::new();
        for lens in [filter_lens, index_lens] {
            put_varint(&mut root, lens.len() as u64);
            lens.iter().for_each(|len| put_varint(&mut root, *len));
        }
        let root_offset = self.end();
        let root_bytes = self.put(Kind::Root, &root)? as u32;
        let Self { entries, filter_keys, .. } = self;
        let footer = Footer { root_offset, root_bytes, entries, filter_keys, blocks_end };
        let footer = footer.encode(self.end(), &self.seal);
        self.pending.extend_from_slice(&footer);
        self.flush()?;
        let failed = |source| failure("write", &self.name, source);
        if self.sync {
            self.file.sync_data().map_err(failed)?;
        }
        if let Some(fresh) = &self.fresh {
            self.vfs.rename(fresh, &self.name).map_err(failed)?;
        }
        self.fresh = None;
        if self.sync
            && let Err(error) = self.vfs.sync_dir(DIR)
        {
            // Nobody will name it: what is left takes room, and goes when the caller looks for such.
            let _ = self.vfs.remove(&self.name);
            return Err(failed(error));
        }
        let first_key = std::mem::take(&mut self.first_key);
        Ok(TableInfo { number: self.seal.table(), entries, filter_keys, bytes: self.written, first_key, last_key })
    }

    /// Where in the file the next byte comes to lie.
    fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn end_block(&mut self) -> Result<(), TableError> {
        let offset = self.end();
        self.block.finish(|block| self.seal.close(Kind::Block, offset, block, &mut self.pending));
        self.index.add(&self.separator, self.end() - offset);
        self.flush_if_full()
    }

    /// Seals and writes something; returns how many bytes it has in the file.
    fn put(&mut self, kind: Kind, bytes: &[u8]) -> Result<u64, TableError> {
        let offset = self.end();
        self.seal.close(kind, offset, bytes, &mut self.pending);
        let len = self.end() - offset;
        self.flush_if_full()?;
        Ok(len)
    }

    /// Returns the lengths of the filter's pieces.
    fn write_filter(&mut self) -> Result<Vec<u64>, TableError> {
        let shape = FilterShape::for_keys(self.filter_keys);
        let mut pieces: Vec<Vec<u8>> = (0..shape.pieces()).map(|piece| vec![0; shape.piece_bytes(piece)]).collect();
        for hash in std::mem::take(&mut self.hashes).into_iter().flatten() {
            if let Some((piece, at)) = shape.place(hash)
                && let Some(bucket) = pieces.get_mut(piece).and_then(|piece| piece.get_mut(at..at + BUCKET_BYTES))
            {
                filter::insert(bucket, hash);
            }
        }
        pieces.iter().map(|piece| self.put(Kind::Filter, piece)).collect()
    }

    fn flush_if_full(&mut self) -> Result<(), TableError> {
        if self.pending.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), TableError> {
        let failed = |source| failure("write", &self.name, source);
        if self.has_failed {
            // The disk may have dropped what it could not write: nothing is tried as if nothing had been.
            return Err(failed(std::io::Error::other("an earlier write failed")));
        }
        self.has_failed = true;
        self.file.write_at(&self.pending, self.written).map_err(failed)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        if self.sync && self.written - self.synced >= SYNC_EVERY_BYTES {
            self.file.sync_data().map_err(failed)?;
            self.synced = self.written;
        }
        self.has_failed = false;
        Ok(())
    }
}

impl<V: Vfs> Drop for TableWriter<V> {
    fn drop(&mut self) {
        if let Some(fresh) = &self.fresh {
            // What is left if this fails goes when the store is opened.
            let _ = self.vfs.remove(fresh);
        }
    }
}
