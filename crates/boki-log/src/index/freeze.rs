//! From memory into tables: freezing what is recent, installing the tables that were written, merging them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{BookId, Seq};

use super::merge::{Keep, Merge, merged};
use super::part::Part;
use super::section::Head;
use super::table::{Entries, MemoryTable, SortedTable, Table, TableError, TableInfo};
use super::{Index, plan};

/// What a checkpoint needs of the index, as it was when it was frozen: it does not change any more, so it can be written
/// while the index goes on.
#[derive(Debug)]
pub struct Freeze {
    head: Head,
    /// What no table has.
    parts: Vec<Arc<Part>>,
    /// The tables at that time.
    tables: Vec<TableInfo>,
    from: Seq,
    to: Seq,
    records: u64,
}

impl Freeze {
    /// The first seq that was not applied.
    #[must_use]
    pub fn end(&self) -> Seq {
        self.to
    }

    /// Index of the first cut that was not applied.
    #[must_use]
    pub fn next_cut(&self) -> u64 {
        self.head.next_cut
    }

    /// The entries of the table that is to be written, in order; `None`: everything is in tables already.
    #[must_use]
    pub fn entries(&self) -> Option<Entries<'_>> {
        if self.parts.is_empty() {
            return None;
        }
        let inputs = self.parts.iter().map(|part| part.entries()).collect();
        Some(merged(inputs, &self.head.keep))
    }

    /// What the new table is, with the number and size that whoever wrote it gives.
    #[must_use]
    pub fn info(&self, number: u64, bytes: u64) -> TableInfo {
        TableInfo { number, from: self.from, to: self.to, bytes, records: self.records }
    }

    /// The tables that the checkpoint needs, the oldest first; `written` is the new one.
    #[must_use]
    pub fn tables(&self, written: Option<TableInfo>) -> Vec<TableInfo> {
        self.tables.iter().copied().chain(written).collect()
    }

    /// The index's part of the checkpoint, with `tables` as [`Freeze::tables`] gives them.
    #[must_use]
    pub fn section(&self, tables: &[TableInfo]) -> Bytes {
        self.head.encode(tables)
    }
}

impl Index {
    /// Makes what is recent unchangeable, so that it can be written out as a table; what comes is recent anew.
    pub fn freeze(&mut self) -> Freeze {
        let oldest = self.claims.oldest().unwrap_or(self.end);
        self.runs.forget_below(oldest);
        self.books.retain(|_, book| !book.is_blank());
        if self.end > self.base {
            let mut books = BTreeMap::new();
            for (id, book) in &mut self.books {
                if *id != BookId::CATALOG && !book.recent.is_empty() {
                    books.insert(*id, std::mem::take(&mut book.recent));
                }
            }
            let times = std::mem::replace(&mut self.times, VecDeque::from([(self.end, self.time_us)]));
            let (from, to, bytes) = (self.base, self.end, self.recent_bytes);
            self.frozen.push_back(Arc::new(Part { from, to, books, times, claims: self.claims.take_dirty(), bytes }));
            self.base = self.end;
            self.recent_bytes = 0;
        }
        let from = self.frozen.front().map_or(self.end, |part| part.from);
        Freeze {
            head: Head::of(self),
            parts: self.frozen.iter().cloned().collect(),
            tables: self.tables().collect(),
            from,
            to: self.end,
            records: self.claims.living_between(from, self.end),
        }
    }

    /// For an index whose checkpoint is a snapshot, and so names no table.
    ///
    /// # Errors
    /// Always.
    pub fn no_tables(info: &TableInfo) -> Result<Arc<dyn SortedTable>, TableError> {
        Err(TableError { table: format!("index table {}", info.number), reason: "there is none".to_owned() })
    }

    /// Puts a table in the place of what was frozen up to where it ends. A table of something else changes nothing.
    pub fn install(&mut self, info: TableInfo, entries: Arc<dyn SortedTable>) {
        let covers = |part: &Arc<Part>| part.to == info.to;
        if self.frozen.front().is_none_or(|part| part.from != info.from) || !self.frozen.iter().any(covers) {
            return;
        }
        while self.frozen.front().is_some_and(|part| part.to <= info.to) {
            self.frozen.pop_front();
        }
        self.tables.push(Table { info, entries });
    }

    /// Puts a table in the place of everything that is not recent.
    pub(super) fn install_all(&mut self, info: TableInfo, entries: Arc<dyn SortedTable>) {
        self.frozen.clear();
        self.tables = vec![Table { info, entries }];
    }

    /// Tables worth merging now, if there are any.
    #[must_use]
    pub fn plan_merge(&self) -> Option<Merge> {
        let infos: Vec<_> = self.tables().collect();
        let range = plan::choose(&infos, |info| self.claims.living_between(info.from, info.to))?;
        self.merge(range.start, range.end)
    }

    /// A merge of the tables from the `first` on, below `end`, counted from the oldest.
    #[must_use]
    pub fn merge(&self, first: usize, end: usize) -> Option<Merge> {
        let inputs = self.tables.get(first..end)?.to_vec();
        let (from, to) = (inputs.first()?.info.from, inputs.last()?.info.to);
        let keep = Keep {
            floors: Some(self.books.iter().map(|(id, book)| (*id, book.floors())).collect()),
            claims: self.claims.between(from, to),
            is_oldest: first == 0,
            oldest: self.claims.oldest().unwrap_or(self.end),
        };
        Some(Merge { inputs, keep, records: self.claims.living_between(from, to) })
    }

    /// Puts the table that a merge gave in the place of those that it was made of, if they are still there.
    pub fn install_merged(&mut self, merge: &Merge, info: TableInfo, entries: Arc<dyn SortedTable>) {
        let Some(first) = merge.inputs().next() else { return };
        let Some(at) = self.tables.iter().position(|table| table.info.number == first) else { return };
        let end = at + merge.inputs.len();
        let is_same = |tables: &[Table]| tables.iter().map(|table| table.info.number).eq(merge.inputs());
        if self.tables.get(at..end).is_some_and(is_same) {
            self.tables.splice(at..end, [Table { info, entries }]);
        }
    }

    /// Freezes, and makes one table in memory of all there is: what a snapshot that stands for itself holds.
    ///
    /// # Errors
    /// [`TableError`], if a table cannot be read.
    pub(super) fn gather(&mut self) -> Result<(Freeze, MemoryTable), TableError> {
        let mut freeze = self.freeze();
        let tables = self.tables.iter().map(|table| table.entries.scan(&[]));
        let parts = freeze.parts.iter().map(|part| part.entries());
        let gathered = MemoryTable::new(merged(tables.chain(parts).collect(), &Keep::default()))?;
        freeze.from = self.tables.first().map_or(freeze.from, |table| table.info.from);
        freeze.records = self.claims.living();
        Ok((freeze, gathered))
    }
}
