//! The record of one call: writing and reading it.

use std::sync::Arc;

use boki_log::batch::{Batch, BatchBuilder, Condition, ReservedTags};
use boki_log::op::{Ack, Append, Appended, Consistency, Direction, Read, Tail};
use boki_log::{BookId, LogError, Position, Seq, Tag};
use boki_wire::worker::CallId;
use bytes::Bytes;

use super::entry::{self, Accepted, CallEnd};
use crate::functions::Shared;

/// What is on record of a call.
#[derive(Debug)]
pub(super) struct CallRecord {
    /// `None`: trimmed, while its end is still there.
    pub(super) accepted: Option<OnRecord>,
    pub(super) ended: Option<CallEnd>,
    pub(super) position: Position,
}

/// An accepted call and where that is written.
#[derive(Debug)]
pub(super) struct OnRecord {
    pub(super) seq: Seq,
    pub(super) time_us: u64,
    pub(super) accepted: Accepted,
}

impl Shared {
    /// Appends one record whose first tag must have this tail.
    pub(super) async fn append_if(
        &self,
        book: BookId,
        tags: Vec<Tag>,
        on: (Tag, Seq),
        payload: Bytes,
    ) -> Result<Appended, LogError> {
        let (tag, seq) = on;
        let batch = BatchBuilder::new(book).condition(Condition::Tail { tag, seq }).record(tags, payload).build()?;
        self.append(batch).await
    }

    pub(super) async fn trim(&self, book: BookId, tag: Tag, below: Seq) -> Result<(), LogError> {
        self.append(BatchBuilder::trim(book, Some(tag), below)?).await?;
        Ok(())
    }

    async fn append(&self, batch: Batch) -> Result<Appended, LogError> {
        self.node.append(Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Allowed }).await
    }

    /// Seq of the last record of a call; 0: there is none.
    pub(super) async fn last_of(&self, book: BookId, id: CallId) -> Result<Seq, LogError> {
        let tag = Some(entry::call_tag(id)?);
        Ok(self.node.tail(Tail { book, tag, consistency: Consistency::Linearizable }).await?.seq)
    }

    /// What is on record of a call; `None`: nothing.
    pub(super) async fn find(&self, book: BookId, id: CallId) -> Result<Option<CallRecord>, LogError> {
        let read = Read {
            book,
            tag: Some(entry::call_tag(id)?),
            from: Seq::FIRST,
            direction: Direction::Next,
            limit: 2,
            consistency: Consistency::Linearizable,
            wait: None,
        };
        let found = self.node.read(read.clone()).await?;
        let mut records = found.records;
        if let [first] = records.as_slice()
            && entry::is_accepted(first.body.payload())
            && self.last_of(book, id).await? != first.seq
        {
            // One read may return less than asked for, by bytes; the end lies behind.
            let rest = Read { from: first.seq.next(), limit: 1, ..read };
            records.extend(self.node.read(rest).await?.records);
        }
        let mut record = CallRecord { accepted: None, ended: None, position: found.position };
        let mut function: Arc<str> = "".into();
        for found in &records {
            let payload = found.body.payload_bytes();
            if entry::is_accepted(&payload) {
                let accepted = Accepted::decode(&payload)?;
                function = Arc::clone(&accepted.function);
                record.accepted = Some(OnRecord { seq: found.seq, time_us: found.time_us, accepted });
            } else {
                let seen = Position::after(found.seq);
                record.ended = Some(entry::decode_ended(&payload, id, &function, seen)?);
                record.position = record.position.max(seen);
            }
        }
        Ok((record.accepted.is_some() || record.ended.is_some()).then_some(record))
    }
}
