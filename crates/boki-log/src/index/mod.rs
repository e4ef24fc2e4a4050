//! The index: what a prefix of the order means. It judges every batch at its place, and knows which records
//! exist, under which tags, and where each lies.
//!
//! It is a pure function of the prefix: two indexes that applied the same cuts and batches are equal, whatever
//! node they are on. Nothing here looks at a clock or at who asked.
//!
//! Rules that are not obvious:
//! - A batch that is void (a condition failed, its id was used before, its book is closed) keeps its seqs, and no
//!   read ever returns them.
//! - A trim touches only records before its own place. Trimming a tag hides records under that tag; a record
//!   is gone when every one of its tags has been trimmed past it, or the book has. A record without tags goes
//!   with the book alone.
//! - A trim below [`Seq::MAX`] closes the book: everything in it goes, and whatever is appended later is void.

mod book;
mod places;
mod snapshot;
mod window;

use std::collections::BTreeMap;

use crate::batch::{Batch, Condition, Kind};
use crate::cut::Cut;
use crate::error::LogError;
use crate::ids::{BookId, LocalId, Position, Seq, ShardId};
use crate::tag::Tag;

use book::BookIndex;
use places::Places;

/// What became of a batch at its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its records exist from now on.
    Applied,
    /// An earlier batch of the book has the same id; that one's first seq.
    Repeated(Seq),
    /// A condition did not hold, or the book is closed.
    Void(LogError),
}

/// Records that stopped existing: of `shard`, from `from`, `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Their shard.
    pub shard: ShardId,
    /// The first.
    pub from: LocalId,
    /// How many.
    pub count: u32,
}

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Everything below has been applied.
    end: Seq,
    /// Index of the next cut.
    next_cut: u64,
    time_us: u64,
    books: BTreeMap<BookId, BookIndex>,
    places: Places,
    live_records: u64,
}

impl Index {
    /// The index of the empty log.
    #[must_use]
    pub fn new() -> Index {
        Index { end: Seq::FIRST, ..Index::default() }
    }

    /// Everything below this has been applied.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.end)
    }

    /// Metalog index of the next cut to apply.
    #[must_use]
    pub fn next_cut(&self) -> u64 {
        self.next_cut
    }

    /// Time of the last cut applied, microseconds since 1970.
    #[must_use]
    pub fn time_us(&self) -> u64 {
        self.time_us
    }

    /// How many records exist, over all books.
    #[must_use]
    pub fn live_records(&self) -> u64 {
        self.live_records
    }

    /// Starts applying `cut`, which must be the next one; its batches follow through [`Index::apply`].
    pub fn begin(&mut self, cut: &Cut) {
        debug_assert_eq!((cut.index, cut.start), (self.next_cut, self.end), "cuts are applied in order");
        self.next_cut = cut.index + 1;
        self.time_us = self.time_us.max(cut.time_us);
        self.places.add(cut);
    }

    /// Judges the next batch of the cut begun last, and applies it if it holds. Records that are gone because of it
    /// (its own, if it is void) are added to `gone`.
    pub fn apply(&mut self, batch: &Batch, gone: &mut Vec<Gone>) -> Verdict {
        let seq = self.end;
        let count = batch.record_count();
        self.end = Seq(seq.0 + u64::from(count));
        let book = self.books.entry(batch.book()).or_default();
        let verdict = judge(book, batch, self.time_us);
        if verdict != Verdict::Applied {
            self.add_gone(seq, count, gone);
            return verdict;
        }
        if let Some(id) = batch.id() {
            book.ids.insert(id, seq, self.time_us);
        }
        for (tag, epoch) in batch.raises() {
            book.raise(tag, epoch);
        }
        match batch.kind() {
            Kind::Records => {
                for (record, seq) in batch.records().zip(seq.0..) {
                    book.insert(Seq(seq), &record);
                }
                self.live_records += u64::from(count);
            }
            Kind::Trim { tag, below } => {
                let mut dead = Vec::new();
                match tag {
                    Some(tag) => book.trim_tag(tag.as_str(), below.min(seq), &mut dead),
                    None if below == Seq::MAX => book.close(&mut dead),
                    None => book.trim(below.min(seq), &mut dead),
                }
                self.live_records -= dead.len() as u64;
                for dead in dead {
                    self.add_gone(dead, 1, gone);
                }
                // The trim itself is no record that could be read: its place is free at once.
                self.add_gone(seq, count, gone);
            }
        }
        verdict
    }

    /// The shard, local id and time of the record at `seq`, which must have been ordered and not yet forgotten.
    #[must_use]
    pub fn place(&self, seq: Seq) -> Option<(ShardId, LocalId, u64)> {
        self.places.find(seq)
    }

    /// Up to `limit` seqs of `book` (of `tag`) from `from` on, inclusive, rising.
    pub fn next(&self, book: BookId, tag: Option<&Tag>, from: Seq, limit: usize, out: &mut Vec<Seq>) {
        if let Some(book) = self.books.get(&book) {
            book.next(tag.map(Tag::as_str), from, limit, out);
        }
    }

    /// Up to `limit` seqs of `book` (of `tag`) from `from` down, inclusive, falling.
    pub fn prev(&self, book: BookId, tag: Option<&Tag>, from: Seq, limit: usize, out: &mut Vec<Seq>) {
        if let Some(book) = self.books.get(&book) {
            book.prev(tag.map(Tag::as_str), from, limit, out);
        }
    }

    /// The last seq of `book` (of `tag`); [`Seq::NONE`] if there is nothing.
    #[must_use]
    pub fn tail(&self, book: BookId, tag: Option<&Tag>) -> Seq {
        self.books.get(&book).map_or(Seq::NONE, |book| book.tail(tag.map(Tag::as_str)))
    }

    /// How many records `book` has.
    #[must_use]
    pub fn count(&self, book: BookId) -> u64 {
        self.books.get(&book).map_or(0, BookIndex::count)
    }

    /// Whether there is a record of `book` at `seq`.
    #[must_use]
    pub fn contains(&self, book: BookId, seq: Seq) -> bool {
        self.books.get(&book).is_some_and(|book| book.contains(seq))
    }

    /// Up to `limit` tags of `book` that begin with `prefix` and come after `after`, each with its tail, in byte
    /// order; and whether there are more.
    #[must_use]
    pub fn tags(&self, book: BookId, prefix: &str, after: Option<&Tag>, limit: usize) -> (Vec<(Tag, Seq)>, bool) {
        self.books.get(&book).map_or((Vec::new(), false), |book| book.tags(prefix, after, limit))
    }

    /// Every record that exists: its shard and local id, in no useful order.
    pub fn live(&self) -> impl Iterator<Item = (ShardId, LocalId)> {
        self.books
            .values()
            .flat_map(BookIndex::live)
            .filter_map(|seq| self.places.find(seq))
            .map(|(shard, local, _)| (shard, local))
    }

    /// Drops what is kept about seqs that no record has any more. Worth its cost (all books are looked at) before a
    /// snapshot.
    pub fn forget_gone(&mut self) {
        let oldest = self.books.values().filter_map(BookIndex::oldest).min().unwrap_or(self.end);
        self.places.forget_below(oldest);
        self.books.retain(|_, book| !book.is_blank());
    }

    fn add_gone(&self, seq: Seq, count: u32, gone: &mut Vec<Gone>) {
        let Some((shard, from, _)) = self.places.find(seq) else { return };
        if let Some(last) = gone.last_mut()
            && last.shard == shard
            && last.from.0 + u64::from(last.count) == from.0
        {
            last.count += count;
        } else {
            gone.push(Gone { shard, from, count });
        }
    }
}

/// What `batch` is worth after everything before it.
fn judge(book: &mut BookIndex, batch: &Batch, time_us: u64) -> Verdict {
    if book.is_closed() {
        return Verdict::Void(LogError::BookNotFound { name: batch.book().to_string() });
    }
    book.ids.expire(time_us);
    if let Some(first) = batch.id().and_then(|id| book.ids.get(id)) {
        return Verdict::Repeated(first);
    }
    if !batch.is_conditional() {
        return Verdict::Applied;
    }
    for condition in batch.conditions() {
        match condition {
            Condition::Tail { tag, seq } => {
                let actual = book.tail(Some(tag.as_str()));
                if actual != seq {
                    return Verdict::Void(LogError::ConditionFailed { tag, expected: seq, actual });
                }
            }
            Condition::Fence { tag, epoch } => {
                let fence = book.fence(tag.as_str());
                if fence > epoch {
                    return Verdict::Void(LogError::Fenced { tag, epoch, fence });
                }
            }
        }
    }
    for (tag, epoch) in batch.raises() {
        let fence = book.fence(tag.as_str());
        if fence > epoch {
            return Verdict::Void(LogError::Fenced { tag, epoch, fence });
        }
    }
    Verdict::Applied
}

#[cfg(test)]
mod tests;
