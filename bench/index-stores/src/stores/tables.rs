//! Our tables: a run is a table, and eight adjacent ones of a size are merged. Here that is done at once, on the one thread.

use std::path::Path;

use boki_disk::vfs::RealVfs;
use boki_disk::{BlockCache, Merge, Table, TableConfig, TableStore};

use super::{CHUNK, Entry, Result, Store, entries, key, prefix, put_varint, seqs};
use crate::CACHE_BYTES;
use crate::load::Posting;

const FAN_IN: usize = 8;

pub struct Tables {
    store: TableStore<RealVfs>,
    /// The newest last, with how often it was merged.
    tables: Vec<(Table<RealVfs>, u32)>,
    next: u64,
}

impl Tables {
    pub fn open(dir: &Path) -> Result<Tables> {
        let config = TableConfig::new(1, BlockCache::new(CACHE_BYTES as u64));
        let store = TableStore::open(RealVfs::new(dir)?, config)?;
        // Eight are merged as soon as there are: the numbers are in the order of the seqs.
        let mut tables = Vec::new();
        for number in store.numbers()? {
            tables.push((store.read(number)?, 0));
        }
        let next = store.numbers()?.last().map_or(1, |last| last + 1);
        Ok(Tables { store, tables, next })
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn merge(&mut self) -> Result<()> {
        while let Some((_, level)) = self.tables.last() {
            let level = *level;
            let same = self.tables.iter().rev().take_while(|(_, other)| *other == level).count();
            if same < FAN_IN {
                break;
            }
            let merged = self.tables.split_off(self.tables.len() - FAN_IN);
            let number = self.number();
            let mut writer = self.store.write(number)?;
            let mut merge = Merge::new(merged.iter().map(|(table, _)| table))?;
            let (mut first, mut value): Entry = (Vec::new(), Vec::new());
            let (mut count, mut last) = (0, 0);
            while merge.advance()? {
                let seqs_there = seqs(merge.key(), merge.value());
                if count > 0 && count < CHUNK && prefix(&first) == prefix(merge.key()) {
                    for seq in seqs_there {
                        put_varint(&mut value, seq - last);
                        (last, count) = (seq, count + 1);
                    }
                    continue;
                }
                if count > 0 {
                    writer.add(&first, &value)?;
                    writer.add_filter_key(prefix(&first));
                }
                first.clear();
                first.extend_from_slice(merge.key());
                value.clear();
                value.extend_from_slice(merge.value());
                count = 0;
                for seq in seqs_there {
                    (last, count) = (seq, count + 1);
                }
            }
            if count > 0 {
                writer.add(&first, &value)?;
                writer.add_filter_key(prefix(&first));
            }
            writer.finish()?;
            drop(merge);
            for (table, _) in &merged {
                self.store.remove(table.number())?;
            }
            self.tables.push((self.store.read(number)?, level + 1));
        }
        Ok(())
    }
}

impl Store for Tables {
    fn add_run(&mut self, postings: &[Posting]) -> Result<()> {
        let number = self.number();
        let mut writer = self.store.write(number)?;
        entries(postings, |key, value| {
            writer.add(key, value)?;
            writer.add_filter_key(prefix(key));
            Ok(())
        })?;
        writer.finish()?;
        self.tables.push((self.store.read(number)?, 0));
        self.merge()
    }

    fn settle(&mut self) -> Result<()> {
        let memory: usize = self.tables.iter().map(|(table, _)| table.memory_bytes()).sum();
        let filters: u64 = self.tables.iter().map(|(table, _)| table.filter_bytes()).sum();
        let entries: Vec<u64> = self.tables.iter().map(|(table, _)| table.entries()).collect();
        println!("  {} tables of {entries:?} entries; index {memory} bytes, filters {filters} bytes", entries.len());
        Ok(())
    }

    fn before(&self, tag: u64, seq: u64) -> Result<Option<Entry>> {
        let key = key(tag, seq);
        for (table, _) in self.tables.iter().rev() {
            if table.may_contain(prefix(&key))?
                && let Some((found, value)) = table.at_or_before(&key)?
                && prefix(&found) == prefix(&key)
            {
                return Ok(Some((found.to_vec(), value.to_vec())));
            }
        }
        Ok(None)
    }

    fn after(&self, tag: u64, seq: u64, enough: usize) -> Result<Vec<Entry>> {
        let (mut key, mut found, mut count) = (key(tag, seq), Vec::new(), 0);
        for (table, _) in &self.tables {
            if !table.may_contain(prefix(&key))? {
                continue;
            }
            while count < enough
                && let Some((at, value)) = table.at_or_after(&key)?
                && prefix(&at) == prefix(&key)
            {
                count += seqs(&at, &value).count();
                found.push((at.to_vec(), value.to_vec()));
                key = super::key(tag, super::first_seq(&at) + 1);
            }
        }
        Ok(found)
    }
}
