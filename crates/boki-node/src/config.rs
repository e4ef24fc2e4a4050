//! How a node is set up, and why it may not open.

use std::path::PathBuf;

use boki_log::Limits;
use boki_log::machine::Damage;

use crate::clock::Clock;

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
    /// What tells it the time.
    pub clock: Clock,
}

impl NodeConfig {
    /// The defaults, for a log in `data`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> NodeConfig {
        NodeConfig {
            data: data.into(),
            durability: Durability::Fsync,
            limits: Limits::default(),
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            clock: Clock::system(),
        }
    }
}

/// Why a node did not open. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory cannot be used: locked, of another version, unreadable.
    #[error(transparent)]
    Directory(#[from] boki_disk::DirError),
    /// The journal cannot be used or is damaged.
    #[error(transparent)]
    Journal(#[from] boki_disk::OpenError),
    /// A file beside the journal is damaged.
    #[error(transparent)]
    Blob(#[from] boki_disk::BlobError),
    /// The frames are whole, but do not make a log.
    #[error("segment {segment}, offset {offset}: {damage}")]
    Damaged {
        /// The segment file.
        segment: u64,
        /// Where in it, in bytes.
        offset: u32,
        /// What is wrong.
        damage: Damage,
    },
    /// The checkpoint is whole, but does not parse.
    #[error("the checkpoint: {0}")]
    Checkpoint(Damage),
    /// The log thread could not be started.
    #[error("the log thread did not start: {0}")]
    Thread(std::io::Error),
}

impl OpenError {
    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::Directory(boki_disk::DirError::Locked { .. }) => "BK0311",
            OpenError::Directory(_) => "BK0312",
            OpenError::Journal(boki_disk::OpenError::Damaged { .. })
            | OpenError::Blob(_)
            | OpenError::Damaged { .. }
            | OpenError::Checkpoint(_) => "BK0313",
            OpenError::Journal(_) | OpenError::Thread(_) => "BK0314",
        }
    }
}
