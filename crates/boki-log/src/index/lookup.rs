//! The index's answers: over what is recent, what is frozen and the tables, in the order in which that takes least.

use std::ops::Bound;

use crate::ids::{BookId, LocalId, Seq, ShardId};
use crate::tag::Tag;

use super::chunk::TagState;
use super::recent::{self, Recent};
use super::table::{Table, TableError, Wanted};
use super::{Book, Index, key};

/// The keys of a list of records: all of a book, or of a tag in it.
fn list_key(book: BookId, tag: Option<&str>) -> Vec<u8> {
    tag.map_or_else(|| key::book_list(book), |tag| key::tag_list(book, tag))
}

/// Whether all of a book is in memory as what is recent.
fn is_pinned(book: BookId) -> bool {
    book == BookId::CATALOG
}

impl Index {
    /// The shard, local id and time of the record at `seq`; `None` if there is none.
    ///
    /// # Errors
    /// [`TableError`], if its time is in a table that cannot be read.
    pub fn place(&self, seq: Seq) -> Result<Option<(ShardId, LocalId, u64)>, TableError> {
        let Some((shard, local)) = self.runs.find(seq) else { return Ok(None) };
        Ok(self.time(seq)?.map(|time_us| (shard, local, time_us)))
    }

    fn time(&self, seq: Seq) -> Result<Option<u64>, TableError> {
        let in_order = |times: &std::collections::VecDeque<(Seq, u64)>| {
            let at = times.partition_point(|(start, _)| *start <= seq).checked_sub(1)?;
            times.get(at).map(|(_, time_us)| *time_us)
        };
        if seq >= self.base {
            return Ok(in_order(&self.times));
        }
        if let Some(time_us) = self.catalog_times.get(&seq) {
            return Ok(Some(*time_us));
        }
        if !self.claims.is_alive(seq) {
            // Its time may have been left out of the tables.
            return Ok(None);
        }
        if let Some(part) = self.frozen.iter().find(|part| part.from <= seq && seq < part.to) {
            return Ok(in_order(&part.times));
        }
        match self.table_of(seq) {
            Some(table) => table.time(seq).map(Some).map_err(|error| table.named(error)),
            None => Ok(None),
        }
    }

    /// The table that covers `seq`.
    fn table_of(&self, seq: Seq) -> Option<&Table> {
        self.tables
            .get(self.tables.partition_point(|table| table.info.to <= seq))
            .filter(|table| table.info.from <= seq)
    }

    /// Up to `limit` seqs of `book` (of `tag`) from `from` on, inclusive, rising.
    ///
    /// # Errors
    /// [`TableError`], if a table that must be asked cannot be read.
    pub fn next(
        &self,
        book: BookId,
        tag: Option<&Tag>,
        from: Seq,
        limit: usize,
        out: &mut Vec<Seq>,
    ) -> Result<(), TableError> {
        let (id, Some(book)) = (book, self.books.get(&book)) else { return Ok(()) };
        if limit == 0 {
            return Ok(());
        }
        let most = out.len().saturating_add(limit);
        let mut from = from.max(book.floor_of(tag.map(Tag::as_str)));
        match tag.map(Tag::as_str) {
            Some(tag) => {
                if from < self.base && !is_pinned(id) {
                    from = from.max(self.state(id, book, tag)?.floor);
                }
                self.up(id, book, Some(tag), from, Seq::MAX, &mut |seq| {
                    out.push(seq);
                    (out.len() < most).then(|| seq.next())
                })?;
            }
            None => {
                let from = self.claims.skip_up(from);
                self.up(id, book, None, from, Seq::MAX, &mut |seq| {
                    if self.claims.is_alive(seq) {
                        out.push(seq);
                    }
                    (out.len() < most).then(|| self.claims.skip_up(seq.next()))
                })?;
            }
        }
        Ok(())
    }

    /// Up to `limit` seqs of `book` (of `tag`) from `from` down, inclusive, falling.
    ///
    /// # Errors
    /// [`TableError`], if a table that must be asked cannot be read.
    pub fn prev(
        &self,
        book: BookId,
        tag: Option<&Tag>,
        from: Seq,
        limit: usize,
        out: &mut Vec<Seq>,
    ) -> Result<(), TableError> {
        let (id, Some(book)) = (book, self.books.get(&book)) else { return Ok(()) };
        if limit == 0 {
            return Ok(());
        }
        let most = out.len().saturating_add(limit);
        match tag.map(Tag::as_str) {
            Some(tag) => {
                self.down(id, book, Some(tag), from, &mut |seq| {
                    out.push(seq);
                    (out.len() < most).then(|| Seq(seq.0 - 1))
                })?;
            }
            None => {
                let Some(from) = self.claims.skip_down(from) else { return Ok(()) };
                self.down(id, book, None, from, &mut |seq| {
                    if self.claims.is_alive(seq) {
                        out.push(seq);
                    }
                    if out.len() < most { self.claims.skip_down(Seq(seq.0.checked_sub(1)?)) } else { None }
                })?;
            }
        }
        Ok(())
    }

    /// The last seq of `book` (of `tag`); [`Seq::NONE`] if there is nothing.
    ///
    /// # Errors
    /// [`TableError`], if a table that must be asked cannot be read.
    pub fn tail(&self, book: BookId, tag: Option<&Tag>) -> Result<Seq, TableError> {
        let Some(tag) = tag else {
            let mut last = Vec::with_capacity(1);
            self.prev(book, None, Seq::MAX, 1, &mut last)?;
            return Ok(last.pop().unwrap_or(Seq::NONE));
        };
        let (id, Some(book)) = (book, self.books.get(&book)) else { return Ok(Seq::NONE) };
        self.tail_in(id, book, tag.as_str())
    }

    fn tail_in(&self, id: BookId, book: &Book, tag: &str) -> Result<Seq, TableError> {
        if let Some(last) = book.recent.list(Some(tag)).and_then(|seqs| seqs.back()) {
            return Ok(if *last >= book.floor_of(Some(tag)) { *last } else { Seq::NONE });
        }
        if is_pinned(id) || book.floor_of(Some(tag)) >= self.base || !self.is_elsewhere(id, tag)? {
            return Ok(Seq::NONE);
        }
        let floor = book.floor_of(Some(tag)).max(self.state(id, book, tag)?.floor);
        for part in self.frozen.iter().rev().take_while(|part| part.to > floor) {
            if let Some(last) = part.list(id, Some(tag)).and_then(|seqs| seqs.back()) {
                return Ok(if *last >= floor { *last } else { Seq::NONE });
            }
        }
        let list = key::tag_list(id, tag);
        for table in self.tables.iter().rev().take_while(|table| table.info.to > floor) {
            if let Some(last) = table.last(&list, floor).map_err(|error| table.named(error))? {
                return Ok(last);
            }
        }
        Ok(Seq::NONE)
    }

    /// Whether the catalog has a record of `book`. Asks no table.
    #[must_use]
    pub fn has_book(&self, book: BookId) -> bool {
        self.catalog_times.contains_key(&Seq(book.0))
    }

    /// Whether there is a record of `book` at `seq`.
    ///
    /// # Errors
    /// [`TableError`], if a table that must be asked cannot be read.
    pub fn contains(&self, book: BookId, seq: Seq) -> Result<bool, TableError> {
        let (id, Some(book)) = (book, self.books.get(&book)) else { return Ok(false) };
        if !self.claims.is_alive(seq) || seq < book.since {
            return Ok(false);
        }
        if id == BookId::CATALOG {
            return Ok(self.catalog_times.contains_key(&seq));
        }
        Ok(self.up(id, book, None, seq, seq.next(), &mut |_| None)?.is_none())
    }

    /// Up to `limit` tags of `book` that begin with `prefix` and come after `after`, each with its tail, in byte
    /// order; and whether there are more.
    ///
    /// # Errors
    /// [`TableError`], if a table that must be asked cannot be read.
    pub fn tags(
        &self,
        book: BookId,
        prefix: &str,
        after: Option<&Tag>,
        limit: usize,
    ) -> Result<(Vec<(Tag, Seq)>, bool), TableError> {
        let mut page = Vec::new();
        let (id, Some(book)) = (book, self.books.get(&book)) else { return Ok((page, false)) };
        let floor = book.floor_of(Some(prefix).filter(|prefix| !prefix.is_empty()));
        let mut heads = TagHeads::new(self, id, book, floor, prefix, after)?;
        while let Some(tag) = heads.next()?.filter(|tag| tag.as_str().starts_with(prefix)) {
            let last = self.tail_in(id, book, tag.as_str())?;
            if last == Seq::NONE {
                continue;
            }
            if page.len() == limit {
                return Ok((page, true));
            }
            page.push((tag, last));
        }
        Ok((page, false))
    }

    /// Every record that exists: its shard and local id, in the order of the seqs.
    pub fn live(&self) -> impl Iterator<Item = (ShardId, LocalId)> {
        self.claims.iter().filter_map(|seq| self.runs.find(seq))
    }

    // ---- Inside.

    /// Hands the seqs of a list to `each`, rising from `from`, below `below`. It must not be asked for what is below the
    /// tag's floor.
    pub(super) fn up(
        &self,
        id: BookId,
        book: &Book,
        tag: Option<&str>,
        from: Seq,
        below: Seq,
        each: &mut dyn FnMut(Seq) -> Wanted,
    ) -> Result<Wanted, TableError> {
        let mut from = from;
        if from < self.base && !is_pinned(id) {
            let first = self.tables.partition_point(|table| table.info.to <= from);
            let list = if first < self.tables.len() { list_key(id, tag) } else { Vec::new() };
            for table in self.tables.get(first..).unwrap_or_default() {
                if table.info.from >= below {
                    return Ok(Some(from));
                }
                match table.up(&list, from, below, each).map_err(|error| table.named(error))? {
                    Some(wanted) => from = wanted,
                    None => return Ok(None),
                }
            }
            for part in &self.frozen {
                let Some(seqs) = part.list(id, tag).filter(|_| part.to > from) else { continue };
                match recent::up(seqs, from, below, each) {
                    Some(wanted) => from = wanted,
                    None => return Ok(None),
                }
            }
        }
        Ok(book.recent.list(tag).map_or(Some(from), |seqs| recent::up(seqs, from, below, each)))
    }

    /// As [`Index::up`], falling from `from`, down to the floors of the book and the tag.
    fn down(
        &self,
        id: BookId,
        book: &Book,
        tag: Option<&str>,
        from: Seq,
        each: &mut dyn FnMut(Seq) -> Wanted,
    ) -> Result<(), TableError> {
        let mut from = from;
        if let Some(seqs) = book.recent.list(tag) {
            match recent::down(seqs, from, book.floor_of(tag), each) {
                Some(wanted) => from = wanted,
                None => return Ok(()),
            }
        }
        let mut floor = book.floor_of(tag);
        if is_pinned(id) || floor >= self.base {
            return Ok(());
        }
        if let Some(tag) = tag {
            floor = floor.max(self.state(id, book, tag)?.floor);
        }
        for part in self.frozen.iter().rev().filter(|part| part.to > floor) {
            let Some(seqs) = part.list(id, tag).filter(|_| part.from <= from) else { continue };
            match recent::down(seqs, from, floor, each) {
                Some(wanted) => from = wanted,
                None => return Ok(()),
            }
        }
        let list = if self.tables.is_empty() { Vec::new() } else { list_key(id, tag) };
        for table in self.tables.iter().rev().take_while(|table| table.info.to > floor) {
            match table.down(&list, from, floor, each).map_err(|error| table.named(error))? {
                Some(wanted) => from = wanted,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// What is known of a tag besides its records.
    pub(super) fn state(&self, id: BookId, book: &Book, tag: &str) -> Result<TagState, TableError> {
        if let Some(state) = book.recent.state(tag) {
            return Ok(state);
        }
        if is_pinned(id) {
            return Ok(TagState::default());
        }
        if let Some(state) = self.frozen.iter().rev().find_map(|part| part.state(id, tag)) {
            return Ok(state);
        }
        if self.tables.is_empty() {
            return Ok(TagState::default());
        }
        let key = key::state(id, tag);
        for table in self.tables.iter().rev() {
            if let Some(state) = table.state(&key).map_err(|error| table.named(error))? {
                return Ok(state);
            }
        }
        Ok(TagState::default())
    }

    /// Whether older parts or tables may have records of the tag.
    pub(super) fn is_elsewhere(&self, id: BookId, tag: &str) -> Result<bool, TableError> {
        if is_pinned(id) || self.base == Seq::FIRST {
            return Ok(false);
        }
        if self.frozen.iter().any(|part| part.list(id, Some(tag)).is_some()) {
            return Ok(true);
        }
        let list = key::tag_list(id, tag);
        for table in &self.tables {
            if table.entries.may_contain(&list).map_err(|error| table.named(error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The next tag of each place where a book's tags are.
pub(super) struct TagHeads<'a> {
    id: BookId,
    memory: Vec<(&'a Recent, Option<&'a Tag>)>,
    tables: Vec<(&'a Table, Option<Tag>)>,
}

impl<'a> TagHeads<'a> {
    /// The tags that begin with `prefix`, and some that do not, after `after`; tags of which nothing is at `floor` or above
    /// may be left out.
    pub(super) fn new(
        index: &'a Index,
        id: BookId,
        book: &'a Book,
        floor: Seq,
        prefix: &str,
        after: Option<&Tag>,
    ) -> Result<TagHeads<'a>, TableError> {
        let after = after.map(Tag::as_str).filter(|after| *after >= prefix);
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let parts = index.frozen.iter().filter_map(|part| part.books.get(&id));
        let memory = parts.chain([&book.recent]).map(|recent| (recent, recent.tag_from(start))).collect();
        let key = after.map_or_else(|| key::tag_base(id, prefix), |after| key::after_tag(id, after));
        let mut tables = Vec::new();
        if !is_pinned(id) {
            for table in index.tables.iter().filter(|table| table.info.to > floor) {
                let head = table.tag_from(id, &key).map_err(|error| table.named(error))?;
                tables.push((table, head));
            }
        }
        Ok(TagHeads { id, memory, tables })
    }

    /// The least tag that has not been given yet.
    pub(super) fn next(&mut self) -> Result<Option<Tag>, TableError> {
        let in_memory = self.memory.iter().filter_map(|(_, head)| *head);
        let Some(least) = in_memory.chain(self.tables.iter().filter_map(|(_, head)| head.as_ref())).min().cloned()
        else {
            return Ok(None);
        };
        for (recent, head) in &mut self.memory {
            if *head == Some(&least) {
                *head = recent.tag_from(Bound::Excluded(least.as_str()));
            }
        }
        for (table, head) in &mut self.tables {
            if head.as_ref() == Some(&least) {
                let after = key::after_tag(self.id, least.as_str());
                *head = table.tag_from(self.id, &after).map_err(|error| table.named(error))?;
            }
        }
        Ok(Some(least))
    }
}
