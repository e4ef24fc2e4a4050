//! What callers ask of calls on record.

use std::sync::Arc;
use std::time::Duration;

use boki_log::BookId;
use boki_wire::worker::CallId;
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::accept::Acceptance;
use super::entry::CallEnd;
use super::payload::Part;
use super::run::Ending;
use super::store::OnRecord;
use super::watch::Watch;
use crate::body::Body;
use crate::call::{Call, CallReply, CallStatus, Sent};
use crate::error::CallError;
use crate::functions::Shared;
use crate::ids;

impl Shared {
    /// A call with an idempotency key, to its result.
    pub(crate) async fn call_on_record(&self, mut call: Call) -> Result<CallReply, CallError> {
        let id = self.id_of(&call)?;
        let now = Instant::now();
        let (level, until) = {
            let dispatch = self.dispatch.lock();
            let own = now + call.deadline.take().unwrap_or_else(|| dispatch.terms(&call.function).timeout);
            let lineage = call.parent.map(|parent| dispatch.lineage(parent.0, &call.function)).transpose()?.flatten();
            if let Some(parent) = call.parent {
                dispatch.check_no_circle(parent.0, &call.function, &call.limit_key, Some((call.book, id)))?;
            }
            let parents = lineage.and_then(|lineage| lineage.until);
            (lineage.map_or(0, |lineage| lineage.level), parents.map_or(own, |parents| parents.min(own)))
        };
        let (book, function, position) = (call.book, Arc::clone(&call.function), call.position);
        let result = async {
            let mut watch = self.watch(book, id)?;
            let (call, blob) = self.store_input(id, call).await?;
            let end = match self.accept(id, level, call, blob, Some(&mut watch)).await? {
                Acceptance::Found(record) if record.ended.is_some() => {
                    record.ended.unwrap_or(Err(CallError::ShuttingDown))
                }
                Acceptance::Found(_) | Acceptance::New(_) => watch.result().await,
            };
            self.opened(book, end).await
        };
        match timeout_at(until, result).await {
            Ok(result) => result.map(|reply| CallReply { position: reply.position.max(position), ..reply }),
            Err(_) => Err(CallError::DeadlineExceeded { function, id }),
        }
    }

    /// Puts a call on record. Nobody waits for it, whoever sends it: it is on the level of a call that comes from outside.
    pub(crate) async fn send(&self, call: Call) -> Result<Sent, CallError> {
        let (id, caller) = (self.id_of(&call)?, call.position);
        if self.closing.is_cancelled() {
            return Err(CallError::ShuttingDown);
        }
        let book = call.book;
        let (call, blob) = self.store_input(id, call).await?;
        let accepted = if call.idempotency_key.is_some() {
            let mut watch = self.watch(book, id)?;
            self.accept(id, 0, call, blob, Some(&mut watch)).await?
        } else {
            self.accept(id, 0, call, blob, None).await?
        };
        let position = match accepted {
            Acceptance::New(position) => position,
            Acceptance::Found(record) => record.position,
        };
        Ok(Sent { id, position: position.max(caller) })
    }

    /// The result of a call on record.
    pub(crate) async fn result(
        &self,
        book: BookId,
        id: CallId,
        wait: Option<Duration>,
    ) -> Result<Option<CallReply>, CallError> {
        let until = Instant::now() + wait.unwrap_or_default();
        let watch = self.watch(book, id)?;
        let mut due = None;
        if !self.records.watched.is_running(book, id) {
            let record = self.find(book, id).await?.ok_or(CallError::CallNotFound { id })?;
            match (record.ended, record.accepted) {
                (Some(end), _) => return self.opened(book, end).await.map(Some),
                (None, Some(on_record)) => due = self.due(&on_record).map(|due| (due, on_record)),
                (None, None) => return Err(CallError::CallNotFound { id }),
            }
        }
        let result = watch.result();
        tokio::pin!(result);
        if let Some((due, on_record)) = due.filter(|(due, _)| *due <= until) {
            match timeout_at(due, &mut result).await {
                Ok(end) => return self.opened(book, end).await.map(Some),
                Err(_) => self.end_overdue(book, id, on_record).await?,
            }
        }
        match timeout_at(until, result).await {
            Ok(end) => self.opened(book, end).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The time of a call is over. Is its turn still to come, it ends here and now.
    async fn end_overdue(&self, book: BookId, id: CallId, on_record: OnRecord) -> Result<(), CallError> {
        if !self.records.watched.is_running(book, id) {
            let ending = ending(book, id, &on_record);
            let overdue = Err(CallError::DeadlineExceeded { function: on_record.accepted.function, id });
            let ended = self.record_end(ending, overdue).await?;
            self.records.watched.stop(book, id, ended);
        }
        Ok(())
    }

    pub(crate) async fn call_status(&self, book: BookId, id: CallId) -> Result<CallStatus, CallError> {
        let record = self.find(book, id).await?.ok_or(CallError::CallNotFound { id })?;
        let (function, accepted_us) = match record.accepted {
            Some(on_record) => (on_record.accepted.function, on_record.time_us),
            None => ("".into(), 0),
        };
        Ok(CallStatus { id, function, accepted_us, result: record.ended.map(|end| end.map(|_| ())) })
    }

    /// Ends a call on record, if it has not ended.
    pub(crate) async fn cancel(&self, book: BookId, id: CallId) -> Result<Option<CallReply>, CallError> {
        let record = self.find(book, id).await?.ok_or(CallError::CallNotFound { id })?;
        let on_record = match (record.ended, record.accepted) {
            (Some(end), _) => return self.opened(book, end).await.map(Some),
            (None, Some(on_record)) => on_record,
            (None, None) => return Err(CallError::CallNotFound { id }),
        };
        let cancelled = Err(CallError::Cancelled { id });
        match self.record_end(ending(book, id, &on_record), cancelled).await? {
            Err(CallError::Cancelled { .. }) => {}
            end => return self.opened(book, end).await.map(Some),
        }
        self.records.watched.stop(book, id, Err(CallError::Cancelled { id }));
        Ok(None)
    }

    /// How a call ended, with its output to be read.
    async fn opened(&self, book: BookId, end: CallEnd) -> Result<CallReply, CallError> {
        let (reply, output) = end?.with_output(Body::Whole(Bytes::new()));
        let output = self.open((book, reply.id), Part::Output, output).await?;
        Ok(CallReply { output, ..reply })
    }

    fn id_of(&self, call: &Call) -> Result<CallId, CallError> {
        call.check()?;
        Ok(match &call.idempotency_key {
            Some(key) => ids::of_key(&call.function, key),
            None => self.new_call_id(),
        })
    }

    fn watch(&self, book: BookId, id: CallId) -> Result<Watch<'_>, CallError> {
        let watch = self.records.watched.watch(book, id);
        // In this order: whoever stops the engine ends the watches that are there then.
        if self.closing.is_cancelled() && !self.records.watched.is_running(book, id) {
            return Err(CallError::ShuttingDown);
        }
        Ok(watch)
    }
}

fn ending(book: BookId, id: CallId, on_record: &OnRecord) -> Ending {
    Ending { book, id, accepted: on_record.seq, input: on_record.accepted.input.blob().copied() }
}
