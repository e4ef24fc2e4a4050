//! Reads that wait: for the index to reach their position, or for a record that matches.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::RecordBody;
use crate::engine::OpId;
use crate::ids::{BookId, Position};
use crate::op::{Op, Read};
use crate::tag::Tag;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By the position they wait for.
    positions: BTreeMap<(Position, OpId), Op>,
    /// Blocking reads, with the time at which they give up.
    reads: BTreeMap<OpId, (u64, Read)>,
    /// Blocking reads by what they look for.
    by_book: BTreeMap<BookId, BTreeSet<OpId>>,
    by_tag: BTreeMap<BookId, BTreeMap<Tag, BTreeSet<OpId>>>,
    timeouts: BTreeSet<(u64, OpId)>,
    /// Blocking reads for which a record has come.
    noted: BTreeSet<OpId>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.positions.len() + self.reads.len()
    }

    /// Keeps `op` until the index reaches `position`.
    pub(super) fn for_position(&mut self, position: Position, id: OpId, op: Op) {
        self.positions.insert((position, id), op);
    }

    /// Keeps `read` until a record matches or `until_us` comes.
    pub(super) fn for_match(&mut self, until_us: u64, id: OpId, read: Read) {
        match &read.tag {
            None => self.by_book.entry(read.book).or_default().insert(id),
            Some(tag) => self.by_tag.entry(read.book).or_default().entry(tag.clone()).or_default().insert(id),
        };
        self.timeouts.insert((until_us, id));
        self.reads.insert(id, (until_us, read));
    }

    /// An operation whose position the index has reached.
    pub(super) fn pop_reached(&mut self, position: Position) -> Option<(OpId, Op)> {
        let first = self.positions.first_entry().filter(|entry| entry.key().0 <= position)?;
        let ((_, id), op) = first.remove_entry();
        Some((id, op))
    }

    /// Takes note of a record that now exists.
    pub(super) fn note(&mut self, book: BookId, record: &RecordBody) {
        if self.reads.is_empty() {
            return;
        }
        if let Some(ids) = self.by_book.get(&book) {
            self.noted.extend(ids);
        }
        if let Some(tags) = self.by_tag.get(&book) {
            for ids in record.tags().filter_map(|tag| tags.get(tag)) {
                self.noted.extend(ids);
            }
        }
    }

    /// The blocking reads for which a record has come; one whose `from` is above it must be put back.
    pub(super) fn take_noted(&mut self) -> Vec<(u64, OpId, Read)> {
        let noted = std::mem::take(&mut self.noted);
        noted.into_iter().filter_map(|id| self.remove(id).map(|(until_us, read)| (until_us, id, read))).collect()
    }

    pub(super) fn next_timeout(&self) -> Option<u64> {
        self.timeouts.first().map(|(at, _)| *at)
    }

    /// The blocking reads whose time is up.
    pub(super) fn pop_timed_out(&mut self, now_us: u64) -> Vec<OpId> {
        let mut ids = Vec::new();
        while let Some((_, id)) = self.timeouts.first().copied().filter(|(at, _)| *at <= now_us) {
            self.remove(id);
            ids.push(id);
        }
        ids
    }

    pub(super) fn cancel(&mut self, id: OpId) {
        if self.remove(id).is_none() {
            self.positions.retain(|(_, waiting), _| *waiting != id);
        }
    }

    /// Everything that waits.
    pub(super) fn take_all(&mut self) -> Vec<OpId> {
        let waiting = std::mem::take(self);
        waiting.positions.into_keys().map(|(_, id)| id).chain(waiting.reads.into_keys()).collect()
    }

    fn remove(&mut self, id: OpId) -> Option<(u64, Read)> {
        let (until_us, read) = self.reads.remove(&id)?;
        self.timeouts.remove(&(until_us, id));
        self.noted.remove(&id);
        match &read.tag {
            None => {
                if let Some(ids) = self.by_book.get_mut(&read.book) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.by_book.remove(&read.book);
                    }
                }
            }
            Some(tag) => {
                if let Some(tags) = self.by_tag.get_mut(&read.book) {
                    if let Some(ids) = tags.get_mut(tag.as_str()) {
                        ids.remove(&id);
                        if ids.is_empty() {
                            tags.remove(tag.as_str());
                        }
                    }
                    if tags.is_empty() {
                        self.by_tag.remove(&read.book);
                    }
                }
            }
        }
        Some((until_us, read))
    }
}
