//! Inputs and outputs that come piece by piece.
#![allow(clippy::unwrap_used)]

mod common;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use boki_functions::{Body, BodyError, BodyStream, Call, CallError, CallReply, FunctionsConfig, HttpHead};
use boki_log::{Position, Seq};
use boki_net::Frame;
use boki_wire::Message;
use boki_wire::worker::*;
use bytes::Bytes;
use common::*;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const WINDOW: usize = STREAM_WINDOW as usize;

/// An input whose pieces a test gives one by one; it has ended when the sender is gone.
struct Pieces(mpsc::UnboundedReceiver<Result<Bytes, BodyError>>);

impl futures_util::Stream for Pieces {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.0.poll_recv(cx)
    }
}

type Sender = mpsc::UnboundedSender<Result<Bytes, BodyError>>;

fn pieces() -> (Sender, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::Stream(BodyStream::new(Pieces(receiver))))
}

fn piece(len: usize) -> Bytes {
    Bytes::from(vec![b'x'; len])
}

/// A worker of the function `f`, which takes streams, and of `plain`, which does not.
async fn streaming_worker(engine: &Engine) -> Worker {
    let mut register = register("streams", 4, &["f", "plain"]);
    register.functions[0].streams_input = true;
    Worker::connect(&engine.functions, register).await
}

fn call(engine: &Engine, call: Call) -> JoinHandle<Result<CallReply, CallError>> {
    let functions = engine.functions.clone();
    tokio::spawn(async move { functions.call(call).await })
}

fn head(status: u16) -> OutputHead {
    OutputHead { status, content_type: "text/plain".into(), headers: vec![("etag".into(), "1".into())] }
}

fn data(bytes: Bytes) -> OutputData {
    OutputData { bytes }
}

fn stream(reply: CallReply) -> BodyStream {
    match reply.output {
        Body::Stream(stream) => stream,
        Body::Whole(bytes) => panic!("not a stream: {bytes:?}"),
    }
}

async fn next(stream: &mut BodyStream) -> Result<Bytes, BodyError> {
    tokio::time::timeout(LONG, stream.next()).await.unwrap().unwrap()
}

async fn cancelled(worker: &mut Worker, given: &Given) {
    loop {
        let frame = worker.frame().await;
        if frame.kind == INVOKE_CANCEL {
            assert_eq!(frame.corr, given.corr);
            return;
        }
    }
}

/// The next piece of an input, skipping nothing.
fn input_of(frame: &Frame) -> InvokeInput {
    assert_eq!(frame.kind, INVOKE_INPUT, "{frame:?}");
    InvokeInput::decode(&frame.body).unwrap()
}

/// Takes input until `bytes` of it have come.
async fn take_input(worker: &mut Worker, bytes: usize) {
    let mut taken = 0;
    while taken < bytes {
        let input = input_of(&worker.frame().await);
        assert!(!input.last && input.bytes.len() <= MAX_PIECE_BYTES);
        taken += input.bytes.len();
    }
    assert_eq!(taken, bytes);
}

#[tokio::test]
async fn an_output_is_passed_on_piece_by_piece_under_credit() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let called = call(&engine, engine.call("f", "in"));
    let given = worker.given().await;
    assert_eq!((given.input.as_str(), given.more_input), ("in", false));
    worker.send(given.corr, &head(201));
    let reply = called.await.unwrap().unwrap();
    let sent = reply.head.as_ref().unwrap();
    assert_eq!((sent.status, &*reply.content_type, sent.headers[0].1.as_str()), (201, "text/plain", "1"));
    let mut output = stream(reply);
    for byte in [b'1', b'2', b'3'] {
        // Each is read before the next is made.
        worker.send(given.corr, &data(Bytes::from(vec![byte; 30_000])));
        assert_eq!(next(&mut output).await.unwrap(), vec![byte; 30_000]);
    }
    let frame = worker.frame().await;
    assert_eq!((frame.kind, frame.corr), (OUTPUT_CREDIT, given.corr));
    assert_eq!(OutputCredit::decode(&frame.body).unwrap().bytes, 90_000);
    assert_eq!(engine.functions.status().streams, 1);
    worker.succeed(&given, "last");
    assert_eq!(next(&mut output).await.unwrap(), "last");
    assert!(output.next().await.is_none());
    drop(output);
    assert_eq!((engine.functions.status().streams, engine.functions.status().running), (0, 0));
}

#[tokio::test]
async fn a_slow_reader_slows_the_worker_and_costs_no_more_than_the_window() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let called = call(&engine, engine.call("f", ""));
    let given = worker.given().await;
    worker.send(given.corr, &head(0));
    let mut output = stream(called.await.unwrap().unwrap());
    // A worker that obeys its credit, and a reader that takes one piece at a time.
    let (mut credit, mut sent, mut read, total) = (WINDOW, 0, 0, 16 * WINDOW);
    while read < total {
        while sent < total && credit >= MAX_PIECE_BYTES {
            worker.send(given.corr, &data(piece(MAX_PIECE_BYTES)));
            sent += MAX_PIECE_BYTES;
            credit -= MAX_PIECE_BYTES;
        }
        assert!(sent - read <= WINDOW);
        let taken = next(&mut output).await.unwrap();
        read += taken.len();
        if sent < total {
            let frame = worker.frame().await;
            assert_eq!(frame.kind, OUTPUT_CREDIT);
            credit += OutputCredit::decode(&frame.body).unwrap().bytes as usize;
        }
    }
    worker.succeed(&given, "");
    assert!(output.next().await.is_none());
    let peak = engine.functions.status().stream_peak_bytes as usize;
    assert!((MAX_PIECE_BYTES..=WINDOW).contains(&peak), "{peak}");
}

#[tokio::test]
async fn one_who_wants_the_whole_gets_it_with_the_position_of_the_end() {
    let engine = Engine::start(FunctionsConfig { payload_bytes: 10, ..config() }).await;
    let mut worker = streaming_worker(&engine).await;
    let called = engine.spawn(engine.call("f", ""));
    let given = worker.given().await;
    worker.send(given.corr, &head(0));
    worker.send(given.corr, &data(Bytes::from_static(b"first ")));
    worker.succeed_at(&given, "last", Position(Seq(9)));
    let reply = called.await.unwrap().unwrap();
    assert_eq!((text(&reply.output), reply.position), ("first last", Position(Seq(9))));
    let called = engine.spawn(engine.call("f", ""));
    let given = worker.given().await;
    worker.send(given.corr, &head(0));
    worker.send(given.corr, &data(piece(11)));
    let error = called.await.unwrap().unwrap_err();
    assert_eq!(error, CallError::PayloadTooLarge { what: "output", actual: 11, limit: 10 });
    cancelled(&mut worker, &given).await;
}

#[tokio::test]
async fn the_deadline_holds_until_the_output_begins_or_for_one_who_wants_it_whole() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let second = Duration::from_secs(1);
    // Before time stands still: the book's name is in the log.
    let called = engine.spawn(engine.call("f", ""));
    let given = worker.given().await;
    worker.succeed(&given, "");
    called.await.unwrap().unwrap();
    tokio::time::pause();
    let called = call(&engine, Call { deadline: Some(second), ..engine.call("f", "") });
    let given = worker.given().await;
    worker.send(given.corr, &head(0));
    let mut output = stream(called.await.unwrap().unwrap());
    tokio::time::advance(60 * second).await;
    worker.send(given.corr, &data(Bytes::from_static(b"later")));
    assert_eq!(output.next().await.unwrap().unwrap(), "later");
    let called = engine.spawn(Call { deadline: Some(second), ..engine.call("f", "") });
    let other = worker.given().await;
    worker.send(other.corr, &head(0));
    worker.send(other.corr, &data(Bytes::from_static(b"a beginning")));
    let error = called.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
    cancelled(&mut worker, &other).await;
}

#[tokio::test]
async fn whoever_lets_go_of_an_output_gives_the_call_up() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let called = call(&engine, engine.call("f", ""));
    let given = worker.given().await;
    worker.send(given.corr, &head(0));
    let output = stream(called.await.unwrap().unwrap());
    worker.send(given.corr, &data(piece(10)));
    drop(output);
    cancelled(&mut worker, &given).await;
    // It may have sent more before it heard, and answers in any case.
    worker.send(given.corr, &data(piece(10)));
    worker.succeed(&given, "");
    let called = engine.spawn(engine.call("f", ""));
    let given = worker.given().await;
    worker.succeed(&given, "well");
    assert_eq!(text(&called.await.unwrap().unwrap().output), "well");
}

#[tokio::test]
async fn a_head_for_a_call_that_was_given_up_is_no_offence() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let called = call(&engine, engine.call("f", ""));
    let given = worker.given().await;
    called.abort();
    cancelled(&mut worker, &given).await;
    worker.send(given.corr, &head(0));
    worker.send(given.corr, &data(piece(10)));
    worker.succeed(&given, "");
    let called = engine.spawn(engine.call("f", ""));
    let given = worker.given().await;
    worker.succeed(&given, "well");
    assert_eq!(text(&called.await.unwrap().unwrap().output), "well");
}

#[tokio::test]
async fn an_output_whose_worker_is_lost_ends_with_an_error_and_is_not_tried_again() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let mut other = streaming_worker(&engine).await;
    let called = call(&engine, engine.call("f", ""));
    let (worker, given, other_gets) = tokio::select! {
        given = worker.given() => (worker, given, &mut other),
        given = other.given() => (other, given, &mut worker),
    };
    worker.send(given.corr, &head(0));
    worker.send(given.corr, &data(Bytes::from_static(b"begin")));
    let mut output = stream(called.await.unwrap().unwrap());
    assert_eq!(next(&mut output).await.unwrap(), "begin");
    worker.crash();
    let error = next(&mut output).await.unwrap_err();
    assert_eq!(
        error,
        BodyError::Call(Box::new(CallError::WorkerLost { function: arc("f"), attempts: 1, reason: arc("") }))
    );
    assert!(output.next().await.is_none());
    // The next thing that the other worker gets is another call.
    let called = engine.spawn(engine.call("f", "another"));
    let given = other_gets.given().await;
    assert_eq!((given.input.as_str(), given.attempt), ("another", 1));
    other_gets.succeed(&given, "");
    called.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failure_breaks_an_output_off() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let called = call(&engine, engine.call("f", ""));
    let given = worker.given().await;
    worker.send(given.corr, &head(0));
    worker.fail(&given, "no more", true);
    let mut output = stream(called.await.unwrap().unwrap());
    let error = next(&mut output).await.unwrap_err();
    let BodyError::Call(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code(), "BK0402");
}

#[tokio::test]
async fn a_worker_that_breaks_the_rules_of_streams_costs_its_own_calls_only() {
    let engine = Engine::start(config()).await;
    let mut sound = engine.worker(4, &["sound"]).await;
    let undisturbed = engine.spawn(engine.call("sound", ""));
    let sound_given = sound.given().await;
    type Offence = fn(&Worker, &Given);
    let offences: [(&str, Offence); 6] = [
        ("a piece without a head", |worker, given| worker.send(given.corr, &data(piece(1)))),
        ("two heads", |worker, given| {
            worker.send(given.corr, &head(0));
            worker.send(given.corr, &head(0));
        }),
        ("more than its credit", |worker, given| {
            worker.send(given.corr, &head(0));
            for _ in 0..5 {
                worker.send(given.corr, &data(piece(MAX_PIECE_BYTES)));
            }
        }),
        ("a piece too large", |worker, given| {
            worker.send(given.corr, &head(0));
            worker.send(given.corr, &data(piece(MAX_PIECE_BYTES + 1)));
        }),
        ("data behind the end", |worker, given| {
            worker.send(given.corr, &head(0));
            worker.succeed(given, "");
            worker.send(given.corr, &data(piece(1)));
        }),
        ("a head for nothing", |worker, _| worker.send(99, &head(0))),
    ];
    for (what, offence) in offences {
        let mut worker = streaming_worker(&engine).await;
        let called = call(&engine, Call { deadline: Some(LONG), ..engine.call("f", "") });
        let given = worker.given().await;
        offence(&worker, &given);
        while let Some(frame) = worker.maybe_frame().await {
            assert!(matches!(frame.kind, OUTPUT_CREDIT | INVOKE_CANCEL), "{what}: {frame:?}");
        }
        called.abort();
    }
    sound.succeed(&sound_given, "undisturbed");
    assert_eq!(text(&undisturbed.await.unwrap().unwrap().output), "undisturbed");
}

#[tokio::test]
async fn an_input_is_passed_on_as_the_worker_takes_it() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let (sender, input) = pieces();
    let called = call(&engine, Call { input, ..engine.call("f", "") });
    let given = worker.given().await;
    assert!(given.more_input && given.input.is_empty());
    sender.send(Ok(Bytes::from_static(b"first"))).unwrap();
    assert_eq!(input_of(&worker.frame().await).bytes, "first");
    sender.send(Ok(piece(2 * WINDOW))).unwrap();
    drop(sender);
    take_input(&mut worker, WINDOW - 5).await;
    // No more comes before there is credit: the next frame is the answer to this.
    worker.send(given.corr, &InputCredit { bytes: 10 });
    assert_eq!(input_of(&worker.frame().await).bytes.len(), 10);
    worker.send(given.corr, &InputCredit { bytes: STREAM_WINDOW });
    take_input(&mut worker, WINDOW - 5).await;
    let last = input_of(&worker.frame().await);
    assert!(last.last && last.bytes.is_empty());
    worker.succeed(&given, "thanks");
    let reply = called.await.unwrap().unwrap().whole(100).await.unwrap();
    assert_eq!(reply.output, "thanks");
}

#[tokio::test]
async fn input_and_output_go_at_the_same_time() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let (sender, input) = pieces();
    let called = call(&engine, Call { input, ..engine.call("f", "") });
    let given = worker.given().await;
    worker.send(given.corr, &head(0));
    let mut output = stream(called.await.unwrap().unwrap());
    for text in ["one", "two"] {
        sender.send(Ok(Bytes::from_static(text.as_bytes()))).unwrap();
        let piece = input_of(&worker.frame().await).bytes;
        worker.send(given.corr, &data(piece));
        assert_eq!(next(&mut output).await.unwrap(), text);
    }
    // A function may end without having taken everything: the rest of the input is let go.
    worker.succeed(&given, "");
    assert!(output.next().await.is_none());
    sender.closed().await;
}

#[tokio::test]
async fn a_function_that_takes_no_streams_gets_its_input_whole() {
    let engine = Engine::start(FunctionsConfig { payload_bytes: 10, ..config() }).await;
    let mut worker = streaming_worker(&engine).await;
    let (sender, input) = pieces();
    let called = call(&engine, Call { input, ..engine.call("plain", "") });
    sender.send(Ok(Bytes::from_static(b"one "))).unwrap();
    sender.send(Ok(Bytes::from_static(b"two"))).unwrap();
    drop(sender);
    let given = worker.given().await;
    assert_eq!((given.input.as_str(), given.more_input), ("one two", false));
    worker.succeed(&given, "");
    called.await.unwrap().unwrap();

    let (sender, input) = pieces();
    sender.send(Ok(piece(11))).unwrap();
    let error = engine.functions.call(Call { input, ..engine.call("plain", "") }).await.unwrap_err();
    assert_eq!(error, CallError::PayloadTooLarge { what: "input", actual: 11, limit: 10 });
    let (sender, input) = pieces();
    sender.send(Err(BodyError::CutShort)).unwrap();
    let error = engine.functions.call(Call { input, ..engine.call("plain", "") }).await.unwrap_err();
    assert_eq!((error.code(), error), ("BK0420", CallError::BodyCutShort { what: "input" }));
    tokio::time::pause();
    let (_sender, input) = pieces();
    let error = engine.functions.call(Call { input, ..engine.call("plain", "") }).await.unwrap_err();
    assert_eq!((error.code(), error), ("BK0422", CallError::InputTooSlow { function: arc("plain") }));
    let (sender, input) = pieces();
    let error = engine.functions.call(Call { input, ..engine.call("nobody", "") }).await.unwrap_err();
    assert_eq!(error, CallError::FunctionNotFound { function: arc("nobody") });
    sender.closed().await;
}

#[tokio::test]
async fn a_call_is_tried_again_only_as_long_as_its_input_is_there() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let (sender, input) = pieces();
    let called = call(&engine, Call { input, ..engine.call("f", "") });
    assert_eq!(worker.given().await.attempt, 1);
    worker.crash();
    let mut worker = streaming_worker(&engine).await;
    assert_eq!(worker.given().await.attempt, 2);
    sender.send(Ok(Bytes::from_static(b"gone"))).unwrap();
    assert_eq!(input_of(&worker.frame().await).bytes, "gone");
    worker.crash();
    let error = called.await.unwrap().unwrap_err();
    assert_eq!((error.code(), error), ("BK0421", CallError::InputGone { function: arc("f") }));

    let mut worker = streaming_worker(&engine).await;
    let (sender, input) = pieces();
    let called = call(&engine, Call { input, ..engine.call("f", "") });
    let given = worker.given().await;
    sender.send(Ok(Bytes::from_static(b"gone"))).unwrap();
    assert_eq!(input_of(&worker.frame().await).bytes, "gone");
    worker.fail(&given, "try again", true);
    assert_eq!(called.await.unwrap().unwrap_err().code(), "BK0402");
}

#[tokio::test]
async fn an_input_that_breaks_off_gives_the_call_up() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let (sender, input) = pieces();
    let called = call(&engine, Call { input, ..engine.call("f", "") });
    let given = worker.given().await;
    sender.send(Ok(Bytes::from_static(b"begin"))).unwrap();
    sender.send(Err(BodyError::CutShort)).unwrap();
    assert_eq!(called.await.unwrap().unwrap_err(), CallError::BodyCutShort { what: "input" });
    cancelled(&mut worker, &given).await;
    // The same when the output has begun.
    let (sender, input) = pieces();
    let called = call(&engine, Call { input, ..engine.call("f", "") });
    let given = worker.given().await;
    worker.send(given.corr, &head(0));
    let mut output = stream(called.await.unwrap().unwrap());
    sender.send(Err(BodyError::CutShort)).unwrap();
    let error = next(&mut output).await.unwrap_err();
    assert_eq!(error, BodyError::Call(Box::new(CallError::BodyCutShort { what: "input" })));
    cancelled(&mut worker, &given).await;
}

#[tokio::test]
async fn streams_have_the_grace_of_a_shutdown_and_are_cut_then() {
    for keeps_on in [false, true] {
        let engine = Engine::start(config()).await;
        let mut worker = streaming_worker(&engine).await;
        let called = call(&engine, engine.call("f", ""));
        let given = worker.given().await;
        worker.send(given.corr, &head(0));
        let mut output = stream(called.await.unwrap().unwrap());
        let functions = engine.functions.clone();
        let grace = if keeps_on { Duration::ZERO } else { LONG };
        let stopping = tokio::spawn(async move { functions.shutdown(grace).await });
        if keeps_on {
            let error = next(&mut output).await.unwrap_err();
            assert_eq!(error, BodyError::Call(Box::new(CallError::ShuttingDown)));
            cancelled(&mut worker, &given).await;
        } else {
            assert_eq!(worker.frame().await.kind, DRAIN);
            worker.succeed(&given, "to the end");
            assert_eq!(next(&mut output).await.unwrap(), "to the end");
            assert!(output.next().await.is_none());
        }
        stopping.await.unwrap();
    }
}

#[tokio::test]
async fn a_function_sees_the_http_request_that_its_call_came_by() {
    let engine = Engine::start(config()).await;
    let mut worker = streaming_worker(&engine).await;
    let http = HttpHead::new("PUT", "/a%20b", "q=1", [("cookie", "a=1")]);
    let called = call(&engine, Call { http: Some(http.clone()), ..engine.call("plain", "") });
    let given = worker.given().await;
    assert_eq!(given.http, Some(http.clone()));
    worker.succeed(&given, "");
    called.await.unwrap().unwrap();
    // A call on record may be repeated by another request: it runs without one.
    let called = call(&engine, Call { http: Some(http), ..engine.keyed("plain", "", "k") });
    let given = worker.given().await;
    assert_eq!(given.http, None);
    worker.send(given.corr, &head(201));
    worker.succeed(&given, "output");
    let reply = called.await.unwrap().unwrap();
    assert!(reply.head.is_none());
    assert_eq!(&*reply.content_type, "text/plain");
    assert_eq!(reply.whole(100).await.unwrap().output, "output");
}
