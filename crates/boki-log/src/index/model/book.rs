//! One book in the index: its records in order, its tags, its fences.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::batch::RecordBody;
use crate::ids::Seq;
use crate::tag::{RESERVED_PREFIX, Tag};

use super::window::IdWindow;

/// A record's entry in the order of its book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) seq: Seq,
    /// Under how many tags it can still be found; an untagged record has one claim, the book's own. At 0 it is gone.
    pub(super) claims: u16,
    /// It has reserved tags: a trim of the book spares it.
    pub(super) reserved: bool,
}

/// What is known of one tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TagIndex {
    /// Its records, rising. Those below the book's floor are gone and only not yet swept, unless the tag is reserved.
    pub(super) seqs: VecDeque<Seq>,
    /// The highest epoch that a record raised it to.
    pub(super) fence: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BookIndex {
    /// Rising; the front and the back always exist, entries between may be gone.
    pub(super) records: VecDeque<Entry>,
    /// How many of `records` are gone.
    pub(super) tombs: usize,
    pub(super) tags: BTreeMap<Tag, TagIndex>,
    pub(super) ids: IdWindow,
    /// Nothing below exists but records with reserved tags.
    pub(super) floor: Seq,
    pub(super) closed: bool,
    /// Records that book trims removed since `tags` were last swept.
    pub(super) unswept: usize,
}

impl BookIndex {
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn count(&self) -> u64 {
        (self.records.len() - self.tombs) as u64
    }

    pub(super) fn live(&self) -> impl Iterator<Item = Seq> {
        self.records.iter().filter(|entry| entry.claims > 0).map(|entry| entry.seq)
    }

    pub(super) fn insert(&mut self, seq: Seq, record: &RecordBody) {
        let mut claims = 0;
        // With reserved tags it is found under those alone: its other tags would outlive neither it nor the floor.
        let reserved = record.tags().any(is_reserved);
        for tag in record.tags().filter(|tag| !reserved || is_reserved(tag)) {
            claims += 1;
            if let Some(index) = self.tags.get_mut(tag) {
                index.seqs.push_back(seq);
            } else if let Ok(tag) = Tag::new(tag) {
                self.tags.insert(tag, TagIndex { seqs: VecDeque::from([seq]), fence: 0 });
            }
        }
        self.records.push_back(Entry { seq, claims: claims.max(1), reserved });
    }

    pub(super) fn raise(&mut self, tag: Tag, epoch: u64) {
        let fence = &mut self.tags.entry(tag).or_default().fence;
        *fence = (*fence).max(epoch);
    }

    pub(super) fn fence(&self, tag: &str) -> u64 {
        self.tags.get(tag).map_or(0, |index| index.fence)
    }

    pub(super) fn tail(&self, tag: Option<&str>) -> Seq {
        let last = match tag {
            None => self.records.back().map(|entry| entry.seq),
            Some(tag) => self.tags.get(tag).and_then(|index| index.seqs.back().copied()),
        };
        last.filter(|seq| tag.is_none_or(|tag| *seq >= self.floor_of(tag))).unwrap_or(Seq::NONE)
    }

    /// Nothing below is found under `tag`.
    fn floor_of(&self, tag: &str) -> Seq {
        if is_reserved(tag) { Seq::NONE } else { self.floor }
    }

    pub(super) fn contains(&self, seq: Seq) -> bool {
        self.find(seq).is_some_and(|at| self.records[at].claims > 0)
    }

    pub(super) fn next(&self, tag: Option<&str>, from: Seq, limit: usize, out: &mut Vec<Seq>) {
        match tag {
            None => {
                let start = self.records.partition_point(|entry| entry.seq < from);
                out.extend(self.records.range(start..).filter(|e| e.claims > 0).map(|e| e.seq).take(limit));
            }
            Some(tag) => {
                let Some(index) = self.tags.get(tag) else { return };
                let from = from.max(self.floor_of(tag));
                let start = index.seqs.partition_point(|seq| *seq < from);
                out.extend(index.seqs.range(start..).copied().take(limit));
            }
        }
    }

    pub(super) fn prev(&self, tag: Option<&str>, from: Seq, limit: usize, out: &mut Vec<Seq>) {
        match tag {
            None => {
                let end = self.records.partition_point(|entry| entry.seq <= from);
                out.extend(self.records.range(..end).rev().filter(|e| e.claims > 0).map(|e| e.seq).take(limit));
            }
            Some(tag) => {
                let Some(index) = self.tags.get(tag) else { return };
                let floor = self.floor_of(tag);
                let end = index.seqs.partition_point(|seq| *seq <= from);
                out.extend(index.seqs.range(..end).rev().copied().take_while(|seq| *seq >= floor).take(limit));
            }
        }
    }

    pub(super) fn tags(&self, prefix: &str, after: Option<&Tag>, limit: usize) -> (Vec<(Tag, Seq)>, bool) {
        let after = after.map(Tag::as_str).filter(|after| *after >= prefix);
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let mut page = Vec::new();
        for (tag, index) in self.tags.range::<str, _>((start, Bound::Unbounded)) {
            if !tag.as_str().starts_with(prefix) {
                break;
            }
            let Some(last) = index.seqs.back().filter(|seq| **seq >= self.floor_of(tag.as_str())) else { continue };
            if page.len() == limit {
                return (page, true);
            }
            page.push((tag.clone(), *last));
        }
        (page, false)
    }

    /// Removes every record below `below` that has no reserved tags; their seqs are added to `dead`.
    pub(super) fn trim(&mut self, below: Seq, dead: &mut Vec<Seq>) {
        // Below the old floor there is nothing but what was spared.
        let start = self.records.partition_point(|entry| entry.seq < self.floor);
        self.floor = self.floor.max(below);
        for entry in self.records.range_mut(start..).take_while(|entry| entry.seq < below) {
            if entry.claims > 0 && !entry.reserved {
                entry.claims = 0;
                dead.push(entry.seq);
                self.tombs += 1;
                self.unswept += 1;
            }
        }
        self.drop_tombs();
        // Sweeping costs one look at every tag: it is paid for by as many removed records.
        if self.unswept >= self.tags.len() {
            self.sweep();
        }
    }

    /// Removes every record and lets no further one in.
    pub(super) fn close(&mut self, dead: &mut Vec<Seq>) {
        dead.extend(self.live());
        *self = BookIndex { closed: true, floor: Seq::MAX, ..BookIndex::default() };
    }

    /// Hides the records below `below` under `tag`; those that no tag shows any more are added to `dead`.
    pub(super) fn trim_tag(&mut self, tag: &str, below: Seq, dead: &mut Vec<Seq>) {
        let Some(index) = self.tags.get_mut(tag) else { return };
        let hidden = index.seqs.partition_point(|seq| *seq < below);
        let hidden: Vec<Seq> = index.seqs.drain(..hidden).collect();
        if index.seqs.is_empty() && index.fence == 0 {
            self.tags.remove(tag);
        }
        for seq in hidden {
            let Some(at) = self.find(seq) else { continue };
            let entry = &mut self.records[at];
            if entry.claims == 0 {
                // Below the floor, and not yet swept.
                continue;
            }
            entry.claims -= 1;
            if entry.claims == 0 {
                self.tombs += 1;
                dead.push(seq);
            }
        }
        self.drop_tombs();
    }

    /// Index in `records` of the entry of `seq`.
    fn find(&self, seq: Seq) -> Option<usize> {
        self.records.binary_search_by_key(&seq, |entry| entry.seq).ok()
    }

    /// Keeps both ends of `records` alive and at least half of what is between.
    fn drop_tombs(&mut self) {
        while self.records.front().is_some_and(|entry| entry.claims == 0) {
            self.records.pop_front();
            self.tombs -= 1;
        }
        while self.records.back().is_some_and(|entry| entry.claims == 0) {
            self.records.pop_back();
            self.tombs -= 1;
        }
        if self.tombs > self.records.len() / 2 {
            self.records.retain(|entry| entry.claims > 0);
            self.tombs = 0;
        }
    }

    /// Drops from every tag what lies below the floor, and tags about which nothing is known any more.
    pub(super) fn sweep(&mut self) {
        let floor = self.floor;
        self.tags.retain(|tag, index| {
            if !tag.is_reserved() {
                let gone = index.seqs.partition_point(|seq| *seq < floor);
                index.seqs.drain(..gone);
            }
            !index.seqs.is_empty() || index.fence != 0
        });
        self.unswept = 0;
    }
}

fn is_reserved(tag: &str) -> bool {
    tag.starts_with(RESERVED_PREFIX)
}
