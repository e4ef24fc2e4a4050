//! A picture of a node, for people and for metrics.

use crate::config::Durability;

/// Whether appends are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writable {
    /// Yes.
    Yes,
    /// The disk is full; tried again with the next append.
    DiskFull,
    /// A write failed: not before a restart.
    Failed {
        /// The system's word for it.
        reason: String,
    },
}

/// A picture of a node.
#[derive(Clone, Debug)]
pub struct Status {
    /// As configured.
    pub durability: Durability,
    /// Whether appends are accepted.
    pub writable: Writable,
    /// Seq of the last ordered record or void place; 0 in an empty log.
    pub last_seq: u64,
    /// Cuts made since the log began.
    pub cuts: u64,
    /// Books, the catalog not counted.
    pub books: u64,
    /// Live records of all books, the catalog included.
    pub records: u64,
    /// Records appended since this start.
    pub appended: u64,
    /// Batches that a condition, a repeated id or a removed book made void since this start.
    pub voided: u64,
    /// Bytes written to the log since this start, frame headers not counted.
    pub written_bytes: u64,
    /// Groups written since this start: with durability `fsync`, as many disk syncs.
    pub groups: u64,
    /// Appends that wait for the disk.
    pub pending: u64,
    /// Reads that wait for a record.
    pub waiting: u64,
    /// Books with rules of retention.
    pub retention_books: u64,
    /// Trims that the rules of books asked for since this start.
    pub retention_trims: u64,
    /// Those that could not be made, which are tried again.
    pub retention_failed: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes they take on disk.
    pub disk_bytes: u64,
    /// Bytes of records in memory.
    pub cache_bytes: u64,
    /// Bytes of memory that the index takes, blocks of its tables included.
    pub index_bytes: u64,
    /// Tables of the index.
    pub index_tables: u64,
    /// Bytes that they take on disk.
    pub index_table_bytes: u64,
    /// Merges of tables since this start.
    pub index_merges: u64,
    /// Records read from memory since this start.
    pub cache_hits: u64,
    /// Records read from disk since this start.
    pub cache_misses: u64,
}
