//! What the order means, as plainly as it can be said: a list of all ordered batches, judged one by one by looking at
//! everything before. It shares no code with the index that it checks, and it is slow.
//!
//! A record remembers at which place a trim removed it, so that every prefix of the order can be asked for.

use std::collections::BTreeMap;

use boki_log::batch::{Batch, Condition, Kind, RecordBody};
use boki_log::index::Verdict;
use boki_log::op::Direction;
use boki_log::{BookId, LogError, Position, Seq, Tag};

/// For how long a book remembers an id.
const ID_WINDOW_US: u64 = 3_600_000_000;

/// A batch with its place in the order.
#[derive(Debug)]
pub struct Ordered {
    /// Seq of its first record.
    pub seq: Seq,
    /// Its time.
    pub time_us: u64,
    /// What the client asked for.
    pub batch: Batch,
    /// What became of it.
    pub verdict: Verdict,
}

/// A record that came to exist.
#[derive(Debug)]
pub struct ModelRecord {
    /// Its seq.
    pub seq: Seq,
    /// Its time.
    pub time_us: u64,
    /// Its book.
    pub book: BookId,
    /// Its tags and payload.
    pub body: RecordBody,
    /// Place of the trim that removed it; above every seq if none did.
    gone_at: Seq,
    /// For each tag, the place of the trim that hid it there.
    hidden_at: Vec<(String, Seq)>,
}

impl ModelRecord {
    /// Whether it is found (under `tag`) by one who has seen what is before `position`.
    fn is_seen(&self, tag: Option<&str>, position: Position) -> bool {
        let until = match tag {
            None => self.gone_at,
            Some(tag) => match self.hidden_at.iter().find(|(own, _)| own == tag) {
                Some((_, hidden_at)) => *hidden_at,
                None => return false,
            },
        };
        self.seq < position.0 && until >= position.0
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Model {
    ordered: Vec<Ordered>,
    records: Vec<ModelRecord>,
    /// Every raise that counted.
    raises: Vec<(BookId, Tag, u64)>,
    closed: Vec<BookId>,
    /// Where each client's batch is in `ordered`.
    by_key: BTreeMap<u64, Vec<usize>>,
    end: Seq,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            ordered: Vec::new(),
            records: Vec::new(),
            raises: Vec::new(),
            closed: Vec::new(),
            by_key: BTreeMap::new(),
            end: Seq::FIRST,
        }
    }
}

impl Model {
    /// The position of one who has seen everything.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.end)
    }

    /// How many batches are ordered.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ordered.len() as u64
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// Adds the next batch of the order, which the client named `key` asked for.
    pub fn push(&mut self, key: u64, batch: Batch, time_us: u64) {
        let seq = self.end;
        self.end = Seq(seq.0 + u64::from(batch.record_count()));
        let verdict = self.judge(&batch, seq, time_us);
        if verdict == Verdict::Applied {
            self.raises.extend(batch.raises().map(|(tag, epoch)| (batch.book(), tag, epoch)));
            match batch.kind() {
                Kind::Records => self.add(&batch, seq, time_us),
                Kind::Trim { tag, below } => self.trim(batch.book(), tag.as_ref(), below, seq),
            }
        }
        self.by_key.entry(key).or_default().push(self.ordered.len());
        self.ordered.push(Ordered { seq, time_us, batch, verdict });
    }

    fn judge(&self, batch: &Batch, place: Seq, time_us: u64) -> Verdict {
        let book = batch.book();
        if self.closed.contains(&book) {
            return Verdict::Void(LogError::BookNotFound { name: book.to_string() });
        }
        if let Some(id) = batch.id() {
            let first = self.ordered.iter().rev().find(|earlier| {
                earlier.verdict == Verdict::Applied
                    && earlier.batch.book() == book
                    && earlier.batch.id() == Some(id)
                    && earlier.time_us + ID_WINDOW_US >= time_us
            });
            if let Some(first) = first {
                return Verdict::Repeated(first.seq);
            }
        }
        let fence_of = |tag: &Tag| {
            let raised = self.raises.iter().filter(|(of, raised, _)| *of == book && raised == tag);
            raised.map(|(_, _, epoch)| *epoch).max().unwrap_or(0)
        };
        for condition in batch.conditions() {
            match condition {
                Condition::Tail { tag, seq: expected } => {
                    let actual = self.tail(book, Some(&tag), Position(place));
                    if actual != expected {
                        return Verdict::Void(LogError::ConditionFailed { tag, expected, actual });
                    }
                }
                Condition::Fence { tag, epoch } => {
                    let fence = fence_of(&tag);
                    if fence > epoch {
                        return Verdict::Void(LogError::Fenced { tag, epoch, fence });
                    }
                }
            }
        }
        for (tag, epoch) in batch.raises() {
            let fence = fence_of(&tag);
            if fence > epoch {
                return Verdict::Void(LogError::Fenced { tag, epoch, fence });
            }
        }
        Verdict::Applied
    }

    fn add(&mut self, batch: &Batch, first: Seq, time_us: u64) {
        for (body, seq) in batch.records().zip(first.0..) {
            self.records.push(ModelRecord {
                seq: Seq(seq),
                time_us,
                book: batch.book(),
                gone_at: Seq::MAX,
                hidden_at: body.tags().map(|tag| (tag.to_owned(), Seq::MAX)).collect(),
                body,
            });
        }
    }

    /// A trim at `place` removes what is below `below` and before itself; one of a whole book spares reserved tags.
    fn trim(&mut self, book: BookId, tag: Option<&Tag>, below: Seq, place: Seq) {
        for record in self.records.iter_mut().filter(|record| record.book == book && record.seq < below) {
            if tag.is_none() && below < Seq::MAX && record.hidden_at.iter().any(|(own, _)| own.starts_with('~')) {
                continue;
            }
            for (own, hidden_at) in &mut record.hidden_at {
                if tag.is_none_or(|tag| tag.as_str() == own) {
                    *hidden_at = place.min(*hidden_at);
                }
            }
            let tagged = !record.hidden_at.is_empty();
            if tag.is_none() || (tagged && record.hidden_at.iter().all(|(_, hidden_at)| *hidden_at < Seq::MAX)) {
                record.gone_at = place.min(record.gone_at);
            }
        }
        if tag.is_none() && below == Seq::MAX {
            self.closed.push(book);
        }
    }

    /// The batches in the order that the client named `key` asked for.
    pub fn instances(&self, key: u64) -> impl Iterator<Item = &Ordered> {
        self.by_key.get(&key).into_iter().flatten().filter_map(|at| self.ordered.get(*at))
    }

    /// Records of `book` (under `tag`) that are found from `from` on, in the direction's order.
    #[must_use]
    pub fn read(
        &self,
        book: BookId,
        tag: Option<&Tag>,
        from: Seq,
        direction: Direction,
        position: Position,
    ) -> Vec<&ModelRecord> {
        let tag = tag.map(Tag::as_str);
        let seen = self.records.iter().filter(|record| record.book == book && record.is_seen(tag, position));
        match direction {
            Direction::Next => seen.filter(|record| record.seq >= from).collect(),
            Direction::Prev => seen.filter(|record| record.seq <= from).rev().collect(),
        }
    }

    /// The last seq of `book` (under `tag`).
    #[must_use]
    pub fn tail(&self, book: BookId, tag: Option<&Tag>, position: Position) -> Seq {
        let tag = tag.map(Tag::as_str);
        let seen = self.records.iter().filter(|record| record.book == book && record.is_seen(tag, position));
        seen.map(|record| record.seq).max().unwrap_or(Seq::NONE)
    }

    /// All tags of `book` under which something is found, each with its last seq, in byte order.
    #[must_use]
    pub fn tags(&self, book: BookId, position: Position) -> BTreeMap<&str, Seq> {
        let mut tags = BTreeMap::new();
        for record in self.records.iter().filter(|record| record.book == book) {
            for (tag, _) in record.hidden_at.iter().filter(|(tag, _)| record.is_seen(Some(tag), position)) {
                tags.insert(tag.as_str(), record.seq);
            }
        }
        tags
    }

    /// Whether `book` has a record at `seq`.
    #[must_use]
    pub fn contains(&self, book: BookId, seq: Seq, position: Position) -> bool {
        self.records.iter().any(|record| record.book == book && record.seq == seq && record.is_seen(None, position))
    }

    /// How many records exist, over all books.
    #[must_use]
    pub fn live(&self, position: Position) -> u64 {
        self.records.iter().filter(|record| record.is_seen(None, position)).count() as u64
    }

    /// Every book that has ever had a batch.
    #[must_use]
    pub fn books(&self) -> Vec<BookId> {
        let mut books: Vec<_> = self.ordered.iter().map(|ordered| ordered.batch.book()).collect();
        books.sort_unstable();
        books.dedup();
        books
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boki_log::BatchBuilder;

    #[test]
    fn a_prefix_sees_what_was_there_then() {
        let book = BookId(1);
        let tag = |text: &str| Tag::new(text).unwrap();
        let mut model = Model::default();
        model.push(1, BatchBuilder::new(book).record(vec![tag("a"), tag("b")], &b"x"[..]).build().unwrap(), 1);
        model.push(2, BatchBuilder::new(book).record(vec![tag("a")], &b"y"[..]).build().unwrap(), 2);
        model.push(3, BatchBuilder::trim(book, Some(tag("a")), Seq(3)).unwrap(), 3);
        model.push(4, BatchBuilder::trim(book, Some(tag("b")), Seq(9)).unwrap(), 4);
        let seqs = |text: Option<&str>, position| {
            let tag = text.map(tag);
            let read = model.read(book, tag.as_ref(), Seq(0), Direction::Next, Position(Seq(position)));
            read.iter().map(|record| record.seq.0).collect::<Vec<_>>()
        };
        assert_eq!((seqs(None, 3), seqs(Some("a"), 3)), (vec![1, 2], vec![1, 2]));
        assert_eq!((seqs(None, 4), seqs(Some("a"), 4), seqs(Some("b"), 4)), (vec![1], vec![], vec![1]));
        assert_eq!((seqs(None, 5), seqs(Some("b"), 5)), (vec![], vec![]));
    }
}
