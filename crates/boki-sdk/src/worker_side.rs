//! The worker's end of its connection: takes calls in, runs them as tasks, answers each once.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use boki_net::{DEFAULT_MAX_BODY, Frame, Outbox};
use boki_wire::Message;
use boki_wire::worker::{self, Drain, Invoke, InvokeDone, InvokeInput, Outcome, OutputCredit, Register};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::book::Book;
use crate::client::Client;
use crate::cx::{Cx, Running};
use crate::deliver::{Last, deliver};
use crate::error::Error;
use crate::failure::Failure;
use crate::flow::{InputQueue, OutputCredits};
use crate::function::{Function, Input};
use crate::session::WorkerSide;

/// Of the registration: not a number that a client's question can have.
const REGISTRATION: u64 = 1;
/// How long a worker that ends waits for a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A larger output would cost the whole connection.
const MAX_OUTPUT_BYTES: usize = DEFAULT_MAX_BODY - 1024;
/// Of an input that comes piece by piece although its function takes none such: an older version of it did.
const MAX_INPUT_BYTES: usize = DEFAULT_MAX_BODY;
/// A failure's longer words are cut.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Where a worker stands with its server.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// There is no connection; the client is opening one.
    Disconnected,
    /// Registered, or about to be.
    Connected,
    /// The server sends no more calls.
    Draining,
    /// The server does not take this worker.
    Refused(Error),
}

/// See the module.
pub(crate) struct Side {
    register: Register,
    functions: BTreeMap<String, Arc<dyn Function>>,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    /// A call has ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    /// `None`: not yet, or not any more.
    client: Option<Client>,
    /// Calls that came before there was a client, and what has come of their inputs.
    early: Vec<(Frame, Outbox)>,
    outbox: Option<Outbox>,
    running: BTreeMap<u64, AbortHandle>,
    /// Those among them that get or send something piece by piece.
    flows: BTreeMap<u64, Flow>,
    finishing: bool,
}

impl State {
    /// Where the answer to a call goes that came before there was a client, and is not run yet.
    fn early_call(&self, corr: u64) -> Option<Outbox> {
        let call = self.early.iter().find(|(early, _)| early.corr == corr);
        call.map(|(_, outbox)| outbox.clone())
    }

    /// A piece of a call's input has come.
    fn feed(&self, frame: &Frame) {
        let input = self.flows.get(&frame.corr).and_then(|flow| flow.input.as_ref());
        // A message that cannot be read is left out like one of an unknown kind: the call's deadline ends it.
        if let (Some(input), Ok(piece)) = (input, InvokeInput::decode(&frame.body)) {
            input.push(piece.bytes, piece.last);
        }
    }
}

#[derive(Default)]
struct Flow {
    input: Option<InputQueue>,
    output: Option<OutputCredits>,
}

impl Side {
    pub(crate) fn new(
        name: String,
        process: String,
        concurrency: u32,
        functions: BTreeMap<String, Arc<dyn Function>>,
    ) -> Arc<Side> {
        let specs = functions.values().map(|function| function.spec()).collect();
        let pid = std::process::id();
        let version = std::env::var("BOKI_VERSION").unwrap_or_default();
        let register = Register { worker: name, process, version, concurrency, pid, functions: specs };
        let (phase, _) = watch::channel(Phase::Disconnected);
        Arc::new(Side { register, functions, state: Mutex::default(), phase, ended: Notify::new() })
    }

    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// From now on calls are run; their functions use `client`.
    pub(crate) fn start(self: &Arc<Side>, client: Client) {
        let mut state = self.state.lock();
        state.client = Some(client);
        for (frame, outbox) in std::mem::take(&mut state.early) {
            match frame.kind {
                worker::INVOKE_INPUT => state.feed(&frame),
                _ => self.invoke(&mut state, &frame, &outbox),
            }
            outbox.flush();
        }
    }

    /// Asks for no more calls, and finishes those there are.
    pub(crate) async fn finish(&self) {
        {
            let mut state = self.state.lock();
            state.finishing = true;
            if let Some(outbox) = &state.outbox {
                Drain.push(outbox, 0);
                outbox.flush();
            }
        }
        // The server says the same: no call is on its way any more.
        let drained = |phase: &Phase| !matches!(phase, Phase::Connected);
        let _ = timeout(PATIENCE, self.phases().wait_for(drained)).await;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.state.lock().running.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Ends the connection, once the last answers are written.
    pub(crate) async fn close(&self) {
        let client = self.state.lock().client.take();
        if let Some(client) = client {
            client.close();
            let gone = |phase: &Phase| matches!(phase, Phase::Disconnected);
            let _ = timeout(PATIENCE, self.phases().wait_for(gone)).await;
        }
    }

    fn invoke(self: &Arc<Side>, state: &mut State, frame: &Frame, outbox: &Outbox) {
        let refuse = |message: String| {
            let failure = Failure::new(message).code("not_run");
            done(&Err(failure), None).push(outbox, frame.corr);
        };
        let invoke = match Invoke::decode(&frame.body) {
            Ok(invoke) => invoke,
            Err(error) => return refuse(format!("the worker cannot read the call: {error}")),
        };
        let Some(function) = self.functions.get(invoke.function) else {
            return refuse(format!("the worker has no function {:?}", invoke.function));
        };
        let Some(client) = state.client.clone() else { return };
        let book = client.book_at(invoke.book, invoke.book_name, invoke.position);
        let deadline = match invoke.deadline_ms {
            0 => None,
            deadline_ms => Some(Instant::now() + Duration::from_millis(u64::from(deadline_ms))),
        };
        let cx = Cx(Arc::new(Running {
            call: invoke.call,
            corr: frame.corr,
            attempt: invoke.attempt,
            function: invoke.function.to_owned(),
            deadline,
            book: book.clone(),
            client,
            outbox: outbox.clone(),
            http: invoke.http.clone(),
            has_begun: AtomicBool::new(false),
        }));
        let rest = invoke.more_input.then(|| {
            let rest = InputQueue::new(outbox.clone(), frame.corr);
            state.flows.entry(frame.corr).or_default().input = Some(rest.clone());
            rest
        });
        let input = Input::new(invoke.input.clone(), invoke.content_type.to_owned(), invoke.http.clone(), rest);
        let answer = Answer { side: Arc::clone(self), outbox: outbox.clone(), corr: frame.corr, book, given: false };
        let function = Arc::clone(function);
        let side = Arc::clone(self);
        let task = tokio::spawn(async move { answer.give(guarded(side.run(&*function, cx, input)).await) });
        // Under the lock: the task takes itself out of here when it ends.
        state.running.insert(frame.corr, task.abort_handle());
    }

    /// Runs a function, and sends what it returns up to what goes with the answer.
    async fn run(&self, function: &dyn Function, cx: Cx, mut input: Input) -> Result<Last, Failure> {
        if input.is_stream() && !function.spec().streams_input {
            input = input.gathered(MAX_INPUT_BYTES).await?;
        }
        let output = function.run(cx.clone(), input).await?;
        let (outbox, corr) = (&cx.0.outbox, cx.0.corr);
        deliver(output, outbox, corr, || {
            cx.0.has_begun.store(true, Ordering::Relaxed);
            let credits = OutputCredits::new();
            self.state.lock().flows.entry(corr).or_default().output = Some(credits.clone());
            credits
        })
        .await
    }
}

impl WorkerSide for Arc<Side> {
    fn connected(&self, outbox: &Outbox) {
        let mut state = self.state.lock();
        if state.finishing {
            return;
        }
        state.outbox = Some(outbox.clone());
        self.register.push(outbox, REGISTRATION);
        drop(state);
        self.phase.send_replace(Phase::Connected);
    }

    fn frame(&self, frame: Frame) {
        match frame.kind {
            worker::INVOKE => {
                let mut state = self.state.lock();
                let Some(outbox) = state.outbox.clone() else { return };
                if state.client.is_none() && !state.finishing {
                    state.early.push((frame, outbox));
                } else {
                    self.invoke(&mut state, &frame, &outbox);
                }
            }
            worker::INVOKE_CANCEL => {
                let mut state = self.state.lock();
                if let Some(outbox) = state.early_call(frame.corr) {
                    state.early.retain(|(early, _)| early.corr != frame.corr);
                    done(&Err(cancelled()), None).push(&outbox, frame.corr);
                    return;
                }
                let task = state.running.get(&frame.corr).cloned();
                drop(state);
                if let Some(task) = task {
                    task.abort();
                }
            }
            worker::INVOKE_INPUT => {
                let mut state = self.state.lock();
                match state.early_call(frame.corr) {
                    Some(outbox) => state.early.push((frame, outbox)),
                    None => state.feed(&frame),
                }
            }
            worker::OUTPUT_CREDIT => {
                let output = self.state.lock().flows.get(&frame.corr).and_then(|flow| flow.output.clone());
                if let (Some(output), Ok(credit)) = (output, OutputCredit::decode(&frame.body)) {
                    output.add(credit.bytes);
                }
            }
            worker::DRAIN => {
                self.phase.send_replace(Phase::Draining);
            }
            _ => {}
        }
    }

    fn refused(&self, corr: u64, error: Error) {
        if corr == REGISTRATION {
            self.phase.send_replace(Phase::Refused(error));
        }
    }

    fn batch_end(&self) {}

    /// What runs is tried again elsewhere: nobody waits for it here.
    fn disconnected(&self) {
        let mut state = self.state.lock();
        state.outbox = None;
        state.early.clear();
        let running = std::mem::take(&mut state.running);
        let flows = std::mem::take(&mut state.flows);
        drop(state);
        for input in flows.into_values().filter_map(|flow| flow.input) {
            input.lose();
        }
        for task in running.into_values() {
            task.abort();
        }
        self.ended.notify_waiters();
        self.phase.send_replace(Phase::Disconnected);
    }
}

/// Runs a function; a panic becomes a failure.
async fn guarded(running: impl Future<Output = Result<Last, Failure>>) -> Result<Last, Failure> {
    let mut running = pin!(running);
    // The future is dropped after a panic, and what it shares with others is theirs to keep whole.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(panicked(&*panic))),
    })
    .await
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words");
    Failure::new(format_args!("the function panicked: {words}")).code("panic")
}

fn cancelled() -> Failure {
    Failure::new("the call was cancelled").code("cancelled")
}

/// The one answer to a call. Dropped without having been given, it says that the call was cancelled.
struct Answer {
    side: Arc<Side>,
    outbox: Outbox,
    corr: u64,
    book: Book,
    given: bool,
}

impl Answer {
    fn give(mut self, result: Result<Last, Failure>) {
        self.push(result);
    }

    fn push(&mut self, result: Result<Last, Failure>) {
        self.given = true;
        // First, so that the slot is free here before the engine knows that it is.
        {
            let mut state = self.side.state.lock();
            state.running.remove(&self.corr);
            if !state.flows.is_empty() {
                state.flows.remove(&self.corr);
            }
        }
        done(&result, Some(&self.book)).push(&self.outbox, self.corr);
        self.outbox.flush();
        self.side.ended.notify_waiters();
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            self.push(Err(cancelled()));
        }
    }
}

fn done(result: &Result<Last, Failure>, book: Option<&Book>) -> InvokeDone {
    let outcome = match result {
        Ok(last) if last.output.len() > MAX_OUTPUT_BYTES => Outcome::Err {
            code: "output_too_large".into(),
            message: format!("the output has {} bytes, at most {MAX_OUTPUT_BYTES} can travel", last.output.len()),
            retryable: false,
        },
        Ok(last) => Outcome::Ok { content_type: last.content_type.clone(), output: last.output.clone() },
        Err(failure) => Outcome::Err {
            code: failure.code.clone(),
            message: failure.message[..failure.message.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned(),
            retryable: failure.retryable,
        },
    };
    InvokeDone { position: book.map(Book::position).unwrap_or_default(), outcome }
}
