//! How an operation on the log can fail. Every failure has a stable code with a page in `docs/errors/`.

use crate::ids::Seq;
use crate::index::TableError;
use crate::tag::Tag;

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The bytes of a batch or message do not parse.
    #[error("malformed request: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A tag breaks the rules for tags.
    #[error("invalid tag: {reason}")]
    InvalidTag {
        /// Which rule.
        reason: &'static str,
    },
    /// A tag of Boki's own libraries on a user's record.
    #[error("tag {tag:?} begins with '~', which is kept for Boki's own libraries")]
    ReservedTag {
        /// The tag.
        tag: Tag,
    },
    /// Something is larger than a limit allows.
    #[error("{what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// What: "record payload in bytes", "tags on a record", ...
        what: &'static str,
        /// How large it is.
        actual: u64,
        /// How large it may be.
        limit: u64,
    },
    /// An argument makes no sense for the operation.
    #[error("invalid {argument}: {reason}")]
    InvalidArgument {
        /// Which argument.
        argument: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// No such book.
    #[error("book {name:?} does not exist")]
    BookNotFound {
        /// The name (or number) that was asked for.
        name: String,
    },
    /// A book of that name exists.
    #[error("book {name:?} exists already")]
    BookExists {
        /// The name.
        name: String,
    },
    /// A name that no book can have.
    #[error("invalid book name {name:?}: {reason}")]
    InvalidBookName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// What is to be kept of a book makes no sense.
    #[error("a rule for {of} cannot be: {reason}")]
    InvalidRetention {
        /// Of what: "the book", or a tag.
        of: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// `set_aux` on a seq at which there is no record (any more).
    #[error("there is no record at seq {seq}")]
    NoSuchRecord {
        /// The seq.
        seq: Seq,
    },
    /// The append's `tail(tag) == expected` did not hold at its place in the order. Nothing was appended.
    #[error("condition failed: the tail of {tag:?} is {actual}, not {expected}")]
    ConditionFailed {
        /// The tag of the first condition that failed.
        tag: Tag,
        /// What the append expected (0 = empty).
        expected: Seq,
        /// What the tail was.
        actual: Seq,
    },
    /// The append's epoch for a tag is below the fence that a later owner set. Nothing was appended.
    #[error("fenced: epoch {epoch} for {tag:?} is below its fence {fence}")]
    Fenced {
        /// The fenced tag.
        tag: Tag,
        /// The epoch that the append carried.
        epoch: u64,
        /// The fence it met.
        fence: u64,
    },
    /// `ack: durable` together with conditions, which are judged only in the order.
    #[error("an append with conditions cannot be acknowledged before it is ordered (ack: durable)")]
    DurableWithConditions,
    /// The disk is full: nothing was written. Appends are accepted again once there is room.
    #[error("the disk is full: the append was refused and nothing was written")]
    DiskFull,
    /// Writing or syncing the log failed: this process appends nothing more until it is restarted. The
    /// outcome of this append is not known; repeat it with the same id.
    #[error("the log cannot be written any more ({reason}); the outcome of this append is not known")]
    WriteFailed {
        /// The system's word for it.
        reason: String,
    },
    /// Reading a record from disk failed or found it damaged.
    #[error("the record at seq {seq} cannot be read: {reason}")]
    ReadFailed {
        /// The record.
        seq: Seq,
        /// What was found.
        reason: String,
    },
    /// A file of the index cannot be read. What depends on it is not known.
    #[error("the index cannot be read: {reason}")]
    IndexUnreadable {
        /// Which file, and what was found.
        reason: String,
    },
    /// A file of the index cannot be read, and a batch could not be judged without it: this process appends nothing more
    /// until it is restarted. The outcome of this append is not known; repeat it with the same id.
    #[error("the log cannot go on: its index cannot be read ({reason}); the outcome of this append is not known")]
    IndexFailed {
        /// Which file, and what was found.
        reason: String,
    },
    /// Too much is waiting already.
    #[error("overloaded: {what}; try again later")]
    Overloaded {
        /// What there is too much of.
        what: &'static str,
    },
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// Whether, and how, to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request fails again.
    Never,
    /// Nothing was done; the same request may succeed later.
    Later,
    /// It may have been done; repeat it only with the same append id.
    WithSameId,
}

impl From<TableError> for LogError {
    fn from(error: TableError) -> LogError {
        LogError::IndexUnreadable { reason: error.to_string() }
    }
}

impl LogError {
    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            LogError::Malformed { .. } => "BK0101",
            LogError::InvalidTag { .. } => "BK0102",
            LogError::ReservedTag { .. } => "BK0103",
            LogError::TooLarge { .. } => "BK0104",
            LogError::InvalidArgument { .. } => "BK0105",
            LogError::BookNotFound { .. } => "BK0110",
            LogError::BookExists { .. } => "BK0111",
            LogError::InvalidBookName { .. } => "BK0112",
            LogError::NoSuchRecord { .. } => "BK0113",
            LogError::InvalidRetention { .. } => "BK0114",
            LogError::ConditionFailed { .. } => "BK0201",
            LogError::Fenced { .. } => "BK0202",
            LogError::DurableWithConditions => "BK0203",
            LogError::DiskFull => "BK0301",
            LogError::WriteFailed { .. } => "BK0302",
            LogError::ReadFailed { .. } => "BK0303",
            LogError::IndexUnreadable { .. } => "BK0306",
            LogError::IndexFailed { .. } => "BK0307",
            LogError::Overloaded { .. } => "BK0304",
            LogError::ShuttingDown => "BK0305",
        }
    }

    /// Whether a caller may try again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            LogError::DiskFull
            | LogError::Overloaded { .. }
            | LogError::ReadFailed { .. }
            | LogError::IndexUnreadable { .. } => Retry::Later,
            LogError::WriteFailed { .. } | LogError::IndexFailed { .. } | LogError::ShuttingDown => Retry::WithSameId,
            _ => Retry::Never,
        }
    }
}
