//! Reads tables from front to back: for merging them, and to see whether they are whole.

use super::block::{Block, Cursor, Malformed};
use super::reader::Table;
use super::seal::Kind;
use crate::error::TableError;
use crate::vfs::Vfs;

/// Bytes that are read with one call.
const READ_BYTES: usize = 256 << 10;

/// Goes through a table's entries in order. It stands before the first entry at the beginning; after an error it stays where
/// it is.
#[derive(Debug)]
pub struct Scan<'a, V: Vfs> {
    table: &'a Table<V>,
    /// The block after the one that is open.
    next_block: usize,
    cursor: Cursor,
    /// Bytes of the file, from `window_offset` on.
    window: Vec<u8>,
    window_offset: u64,
    /// Where the block begins that is open.
    block_offset: u64,
    /// It stands on an entry already, which [`Scan::advance`] has not told yet.
    is_ahead: bool,
}

impl<'a, V: Vfs> Scan<'a, V> {
    pub(super) fn new(table: &'a Table<V>, next_block: usize) -> Scan<'a, V> {
        Scan {
            table,
            next_block,
            cursor: Cursor::default(),
            window: Vec::new(),
            window_offset: 0,
            block_offset: 0,
            is_ahead: false,
        }
    }

    /// Steps to the next entry; whether there is one.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn advance(&mut self) -> Result<bool, TableError> {
        if std::mem::take(&mut self.is_ahead) {
            return Ok(true);
        }
        loop {
            match self.cursor.advance() {
                Ok(true) => return Ok(true),
                Ok(false) if self.open_next_block()? => {}
                Ok(false) => return Ok(false),
                Err(Malformed) => return Err(self.table.damaged(self.block_offset, "a block is malformed")),
            }
        }
    }

    /// Key of the entry on which it stands.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    /// Value of the entry on which it stands.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.cursor.value()
    }

    /// Steps before the first entry that is not below `key`.
    pub(super) fn skip_below(&mut self, key: &[u8]) -> Result<(), TableError> {
        while self.advance()? {
            if self.key() >= key {
                self.is_ahead = true;
                break;
            }
        }
        Ok(())
    }

    /// Whether there was a next block.
    fn open_next_block(&mut self) -> Result<bool, TableError> {
        let Some((offset, len)) = self.table.index().place(self.next_block) else { return Ok(false) };
        let sealed = self.sealed(offset, len)?.to_vec();
        let bytes = self.table.open_sealed(Kind::Block, offset, sealed)?;
        let block = Block::new(bytes.into());
        let block = block.map_err(|Malformed| self.table.damaged(offset, "a block is malformed"))?;
        self.cursor = block.cursor();
        self.block_offset = offset;
        self.next_block += 1;
        Ok(true)
    }

    /// Bytes of the file, read with some that come behind them.
    fn sealed(&mut self, offset: u64, len: usize) -> Result<&[u8], TableError> {
        let window_end = self.window_offset + self.window.len() as u64;
        if offset < self.window_offset || offset + len as u64 > window_end {
            let left = self.table.index().end() - offset;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES.max(len));
            self.window.resize(wanted, 0);
            // A read that fails leaves nothing that a later one could take for the file's.
            self.window_offset = u64::MAX - READ_BYTES.max(len) as u64;
            self.table.read_raw(offset, &mut self.window)?;
            self.window_offset = offset;
        }
        let at = (offset - self.window_offset) as usize;
        Ok(&self.window[at..at + len])
    }
}

/// Goes through the entries of several tables in the order of their keys. Of equal keys, the one of the earlier table comes
/// first.
#[derive(Debug)]
pub struct Merge<'a, V: Vfs> {
    /// Those that stand on an entry, the least last, and which table each is.
    scans: Vec<(Scan<'a, V>, usize)>,
    /// It stands on the entry of the last scan.
    has_begun: bool,
}

impl<'a, V: Vfs> Merge<'a, V> {
    /// Begins before the first entry of all of `tables`.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn new(tables: impl IntoIterator<Item = &'a Table<V>>) -> Result<Merge<'a, V>, TableError> {
        let mut merge = Merge { scans: Vec::new(), has_begun: false };
        for (source, table) in tables.into_iter().enumerate() {
            merge.step(table.scan(), source)?;
        }
        Ok(merge)
    }

    /// Steps to the next entry; whether there is one.
    ///
    /// # Errors
    /// [`TableError`]: the merge cannot go on.
    pub fn advance(&mut self) -> Result<bool, TableError> {
        if std::mem::replace(&mut self.has_begun, true)
            && let Some((scan, source)) = self.scans.pop()
        {
            self.step(scan, source)?;
        }
        Ok(!self.scans.is_empty())
    }

    /// Key of the entry on which it stands; empty at the end.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.scans.last().map_or(&[], |(scan, _)| scan.key())
    }

    /// Value of the entry on which it stands; empty at the end.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.scans.last().map_or(&[], |(scan, _)| scan.value())
    }

    /// Which of the tables the entry is of, counted from 0.
    #[must_use]
    pub fn source(&self) -> usize {
        self.scans.last().map_or(0, |(_, source)| *source)
    }

    /// Steps a scan, and puts it where its new key belongs.
    fn step(&mut self, mut scan: Scan<'a, V>, source: usize) -> Result<(), TableError> {
        if scan.advance()? {
            let place = (scan.key(), source);
            let at = self.scans.partition_point(|(other, number)| (other.key(), *number) > place);
            self.scans.insert(at, (scan, source));
        }
        Ok(())
    }
}

/// Reads all blocks of a table and tells what is wrong with them.
pub(super) fn check_blocks<V: Vfs>(table: &Table<V>, found: &mut dyn FnMut(TableError)) {
    let mut scan = Scan::new(table, 0);
    let mut last: Option<Vec<u8>> = None;
    let mut entries = 0;
    let mut is_whole = true;
    for block in 0..table.index().len() {
        scan.next_block = block;
        scan.cursor = Cursor::default();
        let checked = check_block(&mut scan, &mut last, &mut entries);
        if let Err(error) = checked {
            is_whole = false;
            found(error);
        }
    }
    if is_whole && entries != table.entries() {
        found(table.damaged(0, "it has another number of entries than it should"));
    }
}

fn check_block<V: Vfs>(
    scan: &mut Scan<'_, V>,
    last: &mut Option<Vec<u8>>,
    entries: &mut u64,
) -> Result<(), TableError> {
    let table = scan.table;
    let separator = table.index().separator(scan.next_block);
    scan.open_next_block()?;
    let offset = scan.block_offset;
    while scan.cursor.advance().map_err(|Malformed| table.damaged(offset, "a block is malformed"))? {
        let key = scan.key();
        if key < separator || last.as_deref().is_some_and(|last| key <= last) {
            return Err(table.damaged(offset, "its keys are not in order"));
        }
        let last = last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        *entries += 1;
    }
    Ok(())
}
