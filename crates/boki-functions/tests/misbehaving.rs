//! Workers that misbehave cost their own calls and nobody else's.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use boki_functions::{FunctionsConfig, LogRate};
use boki_net::{Config, Connection, Frame, Outbox};
use boki_wire::Message;
use boki_wire::worker::*;
use bytes::Bytes;
use common::*;

fn strict() -> FunctionsConfig {
    FunctionsConfig { cancel_grace: Duration::from_millis(20), reconnect_grace: Duration::ZERO, ..config() }
}

/// Nothing is wrong with the engine: a call of `hold` is answered by `worker`.
async fn serves(engine: &Engine, worker: &mut Worker) {
    let call = engine.spawn(engine.call("hold", ""));
    let given = worker.given().await;
    worker.succeed(&given, "fine");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "fine");
}

#[tokio::test]
async fn a_worker_that_does_not_answer_a_call_that_was_given_up_is_disconnected() {
    let engine = Engine::start(FunctionsConfig { cancel_grace: Duration::from_millis(20), ..config() }).await;
    let mut hanging = engine.worker(2, &["hold"]).await;
    let late = boki_functions::Call { deadline: Some(Duration::from_millis(1)), ..engine.call("hold", "") };
    let late = engine.spawn(late);
    hanging.given().await;
    // Another call of it goes elsewhere once it is disconnected.
    let other = engine.spawn(engine.call("hold", "other"));
    hanging.given().await;
    assert_eq!(late.await.unwrap().unwrap_err().code(), "BK0404");
    assert_eq!(hanging.frame().await.kind, INVOKE_CANCEL);
    while hanging.maybe_frame().await.is_some() {}
    assert_eq!(engine.functions.status().stuck, 1);
    let mut sound = engine.worker(2, &["hold"]).await;
    let given = sound.given().await;
    assert_eq!((given.attempt, &*given.input), (2, "other"));
    sound.succeed(&given, "done");
    assert_eq!(text(&other.await.unwrap().unwrap().output), "done");
    serves(&engine, &mut sound).await;
}

#[tokio::test]
async fn a_worker_that_answers_what_was_given_up_stays() {
    let engine = Engine::start(strict()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    for _ in 0..3 {
        let late = boki_functions::Call { deadline: Some(Duration::from_millis(1)), ..engine.call("hold", "") };
        let late = engine.spawn(late);
        let given = worker.given().await;
        assert_eq!(worker.frame().await.kind, INVOKE_CANCEL);
        worker.fail(&given, "cancelled", false);
        late.await.unwrap().unwrap_err();
        serves(&engine, &mut worker).await;
    }
    assert_eq!(engine.functions.status().stuck, 0);
    assert_eq!(engine.functions.workers().len(), 1);
}

#[tokio::test]
async fn answers_to_nothing_and_second_answers_are_counted_and_harm_nobody() {
    let engine = Engine::start(strict()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let call = engine.spawn(engine.call("hold", ""));
    let given = worker.given().await;
    for _ in 0..10 {
        worker.succeed(&given, "once");
    }
    worker.succeed(&Given { corr: 999, ..given }, "never asked");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "once");
    Worker::settled(&engine.functions, |functions| functions.status().stray_answers == 10).await;
    serves(&engine, &mut worker).await;
}

#[tokio::test]
async fn a_worker_that_answers_garbage_costs_its_calls_one_attempt() {
    let engine = Engine::start(strict()).await;
    let mut broken = engine.worker(1, &["hold"]).await;
    let call = engine.spawn(engine.call("hold", ""));
    let given = broken.given().await;
    let mut sound = engine.worker(1, &["hold"]).await;
    broken.outbox.push(INVOKE_DONE, given.corr, |body| body.put_shared(&Bytes::from_static(b"\x07garbage")));
    broken.outbox.flush();
    let given = sound.given().await;
    assert_eq!(given.attempt, 2);
    sound.succeed(&given, "done");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "done");
    assert!(broken.maybe_frame().await.is_none());
}

#[tokio::test]
async fn a_thousand_functions_of_a_worker_that_dies_leave_nothing() {
    let engine = Engine::start(strict()).await;
    let names: Vec<String> = (0..1000).map(|number| format!("f{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let worker = engine.worker(1, &names).await;
    assert_eq!(engine.functions.list().len(), 1000);
    worker.crash();
    Worker::settled(&engine.functions, |functions| functions.list().is_empty()).await;
    assert!(engine.functions.demand().is_empty());
}

#[tokio::test]
async fn a_thousand_workers_that_come_and_go_hold_nobody_up() {
    let engine = Engine::start(strict()).await;
    let mut sound = engine.worker(1, &["hold"]).await;
    for round in 0..100 {
        let name = format!("storm{round}");
        let registration = register("storm", 1, &[&name]);
        let workers: Vec<Worker> = (0..10).map(|_| Worker::open(&engine.functions, &registration)).collect();
        serves(&engine, &mut sound).await;
        for worker in workers {
            worker.crash();
        }
    }
    Worker::settled(&engine.functions, |functions| functions.workers().len() == 1).await;
    Worker::settled(&engine.functions, |functions| functions.list().len() == 1).await;
    serves(&engine, &mut sound).await;
}

#[tokio::test]
async fn a_worker_that_reads_nothing_gets_no_more_than_it_can_be_told() {
    let engine = Engine::start(FunctionsConfig { queue_bytes: 1 << 30, ..strict() }).await;
    // It registers, and then its connection is not polled any more.
    let (near, far) = tokio::io::duplex(64 << 10);
    let _end = engine_end(&engine.functions, near);
    let outbox = Outbox::new(64 << 20);
    let mut connection = Connection::opened(far, outbox.clone(), Config::opening());
    register("deaf", 60_000, &["hold"]).push(&outbox, 77);
    outbox.flush();
    let mut registered = 0;
    let mut sink = |_: Frame| {
        registered += 1;
        Err(())
    };
    let _ = connection.run(&mut sink).await;
    assert_eq!(registered, 1);

    let input = "x".repeat(100_000);
    let calls: Vec<_> = (0..200).map(|_| engine.spawn(engine.call("hold", &input))).collect();
    Worker::settled(&engine.functions, |functions| functions.status().queued > 100).await;
    // What does not fit waits, and goes to whoever reads.
    let mut sound = engine.worker(60_000, &["hold"]).await;
    for _ in 0..100 {
        let given = sound.given().await;
        sound.succeed(&given, "");
    }
    for call in calls {
        call.abort();
    }
    drop(connection);
}

#[tokio::test]
async fn a_worker_that_logs_without_end_keeps_nobody_elses_lines_out() {
    let rate = LogRate { lines: 10, bytes: 10_000 };
    let engine = Engine::start(FunctionsConfig { log_rate: rate, ..strict() }).await;
    let flooding = Worker::connect(&engine.functions, register("flood", 1, &["hold"])).await;
    let mut sound = Worker::connect(&engine.functions, register("sound", 1, &["other"])).await;
    let line = |text: &str| WorkerLog { call: None, level: Level::Info, line: text.into() };
    for number in 0..5000 {
        flooding.send(0, &line(&format!("line {number}")));
    }
    sound.send(0, &line("here"));
    let call = engine.spawn(engine.call("other", ""));
    let given = sound.given().await;
    sound.succeed(&given, "");
    call.await.unwrap().unwrap();
    flooding.crash();
    Worker::settled(&engine.functions, |functions| functions.workers().len() == 1).await;
    let lines = engine.functions.worker_logs("flood");
    let told: Vec<u64> = lines
        .iter()
        .filter_map(|line| line.line.strip_suffix(" lines dropped: it logs too much")?.parse().ok())
        .collect();
    let passed = (lines.len() - told.len()) as u64;
    assert_eq!(passed + told.iter().sum::<u64>(), 5000);
    assert_eq!(engine.functions.status().dropped_lines, 5000 - passed);
    assert!(passed < 1000, "{passed} lines passed");
    assert_eq!(engine.functions.worker_logs("sound").len(), 1);
}
