//! Trimming the records of calls that are over. It rides on the calls themselves: an idle book costs nothing.

use std::sync::Arc;

use boki_log::op::{Consistency, Direction, Read};
use boki_log::{BookId, LogError, Seq};

use super::entry;
use super::open::Ticket;
use super::payload::blob_name;
use crate::functions::Shared;

/// Calls looked at in one go.
const PAGE: u32 = 256;

impl Shared {
    /// A call's end has been recorded.
    pub(super) fn note_end(&self, book: BookId) {
        self.records.open.lock().note_end(book, self.node.now_us());
    }

    /// A call is over, and nothing is kept for it in memory any more.
    pub(super) async fn clean_up(self: &Arc<Shared>, book: BookId, ticket: &Ticket) {
        let mut result = Ok(());
        let below = self.records.open.lock().close(ticket);
        if let Some(below) = below {
            result = self.trim_accepted(book, below).await;
        }
        if result.is_ok() && self.begin_sweep(book) {
            let swept = self.sweep(book).await;
            self.records.open.lock().swept(book, swept.as_ref().ok().copied().flatten());
            result = swept.map(|_| ());
        }
        match result {
            Err(LogError::BookNotFound { .. }) => self.records.open.lock().forget(book),
            Err(error) => tracing::warn!(%book, %error, "the records of finished calls could not be trimmed"),
            Ok(()) => {}
        }
    }

    /// As [`Shared::clean_up`], as a task of its own.
    pub(super) fn clean_up_later(shared: &Arc<Shared>, book: BookId, ticket: Ticket) {
        let owned = Arc::clone(shared);
        shared.tasks.spawn_on(async move { owned.clean_up(book, &ticket).await }, &shared.runtime);
    }

    fn begin_sweep(&self, book: BookId) -> bool {
        let expired_us = self.expired_us();
        self.records.open.lock().begin_sweep(book, expired_us)
    }

    /// Shortens the list of accepted calls to those that may be without a result.
    pub(super) async fn trim_accepted(&self, book: BookId, below: Seq) -> Result<(), LogError> {
        self.trim(book, entry::accepted_tag()?, below).await
    }

    /// Trims calls whose retention is over. Returns when the oldest one that is left ended.
    pub(super) async fn sweep(&self, book: BookId) -> Result<Option<u64>, LogError> {
        let expired_us = self.expired_us();
        let mut from = Seq::FIRST;
        loop {
            let read = Read {
                book,
                tag: Some(entry::ended_tag()?),
                from,
                direction: Direction::Next,
                limit: PAGE,
                consistency: Consistency::Linearizable,
                wait: None,
            };
            let page = self.node.read(read).await?.records;
            let (mut below, mut left, mut blobs) = (None, None, Vec::new());
            for record in &page {
                if record.time_us > expired_us {
                    left = Some(record.time_us);
                    break;
                }
                if let Some(id) = entry::call_of(record.body.tags()) {
                    self.trim(book, entry::call_tag(id)?, record.seq.next()).await?;
                    let of_call = entry::blobs_of_ended(&record.body.payload_bytes())?;
                    blobs.extend(of_call.into_iter().map(|(part, version)| blob_name(book, id, part, version)));
                }
                below = Some(record.seq.next());
            }
            // The records first: a blob without a record is found at the next start, a record without its blob is none.
            if let Err(error) = self.node.blobs().remove(blobs).await {
                tracing::warn!(%book, %error, "inputs and outputs of finished calls could not be removed");
            }
            if let Some(below) = below {
                self.trim(book, entry::ended_tag()?, below).await?;
                from = below;
            }
            if left.is_some() || page.is_empty() {
                return Ok(left);
            }
        }
    }

    /// Calls that ended at this time or before are not kept.
    fn expired_us(&self) -> u64 {
        let retention_us = u64::try_from(self.config.retention.as_micros()).unwrap_or(u64::MAX);
        self.node.now_us().saturating_sub(retention_us)
    }
}
