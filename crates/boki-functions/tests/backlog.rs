//! Calls on record wait in the log, not in memory, and take their turns in order, whatever happens meanwhile.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use boki_functions::{Call, CallError, FunctionsConfig};
use boki_wire::worker::*;
use common::*;

/// More than may be out of one lane.
const MANY: usize = 200;

/// Has `count` calls sent at once; their inputs are their numbers, from `first`.
async fn send(engine: &Engine, first: usize, count: usize) -> Vec<CallId> {
    let mut sends = Vec::with_capacity(count);
    for number in first..first + count {
        let functions = engine.functions.clone();
        let call = Call { deadline: None, ..engine.call("hold", &number.to_string()) };
        sends.push(tokio::spawn(async move { functions.send(call).await.unwrap().id }));
    }
    let mut ids = Vec::with_capacity(count);
    for send in sends {
        ids.push(send.await.unwrap());
    }
    ids
}

/// Lets a worker that takes 20 calls at once run those from `next` on, up to `end`.
async fn consume(engine: &Engine, worker: &mut Worker, ids: &[CallId], next: usize, end: usize) {
    let mut held = Vec::new();
    for (next, id) in ids.iter().enumerate().take(end).skip(next) {
        let given = worker.given().await;
        assert_eq!((given.input.parse(), given.call), (Ok(next), *id));
        held.push(given);
        if held.len() == 20 || next + 1 == end {
            held.drain(..).for_each(|given| worker.succeed(&given, ""));
        }
        if next % 1000 == 0 {
            let status = engine.functions.status();
            assert!(status.queued <= 32, "{} are in memory", status.queued);
        }
    }
}

#[tokio::test]
async fn a_hundred_thousand_sends_run_in_order_once_each_across_a_restart() {
    const COUNT: usize = 100_000;
    let engine = Engine::start_in_memory(config()).await;
    let mut worker = engine.worker(20, &["hold"]).await;
    let ids = send(&engine, 0, COUNT).await;
    let status = engine.functions.status();
    assert_eq!(status.backlog + status.queued + status.running, COUNT);
    assert!(status.queued <= 32, "{} are in memory", status.queued);
    consume(&engine, &mut worker, &ids, 0, COUNT / 2).await;
    // Some run when the engine ends, and others may have ended without having that on record.
    let (engine, resumed) = engine.restart_in_memory(config()).await;
    assert!(resumed >= COUNT / 2, "{resumed} are left");
    let backlog = engine.functions.status().backlog;
    assert!(backlog + 32 >= resumed, "of {resumed}, {backlog} wait in the log");
    let mut worker = engine.worker(20, &["hold"]).await;
    consume(&engine, &mut worker, &ids, COUNT - resumed, COUNT).await;
    for id in [ids[0], ids[COUNT / 2], ids[COUNT - 1]] {
        assert!(engine.functions.result(engine.book, id, Some(LONG)).await.unwrap().is_some());
    }
    let ended = |functions: &boki_functions::Functions| functions.status().running == 0;
    Worker::settled(&engine.functions, ended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lanes_take_turns_side_by_side_and_each_in_its_own_order() {
    let engine = Engine::start(config()).await;
    // Nobody takes calls of "slow"; it keeps those of "fast" from nothing.
    let mut idle = engine.worker(1, &["slow"]).await;
    let mut worker = engine.worker(2, &["fast"]).await;
    for number in 0..MANY {
        let text = number.to_string();
        engine.functions.send(engine.call("slow", &text)).await.unwrap();
        for key in ["ada", "bob"] {
            let call = Call { limit_key: Some(arc(key)), ..engine.call("fast", &format!("{key} {text}")) };
            engine.functions.send(call).await.unwrap();
        }
    }
    let held = idle.given().await;
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..2 * MANY {
        let given = worker.given().await;
        let (key, number) = given.input.split_once(' ').unwrap();
        let next = next.entry(key.to_owned()).or_default();
        assert_eq!(number.parse(), Ok(*next));
        *next += 1;
        worker.succeed(&given, "");
    }
    assert_eq!(held.input, "0");
}

#[tokio::test]
async fn a_call_that_waits_can_be_asked_for_and_joined() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    send(&engine, 0, MANY).await;
    let sent = engine.functions.send(engine.keyed("hold", "last", "k")).await.unwrap();
    assert!(engine.functions.status().backlog > 0);
    assert!(engine.functions.result(engine.book, sent.id, None).await.unwrap().is_none());
    let joined = engine.spawn(engine.keyed("hold", "last", "k"));
    let other = engine.functions.call(engine.keyed("hold", "other", "k")).await.unwrap_err();
    assert_eq!(other.code(), "BK0407");
    let again = engine.functions.send(engine.keyed("hold", "last", "k")).await.unwrap();
    assert_eq!(again.id, sent.id);
    for number in 0..=MANY {
        let given = worker.given().await;
        let expected = if number == MANY { "last".to_owned() } else { number.to_string() };
        assert_eq!(given.input, expected);
        worker.succeed(&given, "done");
    }
    assert_eq!(text(&joined.await.unwrap().unwrap().output), "done");
    assert_eq!(engine.functions.status().recorded, MANY as u64 + 1);
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_it_waits_ends_at_once_and_is_skipped() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let ids = send(&engine, 0, MANY).await;
    // One that runs, one that is out, one that waits in the log.
    let skipped = [0, 10, MANY - 2];
    let running = worker.given().await;
    for number in skipped {
        let waiter = {
            let (functions, book, id) = (engine.functions.clone(), engine.book, ids[number]);
            tokio::spawn(async move { functions.result(book, id, Some(LONG)).await })
        };
        assert!(engine.functions.cancel(engine.book, ids[number]).await.unwrap().is_none());
        assert_eq!(waiter.await.unwrap().unwrap_err(), CallError::Cancelled { id: ids[number] });
    }
    let frame = worker.frame().await;
    assert_eq!((frame.kind, frame.corr), (INVOKE_CANCEL, running.corr));
    worker.succeed(&running, "too late");
    for number in (0..MANY).filter(|number| !skipped.contains(number)) {
        let given = worker.given().await;
        assert_eq!(given.input, number.to_string());
        worker.succeed(&given, "");
    }
    Worker::settled(&engine.functions, |functions| {
        let status = functions.status();
        status.backlog + status.queued + status.running == 0
    })
    .await;
}

#[tokio::test]
async fn who_looks_at_a_call_whose_time_is_over_before_its_turn_finds_it_ended() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    send(&engine, 0, MANY).await;
    let short = Call { deadline: Some(std::time::Duration::from_millis(20)), ..engine.call("hold", "short") };
    let sent = engine.functions.send(short).await.unwrap();
    let error = engine.functions.result(engine.book, sent.id, Some(LONG)).await.unwrap_err();
    assert_eq!(error, CallError::DeadlineExceeded { function: arc("hold"), id: sent.id });
    for number in 0..MANY {
        let given = worker.given().await;
        assert_eq!(given.input, number.to_string());
        worker.succeed(&given, "");
    }
}

#[tokio::test]
async fn the_backlog_is_bounded_and_its_bound_another_than_that_of_calls_that_are_not_on_record() {
    let engine = Engine::start(FunctionsConfig { backlog_calls: MANY, queue_calls: 1, ..config() }).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let ids = send(&engine, 0, MANY).await;
    let refused = engine.functions.send(engine.call("hold", "")).await.unwrap_err();
    assert!(matches!(refused, CallError::Overloaded { limit, .. } if limit == MANY as u64), "{refused:?}");
    // One ends: there is room for one.
    let given = worker.given().await;
    worker.succeed(&given, "");
    engine.functions.result(engine.book, ids[0], Some(LONG)).await.unwrap();
    let mut sent = engine.functions.send(engine.call("hold", "")).await;
    while sent.is_err() {
        // Its end is told a moment before it is taken out of the count.
        tokio::task::yield_now().await;
        sent = engine.functions.send(engine.call("hold", "")).await;
    }
}

#[tokio::test]
async fn what_fails_over_and_over_does_not_fill_the_memory() {
    let slow = FunctionsConfig {
        retry_pause: std::time::Duration::from_secs(3600),
        retry_pause_max: std::time::Duration::from_secs(3600),
        ..config()
    };
    let engine = Engine::start(slow).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    send(&engine, 0, MANY).await;
    // Each fails and waits for its next attempt; when a window of them and the one that ran do, no more are tried.
    for _ in 0..33 {
        let given = worker.given().await;
        worker.fail(&given, "again", true);
    }
    Worker::settled(&engine.functions, |functions| functions.status().running == 0).await;
    let status = engine.functions.status();
    assert_eq!((status.backlog, status.queued), (MANY - 33, 0));
}
