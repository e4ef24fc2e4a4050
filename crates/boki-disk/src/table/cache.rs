//! Blocks that were read, kept in memory up to a number of bytes. One cache serves all tables of a process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use foldhash::fast::FixedState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

/// Bytes that a cached block takes beside its own: the cache's slot and the counter of what shares it.
const OVERHEAD_BYTES: u64 = 96;

/// For a guess how many blocks there will be.
const USUAL_BLOCK_BYTES: u64 = 4096;

/// A block by its file and its index in that.
type Key = (u64, u32);

/// Keeps blocks in memory. Clones are the same cache.
#[derive(Clone)]
pub struct BlockCache {
    inner: Arc<Inner>,
}

struct Inner {
    blocks: Cache<Key, Bytes, Weight, FixedState>,
    capacity_bytes: u64,
    /// Files that blocks were kept of: the numbers of tables are of no use, for a file may be opened twice.
    files: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Weight;

impl Weighter<Key, Bytes> for Weight {
    fn weight(&self, _key: &Key, block: &Bytes) -> u64 {
        block.len() as u64 + OVERHEAD_BYTES
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache").field("capacity_bytes", &self.inner.capacity_bytes).finish_non_exhaustive()
    }
}

impl BlockCache {
    /// An empty cache for at most `capacity_bytes`, which are taken as they are needed.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> BlockCache {
        let blocks = usize::try_from(capacity_bytes / USUAL_BLOCK_BYTES).unwrap_or(usize::MAX).max(1);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(blocks)
            .weight_capacity(capacity_bytes)
            .build()
            .expect("capacity and number of items are given");
        // The seed is fixed: what a cache keeps depends on what was read alone.
        let blocks = Cache::with_options(options, Weight, FixedState::with_seed(0), DefaultLifecycle::default());
        let [files, hits, misses] = [const { AtomicU64::new(0) }; 3];
        BlockCache { inner: Arc::new(Inner { blocks, capacity_bytes, files, hits, misses }) }
    }

    /// Bytes that it holds now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.inner.blocks.weight()
    }

    /// Bytes that it may hold.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.inner.capacity_bytes
    }

    /// How often a block was there, and how often it had to be read.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.inner.hits.load(Ordering::Relaxed), self.inner.misses.load(Ordering::Relaxed))
    }

    /// A number for a file that is opened.
    pub(crate) fn admit_file(&self) -> u64 {
        self.inner.files.fetch_add(1, Ordering::Relaxed)
    }

    /// The block, or what `read` returns, which is kept from then on.
    pub(crate) fn get_or_read<E>(
        &self,
        file: u64,
        block: u32,
        read: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        if let Some(found) = self.inner.blocks.get(&(file, block)) {
            self.inner.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(found);
        }
        self.inner.misses.fetch_add(1, Ordering::Relaxed);
        let found = read()?;
        self.inner.blocks.insert((file, block), found.clone());
        Ok(found)
    }
}
