//! Tables: what the index knows of a range of seqs, sorted and unchangeable, wherever it lies. And the list of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{BookId, Seq};
use crate::tag::Tag;

use super::chunk::{self, Chunk, TagState};
use super::key::{self, Key};

/// A table that could not be read. What it holds is not known: it is never taken for absent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{table}: {reason}")]
pub struct TableError {
    /// Which table: the name of its file, if it is one.
    pub table: String,
    /// What was found.
    pub reason: String,
}

impl TableError {
    /// What a table holds makes no sense.
    pub(super) fn damaged(reason: &str) -> TableError {
        TableError { table: String::new(), reason: reason.to_owned() }
    }
}

/// An entry of a table.
pub type Entry = (Bytes, Bytes);

/// Entries one after the other.
pub type Entries<'a> = Box<dyn Iterator<Item = Result<Entry, TableError>> + Send + 'a>;

/// An immutable sorted table of the index, wherever it lies. Its keys are made by this crate; which of them belong
/// into its filter, [`filter_key`](super::filter_key) says.
pub trait SortedTable: fmt::Debug + Send + Sync {
    /// `false`: no key with this filter key is in the table.
    ///
    /// # Errors
    /// [`TableError`], if the filter cannot be read.
    fn may_contain(&self, filter_key: &[u8]) -> Result<bool, TableError>;

    /// The first entry whose key is `key` or above.
    ///
    /// # Errors
    /// [`TableError`], if the table cannot be read.
    fn at_or_after(&self, key: &[u8]) -> Result<Option<Entry>, TableError>;

    /// The last entry whose key is `key` or below.
    ///
    /// # Errors
    /// [`TableError`], if the table cannot be read.
    fn at_or_before(&self, key: &[u8]) -> Result<Option<Entry>, TableError>;

    /// All entries whose keys are `from` or above, in order. For reading much at once: it need not keep anything in a
    /// cache.
    fn scan(&self, from: &[u8]) -> Entries<'_> {
        let mut next = Some(from.to_vec());
        Box::new(std::iter::from_fn(move || {
            let found = self.at_or_after(&next.take()?).transpose()?;
            if let Ok((key, _)) = &found {
                next = Some([key, &[0][..]].concat());
            }
            Some(found)
        }))
    }

    /// Memory that it takes, its share of a cache not counted, in bytes.
    fn memory_bytes(&self) -> usize;
}

/// A table in memory: for tests, for the simulator, and for what a snapshot holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MemoryTable {
    entries: BTreeMap<Bytes, Bytes>,
    filter: BTreeSet<Bytes>,
}

impl MemoryTable {
    /// A table of `entries`.
    ///
    /// # Errors
    /// The first error among them.
    pub fn new(entries: impl Iterator<Item = Result<Entry, TableError>>) -> Result<MemoryTable, TableError> {
        let entries = entries.collect::<Result<BTreeMap<_, _>, _>>()?;
        let filter = entries.keys().filter_map(|key| Some(key.slice_ref(key::filter_key(key)?))).collect();
        Ok(MemoryTable { entries, filter })
    }
}

impl MemoryTable {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl fmt::Debug for MemoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryTable({} entries)", self.entries.len())
    }
}

fn entry((key, value): (&Bytes, &Bytes)) -> Entry {
    (key.clone(), value.clone())
}

impl SortedTable for MemoryTable {
    fn may_contain(&self, filter_key: &[u8]) -> Result<bool, TableError> {
        Ok(self.filter.contains(filter_key))
    }

    fn at_or_after(&self, key: &[u8]) -> Result<Option<Entry>, TableError> {
        Ok(self.entries.range::<[u8], _>((Bound::Included(key), Bound::Unbounded)).next().map(entry))
    }

    fn at_or_before(&self, key: &[u8]) -> Result<Option<Entry>, TableError> {
        Ok(self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back().map(entry))
    }

    fn memory_bytes(&self) -> usize {
        self.entries.iter().map(|(key, value)| 2 * key.len() + value.len() + 160).sum()
    }
}

/// What the index remembers of a table, and a checkpoint says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its number: never used twice in a data directory.
    pub number: u64,
    /// It covers the seqs from this one on ...
    pub from: Seq,
    /// ... below this one.
    pub to: Seq,
    /// Its size, in bytes, as whoever wrote it counts.
    pub bytes: u64,
    /// How many of the seqs that it covers had a record when it was written.
    pub records: u64,
}

/// A table and what it covers.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) info: TableInfo,
    pub(super) entries: Arc<dyn SortedTable>,
}

/// What a scan wants after the seq it was given: the next bound, inclusive, or no more.
pub(super) type Wanted = Option<Seq>;

impl Table {
    /// `error` with the table's name, if whoever keeps it has not named it.
    pub(super) fn named(&self, error: TableError) -> TableError {
        let table = if error.table.is_empty() { format!("index table {}", self.info.number) } else { error.table };
        TableError { table, ..error }
    }

    /// Hands the seqs of the list that begins with `list` to `each`, rising from `from`, below `below`, as long as it
    /// wants more.
    pub(super) fn up(
        &self,
        list: &[u8],
        from: Seq,
        below: Seq,
        each: &mut dyn FnMut(Seq) -> Wanted,
    ) -> Result<Wanted, TableError> {
        let mut from = from.max(self.info.from);
        let below = below.min(self.info.to);
        if from >= below || !self.entries.may_contain(list)? {
            return Ok(Some(from));
        }
        let mut next = self.chunk_before(list, from)?.filter(|chunk| chunk.last >= from);
        let mut seqs = Vec::new();
        while from < below {
            let chunk = match next.take() {
                Some(chunk) => chunk,
                None => match self.chunk_after(list, from)? {
                    Some(chunk) => chunk,
                    None => break,
                },
            };
            seqs.clear();
            chunk.unpack(&mut seqs)?;
            for seq in seqs.drain(..) {
                if seq < from {
                    continue;
                }
                if seq >= below {
                    return Ok(Some(from));
                }
                match each(seq) {
                    Some(wanted) => from = wanted,
                    None => return Ok(None),
                }
            }
            from = from.max(chunk.last.next());
        }
        Ok(Some(from))
    }

    /// As [`Table::up`], falling from `from`, down to `floor`.
    pub(super) fn down(
        &self,
        list: &[u8],
        from: Seq,
        floor: Seq,
        each: &mut dyn FnMut(Seq) -> Wanted,
    ) -> Result<Wanted, TableError> {
        let mut from = from;
        if from < self.info.from || self.info.to <= floor || !self.entries.may_contain(list)? {
            return Ok(Some(from));
        }
        let mut seqs = Vec::new();
        while from >= floor {
            let Some(chunk) = self.chunk_before(list, from)? else { break };
            seqs.clear();
            chunk.unpack(&mut seqs)?;
            for seq in seqs.drain(..).rev() {
                if seq > from {
                    continue;
                }
                if seq < floor {
                    return Ok(Some(from));
                }
                match each(seq) {
                    Some(wanted) => from = wanted,
                    None => return Ok(None),
                }
            }
            let Some(before) = chunk.first.0.checked_sub(1) else { break };
            from = from.min(Seq(before));
        }
        Ok(Some(from))
    }

    /// The last seq of the list, if it is `floor` or above.
    pub(super) fn last(&self, list: &[u8], floor: Seq) -> Result<Option<Seq>, TableError> {
        if self.info.to <= floor || !self.entries.may_contain(list)? {
            return Ok(None);
        }
        Ok(self.chunk_before(list, Seq::MAX)?.map(|chunk| chunk.last).filter(|last| *last >= floor))
    }

    fn chunk_before(&self, list: &[u8], seq: Seq) -> Result<Option<Chunk>, TableError> {
        self.chunk(list, self.entries.at_or_before(&key::in_list(list, seq))?)
    }

    fn chunk_after(&self, list: &[u8], seq: Seq) -> Result<Option<Chunk>, TableError> {
        self.chunk(list, self.entries.at_or_after(&key::in_list(list, seq))?)
    }

    fn chunk(&self, list: &[u8], found: Option<Entry>) -> Result<Option<Chunk>, TableError> {
        let Some((key, value)) = found.filter(|(key, _)| key.starts_with(list)) else { return Ok(None) };
        match Key::parse(&key)? {
            Key::Records { first, .. } => Chunk::parse(first, value).map(Some),
            _ => Err(TableError::damaged("a key is not of its list")),
        }
    }

    pub(super) fn state(&self, key: &[u8]) -> Result<Option<TagState>, TableError> {
        if !self.entries.may_contain(key)? {
            return Ok(None);
        }
        match self.entries.at_or_after(key)? {
            Some((found, value)) if found == key => TagState::parse(&value).map(Some),
            _ => Ok(None),
        }
    }

    /// The first tag of `book` whose keys are `key` or above.
    pub(super) fn tag_from(&self, book: BookId, key: &[u8]) -> Result<Option<Tag>, TableError> {
        match self.entries.at_or_after(key)? {
            Some((found, _)) => key::tag_of(&found, book),
            None => Ok(None),
        }
    }

    /// When `seq`, which it covers, was ordered.
    pub(super) fn time(&self, seq: Seq) -> Result<u64, TableError> {
        if let Some((key, value)) = self.entries.at_or_before(&key::times(seq))?
            && let Key::Times { first } = Key::parse(&key)?
        {
            return chunk::time_in(first, &value, seq);
        }
        Err(TableError::damaged("the time of a seq is missing"))
    }
}
