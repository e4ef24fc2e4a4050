//! Running a call on record whose turn it is, to its end on record.

use std::sync::Arc;
use std::time::Duration;

use boki_log::error::Retry;
use boki_log::{BookId, LogError, Position, Seq};
use boki_wire::worker::CallId;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::entry;
use super::store::OnRecord;
use super::turn::{Turn, TurnOf};
use crate::attempt::Plan;
use crate::backoff::backoff;
use crate::call::CallReply;
use crate::dispatch::{Limit, Standing};
use crate::error::CallError;
use crate::functions::Shared;
use crate::link::Invocation;

impl Shared {
    /// The task of a call: runs it, and records its end.
    pub(super) async fn carry(shared: Arc<Shared>, call: TurnOf) {
        let TurnOf { book, book_name, id, on_record, position, ticket, turn, cancelled } = call;
        let accepted = on_record.seq;
        let result = tokio::select! {
            biased;
            result = shared.run_accepted((book, book_name), id, on_record, position, &turn) => result,
            () = cancelled.cancelled() => Err(CallError::Cancelled { id }),
        };
        if entry::encode_ended(&result).is_none() {
            // Not a result: the call stays on record, and runs again after the next start.
            shared.records.watched.ended(book, id, result);
            return;
        }
        let recorded = shared.record_end_at_last((book, id, accepted), result, &turn).await;
        drop(turn);
        let is_recorded = recorded.is_ok();
        shared.records.watched.ended(book, id, recorded.unwrap_or_else(Err));
        if is_recorded {
            shared.clean_up(book, &ticket).await;
        }
    }

    async fn run_accepted(
        self: &Arc<Shared>,
        (book, book_name): (BookId, Arc<str>),
        id: CallId,
        on_record: OnRecord,
        position: Position,
        turn: &Turn,
    ) -> Result<CallReply<Bytes>, CallError> {
        let limit = match self.due(&on_record) {
            None => Limit::OnceRunning,
            Some(due) => Limit::Until(due),
        };
        let accepted = on_record.accepted;
        let (function, content_type, input) = (accepted.function, accepted.content_type, accepted.input);
        let invocation =
            Arc::new(Invocation { id, function, book, book_name, content_type, http: None, input, stream: None });
        let max_attempts = self.dispatch.lock().terms(&invocation.function).max_attempts;
        let plan = Plan {
            standing: Standing {
                priority: accepted.priority,
                limit_key: accepted.limit_key,
                parent: None,
                level: accepted.level,
            },
            position: accepted.position.max(position),
            limit,
            max_attempts,
            on_record: true,
            whole: true,
        };
        self.drive(&invocation, plan, None, Some(turn)).await?.whole(self.config.payload_bytes).await
    }

    /// When the time of a call is over, if its caller said so.
    pub(super) fn due(&self, on_record: &OnRecord) -> Option<Instant> {
        let deadline_ms = Some(on_record.accepted.deadline_ms).filter(|deadline_ms| *deadline_ms > 0)?;
        let end_us = on_record.time_us.saturating_add(deadline_ms.saturating_mul(1000));
        Some(Instant::now() + Duration::from_micros(end_us.saturating_sub(self.node.now_us())))
    }

    /// Records how a call ended. Is there no room for that, it keeps its place among those that are out, so that no further
    /// ones run, and tries again.
    async fn record_end_at_last(
        &self,
        (book, id, accepted): (BookId, CallId, Seq),
        result: Result<CallReply<Bytes>, CallError>,
        turn: &Turn,
    ) -> Result<Result<CallReply<Bytes>, CallError>, CallError> {
        let mut tries = 1;
        loop {
            let error = match self.record_end(book, id, accepted, result.clone()).await {
                Err(error) if error.retry() == Retry::Later && !self.closing.is_cancelled() => error,
                recorded => return recorded,
            };
            turn.waits_again();
            self.records.watched.held(book, id, error.clone());
            let pause = backoff(self.config.retry_pause, self.config.retry_pause_max, tries, &id);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.closing.cancelled() => return Err(error),
            }
            tries += 1;
        }
    }

    /// Records how a call ended, unless that is on record: the first result is everybody's.
    pub(super) async fn record_end(
        &self,
        book: BookId,
        id: CallId,
        accepted: Seq,
        result: Result<CallReply<Bytes>, CallError>,
    ) -> Result<Result<CallReply<Bytes>, CallError>, CallError> {
        let (mut result, mut payload) = (result, Bytes::new());
        if let Some(encoded) = entry::encode_ended(&result) {
            payload = encoded;
        }
        let limit = self.node.limits().record_bytes;
        if payload.len() > limit {
            let (actual, limit) = (payload.len() as u64, limit as u64);
            result = Err(CallError::PayloadTooLarge { what: "output", actual, limit });
            payload = entry::encode_ended(&result).unwrap_or_default();
        }
        let tag = entry::call_tag(id)?;
        let tags = vec![tag.clone(), entry::ended_tag()?];
        match self.append_if(book, tags, (tag, accepted), payload).await {
            Ok(appended) => {
                self.note_end(book);
                Ok(seen(result, appended.position))
            }
            Err(LogError::ConditionFailed { .. }) => match self.find(book, id).await?.and_then(|record| record.ended) {
                Some(first) => Ok(first),
                // The record was trimmed while the call ran: there is nothing to add the result to.
                None => Ok(result),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// The result for one who has seen this much anyway.
fn seen(result: Result<CallReply<Bytes>, CallError>, position: Position) -> Result<CallReply<Bytes>, CallError> {
    match result {
        Ok(reply) => Ok(CallReply { position: reply.position.max(position), ..reply }),
        Err(CallError::FunctionFailed { function, code, message, retryable, position: own, attempts }) => {
            let position = own.max(position);
            Err(CallError::FunctionFailed { function, code, message, retryable, position, attempts })
        }
        Err(error) => Err(error),
    }
}
