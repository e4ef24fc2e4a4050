//! Putting calls on record.
//!
//! A call counts as accepted once its record is ordered, whether its caller still waits or not. So what follows from that is
//! not done by the caller: the log's answers are gathered in the order of the records, and a task that lives as long as there
//! are any gives each call its turn or its place in the backlog, in that order, before its caller is told.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use boki_log::batch::{BatchBuilder, Condition, ReservedTags};
use boki_log::error::Retry;
use boki_log::op::{Ack, Append, Appended, Op, Reply};
use boki_log::{BookId, LogError, Position, Seq};
use boki_node::ReplySink;
use boki_wire::worker::CallId;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backlog::LaneName;
use super::entry::{self, Accepted};
use super::open::Ticket;
use super::payload::{NewBlob, Payload};
use super::store::{CallRecord, OnRecord};
use super::turn::{Input, Turn, TurnOf};
use super::watch::Watch;
use crate::call::Call;
use crate::counters::count;
use crate::error::CallError;
use crate::functions::Shared;

/// What came of putting a call on record.
#[derive(Debug)]
pub(super) enum Acceptance {
    /// It is, at this position.
    New(Position),
    /// It had been before.
    Found(Box<CallRecord>),
}

/// The appends of calls that are on their way.
#[derive(Debug)]
pub(super) struct Appends {
    shared: Weak<Shared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    answered: Vec<(Pending, Result<Appended, LogError>)>,
    /// A task takes what is answered.
    is_served: bool,
}

#[derive(Debug)]
struct Pending {
    id: CallId,
    lane: LaneName,
    book_name: Arc<str>,
    accepted: Accepted,
    /// Of its input.
    blob: Option<NewBlob>,
    ticket: Ticket,
    caller: oneshot::Sender<Result<Position, LogError>>,
}

impl Appends {
    pub(super) fn new(shared: Weak<Shared>) -> Appends {
        Appends { shared, state: Mutex::default() }
    }

    fn add(&self, pending: Pending) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        let corr = state.next;
        state.pending.insert(corr, pending);
        corr
    }

    /// What is answered. If that is nothing, whoever asks is the task no more.
    fn take(&self) -> Vec<(Pending, Result<Appended, LogError>)> {
        let mut state = self.state.lock();
        state.is_served = !state.answered.is_empty();
        std::mem::take(&mut state.answered)
    }
}

impl ReplySink for Appends {
    fn reply(&self, corr: u64, result: Result<Reply, LogError>) {
        let result = match result {
            Ok(Reply::Appended(appended)) => Ok(appended),
            Ok(_) => Err(LogError::Malformed { reason: "a reply of another kind" }),
            Err(error) => Err(error),
        };
        let mut state = self.state.lock();
        if let Some(pending) = state.pending.remove(&corr) {
            state.answered.push((pending, result));
        }
    }

    fn flush(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = self.state.lock();
        if state.answered.is_empty() || std::mem::replace(&mut state.is_served, true) {
            return;
        }
        drop(state);
        let runtime = shared.runtime.clone();
        let tasks = shared.tasks.clone();
        tasks.spawn_on(Shared::take_accepted(shared), &runtime);
    }
}

impl Shared {
    /// Puts a call on record, to be run on that level, or finds that it is. `blob`: of its input, if that is large. `watch`:
    /// follows it, if it has a key.
    pub(super) async fn accept(
        &self,
        id: CallId,
        level: u8,
        call: Call<Payload>,
        blob: Option<NewBlob>,
        watch: Option<&mut Watch<'_>>,
    ) -> Result<Acceptance, CallError> {
        let book = call.book;
        let book_name = self.book_name(book).await?;
        let accepting = match watch {
            None => None,
            Some(watch) => loop {
                if let Some(accepting) = watch.begin_accepting() {
                    break Some(accepting);
                }
                watch.until_accepted().await?;
            },
        };
        // Most often there is nothing on record. The append's condition decides; looking first saves an append.
        if call.idempotency_key.is_some() && self.last_of(book, id).await? != Seq::NONE {
            return self.accepted_before(book, id, call).await;
        }
        self.dispatch.lock().accepts(&call.function, Instant::now())?;
        let accepted = Accepted::of(&call, level);
        let lane = accepted.lane(book);
        let tag = entry::call_tag(id)?;
        let batch = BatchBuilder::new(book)
            .condition(Condition::Tail { tag: tag.clone(), seq: Seq::NONE })
            .record(vec![tag, entry::accepted_tag()?], accepted.encode())
            .build()?;
        let ticket = self.records.open.lock().begin(book, self.config.backlog_calls)?;
        let (caller, answer) = oneshot::channel();
        let corr = self.records.appends.add(Pending { id, lane, book_name, accepted, blob, ticket, caller });
        if let Some(accepting) = accepting {
            accepting.hand_on();
        }
        let sink: Arc<dyn ReplySink> = Arc::clone(&self.records.appends) as _;
        self.node.submit(Op::Append(Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Allowed }), &sink, corr);
        match answer.await.unwrap_or(Err(LogError::ShuttingDown)) {
            Ok(position) => Ok(Acceptance::New(position)),
            Err(LogError::ConditionFailed { .. }) => self.accepted_before(book, id, call).await,
            Err(error) => Err(error.into()),
        }
    }

    /// What is on record of a call with a key, if it is the same call.
    async fn accepted_before(&self, book: BookId, id: CallId, call: Call<Payload>) -> Result<Acceptance, CallError> {
        // If there is nothing, its retention ended just now. To begin anew here would be right, but never twice in one
        // request.
        let record = self.find(book, id).await?.ok_or(CallError::CallNotFound { id })?;
        if record.accepted.as_ref().is_some_and(|on_record| !on_record.accepted.input.is_same(&call.input)) {
            let key = call.idempotency_key.unwrap_or_else(|| "".into());
            return Err(CallError::KeyReused { function: call.function, key });
        }
        Ok(Acceptance::Found(Box::new(record)))
    }

    /// The task that takes the log's answers.
    async fn take_accepted(shared: Arc<Shared>) {
        loop {
            let answered = shared.records.appends.take();
            if answered.is_empty() {
                return;
            }
            for (pending, result) in answered {
                match result {
                    Ok(appended) => Shared::take_up(&shared, pending, appended),
                    Err(error) => shared.turn_away(pending, error),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// A call is on record.
    fn take_up(shared: &Arc<Shared>, pending: Pending, appended: Appended) {
        let Pending { id, lane, book_name, accepted, blob, ticket, caller } = pending;
        if let Some(blob) = blob {
            blob.keep();
        }
        count(&shared.counters.recorded);
        let seq = appended.seq.unwrap_or_default();
        let input = match &accepted.input {
            Payload::Inline(input) => Some(input.clone()),
            Payload::Blob(_) => None,
        };
        let bytes = input.as_ref().map(Bytes::len);
        let turn = shared.records.open.lock().accepted(ticket, &lane, seq, bytes);
        shared.records.watched.accepted(lane.book, id);
        let _ = caller.send(Ok(appended.position));
        let (Some((key, ticket)), Some(input)) = (turn, input) else { return Shared::fetch(shared) };
        let turn = Turn::new(shared, key, input.len());
        let on_record = OnRecord { seq, time_us: shared.node.now_us(), accepted };
        match shared.records.watched.begin(lane.book, id) {
            Some(cancelled) => {
                let position = appended.position;
                let (book, input) = (lane.book, Ok(Input::Whole(input)));
                let call = TurnOf { book, book_name, id, on_record, input, position, ticket, turn, cancelled };
                Shared::start(shared, call);
            }
            // An append of ours is answered once, and nobody else knew of the call.
            None => Shared::clean_up_later(shared, lane.book, ticket),
        }
    }

    /// A call is not on record, or was before.
    fn turn_away(self: &Arc<Shared>, pending: Pending, error: LogError) {
        let book = pending.lane.book;
        if error.retry() == Retry::WithSameId
            && let Some(blob) = pending.blob
        {
            // It may be on record.
            blob.keep();
        }
        match &error {
            LogError::ConditionFailed { .. } => self.records.watched.accepted(book, pending.id),
            error => self.records.watched.refused(book, pending.id, error.clone().into()),
        }
        // The caller may have given up.
        let _ = pending.caller.send(Err(error));
        Shared::clean_up_later(self, book, pending.ticket);
    }
}
