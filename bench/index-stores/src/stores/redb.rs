//! redb: a run is one transaction.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition};

use super::{Entry, Result, Store, entries, key};
use crate::CACHE_BYTES;
use crate::load::Posting;

const POSTINGS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("postings");

pub struct Redb {
    database: Database,
}

impl Redb {
    pub fn open(dir: &Path) -> Result<Redb> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("index.redb"))?;
        let begin = database.begin_write()?;
        begin.open_table(POSTINGS)?;
        begin.commit()?;
        Ok(Redb { database })
    }
}

impl Store for Redb {
    fn add_run(&mut self, postings: &[Posting]) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(POSTINGS)?;
            entries(postings, |key, value| {
                table.insert(key, value)?;
                Ok(())
            })?;
        }
        Ok(transaction.commit()?)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn before(&self, tag: u64, seq: u64) -> Result<Option<Entry>> {
        let table = self.database.begin_read()?.open_table(POSTINGS)?;
        let (from, to) = (key(tag, 0), key(tag, seq));
        let Some(found) = table.range::<&[u8]>(from.as_slice()..=to.as_slice())?.next_back() else { return Ok(None) };
        let (found, value) = found?;
        Ok(Some((found.value().to_vec(), value.value().to_vec())))
    }

    fn after(&self, tag: u64, seq: u64, enough: usize) -> Result<Vec<Entry>> {
        let table = self.database.begin_read()?.open_table(POSTINGS)?;
        let (from, to) = (key(tag, seq), key(tag, u64::MAX));
        let mut found = Vec::new();
        let mut count = 0;
        for entry in table.range::<&[u8]>(from.as_slice()..=to.as_slice())? {
            let (key, value) = entry?;
            count += super::seqs(key.value(), value.value()).count();
            found.push((key.value().to_vec(), value.value().to_vec()));
            if count >= enough {
                break;
            }
        }
        Ok(found)
    }
}
