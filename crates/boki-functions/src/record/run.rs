//! Running a call on record, once in this engine at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use boki_log::{BookId, LogError, Position, Seq};
use boki_wire::calls::DEFAULT_PRIORITY;
use boki_wire::worker::CallId;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::entry::{self, Accepted};
use super::ledger::Ticket;
use super::store::OnRecord;
use crate::attempt::Plan;
use crate::call::{Call, CallReply, CallStatus, Sent};
use crate::counters::count;
use crate::dispatch::{Limit, Standing};
use crate::error::CallError;
use crate::functions::Shared;
use crate::ids;
use crate::link::Invocation;

/// A call on record that this engine runs.
pub(super) struct Run {
    input: Bytes,
    state: watch::Sender<State>,
    cancelled: CancellationToken,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    /// It is being put on record.
    Starting,
    /// It is not on record.
    Refused(CallError),
    /// It is, and runs.
    Accepted(Position),
    /// It has ended. Is that no result (the engine stops, the log fails), it runs again later.
    Ended(Result<CallReply<Bytes>, CallError>),
}

/// Where a run begins.
enum Start {
    New(Call<Bytes>),
    OnRecord(OnRecord),
}

/// What came of putting a call on record.
enum Acceptance {
    Run { on_record: OnRecord, position: Position },
    Ended { result: Result<CallReply<Bytes>, CallError>, position: Position },
}

impl Run {
    fn new(input: Bytes) -> Arc<Run> {
        let (state, _) = watch::channel(State::Starting);
        Arc::new(Run { input, state, cancelled: CancellationToken::new() })
    }

    fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// The state, once `wanted` accepts it.
    async fn until(mut states: watch::Receiver<State>, wanted: impl FnMut(&State) -> bool) -> State {
        match states.wait_for(wanted).await {
            Ok(state) => state.clone(),
            // The task is gone without a word: the runtime is being torn down.
            Err(_) => State::Ended(Err(CallError::ShuttingDown)),
        }
    }

    async fn result(states: watch::Receiver<State>) -> Result<CallReply<Bytes>, CallError> {
        match Run::until(states, |state| matches!(state, State::Refused(_) | State::Ended(_))).await {
            State::Ended(result) => result,
            State::Refused(error) => Err(error),
            State::Starting | State::Accepted(_) => Err(CallError::ShuttingDown),
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({:?})", *self.state.borrow())
    }
}

impl Shared {
    /// A call with an idempotency key, to its result.
    pub(crate) async fn call_on_record(
        shared: &Arc<Shared>,
        mut call: Call<Bytes>,
    ) -> Result<CallReply<Bytes>, CallError> {
        let wait = call.deadline.take().unwrap_or_else(|| shared.dispatch.lock().terms(&call.function).timeout);
        let until = Instant::now() + wait;
        let (function, position) = (Arc::clone(&call.function), call.position);
        let (id, states) = Shared::run(shared, call)?;
        match timeout_at(until, Run::result(states)).await {
            Ok(result) => result.map(|reply| CallReply { position: reply.position.max(position), ..reply }),
            Err(_) => Err(CallError::DeadlineExceeded { function, id }),
        }
    }

    /// Puts a call on record.
    pub(crate) async fn send(shared: &Arc<Shared>, call: Call<Bytes>) -> Result<Sent, CallError> {
        let caller = call.position;
        let (id, states) = Shared::run(shared, call)?;
        let position = match Run::until(states, |state| !matches!(state, State::Starting)).await {
            State::Refused(error) => return Err(error),
            State::Accepted(position) => position,
            State::Ended(Ok(reply)) => reply.position,
            State::Ended(Err(error)) => error.position().unwrap_or_default(),
            State::Starting => return Err(CallError::ShuttingDown),
        };
        Ok(Sent { id, position: position.max(caller) })
    }

    /// The result of a call on record.
    pub(crate) async fn result(
        shared: &Arc<Shared>,
        book: BookId,
        id: CallId,
        wait: Option<Duration>,
    ) -> Result<Option<CallReply<Bytes>>, CallError> {
        let running = shared.records.runs.lock().get(&(book, id)).map(|run| run.state.subscribe());
        let states = match running {
            Some(states) => states,
            None => {
                let record = shared.find(book, id).await?.ok_or(CallError::CallNotFound { id })?;
                match (record.ended, record.accepted) {
                    (Some(result), _) => return result.map(Some),
                    (None, Some(on_record)) => Shared::resume(shared, book, id, on_record),
                    (None, None) => return Err(CallError::CallNotFound { id }),
                }
            }
        };
        let until = Instant::now() + wait.unwrap_or_default();
        match timeout_at(until, Run::result(states)).await {
            Ok(result) => result.map(Some),
            Err(_) => Ok(None),
        }
    }

    pub(crate) async fn call_status(&self, book: BookId, id: CallId) -> Result<CallStatus, CallError> {
        let record = self.find(book, id).await?.ok_or(CallError::CallNotFound { id })?;
        let (function, accepted_us) = match record.accepted {
            Some(on_record) => (on_record.accepted.function, on_record.time_us),
            None => ("".into(), 0),
        };
        Ok(CallStatus { id, function, accepted_us, result: record.ended })
    }

    /// Ends a call on record, if it has not ended.
    pub(crate) async fn cancel(&self, book: BookId, id: CallId) -> Result<Option<CallReply<Bytes>>, CallError> {
        let record = self.find(book, id).await?.ok_or(CallError::CallNotFound { id })?;
        let on_record = match (record.ended, record.accepted) {
            (Some(result), _) => return result.map(Some),
            (None, Some(on_record)) => on_record,
            (None, None) => return Err(CallError::CallNotFound { id }),
        };
        let cancelled = Err(CallError::Cancelled { id });
        match self.record_end(book, id, on_record.seq, cancelled).await? {
            Err(CallError::Cancelled { .. }) => {}
            result => return result.map(Some),
        }
        if let Some(run) = self.records.runs.lock().get(&(book, id)) {
            run.cancelled.cancel();
        }
        Ok(None)
    }

    /// Joins the run of a call, or begins it.
    fn run(shared: &Arc<Shared>, call: Call<Bytes>) -> Result<(CallId, watch::Receiver<State>), CallError> {
        call.check()?;
        let id = match &call.idempotency_key {
            Some(key) => ids::of_key(&call.function, key),
            None => shared.new_call_id(),
        };
        let mut runs = shared.records.runs.lock();
        if let Some(run) = runs.get(&(call.book, id)) {
            if run.input != call.input {
                return Err(key_reused(call.function, call.idempotency_key));
            }
            return Ok((id, run.state.subscribe()));
        }
        if shared.closing.is_cancelled() {
            return Err(CallError::ShuttingDown);
        }
        let limit = shared.config.queue_calls.saturating_mul(2);
        if runs.len() >= limit {
            let what = "too many calls are on record without a result";
            return Err(CallError::Overloaded { what, limit: limit as u64 });
        }
        let run = Run::new(call.input.clone());
        let states = run.state.subscribe();
        runs.insert((call.book, id), Arc::clone(&run));
        drop(runs);
        let ticket = shared.records.ledgers.open(call.book);
        let carry = Shared::carry(Arc::clone(shared), call.book, id, run, Start::New(call), ticket);
        shared.tasks.spawn_on(carry, &shared.runtime);
        Ok((id, states))
    }

    /// Runs a call that is on record without a result, unless it is running.
    pub(super) fn resume(
        shared: &Arc<Shared>,
        book: BookId,
        id: CallId,
        on_record: OnRecord,
    ) -> watch::Receiver<State> {
        let mut runs = shared.records.runs.lock();
        if let Some(run) = runs.get(&(book, id)) {
            return run.state.subscribe();
        }
        let run = Run::new(on_record.accepted.input.clone());
        let states = run.state.subscribe();
        runs.insert((book, id), Arc::clone(&run));
        drop(runs);
        let mut ticket = shared.records.ledgers.open(book);
        shared.records.ledgers.accepted(&mut ticket, on_record.seq);
        let carry = Shared::carry(Arc::clone(shared), book, id, run, Start::OnRecord(on_record), ticket);
        shared.tasks.spawn_on(carry, &shared.runtime);
        states
    }

    /// The task of a run: puts the call on record if it is not, runs it, records its end.
    async fn carry(shared: Arc<Shared>, book: BookId, id: CallId, run: Arc<Run>, start: Start, mut ticket: Ticket) {
        let acceptance = match start {
            Start::New(call) => shared.accept(id, call, &mut ticket).await,
            Start::OnRecord(on_record) => Ok(Acceptance::Run { on_record, position: Position::START }),
        };
        let mut keep = false;
        let state = match acceptance {
            Err(error) => State::Refused(error),
            Ok(Acceptance::Ended { result, position }) => State::Ended(seen(result, position)),
            Ok(Acceptance::Run { on_record, position }) => {
                shared.records.ledgers.accepted(&mut ticket, on_record.seq);
                run.set(State::Accepted(position));
                let seq = on_record.seq;
                let result = shared.run_accepted(book, id, &run, on_record, position).await;
                if entry::encode_ended(&result).is_none() {
                    // Not a result: the call stays on record, and runs again after the next start.
                    keep = true;
                    State::Ended(result)
                } else {
                    match shared.record_end(book, id, seq, result).await {
                        Ok(result) => State::Ended(result),
                        Err(error) => {
                            keep = true;
                            State::Ended(Err(error))
                        }
                    }
                }
            }
        };
        shared.records.runs.lock().remove(&(book, id));
        run.set(state);
        if !keep {
            shared.clean_up(book, &ticket).await;
        }
    }

    /// Puts a call on record, or finds that it is.
    async fn accept(&self, id: CallId, call: Call<Bytes>, ticket: &mut Ticket) -> Result<Acceptance, CallError> {
        let book = call.book;
        let accepted = Accepted {
            position: call.position,
            deadline_ms: call.deadline.map_or(0, |deadline| millis(deadline).max(1)),
            function: Arc::clone(&call.function),
            content_type: Arc::clone(&call.content_type),
            key: call.idempotency_key.clone(),
            input: call.input.clone(),
        };
        // Most often there is nothing on record. The append's condition decides; looking first saves an append.
        if call.idempotency_key.is_none() || self.last_of(book, id).await? == Seq::NONE {
            self.dispatch.lock().admits(&call.function, call.input.len(), Instant::now())?;
            let tag = entry::call_tag(id)?;
            let tags = vec![tag.clone(), entry::accepted_tag()?];
            match self.append_if(book, tags, (tag, Seq::NONE), accepted.encode()).await {
                Ok(appended) => {
                    count(&self.counters.recorded);
                    let seq = appended.seq.unwrap_or_default();
                    self.records.ledgers.accepted(ticket, seq);
                    let on_record = OnRecord { seq, time_us: self.node.now_us(), accepted };
                    return Ok(Acceptance::Run { on_record, position: appended.position });
                }
                Err(LogError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(record) = self.find(book, id).await? else {
            // Its retention ended just now. To begin anew here would be right, but never twice in one request.
            return Err(CallError::CallNotFound { id });
        };
        if record.accepted.as_ref().is_some_and(|on_record| on_record.accepted.input != call.input) {
            return Err(key_reused(call.function, call.idempotency_key));
        }
        match (record.ended, record.accepted) {
            (Some(result), _) => Ok(Acceptance::Ended { result, position: record.position }),
            (None, Some(on_record)) => Ok(Acceptance::Run { on_record, position: record.position }),
            (None, None) => Err(CallError::CallNotFound { id }),
        }
    }

    async fn run_accepted(
        self: &Arc<Shared>,
        book: BookId,
        id: CallId,
        run: &Run,
        on_record: OnRecord,
        position: Position,
    ) -> Result<CallReply<Bytes>, CallError> {
        let accepted = on_record.accepted;
        let limit = match accepted.deadline_ms {
            0 => Limit::OnceRunning,
            deadline_ms => {
                let end_us = on_record.time_us.saturating_add(deadline_ms.saturating_mul(1000));
                Limit::Until(Instant::now() + Duration::from_micros(end_us.saturating_sub(self.node.now_us())))
            }
        };
        let invocation = Arc::new(Invocation {
            id,
            function: accepted.function,
            book,
            book_name: self.book_name(book).await?,
            content_type: accepted.content_type,
            http: None,
            input: accepted.input,
            stream: None,
        });
        let max_attempts = self.dispatch.lock().terms(&invocation.function).max_attempts;
        let plan = Plan {
            standing: Standing { priority: DEFAULT_PRIORITY, limit_key: None, parent: None, level: 0 },
            position: accepted.position.max(position),
            limit,
            max_attempts,
            on_record: true,
            whole: true,
        };
        tokio::select! {
            result = self.drive(&invocation, plan, None) => result?.whole(self.config.payload_bytes).await,
            () = run.cancelled.cancelled() => Err(CallError::Cancelled { id }),
        }
    }

    /// Records how a call ended, unless that is on record: the first result is everybody's.
    async fn record_end(
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

fn key_reused(function: Arc<str>, key: Option<Arc<str>>) -> CallError {
    CallError::KeyReused { function, key: key.unwrap_or_else(|| "".into()) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
