//! The functions of an engine: calling them, and looking at them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use boki_log::{BookId, LogError, Seq};
use boki_net::Outbox;
use boki_node::Node;
use boki_wire::worker::{CallId, Register};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::Plan;
use crate::body::{Body, BodyStream};
use crate::call::{Call, CallReply, CallStatus, Demand, FunctionInfo, Sent, WorkerInfo};
use crate::config::FunctionsConfig;
use crate::counters::{Counters, FunctionsStatus};
use crate::dispatch::{Dispatch, Flushes, InForce, Limit, Standing, WorkerKey};
use crate::error::CallError;
use crate::ids::CallIds;
use crate::input::{Inputs, Pump, StreamedInput};
use crate::limit_store::{LimitError, LimitStore};
use crate::limits::{LimitRule, LimitState};
use crate::link::Invocation;
use crate::logs::{LogFilter, LogLine, LogPage, Logs};
use crate::pool::{PoolError, PoolFailure, PoolId, PoolInfo, PoolSpec, Pools, Readiness};
use crate::record::Records;
use crate::worker::WorkerLink;

/// Most names of books that are remembered.
const REMEMBERED_BOOKS: usize = 10_000;

/// The functions of an engine. Clones share it.
#[derive(Clone)]
pub struct Functions(pub(crate) Arc<Shared>);

/// What every part of this crate works on.
pub(crate) struct Shared {
    pub(crate) node: Node,
    /// For tasks that must not keep it alive.
    pub(crate) itself: Weak<Shared>,
    pub(crate) config: Arc<FunctionsConfig>,
    pub(crate) dispatch: Mutex<Dispatch>,
    pub(crate) counters: Counters,
    pub(crate) logs: Logs,
    pub(crate) records: Records,
    pub(crate) pools: Pools,
    pub(crate) runtime: Handle,
    /// Cancelled when the engine begins to stop.
    pub(crate) closing: CancellationToken,
    /// The tasks that carry calls on record and clean up after them.
    pub(crate) tasks: TaskTracker,
    ids: CallIds,
    book_names: Mutex<HashMap<BookId, Arc<str>>>,
    /// While the engine stops: an attempt has ended.
    ended: Notify,
    /// Inputs that come piece by piece, by the attempts that get them.
    pub(crate) inputs: Inputs,
    /// The stored limits; held while they are changed.
    pub(crate) limits: tokio::sync::Mutex<LimitStore>,
    /// When the table wants to be told of the time.
    timer: watch::Sender<Option<Instant>>,
    /// There is a timer for functions that have lost their last worker.
    pub(crate) is_expiring: AtomicBool,
    /// Counts workers that connect and workers that go.
    worker_changes: watch::Sender<u64>,
    /// How many calls pause before their next attempt.
    pub(crate) pausing: watch::Sender<usize>,
}

impl Functions {
    /// No function as yet: workers bring them. Must be called inside a tokio runtime, on which everything runs.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(node: Node, config: FunctionsConfig) -> Functions {
        let config = Arc::new(config);
        let before = Seq(node.status().last_seq);
        let shared = Arc::new_cyclic(|shared| Shared {
            logs: Logs::new(config.log_lines, node.clock().clone()),
            node,
            itself: Weak::clone(shared),
            dispatch: Mutex::new(Dispatch::new(Arc::clone(&config))),
            counters: Counters::default(),
            records: Records::new(Weak::clone(shared), before),
            pools: Pools::default(),
            runtime: Handle::current(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            ids: CallIds::new(),
            book_names: Mutex::default(),
            ended: Notify::new(),
            inputs: Inputs::default(),
            limits: tokio::sync::Mutex::default(),
            timer: watch::Sender::new(None),
            is_expiring: AtomicBool::new(false),
            worker_changes: watch::Sender::new(0),
            pausing: watch::Sender::new(0),
            config,
        });
        shared.enforce(&LimitStore::default());
        shared.runtime.spawn(keep_time(Arc::downgrade(&shared), shared.timer.subscribe()));
        Functions(shared)
    }

    /// Runs a function and waits for its result, or for the beginning of an output that comes piece by piece: from then on
    /// the call goes on as long as the output is held, whatever its deadline was. Without an idempotency key, nothing is
    /// written: the call lives and dies with this engine.
    ///
    /// # Cancel-safety
    /// Dropping the future, or the output before its end, gives the call up; one with a key goes on.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, call: Call) -> Result<CallReply, CallError> {
        self.run(call, false).await
    }

    async fn run(&self, call: Call, whole: bool) -> Result<CallReply, CallError> {
        let started = Instant::now();
        let result = if call.idempotency_key.is_some() {
            Box::pin(self.0.call_on_record(call)).await
        } else {
            self.0.call_once(call, started, whole).await
        };
        self.0.counters.call_ended(started.elapsed(), result.is_err());
        result
    }

    /// As [`Functions::call`], with the whole output, which has to come within the call's time.
    ///
    /// # Cancel-safety
    /// As [`Functions::call`].
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_whole(&self, call: Call) -> Result<CallReply<Bytes>, CallError> {
        self.run(call, true).await?.whole(self.0.config.payload_bytes).await
    }

    /// Puts a call on record, which makes it run, and does not wait for that.
    ///
    /// # Cancel-safety
    /// Dropping the future leaves open whether the call is on record; the same key finds out.
    ///
    /// # Errors
    /// [`CallError`]: the call is not on record (for [`CallError::Log`], it may be).
    pub async fn send(&self, call: Call) -> Result<Sent, CallError> {
        Box::pin(self.0.send(call)).await
    }

    /// The result of a call that is on record; waits up to `wait` for it. `None`: there is none yet.
    ///
    /// # Cancel-safety
    /// Safe: nothing but the waiting is given up.
    ///
    /// # Errors
    /// The call's own, and [`CallError::CallNotFound`].
    pub async fn result(
        &self,
        book: BookId,
        id: CallId,
        wait: Option<Duration>,
    ) -> Result<Option<CallReply>, CallError> {
        Box::pin(self.0.result(book, id, wait)).await
    }

    /// As [`Functions::result`], with the whole output.
    ///
    /// # Errors
    /// As [`Functions::result`].
    pub async fn whole_result(
        &self,
        book: BookId,
        id: CallId,
        wait: Option<Duration>,
    ) -> Result<Option<CallReply<Bytes>>, CallError> {
        match self.result(book, id, wait).await? {
            Some(reply) => reply.whole(self.0.config.payload_bytes).await.map(Some),
            None => Ok(None),
        }
    }

    /// What is known of a call that is on record.
    ///
    /// # Errors
    /// [`CallError::CallNotFound`].
    pub async fn call_status(&self, book: BookId, id: CallId) -> Result<CallStatus, CallError> {
        self.0.call_status(book, id).await
    }

    /// Ends a call that is on record, unless it has a result already: that is returned. The cancellation is on
    /// record before this returns.
    ///
    /// # Errors
    /// [`CallError::CallNotFound`], and what the log says.
    pub async fn cancel(&self, book: BookId, id: CallId) -> Result<Option<CallReply>, CallError> {
        Box::pin(self.0.cancel(book, id)).await
    }

    /// Puts the limits into force that were set, resumes the calls that are on record without a result, in every book,
    /// and trims what is over. Returns how many calls there were. To be called once, at the start.
    ///
    /// # Errors
    /// What the log says.
    pub async fn recover(&self) -> Result<usize, CallError> {
        self.0.load_limits().await?;
        Shared::recover(&self.0).await
    }

    /// Takes in a worker that has sent `register` with this `corr`. Its further frames go to the link; dropping
    /// the link says that it is gone. Frames for it go to `outbox`.
    ///
    /// # Errors
    /// [`CallError::InvalidWorker`], [`CallError::Overloaded`] or [`CallError::ShuttingDown`]: to be told to the
    /// worker under the same `corr`.
    pub fn attach_worker(&self, register: Register, corr: u64, outbox: Outbox) -> Result<WorkerLink, CallError> {
        WorkerLink::attach(&self.0, register, corr, outbox)
    }

    /// Starts a pool of worker processes, and returns before any of them has registered: [`Functions::pool_ready`]
    /// waits for that.
    ///
    /// # Errors
    /// [`PoolError`]: there is no such pool then.
    pub fn start_pool(&self, spec: PoolSpec) -> Result<PoolId, PoolError> {
        Pools::start(&self.0, spec)
    }

    /// Waits until the first process of a pool has registered. Returns why not, if one ended before, or none
    /// registered within the pool's `start_timeout`, or there is no such pool (any more). The pool goes on trying.
    ///
    /// # Cancel-safety
    /// Safe: nothing but the waiting is given up.
    ///
    /// # Errors
    /// [`PoolFailure`].
    pub async fn pool_ready(&self, pool: PoolId) -> Result<(), Arc<PoolFailure>> {
        let gone = || PoolFailure { pool: pool.to_string().into(), reason: "is gone".into(), lines: Vec::new() };
        let Some(pool) = self.0.pools.get(pool) else { return Err(Arc::new(gone())) };
        let mut readiness = pool.readiness();
        // Its sender is in the pool, which is held here.
        let readiness = readiness.wait_for(|readiness| !matches!(readiness, Readiness::NotYet)).await;
        match readiness.as_deref() {
            Ok(Readiness::Ready) => Ok(()),
            Ok(Readiness::Failed(why)) => Err(Arc::clone(why)),
            Ok(Readiness::Gone | Readiness::NotYet) | Err(_) => Err(Arc::new(gone())),
        }
    }

    /// Lets the processes of a pool that was started as `held` take calls.
    pub fn release_pool(&self, pool: PoolId) {
        if let Some(pool) = self.0.pools.get(pool) {
            pool.release(&self.0);
        }
    }

    /// Replaces the processes of a pool one by one: the old one takes no more calls once the new one has
    /// registered, finishes what it has, and ends. Returns whether there is such a pool.
    pub fn restart_pool(&self, pool: PoolId) -> bool {
        let pool = self.0.pools.get(pool);
        pool.inspect(|pool| pool.restart(&self.0)).is_some()
    }

    /// Ends a pool: from the call of this function on (not only once the future is polled) its processes take no
    /// more calls. They have the pool's `drain_grace` to finish what they have, then they are ended. Waits until
    /// they all are.
    ///
    /// # Cancel-safety
    /// Safe: the pool ends in any case.
    pub fn drain_pool(&self, pool: PoolId) -> impl Future<Output = ()> + Send + use<> {
        let pool = self.0.pools.get(pool).inspect(|pool| pool.close(&self.0));
        async move {
            if let Some(pool) = pool {
                // Its sender is in the pool, which is held here.
                let _ = pool.readiness().wait_for(|readiness| matches!(readiness, Readiness::Gone)).await;
            }
        }
    }

    /// Every pool that has not ended.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolInfo> {
        self.0.pools.list(&self.0)
    }

    /// Every function that a worker offers, or did until a moment ago.
    #[must_use]
    pub fn list(&self) -> Vec<FunctionInfo> {
        let waiting = self.0.records.waiting_of();
        let mut functions = self.0.dispatch.lock().functions();
        for function in &mut functions {
            function.queued += waiting.get(&function.name).copied().unwrap_or(0);
        }
        functions
    }

    /// Every worker that is connected.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.0.dispatch.lock().workers()
    }

    /// Per function that is known: how much of it is asked for, and how much of it there is.
    #[must_use]
    pub fn demand(&self) -> Vec<Demand> {
        self.0.dispatch.lock().demand()
    }

    /// The limits in force, by name, and how much of each is used.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitState> {
        self.0.dispatch.lock().limits(Instant::now())
    }

    /// Sets a limit, new or in place of that of its name. It is on record, and in force, when this returns: what runs above
    /// it runs on, what waits and may run now, runs.
    ///
    /// # Errors
    /// [`LimitError`].
    pub async fn set_limit(&self, limit: LimitRule) -> Result<(), LimitError> {
        self.0.set_limit(limit).await
    }

    /// Removes a limit that was set. One of the configuration, which it stood in place of, is in force again.
    ///
    /// # Errors
    /// [`LimitError`].
    pub async fn remove_limit(&self, name: &str) -> Result<(), LimitError> {
        self.0.remove_limit(name).await
    }

    /// Changes whenever a worker has connected or is gone; ends with the functions.
    #[must_use]
    pub fn worker_changes(&self) -> watch::Receiver<u64> {
        self.0.worker_changes.subscribe()
    }

    /// How many calls pause before their next attempt, because their functions failed and said that trying again may help.
    #[must_use]
    pub fn pausing(&self) -> watch::Receiver<usize> {
        self.0.pausing.subscribe()
    }

    /// A picture of the whole.
    #[must_use]
    pub fn status(&self) -> FunctionsStatus {
        let mut status = self.0.counters.picture();
        status.backlog = self.0.records.waiting();
        let dispatch = self.0.dispatch.lock();
        status.workers = dispatch.worker_count();
        status.running = dispatch.running();
        status.queued = dispatch.queued();
        status
    }

    /// The lines from number `from` on that workers logged, as far as they are still in memory.
    #[must_use]
    pub fn log_lines(&self, from: u64, limit: usize, filter: &LogFilter) -> LogPage {
        self.0.logs.from(from, limit, filter)
    }

    /// The last lines that workers logged.
    #[must_use]
    pub fn last_log_lines(&self, limit: usize, filter: &LogFilter) -> LogPage {
        self.0.logs.last(limit, filter)
    }

    /// Changes with every line that a worker logs.
    #[must_use]
    pub fn log_changes(&self) -> watch::Receiver<u64> {
        self.0.logs.changes()
    }

    /// What was logged in a call, oldest first, as far as it is still in memory.
    #[must_use]
    pub fn logs(&self, id: CallId) -> Vec<LogLine> {
        self.last_log_lines(usize::MAX, &LogFilter { call: Some(id), ..LogFilter::default() }).lines
    }

    /// What a worker logged (its output included), oldest first, as far as it is still in memory.
    #[must_use]
    pub fn worker_logs(&self, worker: &str) -> Vec<LogLine> {
        self.last_log_lines(usize::MAX, &LogFilter { worker: Some(worker.to_owned()), ..LogFilter::default() }).lines
    }

    /// Stops: new calls and those that wait are refused, those that run have `grace` to end, then they are given up.
    /// Worker processes are ended. Calls on record without a result go on after the next start.
    pub async fn shutdown(&self, grace: Duration) {
        let shared = &self.0;
        let deadline = Instant::now() + grace;
        shared.closing.cancel();
        let mut flushes = Flushes::default();
        shared.dispatch.lock().close(Instant::now(), &mut flushes);
        shared.perform(flushes, None);
        shared.records.close();
        let idle = async {
            loop {
                let ended = shared.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if shared.dispatch.lock().running() == 0 {
                    return;
                }
                ended.await;
            }
        };
        if timeout_at(deadline, idle).await.is_err() {
            let mut flushes = Flushes::default();
            shared.dispatch.lock().abandon(Instant::now(), &mut flushes);
            shared.perform(flushes, None);
        }
        shared.tasks.close();
        shared.tasks.wait().await;
        shared.pools.stop().await;
    }
}

impl Shared {
    /// A call that is not on record.
    async fn call_once(
        self: &Arc<Shared>,
        mut call: Call,
        started: Instant,
        whole: bool,
    ) -> Result<CallReply, CallError> {
        call.check()?;
        let book_name = match self.known_book_name(call.book) {
            Some(name) => name,
            None => self.find_book_name(call.book).await?,
        };
        let (terms, lineage) = {
            let dispatch = self.dispatch.lock();
            let lineage = call.parent.map(|parent| dispatch.lineage(parent.0, &call.function)).transpose()?;
            (dispatch.terms(&call.function), lineage.flatten())
        };
        let own = started + call.deadline.unwrap_or(terms.timeout);
        let until = lineage.and_then(|lineage| lineage.until).map_or(own, |parents| parents.min(own));
        let input = std::mem::replace(&mut call.input, Body::Whole(Bytes::new()));
        let (input, stream) = match input {
            whole @ Body::Whole(_) => {
                (whole.gather(self.config.payload_bytes).await.map_err(|error| error.of("input"))?, None)
            }
            Body::Stream(stream) => Box::pin(self.take_stream(&call.function, stream, until)).await?,
        };
        let (stream, pump) = match stream {
            None => (None, None),
            Some(pieces) => {
                let stream = StreamedInput::new();
                let pump = Pump::start(self, Arc::clone(&stream), pieces);
                (Some(stream), Some(pump))
            }
        };
        let invocation = Arc::new(Invocation {
            id: self.ids.next(),
            function: call.function,
            book: call.book,
            book_name,
            content_type: call.content_type,
            http: call.http,
            input,
            stream,
        });
        let plan = Plan {
            standing: Standing {
                priority: call.priority,
                limit_key: call.limit_key,
                parent: call.parent.map(|parent| parent.0),
                level: 0,
            },
            position: call.position,
            limit: Limit::Until(until),
            max_attempts: terms.max_attempts,
            on_record: false,
            whole,
        };
        self.drive(invocation, plan, pump, None).await
    }

    /// An input that comes piece by piece, as the function takes it: as it is, or as a whole.
    async fn take_stream(
        &self,
        function: &Arc<str>,
        stream: BodyStream,
        until: Instant,
    ) -> Result<(Bytes, Option<BodyStream>), CallError> {
        let too_slow = |_| CallError::InputTooSlow { function: Arc::clone(function) };
        match timeout_at(until, self.streams_input(function)).await {
            Ok(Ok(true)) => Ok((Bytes::new(), Some(stream))),
            Ok(Ok(false)) => {
                let gathered = Body::Stream(stream).gather(self.config.payload_bytes);
                let gathered = timeout_at(until, gathered).await.map_err(too_slow)?;
                Ok((gathered.map_err(|error| error.of("input"))?, None))
            }
            Ok(Err(error)) => Err(error),
            // No worker has come that could have told.
            Err(_) => Err(CallError::FunctionNotFound { function: Arc::clone(function) }),
        }
    }

    /// Whether a function takes its input piece by piece. Waits for a worker that is starting.
    async fn streams_input(&self, function: &Arc<str>) -> Result<bool, CallError> {
        let mut changes = self.worker_changes.subscribe();
        loop {
            {
                let dispatch = self.dispatch.lock();
                match dispatch.terms(function).streams_input {
                    Some(streams) => return Ok(streams),
                    None => dispatch.admits(function, 0, Instant::now())?,
                }
                if !dispatch.expects_workers() {
                    return Ok(false);
                }
            }
            if changes.changed().await.is_err() {
                return Err(CallError::ShuttingDown);
            }
        }
    }

    /// Does what the table asked for. `awake`: the worker whose connection's task calls, and writes by itself.
    pub(crate) fn perform(&self, mut flushes: Flushes, awake: Option<WorkerKey>) {
        for worker in std::mem::take(&mut flushes.watched) {
            self.watch_given_up(worker);
        }
        if let Some(timer) = flushes.timer {
            self.timer.send_if_modified(|at| at.replace(timer) != Some(timer));
        }
        flushes.flush(awake);
    }

    /// Puts these limits into force in place of those there are.
    pub(crate) fn set_limits(&self, mut limits: Vec<InForce>) {
        limits.sort_by(|a, b| a.limit.name.cmp(&b.limit.name));
        let mut flushes = Flushes::default();
        self.dispatch.lock().set_limits(limits, Instant::now(), &mut flushes);
        self.perform(flushes, None);
    }

    /// Changes whenever a worker has connected or is gone.
    pub(crate) fn subscribe_workers(&self) -> watch::Receiver<u64> {
        self.worker_changes.subscribe()
    }

    /// A worker has connected, or is gone.
    pub(crate) fn note_worker(&self) {
        self.worker_changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn new_call_id(&self) -> CallId {
        self.ids.next()
    }

    /// The name of a book.
    pub(crate) async fn book_name(&self, book: BookId) -> Result<Arc<str>, CallError> {
        match self.known_book_name(book) {
            Some(name) => Ok(name),
            None => self.find_book_name(book).await,
        }
    }

    fn known_book_name(&self, book: BookId) -> Option<Arc<str>> {
        self.book_names.lock().get(&book).cloned()
    }

    async fn find_book_name(&self, book: BookId) -> Result<Arc<str>, CallError> {
        let books = self.node.books().await?;
        let found = books.into_iter().find(|candidate| candidate.id == book);
        let found = found.ok_or_else(|| LogError::BookNotFound { name: book.0.to_string() })?;
        let name: Arc<str> = found.name.into();
        let mut names = self.book_names.lock();
        if names.len() >= REMEMBERED_BOOKS {
            names.clear();
        }
        names.insert(book, Arc::clone(&name));
        Ok(name)
    }

    /// An attempt may have ended; whoever stops the engine looks again.
    pub(crate) fn note_idle(&self) {
        if self.closing.is_cancelled() {
            self.ended.notify_waiters();
        }
    }
}

/// Tells the table of the time, when it asked for that. Sleeps without a timer else.
async fn keep_time(shared: Weak<Shared>, mut timer: watch::Receiver<Option<Instant>>) {
    loop {
        let at = *timer.borrow_and_update();
        if let Some(at) = at {
            tokio::select! {
                changed = timer.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = sleep_until(at) => {}
            }
            let Some(shared) = shared.upgrade() else { return };
            let mut flushes = Flushes::default();
            // What was asked for has come; the table may ask for another time.
            shared.timer.send_if_modified(|asked| {
                if *asked == Some(at) {
                    *asked = None;
                }
                false
            });
            shared.dispatch.lock().tick(Instant::now(), &mut flushes);
            shared.perform(flushes, None);
        } else if timer.changed().await.is_err() {
            return;
        }
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions").field("status", &self.status()).finish_non_exhaustive()
    }
}
