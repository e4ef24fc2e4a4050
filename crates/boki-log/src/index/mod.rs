//! The index: what a prefix of the order means. It judges every batch at its place, and knows which records
//! exist, under which tags, and where each lies.
//!
//! It is a pure function of the prefix: two indexes that applied the same cuts and batches give the same answers, whatever
//! node they are on. Nothing here looks at a clock or at who asked.
//!
//! Rules that are not obvious:
//! - A batch that is void (a condition failed, its id was used before, its book is closed) keeps its seqs, and no
//!   read ever returns them.
//! - A trim touches only records before its own place. Trimming a tag hides records under that tag; a record
//!   is gone when every one of its tags has been trimmed past it, or the book has. A record without tags goes
//!   with the book alone.
//! - A trim of the book spares records with reserved tags (`~...`): what Boki's own libraries still need, such as calls
//!   that have no result yet, only they trim, tag by tag. Such a record is found under its reserved tags alone.
//! - A trim below [`Seq::MAX`] closes the book: everything in it goes, and whatever is appended later is void.
//!
//! # Where it lies
//!
//! ```text
//!  seqs   1 ............................ base ............. end
//!         | table | table | ... | table | frozen | recent |
//! ```
//!
//! What is **recent** is in memory and grows. [`Index::freeze`] makes a **frozen** part of it, which is written out as a
//! **table** in the background and asked meanwhile; [`Index::install`] puts the table in its place. Tables of neighbouring
//! ranges are merged into larger ones ([`Index::plan_merge`]). Because ranges of seqs do not overlap, a tag's last record is
//! in the newest of them that has any of the tag, and a filter per table says which have none.
//!
//! In memory at any time, whatever the log's size: what is known of each book (its floor, its ids), the claims
//! (`claims.rs`: half a byte a record at most), the runs of shards, and the catalog, which every operation asks, as a whole.

mod chunk;
mod claims;
mod content;
mod freeze;
mod key;
mod lookup;
mod merge;
mod part;
mod plan;
mod recent;
mod runs;
mod section;
mod table;
mod version1;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::batch::{Batch, Condition, Kind};
use crate::cut::Cut;
use crate::error::LogError;
use crate::ids::{BookId, LocalId, Position, Seq, ShardId};
use crate::tag::Tag;

use chunk::{Packed, TagState};
use claims::{Claim, Claims};
use merge::Floors;
use part::Part;
use recent::Recent;
use runs::Runs;
use table::Table;
use window::IdWindow;

pub use freeze::Freeze;
pub use key::filter_key;
pub use merge::Merge;
pub use section::RestoreError;
pub use table::{Entries, Entry, MemoryTable, SortedTable, TableError, TableInfo};

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
    /// Seq of the first; the others follow one by one.
    pub seq: Seq,
    /// Their shard.
    pub shard: ShardId,
    /// The first.
    pub from: LocalId,
    /// How many.
    pub count: u32,
}

/// What is known of a book besides its records.
#[derive(Clone, Debug, Default)]
struct Book {
    /// Nothing below exists.
    since: Seq,
    /// Nothing below exists but records with reserved tags.
    floor: Seq,
    closed: bool,
    /// How many records it has.
    count: u64,
    /// A fence of some tag was raised.
    is_fenced: bool,
    ids: IdWindow,
    recent: Recent,
}

impl Book {
    /// Nothing below is found under `tag`, or in the order of the book if there is none.
    fn floor_of(&self, tag: Option<&str>) -> Seq {
        if tag.is_none_or(recent::is_reserved) { self.since } else { self.floor }
    }

    fn floors(&self) -> Floors {
        Floors { since: self.since, of_tags: self.floor }
    }

    /// Whether forgetting the book changes no later answer.
    fn is_blank(&self) -> bool {
        !self.closed && self.count == 0 && !self.is_fenced && self.ids.is_empty()
    }
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Everything below has been applied.
    end: Seq,
    /// Index of the next cut.
    next_cut: u64,
    time_us: u64,
    books: BTreeMap<BookId, Book>,
    runs: Runs,
    claims: Claims,
    /// Rising ranges, without gaps.
    tables: Vec<Table>,
    /// Rising ranges behind those of the tables.
    frozen: VecDeque<Arc<Part>>,
    /// What is recent begins here.
    base: Seq,
    /// First seq and time of each cut, rising, of what is recent. Cuts of the same microsecond share an entry.
    times: VecDeque<(Seq, u64)>,
    /// Times of the catalog's records, which are asked for with every name.
    catalog_times: BTreeMap<Seq, u64>,
    /// Memory of what is recent, about.
    recent_bytes: usize,
}

/// What applying a batch comes to, found out before anything changes, so that a table that cannot be read changes nothing.
struct Judged {
    verdict: Verdict,
    /// New states of tags whose fence it raises.
    raised: Vec<(Tag, TagState)>,
    /// For a trim that holds: the records it touches.
    touched: Packed,
    /// For a trim of a tag: what was known of the tag.
    state: TagState,
    /// For a trim of a tag: older parts or tables have records of it.
    is_elsewhere: bool,
}

impl Judged {
    fn of(verdict: Verdict) -> Judged {
        let (touched, state) = (Packed::default(), TagState::default());
        Judged { verdict, raised: Vec::new(), touched, state, is_elsewhere: false }
    }
}

impl Index {
    /// The index of the empty log.
    #[must_use]
    pub fn new() -> Index {
        Index { end: Seq::FIRST, base: Seq::FIRST, ..Index::default() }
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
        self.claims.living()
    }

    /// How many records `book` has.
    #[must_use]
    pub fn count(&self, book: BookId) -> u64 {
        self.books.get(&book).map_or(0, |book| book.count)
    }

    /// Starts applying `cut`, which must be the next one; its batches follow through [`Index::apply`].
    pub fn begin(&mut self, cut: &Cut) {
        debug_assert_eq!((cut.index, cut.start), (self.next_cut, self.end), "cuts are applied in order");
        self.next_cut = cut.index + 1;
        if self.times.is_empty() || self.time_us < cut.time_us {
            self.time_us = self.time_us.max(cut.time_us);
            match self.times.back_mut().filter(|(start, _)| *start == cut.start) {
                Some((_, time_us)) => *time_us = self.time_us,
                None => {
                    self.times.push_back((cut.start, self.time_us));
                    self.recent_bytes += size_of::<(Seq, u64)>();
                }
            }
        }
        self.runs.add(cut);
    }

    /// Judges the next batch of the cut begun last, and applies it if it holds. Records that are gone because of it
    /// (its own, if it is void) are added to `gone`.
    ///
    /// # Errors
    /// [`TableError`], if a table that must be asked cannot be read. Then nothing has been applied, and nothing can be any
    /// more: the batch is not judged, and so none after it.
    pub fn apply(&mut self, batch: &Batch, gone: &mut Vec<Gone>) -> Result<Verdict, TableError> {
        let seq = self.end;
        let count = batch.record_count();
        // A new book has nothing below its beginning, so that no table is asked for older records of it.
        let book = self.books.entry(batch.book()).or_insert_with(|| Book { since: seq, floor: seq, ..Book::default() });
        book.ids.expire(self.time_us);
        let judged = self.judge(batch, seq)?;
        self.end = Seq(seq.0 + u64::from(count));
        if judged.verdict != Verdict::Applied {
            self.add_gone(seq, count, gone);
            return Ok(judged.verdict);
        }
        let Some(book) = self.books.get_mut(&batch.book()) else { return Ok(judged.verdict) };
        if let Some(id) = batch.id() {
            book.ids.insert(id, seq, self.time_us);
        }
        for (tag, state) in judged.raised {
            book.is_fenced = true;
            self.recent_bytes += book.recent.set_state(tag, state);
        }
        match batch.kind() {
            Kind::Records => {
                for (record, seq) in batch.records().zip(seq.0..) {
                    let (claims, bytes) = book.recent.insert(Seq(seq), &record);
                    self.claims.set(Seq(seq), claims);
                    self.recent_bytes += bytes;
                    if batch.book() == BookId::CATALOG {
                        self.catalog_times.insert(Seq(seq), self.time_us);
                    }
                }
                book.count += u64::from(count);
            }
            Kind::Trim { tag: Some(tag), below } => {
                // A raise of the same batch has changed the state.
                let state = book.recent.state(tag.as_str()).unwrap_or(judged.state);
                let floor = state.floor.max(below.min(seq));
                let dead = self.bury(batch.book(), &judged.touched, |claim| Some(claim.less()), gone);
                let Some(book) = self.books.get_mut(&batch.book()) else { return Ok(judged.verdict) };
                let state = TagState { floor, ..state };
                self.recent_bytes += book.recent.trim_tag(&tag, state, judged.is_elsewhere);
                let claims = &self.claims;
                book.recent.bury(dead, |seq| claims.is_alive(seq));
            }
            Kind::Trim { tag: None, below } => {
                let closes = below == Seq::MAX;
                let spare = |claim: Claim| (closes || !claim.is_reserved()).then_some(Claim::default());
                let dead = self.bury(batch.book(), &judged.touched, spare, gone);
                let Some(book) = self.books.get_mut(&batch.book()) else { return Ok(judged.verdict) };
                if closes {
                    *book = Book { closed: true, since: Seq::MAX, floor: Seq::MAX, ..Book::default() };
                } else {
                    book.floor = book.floor.max(below.min(seq));
                    let claims = &self.claims;
                    book.recent.trim(book.floor, dead, |seq| claims.is_alive(seq));
                }
            }
        }
        if batch.kind() != Kind::Records {
            // The trim itself is no record that could be read: its place is free at once.
            self.add_gone(seq, count, gone);
        }
        Ok(judged.verdict)
    }

    /// Leaves of the claims of each of `touched` what `left` says; those that have none left are gone. How many of what is
    /// recent are.
    fn bury(
        &mut self,
        id: BookId,
        touched: &Packed,
        left: impl Fn(Claim) -> Option<Claim>,
        gone: &mut Vec<Gone>,
    ) -> usize {
        let (mut dead, mut dead_recent) = (0, 0);
        for seq in touched.iter() {
            let claim = self.claims.get(seq);
            let Some(left) = Some(claim).filter(|claim| claim.is_alive()).and_then(&left) else { continue };
            self.claims.set(seq, left);
            if !left.is_alive() {
                dead += 1;
                dead_recent += usize::from(seq >= self.base || id == BookId::CATALOG);
                self.add_gone(seq, 1, gone);
                if id == BookId::CATALOG {
                    self.catalog_times.remove(&seq);
                }
            }
        }
        if let Some(book) = self.books.get_mut(&id) {
            book.count -= dead;
        }
        dead_recent
    }

    fn add_gone(&self, seq: Seq, count: u32, gone: &mut Vec<Gone>) {
        let Some((shard, from)) = self.runs.find(seq) else { return };
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

    /// What `batch` is worth at `place`, after everything before it.
    fn judge(&self, batch: &Batch, place: Seq) -> Result<Judged, TableError> {
        let id = batch.book();
        let Some(book) = self.books.get(&id) else { return Ok(Judged::of(Verdict::Applied)) };
        if book.closed {
            return Ok(Judged::of(Verdict::Void(LogError::BookNotFound { name: id.to_string() })));
        }
        if let Some(first) = batch.id().and_then(|id| book.ids.get(id)) {
            return Ok(Judged::of(Verdict::Repeated(first)));
        }
        let mut judged = Judged::of(Verdict::Applied);
        if batch.is_conditional()
            && let Some(error) = self.failing(batch, &mut judged.raised)?
        {
            return Ok(Judged::of(Verdict::Void(error)));
        }
        if let Kind::Trim { tag, below } = batch.kind() {
            // A book that is closed spares nothing. Below the floor of one that is trimmed there is only what was spared.
            let closes = tag.is_none() && below == Seq::MAX;
            let below = below.min(place);
            let mut floor =
                if tag.is_none() && !closes { book.floor } else { book.floor_of(tag.as_ref().map(Tag::as_str)) };
            if let Some(tag) = &tag {
                judged.state = self.state(id, book, tag.as_str())?;
                judged.is_elsewhere = self.is_elsewhere(id, tag.as_str())?;
                floor = floor.max(judged.state.floor);
            }
            let mut touch = |seq: Seq| {
                judged.touched.push(seq);
                Some(seq.next())
            };
            self.up(id, book, tag.as_ref().map(Tag::as_str), floor, below, &mut touch)?;
        }
        Ok(judged)
    }

    /// The first condition that does not hold; the states of tags whose fences are raised are added to `raised`.
    fn failing(&self, batch: &Batch, raised: &mut Vec<(Tag, TagState)>) -> Result<Option<LogError>, TableError> {
        let id = batch.book();
        let Some(book) = self.books.get(&id) else { return Ok(None) };
        for condition in batch.conditions() {
            match condition {
                Condition::Tail { tag, seq } => {
                    let actual = self.tail(id, Some(&tag))?;
                    if actual != seq {
                        return Ok(Some(LogError::ConditionFailed { tag, expected: seq, actual }));
                    }
                }
                Condition::Fence { tag, epoch } => {
                    let fence = self.state(id, book, tag.as_str())?.fence;
                    if fence > epoch {
                        return Ok(Some(LogError::Fenced { tag, epoch, fence }));
                    }
                }
            }
        }
        for (tag, epoch) in batch.raises() {
            let state = self.state(id, book, tag.as_str())?;
            if state.fence > epoch {
                return Ok(Some(LogError::Fenced { tag, epoch, fence: state.fence }));
            }
            match raised.iter_mut().find(|(other, _)| *other == tag) {
                Some((_, state)) => state.fence = state.fence.max(epoch),
                None => raised.push((tag, TagState { fence: epoch, ..state })),
            }
        }
        Ok(None)
    }

    /// Memory that grows until the next freeze, in bytes, about.
    #[must_use]
    pub fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    /// Memory of all of it, the tables' share of a cache not counted, in bytes, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let frozen: usize = self.frozen.iter().map(|part| part.bytes).sum();
        let tables: usize = self.tables.iter().map(|table| table.entries.memory_bytes()).sum();
        self.recent_bytes + frozen + tables + self.claims.memory_bytes()
    }

    /// The tables, the oldest first.
    pub fn tables(&self) -> impl Iterator<Item = TableInfo> {
        self.tables.iter().map(|table| table.info)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
