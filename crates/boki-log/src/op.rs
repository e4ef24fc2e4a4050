//! What a caller can ask of the log, and what it gets back.

use std::time::Duration;

use bytes::Bytes;

use crate::batch::{Batch, Record, ReservedTags};
use crate::ids::{BookId, Position, Seq};
use crate::tag::Tag;

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ack {
    /// When its seq is known and every later read of the session sees it.
    #[default]
    Ordered,
    /// Earlier: when a write quorum has it on disk, so that it will be ordered whatever fails.
    Durable,
}

/// Which direction a read looks from its seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// The first record at or above it, and those after.
    #[default]
    Next,
    /// The last record at or below it, and those before.
    Prev,
}

/// What a read is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Sees everything below the position: read-your-writes and monotonic.
    Session(Position),
    /// Sees every record whose append was acknowledged before the read began.
    Linearizable,
    /// Whatever this node has.
    Any,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// Add a batch, or trim (a trim is a batch of its own kind).
    Append(Append),
    /// Read records.
    Read(Read),
    /// The last seq of a book or tag.
    Tail(Tail),
    /// The tags of a book that begin with a prefix.
    Tags(Tags),
    /// Attach a cache hint to a record.
    SetAux(SetAux),
}

/// Adds a batch: all of its records, contiguous, or none.
#[derive(Clone, Debug)]
pub struct Append {
    /// The records, their book, conditions and id.
    pub batch: Batch,
    /// When to answer.
    pub ack: Ack,
    /// Whether it may carry tags that begin with `~`.
    pub reserved: ReservedTags,
}

/// Reads records of a book, of one tag or of all.
#[derive(Clone, Debug)]
pub struct Read {
    /// The book.
    pub book: BookId,
    /// Only records with this tag; `None`: every record of the book.
    pub tag: Option<Tag>,
    /// Where from: inclusive.
    pub from: Seq,
    /// Which way.
    pub direction: Direction,
    /// At most this many records (0 is taken as 1).
    pub limit: u32,
    /// The promise.
    pub consistency: Consistency,
    /// `Next` only: if there is no match, wait this long for one.
    pub wait: Option<Duration>,
}

/// Asks for the last seq of a book or tag.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The book.
    pub book: BookId,
    /// The tag; `None`: the whole book.
    pub tag: Option<Tag>,
    /// The promise.
    pub consistency: Consistency,
}

/// Lists tags in byte order.
#[derive(Clone, Debug)]
pub struct Tags {
    /// The book.
    pub book: BookId,
    /// Only tags that begin with this (may be empty).
    pub prefix: String,
    /// Only tags after this one: where the previous page ended.
    pub after: Option<Tag>,
    /// At most this many (0 is taken as 1).
    pub limit: u32,
    /// The promise.
    pub consistency: Consistency,
}

/// Attaches bytes to a record as a cache hint: they may vanish at any time.
#[derive(Clone, Debug)]
pub struct SetAux {
    /// The book.
    pub book: BookId,
    /// The record.
    pub seq: Seq,
    /// The bytes; empty removes them.
    pub aux: Bytes,
}

/// The answer to an [`Op`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To an append.
    Appended(Appended),
    /// To a read.
    Records(Records),
    /// To `Tail`.
    Tail(TailReply),
    /// To `Tags`.
    Tags(TagsReply),
    /// To `SetAux`.
    AuxSet,
}

/// An append was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Seq of the batch's first record; its others follow one by one. `None`: durable, not yet ordered.
    pub seq: Option<Seq>,
    /// How many records the batch has.
    pub count: u32,
    /// The id had been used before in the book: nothing was added, `seq` is the first append's.
    pub repeated: bool,
    /// Position of one who has seen the batch.
    pub position: Position,
}

/// Records that a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// In reading order: rising seqs for `Next`, falling for `Prev`. Empty: nothing matches.
    pub records: Vec<Record>,
    /// What this read has seen.
    pub position: Position,
}

/// The last seq of a book or tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailReply {
    /// 0 if empty.
    pub seq: Seq,
    /// What this read has seen.
    pub position: Position,
}

/// A page of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsReply {
    /// In byte order, each with the last seq under it.
    pub tags: Vec<(Tag, Seq)>,
    /// There are more after the last of these.
    pub more: bool,
    /// What this read has seen.
    pub position: Position,
}
