//! How a node is set up, and why it may not open.

use std::path::PathBuf;

use boki_disk::{BlobError, Compression, DataKeys, DirError};
use boki_log::Limits;
use boki_log::machine::Damage;

use crate::clock::Clock;
use crate::retention::ConfiguredRule;

/// What an acknowledged append survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing is acknowledged before it is on disk.
    #[default]
    Fsync,
    /// For comparison only: acknowledged when the operating system has it; a power cut loses it.
    Memory,
}

/// Larger frames compress no better.
const CODED_RUN_BYTES: usize = 64 << 10;

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
    /// Whether records are compressed on disk.
    pub compression: Compression,
    /// The keys of an encrypted data directory; a directory that is made is encrypted if there are any.
    pub keys: Option<DataKeys>,
    /// With keys: a data directory that is not encrypted is from now on.
    pub encrypt: bool,
    /// Memory for the index, in bytes: what is beyond is in files. What is in memory whatever the setting, see
    /// [`boki_log::index`].
    pub index_bytes: usize,
    /// What tells it the time.
    pub clock: Clock,
    /// What is kept of books for which nothing else was set.
    pub retention: Vec<ConfiguredRule>,
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
            compression: Compression::None,
            keys: None,
            encrypt: false,
            index_bytes: 512 << 20,
            clock: Clock::system(),
            retention: Vec::new(),
        }
    }

    /// Bytes of records that lie in one frame, about. One that is compressed or encrypted is read as a whole, so it is small.
    pub(crate) fn run_bytes(&self) -> usize {
        let is_plain = self.compression == Compression::None && self.keys.is_none();
        if is_plain { usize::MAX } else { CODED_RUN_BYTES }
    }
}

/// Why a node did not open. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory cannot be used: locked, of another version, unreadable.
    #[error(transparent)]
    Directory(#[from] DirError),
    /// The journal cannot be used or is damaged.
    #[error(transparent)]
    Journal(#[from] boki_disk::OpenError),
    /// A file beside the journal is damaged.
    #[error(transparent)]
    Blob(#[from] BlobError),
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
    /// The tables of the index cannot be used.
    #[error(transparent)]
    Table(#[from] boki_disk::TableError),
    /// How far the journal reaches could not be recorded.
    #[error("the journal: {0}")]
    Mark(boki_disk::WriteError),
    /// The log thread could not be started.
    #[error("the log thread did not start: {0}")]
    Thread(std::io::Error),
}

impl OpenError {
    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::Directory(error) => code_of_directory(error),
            OpenError::Journal(boki_disk::OpenError::Damaged { what, .. }) => code_of_damage(what),
            OpenError::Journal(boki_disk::OpenError::NoKey { .. }) => "BK0331",
            OpenError::Journal(boki_disk::OpenError::Removed(error)) | OpenError::Blob(error) => code_of_blob(error),
            OpenError::Damaged { damage: Damage::NotBegun { .. }, .. }
            | OpenError::Checkpoint(Damage::NotBegun { .. }) => "BK0317",
            OpenError::Checkpoint(Damage::Index(_)) => "BK0306",
            OpenError::Damaged { .. } | OpenError::Checkpoint(_) => "BK0313",
            OpenError::Journal(_) | OpenError::Table(_) | OpenError::Mark(_) | OpenError::Thread(_) => "BK0314",
        }
    }
}

fn code_of_directory(error: &DirError) -> &'static str {
    match error {
        DirError::Locked { .. } => "BK0311",
        DirError::Blob { source, .. } => code_of_blob(source),
        DirError::Missing { .. } => "BK0315",
        DirError::OldMeta { .. } => "BK0317",
        DirError::NoKey { .. } => "BK0331",
        DirError::NotEncrypted { .. } => "BK0332",
        DirError::Format { .. } => "BK0318",
        DirError::Foreign { .. } => "BK0319",
        _ => "BK0312",
    }
}

fn code_of_blob(error: &BlobError) -> &'static str {
    match error {
        BlobError::Damaged { .. } => "BK0313",
        BlobError::OtherDirectory { .. } => "BK0316",
        _ => "BK0314",
    }
}

fn code_of_damage(damage: &boki_disk::Damage) -> &'static str {
    use boki_disk::Damage;
    match damage {
        Damage::MissingSegment => "BK0315",
        Damage::OtherDirectory { .. } | Damage::OtherSegment { .. } => "BK0316",
        Damage::UnexpectedGroup { .. } | Damage::EndsEarly { .. } => "BK0317",
        Damage::SegmentVersion { .. } | Damage::FrameVersion { .. } => "BK0318",
        _ => "BK0313",
    }
}
