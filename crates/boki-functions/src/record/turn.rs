//! Giving calls that wait in the backlog their turns: fetching them from the log, lane by lane, in order.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use boki_log::op::{Consistency, Direction, Read};
use boki_log::{BookId, LogError, Position, Seq};
use boki_wire::worker::CallId;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

use super::backlog::{Fetch, LaneKey};
use super::entry::{self, Accepted};
use super::open::Ticket;
use super::payload::{BlobRef, NewBlob, Part, Payload};
use super::store::OnRecord;
use crate::body::Body;
use crate::error::CallError;
use crate::functions::Shared;
use crate::input::{Pump, StreamedInput};
use crate::link::Invocation;
use crate::output::Output;

/// A call's place among those that are out, until it has started; dropped when the call is over.
pub(crate) struct Turn {
    shared: Arc<Shared>,
    lane: LaneKey,
    /// Of its input.
    bytes: usize,
    is_out: AtomicBool,
    blobs: Mutex<TurnBlobs>,
}

/// What of a call lies beside the log.
#[derive(Default)]
struct TurnBlobs {
    /// The input, if it is passed on piece by piece: each attempt gets it from its beginning.
    input: Option<((BookId, CallId), BlobRef)>,
    /// The output, once it is there.
    output: Option<(BlobRef, NewBlob)>,
}

impl Turn {
    /// Of a call that is out.
    pub(super) fn new(shared: &Arc<Shared>, lane: LaneKey, bytes: usize) -> Turn {
        Turn { shared: Arc::clone(shared), lane, bytes, is_out: AtomicBool::new(true), blobs: Mutex::default() }
    }

    /// An attempt of the call runs: the next call may come out.
    pub(crate) fn started(&self) {
        if self.is_out.swap(false, Ordering::AcqRel) {
            self.shared.records.open.lock().backlog().started(self.lane, self.bytes);
            Shared::fetch(&self.shared);
        }
    }

    /// The attempt is over and the call is not: it takes a place again.
    pub(crate) fn waits_again(&self) {
        if !self.is_out.swap(true, Ordering::AcqRel) {
            self.shared.records.open.lock().backlog().waits_again(self.lane, self.bytes);
        }
    }
}

impl Turn {
    /// Whether a further attempt can have the input, although one has had some of it.
    pub(crate) fn has_input(&self) -> bool {
        self.blobs.lock().input.is_some()
    }

    /// The call as another attempt is given it, with its input from the beginning.
    pub(crate) fn renew(&self, invocation: &Invocation) -> (Arc<Invocation>, Option<Pump>) {
        let input = self.blobs.lock().input;
        let (stream, pump) = match input {
            Some((of, blob)) => {
                let (stream, pump) = self.shared.stream_input(of, blob);
                (Some(stream), Some(pump))
            }
            None => (invocation.stream.clone(), None),
        };
        let invocation = Invocation {
            id: invocation.id,
            function: Arc::clone(&invocation.function),
            book: invocation.book,
            book_name: Arc::clone(&invocation.book_name),
            content_type: Arc::clone(&invocation.content_type),
            http: invocation.http.clone(),
            input: invocation.input.clone(),
            stream,
        };
        (Arc::new(invocation), pump)
    }

    /// Takes an output that comes piece by piece. Is it large, it lies with the turn, and what is returned is empty.
    pub(crate) async fn take_output(&self, invocation: &Invocation, output: &mut Output) -> Result<Bytes, CallError> {
        let of = (invocation.book, invocation.id);
        match self.shared.store(of, Part::Output, false, output).await? {
            (Payload::Inline(bytes), _) => Ok(bytes),
            (Payload::Blob(blob), new) => {
                self.blobs.lock().output = new.map(|new| (blob, new));
                Ok(Bytes::new())
            }
        }
    }

    /// The output, if it lies here.
    pub(super) fn output(&self) -> Option<(BlobRef, NewBlob)> {
        self.blobs.lock().output.take()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.started();
        self.shared.records.open.lock().backlog().let_go(self.lane);
    }
}

/// The input of a call whose turn it is.
pub(super) enum Input {
    Whole(Bytes),
    Stream(Arc<StreamedInput>, Pump),
}

/// A call whose turn it is.
pub(super) struct TurnOf {
    pub(super) book: BookId,
    pub(super) book_name: Arc<str>,
    pub(super) id: CallId,
    pub(super) on_record: OnRecord,
    /// Why the function cannot have it, if it cannot: that is how the call ends.
    pub(super) input: Result<Input, CallError>,
    /// What is known to have been seen of the book, apart from what the caller had.
    pub(super) position: Position,
    pub(super) ticket: Ticket,
    pub(super) turn: Turn,
    pub(super) cancelled: CancellationToken,
}

impl Shared {
    /// Has the calls fetched whose turn it is.
    pub(super) fn fetch(shared: &Arc<Shared>) {
        if shared.closing.is_cancelled() {
            return;
        }
        loop {
            let next = shared.records.open.lock().next_fetch();
            let Some((fetch, tickets)) = next else { return };
            shared.tasks.spawn_on(Shared::fetch_lane(Arc::clone(shared), fetch, tickets), &shared.runtime);
        }
    }

    /// The task that fetches calls of one lane. There is one for a lane at a time.
    async fn fetch_lane(shared: Arc<Shared>, fetch: Fetch, tickets: Vec<Ticket>) {
        let Fetch { lane, book, seqs } = fetch;
        let book_name = shared.book_name(book).await.map_err(|error| match error {
            CallError::Log(error) => error,
            _ => LogError::ShuttingDown,
        });
        let mut calls = seqs.into_iter().zip(tickets);
        let mut given_back = Vec::new();
        let (mut loaded, mut log_is_closed) = (0, false);
        while let Some((seq, ticket)) = calls.next() {
            if shared.closing.is_cancelled() || !shared.records.open.lock().backlog().may_load(loaded) {
                given_back.push(ticket);
                given_back.extend(calls.map(|(_, ticket)| ticket));
                break;
            }
            let found = match &book_name {
                Ok(book_name) => shared.accepted_at(book, seq).await.map(|found| found.map(|call| (call, book_name))),
                Err(error) => Err(error.clone()),
            };
            match found {
                Ok(Some(((id, on_record), book_name))) => {
                    let book = (book, Arc::clone(book_name));
                    if Shared::give_turn(&shared, lane, book, id, on_record, ticket).await {
                        loaded += 1;
                    }
                }
                // It has ended, and is trimmed; or its book is gone.
                Ok(None) | Err(LogError::BookNotFound { .. }) => {
                    drop(Turn::new(&shared, lane, 0));
                    shared.clean_up(book, &ticket).await;
                }
                Err(LogError::ShuttingDown) => {
                    log_is_closed = true;
                    given_back.push(ticket);
                    given_back.extend(calls.map(|(_, ticket)| ticket));
                    break;
                }
                Err(error) => {
                    tracing::error!(%book, %seq, %error, "a call on record cannot be read, and is not run");
                    drop(Turn::new(&shared, lane, 0));
                }
            }
        }
        shared.records.open.lock().fetched(lane, given_back);
        if !log_is_closed {
            Shared::fetch(&shared);
        }
    }

    /// Starts a call of a lane, if it is without a result.
    async fn give_turn(
        shared: &Arc<Shared>,
        lane: LaneKey,
        (book, book_name): (BookId, Arc<str>),
        id: CallId,
        on_record: OnRecord,
        ticket: Ticket,
    ) -> bool {
        let input = shared.load((book, id), &on_record.accepted).await;
        let bytes = match &input {
            Ok(Input::Whole(bytes)) => bytes.len(),
            _ => 0,
        };
        shared.records.open.lock().backlog().loaded(bytes);
        let turn = Turn::new(shared, lane, bytes);
        if let (Ok(Input::Stream(..)), Payload::Blob(blob)) = (&input, &on_record.accepted.input) {
            turn.blobs.lock().input = Some(((book, id), *blob));
        }
        let Some(cancelled) = shared.records.watched.begin(book, id) else {
            drop(turn);
            shared.clean_up(book, &ticket).await;
            return false;
        };
        // In this order: an end that is recorded after the look finds the call begun.
        match shared.last_of(book, id).await {
            Ok(last) if last != on_record.seq => {
                drop(turn);
                let record = shared.find(book, id).await.ok().flatten();
                let ended = record.and_then(|record| record.ended).unwrap_or(Err(CallError::CallNotFound { id }));
                shared.records.watched.ended(book, id, ended);
                shared.clean_up(book, &ticket).await;
                false
            }
            _ => {
                let position = Position::START;
                let call = TurnOf { book, book_name, id, on_record, input, position, ticket, turn, cancelled };
                Shared::start(shared, call);
                true
            }
        }
    }

    /// Runs a call whose turn it is, as a task of its own.
    pub(super) fn start(shared: &Arc<Shared>, call: TurnOf) {
        let mut run = Box::pin(Shared::carry(Arc::clone(shared), call));
        // Up to where the dispatcher is asked nothing in it waits. So calls of a lane come there in their order, as they
        // would not if it were left to their tasks. Without a waker, since the task looks again anyway; unconstrained, since
        // else it would wait when this task has had its share of time.
        let first = pin!(unconstrained(run.as_mut()));
        if first.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            shared.tasks.spawn_on(run, &shared.runtime);
        }
    }

    /// The input of a call as its function takes it. Waits for a worker to come, if that has to be known.
    async fn load(self: &Arc<Shared>, of: (BookId, CallId), accepted: &Accepted) -> Result<Input, CallError> {
        let blob = match &accepted.input {
            Payload::Inline(bytes) => return Ok(Input::Whole(bytes.clone())),
            Payload::Blob(blob) => *blob,
        };
        let limit = self.config.payload_bytes;
        let mut changes = self.subscribe_workers();
        let streams = loop {
            match self.dispatch.lock().terms(&accepted.function).streams_input {
                Some(streams) => break streams,
                None if blob.len <= limit as u64 => break false,
                None => {}
            }
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| CallError::ShuttingDown)?,
                () = self.closing.cancelled() => return Err(CallError::ShuttingDown),
            }
        };
        if streams {
            let (stream, pump) = self.stream_input(of, blob);
            return Ok(Input::Stream(stream, pump));
        }
        let input = Body::Stream(self.stored_input(of, blob));
        input.gather(limit).await.map(Input::Whole).map_err(|error| error.of("input"))
    }

    /// Passes an input on from its blob.
    fn stream_input(self: &Arc<Shared>, of: (BookId, CallId), blob: BlobRef) -> (Arc<StreamedInput>, Pump) {
        let stream = StreamedInput::new();
        let pump = Pump::start(self, Arc::clone(&stream), self.stored_input(of, blob));
        (stream, pump)
    }

    /// The accepted call that is recorded at `seq`; `None`: it has ended, and that is trimmed.
    async fn accepted_at(&self, book: BookId, seq: Seq) -> Result<Option<(CallId, OnRecord)>, LogError> {
        let read = Read {
            book,
            tag: Some(entry::accepted_tag()?),
            from: seq,
            direction: Direction::Next,
            limit: 1,
            consistency: Consistency::Any,
            wait: None,
        };
        let found = self.node.read(read).await?.records;
        let Some(record) = found.first().filter(|record| record.seq == seq) else { return Ok(None) };
        let id = entry::call_of(record.body.tags());
        let id = id.ok_or(LogError::Malformed { reason: "the record of a call does not say of which" })?;
        let accepted = Accepted::decode(&record.body.payload_bytes())?;
        Ok(Some((id, OnRecord { seq, time_us: record.time_us, accepted })))
    }
}
