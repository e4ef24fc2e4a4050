//! Retention: which trims the rules of a book ask for, and when.
//!
//! It follows the order beside the index and sums up the records of books with rules. It only ever asks: the node appends the
//! trims, and they take effect at their place in the order like anybody's. So it is no part of what a prefix of the order
//! means, and an engine without it reads the same.
//!
//! What a rule keeps is never trimmed for it. What it does not keep goes when that is worth a trim (see [`Keep::slack`]).
//! - A tag's rule is the one that fits it closest: the tag itself before a prefix, a longer prefix before a shorter.
//! - A rule of the book holds beside those of its tags, for all records but those with reserved tags.
//! - A record that a rule of a tag no longer keeps is not found under that tag any more; it is gone when the last of its tags
//!   has let it go, or the book has.
//! - Records that go by a trim of a tag no longer count for their book, with the bytes that they have on average.

mod ledger;
mod rule;
mod snapshot;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Batch, Kind, Record};
use crate::ids::{BookId, Seq};
use crate::index::Gone;
use crate::tag::Tag;

pub use rule::{Keep, MAX_RULES, Rule, Scope, Slack, check};
pub use snapshot::{decode_rules, encode_rules};
use watch::Change;
pub use watch::{MAX_TAGS, Watch};

/// A trim that is worth being appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Of this book.
    pub book: BookId,
    /// Of this tag; `None`: of the whole book.
    pub tag: Option<Tag>,
    /// The first seq that stays.
    pub below: Seq,
}

/// A watch of records that were there before the rules.
#[derive(Debug)]
pub struct Older(Watch);

impl Older {
    /// Records from here on are none of its business.
    #[must_use]
    pub fn until(&self) -> Seq {
        self.0.since
    }

    /// The next record.
    pub fn note(&mut self, record: &Record) {
        self.0.note(record.seq, record.time_us, &record.body, &mut Vec::new());
    }
}

/// A book, or one tag of it.
type Place = (BookId, Option<Tag>);

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    books: BTreeMap<BookId, Watch>,
    /// Ledgers that have too much.
    due: Vec<Place>,
    /// When ledgers have what is too old, at the earliest, microseconds since 1970.
    timers: BTreeSet<(u64, BookId, Option<Tag>)>,
}

impl Retention {
    /// The book's rules and what is known of it, if it has rules.
    #[must_use]
    pub fn watch(&self, book: BookId) -> Option<&Watch> {
        self.books.get(&book)
    }

    /// Every book with rules.
    pub fn books(&self) -> impl Iterator<Item = (BookId, &Watch)> {
        self.books.iter().map(|(book, watch)| (*book, watch))
    }

    /// Sets the rules of `book`, in place of what it had; none: it keeps everything. Of records before `since`, the end of
    /// what was applied, nothing is known until [`Retention::complete`].
    pub fn set(&mut self, book: BookId, rules: Vec<Rule>, since: Seq) {
        self.forget(book);
        if !rules.is_empty() {
            self.books.insert(book, Watch::new(rules, since));
        }
    }

    /// `older` has seen the records before the watch's `since`. Without effect if the rules were changed meanwhile.
    pub fn complete(&mut self, book: BookId, Older(older): Older) {
        let Some(watch) = self.books.get_mut(&book) else { return };
        if watch.is_whole || watch.since != older.since || watch.rules != older.rules {
            return;
        }
        watch.prepend(older);
        self.look_at_all(book);
    }

    fn look_at_all(&mut self, book: BookId) {
        let Some(watch) = self.books.get(&book) else { return };
        let tags: Vec<Option<Tag>> = std::iter::once(None).chain(watch.tags.keys().cloned().map(Some)).collect();
        for tag in tags {
            self.look_at(book, tag.clone());
            self.timers.extend(self.timer(book, tag.as_ref()));
        }
    }

    /// What was there of a book with rules, before they were set: its records are given to [`Older::note`] in their order.
    #[must_use]
    pub fn older(&self, book: BookId) -> Option<Older> {
        let watch = self.books.get(&book).filter(|watch| !watch.is_whole)?;
        Some(Older(Watch::new(watch.rules.clone(), watch.since)))
    }

    fn forget(&mut self, book: BookId) {
        self.books.remove(&book);
        self.due.retain(|(of, _)| *of != book);
        self.timers.retain(|(_, of, _)| *of != book);
    }

    /// Whether [`Retention::plan`] would find something without any time passing.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When [`Retention::plan`] is wanted next, if nothing is appended until then; microseconds since 1970.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        self.timers.first().map(|(at_us, _, _)| *at_us)
    }

    /// A batch was applied at `seq`; what its trim removed is `gone`.
    pub(crate) fn applied(&mut self, batch: &Batch, seq: Seq, time_us: u64, gone: &[Gone]) {
        let book = batch.book();
        let Some(watch) = self.books.get_mut(&book) else { return };
        match batch.kind() {
            Kind::Records => {
                let mut changes = Vec::new();
                for (record, seq) in batch.records().zip(seq.0..) {
                    watch.note(Seq(seq), time_us, &record, &mut changes);
                }
                for Change { tag, is_over, due_us } in changes {
                    self.timers.extend(due_us.map(|at_us| (at_us, book, tag.clone())));
                    if is_over {
                        self.due.push((book, tag));
                    }
                }
            }
            Kind::Trim { tag: None, below: Seq::MAX } => self.forget(book),
            Kind::Trim { tag, below } => {
                watch.trimmed(tag.as_ref(), below.min(seq));
                if tag.as_ref().is_some_and(|tag| !tag.is_reserved()) {
                    for gone in gone.iter().filter(|gone| gone.seq < seq) {
                        watch.book.gone(gone.seq, u64::from(gone.count));
                    }
                }
                self.timers.extend(self.timer(book, tag.as_ref()));
                self.look_at(book, tag);
            }
        }
    }

    fn timer(&self, book: BookId, tag: Option<&Tag>) -> Option<(u64, BookId, Option<Tag>)> {
        let watch = self.books.get(&book).filter(|watch| watch.is_whole)?;
        let keep = watch.keep_of(tag)?;
        Some((watch.ledger(tag)?.due_us(&keep)?, book, tag.cloned()))
    }

    /// Puts a ledger on the list if it has too much.
    fn look_at(&mut self, book: BookId, tag: Option<Tag>) {
        let Some(watch) = self.books.get_mut(&book).filter(|watch| watch.is_whole) else { return };
        let Some(keep) = watch.keep_of(tag.as_ref()) else { return };
        if let Some(ledger) = watch.ledger_mut(tag.as_ref())
            && !ledger.is_due
            && ledger.is_over(&keep)
        {
            ledger.is_due = true;
            self.due.push((book, tag));
        }
    }

    /// At most `most` trims that are worth it at `now_us`, microseconds since 1970. Each is either applied, which is seen in the
    /// order, or has [failed](Retention::failed).
    pub fn plan(&mut self, now_us: u64, most: usize) -> Vec<Trim> {
        let mut trims = Vec::new();
        while trims.len() < most {
            let Some((book, tag)) = self.next_place(now_us) else { break };
            let Some(watch) = self.books.get_mut(&book).filter(|watch| watch.is_whole) else { continue };
            let Some(keep) = watch.keep_of(tag.as_ref()) else { continue };
            let Some(ledger) = watch.ledger_mut(tag.as_ref()) else { continue };
            let worth = ledger.is_over(&keep) || ledger.due_us(&keep).is_some_and(|at_us| at_us <= now_us);
            let below = ledger.below(&keep, now_us);
            if worth && below != Seq::NONE {
                ledger.is_due = true;
                trims.push(Trim { book, tag, below });
            } else {
                ledger.is_due = false;
                self.timers.extend(self.timer(book, tag.as_ref()));
            }
        }
        trims
    }

    fn next_place(&mut self, now_us: u64) -> Option<Place> {
        if let Some(place) = self.due.pop() {
            return Some(place);
        }
        let (at_us, ..) = self.timers.first()?;
        if *at_us > now_us {
            return None;
        }
        self.timers.pop_first().map(|(_, book, tag)| (book, tag))
    }

    /// A trim that was asked for could not be appended: it is asked for again when a record comes or at `again_us`.
    pub fn failed(&mut self, trim: Trim, again_us: u64) {
        let Some(watch) = self.books.get_mut(&trim.book) else { return };
        if let Some(ledger) = watch.ledger_mut(trim.tag.as_ref()) {
            ledger.is_due = false;
            self.timers.insert((again_us, trim.book, trim.tag));
        }
    }
}

#[cfg(test)]
mod tests;
