//! Hosts the log's state machines on threads and files: the log of one process, ready to use.
//!
//! Whoever brings an operation locks the machine, steps it and unlocks it; a read that need not wait is answered on the
//! caller's own thread. One further thread, the **log thread**, owns the journal: it takes what gathered, writes and
//! syncs it as one group, steps the machine with the result and answers the appends. It sleeps when there is nothing to
//! write and no read about to time out.
//!
//! This crate knows no HTTP and no functions.

mod blobs;
mod catalog;
mod clock;
mod config;
mod entries;
mod journal_view;
mod keeper;
mod log_thread;
mod merger;
mod node;
mod reply;
mod retention;
mod status;
mod tables;

pub use blobs::{BlobSink, BlobSource, Blobs};
pub use boki_disk::{BlobError, BlobName, Compression, DataKey, DataKeys, InvalidDataKey};
pub use boki_log::engine::OpId;
pub use catalog::Book;
pub use clock::Clock;
pub use config::{Durability, NodeConfig, OpenError};
pub use entries::Entry;
pub use node::Node;
pub use reply::ReplySink;
pub use retention::{BookRetention, ConfiguredRule, RulesFrom};
pub use status::{Status, Writable};
