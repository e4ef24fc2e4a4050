//! Entries of the catalog: small named values that the whole system agrees on, such as which version of an app is
//! active. An entry is the last record under its reserved tag, and is replaced only by one who has seen it.

use boki_log::batch::{Condition, ReservedTags};
use boki_log::op::{Ack, Append, Consistency, Direction, Read, Tags};
use boki_log::{BatchBuilder, BookId, LogError, Seq, Tag};
use bytes::Bytes;

use crate::node::Node;

/// What all entries' tags begin with.
pub(crate) const PREFIX: &str = "~entry/";

/// More entries than there ever are.
pub(crate) const MAX_ENTRIES: usize = 10_000;
/// Most entries that are listed at once.
const PAGE: u32 = 1000;

/// An entry as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Of the record that set it: who replaces it says this seq.
    pub seq: Seq,
    /// When it was set, microseconds since 1970.
    pub time_us: u64,
    /// What it was set to.
    pub value: Bytes,
}

impl Node {
    /// The entries whose names begin with `prefix`, by name.
    ///
    /// # Errors
    /// What a read can fail with.
    pub async fn entries(&self, prefix: &str) -> Result<Vec<Entry>, LogError> {
        let mut entries = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .tags(Tags {
                    book: BookId::CATALOG,
                    prefix: format!("{PREFIX}{prefix}"),
                    after: after.take(),
                    limit: PAGE,
                    consistency: Consistency::Linearizable,
                })
                .await?;
            after = page.tags.last().map(|(tag, _)| tag.clone());
            for (tag, seq) in page.tags {
                entries.extend(self.entry(tag, seq).await?);
            }
            if !page.more {
                return Ok(entries);
            }
        }
    }

    async fn entry(&self, tag: Tag, seq: Seq) -> Result<Option<Entry>, LogError> {
        let name = tag.as_str().strip_prefix(PREFIX).unwrap_or_default().to_owned();
        let read = Read {
            book: BookId::CATALOG,
            tag: Some(tag),
            from: seq,
            direction: Direction::Next,
            limit: 1,
            consistency: Consistency::Any,
            wait: None,
        };
        let record = self.read(read).await?.records.pop();
        Ok(record.map(|record| Entry {
            name,
            seq: record.seq,
            time_us: record.time_us,
            value: record.body.payload_bytes(),
        }))
    }

    /// Removes an entry, unless it has been replaced by now.
    ///
    /// # Errors
    /// What an append can fail with.
    pub(crate) async fn remove_entry(&self, entry: &Entry) -> Result<(), LogError> {
        let tag = Tag::new(format!("{PREFIX}{}", entry.name))?;
        let batch = BatchBuilder::trim(BookId::CATALOG, Some(tag), entry.seq.next())?;
        self.append(Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Allowed }).await?;
        Ok(())
    }

    /// Sets an entry, if `seen` is the seq of what it is now ([`Seq::NONE`]: it is not there). Returns the new seq.
    ///
    /// # Errors
    /// [`LogError::ConditionFailed`]: it is something else by now; and what an append can fail with. The outcome of
    /// [`LogError::WriteFailed`] is known after the next start.
    pub async fn set_entry(&self, name: &str, seen: Seq, value: Bytes) -> Result<Seq, LogError> {
        let tag = Tag::new(format!("{PREFIX}{name}"))?;
        let batch = BatchBuilder::new(BookId::CATALOG)
            .condition(Condition::Tail { tag: tag.clone(), seq: seen })
            .record(vec![tag.clone()], value)
            .build()?;
        let append = |batch| Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Allowed };
        let seq = self.append(append(batch)).await?.seq.unwrap_or(Seq::NONE);
        if seen != Seq::NONE {
            // What was replaced is of no use; should this fail, the next one trims it too.
            let _ = self.append(append(BatchBuilder::trim(BookId::CATALOG, Some(tag), seq)?)).await;
        }
        Ok(seq)
    }
}
