//! The index's tables as files of the data directory.

use std::collections::BTreeSet;
use std::sync::Arc;

use boki_disk::vfs::RealVfs;
use boki_disk::{BlockCache, Keyring, SealedBlocks, Table, TableConfig, TableError as FileError, TableStore};
use boki_log::index::{Entries, Entry, SortedTable, TableError, TableInfo, filter_key};
use bytes::Bytes;
use parking_lot::Mutex;

/// A table of the index that is a file.
#[derive(Debug)]
struct FileTable(Table<RealVfs>);

/// The error names the file; the index adds which of its tables that is.
fn unreadable(error: &FileError) -> TableError {
    TableError { table: String::new(), reason: error.to_string() }
}

impl SortedTable for FileTable {
    fn may_contain(&self, filter_key: &[u8]) -> Result<bool, TableError> {
        self.0.may_contain(filter_key).map_err(|error| unreadable(&error))
    }

    fn at_or_after(&self, key: &[u8]) -> Result<Option<Entry>, TableError> {
        self.0.at_or_after(key).map_err(|error| unreadable(&error))
    }

    fn at_or_before(&self, key: &[u8]) -> Result<Option<Entry>, TableError> {
        self.0.at_or_before(key).map_err(|error| unreadable(&error))
    }

    fn scan(&self, from: &[u8]) -> Entries<'_> {
        let mut scan = match self.0.scan_from(from) {
            Ok(scan) => scan,
            Err(error) => return Box::new(std::iter::once(Err(unreadable(&error)))),
        };
        Box::new(std::iter::from_fn(move || match scan.advance() {
            Ok(true) => Some(Ok((Bytes::copy_from_slice(scan.key()), Bytes::copy_from_slice(scan.value())))),
            Ok(false) => None,
            Err(error) => Some(Err(unreadable(&error))),
        }))
    }

    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}

/// Why a table was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotWritten {
    /// What should be in it cannot be read.
    #[error(transparent)]
    Source(#[from] TableError),
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

/// A table that was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) number: u64,
    /// Size of its file.
    pub(crate) bytes: u64,
    pub(crate) table: Arc<dyn SortedTable>,
}

/// The tables of a node: writes them, opens them, and removes those that nothing needs any more.
#[derive(Debug)]
pub(crate) struct Tables {
    store: TableStore<RealVfs>,
    /// Reads what was written before the directory was encrypted.
    plain: Option<TableStore<RealVfs>>,
    cache: BlockCache,
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    /// Of the next table. The term is in it, so that no two starts use the same.
    next: u64,
    /// The files there are.
    files: BTreeSet<u64>,
}

impl Tables {
    /// Opens the tables of a data directory.
    pub(crate) fn open(
        vfs: RealVfs,
        directory: u128,
        term: u32,
        sync: bool,
        cache_bytes: u64,
        keyring: Option<Arc<Keyring>>,
    ) -> Result<Tables, FileError> {
        let cache = BlockCache::new(cache_bytes);
        let mut config = TableConfig { sync, ..TableConfig::new(directory, cache.clone()) };
        let mut plain = None;
        if let Some(keyring) = keyring {
            if keyring.accepts_plain() {
                plain = Some(TableStore::open(vfs.clone(), config.clone())?);
            }
            config.codec = Arc::new(SealedBlocks::new(keyring));
        }
        let store = TableStore::open(vfs, config)?;
        let files = store.numbers()?.into_iter().collect();
        let numbers = Mutex::new(Numbers { next: u64::from(term) << 32, files });
        Ok(Tables { store, plain, cache, numbers })
    }

    /// Opens a table that a checkpoint names.
    pub(crate) fn read(&self, info: &TableInfo) -> Result<Arc<dyn SortedTable>, TableError> {
        let named =
            |error: FileError| TableError { table: format!("index table {}", info.number), ..unreadable(&error) };
        let table = match (self.store.read(info.number), &self.plain) {
            (Err(error), Some(plain)) => plain.read(info.number).map_err(|_| error),
            (found, _) => found,
        };
        Ok(Arc::new(FileTable(table.map_err(named)?)))
    }

    /// A table that was written is part of the index now: it is removed when nothing needs it any more.
    pub(crate) fn adopt(&self, number: u64) {
        self.numbers.lock().files.insert(number);
    }

    /// Writes a table; it is durable when this returns. `pace` is told how many bytes there are by now, and whether to go on.
    pub(crate) fn write(&self, entries: Entries<'_>, mut pace: impl FnMut(u64) -> bool) -> Result<Written, NotWritten> {
        let number = {
            let mut numbers = self.numbers.lock();
            numbers.next += 1;
            numbers.next
        };
        let mut writer = self.store.write(number)?;
        for entry in entries {
            let (key, value) = entry?;
            writer.add(&key, &value)?;
            if let Some(filter_key) = filter_key(&key) {
                writer.add_filter_key(filter_key);
            }
            if !pace(writer.bytes()) {
                return Err(NotWritten::Stopped);
            }
        }
        let bytes = writer.finish()?.bytes;
        let table = Arc::new(FileTable(self.store.read(number)?));
        Ok(Written { number, bytes, table })
    }

    /// Removes the files that neither the checkpoint on disk nor the index needs: all but those in `needed`.
    pub(crate) fn remove_all_but(&self, needed: &BTreeSet<u64>) {
        let superfluous: Vec<u64> = self.numbers.lock().files.difference(needed).copied().collect();
        for number in superfluous {
            match self.store.remove(number) {
                Ok(()) => {
                    self.numbers.lock().files.remove(&number);
                }
                Err(error) => tracing::warn!(number, %error, "a table of the index could not be removed"),
            }
        }
    }

    /// Memory of the blocks that are kept, in bytes.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.cache.used_bytes()
    }
}
