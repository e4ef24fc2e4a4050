//! Calls that are not on record: scheduling, attempts, deadlines, bounds.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use boki_functions::{CallError, FunctionsConfig};
use boki_log::{Position, Seq};
use boki_net::Frame;
use boki_wire::worker::*;
use bytes::Bytes;
use common::*;

#[tokio::test]
async fn a_call_goes_to_its_worker_and_comes_back() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let call = engine.spawn(engine.call("hold", "seat 4"));
    let given = worker.given().await;
    assert_eq!((&*given.function, &*given.input, &*given.book_name, given.attempt), ("hold", "seat 4", "orders", 1));
    assert!(given.deadline_ms > 0 && given.deadline_ms <= 20_000);
    worker.succeed(&given, "held");
    let reply = call.await.unwrap().unwrap();
    assert_eq!((text(&reply.output), &*reply.content_type, reply.attempts), ("held", "text/plain", 1));
    assert_eq!(reply.id, given.call);
    let status = engine.functions.status();
    assert_eq!((status.calls, status.failures, status.retries, status.running, status.queued), (1, 0, 0, 0, 0));
}

#[tokio::test]
async fn the_larger_of_both_positions_comes_back() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["f"]).await;
    for (callers, functions, expected) in [(10, 20, 20), (20, 10, 20)] {
        let call = boki_functions::Call { position: Position(Seq(callers)), ..engine.call("f", "") };
        let call = engine.spawn(call);
        let given = worker.given().await;
        assert_eq!(given.position, Position(Seq(callers)));
        worker.succeed_at(&given, "", Position(Seq(functions)));
        assert_eq!(call.await.unwrap().unwrap().position, Position(Seq(expected)));
    }
}

#[tokio::test]
async fn a_function_that_nobody_offers_is_not_found() {
    let engine = Engine::start(config()).await;
    let _worker = engine.worker(1, &["hold"]).await;
    let error = engine.functions.call_whole(engine.call("book", "")).await.unwrap_err();
    assert_eq!(error, CallError::FunctionNotFound { function: arc("book") });
    assert_eq!(error.code(), "BK0401");
    assert_eq!(engine.functions.list().len(), 1);
}

#[tokio::test]
async fn the_error_of_a_function_is_the_result_and_not_tried_again() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let call = engine.spawn(engine.call("hold", ""));
    let given = worker.given().await;
    let outcome = Outcome::Err { code: "sold_out".into(), message: "no seats".into(), retryable: false };
    worker.send(given.corr, &InvokeDone { position: Position(Seq(9)), outcome });
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.position(), Some(Position(Seq(9))));
    let CallError::FunctionFailed { code, message, attempts, .. } = error else { panic!("{error:?}") };
    assert_eq!((&*code, &*message, attempts), ("sold_out", "no seats", 1));
}

#[tokio::test]
async fn an_error_marked_retryable_is_tried_again_as_often_as_allowed() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let call = engine.spawn(engine.call("hold", ""));
    for attempt in 1..=3 {
        let given = worker.given().await;
        assert_eq!(given.attempt, attempt);
        worker.fail(&given, "busy", true);
    }
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::FunctionFailed { retryable: true, attempts: 3, .. }), "{error:?}");
    assert_eq!(engine.functions.status().retries, 2);
}

#[tokio::test]
async fn the_calls_of_a_lost_worker_are_tried_again_on_another() {
    let engine = Engine::start(config()).await;
    let mut first = engine.worker(10, &["hold"]).await;
    let calls = [engine.spawn(engine.call("hold", "a")), engine.spawn(engine.call("hold", "b"))];
    let id = first.given().await.call;
    first.given().await;
    let mut second = engine.worker(10, &["hold"]).await;
    first.crash();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let given = second.given().await;
        assert_eq!(given.attempt, 2);
        ids.push(given.call);
        second.succeed(&given, &given.input);
    }
    assert!(ids.contains(&id));
    let [a, b] = calls;
    let (a, b) = (a.await.unwrap().unwrap(), b.await.unwrap().unwrap());
    assert_eq!((text(&a.output), text(&b.output), a.attempts), ("a", "b", 2));
}

#[tokio::test]
async fn a_call_that_loses_every_worker_fails_in_the_end() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let call = engine.spawn(engine.call("hold", ""));
    for attempt in 1..=3 {
        assert_eq!(worker.given().await.attempt, attempt);
        // No other worker is there: the call waits for the next one.
        worker.crash();
        worker = engine.worker(1, &["hold"]).await;
    }
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error, CallError::WorkerLost { function: arc("hold"), attempts: 3, reason: arc("") });
}

#[tokio::test]
async fn an_answer_given_twice_or_late_or_to_nothing_is_ignored() {
    let engine = Engine::start(config()).await;
    let mut first = engine.worker(1, &["hold"]).await;
    let call = engine.spawn(engine.call("hold", "1"));
    let given = first.given().await;
    // Another worker answers what it was never asked.
    let second = engine.worker(1, &["other"]).await;
    second.succeed(&given, "forged");
    Worker::settled(&engine.functions, |functions| functions.status().stray_answers == 1).await;
    first.succeed(&given, "true");
    first.succeed(&given, "again");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "true");
    Worker::settled(&engine.functions, |functions| functions.status().stray_answers == 2).await;
    // The slot was freed once: the next call is given, the one after it waits.
    let next = engine.spawn(engine.call("hold", "2"));
    let given = first.given().await;
    let waiting = engine.spawn(engine.call("hold", "3"));
    Worker::settled(&engine.functions, |functions| functions.status().queued == 1).await;
    first.succeed(&given, "second");
    assert_eq!(text(&next.await.unwrap().unwrap().output), "second");
    let given = first.given().await;
    first.succeed(&given, "third");
    assert_eq!(text(&waiting.await.unwrap().unwrap().output), "third");
}

#[tokio::test]
async fn a_worker_that_sends_garbage_is_cut_off_and_its_calls_tried_again() {
    for (kind, body) in
        [(INVOKE_DONE, &b"\xff\xff"[..]), (WORKER_LOG, b""), (REGISTER, b""), (INVOKE, b""), (REGISTERED, b"12345678")]
    {
        let engine = Engine::start(config()).await;
        let mut bad = engine.worker(1, &["hold"]).await;
        let call = engine.spawn(engine.call("hold", ""));
        let given = bad.given().await;
        let body = Bytes::from_static(body);
        bad.outbox.push_frame(&Frame { kind, flags: 0, corr: given.corr, body });
        bad.outbox.flush();
        assert!(bad.maybe_frame().await.is_none(), "kind {kind}");
        let mut good = engine.worker(1, &["hold"]).await;
        let given = good.given().await;
        assert_eq!(given.attempt, 2);
        good.succeed(&given, "fine");
        assert_eq!(text(&call.await.unwrap().unwrap().output), "fine");
    }
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_tells_its_worker() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let call = boki_functions::Call { deadline: Some(Duration::from_millis(30)), ..engine.call("hold", "") };
    let call = engine.spawn(call);
    let given = worker.given().await;
    assert!((1..=30).contains(&given.deadline_ms));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error, CallError::DeadlineExceeded { function: arc("hold"), id: given.call });
    let frame = worker.frame().await;
    assert_eq!((frame.kind, frame.corr, &frame.body[..]), (INVOKE_CANCEL, given.corr, &[2][..]));
    // Its slot stays taken until it answers.
    let next = engine.spawn(engine.call("hold", "next"));
    Worker::settled(&engine.functions, |functions| functions.status().queued == 1).await;
    worker.fail(&given, "cancelled", false);
    let given = worker.given().await;
    worker.succeed(&given, "done");
    assert_eq!(text(&next.await.unwrap().unwrap().output), "done");
}

#[tokio::test]
async fn a_caller_that_goes_away_gives_its_call_up() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let running = engine.spawn(engine.call("hold", "running"));
    let given = worker.given().await;
    let waiting = engine.spawn(engine.call("hold", "waiting"));
    Worker::settled(&engine.functions, |functions| functions.status().queued == 1).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    Worker::settled(&engine.functions, |functions| functions.status().queued == 0).await;
    running.abort();
    let frame = worker.frame().await;
    assert_eq!((frame.kind, frame.corr, &frame.body[..]), (INVOKE_CANCEL, given.corr, &[1][..]));
}

#[tokio::test]
async fn what_waits_is_bounded_by_number_and_by_bytes() {
    let bounds = FunctionsConfig { queue_calls: 2, queue_bytes: 100, ..config() };
    let engine = Engine::start(bounds).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let mut calls = vec![engine.spawn(engine.call("hold", "running"))];
    let given = worker.given().await;
    calls.push(engine.spawn(engine.call("hold", &"x".repeat(60))));
    Worker::settled(&engine.functions, |functions| functions.status().queued == 1).await;
    let error = engine.functions.call_whole(engine.call("hold", &"x".repeat(60))).await.unwrap_err();
    assert_eq!((error.code(), matches!(error, CallError::Overloaded { limit: 100, .. })), ("BK0405", true));
    calls.push(engine.spawn(engine.call("hold", "small")));
    Worker::settled(&engine.functions, |functions| functions.status().queued == 2).await;
    let error = engine.functions.call_whole(engine.call("hold", "")).await.unwrap_err();
    assert!(matches!(error, CallError::Overloaded { limit: 2, .. }), "{error:?}");
    worker.succeed(&given, "");
    for _ in 0..2 {
        let given = worker.given().await;
        worker.succeed(&given, "");
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_functions_of_a_worker_take_turns_and_calls_of_each_are_in_line() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["a", "b"]).await;
    let mut calls = Vec::new();
    for (waiting, (function, input)) in
        [("a", "0"), ("b", "1"), ("a", "2"), ("a", "3"), ("b", "4")].into_iter().enumerate()
    {
        calls.push(engine.spawn(engine.call(function, input)));
        Worker::settled(&engine.functions, |functions| {
            functions.status().running + functions.status().queued == waiting + 1
        })
        .await;
    }
    for expected in ["0", "1", "2", "4", "3"] {
        let given = worker.given().await;
        assert_eq!(given.input, expected);
        worker.succeed(&given, "");
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_least_loaded_worker_gets_the_call() {
    let engine = Engine::start(config()).await;
    let mut small = engine.worker(1, &["f"]).await;
    let mut large = engine.worker(3, &["f"]).await;
    let calls: Vec<_> = (0..4).map(|_| engine.spawn(engine.call("f", ""))).collect();
    let mut given = Vec::new();
    for _ in 0..3 {
        given.push(large.given().await);
    }
    let one = small.given().await;
    small.succeed(&one, "");
    for given in &given {
        large.succeed(given, "");
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn calls_of_a_lost_function_wait_for_it_and_then_are_refused() {
    let engine = Engine::start(FunctionsConfig { reconnect_grace: Duration::from_millis(50), ..config() }).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let call = engine.spawn(engine.call("hold", ""));
    worker.given().await;
    worker.crash();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error, CallError::FunctionNotFound { function: arc("hold") });
    Worker::settled(&engine.functions, |functions| functions.list().is_empty()).await;
}

#[tokio::test]
async fn a_worker_that_drains_gets_no_more_calls_and_finishes_what_it_has() {
    let engine = Engine::start(config()).await;
    let mut old = engine.worker(10, &["hold"]).await;
    let first = engine.spawn(engine.call("hold", "1"));
    let given = old.given().await;
    old.send(0, &Drain);
    Worker::settled(&engine.functions, |functions| functions.workers()[0].draining).await;
    let second = engine.spawn(engine.call("hold", "2"));
    let mut new = engine.worker(10, &["hold"]).await;
    let other = new.given().await;
    assert_eq!(other.input, "2");
    new.succeed(&other, "new");
    old.succeed(&given, "old");
    assert_eq!(text(&first.await.unwrap().unwrap().output), "old");
    assert_eq!(text(&second.await.unwrap().unwrap().output), "new");
}

#[tokio::test]
async fn registrations_that_make_no_sense_are_refused() {
    let engine = Engine::start(config()).await;
    for wrong in [
        register("", 1, &["f"]),
        register("w", 0, &["f"]),
        register("w", u32::MAX, &["f"]),
        register("w", 1, &[]),
        register("w", 1, &["f", "f"]),
        register("w", 1, &[""]),
        Register { process: "nobody".into(), ..register("w", 1, &["f"]) },
    ] {
        let mut worker = Worker::open(&engine.functions, &wrong);
        let frame = worker.frame().await;
        assert_eq!((frame.kind, frame.corr), (boki_wire::kinds::ERROR, 77), "{wrong:?}");
        let error = <boki_wire::ErrorReply as boki_wire::Message>::decode(&frame.body).unwrap();
        assert_eq!(error.code, "BK0412");
    }
    assert!(engine.functions.workers().is_empty());
}

#[tokio::test]
async fn calls_that_make_no_sense_are_refused() {
    let engine = Engine::start(FunctionsConfig { payload_bytes: 10, ..config() }).await;
    let mut worker = engine.worker(1, &["f"]).await;
    for (call, code) in [
        (engine.call("", ""), "BK0411"),
        (engine.call(&"f".repeat(256), ""), "BK0411"),
        (engine.keyed("f", "", ""), "BK0411"),
        (engine.call("f", "12345678901"), "BK0408"),
        (boki_functions::Call { book: boki_log::BookId(999_999), ..engine.call("f", "") }, "BK0110"),
    ] {
        let words = format!("{call:?}");
        assert_eq!(engine.functions.call_whole(call).await.unwrap_err().code(), code, "{words}");
    }
    let call = engine.spawn(engine.call("f", ""));
    let given = worker.given().await;
    worker.succeed(&given, "12345678901");
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error, CallError::PayloadTooLarge { what: "output", actual: 11, limit: 10 });
}

#[tokio::test]
async fn lines_are_found_by_call_and_by_worker() {
    let engine = Engine::start(FunctionsConfig { log_lines: 3, ..config() }).await;
    let worker = engine.worker(1, &["f"]).await;
    let call = CallId([7; 16]);
    for (call, line) in [(None, "zero"), (Some(call), "one"), (None, "two"), (Some(call), "three")] {
        worker.send(0, &WorkerLog { call, level: Level::Warn, line: line.into() });
    }
    let lines = |call| engine.functions.logs(call).iter().map(|line| line.line.to_string()).collect::<Vec<_>>();
    Worker::settled(&engine.functions, |functions| {
        functions.worker_logs("test").last().is_some_and(|line| &*line.line == "three")
    })
    .await;
    assert_eq!(lines(call), ["one", "three"]);
    assert_eq!(engine.functions.worker_logs("test").len(), 3);
    assert!(engine.functions.worker_logs("other").is_empty());
}

#[tokio::test]
async fn shutting_down_lets_calls_finish_and_refuses_those_that_wait() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let running = engine.spawn(engine.call("hold", "running"));
    let given = worker.given().await;
    let waiting = engine.spawn(engine.call("hold", "waiting"));
    Worker::settled(&engine.functions, |functions| functions.status().queued == 1).await;
    let functions = engine.functions.clone();
    let shutdown = tokio::spawn(async move { functions.shutdown(LONG).await });
    assert_eq!(waiting.await.unwrap().unwrap_err(), CallError::ShuttingDown);
    assert_eq!(worker.frame().await.kind, DRAIN);
    assert_eq!(engine.functions.call_whole(engine.call("hold", "")).await.unwrap_err(), CallError::ShuttingDown);
    worker.succeed(&given, "finished");
    assert_eq!(text(&running.await.unwrap().unwrap().output), "finished");
    shutdown.await.unwrap();
}

#[tokio::test]
async fn shutting_down_gives_up_what_takes_too_long() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let running = engine.spawn(engine.call("hold", "running"));
    let given = worker.given().await;
    engine.functions.shutdown(Duration::from_millis(10)).await;
    assert_eq!(running.await.unwrap().unwrap_err(), CallError::ShuttingDown);
    assert_eq!(worker.frame().await.kind, DRAIN);
    let frame = worker.frame().await;
    assert_eq!((frame.kind, frame.corr, &frame.body[..]), (INVOKE_CANCEL, given.corr, &[3][..]));
}

#[tokio::test]
async fn demand_says_what_waits_and_a_worker_since_when_it_is_idle() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    assert!(engine.functions.workers()[0].idle_since.is_some());
    let calls = [engine.spawn(engine.call("hold", "1")), engine.spawn(engine.call("hold", "2"))];
    let given = worker.given().await;
    assert_eq!(engine.functions.workers()[0].idle_since, None);
    Worker::settled(&engine.functions, |functions| functions.status().queued == 1).await;
    let demand = engine.functions.demand();
    assert_eq!((&*demand[0].function, demand[0].waiting, demand[0].running, demand[0].places), ("hold", 1, 1, 1));
    worker.succeed(&given, "");
    let given = worker.given().await;
    worker.succeed(&given, "");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(engine.functions.workers()[0].idle_since.is_some());
}
