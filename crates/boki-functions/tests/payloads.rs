//! Inputs and outputs of calls on record that are too large for a record: whole or not at all, and never anything else.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boki_functions::{Body, BodyError, BodyStream, Call, CallError, CallReply, Functions, FunctionsConfig};
use boki_log::op::{Consistency, Tail};
use boki_log::{Position, Seq, Tag};
use boki_wire::worker::*;
use bytes::Bytes;
use common::*;
use futures_util::stream;

const LARGE: usize = 300_000;

/// Bytes that are told from others.
fn bytes(seed: usize, len: usize) -> String {
    (0..len).map(|at| char::from(b'a' + ((at / 7 + at * seed) % 26) as u8)).collect()
}

/// The files of blobs.
fn blobs(engine: &Engine) -> Vec<PathBuf> {
    let files = std::fs::read_dir(engine.data.path().join("blob")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Waits until there are so many blobs.
async fn until_blobs(engine: &Engine, count: usize) {
    Worker::settled(&engine.functions, |_| blobs(engine).len() == count).await;
}

async fn whole(reply: CallReply) -> Bytes {
    reply.output.gather(usize::MAX).await.unwrap()
}

async fn result(engine: &Engine, id: CallId) -> CallReply {
    engine.functions.result(engine.book, id, Some(LONG)).await.unwrap().unwrap()
}

async fn streaming_worker(engine: &Engine) -> Worker {
    let mut register = register("streams", 4, &["f"]);
    register.functions[0].streams_input = true;
    Worker::connect(&engine.functions, register).await
}

/// Takes the whole input that is passed on to an attempt.
async fn take_input(worker: &mut Worker, given: &Given) -> Vec<u8> {
    let mut taken = given.input.clone().into_bytes();
    loop {
        let frame = worker.frame().await;
        assert_eq!((frame.kind, frame.corr), (INVOKE_INPUT, given.corr));
        let input = <InvokeInput as boki_wire::Message>::decode(&frame.body).unwrap();
        taken.extend_from_slice(&input.bytes);
        if input.last {
            return taken;
        }
        worker.send(given.corr, &InputCredit { bytes: input.bytes.len() as u32 });
    }
}

#[tokio::test]
async fn large_payloads_lie_beside_the_log_and_go_with_their_call() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let (input, output) = (bytes(1, LARGE), bytes(2, 2 * LARGE));
    let sent = engine.functions.send(engine.call("hold", &input)).await.unwrap();
    let given = worker.given().await;
    assert!(given.input == input && !given.more_input);
    assert_eq!(blobs(&engine).len(), 1);
    worker.succeed(&given, &output);
    let reply = result(&engine, sent.id).await;
    assert!(matches!(&reply.output, Body::Stream(stream) if stream.len() == Some(2 * LARGE as u64)));
    assert_eq!((reply.attempts, &*reply.content_type), (1, "text/plain"));
    assert!(whole(reply).await == output);
    let written: u64 = blobs(&engine).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!((blobs(&engine).len(), written > 3 * LARGE as u64), (2, true));
    assert!(engine.node.status().written_bytes < LARGE as u64, "the log has none of it");
    // After another start it is all there; once the call is forgotten, nothing of it.
    let (engine, _) = engine.restart(config()).await;
    assert!(whole(result(&engine, sent.id).await).await == output);
    let (engine, _) = engine.restart(FunctionsConfig { retention: Duration::ZERO, ..config() }).await;
    assert_eq!(blobs(&engine), Vec::<PathBuf>::new());
    let gone = engine.functions.result(engine.book, sent.id, None).await.unwrap_err();
    assert_eq!(gone, CallError::CallNotFound { id: sent.id });
}

#[tokio::test]
async fn a_call_with_a_large_input_runs_after_a_restart_and_its_key_knows_its_input() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let input = bytes(1, LARGE);
    let sent = engine.functions.send(engine.keyed("hold", &input, "k")).await.unwrap();
    worker.given().await;
    let again = engine.functions.send(engine.keyed("hold", &input, "k")).await.unwrap();
    assert_eq!(again.id, sent.id);
    let (engine, resumed) = engine.restart(config()).await;
    assert_eq!(resumed, 1);
    let other = engine.functions.send(engine.keyed("hold", &bytes(2, LARGE), "k")).await.unwrap_err();
    assert_eq!(other.code(), "BK0407");
    let joined = engine.spawn(engine.keyed("hold", &input, "k"));
    let mut worker = engine.worker(4, &["hold"]).await;
    let given = worker.given().await;
    assert!(given.input == input);
    worker.succeed(&given, "done");
    assert_eq!(joined.await.unwrap().unwrap().output, "done");
    // Of those who came too late, nothing is left.
    until_blobs(&engine, 1).await;
}

#[tokio::test]
async fn what_is_refused_leaves_no_blob() {
    let engine = Engine::start(FunctionsConfig { blob_bytes: 2 * LARGE as u64, ..config() }).await;
    let nobody = engine.functions.send(engine.call("hold", &bytes(1, LARGE))).await.unwrap_err();
    assert_eq!(nobody.code(), "BK0401");
    let _worker = engine.worker(4, &["hold"]).await;
    let large = engine.functions.send(engine.call("hold", &bytes(1, 2 * LARGE + 1))).await.unwrap_err();
    assert_eq!(
        large,
        CallError::PayloadTooLarge { what: "input", actual: 2 * LARGE as u64 + 1, limit: 2 * LARGE as u64 }
    );
    let pieces = [Ok(Bytes::from(bytes(1, LARGE))), Err(BodyError::CutShort)];
    let cut = Call { input: Body::Stream(BodyStream::new(stream::iter(pieces))), ..engine.call("hold", "") };
    assert_eq!(engine.functions.send(cut).await.unwrap_err(), CallError::BodyCutShort { what: "input" });
    until_blobs(&engine, 0).await;
    // Nor is a call on record without its input.
    std::fs::remove_dir(engine.data.path().join("blob")).unwrap();
    let unstored = engine.functions.send(engine.call("hold", &bytes(1, LARGE))).await.unwrap_err();
    assert_eq!(unstored.code(), "BK0418");
    let tag = Some(Tag::new("~calls").unwrap());
    let tail = Tail { book: engine.book, tag, consistency: Consistency::Linearizable };
    assert_eq!(engine.node.tail(tail).await.unwrap().seq, Seq::NONE);
}

#[tokio::test]
async fn a_result_that_finds_no_room_is_told_kept_and_recorded_once_there_is_some() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let ids = [
        engine.functions.send(engine.call("hold", "1")).await.unwrap().id,
        engine.functions.send(engine.call("hold", "2")).await.unwrap().id,
    ];
    let blob_dir = engine.data.path().join("blob");
    std::fs::remove_dir(&blob_dir).unwrap();
    let given = worker.given().await;
    worker.succeed(&given, &bytes(1, LARGE));
    let error = engine.functions.result(engine.book, ids[0], Some(LONG)).await.unwrap_err();
    assert_eq!(error.code(), "BK0418");
    // It has not run in vain: the result is there as soon as it can be written down.
    std::fs::create_dir(&blob_dir).unwrap();
    loop {
        match engine.functions.result(engine.book, ids[0], Some(LONG)).await {
            Ok(Some(reply)) => {
                assert!(reply.attempts == 1 && whole(reply).await == bytes(1, LARGE));
                break;
            }
            Err(error) if error.code() == "BK0418" => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
    let given = worker.given().await;
    assert_eq!(given.call, ids[1]);
}

#[tokio::test]
async fn a_function_that_takes_streams_gets_a_stream_in_every_attempt_from_its_beginning() {
    let engine = Engine::start(FunctionsConfig { payload_bytes: 100_000, ..config() }).await;
    let mut worker = streaming_worker(&engine).await;
    let input = bytes(3, 5 * LARGE);
    let parts: Vec<_> = input.as_bytes().chunks(9000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    let call = Call { input: Body::Stream(BodyStream::new(stream::iter(parts))), ..engine.call("f", "") };
    let sent = engine.functions.send(call).await.unwrap();
    let given = worker.given().await;
    assert!(given.more_input);
    // It takes some of it, and is lost.
    let frame = worker.frame().await;
    assert_eq!(frame.kind, INVOKE_INPUT);
    worker.crash();
    let mut worker = streaming_worker(&engine).await;
    let given = worker.given().await;
    assert_eq!((given.call, given.attempt), (sent.id, 2));
    assert!(take_input(&mut worker, &given).await == input.as_bytes());
    // It begins an output, and is lost again: nobody has seen any of that.
    worker.send(given.corr, &OutputHead { status: 200, content_type: "text/plain".into(), headers: Vec::new() });
    worker.send(given.corr, &OutputData { bytes: Bytes::from_static(b"half of") });
    Worker::settled(&engine.functions, |functions| functions.status().streams == 1).await;
    worker.crash();
    let mut worker = streaming_worker(&engine).await;
    let given = worker.given().await;
    assert!(take_input(&mut worker, &given).await == input.as_bytes());
    worker.send(given.corr, &OutputHead { status: 200, content_type: "text/plain".into(), headers: Vec::new() });
    for part in input.as_bytes().chunks(MAX_PIECE_BYTES) {
        let mut left = part.len();
        worker.send(given.corr, &OutputData { bytes: Bytes::copy_from_slice(part) });
        while left > 0 && part.len() == MAX_PIECE_BYTES {
            let frame = worker.frame().await;
            assert_eq!(frame.kind, OUTPUT_CREDIT);
            left -= <OutputCredit as boki_wire::Message>::decode(&frame.body).unwrap().bytes as usize;
        }
    }
    let own = engine.append().await;
    worker.succeed_at(&given, "", Position::after(own));
    let reply = result(&engine, sent.id).await;
    assert_eq!((reply.attempts, &*reply.content_type), (3, "text/plain"));
    assert!(reply.position >= Position::after(own));
    assert!(whole(reply).await == input);
}

#[tokio::test]
async fn damage_is_told_and_wrong_bytes_never_are() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let sent = engine.functions.send(engine.call("hold", "small")).await.unwrap();
    let given = worker.given().await;
    let waiting = engine.functions.send(engine.call("hold", &bytes(1, LARGE))).await.unwrap();
    let missing = engine.functions.send(engine.call("hold", &bytes(2, LARGE))).await.unwrap();
    let (engine, _) = {
        // All of it waits in the log now, with its input beside.
        let files = blobs(&engine);
        assert_eq!(files.len(), 2);
        drop(given);
        engine.restart(config()).await
    };
    let name = |id: CallId| format!("-{id}-");
    for file in blobs(&engine) {
        let path = file.to_string_lossy().into_owned();
        if path.contains(&name(waiting.id)) {
            flip(&file, 200_000);
        } else {
            assert!(path.contains(&name(missing.id)));
            std::fs::remove_file(&file).unwrap();
        }
    }
    let mut worker = engine.worker(1, &["hold"]).await;
    let given = worker.given().await;
    assert_eq!(given.call, sent.id);
    worker.succeed(&given, &bytes(4, LARGE));
    for id in [waiting.id, missing.id] {
        let error = engine.functions.result(engine.book, id, Some(LONG)).await.unwrap_err();
        assert!(matches!(error, CallError::PayloadDamaged { what: "input", .. }), "{error:?}");
        assert_eq!(error.code(), "BK0417");
    }
    let reply = result(&engine, sent.id).await;
    let output = blobs(&engine).into_iter().find(|file| file.to_string_lossy().contains(&name(sent.id))).unwrap();
    flip(&output, 200_000);
    let error = reply.output.gather(usize::MAX).await.unwrap_err();
    assert!(matches!(&error, BodyError::Call(error) if error.code() == "BK0417"), "{error:?}");
}

fn flip(file: &PathBuf, at: usize) {
    let mut contents = std::fs::read(file).unwrap();
    contents[at] ^= 1;
    std::fs::write(file, contents).unwrap();
}

#[tokio::test]
async fn blobs_that_no_record_names_go_at_the_start_and_the_others_stay() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let sent = engine.functions.send(engine.call("hold", &bytes(1, LARGE))).await.unwrap();
    let given = worker.given().await;
    worker.succeed(&given, &bytes(2, LARGE));
    result(&engine, sent.id).await;
    let named = blobs(&engine);
    // A crash before the record of such a call; one between the record of another end and the removal of this output; and
    // one of a book that is gone.
    let of = engine.node.blobs();
    let id = u128::from_be_bytes(sent.id.0);
    for (book, item, part) in [(engine.book, 7, 1), (engine.book, id, 2), (boki_log::BookId(99), id, 1)] {
        let mut sink = of.write(of.name(book, item, part)).await.unwrap();
        sink.write(Bytes::from_static(b"unnamed")).await.unwrap();
        sink.finish().await.unwrap();
    }
    assert_eq!(blobs(&engine).len(), 5);
    let (engine, _) = engine.restart(config()).await;
    until_blobs(&engine, 2).await;
    assert_eq!(blobs(&engine), named);
    assert!(whole(result(&engine, sent.id).await).await == bytes(2, LARGE));
    engine.node.remove_book("orders").await.unwrap();
    assert_eq!(blobs(&engine), Vec::<PathBuf>::new());
}

/// Bytes that are counted as long as they are in memory.
struct Counted {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn memory_is_flat_however_large_an_input_is() {
    const PIECE: usize = 50_000;
    const PIECES: usize = 1000;
    let engine = Engine::start_in_memory(config()).await;
    let _worker = streaming_worker(&engine).await;
    let (held, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let pieces = {
        let (held, peak) = (Arc::clone(&held), Arc::clone(&peak));
        stream::iter(0..PIECES).then_piece(move || {
            let now = held.fetch_add(PIECE, Ordering::SeqCst) + PIECE;
            peak.fetch_max(now, Ordering::SeqCst);
            Bytes::from_owner(Counted { bytes: vec![7; PIECE], held: Arc::clone(&held) })
        })
    };
    let call = Call { input: Body::Stream(BodyStream::new(pieces)), ..engine.call("f", "") };
    engine.functions.send(call).await.unwrap();
    let peak = peak.load(Ordering::SeqCst);
    assert!(peak < 1 << 20, "{peak} bytes at one time");
    let file = &blobs(&engine)[0];
    assert!(file.metadata().unwrap().len() > (PIECE * PIECES) as u64);
}

trait ThenPiece: futures_util::Stream + Sized {
    fn then_piece(
        self,
        mut piece: impl FnMut() -> Bytes + Send + 'static,
    ) -> impl futures_util::Stream<Item = Result<Bytes, BodyError>> {
        futures_util::StreamExt::map(self, move |_| Ok(piece()))
    }
}

impl<S: futures_util::Stream + Sized> ThenPiece for S {}

#[tokio::test]
async fn a_call_whose_function_takes_no_streams_has_its_input_bounded() {
    let engine = Engine::start(FunctionsConfig { payload_bytes: LARGE, ..config() }).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let refused = engine.functions.send(engine.call("hold", &bytes(1, LARGE + 1))).await.unwrap_err();
    assert_eq!(refused, CallError::PayloadTooLarge { what: "input", actual: LARGE as u64 + 1, limit: LARGE as u64 });
    engine.functions.send(engine.call("hold", &bytes(1, LARGE))).await.unwrap();
    let given = worker.given().await;
    assert_eq!(given.input.len(), LARGE);
    let settled = |functions: &Functions| functions.status().running == 1;
    Worker::settled(&engine.functions, settled).await;
}
