//! The node: operations in, replies out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use boki_disk::vfs::RealVfs;
use boki_disk::{JournalReader, PlaceError, PlaceFiles, ReadError};
use boki_log::batch::RecordBody;
use boki_log::codec::crc32c;
use boki_log::engine::{Body, Fetch, FetchedRecord, OpId, Outcome};
use boki_log::index::Index;
use boki_log::machine::Machine;
use boki_log::op::{Append, Appended, Op, Read, Records, Reply, SetAux, Tags, TagsReply, Tail, TailReply};
use boki_log::storage::Found;
use boki_log::{BookId, Limits, LocalId, LogError, Position, ShardId};
use foldhash::fast::FixedState;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::config::{NodeConfig, OpenError};
use crate::entries::{MAX_ENTRIES, PREFIX};
use crate::journal_view::entry_of;
use crate::keeper::Keeping;
use crate::log_thread;
use crate::reply::{OneShot, ReplySink};
use crate::retention::Keeping as RetentionKeeping;
use crate::status::{Status, Writable};
use crate::tables::Tables;

/// How many operations are stepped with the machine locked: about 100 us, so that others get their turn.
const OPS_PER_LOCK: usize = 64;

/// The log of one process. Clones share it.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

/// What the callers' threads and the log thread share.
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    pub(crate) reader: JournalReader<RealVfs>,
    pub(crate) places: PlaceFiles<RealVfs>,
    pub(crate) blobs: Blobs,
    /// Of the index.
    pub(crate) tables: Tables,
    pub(crate) state: Mutex<State>,
    /// Wakes the log thread.
    pub(crate) wake: Condvar,
    /// Wakes the keeper.
    pub(crate) keeper_wake: Condvar,
    /// Wakes the task that keeps books to their rules.
    pub(crate) retention_wake: Notify,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) groups: AtomicU64,
    log_thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct State {
    pub(crate) machine: Machine,
    asked: HashMap<OpId, Asked, FixedState>,
    next_op: u64,
    pub(crate) writable: Writable,
    /// The log thread sleeps.
    pub(crate) asleep: Option<Sleep>,
    pub(crate) stopping: bool,
    pub(crate) retention: RetentionKeeping,
    /// Segments that a checkpoint has made superfluous: the log thread removes them.
    pub(crate) superfluous: Vec<u64>,
    pub(crate) keeping: Keeping,
    pub(crate) segments: u64,
    /// Of tables of the index, since the start.
    pub(crate) merges: u64,
    pub(crate) disk_bytes: u64,
}

/// How the log thread sleeps.
pub(crate) struct Sleep {
    /// When it wakes by itself, if it does.
    pub(crate) until_us: Option<u64>,
}

/// Who asked for an operation.
struct Asked {
    sink: Arc<dyn ReplySink>,
    corr: u64,
    is_append: bool,
}

/// An outcome on its way to who asked, with the places of bodies that are not in memory.
pub(crate) struct Delivery {
    sink: Arc<dyn ReplySink>,
    corr: u64,
    outcome: Delivered,
}

enum Delivered {
    Done(Result<Reply, LogError>),
    Fetch(Vec<(FetchedRecord, Placed)>, Position),
}

/// A record's body, or where it lies on disk.
enum Placed {
    Here(RecordBody),
    Stored(ShardId, LocalId, Found),
}

impl Node {
    /// Opens the log in `config.data`, or makes it. Blocks while it reads what is there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: NodeConfig) -> Result<Node, OpenError> {
        let opened = log_thread::open(&config)?;
        let shared = Arc::new(Shared {
            reader: opened.journal.reader(),
            places: opened.places,
            blobs: opened.blobs,
            tables: opened.tables,
            state: Mutex::new(State {
                machine: opened.machine,
                asked: HashMap::default(),
                next_op: 0,
                writable: Writable::Yes,
                asleep: None,
                stopping: false,
                retention: RetentionKeeping::default(),
                superfluous: Vec::new(),
                keeping: opened.keeping,
                segments: 0,
                merges: 0,
                disk_bytes: 0,
            }),
            wake: Condvar::new(),
            keeper_wake: Condvar::new(),
            retention_wake: Notify::new(),
            written_bytes: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            log_thread: Mutex::new(None),
            config,
        });
        let thread = log_thread::spawn(Arc::clone(&shared), opened.journal, opened.directory)?;
        *shared.log_thread.lock() = Some(thread);
        Ok(Node { shared })
    }

    /// Starts an operation; its result goes to `sink` under `corr`. A read that need not wait is answered before this
    /// returns.
    pub fn submit(&self, op: Op, sink: &Arc<dyn ReplySink>, corr: u64) -> OpId {
        let now_us = self.shared.config.clock.now_us();
        let mut deliveries = Vec::new();
        let mut state = self.shared.state.lock();
        let id = state.submit(now_us, op, sink, corr, &mut deliveries);
        self.shared.settle(state, deliveries);
        id
    }

    /// Starts operations, in order, as [`Node::submit`] starts one: what has come together is stepped together, and the
    /// log thread is woken once. Takes them all out of `ops`.
    pub fn submit_all(&self, ops: &mut Vec<(u64, Op)>, sink: &Arc<dyn ReplySink>) {
        let mut ops = ops.drain(..).peekable();
        while ops.peek().is_some() {
            let now_us = self.shared.config.clock.now_us();
            let mut deliveries = Vec::new();
            let mut state = self.shared.state.lock();
            for (corr, op) in ops.by_ref().take(OPS_PER_LOCK) {
                state.submit(now_us, op, sink, corr, &mut deliveries);
            }
            self.shared.settle(state, deliveries);
        }
    }

    /// Gives up a read that waits: it gets no reply. No effect on anything else.
    pub fn cancel(&self, op: OpId) {
        let mut state = self.shared.state.lock();
        if state.asked.get(&op).is_some_and(|asked| !asked.is_append) {
            state.asked.remove(&op);
            state.machine.cancel(op);
        }
    }

    /// Adds a batch. Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn append(&self, append: Append) -> Result<Appended, LogError> {
        match self.ask(Op::Append(append)).await? {
            Reply::Appended(appended) => Ok(appended),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads records. Dropping the future gives up the read.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn read(&self, read: Read) -> Result<Records, LogError> {
        match self.ask(Op::Read(read)).await? {
            Reply::Records(records) => Ok(records),
            other => Err(unexpected(&other)),
        }
    }

    /// The last seq of a book or tag.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn tail(&self, tail: Tail) -> Result<TailReply, LogError> {
        match self.ask(Op::Tail(tail)).await? {
            Reply::Tail(tail) => Ok(tail),
            other => Err(unexpected(&other)),
        }
    }

    /// The tags of a book that begin with a prefix.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn tags(&self, tags: Tags) -> Result<TagsReply, LogError> {
        match self.ask(Op::Tags(tags)).await? {
            Reply::Tags(tags) => Ok(tags),
            other => Err(unexpected(&other)),
        }
    }

    /// Attaches a cache hint to a record.
    ///
    /// # Errors
    /// [`LogError::NoSuchRecord`], [`LogError::TooLarge`].
    pub async fn set_aux(&self, set_aux: SetAux) -> Result<(), LogError> {
        self.ask(Op::SetAux(set_aux)).await.map(|_| ())
    }

    async fn ask(&self, op: Op) -> Result<Reply, LogError> {
        let (sink, receiver) = OneShot::channel();
        let id = self.submit(op, &sink, 0);
        let mut asking = Asking { node: self, id: Some(id), receiver };
        let result = (&mut asking.receiver).await;
        asking.id = None;
        result.unwrap_or(Err(LogError::ShuttingDown))
    }

    /// What is too large for records, beside the log.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.shared.blobs
    }

    /// What is refused at the door.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.config.limits
    }

    /// The time of day by the node's clock, as its records show it: microseconds since 1970.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.shared.config.clock.wall_us()
    }

    /// What tells the node the time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.config.clock
    }

    /// Moves a virtual clock on, and ends the waits that are over by then. `false`: the clock is the system's.
    #[must_use]
    pub fn advance(&self, by: Duration) -> bool {
        let moved = self.shared.config.clock.advance(by);
        if moved {
            // The log thread looks at the clock when it wakes.
            self.shared.state.lock().asleep = None;
            self.shared.wake.notify_one();
            self.shared.retention_wake.notify_one();
        }
        moved
    }

    /// A picture of the node now.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.shared.state.lock();
        let engine = state.machine.engine();
        let counters = engine.map(boki_log::engine::Engine::counters).unwrap_or_default();
        let index = engine.map(boki_log::engine::Engine::index);
        Status {
            durability: self.shared.config.durability,
            writable: state.writable.clone(),
            last_seq: index.map_or(0, |index| index.position().0.0.saturating_sub(1)),
            cuts: index.map_or(0, Index::next_cut),
            books: index.map_or(0, books_in),
            records: index.map_or(0, Index::live_records),
            appended: counters.appended,
            voided: counters.voided,
            written_bytes: self.shared.written_bytes.load(Ordering::Relaxed),
            groups: self.shared.groups.load(Ordering::Relaxed),
            pending: engine.map_or(0, |engine| engine.pending() as u64),
            waiting: engine.map_or(0, |engine| engine.waiting() as u64),
            retention_books: engine.map_or(0, |engine| engine.retention().books().count() as u64),
            retention_trims: state.retention.trims,
            retention_failed: state.retention.failed,
            segments: state.segments,
            disk_bytes: state.disk_bytes,
            cache_bytes: engine.map_or(0, |engine| engine.cache_bytes() as u64),
            index_bytes: index.map_or(0, |index| index.memory_bytes() as u64) + self.shared.tables.cache_bytes(),
            index_tables: index.map_or(0, |index| index.tables().count() as u64),
            index_table_bytes: index.map_or(0, |index| index.tables().map(|table| table.bytes).sum()),
            index_merges: state.merges,
            cache_hits: counters.cache_hits,
            cache_misses: counters.cache_misses,
        }
    }

    /// Refuses new appends, writes out those that wait, answers waiting reads with [`LogError::ShuttingDown`], and closes
    /// the files. Further calls return when the first has done its work or at once.
    pub async fn shutdown(&self) {
        let Some(thread) = self.shared.log_thread.lock().take() else { return };
        self.shared.begin_stop();
        let (done, joined) = oneshot::channel();
        // Joining blocks: it gets a thread of its own.
        let joiner = std::thread::Builder::new().name("boki-stop".into()).spawn(move || {
            let _ = thread.join();
            let _ = done.send(());
        });
        if joiner.is_ok() {
            let _ = joined.await;
        }
    }

    pub(crate) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    pub(crate) fn config(&self) -> &NodeConfig {
        &self.shared.config
    }

    pub(crate) fn retention_wake(&self) -> &Notify {
        &self.shared.retention_wake
    }

    pub(crate) fn with_index<T>(&self, f: impl FnOnce(&Index) -> Option<T>) -> Option<T> {
        self.shared.state.lock().machine.engine().and_then(|engine| f(engine.index()))
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.shared.config.data.display())
    }
}

/// An operation that is awaited; dropping it gives up a read.
struct Asking<'a> {
    node: &'a Node,
    id: Option<OpId>,
    receiver: oneshot::Receiver<Result<Reply, LogError>>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.node.cancel(id);
        }
    }
}

impl Asked {
    fn delivery(self, outcome: Delivered) -> Delivery {
        Delivery { sink: self.sink, corr: self.corr, outcome }
    }
}

impl State {
    /// Steps the machine with `op`.
    fn submit(
        &mut self,
        now_us: u64,
        op: Op,
        sink: &Arc<dyn ReplySink>,
        corr: u64,
        deliveries: &mut Vec<Delivery>,
    ) -> OpId {
        let id = OpId(self.next_op);
        self.next_op += 1;
        let asked = Asked { sink: Arc::clone(sink), corr, is_append: matches!(op, Op::Append(_)) };
        if let Some(error) = self.refuse(&op) {
            deliveries.push(asked.delivery(Delivered::Done(Err(error))));
        } else {
            self.machine.submit(now_us, id, op);
            self.take_deliveries(Some((id, asked)), deliveries);
        }
        id
    }

    /// Why `op` cannot be done whatever the order says.
    fn refuse(&self, op: &Op) -> Option<LogError> {
        let book = match op {
            Op::Append(append) => append.batch.book(),
            Op::Read(read) => read.book,
            Op::Tail(tail) => tail.book,
            Op::Tags(tags) => tags.book,
            Op::SetAux(set_aux) => set_aux.book,
        };
        let exists =
            book == BookId::CATALOG || self.machine.engine().is_some_and(|engine| engine.index().has_book(book));
        (!exists).then(|| LogError::BookNotFound { name: book.to_string() })
    }

    /// Takes the outcomes that are there, with whom each is for. `newest` has just been asked: most reads have ended by now
    /// and need not be remembered.
    fn take_deliveries(&mut self, mut newest: Option<(OpId, Asked)>, deliveries: &mut Vec<Delivery>) {
        let mut fetches = Vec::new();
        for (id, outcome) in self.machine.take_outcomes() {
            let asked = match newest.take_if(|(newest, _)| *newest == id) {
                Some((_, asked)) => asked,
                None => match self.asked.remove(&id) {
                    Some(asked) => asked,
                    None => continue,
                },
            };
            match outcome {
                Outcome::Done(result) => deliveries.push(asked.delivery(Delivered::Done(result))),
                Outcome::Fetch(fetch) => fetches.push((asked, fetch)),
            }
        }
        self.asked.extend(newest);
        for (asked, Fetch { records, position }) in fetches {
            let placed = records
                .into_iter()
                .filter_map(|(known, body)| match body {
                    Body::Here(body) => Some((known, Placed::Here(body))),
                    Body::Stored(shard, local) => {
                        self.machine.find(shard, local).map(|found| (known, Placed::Stored(shard, local, found)))
                    }
                })
                .collect();
            deliveries.push(asked.delivery(Delivered::Fetch(placed, position)));
        }
    }
}

impl Shared {
    fn begin_stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        state.machine.shut_down(self.config.clock.now_us());
        self.settle(state, Vec::new());
        self.wake.notify_one();
        self.retention_wake.notify_one();
    }

    /// After a step: wakes the log thread if it has something to do, unlocks, and delivers what has ended, behind what
    /// `deliveries` has already.
    pub(crate) fn settle(&self, mut state: MutexGuard<'_, State>, mut deliveries: Vec<Delivery>) {
        state.take_deliveries(None, &mut deliveries);
        let State { machine, retention, .. } = &mut *state;
        if machine.engine().is_some_and(|engine| retention.take_sleeper(engine.retention())) {
            self.retention_wake.notify_one();
        }
        if let Some(Sleep { until_us }) = state.asleep {
            let earlier = state.machine.next_timer().is_some_and(|at| until_us.is_none_or(|until_us| at < until_us));
            if state.machine.wants_disk() || earlier {
                state.asleep = None;
                drop(state);
                self.wake.notify_one();
                return self.deliver(deliveries);
            }
        }
        drop(state);
        self.deliver(deliveries);
    }

    pub(crate) fn deliver(&self, deliveries: Vec<Delivery>) {
        let mut sinks: Vec<Arc<dyn ReplySink>> = Vec::new();
        for Delivery { sink, corr, outcome } in deliveries {
            let result = match outcome {
                Delivered::Done(result) => result,
                Delivered::Fetch(records, position) => self.fetch(records, position),
            };
            sink.reply(corr, result);
            if sinks.last().is_none_or(|last| !Arc::ptr_eq(last, &sink)) {
                sinks.push(sink);
            }
        }
        match &*sinks {
            [only] => only.flush_alone(),
            several => several.iter().for_each(|sink| sink.flush()),
        }
    }

    /// Reads the bodies that are not in memory.
    fn fetch(&self, records: Vec<(FetchedRecord, Placed)>, position: Position) -> Result<Reply, LogError> {
        let mut whole = Vec::with_capacity(records.len());
        let mut bytes = 0;
        for (known, body) in records {
            let failed = |reason: String| LogError::ReadFailed { seq: known.seq, reason };
            let body = match body {
                Placed::Here(body) => body,
                Placed::Stored(shard, local, found) => match self.fetch_record(shard, local, found) {
                    Ok(Some(body)) => body,
                    // Trimmed, and its segment given back, since the index was asked.
                    Ok(None) => continue,
                    Err(reason) => return Err(failed(reason)),
                },
            };
            bytes += body.bytes().len();
            if bytes > self.config.limits.read_bytes && !whole.is_empty() {
                break;
            }
            whole.push(known.with(body));
        }
        Ok(Reply::Records(Records { records: whole, position }))
    }

    /// Reads the record that is to be found at `found`, or wherever it has been moved to meanwhile; `None` if it is gone.
    fn fetch_record(&self, shard: ShardId, local: LocalId, mut found: Found) -> Result<Option<RecordBody>, String> {
        loop {
            match self.read_record(found) {
                Ok(body) => return Ok(Some(body)),
                Err(Unread::Failed(reason)) => return Err(reason),
                Err(Unread::Removed) => {
                    // What was alive in a segment is known to be elsewhere before that is removed.
                    match self.state.lock().machine.find(shard, local) {
                        Some(now) if now != found => found = now,
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    fn read_record(&self, found: Found) -> Result<RecordBody, Unread> {
        let place = match found {
            Found::At(place) => place,
            Found::InFile { segment, ordinal } => entry_of(self.places.find(segment, ordinal)?).in_segment(segment),
        };
        let bytes = self.reader.read(place.segment, place.frame, place.at, place.len)?;
        if crc32c(&bytes) != place.checksum {
            let at = place.frame.saturating_add(place.at);
            return Err(Unread::Failed(format!("segment {} is damaged at {at}", place.segment)));
        }
        RecordBody::decode(bytes).map_err(|error| Unread::Failed(error.to_string()))
    }
}

/// Why a record could not be read.
enum Unread {
    /// The segment in which it was is not there any more.
    Removed,
    /// It cannot be read.
    Failed(String),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Unread {
        match error {
            ReadError::Removed { .. } => Unread::Removed,
            other => Unread::Failed(other.to_string()),
        }
    }
}

impl From<PlaceError> for Unread {
    fn from(error: PlaceError) -> Unread {
        match error {
            PlaceError::Segment(error) => error.into(),
            other => Unread::Failed(other.to_string()),
        }
    }
}

/// How many books there are: what is in the catalog, but for its few entries.
fn books_in(index: &Index) -> u64 {
    let entries = index.tags(BookId::CATALOG, PREFIX, None, MAX_ENTRIES).map_or(0, |(entries, _)| entries.len());
    index.count(BookId::CATALOG).saturating_sub(entries as u64)
}

/// The engine answers each operation with a reply of its kind.
fn unexpected(reply: &Reply) -> LogError {
    debug_assert!(false, "a reply of another kind: {reply:?}");
    LogError::Malformed { reason: "a reply of another kind" }
}
