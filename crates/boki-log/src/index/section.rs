//! The index's part of a checkpoint: everything but what is in tables, and which tables there are. Little-endian; a list is
//! its length (u64) and its items. The file that holds it has the checksum.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Reader, Writer};
use crate::error::LogError;
use crate::ids::{AppendId, BookId, LocalId, NodeId, Seq, ShardId, Term};
use crate::tag::Tag;

use super::chunk::TagState;
use super::claims::Page;
use super::key::{self, Key};
use super::merge::Keep;
use super::recent::{Recent, RecentTag};
use super::runs::{Run, Runs};
use super::table::{MemoryTable, SortedTable, Table, TableError, TableInfo};
use super::window::Remembered;
use super::{Book, Index, version1};

/// First field of a section: changes with its layout.
const VERSION: u32 = 2;

/// Number of the table that a snapshot has in itself, behind the section: each key and value behind its length.
const INLINE: u64 = 0;

/// Why an index cannot be taken back from a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The checkpoint does not parse.
    #[error(transparent)]
    Malformed(#[from] LogError),
    /// A table that it names cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A book as a checkpoint has it.
#[derive(Debug)]
struct BookHead {
    id: BookId,
    since: Seq,
    floor: Seq,
    closed: bool,
    is_fenced: bool,
    count: u64,
    ids: Vec<Remembered>,
}

/// What is in a section besides the list of tables.
#[derive(Debug)]
pub(super) struct Head {
    end: Seq,
    pub(super) next_cut: u64,
    time_us: u64,
    runs: Vec<Run>,
    books: Vec<BookHead>,
    /// The catalog, which is in no table.
    catalog: Recent,
    catalog_times: Vec<(Seq, u64)>,
    pub(super) keep: Keep,
}

impl Head {
    /// Of an index that has just been frozen.
    pub(super) fn of(index: &Index) -> Head {
        let book = |(id, book): (&BookId, &Book)| BookHead {
            id: *id,
            since: book.since,
            floor: book.floor,
            closed: book.closed,
            is_fenced: book.is_fenced,
            count: book.count,
            ids: book.ids.order.iter().copied().collect(),
        };
        Head {
            end: index.end,
            next_cut: index.next_cut,
            time_us: index.time_us,
            runs: index.runs.0.iter().copied().collect(),
            books: index.books.iter().map(book).collect(),
            catalog: index.books.get(&BookId::CATALOG).map(|book| book.recent.clone()).unwrap_or_default(),
            catalog_times: index.catalog_times.iter().map(|(seq, time_us)| (*seq, *time_us)).collect(),
            keep: Keep::default(),
        }
    }

    pub(super) fn encode(&self, tables: &[TableInfo]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(VERSION);
        out.put_u64_le(self.end.0);
        out.put_u64_le(self.next_cut);
        out.put_u64_le(self.time_us);
        out.put_u64_le(self.runs.len() as u64);
        for run in &self.runs {
            out.put_u64_le(run.start.0);
            out.put_u16_le(run.shard.engine.0);
            out.put_u32_le(run.shard.term.0);
            out.put_u64_le(run.from.0);
            out.put_u64_le(run.count);
        }
        out.put_u64_le(tables.len() as u64);
        for table in tables {
            out.put_u64_le(table.number);
            out.put_u64_le(table.from.0);
            out.put_u64_le(table.to.0);
            out.put_u64_le(table.bytes);
            out.put_u64_le(table.records);
        }
        out.put_u64_le(self.books.len() as u64);
        for book in &self.books {
            out.put_u64_le(book.id.0);
            out.put_u64_le(book.since.0);
            out.put_u64_le(book.floor.0);
            out.put_u8(u8::from(book.closed) | u8::from(book.is_fenced) << 1);
            out.put_u64_le(book.count);
            out.put_u64_le(book.ids.len() as u64);
            for Remembered { time_us, id, seq } in &book.ids {
                out.put_u64_le(*time_us);
                out.put_slice(&id.0);
                out.put_u64_le(seq.0);
            }
        }
        put_seqs(&mut out, self.catalog.records.iter().copied());
        out.put_u64_le(self.catalog.tags.len() as u64);
        for (tag, recent) in &self.catalog.tags {
            out.put_short_str(tag.as_str());
            let state = recent.state.unwrap_or_default();
            out.put_u64_le(state.fence);
            out.put_u64_le(state.floor.0);
            put_seqs(&mut out, recent.seqs.iter().copied());
        }
        out.put_u64_le(self.catalog_times.len() as u64);
        for (seq, time_us) in &self.catalog_times {
            out.put_u64_le(seq.0);
            out.put_u64_le(*time_us);
        }
        out.freeze()
    }
}

fn put_seqs(out: &mut BytesMut, seqs: impl ExactSizeIterator<Item = Seq>) {
    out.put_u64_le(seqs.len() as u64);
    seqs.for_each(|seq| out.put_u64_le(seq.0));
}

fn take_seqs<C: FromIterator<Seq>>(reader: &mut Reader<'_>) -> Result<C, LogError> {
    (0..reader.u64()?).map(|_| reader.u64().map(Seq)).collect()
}

fn take_book(reader: &mut Reader<'_>) -> Result<Book, LogError> {
    let (since, floor) = (Seq(reader.u64()?), Seq(reader.u64()?));
    let flags = reader.u8()?;
    let mut book = Book {
        since,
        floor,
        closed: flags & 1 != 0,
        is_fenced: flags & 2 != 0,
        count: reader.u64()?,
        ..Book::default()
    };
    for _ in 0..reader.u64()? {
        let (time_us, id) = (reader.u64()?, AppendId(reader.array()?));
        book.ids.insert(id, Seq(reader.u64()?), time_us);
    }
    Ok(book)
}

fn take_catalog(reader: &mut Reader<'_>) -> Result<Recent, LogError> {
    let mut catalog = Recent { records: take_seqs(reader)?, ..Recent::default() };
    for _ in 0..reader.u64()? {
        let tag = Tag::new(reader.short_str()?)?;
        let state = TagState { fence: reader.u64()?, floor: Seq(reader.u64()?) };
        let state = (state != TagState::default()).then_some(state);
        catalog.tags.insert(tag, RecentTag { seqs: take_seqs(reader)?, state });
    }
    Ok(catalog)
}

fn take_runs(reader: &mut Reader<'_>) -> Result<Runs, LogError> {
    let mut runs = Runs::default();
    for _ in 0..reader.u64()? {
        let start = Seq(reader.u64()?);
        let shard = ShardId { engine: NodeId(reader.u16()?), term: Term(reader.u32()?) };
        runs.0.push_back(Run { start, shard, from: LocalId(reader.u64()?), count: reader.u64()? });
    }
    Ok(runs)
}

fn take_infos(reader: &mut Reader<'_>) -> Result<Vec<TableInfo>, LogError> {
    let mut infos = Vec::new();
    for _ in 0..reader.u64()? {
        let (number, from, to) = (reader.u64()?, Seq(reader.u64()?), Seq(reader.u64()?));
        infos.push(TableInfo { number, from, to, bytes: reader.u64()?, records: reader.u64()? });
    }
    Ok(infos)
}

impl Index {
    /// The index of a checkpoint, or of a snapshot. `open` gives each table that it names, other than that of a snapshot; tables
    /// that it does not name belong to no checkpoint.
    ///
    /// # Errors
    /// [`RestoreError`]. In particular of a section of another version.
    pub fn restore(
        section: &Bytes,
        mut open: impl FnMut(&TableInfo) -> Result<Arc<dyn SortedTable>, TableError>,
    ) -> Result<Index, RestoreError> {
        let mut reader = Reader::new(section);
        match reader.u32()? {
            VERSION => {}
            version1::VERSION => return Ok(version1::restore(reader)?),
            _ => return Err(LogError::Malformed { reason: "an index of another version" }.into()),
        }
        let end = Seq(reader.u64()?);
        let mut index = Index { end, base: end, next_cut: reader.u64()?, time_us: reader.u64()?, ..Index::default() };
        index.times.push_back((end, index.time_us));
        index.runs = take_runs(&mut reader)?;
        let infos = take_infos(&mut reader)?;
        for _ in 0..reader.u64()? {
            index.books.insert(BookId(reader.u64()?), take_book(&mut reader)?);
        }
        let catalog = take_catalog(&mut reader)?;
        if !catalog.is_empty() {
            index.books.entry(BookId::CATALOG).or_default().recent = catalog;
        }
        for _ in 0..reader.u64()? {
            index.catalog_times.insert(Seq(reader.u64()?), reader.u64()?);
        }
        let inlined: Arc<dyn SortedTable> = Arc::new(take_entries(&mut reader)?);
        for info in infos {
            let entries = if info.number == INLINE { Arc::clone(&inlined) } else { open(&info)? };
            index.tables.push(Table { entries, info });
        }
        index.restore_claims()?;
        Ok(index)
    }

    /// The tables that the index of a checkpoint names, other than the one that a snapshot has in itself.
    ///
    /// # Errors
    /// [`LogError::Malformed`], if it does not parse as far as that.
    pub fn tables_named(section: &Bytes) -> Result<Vec<TableInfo>, LogError> {
        let mut reader = Reader::new(section);
        if reader.u32()? != VERSION {
            return Ok(Vec::new());
        }
        // How far the index has come: end, next cut, time.
        for _ in 0..3 {
            reader.u64()?;
        }
        take_runs(&mut reader)?;
        let mut infos = take_infos(&mut reader)?;
        infos.retain(|info| info.number != INLINE);
        Ok(infos)
    }

    /// Takes the claims back: of each page the newest table's.
    fn restore_claims(&mut self) -> Result<(), TableError> {
        let mut seen = std::collections::BTreeSet::new();
        for table in self.tables.iter().rev() {
            for entry in table.entries.scan(&key::claims(0)) {
                let (key, value) = entry.map_err(|error| table.named(error))?;
                let Key::Claims { page } = Key::parse(&key).map_err(|error| table.named(error))? else { break };
                if seen.insert(page) {
                    self.claims.restore(page, Page::decode(&value).map_err(|error| table.named(error))?);
                }
            }
        }
        Ok(())
    }

    /// The whole index as bytes that stand for themselves, with what is in tables. What they hold is in one table in memory
    /// from then on.
    ///
    /// # Errors
    /// [`TableError`], if a table cannot be read.
    pub fn snapshot(&mut self) -> Result<Bytes, TableError> {
        let (freeze, gathered) = self.gather()?;
        let tables: Vec<_> = (!gathered.is_empty()).then(|| freeze.info(INLINE, 0)).into_iter().collect();
        let mut out = BytesMut::from(&*freeze.section(&tables));
        for entry in gathered.scan(&[]) {
            let (key, value) = entry?;
            out.put_long_bytes(&key);
            out.put_long_bytes(&value);
        }
        if let Some(info) = tables.into_iter().next() {
            self.install_all(info, Arc::new(gathered));
        }
        Ok(out.freeze())
    }
}

fn take_entries(reader: &mut Reader<'_>) -> Result<MemoryTable, RestoreError> {
    let mut entries = Vec::new();
    while reader.remaining() > 0 {
        entries.push(Ok((reader.long_bytes()?, reader.long_bytes()?)));
    }
    Ok(MemoryTable::new(entries.into_iter())?)
}
