//! Limits that are set while the engine runs, and calls that functions make, with workers played frame by frame.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use boki_functions::{Call, CallError, FunctionsConfig, LimitError, LimitRule, LimitTerms};
use common::*;

fn limit(name: &str, matches: &str, concurrency: u32) -> LimitRule {
    let terms = LimitTerms { matches: matches.into(), concurrency: Some(concurrency), ..LimitTerms::default() };
    terms.rule(name).unwrap()
}

#[tokio::test]
async fn a_limit_holds_at_once_and_after_a_restart() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(10, &["f"]).await;
    engine.functions.set_limit(limit("one", "call:f", 1)).await.unwrap();
    let first = engine.spawn(engine.call("f", "1"));
    let given = worker.given().await;
    let second = engine.spawn(engine.call("f", "2"));
    Worker::settled(&engine.functions, |functions| functions.limits()[0].waiting == 1).await;
    let state = &engine.functions.limits()[0];
    assert_eq!((state.running, state.throttled, state.is_stored), (1, 1, true));
    engine.functions.set_limit(limit("one", "call:f", 2)).await.unwrap();
    let other = worker.given().await;
    assert_eq!(other.input, "2");
    for given in [&given, &other] {
        worker.succeed(given, "");
    }
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();

    let (engine, _) = engine.restart(config()).await;
    let state = engine.functions.limits();
    assert_eq!((state.len(), state[0].limit.concurrency, state[0].is_stored), (1, Some(2), true));
    engine.functions.remove_limit("one").await.unwrap();
    assert_eq!(engine.functions.limits(), []);
    let error = engine.functions.remove_limit("one").await.unwrap_err();
    assert_eq!(error, LimitError::NotFound { name: "one".into() });
    let (engine, _) = engine.restart(config()).await;
    assert_eq!(engine.functions.limits(), []);
}

#[tokio::test]
async fn a_limit_that_was_set_stands_in_place_of_a_configured_one_until_it_is_removed() {
    let config = FunctionsConfig { limits: vec![limit("f", "call:f", 5)], ..config() };
    let engine = Engine::start(config.clone()).await;
    engine.functions.set_limit(limit("f", "call:f", 9)).await.unwrap();
    let (engine, _) = engine.restart(config).await;
    let concurrency = || engine.functions.limits()[0].limit.concurrency;
    assert_eq!(concurrency(), Some(9));
    engine.functions.remove_limit("f").await.unwrap();
    assert_eq!(concurrency(), Some(5));
    let error = engine.functions.remove_limit("f").await.unwrap_err();
    assert_eq!(error, LimitError::Configured { name: "f".into() });
    let nothing = LimitRule { concurrency: None, ..limit("f", "call:f", 1) };
    assert_eq!(engine.functions.set_limit(nothing).await.unwrap_err().code(), "BK0440");
}

#[tokio::test]
async fn calls_that_wait_for_a_rate_go_on_as_time_goes_by() {
    let rate = LimitRule { concurrency: None, rate: Some("50/s".parse().unwrap()), ..limit("rate", "call:f", 1) };
    let rate = LimitRule { rate: rate.rate.map(|rate| rate.with_burst(1).unwrap()), ..rate };
    let engine = Engine::start(FunctionsConfig { limits: vec![rate], ..config() }).await;
    let mut worker = engine.worker(10, &["f"]).await;
    let began = std::time::Instant::now();
    let calls: Vec<_> = (0..5).map(|_| engine.spawn(engine.call("f", ""))).collect();
    for _ in 0..5 {
        let given = worker.given().await;
        worker.succeed(&given, "");
    }
    assert!(began.elapsed() >= Duration::from_millis(80), "five in less than four intervals");
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// As the connection of a worker does it for a call that comes from one of its attempts.
fn child(engine: &Engine, worker: &Worker, parent: &Given, function: &str) -> Call {
    let parent = worker.parent(parent.corr);
    assert!(parent.is_some());
    Call { parent, ..engine.call(function, "") }
}

#[tokio::test]
async fn a_child_runs_beside_its_caller_and_is_given_up_with_it() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["f"]).await;
    let root = engine.spawn(engine.call("f", ""));
    let given = worker.given().await;
    let inner = engine.spawn(child(&engine, &worker, &given, "f"));
    let of_inner = worker.given().await;
    let innermost = engine.spawn(child(&engine, &worker, &of_inner, "f"));
    let of_innermost = worker.given().await;
    worker.succeed(&given, "done");
    root.await.unwrap().unwrap();
    for call in [inner, innermost] {
        assert!(matches!(call.await.unwrap().unwrap_err(), CallError::Cancelled { .. }));
    }
    // Both are cancelled in the worker too.
    for _ in 0..2 {
        let frame = worker.frame().await;
        assert_eq!(frame.kind, boki_wire::worker::INVOKE_CANCEL);
        assert!([of_inner.corr, of_innermost.corr].contains(&frame.corr));
    }
    assert_eq!(worker.parent(given.corr), None);
}

#[tokio::test]
async fn a_child_has_no_more_time_than_its_caller() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["f"]).await;
    let root = engine.spawn(Call { deadline: Some(Duration::from_secs(15)), ..engine.call("f", "") });
    let given = worker.given().await;
    let longer = Call { deadline: Some(Duration::from_secs(1000)), ..child(&engine, &worker, &given, "f") };
    let longer = engine.spawn(longer);
    let of_longer = worker.given().await;
    assert!(of_longer.deadline_ms <= 15_000);
    worker.succeed(&of_longer, "");
    longer.await.unwrap().unwrap();
    worker.succeed(&given, "");
    root.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_child_on_record_runs_on_a_level_of_its_own_and_outlives_its_caller() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["f"]).await;
    let root = engine.spawn(engine.call("f", ""));
    let given = worker.given().await;
    let keyed = Call { idempotency_key: Some("k".into()), ..child(&engine, &worker, &given, "f") };
    let keyed = engine.spawn(keyed);
    let of_keyed = worker.given().await;
    worker.succeed(&given, "");
    root.await.unwrap().unwrap();
    worker.succeed(&of_keyed, "kept");
    assert_eq!(text(&keyed.await.unwrap().unwrap().output), "kept");
}

#[tokio::test]
async fn a_call_with_the_key_of_its_own_ancestor_is_refused() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["f"]).await;
    let root = engine.spawn(engine.keyed("f", "", "k"));
    let given = worker.given().await;
    let inner = engine.spawn(child(&engine, &worker, &given, "f"));
    let of_inner = worker.given().await;
    let again = Call { idempotency_key: Some("k".into()), ..child(&engine, &worker, &of_inner, "f") };
    let error = engine.functions.call(again).await.unwrap_err();
    assert_eq!(error.code(), "BK0415", "{error}");
    worker.succeed(&of_inner, "");
    inner.await.unwrap().unwrap();
    worker.succeed(&given, "");
    root.await.unwrap().unwrap();
}
