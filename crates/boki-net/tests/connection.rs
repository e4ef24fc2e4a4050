//! Connections over in-memory pipes: who is read when, who is woken, and how they end.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use boki_net::{Broken, Close, Closed, Config, Connection, Ended, Frame, FrameError, Outbox, PREAMBLE};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

fn frame(kind: u8, corr: u64, body: impl Into<Bytes>) -> Frame {
    Frame { kind, flags: 0, corr, body: body.into() }
}

fn accepted(pipe_bytes: usize, limit: usize, config: Config) -> (Connection<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(pipe_bytes);
    (Connection::accepted(near, Outbox::new(limit), config), far)
}

fn ignore(_: Frame) -> Result<(), Infallible> {
    Ok(())
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn frames_go_there_and_back_in_order() {
    let (near, far) = duplex(1000);
    let mut server = Connection::accepted(near, Outbox::new(1 << 20), Config::accepting());
    let server = tokio::spawn(async move {
        let outbox = server.outbox().clone();
        server
            .run(&mut |frame: Frame| {
                outbox.push_frame(&frame);
                Ok::<(), Infallible>(())
            })
            .await
    });
    let outbox = Outbox::new(1 << 20);
    let mut client = Connection::opened(far, outbox.clone(), Config::opening());
    for corr in 0..500 {
        outbox.push_frame(&frame(1, corr, vec![corr as u8; (corr * 7) as usize]));
    }
    let mut next = 0;
    let ended = client
        .run(&mut |answer: Frame| {
            assert_eq!(answer, frame(1, next, vec![next as u8; (next * 7) as usize]));
            next += 1;
            if next == 500 {
                outbox.close(Close::AfterWriting);
            }
            Ok::<(), Infallible>(())
        })
        .await
        .unwrap();
    assert_eq!(ended, Ended::Closed(Closed::Requested));
    drop(client);
    assert_eq!(server.await.unwrap().unwrap(), Ended::ByPeer);
    assert_eq!(outbox.unwritten(), 0);
}

#[tokio::test]
async fn a_push_wakes_nobody_and_a_flush_wakes_once() {
    let (mut connection, mut far) = accepted(1000, 1 << 20, Config::accepting());
    let outbox = connection.outbox().clone();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let mut sink = ignore;
    let mut run = pin!(connection.run(&mut sink));
    assert!(run.as_mut().poll(&mut cx).is_pending());
    outbox.flush();
    outbox.push_frame(&frame(1, 1, "a"));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    outbox.flush();
    outbox.push_frame(&frame(1, 2, "b"));
    outbox.flush();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    let mut both = [0; 50];
    far.read_exact(&mut both).await.unwrap();
}

#[tokio::test]
async fn a_thread_that_writes_itself_wakes_nobody() {
    let (mut connection, mut far) = accepted(1000, 1 << 20, Config::accepting());
    let outbox = connection.outbox().clone();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut sink = ignore;
    let mut run = pin!(connection.run(&mut sink));
    outbox.push_frame(&frame(1, 1, "before it runs"));
    outbox.write();
    assert_eq!(outbox.unwritten(), 24 + 14, "nobody has said yet who is to be woken");
    assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut first = [0; 24 + 14];
    far.read_exact(&mut first).await.unwrap();
    for corr in [2, 3] {
        outbox.push_frame(&frame(1, corr, "a"));
        outbox.write();
        let mut written = [0; 25];
        far.read_exact(&mut written).await.unwrap();
        assert_eq!(written[8], corr as u8);
    }
    assert_eq!((outbox.unwritten(), wakes.0.load(Ordering::SeqCst)), (0, 0));
    outbox.push_frame(&frame(1, 4, "a"));
    outbox.flush();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "the task still sleeps, and can be woken");
}

#[tokio::test]
async fn what_a_thread_cannot_write_at_once_the_task_writes() {
    let (mut connection, mut far) = accepted(100, 1 << 20, Config::accepting());
    let outbox = connection.outbox().clone();
    let mut sink = ignore;
    let mut run = pin!(connection.run(&mut sink));
    assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    outbox.push_frame(&frame(1, 1, vec![7; 1000]));
    outbox.write();
    assert_eq!(outbox.unwritten(), 1024 - 100);
    outbox.push_frame(&frame(1, 2, vec![8; 1000]));
    outbox.write();
    assert_eq!(outbox.unwritten(), 2048 - 100, "behind what waits for the peer");
    let read = async {
        let mut both = vec![0; 2048];
        far.read_exact(&mut both).await.unwrap();
        both
    };
    tokio::select! {
        both = read => assert_eq!((both[24], both[1023], both[1024 + 24], both[2047]), (7, 7, 8, 8)),
        _ = run => panic!("it goes on"),
    }
}

#[tokio::test]
async fn the_stream_ends_with_its_connection_although_the_outbox_lives() {
    let (connection, mut far) = accepted(100, 1 << 20, Config::accepting());
    let outbox = connection.outbox().clone();
    drop(connection);
    outbox.push_frame(&frame(1, 1, "too late"));
    outbox.write();
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

/// The task is awake while its sink runs and writes before it sleeps: to wake it would cost a thread its sleep.
#[tokio::test]
async fn an_answer_from_within_the_sink_wakes_nobody() {
    let (mut connection, mut far) = accepted(1000, 1 << 20, Config::accepting());
    let outbox = connection.outbox().clone();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let answers = outbox.clone();
    let mut sink = |question: Frame| {
        answers.push_frame(&question);
        answers.flush();
        Ok::<(), Infallible>(())
    };
    let mut run = pin!(connection.run(&mut sink));
    assert!(run.as_mut().poll(&mut cx).is_pending());
    let mut question = boki_net::FrameBuf::new();
    question.push_preamble();
    question.push_frame(&frame(1, 1, "question"));
    far.write_all(&question.into_bytes()).await.unwrap();
    let by_the_question = wakes.0.load(Ordering::SeqCst);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    assert_eq!(wakes.0.load(Ordering::SeqCst), by_the_question);
    let mut answer = [0; 24 + 8];
    far.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer[24..], b"question");
    // It sleeps again, so that whoever pushes next has to wake it.
    let before = wakes.0.load(Ordering::SeqCst);
    outbox.push_frame(&frame(1, 2, "more"));
    outbox.flush();
    assert_eq!(wakes.0.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_from() {
    let config = Config { high_water: 1000, ..Config::accepting() };
    let (mut connection, far) = accepted(100_000, 1 << 20, config);
    let outbox = connection.outbox().clone();
    // The pipe to the peer holds 100 kB; every question brings 10 kB of answers.
    let questions = Outbox::new(1 << 20);
    let mut peer = Connection::opened(far, questions.clone(), Config::opening());
    for corr in 0..200 {
        questions.push_frame(&frame(1, corr, ""));
    }
    peer.last_words().await;
    let handled = AtomicUsize::new(0);
    let mut sink = |_: Frame| {
        handled.fetch_add(1, Ordering::Relaxed);
        outbox.push(2, 0, |body| body.fields().extend_from_slice(&[0; 10_000]));
        Ok::<(), Infallible>(())
    };
    let mut run = pin!(connection.run(&mut sink));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        assert!(run.as_mut().poll(&mut cx).is_pending());
    }
    let stalled = handled.load(Ordering::Relaxed);
    assert!((10..15).contains(&stalled), "{stalled}");
    assert!(outbox.unwritten() < 20_000);
    // Once the peer reads again, everything is answered.
    let mut answers = 0;
    let mut sink = |_: Frame| {
        answers += 1;
        if answers == 200 {
            questions.close(Close::Now);
        }
        Ok::<(), Infallible>(())
    };
    tokio::select! {
        ended = peer.run(&mut sink) => assert_eq!(ended.unwrap(), Ended::Closed(Closed::Requested)),
        ended = run => panic!("{ended:?}"),
    }
    assert_eq!(answers, 200);
}

#[tokio::test]
async fn a_slow_reader_is_cut_off_at_the_limit() {
    let (mut connection, _far) = accepted(100, 10_000, Config::accepting());
    let outbox = connection.outbox().clone();
    let mut sink = ignore;
    let mut run = pin!(connection.run(&mut sink));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..9 {
        outbox.push_frame(&frame(1, 1, vec![0; 1000]));
        outbox.flush();
        assert!(run.as_mut().poll(&mut cx).is_pending());
    }
    let before = wakes.0.load(Ordering::SeqCst);
    outbox.push_frame(&frame(1, 1, vec![0; 1000]));
    assert_eq!(outbox.closed(), Some(Closed::SlowReader));
    assert!(wakes.0.load(Ordering::SeqCst) > before, "the task learns of it without a flush");
    let ended = match run.as_mut().poll(&mut cx) {
        Poll::Ready(ended) => ended.unwrap(),
        Poll::Pending => panic!("the connection goes on"),
    };
    assert_eq!(ended, Ended::Closed(Closed::SlowReader));
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_is_an_error() {
    for (len, whole) in [(PREAMBLE.len(), true), (PREAMBLE.len() + 5, false), (3, false)] {
        let (mut connection, mut far) = accepted(1000, 1000, Config::accepting());
        far.write_all(&[&PREAMBLE[..], &[0; 5]].concat()[..len]).await.unwrap();
        drop(far);
        match connection.run(&mut ignore).await {
            Ok(Ended::ByPeer) => assert!(whole),
            Err(Broken::Frame(FrameError::Truncated)) => assert!(!whole),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn last_words_reach_the_peer_after_a_refusal() {
    let (mut connection, mut far) = accepted(1000, 1000, Config::accepting());
    far.write_all(&[&PREAMBLE[..], &[0; 24]].concat()).await.unwrap();
    let outbox = connection.outbox().clone();
    let refused = connection.run(&mut |_: Frame| Err("no")).await;
    assert!(matches!(refused, Err(Broken::Refused("no"))));
    outbox.push_frame(&frame(5, 0, "bye"));
    connection.last_words().await;
    drop(connection);
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert!(heard.ends_with(b"bye"));
    assert_eq!(outbox.closed(), Some(Closed::Disconnected));
}

#[tokio::test]
async fn draining_writes_what_is_pushed_until_done() {
    let (mut connection, far) = accepted(50, 1 << 20, Config::accepting());
    let outbox = connection.outbox().clone();
    let left = AtomicUsize::new(3);
    let mut peer = Connection::opened(far, Outbox::new(1000), Config::opening());
    let answer = || {
        outbox.push_frame(&frame(1, 0, vec![0; 100]));
        left.fetch_sub(1, Ordering::SeqCst);
        outbox.flush();
    };
    answer();
    let mut heard = 0;
    let mut sink = |_: Frame| {
        heard += 1;
        if left.load(Ordering::SeqCst) > 0 {
            answer();
        }
        Ok::<(), Infallible>(())
    };
    let draining = async {
        connection.drain(|| left.load(Ordering::SeqCst) == 0).await.unwrap();
        drop(connection);
    };
    let (ended, ()) = tokio::join!(peer.run(&mut sink), draining);
    assert_eq!(ended.unwrap(), Ended::ByPeer);
    assert_eq!(heard, 3);
}

/// Many tasks that push one frame each, one after the other, as on a runtime's run queue.
#[tokio::test]
async fn a_burst_of_single_pushes_leaves_in_one_write() {
    let (near, mut far) = duplex(1000);
    let outbox = Outbox::new(1 << 20);
    let mut connection = Connection::opened(near, outbox.clone(), Config::opening());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let mut sink = ignore;
    let mut run = pin!(connection.run(&mut sink));
    let push = |corr| {
        outbox.push_frame(&frame(1, corr, ""));
        outbox.flush();
    };
    // It learns that there is much to write at one time.
    push(1);
    push(2);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    push(3);
    let before = wakes.0.load(Ordering::SeqCst);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    assert!(wakes.0.load(Ordering::SeqCst) > before, "it has itself polled again");
    assert_eq!(outbox.unwritten(), 24, "and has not written yet");
    push(4);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    assert_eq!(outbox.unwritten(), 0);
    let mut written = vec![0; PREAMBLE.len() + 4 * 24];
    far.read_exact(&mut written).await.unwrap();
}
