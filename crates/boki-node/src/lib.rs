//! Hosts the log's state machines on threads and files: the log of one process, ready to use.
//!
//! (Interface first; the implementation is being written.)

use std::path::PathBuf;

use boki_log::op::{Append, Appended, Op, Read, Records, Reply, SetAux, Tags, TagsReply, Tail, TailReply};
use boki_log::{BookId, Limits, LogError};

/// What an acknowledged append survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing is acknowledged before it is on disk.
    #[default]
    Fsync,
    /// For comparison only: acknowledged when the operating system has it; a power cut loses it.
    Memory,
}

/// How to open a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The data directory; made if missing.
    pub data: PathBuf,
    /// See [`Durability`].
    pub durability: Durability,
    /// What is refused at the door.
    pub limits: Limits,
    /// Size of a segment file, in bytes.
    pub segment_bytes: u64,
    /// Memory for recent records, in bytes.
    pub cache_bytes: usize,
}

/// Why a node did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {}

/// Receives replies. One sink serves many operations, told apart by their number.
pub trait ReplySink: Send + Sync {
    /// The operation submitted with `corr` has ended. Called once per operation, from any thread, possibly before
    /// `submit` returns; must not block.
    fn reply(&self, corr: u64, result: Result<Reply, LogError>);
    /// No further reply comes for now: the moment to wake whoever writes them out. May be called when
    /// there was none.
    fn flush(&self);
}

/// Names a submitted operation, to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// A book as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// Its number.
    pub id: BookId,
    /// Its name.
    pub name: String,
    /// When it was made, microseconds since 1970.
    pub created_us: u64,
}

/// The log of one process. Clones share it.
#[derive(Clone)]
pub struct Node {}

#[allow(unused_variables, clippy::unimplemented, clippy::missing_errors_doc)]
impl Node {
    /// Opens (or makes) the log in `config.data`. Blocks while it reads what is there.
    pub fn open(config: NodeConfig) -> Result<Node, OpenError> {
        unimplemented!()
    }
    /// Starts an operation; its result goes to `sink` under `corr`. Reads that need not wait reply before this returns.
    pub fn submit(&self, op: Op, sink: &std::sync::Arc<dyn ReplySink>, corr: u64) -> OpId {
        unimplemented!()
    }
    /// Gives up a blocking read that is still waiting (it gets no reply). No effect on anything else.
    pub fn cancel(&self, op: OpId) {
        unimplemented!()
    }
    /// Like `submit`, as a future. Dropping it gives up a blocking read; an append goes on.
    pub async fn append(&self, append: Append) -> Result<Appended, LogError> {
        unimplemented!()
    }
    pub async fn read(&self, read: Read) -> Result<Records, LogError> {
        unimplemented!()
    }
    pub async fn tail(&self, tail: Tail) -> Result<TailReply, LogError> {
        unimplemented!()
    }
    pub async fn tags(&self, tags: Tags) -> Result<TagsReply, LogError> {
        unimplemented!()
    }
    pub async fn set_aux(&self, set_aux: SetAux) -> Result<(), LogError> {
        unimplemented!()
    }
    /// The book of that name.
    pub async fn book(&self, name: &str) -> Result<Book, LogError> {
        unimplemented!()
    }
    pub async fn books(&self) -> Result<Vec<Book>, LogError> {
        unimplemented!()
    }
    pub async fn create_book(&self, name: &str) -> Result<Book, LogError> {
        unimplemented!()
    }
    pub async fn remove_book(&self, name: &str) -> Result<(), LogError> {
        unimplemented!()
    }
    /// What is refused at the door.
    pub fn limits(&self) -> &Limits {
        unimplemented!()
    }
    /// A picture of the node now.
    pub fn status(&self) -> Status {
        unimplemented!()
    }
    /// Refuses new operations, writes out what is pending, answers waiting reads with `ShuttingDown`, closes the files.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}

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
    /// Seq of the last ordered record or void place.
    pub last_seq: u64,
    /// Cuts made since the log began.
    pub cuts: u64,
    /// Live books, the catalog not counted.
    pub books: u64,
    /// Live records of all books.
    pub records: u64,
    /// Records appended and voided since this start.
    pub appended: u64,
    /// Appends refused or voided by a condition since this start.
    pub voided: u64,
    /// Bytes written to the log since this start.
    pub written_bytes: u64,
    /// Disk syncs since this start.
    pub syncs: u64,
    /// Appends that wait for the disk.
    pub pending: u64,
    /// Reads that wait for a record.
    pub waiting: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes they take on disk.
    pub disk_bytes: u64,
    /// Bytes of records in memory.
    pub cache_bytes: u64,
    /// Reads served from memory and from disk since this start.
    pub cache_hits: u64,
    /// See `cache_hits`.
    pub cache_misses: u64,
}
