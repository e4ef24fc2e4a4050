//! Immutable sorted tables: what of the index does not fit into memory.
//!
//! A table is written once, from its first key to its last, and never changed. What a key or a value means is the caller's,
//! as is which tables there should be: a table that nobody names is one to remove. A table is there whole or not at all; one
//! that is being written lies under another name, and what is left of those is removed when the store is opened.
//!
//! ```text
//! <data>/table/0000000000000007.tbl
//! <data>/table/0000000000000008.tmp  being written
//!
//! table = header · block* · piece of the filter* · piece of the index* · root · footer
//! ```
//!
//! Everything between header and footer has been through the [`BlockCodec`] and ends with its checksum, which is checked
//! whenever it is read (`seal.rs`): what is handed out is what was written there, by this data directory, in this table.
//! The root has the lengths of the pieces. The index (`index.rs`) is read when a table is opened, the filter (`filter.rs`)
//! piece by piece when it is asked, and blocks (`block.rs`) come from the [`BlockCache`].

mod block;
mod cache;
mod filter;
mod footer;
mod index;
mod reader;
mod scan;
mod seal;
mod writer;

use std::io;
use std::sync::Arc;

use bytes::Bytes;

pub use cache::BlockCache;
pub use reader::Table;
pub use scan::{Merge, Scan};
pub use seal::{BlockCodec, BlockPlace, PlainBlocks};
pub use writer::{MAX_KEY_BYTES, MAX_VALUE_BYTES, TableWriter};

use crate::error::TableError;
use crate::vfs::{Vfs, is_full};
use filter::KeyHash;
pub(crate) use footer::HEADER_BYTES;
use seal::Seal;

pub(crate) const DIR: &str = "table";
const FRESH: &str = ".tmp";
const SUFFIX: &str = ".tbl";

/// How the tables of a data directory are written and read.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// Id of the data directory.
    pub directory: u128,
    /// Keeps the blocks that were read.
    pub cache: BlockCache,
    /// How blocks lie on disk.
    pub codec: Arc<dyn BlockCodec>,
    /// Whether a finished table survives a power cut, or only the end of the process.
    pub sync: bool,
}

impl TableConfig {
    /// Tables whose blocks lie on disk as they are, and which survive power cuts.
    #[must_use]
    pub fn new(directory: u128, cache: BlockCache) -> TableConfig {
        TableConfig { directory, cache, codec: Arc::new(PlainBlocks), sync: true }
    }
}

/// What is known of a table that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its number.
    pub number: u64,
    /// How many entries it has.
    pub entries: u64,
    /// How many keys its filter was given.
    pub filter_keys: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Its least key; empty if it has no entries.
    pub first_key: Bytes,
    /// Its greatest key; empty if it has no entries.
    pub last_key: Bytes,
}

/// The tables of a data directory.
#[derive(Clone, Debug)]
pub struct TableStore<V> {
    vfs: V,
    config: TableConfig,
}

impl<V: Vfs> TableStore<V> {
    /// Opens the store, and removes what is left of tables that were being written.
    ///
    /// # Errors
    /// [`TableError::Io`].
    pub fn open(vfs: V, config: TableConfig) -> Result<TableStore<V>, TableError> {
        let failed = |what| move |source| TableError::Io { what, name: DIR.to_owned(), source };
        vfs.create_dir(DIR).map_err(failed("make"))?;
        vfs.sync_dir("").map_err(failed("make"))?;
        for file in vfs.list(DIR).map_err(failed("list"))? {
            if file.ends_with(FRESH) {
                vfs.remove(&format!("{DIR}/{file}")).map_err(failed("clean up"))?;
            }
        }
        Ok(TableStore { vfs, config })
    }

    /// The store as it is, to look at only: nothing is cleaned up.
    pub fn look(vfs: V, config: TableConfig) -> TableStore<V> {
        TableStore { vfs, config }
    }

    /// Begins a table. No other may have had that number.
    ///
    /// # Errors
    /// [`TableError::Full`], [`TableError::Io`].
    pub fn write(&self, number: u64) -> Result<TableWriter<V>, TableError> {
        let fresh = format!("{DIR}/{number:016}{FRESH}");
        let sync = self.config.sync;
        TableWriter::begin(self.vfs.clone(), fresh, file_name(number), self.seal(number), self.hash(), sync)
    }

    /// Opens a table: reads its index, and nothing else of it.
    ///
    /// # Errors
    /// [`TableError::Missing`], [`TableError::Damaged`], [`TableError::Io`].
    pub fn read(&self, number: u64) -> Result<Table<V>, TableError> {
        Table::open(&self.vfs, file_name(number), self.seal(number), self.hash(), self.config.cache.clone())
    }

    /// Removes a table, if there is one of that number. Whoever has it open can still read it.
    ///
    /// # Errors
    /// [`TableError::Io`].
    pub fn remove(&self, number: u64) -> Result<(), TableError> {
        let name = file_name(number);
        match self.vfs.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure("remove", &name, error)),
            // Not synced: a table that comes back after a power cut is one that nobody names, as any other.
            _ => Ok(()),
        }
    }

    /// The numbers of all tables, in order.
    ///
    /// # Errors
    /// [`TableError::Io`].
    pub fn numbers(&self) -> Result<Vec<u64>, TableError> {
        let files = self.vfs.list(DIR).map_err(|source| failure("list", DIR, source))?;
        let number = |file: &String| {
            let number = file.strip_suffix(SUFFIX)?.parse().ok()?;
            (format!("{number:016}{SUFFIX}") == *file).then_some(number)
        };
        let mut numbers: Vec<u64> = files.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn seal(&self, number: u64) -> Seal {
        Seal::new(self.config.directory, number, Arc::clone(&self.config.codec))
    }

    fn hash(&self) -> KeyHash {
        KeyHash::new(self.config.directory)
    }
}

pub(crate) fn file_name(number: u64) -> String {
    format!("{DIR}/{number:016}{SUFFIX}")
}

fn failure(what: &'static str, name: &str, source: io::Error) -> TableError {
    let name = name.to_owned();
    match source.kind() {
        _ if is_full(&source) => TableError::Full { name },
        io::ErrorKind::NotFound => TableError::Missing { name },
        io::ErrorKind::UnexpectedEof => TableError::Damaged { name, offset: 0, what: "it is too short" },
        _ => TableError::Io { what, name, source },
    }
}
