//! The index with everything in memory, as it was before there were tables: what the index is compared with.

mod book;
mod places;
mod window;

use std::collections::BTreeMap;

use crate::batch::{Batch, Condition, Kind};
use crate::cut::Cut;
use crate::error::LogError;
use crate::ids::{BookId, LocalId, Position, Seq, ShardId};
use crate::tag::Tag;

use super::{Gone, Verdict};

use book::BookIndex;
use places::Places;

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    /// Everything below has been applied.
    end: Seq,
    /// Index of the next cut.
    next_cut: u64,
    time_us: u64,
    books: BTreeMap<BookId, BookIndex>,
    places: Places,
    live_records: u64,
}

impl Model {
    /// The index of the empty log.
    pub(in crate::index) fn new() -> Model {
        Model { end: Seq::FIRST, ..Model::default() }
    }

    /// Everything below this has been applied.
    pub(in crate::index) fn position(&self) -> Position {
        Position(self.end)
    }

    /// Metalog index of the next cut to apply.
    pub(in crate::index) fn next_cut(&self) -> u64 {
        self.next_cut
    }

    /// Time of the last cut applied, microseconds since 1970.
    pub(in crate::index) fn time_us(&self) -> u64 {
        self.time_us
    }

    /// How many records exist, over all books.
    pub(in crate::index) fn live_records(&self) -> u64 {
        self.live_records
    }

    /// Starts applying `cut`, which must be the next one; its batches follow through [`Index::apply`].
    pub(in crate::index) fn begin(&mut self, cut: &Cut) {
        debug_assert_eq!((cut.index, cut.start), (self.next_cut, self.end), "cuts are applied in order");
        self.next_cut = cut.index + 1;
        self.time_us = self.time_us.max(cut.time_us);
        self.places.add(cut);
    }

    /// Judges the next batch of the cut begun last, and applies it if it holds. Records that are gone because of it
    /// (its own, if it is void) are added to `gone`.
    pub(in crate::index) fn apply(&mut self, batch: &Batch, gone: &mut Vec<Gone>) -> Verdict {
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
    pub(in crate::index) fn place(&self, seq: Seq) -> Option<(ShardId, LocalId, u64)> {
        self.places.find(seq)
    }

    /// Up to `limit` seqs of `book` (of `tag`) from `from` on, inclusive, rising.
    pub(in crate::index) fn next(&self, book: BookId, tag: Option<&Tag>, from: Seq, limit: usize, out: &mut Vec<Seq>) {
        if let Some(book) = self.books.get(&book) {
            book.next(tag.map(Tag::as_str), from, limit, out);
        }
    }

    /// Up to `limit` seqs of `book` (of `tag`) from `from` down, inclusive, falling.
    pub(in crate::index) fn prev(&self, book: BookId, tag: Option<&Tag>, from: Seq, limit: usize, out: &mut Vec<Seq>) {
        if let Some(book) = self.books.get(&book) {
            book.prev(tag.map(Tag::as_str), from, limit, out);
        }
    }

    /// The last seq of `book` (of `tag`); [`Seq::NONE`] if there is nothing.
    pub(in crate::index) fn tail(&self, book: BookId, tag: Option<&Tag>) -> Seq {
        self.books.get(&book).map_or(Seq::NONE, |book| book.tail(tag.map(Tag::as_str)))
    }

    /// How many records `book` has.
    pub(in crate::index) fn count(&self, book: BookId) -> u64 {
        self.books.get(&book).map_or(0, BookIndex::count)
    }

    /// Whether there is a record of `book` at `seq`.
    pub(in crate::index) fn contains(&self, book: BookId, seq: Seq) -> bool {
        self.books.get(&book).is_some_and(|book| book.contains(seq))
    }

    /// Up to `limit` tags of `book` that begin with `prefix` and come after `after`, each with its tail, in byte
    /// order; and whether there are more.
    pub(in crate::index) fn tags(
        &self,
        book: BookId,
        prefix: &str,
        after: Option<&Tag>,
        limit: usize,
    ) -> (Vec<(Tag, Seq)>, bool) {
        self.books.get(&book).map_or((Vec::new(), false), |book| book.tags(prefix, after, limit))
    }

    fn add_gone(&self, seq: Seq, count: u32, gone: &mut Vec<Gone>) {
        let Some((shard, from, _)) = self.places.find(seq) else { return };
        if let Some(last) = gone.last_mut()
            && last.shard == shard
            && last.from.0 + u64::from(last.count) == from.0
            && last.seq.0 + u64::from(last.count) == seq.0
        {
            last.count += count;
        } else {
            gone.push(Gone { seq, shard, from, count });
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
