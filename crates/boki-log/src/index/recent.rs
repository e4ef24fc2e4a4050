//! What is in memory of one book's latest records, by seq and by tag.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::batch::RecordBody;
use crate::ids::Seq;
use crate::tag::{RESERVED_PREFIX, Tag};

use super::chunk::TagState;
use super::claims::Claim;
use super::table::Wanted;

/// What a new tag costs beside its text, in bytes, roughly.
const TAG_BYTES: usize = 140;
/// What a record costs in a list.
const SEQ_BYTES: usize = size_of::<Seq>();

/// One tag's latest records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecentTag {
    /// Rising. Those below the book's floor are gone and only not yet swept, unless the tag is reserved; none is below the
    /// tag's floor.
    pub(super) seqs: VecDeque<Seq>,
    /// The whole state of the tag, if it has changed since the last freeze; else an older part or table has it.
    pub(super) state: Option<TagState>,
}

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recent {
    /// Rising; the front and the back exist, records between may be gone.
    pub(super) records: VecDeque<Seq>,
    /// How many of `records` are gone.
    pub(super) tombs: usize,
    pub(super) tags: BTreeMap<Tag, RecentTag>,
    /// Records that book trims removed since `tags` were last swept.
    pub(super) unswept: usize,
}

impl Recent {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.tags.is_empty()
    }

    /// Its records, of `tag` or all.
    pub(super) fn list(&self, tag: Option<&str>) -> Option<&VecDeque<Seq>> {
        match tag {
            None => Some(&self.records),
            Some(tag) => self.tags.get(tag).map(|tag| &tag.seqs),
        }
    }

    pub(super) fn state(&self, tag: &str) -> Option<TagState> {
        self.tags.get(tag).and_then(|tag| tag.state)
    }

    /// Adds a record; what claims it has, and how many bytes it takes.
    pub(super) fn insert(&mut self, seq: Seq, record: &RecordBody) -> (Claim, usize) {
        let mut claims = 0;
        let mut bytes = SEQ_BYTES;
        // With reserved tags it is found under those alone: its other tags would outlive neither it nor the floor.
        let reserved = record.tags().any(is_reserved);
        for tag in record.tags().filter(|tag| !reserved || is_reserved(tag)) {
            claims += 1;
            bytes += SEQ_BYTES;
            if let Some(recent) = self.tags.get_mut(tag) {
                recent.seqs.push_back(seq);
            } else if let Ok(tag) = Tag::new(tag) {
                bytes += TAG_BYTES + tag.as_str().len();
                self.tags.insert(tag, RecentTag { seqs: VecDeque::from([seq]), state: None });
            }
        }
        self.records.push_back(seq);
        (Claim::new(claims.max(1), reserved), bytes)
    }

    /// Sets the state of a tag; how many bytes that takes.
    pub(super) fn set_state(&mut self, tag: Tag, state: TagState) -> usize {
        let bytes = if self.tags.contains_key(&tag) { 0 } else { TAG_BYTES + tag.as_str().len() };
        self.tags.entry(tag).or_default().state = Some(state);
        bytes
    }

    /// The first tag from `start` on.
    pub(super) fn tag_from(&self, start: Bound<&str>) -> Option<&Tag> {
        self.tags.range::<str, _>((start, Bound::Unbounded)).next().map(|(tag, _)| tag)
    }

    /// The book's floor is `below` now: `dead` records of it have just gone.
    pub(super) fn trim(&mut self, below: Seq, dead: usize, is_alive: impl Fn(Seq) -> bool) {
        self.unswept += dead;
        self.bury(dead, is_alive);
        // Sweeping costs one look at every tag: it is paid for by as many removed records.
        if self.unswept >= self.tags.len() {
            self.sweep(below);
        }
    }

    /// Drops the records of `tag` below `below`. `is_needed`: older parts or tables may have some, so the floor must be kept.
    pub(super) fn trim_tag(&mut self, tag: &Tag, state: TagState, is_needed: bool) -> usize {
        let keeps_state = is_needed || state.fence != 0;
        let mut bytes = 0;
        if keeps_state {
            bytes = self.set_state(tag.clone(), state);
        }
        let Some(recent) = self.tags.get_mut(tag) else { return bytes };
        let hidden = recent.seqs.partition_point(|seq| *seq < state.floor);
        recent.seqs.drain(..hidden);
        if recent.seqs.is_empty() && !keeps_state {
            self.tags.remove(tag);
        }
        bytes
    }

    /// Takes note that `dead` records of it have gone; keeps both ends of `records` alive and at least half of what is
    /// between.
    pub(super) fn bury(&mut self, dead: usize, is_alive: impl Fn(Seq) -> bool) {
        self.tombs += dead;
        self.drop_tombs(is_alive);
    }

    fn drop_tombs(&mut self, is_alive: impl Fn(Seq) -> bool) {
        if self.tombs == 0 {
            return;
        }
        while self.records.front().is_some_and(|seq| !is_alive(*seq)) {
            self.records.pop_front();
            self.tombs = self.tombs.saturating_sub(1);
        }
        while self.records.back().is_some_and(|seq| !is_alive(*seq)) {
            self.records.pop_back();
            self.tombs = self.tombs.saturating_sub(1);
        }
        if self.tombs > self.records.len() / 2 {
            self.records.retain(|seq| is_alive(*seq));
            self.tombs = 0;
        }
    }

    /// Drops from every tag what lies below the book's floor, and tags about which nothing is known any more.
    fn sweep(&mut self, floor: Seq) {
        self.tags.retain(|tag, recent| {
            let is_needed = |state: TagState| state.fence != 0 || state.floor > floor || tag.is_reserved();
            if !tag.is_reserved() {
                let gone = recent.seqs.partition_point(|seq| *seq < floor);
                recent.seqs.drain(..gone);
            }
            !recent.seqs.is_empty() || recent.state.is_some_and(is_needed)
        });
        self.unswept = 0;
    }
}

/// Whether a trim of the book spares what has this tag.
pub(super) fn is_reserved(tag: &str) -> bool {
    tag.starts_with(RESERVED_PREFIX)
}

/// Hands the seqs of `list` to `each`, rising from `from`, below `below`, as long as it wants more.
pub(super) fn up(list: &VecDeque<Seq>, from: Seq, below: Seq, each: &mut dyn FnMut(Seq) -> Wanted) -> Wanted {
    let mut from = from;
    let mut at = list.partition_point(|seq| *seq < from);
    while let Some(seq) = list.get(at).copied().filter(|seq| *seq < below) {
        from = each(seq)?;
        at += 1;
        if list.get(at).is_some_and(|next| *next < from) {
            at = list.partition_point(|seq| *seq < from);
        }
    }
    Some(from)
}

/// Hands the seqs of `list` to `each`, falling from `from`, down to `floor`, as long as it wants more.
pub(super) fn down(list: &VecDeque<Seq>, from: Seq, floor: Seq, each: &mut dyn FnMut(Seq) -> Wanted) -> Wanted {
    let mut from = from;
    let mut end = list.partition_point(|seq| *seq <= from);
    while let Some(at) = end.checked_sub(1) {
        let Some(seq) = list.get(at).copied().filter(|seq| *seq >= floor) else { break };
        from = each(seq)?;
        end = at;
        if end.checked_sub(1).and_then(|at| list.get(at)).is_some_and(|next| *next > from) {
            end = list.partition_point(|seq| *seq <= from);
        }
    }
    Some(from)
}
