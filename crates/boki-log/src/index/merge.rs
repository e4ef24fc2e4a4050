//! Tables from tables: several of neighbouring ranges become one, without what nobody can find any more.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

use bytes::Bytes;

use crate::ids::{BookId, Seq};

use super::chunk::{self, Chunk, Packed, TagState};
use super::claims::{self, Pages};
use super::key::{self, Key};
use super::part::chunk_entry;
use super::table::{Entries, Entry, Table, TableError, TableInfo};

/// What may be left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Keep {
    /// Of each book what [`Floors`] says; books that are not there have nothing. `None`: that is not known.
    pub(super) floors: Option<BTreeMap<BookId, Floors>>,
    /// What is alive.
    pub(super) claims: Pages,
    /// There is nothing older than these tables: a floor that has been applied need not be kept.
    pub(super) is_oldest: bool,
    /// Nothing below exists in any book.
    pub(super) oldest: Seq,
}

/// Below which seqs a book has nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floors {
    /// In its own order, and under reserved tags.
    pub(super) since: Seq,
    /// Under any other tag.
    pub(super) of_tags: Seq,
}

impl Keep {
    fn floors(&self, book: BookId) -> Floors {
        let nothing = Floors { since: Seq::MAX, of_tags: Seq::MAX };
        let all = Floors { since: Seq::NONE, of_tags: Seq::NONE };
        self.floors.as_ref().map_or(all, |floors| floors.get(&book).copied().unwrap_or(nothing))
    }

    /// The floor of the book for the records of the tag in `key`.
    fn floor_of_tag(&self, book: BookId, key: &[u8]) -> Seq {
        let floors = self.floors(book);
        if key::has_reserved_tag(key) { floors.since } else { floors.of_tags }
    }
}

/// The entries of `inputs`, the oldest first, as those of one table.
pub(super) fn merged<'a>(inputs: Vec<Entries<'a>>, keep: &'a Keep) -> Entries<'a> {
    Box::new(Merged {
        inputs: inputs.into_iter().map(Iterator::peekable).collect(),
        keep,
        open: None,
        tag: None,
        times: None,
        out: VecDeque::new(),
        is_over: false,
    })
}

struct Merged<'a> {
    inputs: Vec<Peekable<Entries<'a>>>,
    keep: &'a Keep,
    /// The list that is being written, and its next chunk.
    open: Option<(Bytes, Packed)>,
    /// What the keys of the tag whose state came last begin with, and its floor.
    tag: Option<(Bytes, Seq)>,
    /// Times that are written if what follows does not make them superfluous.
    times: Option<Entry>,
    out: VecDeque<Entry>,
    is_over: bool,
}

impl Merged<'_> {
    /// The next entry of all inputs; of those with the same key, the newest.
    fn pull(&mut self) -> Option<Result<Entry, TableError>> {
        let mut least: Option<(usize, Bytes)> = None;
        for (at, input) in self.inputs.iter_mut().enumerate() {
            match input.peek() {
                None => {}
                Some(Err(error)) => return Some(Err(error.clone())),
                Some(Ok((key, _))) if least.as_ref().is_none_or(|(_, least)| key <= least) => {
                    least = Some((at, key.clone()));
                }
                Some(Ok(_)) => {}
            }
        }
        let (newest, key) = least?;
        let taken = self.inputs.get_mut(newest)?.next();
        for input in self.inputs.iter_mut().take(newest) {
            input.next_if(|other| other.as_ref().is_ok_and(|(other, _)| *other == key));
        }
        taken
    }

    fn push(&mut self, (key, value): Entry) -> Result<(), TableError> {
        let parsed = Key::parse(&key)?;
        if let Key::Records { book, list, of_tag, first } = parsed {
            return self.push_chunk(book, &key.slice(..list), of_tag, Chunk::parse(first, value)?);
        }
        self.flush();
        match parsed {
            Key::State { book } => {
                let state = TagState::parse(&value)?;
                self.tag = Some((key.slice(..key.len() - 2), state.floor));
                let floor = self.keep.floor_of_tag(book, &key);
                let says_nothing = state.fence == 0 && (self.keep.is_oldest || state.floor <= floor);
                if floor < Seq::MAX && !says_nothing {
                    self.out.push_back((key, value));
                }
            }
            Key::Times { first } => {
                if let Some(earlier) = self.times.replace((key, value))
                    && !(self.keep.is_oldest && first <= self.keep.oldest)
                {
                    self.out.push_back(earlier);
                }
            }
            Key::Claims { .. } => {
                self.out.extend(self.times.take());
                if !(self.keep.is_oldest && *value == *claims::empty_page()) {
                    self.out.push_back((key, value));
                }
            }
            Key::Records { .. } => {}
        }
        Ok(())
    }

    fn push_chunk(&mut self, book: BookId, list: &Bytes, of_tag: bool, chunk: Chunk) -> Result<(), TableError> {
        if self.open.as_ref().is_none_or(|(open, _)| open != list) {
            self.flush();
        }
        let mut floor = if of_tag { self.keep.floor_of_tag(book, list) } else { self.keep.floors(book).since };
        if let Some((tag, tag_floor)) = &self.tag
            && of_tag
            && list.get(..list.len() - 2) == Some(tag)
        {
            floor = floor.max(*tag_floor);
        }
        if chunk.last < floor {
            return Ok(());
        }
        let mut seqs = Vec::new();
        chunk.unpack(&mut seqs)?;
        for seq in seqs {
            if seq < floor || (!of_tag && !claims::lives_in(&self.keep.claims, seq)) {
                continue;
            }
            let (_, packed) = self.open.get_or_insert_with(|| (list.clone(), Packed::default()));
            packed.push(seq);
            if packed.len() == chunk::MOST {
                self.flush();
            }
        }
        Ok(())
    }

    /// Writes the chunk that is being filled.
    fn flush(&mut self) {
        if let Some((list, packed)) = self.open.take() {
            self.out.extend(chunk_entry(&list, &packed));
        }
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Entry, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.out.is_empty() && !self.is_over {
            match self.pull() {
                Some(entry) => {
                    if let Err(error) = entry.and_then(|entry| self.push(entry)) {
                        self.is_over = true;
                        return Some(Err(error));
                    }
                }
                None => {
                    self.is_over = true;
                    self.flush();
                    self.out.extend(self.times.take());
                }
            }
        }
        self.out.pop_front().map(Ok)
    }
}

/// Tables that are to become one. It can be done anywhere and at any time: nothing in it changes.
///
/// What is in the new table is what is left at the time of [`Index::merge`](super::Index::merge). A checkpoint that was
/// made before must keep to the old tables, for what follows it counts what it removes.
#[derive(Debug)]
pub struct Merge {
    pub(super) inputs: Vec<Table>,
    pub(super) keep: Keep,
    pub(super) records: u64,
}

impl Merge {
    /// The entries of the new table.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        let inputs = self.inputs.iter().map(|table| {
            let entries = table.entries.scan(&[]).map(|entry| entry.map_err(|error| table.named(error)));
            Box::new(entries) as Entries<'_>
        });
        merged(inputs.collect(), &self.keep)
    }

    /// What the new table is, with the number and size that whoever wrote it gives.
    #[must_use]
    pub fn info(&self, number: u64, bytes: u64) -> TableInfo {
        let from = self.inputs.first().map_or(Seq::NONE, |table| table.info.from);
        let to = self.inputs.last().map_or(Seq::NONE, |table| table.info.to);
        TableInfo { number, from, to, bytes, records: self.records }
    }

    /// The numbers of the tables that it takes the place of.
    pub fn inputs(&self) -> impl Iterator<Item = u64> {
        self.inputs.iter().map(|table| table.info.number)
    }

    /// Their sizes together, in bytes.
    #[must_use]
    pub fn input_bytes(&self) -> u64 {
        self.inputs.iter().map(|table| table.info.bytes).sum()
    }
}
