//! Serves one connection of the native protocol (`boki-wire`): a client's, or a worker's.
//!
//! The connection's task decodes a frame and submits the operation; the answer is encoded straight into the
//! connection's outbox by whichever thread has it, the log's among them, and the task is woken once per batch.
//!
//! Bounds: so many questions may be open at once, further ones are refused as overload; a peer that does not read
//! its answers is first not read from, then cut off. When a connection ends, its waiting reads and its calls that are
//! not on record are given up; appends go on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use boki_functions::{Call, CallReply, FunctionInfo, Functions, WorkerLink};
use boki_log::op::{Op, Reply};
use boki_log::{BookId, LogError};
use boki_net::{Broken, Closed, Config, Connection, Ended, Frame, FrameSink, Outbox};
use boki_node::{Book, Node, OpId, ReplySink};
use boki_wire::log::push_reply;
use boki_wire::worker::{self, Register};
use boki_wire::{
    BookCreate, BookIs, BookOpen, BookRemove, BookRemoved, BooksAre, CallAccepted, CallPending, CallResult, CallWait,
    ErrorReply, FunctionIs, FunctionsAre, Hello, HelloOk, Message, Pong, Role, VERSION, WireError, check_flags, kinds,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::http::DEFAULT_BOOK;
use crate::shelf::Shelf;

/// How many questions may be open at once on one connection.
const MAX_IN_FLIGHT: usize = 16384;
/// A peer that has not read this much is cut off, whatever it has asked for.
const OUTBOX_BYTES: usize = 256 << 20;

/// What all native connections have in common.
pub(crate) struct NativeShared {
    node: Node,
    functions: Functions,
    slow_readers: AtomicU64,
}

impl NativeShared {
    pub(crate) fn new(node: Node, functions: Functions) -> NativeShared {
        NativeShared { node, functions, slow_readers: AtomicU64::new(0) }
    }
}

/// Serves `stream`, preamble included, until either side ends it, or until `stopping`: then what is open is
/// answered (the node has been told to stop before) and nothing more is read.
///
/// # Cancel-safety
/// Dropping the future ends the connection at once.
pub(crate) async fn serve<S>(stream: S, shared: Arc<NativeShared>, stopping: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = shared.node.limits();
    let outbox = Outbox::new(OUTBOX_BYTES.max(limits.read_bytes * 2 + limits.record_bytes * 2));
    let mut config = Config::accepting();
    config.max_body = config.max_body.max(limits.batch_bytes + 1024);
    let max_body = config.max_body;
    let mut connection = Connection::accepted(stream, outbox.clone(), config);
    let mut peer = Peer::new(&shared, outbox.clone(), max_body);
    let outcome = tokio::select! {
        outcome = connection.run(&mut peer) => outcome,
        () = stopping.cancelled() => {
            let open = Arc::clone(&peer.open);
            if let Err(error) = connection.drain(|| open.in_flight() == 0).await {
                tracing::debug!(%error, "a native connection ended before its last answers");
            }
            return;
        }
    };
    let farewell = match outcome {
        Ok(Ended::Closed(Closed::SlowReader)) => {
            let so_far = shared.slow_readers.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(unread_bytes = outbox.unwritten(), so_far, "closed a connection that does not read");
            return;
        }
        Ok(ended) => {
            tracing::debug!(?ended, "a native connection ended");
            return;
        }
        Err(Broken::Io(error)) => {
            tracing::debug!(%error, "a native connection failed");
            return;
        }
        Err(Broken::Frame(error)) => WireError::from(error),
        Err(Broken::Refused(error)) => error,
    };
    tracing::debug!(error = %farewell, "closed a native connection");
    ErrorReply::from(&farewell).push(&outbox, 0);
    connection.last_words().await;
}

/// The questions of one connection that have no answer yet.
#[derive(Debug)]
struct Open {
    outbox: Outbox,
    in_flight: AtomicUsize,
    /// Those that can be given up, by their number. Whoever takes one out of here is the one who ends it.
    given_up: Mutex<BTreeMap<u64, GiveUp>>,
}

/// How to give a question up.
#[derive(Debug)]
enum GiveUp {
    /// It is being submitted.
    NotYet,
    Read(OpId),
    Task(AbortHandle),
}

impl Open {
    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn answer(&self, corr: u64, result: Result<Reply, LogError>) {
        match result {
            Ok(reply) => push_reply(&self.outbox, corr, &reply),
            Err(error) => ErrorReply::from(&error).push(&self.outbox, corr),
        }
        // After the push: whoever sees that nothing is open finds every answer in the outbox.
        self.in_flight.fetch_sub(1, Ordering::Release);
    }
}

/// Takes the answers to operations that end by themselves.
struct Replies(Arc<Open>);

impl ReplySink for Replies {
    fn reply(&self, corr: u64, result: Result<Reply, LogError>) {
        self.0.answer(corr, result);
    }

    fn flush(&self) {
        self.0.outbox.flush();
    }

    fn flush_alone(&self) {
        self.0.outbox.write();
    }
}

/// Takes the answers to reads that wait.
struct WaitingReplies(Arc<Open>);

impl ReplySink for WaitingReplies {
    fn reply(&self, corr: u64, result: Result<Reply, LogError>) {
        if self.0.given_up.lock().remove(&corr).is_some() {
            self.0.answer(corr, result);
        }
    }

    fn flush(&self) {
        self.0.outbox.flush();
    }

    fn flush_alone(&self) {
        self.0.outbox.write();
    }
}

/// One connection, as its task sees it.
struct Peer<'a> {
    shared: &'a Arc<NativeShared>,
    outbox: Outbox,
    max_body: usize,
    open: Arc<Open>,
    replies: Arc<dyn ReplySink>,
    waiting_replies: Arc<dyn ReplySink>,
    role: Option<Role>,
    worker: Option<WorkerLink>,
    /// Operations of this burst of frames, not yet with the log.
    gathered: Vec<(u64, Op)>,
    /// Has the bodies of what is kept beyond its frame.
    shelf: Shelf,
}

impl FrameSink for Peer<'_> {
    type Error = WireError;

    fn frame(&mut self, frame: Frame) -> Result<(), WireError> {
        let Some(role) = self.role else { return self.greet(&frame) };
        if let Err(error) = check_flags(&frame) {
            ErrorReply::from(&error).push(&self.outbox, frame.corr);
            return Ok(());
        }
        match frame.kind {
            kinds::HELLO => violation("a second greeting"),
            kinds::PING => {
                Pong.push(&self.outbox, frame.corr);
                Ok(())
            }
            kinds::PONG => Ok(()),
            kinds::CANCEL => {
                self.give_up(frame.corr);
                Ok(())
            }
            kind if worker::KINDS.contains(&kind) => self.worker_frame(role, &frame),
            _ if frame.corr == 0 => violation("a question with the number 0"),
            _ => self.question(frame),
        }
    }

    fn batch_end(&mut self) {
        self.submit_gathered();
    }
}

impl<'a> Peer<'a> {
    fn new(shared: &'a Arc<NativeShared>, outbox: Outbox, max_body: usize) -> Peer<'a> {
        let open = Arc::new(Open {
            outbox: outbox.clone(),
            in_flight: AtomicUsize::new(0),
            given_up: Mutex::new(BTreeMap::new()),
        });
        let replies = Arc::new(Replies(Arc::clone(&open)));
        let waiting_replies = Arc::new(WaitingReplies(Arc::clone(&open)));
        Peer {
            shared,
            outbox,
            max_body,
            open,
            replies,
            waiting_replies,
            role: None,
            worker: None,
            gathered: Vec::new(),
            shelf: Shelf::default(),
        }
    }

    fn greet(&mut self, frame: &Frame) -> Result<(), WireError> {
        if frame.kind != Hello::KIND || check_flags(frame).is_err() {
            return violation("the first message is not a greeting");
        }
        let hello = match Hello::decode(&frame.body) {
            Ok(hello) => hello,
            Err(error) => return Err(WireError::Protocol { reason: error.to_string() }),
        };
        if hello.version == 0 {
            return Err(WireError::Version { asked: hello.version, ours: VERSION });
        }
        tracing::debug!(name = hello.name, role = ?hello.role, "native connection");
        self.role = Some(hello.role);
        let ok = HelloOk {
            version: VERSION,
            max_in_flight: MAX_IN_FLIGHT as u32,
            max_body: u32::try_from(self.max_body).unwrap_or(u32::MAX),
            name: concat!("boki ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        ok.push(&self.outbox, frame.corr);
        Ok(())
    }

    fn question(&mut self, frame: Frame) -> Result<(), WireError> {
        let corr = frame.corr;
        let result = if self.open.in_flight() >= MAX_IN_FLIGHT {
            Err(LogError::Overloaded { what: "questions open on this connection" })
        } else {
            self.ask(frame)
        };
        match result {
            Ok(Asked::Yes) => {}
            Ok(Asked::UnknownKind(kind)) => {
                ErrorReply::from(&WireError::UnknownKind { kind }).push(&self.outbox, corr);
            }
            Ok(Asked::OpenAlready) => return violation("a question with the number of another that is open"),
            Err(error) => ErrorReply::from(&error).push(&self.outbox, corr),
        }
        Ok(())
    }

    fn ask(&mut self, frame: Frame) -> Result<Asked, LogError> {
        let (corr, body) = (frame.corr, &frame.body);
        Ok(match frame.kind {
            kinds::APPEND => {
                let append = Message::decode(&self.shelf.keep(frame.body))?;
                self.submit(corr, Op::Append(append))
            }
            kinds::READ => {
                let read: boki_log::op::Read = Message::decode(body)?;
                if read.wait.is_some() {
                    self.submit_waiting(corr, Op::Read(read))
                } else {
                    self.submit(corr, Op::Read(read))
                }
            }
            kinds::TAIL => self.submit(corr, Op::Tail(Message::decode(body)?)),
            kinds::TAGS => self.submit(corr, Op::Tags(Message::decode(body)?)),
            kinds::SET_AUX => {
                let set_aux = Message::decode(&self.shelf.keep(frame.body))?;
                self.submit(corr, Op::SetAux(set_aux))
            }
            kinds::CALL => {
                let call = Message::decode(&self.shelf.keep(frame.body))?;
                self.call(corr, call)?
            }
            kinds::CALL_WAIT => {
                let wait = CallWait::decode(body)?;
                self.call_wait(corr, wait)?
            }
            kinds::FUNCTION_LIST => {
                let functions = self.shared.functions.list().iter().map(function_is).collect();
                FunctionsAre { functions }.push(&self.outbox, corr);
                Asked::Yes
            }
            kind => return self.ask_catalog(corr, kind, body),
        })
    }

    fn ask_catalog(&mut self, corr: u64, kind: u8, body: &Bytes) -> Result<Asked, LogError> {
        let node = self.shared.node.clone();
        Ok(match kind {
            kinds::BOOK_OPEN => {
                let BookOpen { name } = Message::decode(body)?;
                self.answer_later(corr, async move { node.book(&name).await.map(book_is) })
            }
            kinds::BOOK_CREATE => {
                let BookCreate { name } = Message::decode(body)?;
                self.answer_later(corr, async move { node.create_book(&name).await.map(book_is) })
            }
            kinds::BOOK_REMOVE => {
                let BookRemove { name } = Message::decode(body)?;
                self.answer_later(corr, async move { node.remove_book(&name).await.map(|()| BookRemoved) })
            }
            kinds::BOOK_LIST => self.answer_later(corr, async move {
                let books = node.books().await?;
                Ok::<_, LogError>(BooksAre { books: books.into_iter().map(book_is).collect() })
            }),
            kind => Asked::UnknownKind(kind),
        })
    }

    fn submit(&mut self, corr: u64, op: Op) -> Asked {
        self.open.in_flight.fetch_add(1, Ordering::Relaxed);
        self.gathered.push((corr, op));
        Asked::Yes
    }

    fn submit_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.shared.node.submit_all(&mut self.gathered, &self.replies);
        }
    }

    fn submit_waiting(&mut self, corr: u64, op: Op) -> Asked {
        // Operations reach the log in the order of their frames.
        self.submit_gathered();
        match self.open.given_up.lock().entry(corr) {
            Entry::Occupied(_) => return Asked::OpenAlready,
            // Before it is submitted: the answer may come before its name does.
            Entry::Vacant(entry) => entry.insert(GiveUp::NotYet),
        };
        self.open.in_flight.fetch_add(1, Ordering::Relaxed);
        let op = self.shared.node.submit(op, &self.waiting_replies, corr);
        if let Some(give_up) = self.open.given_up.lock().get_mut(&corr) {
            *give_up = GiveUp::Read(op);
        }
        Asked::Yes
    }

    fn call(&self, corr: u64, call: boki_wire::Call) -> Result<Asked, LogError> {
        let book = self.book_of_call(call.book)?;
        let functions = self.shared.functions.clone();
        let detached = call.detached;
        let call = Call {
            function: call.function.into(),
            input: call.input.into(),
            http: None,
            content_type: call.content_type.into(),
            book,
            position: call.position,
            idempotency_key: call.idempotency_key.map(Into::into),
            deadline: call.deadline,
            priority: call.priority,
            limit_key: call.limit_key.map(Into::into),
            parent: self.worker.as_ref().and_then(|worker| worker.parent(call.parent)),
        };
        Ok(if detached {
            self.answer_later(corr, async move {
                functions.send(call).await.map(|sent| CallAccepted { call: sent.id, position: sent.position })
            })
        } else {
            self.answer_later(corr, async move { functions.call_whole(call).await.map(call_result) })
        })
    }

    fn call_wait(&self, corr: u64, wait: CallWait) -> Result<Asked, LogError> {
        let book = self.book_of_call(wait.book)?;
        let functions = self.shared.functions.clone();
        Ok(self.spawn(corr, async move {
            let result = functions.whole_result(book, wait.call, wait.wait).await;
            move |outbox: &Outbox| match result {
                Ok(Some(reply)) => call_result(reply).push(outbox, corr),
                Ok(None) => CallPending.push(outbox, corr),
                Err(error) => ErrorReply::from(&error).push(outbox, corr),
            }
        }))
    }

    /// No call works in the catalog: its number stands for the default book.
    fn book_of_call(&self, book: BookId) -> Result<BookId, LogError> {
        if book == BookId::CATALOG { Ok(self.shared.node.find_book(DEFAULT_BOOK)?.id) } else { Ok(book) }
    }

    fn answer_later<M, E>(&self, corr: u64, result: impl Future<Output = Result<M, E>> + Send + 'static) -> Asked
    where
        M: Message + Send,
        E: Send,
        for<'e> ErrorReply: From<&'e E>,
    {
        self.spawn(corr, async move {
            let result = result.await;
            move |outbox: &Outbox| match result {
                Ok(message) => message.push(outbox, corr),
                Err(error) => ErrorReply::from(&error).push(outbox, corr),
            }
        })
    }

    /// Answers by a task of its own, which ends with the connection or when it is given up.
    fn spawn<F: FnOnce(&Outbox)>(&self, corr: u64, answer: impl Future<Output = F> + Send + 'static) -> Asked {
        // Held while the task starts, so that it cannot end before it can be given up.
        let mut given_up = self.open.given_up.lock();
        let Entry::Vacant(entry) = given_up.entry(corr) else { return Asked::OpenAlready };
        self.open.in_flight.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&self.open);
        let task = tokio::spawn(async move {
            let push = answer.await;
            if open.given_up.lock().remove(&corr).is_some() {
                push(&open.outbox);
                open.in_flight.fetch_sub(1, Ordering::Release);
                open.outbox.flush();
            }
        });
        entry.insert(GiveUp::Task(task.abort_handle()));
        Asked::Yes
    }

    fn give_up(&self, corr: u64) {
        let Some(give_up) = self.open.given_up.lock().remove(&corr) else { return };
        self.end(give_up);
        self.open.in_flight.fetch_sub(1, Ordering::Release);
    }

    fn end(&self, give_up: GiveUp) {
        match give_up {
            GiveUp::NotYet => {}
            GiveUp::Read(op) => self.shared.node.cancel(op),
            GiveUp::Task(task) => task.abort(),
        }
    }

    fn worker_frame(&mut self, role: Role, frame: &Frame) -> Result<(), WireError> {
        if role != Role::Worker {
            return violation("a worker's message from a client");
        }
        if let Some(worker) = &mut self.worker {
            return worker.on_frame(frame).map_err(|error| WireError::Protocol { reason: error.to_string() });
        }
        if frame.kind != worker::REGISTER {
            return violation("a worker's message before it has registered");
        }
        let register =
            Register::decode(&frame.body).map_err(|error| WireError::Protocol { reason: error.to_string() })?;
        match self.shared.functions.attach_worker(register, frame.corr, self.outbox.clone()) {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => ErrorReply::from(&error).push(&self.outbox, frame.corr),
        }
        Ok(())
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        let given_up = std::mem::take(&mut *self.open.given_up.lock());
        for give_up in given_up.into_values() {
            self.end(give_up);
        }
    }
}

/// What became of a question.
enum Asked {
    /// It has been answered, or will be.
    Yes,
    UnknownKind(u8),
    OpenAlready,
}

fn violation<T>(reason: &str) -> Result<T, WireError> {
    Err(WireError::Protocol { reason: reason.to_owned() })
}

fn book_is(book: Book) -> BookIs {
    BookIs { id: book.id, created_us: book.created_us, name: book.name }
}

fn call_result(reply: CallReply<Bytes>) -> CallResult {
    CallResult {
        call: reply.id,
        position: reply.position,
        attempts: reply.attempts,
        content_type: reply.content_type.to_string(),
        output: reply.output,
    }
}

fn function_is(function: &FunctionInfo) -> FunctionIs {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    FunctionIs {
        name: function.name.to_string(),
        description: function.description.to_string(),
        workers: count(function.workers),
        running: count(function.running),
        queued: count(function.queued),
        max_attempts: function.max_attempts,
        timeout_ms: u64::try_from(function.timeout.as_millis()).unwrap_or(u64::MAX),
    }
}
