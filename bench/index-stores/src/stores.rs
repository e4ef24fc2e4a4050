//! What the stores have in common: keys, values, and what is asked.

mod fjall;
mod redb;
mod tables;

pub use fjall::Fjall;
pub use redb::Redb;
pub use tables::Tables;

use crate::load::Posting;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Postings of an entry at most.
const CHUNK: usize = 256;

pub trait Store {
    /// Adds postings that are sorted, with seqs above all before.
    fn add_run(&mut self, postings: &[Posting]) -> Result<()>;
    /// Ends what goes on in the background, and makes all durable.
    fn settle(&mut self) -> Result<()>;
    /// The last entry of `tag` whose first seq is at or below `seq`: key and value.
    fn before(&self, tag: u64, seq: u64) -> Result<Option<Entry>>;
    /// Entries of `tag` whose first seq is at or above `seq`, until there are enough postings.
    fn after(&self, tag: u64, seq: u64, enough: usize) -> Result<Vec<Entry>>;

    fn tail(&self, tag: u64) -> Result<Option<u64>> {
        Ok(self.before(tag, u64::MAX)?.and_then(|(key, value)| seqs(&key, &value).last()))
    }

    fn next(&self, tag: u64, from: u64, limit: usize) -> Result<Vec<u64>> {
        let mut found: Vec<u64> = Vec::with_capacity(limit);
        if let Some((key, value)) = self.before(tag, from)? {
            found.extend(seqs(&key, &value).filter(|seq| *seq >= from).take(limit));
        }
        if found.len() < limit {
            for (key, value) in self.after(tag, from + 1, limit - found.len())? {
                found.extend(seqs(&key, &value));
            }
            found.truncate(limit);
        }
        Ok(found)
    }
}

pub type Entry = (Vec<u8>, Vec<u8>);

/// Kind, book, tag, 0, first seq: as the index has it.
pub fn key(tag: u64, seq: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.push(1);
    key.extend_from_slice(&7u64.to_be_bytes());
    key.extend_from_slice(format!("user/{tag:09}").as_bytes());
    key.push(0);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// Kind, book, tag and 0 of a key.
pub fn prefix(key: &[u8]) -> &[u8] {
    &key[..key.len() - 8]
}

pub fn first_seq(key: &[u8]) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&key[key.len() - 8..]);
    u64::from_be_bytes(field)
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The seqs of an entry.
pub fn seqs<'a>(key: &[u8], value: &'a [u8]) -> impl Iterator<Item = u64> + use<'a> {
    let mut seq = first_seq(key);
    let mut rest = value.iter();
    let mut is_first = true;
    std::iter::from_fn(move || {
        if std::mem::take(&mut is_first) {
            return Some(seq);
        }
        let (mut delta, mut shift) = (0, 0);
        loop {
            let byte = *rest.next()?;
            delta |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                seq += delta;
                return Some(seq);
            }
        }
    })
}

/// Gives the entries of sorted postings to `add`.
pub fn entries(postings: &[Posting], mut add: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    for tag in postings.chunk_by(|a, b| a.0 == b.0) {
        for chunk in tag.chunks(CHUNK) {
            let mut value = Vec::new();
            for pair in chunk.windows(2) {
                put_varint(&mut value, pair[1].1 - pair[0].1);
            }
            add(&key(chunk[0].0, chunk[0].1), &value)?;
        }
    }
    Ok(())
}
