//! A client's state beyond any one connection: open questions, bounds, ids and positions.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use boki_log::{AppendId, BookId, LogError};
use boki_net::{Close, Frame, Outbox};
use boki_wire::{Cancel, ErrorReply, HelloOk, Message, kinds};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Received};
use crate::error::{Error, Result};
use crate::options::ConnectOptions;
use crate::pending::{Open, Pending};
use crate::question::{Lane, Question};
use crate::random::random;

/// Most open questions that are answered at once, unless the server wants fewer.
const QUICK_QUESTIONS: u32 = 4096;
/// Memory for large payloads in flight, in KiB.
const LARGE_KIB: u32 = 128 << 10;
/// Payloads up to this size are bounded by the number of questions alone.
const SMALL_BYTES: usize = 4 << 10;

/// The half of a connection that runs functions. It shares the connection with the client that its functions use.
///
/// Everything is called on the connection's task, except that `connected` may also be called by the task that opens the
/// first connection; nothing may block. What is pushed to the outbox meanwhile is written without a flush.
pub(crate) trait WorkerSide: Send + Sync {
    /// There is a connection (again): the registration goes to this outbox, before anything else.
    fn connected(&self, outbox: &Outbox);
    /// A frame of the worker link's kinds.
    fn frame(&self, frame: Frame);
    /// The server refused what was sent under this number, which is not one of the client's.
    fn refused(&self, corr: u64, error: Error);
    /// All frames that one read brought have been handed over.
    fn batch_end(&self);
    /// The connection is gone; the client is opening another.
    fn disconnected(&self);
}

/// What all handles of one client share, with the task that keeps its connection.
pub(crate) struct Session {
    pub(crate) options: ConnectOptions,
    pub(crate) worker: Option<Arc<dyn WorkerSide>>,
    /// Cancelled when the last handle is gone, or the client is closed.
    pub(crate) closing: CancellationToken,
    /// The connection's task has a clock running that notices a silent server: it need not be woken to start it.
    watched: AtomicBool,
    state: Mutex<State>,
    quick: Semaphore,
    waiting: Semaphore,
    calls: Semaphore,
    large: Semaphore,
    client_id: u64,
    appends: AtomicU64,
    positions: Mutex<BTreeMap<BookId, Arc<AtomicU64>>>,
}

#[derive(Default)]
struct State {
    pending: Pending,
    /// Of the connection, while there is one.
    outbox: Option<Outbox>,
    closed: bool,
}

impl Session {
    /// For a server that has answered with `hello`.
    pub(crate) fn new(options: ConnectOptions, worker: Option<Arc<dyn WorkerSide>>, hello: &HelloOk) -> Session {
        // Together the lanes stay within what the server takes.
        let share = |parts: u32| (hello.max_in_flight / parts).max(1) as usize;
        Session {
            options,
            worker,
            closing: CancellationToken::new(),
            watched: AtomicBool::new(false),
            state: Mutex::default(),
            quick: Semaphore::new(share(4).min(QUICK_QUESTIONS as usize)),
            waiting: Semaphore::new(share(2)),
            calls: Semaphore::new(share(4)),
            large: Semaphore::new(LARGE_KIB as usize),
            client_id: random(),
            appends: AtomicU64::new(1),
            positions: Mutex::default(),
        }
    }

    /// An id that no other append has.
    pub(crate) fn append_id(&self) -> AppendId {
        let count = self.appends.fetch_add(1, Ordering::Relaxed);
        AppendId((u128::from(self.client_id) << 64 | u128::from(count)).to_be_bytes())
    }

    /// Where the session's position in a book is kept.
    pub(crate) fn position(&self, book: BookId) -> Arc<AtomicU64> {
        Arc::clone(self.positions.lock().entry(book).or_default())
    }

    /// Asks, once there is room for one more question. `position` takes note of what the answer has seen.
    ///
    /// # Cancel-safety
    /// Dropping the future before it is ready asks nothing.
    pub(crate) async fn ask(
        self: &Arc<Session>,
        question: Question,
        position: Option<Arc<AtomicU64>>,
    ) -> Result<Asked> {
        let lane = self.lane(question.lane());
        let permit = acquire(lane, 1).await?;
        let large = match kib(question.bytes()) {
            0 => None,
            kib => Some(acquire(&self.large, kib).await?),
        };
        let (waiter, answer) = oneshot::channel();
        let mut open = Open::new(question, waiter, position);
        let mut is_alone = false;
        let (corr, outbox) = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::Closed);
            }
            match state.outbox.clone() {
                None => {
                    open.stalled_since = Some(Instant::now());
                    (state.pending.insert(open), None)
                }
                Some(outbox) => {
                    open.was_sent = true;
                    let corr = state.pending.insert(open);
                    is_alone = state.pending.len() == 1;
                    // Under the lock, so that a reconnection neither misses the question nor asks it twice.
                    if let Some(open) = state.pending.get_mut(corr) {
                        open.question.push(&outbox, corr);
                    }
                    (corr, Some(outbox))
                }
            }
        };
        // From here on the permits belong to the open question.
        permit.forget();
        if let Some(large) = large {
            large.forget();
        }
        match outbox {
            // Nobody else asks anything: no need to wait for more, nor for the connection's task. Looked at after the question
            // was added, so that either this or the task notices that nobody watches.
            Some(outbox) if is_alone && self.watched.load(Ordering::SeqCst) => outbox.write(),
            Some(outbox) => outbox.flush(),
            None => {}
        }
        Ok(Asked { session: Arc::clone(self), corr, answer: Some(answer) })
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn answer(
        self: &Arc<Session>,
        question: Question,
        position: Option<Arc<AtomicU64>>,
    ) -> Result<Answer> {
        self.ask(question, position).await?.await
    }

    /// There is a connection: sends everything that has no answer yet, in the order in which it was asked.
    pub(crate) fn connected(&self, outbox: &Outbox) {
        if let Some(worker) = &self.worker {
            worker.connected(outbox);
        }
        let mut state = self.state.lock();
        for (corr, open) in state.pending.in_order() {
            open.question.push(outbox, corr);
            open.was_sent = true;
            open.stalled_since = None;
        }
        if state.closed {
            outbox.close(Close::AfterWriting);
        }
        state.outbox = Some(outbox.clone());
        drop(state);
        outbox.flush();
    }

    /// The connection is gone: what may have been done and cannot be repeated fails, the rest waits.
    pub(crate) fn disconnected(&self) {
        let lost = {
            let mut state = self.state.lock();
            state.outbox = None;
            let lost = state.pending.take(|open| open.was_sent && !open.question.is_repeatable());
            let now = Instant::now();
            for (_, open) in state.pending.in_order() {
                open.stalled_since = Some(now);
            }
            lost
        };
        for open in lost {
            let what = open.question.what();
            self.end(open, Err(Error::OutcomeUnknown { what }));
        }
        if let Some(worker) = &self.worker {
            worker.disconnected();
        }
    }

    /// No server could be reached, for the reason `last`: what has waited too long for one fails.
    pub(crate) fn expire(&self, last: &Arc<Error>) {
        let patience = self.options.reconnect_for;
        let expired =
            self.state.lock().pending.take(|open| open.stalled_since.is_some_and(|since| since.elapsed() >= patience));
        for open in expired {
            let address = self.options.address.to_string();
            self.end(open, Err(Error::Disconnected { address, tried: patience, last: Arc::clone(last) }));
        }
    }

    /// No more questions: those that are open fail.
    pub(crate) fn close(&self) {
        let open = {
            let mut state = self.state.lock();
            state.closed = true;
            if let Some(outbox) = state.outbox.take() {
                outbox.close(Close::AfterWriting);
            }
            state.pending.take(|_| true)
        };
        for lane in [&self.quick, &self.waiting, &self.calls, &self.large] {
            lane.close();
        }
        for open in open {
            self.end(open, Err(Error::Closed));
        }
        self.closing.cancel();
    }

    /// The connection's task watches, or does no longer, whether the server answers.
    pub(crate) fn set_watched(&self, watched: bool) {
        self.watched.store(watched, Ordering::SeqCst);
    }

    pub(crate) fn has_open_questions(&self) -> bool {
        self.state.lock().pending.len() > 0
    }

    /// An answer has arrived.
    pub(crate) fn answered(&self, frame: &Frame) {
        let Received { result, position } = Received::decode(frame);
        let mut state = self.state.lock();
        let Some(open) = state.pending.get_mut(frame.corr) else {
            drop(state);
            if let (Some(worker), Err(error)) = (&self.worker, result) {
                worker.refused(frame.corr, error);
            }
            return;
        };
        // The server is about to hang up: the next connection answers.
        if matches!(result, Err(Error::Log(LogError::ShuttingDown))) && open.question.is_repeatable() {
            return;
        }
        let Some(open) = state.pending.remove(frame.corr) else { return };
        drop(state);
        if let (Some(session), Some(position)) = (&open.session, position) {
            session.fetch_max(position.0.0, Ordering::Relaxed);
        }
        self.end(open, result);
    }

    /// Nobody waits for the answer any more.
    fn give_up(&self, corr: u64) {
        let mut state = self.state.lock();
        let Some(open) = state.pending.remove(corr) else { return };
        let outbox = state.outbox.clone();
        drop(state);
        if let Some(outbox) = outbox
            && open.was_sent
            && open.question.is_worth_cancelling()
        {
            Cancel.push(&outbox, corr);
            outbox.flush();
        }
        self.release(&open.question);
    }

    fn end(&self, open: Open, result: Result<Answer>) {
        self.release(&open.question);
        // Whoever asked may have gone in this very moment.
        let _ = open.waiter.send(result);
    }

    fn release(&self, question: &Question) {
        self.lane(question.lane()).add_permits(1);
        match kib(question.bytes()) {
            0 => {}
            kib => self.large.add_permits(kib as usize),
        }
    }

    fn lane(&self, lane: Lane) -> &Semaphore {
        match lane {
            Lane::Quick => &self.quick,
            Lane::Waiting => &self.waiting,
            Lane::Calls => &self.calls,
        }
    }
}

/// Whether frames of this kind answer a client's question.
pub(crate) fn is_answer(kind: u8) -> bool {
    kind == kinds::ERROR || kind == kinds::PONG || kind >= kinds::APPEND
}

/// What the server said for the whole connection.
pub(crate) fn farewell(frame: &Frame) -> Error {
    match ErrorReply::decode(&frame.body) {
        Ok(reply) => (&reply).into(),
        Err(error) => Error::unexpected(error.to_string()),
    }
}

async fn acquire(semaphore: &Semaphore, permits: u32) -> Result<SemaphorePermit<'_>> {
    semaphore.acquire_many(permits).await.map_err(|_| Error::Closed)
}

fn kib(bytes: usize) -> u32 {
    if bytes <= SMALL_BYTES {
        0
    } else {
        u32::try_from(bytes.div_ceil(1024)).map_or(LARGE_KIB, |kib| kib.min(LARGE_KIB))
    }
}

/// A question on its way; the future of its answer. Dropping it gives the answer up.
pub(crate) struct Asked {
    session: Arc<Session>,
    corr: u64,
    /// `None`: it has ended.
    answer: Option<oneshot::Receiver<Result<Answer>>>,
}

impl Future for Asked {
    type Output = Result<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Answer>> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(Err(Error::Closed)) };
        let result = ready!(Pin::new(answer).poll(cx));
        self.answer = None;
        Poll::Ready(result.unwrap_or(Err(Error::Closed)))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.session.give_up(self.corr);
        }
    }
}

/// Keeps the session alive: every handle has one, the connection's task has not.
pub(crate) struct Lease(pub(crate) Arc<Session>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.close();
    }
}
