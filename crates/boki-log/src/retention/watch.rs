//! One book with rules: its records, summed up by scope.

use std::collections::BTreeMap;

use crate::batch::RecordBody;
use crate::ids::Seq;
use crate::tag::{RESERVED_PREFIX, Tag};

use super::ledger::Ledger;
use super::rule::{Keep, Rule, Scope};

/// Most tags of one book that are counted by themselves: each costs about a quarter of a kilobyte.
pub const MAX_TAGS: usize = 200_000;

/// What a book's records add up to, as far as its rules ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub(super) rules: Vec<Rule>,
    /// Records before it were not seen, unless the watch is whole.
    pub(super) since: Seq,
    pub(super) is_whole: bool,
    pub(super) book: Ledger,
    pub(super) tags: BTreeMap<Tag, Ledger>,
    /// Nothing below exists.
    pub(super) floor: Seq,
    /// Cuts of the whole book since `tags` were last swept.
    pub(super) unswept: u64,
    /// Records under tags that were not counted, because there are too many.
    pub(super) uncounted: u64,
}

impl Watch {
    /// Of records from `since` on, by `rules`.
    pub(super) fn new(rules: Vec<Rule>, since: Seq) -> Watch {
        Watch {
            rules,
            since,
            is_whole: false,
            book: Ledger::default(),
            tags: BTreeMap::new(),
            floor: Seq::NONE,
            unswept: 0,
            uncounted: 0,
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Records before this were not seen.
    #[must_use]
    pub fn since(&self) -> Seq {
        self.since
    }

    /// Whether every record of the book was seen. Nothing is trimmed before.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Records and bytes of the book, if it has a rule of its own.
    #[must_use]
    pub fn of_book(&self) -> Option<(u64, u64)> {
        self.keep_of(None).map(|_| (self.book.records, self.book.bytes))
    }

    /// How many tags are counted by themselves.
    #[must_use]
    pub fn counted_tags(&self) -> usize {
        self.tags.len()
    }

    /// Records whose tags are too many to be counted: no rule for their tags takes them.
    #[must_use]
    pub fn uncounted(&self) -> u64 {
        self.uncounted
    }

    /// What is kept of `tag`, or of the book.
    pub(super) fn keep_of(&self, tag: Option<&Tag>) -> Option<Keep> {
        keep_of(&self.rules, tag.map(Tag::as_str))
    }

    pub(super) fn ledger(&self, tag: Option<&Tag>) -> Option<&Ledger> {
        match tag {
            None => Some(&self.book),
            Some(tag) => self.tags.get(tag),
        }
    }

    /// The ledger of `tag`, or of the book, brought up to date.
    pub(super) fn ledger_mut(&mut self, tag: Option<&Tag>) -> Option<&mut Ledger> {
        let floor = self.floor;
        let ledger = match tag {
            None => Some(&mut self.book),
            Some(tag) => self.tags.get_mut(tag),
        };
        let ledger = ledger?;
        ledger.cut(floor);
        Some(ledger)
    }

    /// A record came to exist. What there is to do about it now or later is added to `changes`.
    pub(super) fn note(&mut self, seq: Seq, time_us: u64, record: &RecordBody, changes: &mut Vec<Change>) {
        if record.tags().any(|tag| tag.starts_with(RESERVED_PREFIX)) {
            return;
        }
        let bytes = record.bytes().len() as u64;
        let mut add = |ledger: &mut Ledger, keep: &Keep, tag: Option<&Tag>| {
            ledger.note(keep, seq, time_us, bytes);
            // The first record of a ledger sets its timer, later ones leave it alone.
            let due_us = if ledger.records == 1 { ledger.due_us(keep) } else { None };
            let is_over = self.is_whole && !ledger.is_due && ledger.is_over(keep);
            ledger.is_due |= is_over;
            if is_over || (self.is_whole && due_us.is_some()) {
                changes.push(Change { tag: tag.cloned(), is_over, due_us });
            }
        };
        if let Some(keep) = keep_of(&self.rules, None) {
            add(&mut self.book, &keep, None);
        }
        if self.rules.iter().all(|rule| rule.scope == Scope::Book) {
            return;
        }
        for text in record.tags() {
            let Some(keep) = keep_of(&self.rules, Some(text)) else { continue };
            if let Some(ledger) = self.tags.get_mut(text) {
                ledger.cut(self.floor);
                let tag = Tag::new(text).ok();
                add(ledger, &keep, tag.as_ref());
            } else if self.tags.len() >= MAX_TAGS {
                self.uncounted += 1;
            } else if let Ok(tag) = Tag::new(text) {
                add(self.tags.entry(tag.clone()).or_default(), &keep, Some(&tag));
            }
        }
    }

    /// The book, or one tag of it, was trimmed below `below`.
    pub(super) fn trimmed(&mut self, tag: Option<&Tag>, below: Seq) {
        let Some(tag) = tag else {
            let before = self.book.records;
            self.floor = self.floor.max(below);
            self.book.cut(self.floor);
            self.book.is_due = false;
            // As many records have gone as there are tags to look at.
            self.unswept += (before - self.book.records).max(1);
            if self.unswept >= self.tags.len() as u64 {
                self.unswept = 0;
                let floor = self.floor;
                self.tags.retain(|_, ledger| {
                    ledger.cut(floor);
                    !ledger.marks.is_empty()
                });
            }
            return;
        };
        if let Some(ledger) = self.ledger_mut(Some(tag)) {
            ledger.cut(below);
            ledger.is_due = false;
            if ledger.marks.is_empty() {
                self.tags.remove(tag);
            }
        }
    }

    /// Puts `older`, which saw what came before [`Watch::since`], in front: from now on the watch is whole.
    pub(super) fn prepend(&mut self, older: Watch) {
        self.book.prepend(older.book);
        for (tag, ledger) in older.tags {
            self.tags.entry(tag).or_default().prepend(ledger);
        }
        self.uncounted += older.uncounted;
        self.is_whole = true;
        self.book.cut(self.floor);
    }
}

/// What a new record calls for in one scope.
pub(super) struct Change {
    pub(super) tag: Option<Tag>,
    /// There is too much now.
    pub(super) is_over: bool,
    /// It will be too old then, microseconds since 1970.
    pub(super) due_us: Option<u64>,
}

fn keep_of(rules: &[Rule], tag: Option<&str>) -> Option<Keep> {
    let rule = match tag {
        None => rules.iter().find(|rule| rule.scope == Scope::Book),
        Some(tag) => {
            let fits = rules.iter().filter_map(|rule| Some((rule.scope.fit(tag)?, rule)));
            fits.max_by_key(|(fit, _)| *fit).map(|(_, rule)| rule)
        }
    };
    rule.map(|rule| rule.keep)
}
