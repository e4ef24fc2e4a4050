//! Finding, at the start, the calls that are on record without a result.

use std::sync::Arc;

use boki_log::op::{Consistency, Direction, Read};
use boki_log::{BookId, LogError, Seq};

use super::entry::{self, Accepted};
use crate::error::CallError;
use crate::functions::Shared;

/// Calls looked at in one go.
const PAGE: u32 = 256;

impl Shared {
    /// Has the calls without a result wait for their turns again, in every book. Returns how many there were. Of their inputs
    /// no more is in memory at one time than one page.
    pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<usize, CallError> {
        let mut resumed = 0;
        for book in shared.node.books().await? {
            match Shared::recover_book(shared, book.id).await {
                Ok(count) => resumed += count,
                // Removed meanwhile, and its calls with it.
                Err(LogError::BookNotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        shared.records.open.lock().recovered();
        Shared::fetch(shared);
        Shared::sweep_blobs_later(shared);
        Ok(resumed)
    }

    async fn recover_book(shared: &Arc<Shared>, book: BookId) -> Result<usize, LogError> {
        let (mut resumed, mut over, mut from) = (0, 0, Seq::FIRST);
        let mut oldest_open = None;
        loop {
            let read = Read {
                book,
                tag: Some(entry::accepted_tag()?),
                from,
                direction: Direction::Next,
                limit: PAGE,
                consistency: Consistency::Linearizable,
                wait: None,
            };
            let page = shared.node.read(read).await?.records;
            let Some(last) = page.last() else { break };
            from = last.seq.next();
            for record in page.iter().filter(|record| record.seq <= shared.records.before) {
                let id = entry::call_of(record.body.tags());
                let Some(id) = id.filter(|_| entry::is_accepted(record.body.payload())) else { continue };
                if shared.last_of(book, id).await? != record.seq {
                    over += 1;
                    continue;
                }
                match Accepted::decode(&record.body.payload_bytes()) {
                    Ok(accepted) => {
                        oldest_open.get_or_insert(record.seq);
                        shared.records.open.lock().found(&accepted.lane(book), record.seq);
                        resumed += 1;
                    }
                    Err(error) => {
                        tracing::error!(call = %id, %book, seq = %record.seq, %error, "a call on record cannot be read, and is not run");
                    }
                }
            }
        }
        shared.records.open.lock().caught_up(book, from);
        if over > 0 {
            shared.trim_accepted(book, oldest_open.unwrap_or(from)).await?;
        }
        let oldest_end = shared.sweep(book).await?;
        shared.records.open.lock().swept(book, oldest_end);
        Ok(resumed)
    }
}
