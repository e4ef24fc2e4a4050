//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;

use crate::seal::KeyId;

/// Why a journal did not open. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// What is on disk is not what was written, and cutting back the end would lose what was acknowledged.
    #[error(
        "segment {segment}, offset {offset}: {what}; {groups_after} whole groups lie behind it in that file; \
         nothing was changed"
    )]
    Damaged {
        /// Number of the segment file.
        segment: u64,
        /// Where in it, in bytes.
        offset: u32,
        /// What is wrong there.
        what: Damage,
        /// How many whole groups lie behind it in the same file.
        groups_after: u64,
    },
    /// A segment is encrypted with a key that was not given.
    #[error("segment {segment} is encrypted, and the key {key} was not given")]
    NoKey {
        /// Number of the segment file.
        segment: u64,
        /// The key.
        key: KeyId,
    },
    /// A record of the journal as a whole is unreadable: which segments were removed, or how far it reaches.
    #[error(transparent)]
    Removed(#[from] BlobError),
    /// The file system refused.
    #[error("cannot {what} {name}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file, relative to the data directory.
        name: String,
        /// The system's word for it.
        source: io::Error,
    },
}

/// What is wrong at a place of a segment file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file is not there, and was not removed by this program.
    #[error("the segment file is missing")]
    MissingSegment,
    /// The file's header does not match its checksum, or the file is too short to have one.
    #[error("the segment's header is damaged")]
    SegmentHeader,
    /// The file was made by another version.
    #[error("the segment is of version {found}, this program reads versions to {known}")]
    SegmentVersion {
        /// The version found.
        found: u16,
        /// The newest version that is known.
        known: u16,
    },
    /// The file belongs to another data directory.
    #[error("the segment belongs to another data directory ({found:032x})")]
    OtherDirectory {
        /// That directory's id.
        found: u128,
    },
    /// The file's header has another number than the file's name.
    #[error("the file holds segment {found}")]
    OtherSegment {
        /// The number in the header.
        found: u64,
    },
    /// A group should be here and there are only zeros.
    #[error("group {expected} is missing")]
    MissingGroup {
        /// The group that should be here.
        expected: u64,
    },
    /// Bytes that are not a frame, or do not match their checksum.
    #[error("a frame of group {expected} is damaged")]
    Frame {
        /// The group that should be here.
        expected: u64,
    },
    /// A whole frame, of another group than should be here.
    #[error("group {found} where group {expected} should be")]
    UnexpectedGroup {
        /// The group that should be here.
        expected: u64,
        /// The group that is.
        found: u64,
    },
    /// The journal ends with whole groups, and before a group that was acknowledged.
    #[error("the journal ends before group {expected}, but had reached group {reached}: the file is older than it was")]
    EndsEarly {
        /// The group that should be here.
        expected: u64,
        /// The last group that is known to have been there.
        reached: u64,
    },
    /// A whole segment that is not encrypted, in a directory where all are.
    #[error("the segment is not encrypted, and the directory is")]
    NotEncrypted,
    /// A whole frame whose body cannot be what was written.
    #[error("a frame of group {group} is whole, but {what}")]
    Body {
        /// The group.
        group: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A whole frame of another version.
    #[error("a frame is of version {found}, this program reads versions to {known}")]
    FrameVersion {
        /// The version found.
        found: u8,
        /// The newest version that is known.
        known: u8,
    },
}

/// Why a group was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no room for a further segment. Nothing was written; a later write tries again.
    #[error("the disk is full")]
    Full,
    /// The group is larger than any segment can be. Nothing was written.
    #[error("a group of {bytes} bytes is larger than a segment can be")]
    TooLarge {
        /// Its size with headers.
        bytes: u64,
    },
    /// Writing failed, now or before: what the disk holds of the group is unknown, and every later write fails.
    #[error("the journal cannot be written until it is opened again: {0}")]
    Failed(#[source] io::Error),
}

/// Why bytes of a frame could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The segment was removed.
    #[error("segment {segment} was removed")]
    Removed {
        /// Number of the segment file.
        segment: u64,
    },
    /// There is no such segment yet.
    #[error("segment {segment} does not exist")]
    NoSuchSegment {
        /// Number of the segment file.
        segment: u64,
    },
    /// What lies there is not what was written.
    #[error("segment {segment}, offset {frame}: {what}")]
    Damaged {
        /// Number of the segment file.
        segment: u64,
        /// Offset of the frame's body, in bytes.
        frame: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// The file system refused.
    #[error("cannot read {len} bytes at {offset} of segment {segment}: {source}")]
    Io {
        /// Number of the segment file.
        segment: u64,
        /// Offset, in bytes.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// The system's word for it.
        source: io::Error,
    },
}

/// Why it is not known where a record lies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The place file cannot be read.
    #[error(transparent)]
    File(#[from] BlobError),
    /// The place file is of no use, and the segment cannot be read.
    #[error(transparent)]
    Segment(#[from] ReadError),
    /// The place file is of no use, and the segment is damaged before the record.
    #[error("segment {segment} is damaged before its record {number}: {what}")]
    Damaged {
        /// Number of the segment file.
        segment: u64,
        /// The record that is looked for: how many are before it in the segment.
        number: u32,
        /// Where its readable part ends.
        what: Damage,
    },
    /// The place file is of no use, and what the segment holds is not understood.
    #[error("a frame of segment {segment} is not understood: {what}")]
    Unreadable {
        /// Number of the segment file.
        segment: u64,
        /// What is wrong.
        what: String,
    },
    /// The segment has fewer records.
    #[error("segment {segment} has no record {number}")]
    NoSuchRecord {
        /// Number of the segment file.
        segment: u64,
        /// The record that is looked for.
        number: u32,
    },
}

/// Why a segment was not removed. It may be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// It is the one being written.
    #[error("segment {segment} is being written")]
    Current {
        /// Number of the segment file.
        segment: u64,
    },
    /// There is no such segment.
    #[error("segment {segment} does not exist")]
    NoSuchSegment {
        /// Number of the segment file.
        segment: u64,
    },
    /// The removal could not be recorded.
    #[error(transparent)]
    Record(#[from] BlobError),
    /// The file system refused to remove the file. It is recorded as removed and goes when the journal is opened again.
    #[error("cannot remove segment {segment}: {source}")]
    Io {
        /// Number of the segment file.
        segment: u64,
        /// The system's word for it.
        source: io::Error,
    },
}

/// Why a blob could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// There is no room for it. Nothing is left of it.
    #[error("the disk is full: {name} cannot be written")]
    Full {
        /// The file, relative to the data directory.
        name: String,
    },
    /// The file is not what was written.
    #[error("{name} is damaged: {what}")]
    Damaged {
        /// The file, relative to the data directory.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The file belongs to another data directory.
    #[error("{name} belongs to another data directory ({found:032x})")]
    OtherDirectory {
        /// The file, relative to the data directory.
        name: String,
        /// That directory's id.
        found: u128,
    },
    /// The file system refused.
    #[error("cannot {what} {name}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file, relative to the data directory.
        name: String,
        /// The system's word for it.
        source: io::Error,
    },
}

/// Why a table could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// There is no room for it. Nothing is left of it.
    #[error("the disk is full: {name} cannot be written")]
    Full {
        /// The file, relative to the data directory.
        name: String,
    },
    /// A key is not greater than the one before. Nothing was added.
    #[error("{name}: keys must be added in order")]
    Unordered {
        /// The file, relative to the data directory.
        name: String,
    },
    /// A key or value is longer than it may be. Nothing was added.
    #[error("{name}: an entry of {bytes} bytes is too large")]
    TooLarge {
        /// The file, relative to the data directory.
        name: String,
        /// Length of the key or value.
        bytes: usize,
    },
    /// There is no such file.
    #[error("{name} is missing")]
    Missing {
        /// The file, relative to the data directory.
        name: String,
    },
    /// The file is not what was written.
    #[error("{name}, offset {offset}: {what}")]
    Damaged {
        /// The file, relative to the data directory.
        name: String,
        /// Where in it, in bytes: the start of what was read and does not match.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file system refused.
    #[error("cannot {what} {name}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file, relative to the data directory.
        name: String,
        /// The system's word for it.
        source: io::Error,
    },
}

/// Why a data directory did not open. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It holds files, but is not a data directory.
    #[error("{} is not empty and not a data directory: it holds {found}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files that do not belong there.
        found: String,
    },
    /// It was made by another version.
    #[error("{} has the format {found:?}, this program reads {known:?}", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: String,
        /// The format that is written; older ones are read.
        known: &'static str,
    },
    /// One of its own files, or the directory of segments, is not there.
    #[error("{}: {name} is missing", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// The file, relative to the directory.
        name: &'static str,
    },
    /// The file `meta` is older than the journal.
    #[error("{}: meta is of start {found}, and the journal of start {reached}: it is an old copy", path.display())]
    OldMeta {
        /// The directory.
        path: PathBuf,
        /// The term in it.
        found: u32,
        /// The term in the journal.
        reached: u32,
    },
    /// It is encrypted, and a key that it needs was not given.
    #[error("{} is encrypted, and the key {key} was not given", path.display())]
    NoKey {
        /// The directory.
        path: PathBuf,
        /// The key.
        key: KeyId,
    },
    /// A key was given, and it is not encrypted.
    #[error("{} is not encrypted, and a key was given", path.display())]
    NotEncrypted {
        /// The directory.
        path: PathBuf,
    },
    /// One of its own files is unreadable.
    #[error("{}: {source}", path.display())]
    Blob {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: BlobError,
    },
    /// The file system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
}
