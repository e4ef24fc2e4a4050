//! fjall: runs of entries as sorted ingestions, or one key per posting through batches.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Entry, Result, Store, entries, key};
use crate::CACHE_BYTES;
use crate::load::Posting;

/// Postings of one batch: about a group commit's worth.
const BATCH: usize = 1000;

pub struct Fjall {
    database: Database,
    postings: Keyspace,
    one_key_each: bool,
}

impl Fjall {
    pub fn open(dir: &Path, one_key_each: bool) -> Result<Fjall> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES as u64).open()?;
        let postings = database.keyspace("postings", KeyspaceCreateOptions::default)?;
        Ok(Fjall { database, postings, one_key_each })
    }
}

impl Store for Fjall {
    fn add_run(&mut self, postings: &[Posting]) -> Result<()> {
        if !self.one_key_each {
            let mut ingestion = self.postings.start_ingestion()?;
            entries(postings, |key, value| Ok(ingestion.write(key.to_vec(), value.to_vec())?))?;
            ingestion.finish()?;
            return Ok(());
        }
        let mut by_seq = postings.to_vec();
        by_seq.sort_unstable_by_key(|(_, seq)| *seq);
        for postings in by_seq.chunks(BATCH) {
            let mut batch = self.database.batch();
            for (tag, seq) in postings {
                batch.insert(&self.postings, key(*tag, *seq), Vec::new());
            }
            batch.commit()?;
        }
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn settle(&mut self) -> Result<()> {
        self.database.persist(PersistMode::SyncAll)?;
        while self.database.active_compactions() > 0 || self.database.outstanding_flushes() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        println!("  {} tables", self.postings.table_count());
        Ok(())
    }

    fn before(&self, tag: u64, seq: u64) -> Result<Option<Entry>> {
        let (from, to) = (key(tag, 0), key(tag, seq));
        let Some(found) = self.postings.range(from..=to).next_back() else { return Ok(None) };
        let (found, value) = found.into_inner()?;
        Ok(Some((found.to_vec(), value.to_vec())))
    }

    fn after(&self, tag: u64, seq: u64, enough: usize) -> Result<Vec<Entry>> {
        let (from, to) = (key(tag, seq), key(tag, u64::MAX));
        let mut found = Vec::new();
        let mut count = 0;
        for entry in self.postings.range(from..=to) {
            let (key, value) = entry.into_inner()?;
            count += super::seqs(&key, &value).count();
            found.push((key.to_vec(), value.to_vec()));
            if count >= enough {
                break;
            }
        }
        Ok(found)
    }
}
