//! An engine on a log in a temporary directory, and workers that the tests play themselves, frame by frame.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use boki_functions::{Call, Functions, FunctionsConfig, Parent, WorkerLink};
use boki_log::batch::{BatchBuilder, ReservedTags};
use boki_log::op::{Ack, Append};
use boki_log::{BookId, Position, Seq};
use boki_net::{Close, Config, Connection, Frame, FrameSink, Outbox};
use boki_node::{Durability, Node, NodeConfig};
use boki_wire::Message;
use boki_wire::calls::DEFAULT_PRIORITY;
use boki_wire::error::ErrorReply;
use boki_wire::worker::*;
use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Nothing in these tests takes long: whatever waits longer than this waits for ever.
pub const LONG: Duration = Duration::from_secs(20);

pub struct Engine {
    pub functions: Functions,
    pub node: Node,
    pub book: BookId,
    pub data: TempDir,
}

pub fn config() -> FunctionsConfig {
    FunctionsConfig {
        retry_pause: Duration::from_millis(1),
        retry_pause_max: Duration::from_millis(2),
        restart_pause: Duration::from_millis(1),
        restart_pause_max: Duration::from_millis(20),
        ..FunctionsConfig::default()
    }
}

fn open(data: &TempDir, durability: Durability) -> Node {
    let segment_bytes = if durability == Durability::Fsync { 1 << 20 } else { 64 << 20 };
    Node::open(NodeConfig { segment_bytes, durability, ..NodeConfig::new(data.path()) }).unwrap()
}

impl Engine {
    pub async fn start(config: FunctionsConfig) -> Engine {
        Engine::start_with(config, Durability::Fsync).await
    }

    /// Whose log survives the end of the process only: for very many calls.
    pub async fn start_in_memory(config: FunctionsConfig) -> Engine {
        Engine::start_with(config, Durability::Memory).await
    }

    async fn start_with(config: FunctionsConfig, durability: Durability) -> Engine {
        let data = tempfile::tempdir().unwrap();
        let node = open(&data, durability);
        let book = node.create_book("orders").await.unwrap().id;
        let functions = Functions::new(node.clone(), config);
        functions.recover().await.unwrap();
        Engine { functions, node, book, data }
    }

    /// The process ends, hard, and another one opens the same log. Returns it with the number of calls that it resumed.
    pub async fn restart(self, config: FunctionsConfig) -> (Engine, usize) {
        self.restart_with(config, Durability::Fsync).await
    }

    pub async fn restart_in_memory(self, config: FunctionsConfig) -> (Engine, usize) {
        self.restart_with(config, Durability::Memory).await
    }

    async fn restart_with(self, config: FunctionsConfig, durability: Durability) -> (Engine, usize) {
        self.functions.shutdown(Duration::ZERO).await;
        self.node.shutdown().await;
        let Engine { functions, node, book, data } = self;
        drop((functions, node));
        let node = open(&data, durability);
        let functions = Functions::new(node.clone(), config);
        let resumed = functions.recover().await.unwrap();
        (Engine { functions, node, book, data }, resumed)
    }

    pub fn call(&self, function: &str, input: &str) -> Call {
        Call {
            function: function.into(),
            input: Bytes::copy_from_slice(input.as_bytes()).into(),
            content_type: "text/plain".into(),
            http: None,
            book: self.book,
            position: Position::START,
            idempotency_key: None,
            deadline: Some(LONG),
            priority: DEFAULT_PRIORITY,
            limit_key: None,
            parent: None,
        }
    }

    pub fn keyed(&self, function: &str, input: &str, key: &str) -> Call {
        Call { idempotency_key: Some(key.into()), ..self.call(function, input) }
    }

    /// Appends a record and returns its seq.
    pub async fn append(&self) -> Seq {
        let batch = BatchBuilder::new(self.book).record(vec![], &b"x"[..]).build().unwrap();
        let append = Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused };
        self.node.append(append).await.unwrap().seq.unwrap()
    }

    /// Calls in the background.
    pub fn spawn(
        &self,
        call: Call,
    ) -> tokio::task::JoinHandle<Result<boki_functions::CallReply<Bytes>, boki_functions::CallError>> {
        let functions = self.functions.clone();
        tokio::spawn(async move { functions.call_whole(call).await })
    }

    pub async fn worker(&self, concurrency: u32, functions: &[&str]) -> Worker {
        Worker::connect(&self.functions, register("test", concurrency, functions)).await
    }
}

pub fn register(name: &str, concurrency: u32, functions: &[&str]) -> Register {
    let spec = |name: &&str| FunctionSpec {
        name: (*name).into(),
        description: String::new(),
        max_attempts: 0,
        timeout_ms: 0,
        streams_input: false,
    };
    let functions = functions.iter().map(spec).collect();
    Register { worker: name.into(), process: String::new(), version: String::new(), concurrency, pid: 0, functions }
}

/// The engine's end of a worker's connection, as a server has it.
struct EngineEnd {
    functions: Functions,
    outbox: Outbox,
    /// Gone once the connection has ended.
    link: Arc<Mutex<Option<WorkerLink>>>,
}

impl FrameSink for EngineEnd {
    type Error = ();

    fn frame(&mut self, frame: Frame) -> Result<(), ()> {
        let mut link = self.link.lock();
        if let Some(link) = &mut *link {
            return link.on_frame(&frame).map_err(|_| ());
        }
        let register = Register::decode(&frame.body).map_err(|_| ())?;
        match self.functions.attach_worker(register, frame.corr, self.outbox.clone()) {
            Ok(attached) => *link = Some(attached),
            Err(error) => ErrorReply::from(&error).push(&self.outbox, frame.corr),
        }
        Ok(())
    }
}

/// The engine takes a connection. Returns its end of the link, which is gone once the connection has ended.
pub fn engine_end(functions: &Functions, near: tokio::io::DuplexStream) -> Arc<Mutex<Option<WorkerLink>>> {
    let outbox = Outbox::new(64 << 20);
    let link = Arc::new(Mutex::default());
    let mut engine_end = EngineEnd { functions: functions.clone(), outbox: outbox.clone(), link: Arc::clone(&link) };
    tokio::spawn(async move {
        let mut connection = Connection::accepted(near, outbox, Config::accepting());
        let _ = connection.run(&mut engine_end).await;
        engine_end.link.lock().take();
    });
    link
}

/// A worker that a test plays.
pub struct Worker {
    pub outbox: Outbox,
    link: Arc<Mutex<Option<WorkerLink>>>,
    frames: mpsc::UnboundedReceiver<Frame>,
}

/// A call that a worker was given.
#[derive(Debug)]
pub struct Given {
    pub corr: u64,
    pub call: CallId,
    pub attempt: u32,
    pub deadline_ms: u32,
    pub position: Position,
    pub function: String,
    pub book_name: String,
    pub input: String,
    pub more_input: bool,
    pub http: Option<HttpHead>,
}

impl Worker {
    /// Connects and registers; the engine's answer is the first frame.
    pub fn open(functions: &Functions, register: &Register) -> Worker {
        let (near, far) = tokio::io::duplex(64 << 10);
        let link = engine_end(functions, near);
        let outbox = Outbox::new(64 << 20);
        let (sender, frames) = mpsc::unbounded_channel();
        let mut connection = Connection::opened(far, outbox.clone(), Config::opening());
        tokio::spawn(async move {
            let mut sink = |frame: Frame| sender.send(frame).map_err(|_| ());
            let _ = connection.run(&mut sink).await;
        });
        register.push(&outbox, 77);
        outbox.flush();
        Worker { outbox, link, frames }
    }

    pub async fn connect(functions: &Functions, register: Register) -> Worker {
        let mut worker = Worker::open(functions, &register);
        let frame = worker.frame().await;
        assert_eq!((frame.kind, frame.corr), (REGISTERED, 77));
        worker
    }

    /// What a call names that this worker makes in the attempt `corr`.
    pub fn parent(&self, corr: u64) -> Option<Parent> {
        self.link.lock().as_ref()?.parent(corr)
    }

    /// The next frame; panics if the connection has ended.
    pub async fn frame(&mut self) -> Frame {
        self.maybe_frame().await.expect("the engine ended the connection")
    }

    /// `None`: the connection has ended.
    pub async fn maybe_frame(&mut self) -> Option<Frame> {
        tokio::time::timeout(LONG, self.frames.recv()).await.expect("no frame came")
    }

    /// The next call.
    pub async fn given(&mut self) -> Given {
        let frame = self.frame().await;
        assert_eq!(frame.kind, INVOKE, "{frame:?}");
        let invoke = Invoke::decode(&frame.body).unwrap();
        Given {
            corr: frame.corr,
            call: invoke.call,
            attempt: invoke.attempt,
            deadline_ms: invoke.deadline_ms,
            position: invoke.position,
            function: invoke.function.into(),
            book_name: invoke.book_name.into(),
            input: String::from_utf8(invoke.input.to_vec()).unwrap(),
            more_input: invoke.more_input,
            http: invoke.http,
        }
    }

    pub fn send<M: Message>(&self, corr: u64, message: &M) {
        message.push(&self.outbox, corr);
        self.outbox.flush();
    }

    pub fn succeed(&self, given: &Given, output: &str) {
        self.succeed_at(given, output, Position::START);
    }

    pub fn succeed_at(&self, given: &Given, output: &str, position: Position) {
        let output = Bytes::copy_from_slice(output.as_bytes());
        let outcome = Outcome::Ok { content_type: "text/plain".into(), output };
        self.send(given.corr, &InvokeDone { position, outcome });
    }

    pub fn fail(&self, given: &Given, message: &str, retryable: bool) {
        let outcome = Outcome::Err { code: "oops".into(), message: message.into(), retryable };
        self.send(given.corr, &InvokeDone { position: Position::START, outcome });
    }

    /// The worker crashes.
    pub fn crash(self) {
        self.outbox.close(Close::Now);
    }

    /// A round trip: everything sent before has been taken in by the engine. `given` is a call that has an answer
    /// already, so this one is ignored.
    pub async fn settled(functions: &Functions, wanted: impl Fn(&Functions) -> bool) {
        tokio::time::timeout(LONG, async {
            while !wanted(functions) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the engine never came to be so");
    }
}

pub fn text(output: &Bytes) -> &str {
    std::str::from_utf8(output).unwrap()
}

pub fn arc(text: &str) -> Arc<str> {
    text.into()
}
