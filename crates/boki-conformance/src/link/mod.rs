//! Cases in which the suite plays the server: step by step, each frame in its hands.

mod describe;
mod peer;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use boki_log::batch::RecordBody;
use boki_log::op::{Appended, Records, TailReply};
use boki_log::{BookId, Position, Record, Seq};
use boki_wire::error::ErrorReply;
use boki_wire::worker::{
    self, CallId, Drain, HttpHead, InvokeDone, InvokeInput, MAX_PIECE_BYTES, Outcome, OutputCredit, OutputHead,
    Register, Registered, WorkerLog,
};
use boki_wire::{CallResult, HelloOk, Message, Ping, Pong, VERSION, kinds};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

pub use steps::LinkCase;

use crate::expect::Names;
use crate::process::{Start, WorkerProcess};
use describe::asked;
use peer::{PATIENCE, Peer, decode};
use steps::{Answer, Connect, Done, Invoke, Refusal, Step};

/// What the suite's server says of itself.
const MAX_IN_FLIGHT: u32 = 16_384;
const MAX_BODY: u32 = 32 << 20;
/// How a worker that "the server started" is told so.
const TOKEN: &str = "conformance-token";
const CODE_VERSION: &str = "v7";
/// A process that was asked to end may have this long.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
/// How many calls the worker under test takes at once.
pub(crate) const CONCURRENCY: u32 = 4;

/// Starts the worker once, and returns the names of the functions it offers.
pub(crate) async fn functions(command: &[String]) -> Result<BTreeSet<String>, String> {
    let mut run = Run::start(command, false).await?;
    let result = run.connect(&Connect::default()).await;
    let result = result.map(|register| register.functions.into_iter().map(|function| function.name).collect());
    run.with_output(result).await
}

/// Runs a case.
pub(crate) async fn run(case: &LinkCase, command: &[String]) -> Result<(), String> {
    let mut run = Run::start(command, case.started_by_server).await?;
    let mut result = Ok(());
    for (number, step) in case.steps.iter().enumerate() {
        if let Err(why) = run.step(step).await {
            result = Err(format!("step {}: {why}", number + 1));
            break;
        }
    }
    run.with_output(result).await
}

/// A case that runs.
struct Run {
    listener: TcpListener,
    process: WorkerProcess,
    started_by_server: bool,
    peer: Option<Peer>,
    /// The corr of each attempt of this connection, and of each question, by the name that the case gave it.
    attempts: BTreeMap<String, u64>,
    questions: BTreeMap<String, u64>,
    calls: BTreeMap<String, CallId>,
    invokes: u64,
    names: Names,
}

impl Run {
    async fn start(command: &[String], started_by_server: bool) -> Result<Run, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let url = listener.local_addr().map_err(|error| error.to_string())?.to_string();
        let as_started_by_server = started_by_server.then_some((TOKEN, CODE_VERSION));
        let process = WorkerProcess::start(&Start { command, url: &url, as_started_by_server })?;
        Ok(Run {
            listener,
            process,
            started_by_server,
            peer: None,
            attempts: BTreeMap::new(),
            questions: BTreeMap::new(),
            calls: BTreeMap::new(),
            invokes: 0,
            names: Names::default(),
        })
    }

    /// A failure says what the worker printed.
    async fn with_output<T>(mut self, result: Result<T, String>) -> Result<T, String> {
        match result {
            Ok(value) => Ok(value),
            Err(why) => {
                self.peer = None;
                let lines = self.process.last_lines().await;
                let lines: String = lines.iter().map(|line| format!("\n    | {line}")).collect();
                Err(format!("{why}{lines}"))
            }
        }
    }

    fn peer(&mut self) -> Result<&mut Peer, String> {
        self.peer.as_mut().ok_or_else(|| "the case has no connection at this step".to_owned())
    }

    fn corr(&self, label: &str) -> Result<u64, String> {
        self.attempts.get(label).copied().ok_or_else(|| format!("the case has no call {label:?} on this connection"))
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Connect(connect) => self.connect(connect).await.map(|_| ()),
            Step::Invoke(invoke) => self.invoke(invoke).await,
            Step::StreamInput { of, fill, bytes } => self.stream_input(of, *fill, *bytes).await,
            Step::Input { of, data, last } => {
                let (corr, bytes) = (self.corr(of)?, Bytes::from(data.bytes()?));
                self.input(corr, bytes, *last).await
            }
            Step::Cancel { of, reason } => {
                let corr = self.corr(of)?;
                self.raw_frame(worker::INVOKE_CANCEL, corr, vec![*reason]).await
            }
            Step::Credit { of, bytes } => {
                let (corr, peer) = (self.corr(of)?, self.peer()?);
                peer.gave_credit(corr, *bytes);
                peer.send(corr, &OutputCredit { bytes: *bytes }).await
            }
            Step::Drain {} => self.peer()?.send(0, &Drain).await,
            Step::Ping { corr } => self.peer()?.send(*corr, &Ping).await,
            Step::Frame { kind, corr, body } => self.raw_frame(*kind, *corr, body.bytes()?).await,
            Step::Raw(data) => self.peer()?.write(&data.bytes()?).await,
            Step::ByteByByte {} => {
                self.peer()?.byte_by_byte();
                Ok(())
            }
            Step::Together {} => {
                self.peer()?.together();
                Ok(())
            }
            Step::Apart {} => self.peer()?.apart().await,
            Step::Answer { to, with } => self.answer(to, with).await,
            Step::Cut {} => {
                self.peer = None;
                Ok(())
            }
            Step::Terminate {} => {
                self.process.terminate();
                Ok(())
            }
            Step::Done(done) => self.done(done).await,
            Step::Asks { label, kind, with } => self.asks(label, kind, with.as_ref()).await,
            Step::Pong { corr } => {
                let wanted = *corr;
                let pong =
                    self.peer()?.next(|frame| frame.kind == kinds::PONG && frame.corr == wanted, "a Pong").await?;
                decode::<Pong>(&pong).map(|_| ())
            }
            Step::Drained {} => {
                self.peer()?.next(|frame| frame.kind == worker::DRAIN, "a Drain (kind 70)").await.map(|_| ())
            }
            Step::Head { of, status, content_type, headers } => {
                self.head(of, *status, content_type.as_deref(), headers).await
            }
            Step::Output { of, bytes } => self.output(of, *bytes).await,
            Step::Log { of, line } => self.log(of, line).await,
            Step::Quiet {} => self.peer()?.quiet().await,
            Step::Closed {} => self.peer()?.closed().await,
            Step::Exits {} => self.process.ended(ENDS_WITHIN).await.map(|_| ()),
        }
    }

    async fn connect(&mut self, connect: &Connect) -> Result<Register, String> {
        self.attempts.clear();
        self.questions.clear();
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = match accepted {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("the worker does not connect within {PATIENCE:?}")),
        };
        // Bytes that are written apart arrive apart, most often.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let peer = self.peer.insert(Peer::new(stream));
        peer.hello().await?;
        if let Some(refusal) = &connect.refuse {
            peer.send(0, &error_of(refusal)).await?;
            self.peer = None;
            return Ok(nothing_registered());
        }
        if connect.byte_by_byte {
            peer.byte_by_byte();
        }
        let name = "conformance".to_owned();
        peer.send(0, &HelloOk { version: VERSION, max_in_flight: MAX_IN_FLIGHT, max_body: MAX_BODY, name }).await?;
        let (corr, register) = peer.register().await?;
        if let Some(refusal) = &connect.refuse_registration {
            return peer.send(corr, &error_of(refusal)).await.map(|()| register);
        }
        peer.send(corr, &Registered { worker_id: 1 }).await?;
        peer.apart().await?;
        let told = if self.started_by_server { (TOKEN, CODE_VERSION) } else { ("", "") };
        if (register.process.as_str(), register.version.as_str()) != told {
            return Err(format!(
                "it registers process {:?} and version {:?}, not {told:?} as in BOKI_WORKER and BOKI_VERSION",
                register.process, register.version
            ));
        }
        if register.worker.is_empty() || register.concurrency != CONCURRENCY {
            return Err(format!(
                "it registers as {:?} with concurrency {}; a name and {CONCURRENCY} are expected",
                register.worker, register.concurrency
            ));
        }
        Ok(register)
    }

    async fn invoke(&mut self, invoke: &Invoke) -> Result<(), String> {
        self.invokes += 1;
        // A number that no 32 bits hold, and that is not one more than the last.
        let corr = self.invokes << 33 | 5;
        let mut id = [0; 16];
        invoke.label.bytes().zip(&mut id).for_each(|(byte, place)| *place = byte);
        let http = invoke.http.as_ref().map(|http| {
            let headers = http.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            HttpHead::new(&http.method, &http.path, &http.query, headers)
        });
        let message = worker::Invoke {
            call: CallId(id),
            attempt: invoke.attempt,
            deadline_ms: invoke.deadline_ms,
            book: BookId(invoke.book),
            position: Position(Seq(invoke.position)),
            function: &invoke.function,
            book_name: &invoke.book_name,
            content_type: &invoke.content_type,
            http,
            input: invoke.input.as_ref().map_or(Ok(Vec::new()), |data| data.bytes())?.into(),
            more_input: invoke.more_input,
        };
        let mut buf = boki_net::FrameBuf::new();
        buf.push(worker::INVOKE, 0, corr, |body| message.write(body));
        self.attempts.insert(invoke.label.clone(), corr);
        self.calls.insert(invoke.label.clone(), CallId(id));
        let peer = self.peer()?;
        peer.begin(corr, &invoke.label);
        peer.write(&buf.into_bytes()).await
    }

    async fn stream_input(&mut self, of: &str, fill: u8, bytes: usize) -> Result<(), String> {
        let corr = self.corr(of)?;
        let mut left = bytes;
        loop {
            let room = usize::try_from(self.peer()?.input_room(corr)).unwrap_or(usize::MAX);
            let size = left.min(MAX_PIECE_BYTES).min(room);
            if size == 0 && left > 0 {
                let wanted = |frame: &boki_net::Frame| frame.kind == worker::INPUT_CREDIT && frame.corr == corr;
                self.peer()?.next(wanted, "an InputCredit (kind 72)").await?;
                continue;
            }
            left -= size;
            self.input(corr, vec![fill; size].into(), left == 0).await?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    async fn input(&mut self, corr: u64, bytes: Bytes, last: bool) -> Result<(), String> {
        let peer = self.peer()?;
        peer.sent_input(corr, bytes.len() as u64);
        peer.send(corr, &InvokeInput { last, bytes }).await
    }

    async fn raw_frame(&mut self, kind: u8, corr: u64, body: Vec<u8>) -> Result<(), String> {
        let mut buf = boki_net::FrameBuf::new();
        buf.push(kind, 0, corr, |writer| writer.put_shared(&body.into()));
        self.peer()?.write(&buf.into_bytes()).await
    }

    async fn answer(&mut self, to: &str, with: &Answer) -> Result<(), String> {
        let corr = self.questions.get(to).copied();
        let corr = corr.ok_or_else(|| format!("the case has no question {to:?} on this connection"))?;
        let position = |position: u64| Position(Seq(position));
        let peer = self.peer()?;
        match with {
            Answer::Appended { seq, position: at } => {
                let seq = Some(Seq(*seq));
                peer.send(corr, &Appended { seq, count: 1, repeated: false, position: position(*at) }).await
            }
            Answer::Records { position: at, records } => {
                let records = records.iter().map(record).collect::<Result<_, _>>()?;
                peer.send(corr, &Records { records, position: position(*at) }).await
            }
            Answer::Tail { seq, position: at } => {
                peer.send(corr, &TailReply { seq: Seq(*seq), position: position(*at) }).await
            }
            Answer::Result { position: at, output } => {
                let output = output.to_string().into();
                let content_type = "application/json".to_owned();
                let result =
                    CallResult { call: CallId([9; 16]), position: position(*at), attempts: 1, content_type, output };
                peer.send(corr, &result).await
            }
            Answer::Error(refusal) => peer.send(corr, &error_of(refusal)).await,
        }
    }

    async fn done(&mut self, expected: &Done) -> Result<(), String> {
        let corr = self.corr(&expected.of)?;
        let wanted = |frame: &boki_net::Frame| frame.kind == worker::INVOKE_DONE && frame.corr == corr;
        let frame = self.peer()?.next(wanted, &format!("the InvokeDone (kind 67) of {:?}", expected.of)).await?;
        let done = decode::<InvokeDone>(&frame)?;
        if let Some(position) = expected.position
            && done.position.0.0 != position
        {
            return Err(format!("expected the position {position} at the end, got {}", done.position.0.0));
        }
        match done.outcome {
            Outcome::Ok { content_type, output } => {
                if let Some(failure) = &expected.failure {
                    return Err(format!("expected a failure {failure}, got {}", shown(&output)));
                }
                if let Some(data) = &expected.output {
                    let wanted = data.bytes()?;
                    if output != wanted {
                        return Err(format!("expected the output {}, got {}", shown(&wanted), shown(&output)));
                    }
                }
                if let Some(wanted) = expected.content_type.as_ref().filter(|wanted| **wanted != content_type) {
                    return Err(format!("expected the content type {wanted:?}, got {content_type:?}"));
                }
                match &expected.json {
                    None => Ok(()),
                    Some(pattern) => {
                        let value: Value = serde_json::from_slice(&output)
                            .map_err(|error| format!("the output {} is not JSON: {error}", shown(&output)))?;
                        self.names.check(pattern, &value)
                    }
                }
            }
            Outcome::Err { code, message, retryable } => {
                let value = json!({ "code": code, "message": message, "retryable": retryable });
                match &expected.failure {
                    Some(pattern) => self.names.check(pattern, &value),
                    None if expected.output.is_some() || expected.json.is_some() => {
                        Err(format!("expected an output, got the failure {value}"))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    async fn asks(&mut self, label: &str, kind: &str, with: Option<&Value>) -> Result<(), String> {
        let peer = self.peer()?;
        let attempts = |_| None;
        let is_it = |frame: &boki_net::Frame| matches!(asked(frame, attempts), Ok(Some(asked)) if asked.kind == kind);
        let frame = peer.next(is_it, &format!("the question {kind:?}")).await?;
        let question = asked(&frame, |corr| peer.label(corr))?.ok_or("a question that does not read")?;
        self.questions.insert(label.to_owned(), frame.corr);
        match with {
            Some(pattern) => self.names.check(pattern, &question.fields),
            None => Ok(()),
        }
    }

    async fn head(
        &mut self,
        of: &str,
        status: Option<u16>,
        content_type: Option<&str>,
        headers: &[(String, String)],
    ) -> Result<(), String> {
        let corr = self.corr(of)?;
        let wanted = |frame: &boki_net::Frame| frame.kind == worker::OUTPUT_HEAD && frame.corr == corr;
        let frame = self.peer()?.next(wanted, "an OutputHead (kind 73)").await?;
        let head = decode::<OutputHead>(&frame)?;
        if status.is_some_and(|status| status != head.status) {
            return Err(format!("expected the status {status:?}, got {}", head.status));
        }
        if content_type.is_some_and(|content_type| content_type != head.content_type) {
            return Err(format!("expected the content type {content_type:?}, got {:?}", head.content_type));
        }
        match headers.iter().find(|header| !head.headers.contains(header)) {
            Some(missing) => Err(format!("expected the header {missing:?}, got {:?}", head.headers)),
            None => Ok(()),
        }
    }

    async fn output(&mut self, of: &str, bytes: usize) -> Result<(), String> {
        let corr = self.corr(of)?;
        let wanted = |frame: &boki_net::Frame| frame.kind == worker::OUTPUT_DATA && frame.corr == corr;
        let mut have = 0;
        while have < bytes {
            let what = format!("OutputData (kind 74): {have} of {bytes} bytes have come");
            have += self.peer()?.next(wanted, &what).await?.body.len();
        }
        if have == bytes { Ok(()) } else { Err(format!("expected {bytes} bytes of output, got {have}")) }
    }

    async fn log(&mut self, of: &str, line: &str) -> Result<(), String> {
        let call = self.calls.get(of).copied();
        let is_it = |frame: &boki_net::Frame| {
            frame.kind == worker::WORKER_LOG
                && WorkerLog::decode(&frame.body).is_ok_and(|log| log.call == call && log.line == line)
        };
        self.peer()?.next(is_it, &format!("the WorkerLog (kind 69) {line:?} of the call {of:?}")).await.map(|_| ())
    }
}

fn nothing_registered() -> Register {
    let (worker, process, version) = (String::new(), String::new(), String::new());
    Register { worker, process, version, concurrency: 0, pid: 0, functions: Vec::new() }
}

fn error_of(refusal: &Refusal) -> ErrorReply {
    let retry = if refusal.later { boki_sdk::Retry::Later } else { boki_sdk::Retry::Never };
    ErrorReply::new(&refusal.code, refusal.message.clone(), retry, refusal.details.clone())
}

fn record(record: &steps::Record) -> Result<Record, String> {
    let mut body = vec![u8::try_from(record.tags.len()).map_err(|error| error.to_string())?];
    for tag in &record.tags {
        body.push(u8::try_from(tag.len()).map_err(|error| error.to_string())?);
        body.extend_from_slice(tag.as_bytes());
    }
    body.extend_from_slice(record.data.as_bytes());
    let body = RecordBody::decode(body.into()).map_err(|error| error.to_string())?;
    Ok(Record { seq: Seq(record.seq), time_us: 1, body, aux: None })
}

/// The beginning of some bytes, for a failure's text.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
    if bytes.len() > 80 { format!("{text:?}... ({} bytes)", bytes.len()) } else { format!("{text:?}") }
}
