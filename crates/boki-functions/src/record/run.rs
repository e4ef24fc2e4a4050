//! Running a call on record whose turn it is, to its end on record.

use std::sync::Arc;
use std::time::Duration;

use boki_log::error::Retry;
use boki_log::{BookId, LogError, Position, Seq};
use boki_wire::worker::CallId;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::entry::{self, CallEnd};
use super::payload::{BlobRef, Payload};
use super::store::OnRecord;
use super::turn::{Input, Turn, TurnOf};
use crate::attempt::Plan;
use crate::backoff::backoff;
use crate::call::CallReply;
use crate::dispatch::{Limit, Standing};
use crate::error::CallError;
use crate::functions::Shared;
use crate::link::Invocation;

/// Which call ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) book: BookId,
    pub(super) id: CallId,
    /// Where it is recorded that it was accepted.
    pub(super) accepted: Seq,
    /// Its input, if that lies beside the log.
    pub(super) input: Option<BlobRef>,
}

impl Shared {
    /// The task of a call: runs it, and records its end.
    pub(super) async fn carry(shared: Arc<Shared>, call: TurnOf) {
        let TurnOf { book, book_name, id, on_record, input, position, ticket, turn, cancelled } = call;
        let ending = Ending { book, id, accepted: on_record.seq, input: on_record.accepted.input.blob().copied() };
        let result = match input {
            Err(error) => Err(error),
            Ok(input) => tokio::select! {
                biased;
                result = shared.run_accepted((book, book_name), id, on_record, input, position, &turn) => result,
                () = cancelled.cancelled() => Err(CallError::Cancelled { id }),
            },
        };
        let (output, blob) = turn.output().unzip();
        let end = result.map(|reply| {
            let (reply, bytes) = reply.with_output(Payload::Inline(Bytes::new()));
            CallReply { output: output.map_or(Payload::Inline(bytes), Payload::Blob), ..reply }
        });
        if entry::encode_ended(&end, None).is_none() {
            // Not a result: the call stays on record, and runs again after the next start.
            shared.records.watched.ended(book, id, end);
            return;
        }
        let recorded = shared.record_end_at_last(ending, end, &turn).await;
        drop(turn);
        if let Some(blob) = blob
            && is_named(&recorded, output)
        {
            blob.keep();
        }
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
        input: Input,
        position: Position,
        turn: &Turn,
    ) -> Result<CallReply<Bytes>, CallError> {
        let limit = match self.due(&on_record) {
            None => Limit::OnceRunning,
            Some(due) => Limit::Until(due),
        };
        let accepted = on_record.accepted;
        let (input, stream, pump) = match input {
            Input::Whole(input) => (input, None, None),
            Input::Stream(stream, pump) => (Bytes::new(), Some(stream), Some(pump)),
        };
        let (function, content_type) = (accepted.function, accepted.content_type);
        let invocation =
            Arc::new(Invocation { id, function, book, book_name, content_type, http: None, input, stream });
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
        self.drive(invocation, plan, pump, Some(turn)).await?.whole(self.config.payload_bytes).await
    }

    /// When the time of a call is over, if its caller said so.
    pub(super) fn due(&self, on_record: &OnRecord) -> Option<Instant> {
        let deadline_ms = Some(on_record.accepted.deadline_ms).filter(|deadline_ms| *deadline_ms > 0)?;
        let end_us = on_record.time_us.saturating_add(deadline_ms.saturating_mul(1000));
        Some(Instant::now() + Duration::from_micros(end_us.saturating_sub(self.node.now_us())))
    }

    /// Records how a call ended. Is there no room for that, it keeps its place among those that are out, so that no further
    /// ones run, and tries again.
    async fn record_end_at_last(&self, ending: Ending, end: CallEnd, turn: &Turn) -> Result<CallEnd, CallError> {
        let Ending { book, id, .. } = ending;
        let mut tries = 1;
        loop {
            let error = match self.record_end(ending, end.clone()).await {
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

    /// Records how a call ended, unless that is on record: the first end is everybody's. A large output gets its blob.
    pub(super) async fn record_end(&self, ending: Ending, end: CallEnd) -> Result<CallEnd, CallError> {
        let Ending { book, id, accepted, input } = ending;
        let mut blob = None;
        let end = match end {
            Ok(CallReply { output: Payload::Inline(output), id, content_type, head, position, attempts }) => {
                match self.store_output((book, id), output).await {
                    Ok((output, new)) => {
                        blob = new;
                        Ok(CallReply { output, id, content_type, head, position, attempts })
                    }
                    Err(error @ CallError::PayloadTooLarge { .. }) => Err(error),
                    Err(error) => return Err(error),
                }
            }
            other => other,
        };
        let output = end.as_ref().ok().and_then(|reply| reply.output.blob().copied());
        let recorded = self.append_end(book, id, accepted, end, input.as_ref()).await;
        if let Some(blob) = blob
            && is_named(&recorded, output)
        {
            blob.keep();
        }
        recorded
    }

    async fn append_end(
        &self,
        book: BookId,
        id: CallId,
        accepted: Seq,
        end: CallEnd,
        input: Option<&BlobRef>,
    ) -> Result<CallEnd, CallError> {
        // What is no result is not brought here.
        let payload = entry::encode_ended(&end, input).ok_or(CallError::ShuttingDown)?;
        let tag = entry::call_tag(id)?;
        let tags = vec![tag.clone(), entry::ended_tag()?];
        match self.append_if(book, tags, (tag, accepted), payload).await {
            Ok(appended) => {
                self.note_end(book);
                Ok(seen(end, appended.position))
            }
            Err(LogError::ConditionFailed { .. }) => match self.find(book, id).await?.and_then(|record| record.ended) {
                Some(first) => Ok(first),
                // The record was trimmed while the call ran: there is nothing to add the end to.
                None => Ok(Err(CallError::CallNotFound { id })),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the record of a call's end names the blob `output`, or may.
fn is_named(recorded: &Result<CallEnd, CallError>, output: Option<BlobRef>) -> bool {
    match recorded {
        Ok(Ok(reply)) => reply.output.blob().map(|blob| blob.version) == output.map(|output| output.version),
        Ok(Err(_)) => false,
        Err(error) => error.retry() == Retry::WithSameId,
    }
}

/// The result for one who has seen this much anyway.
fn seen(end: CallEnd, position: Position) -> CallEnd {
    match end {
        Ok(reply) => Ok(CallReply { position: reply.position.max(position), ..reply }),
        Err(CallError::FunctionFailed { function, code, message, retryable, position: own, attempts }) => {
            let position = own.max(position);
            Err(CallError::FunctionFailed { function, code, message, retryable, position, attempts })
        }
        Err(error) => Err(error),
    }
}
