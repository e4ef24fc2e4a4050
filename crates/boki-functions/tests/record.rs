//! Calls on record: they have one result, whatever crashes.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use boki_functions::{Call, CallError, Functions, FunctionsConfig};
use boki_log::op::{Consistency, Direction, Read, Tail};
use boki_log::{BookId, Position, Seq, Tag};
use boki_node::Node;
use boki_wire::worker::*;
use common::*;

async fn tail(node: &Node, book: BookId, tag: &str) -> Seq {
    let tail = Tail { book, tag: Some(Tag::new(tag).unwrap()), consistency: Consistency::Linearizable };
    node.tail(tail).await.unwrap().seq
}

#[tokio::test]
async fn a_key_is_one_call_with_one_result() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let first = engine.spawn(engine.keyed("hold", "4", "order-1"));
    let given = worker.given().await;
    worker.succeed(&given, "held");
    let first = first.await.unwrap().unwrap();
    let again = engine.functions.call_whole(engine.keyed("hold", "4", "order-1")).await.unwrap();
    assert_eq!((first.id, &first.output, &first.content_type), (again.id, &again.output, &again.content_type));
    assert!(again.position >= first.position && first.position > Position::START);
    // Another key, another function, another book: other calls.
    let other = engine.spawn(engine.keyed("hold", "4", "order-2"));
    let given = worker.given().await;
    assert_ne!(given.call, first.id);
    worker.succeed(&given, "held too");
    other.await.unwrap().unwrap();
    let book = engine.node.create_book("other").await.unwrap().id;
    let other = engine.spawn(Call { book, ..engine.keyed("hold", "4", "order-1") });
    let given = worker.given().await;
    worker.succeed(&given, "elsewhere");
    assert_eq!(text(&other.await.unwrap().unwrap().output), "elsewhere");
}

#[tokio::test]
async fn callers_with_the_same_key_share_one_run() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let callers: Vec<_> = (0..5).map(|_| engine.spawn(engine.keyed("hold", "4", "k"))).collect();
    let given = worker.given().await;
    let differently = engine.functions.call_whole(engine.keyed("hold", "5", "k")).await.unwrap_err();
    assert_eq!(differently, CallError::KeyReused { function: arc("hold"), key: arc("k") });
    worker.succeed(&given, "once");
    for caller in callers {
        let reply = caller.await.unwrap().unwrap();
        assert_eq!((text(&reply.output), reply.id), ("once", given.call));
    }
    assert_eq!(engine.functions.status().recorded, 1);
    let later = engine.functions.call_whole(engine.keyed("hold", "5", "k")).await.unwrap_err();
    assert_eq!(later.code(), "BK0407");
}

#[tokio::test]
async fn a_failure_is_a_result_too() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let first = engine.spawn(engine.keyed("hold", "4", "k"));
    let given = worker.given().await;
    worker.fail(&given, "sold out", false);
    let first = first.await.unwrap().unwrap_err();
    let again = engine.functions.call_whole(engine.keyed("hold", "4", "k")).await.unwrap_err();
    let words = |error: CallError| match error {
        CallError::FunctionFailed { message, code, .. } => (message.to_string(), code.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(words(first), ("sold out".into(), "oops".into()));
    assert_eq!(words(again), ("sold out".into(), "oops".into()));
}

#[tokio::test]
async fn a_call_that_was_running_when_the_engine_ended_runs_again_and_its_key_finds_it() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let interrupted = engine.spawn(engine.keyed("hold", "4", "k"));
    let given = worker.given().await;
    let sent = engine.functions.send(engine.call("hold", "sent")).await.unwrap();
    let other = worker.given().await;
    assert_eq!(other.call, sent.id);
    let (engine, resumed) = engine.restart(config()).await;
    assert_eq!(interrupted.await.unwrap().unwrap_err(), CallError::ShuttingDown);
    assert_eq!(resumed, 2);
    let retried = engine.spawn(engine.keyed("hold", "4", "k"));
    let mut worker = engine.worker(4, &["hold"]).await;
    for _ in 0..2 {
        let again = worker.given().await;
        assert!(again.call == given.call || again.call == sent.id);
        worker.succeed(&again, if again.call == sent.id { "sent" } else { "keyed" });
    }
    assert_eq!(text(&retried.await.unwrap().unwrap().output), "keyed");
    let result = engine.functions.whole_result(engine.book, sent.id, Some(LONG)).await.unwrap().unwrap();
    assert_eq!(text(&result.output), "sent");
    // All is over: nothing is resumed, and the list of accepted calls is empty.
    let (engine, resumed) = engine.restart(config()).await;
    assert_eq!(resumed, 0);
    assert_eq!(tail(&engine.node, engine.book, "~calls").await, Seq::NONE);
    let result = engine.functions.whole_result(engine.book, sent.id, None).await.unwrap().unwrap();
    assert_eq!(text(&result.output), "sent");
}

#[tokio::test]
async fn a_call_that_was_sent_outlives_its_caller_and_keeps_its_own_position() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["parent", "child"]).await;
    let seq = engine.append().await;
    let parent = engine.spawn(Call { position: Position::after(seq), ..engine.call("parent", "") });
    let parents = worker.given().await;
    // What the parent appends before it sends, the child sees.
    let own = engine.append().await;
    let sent =
        engine.functions.send(Call { position: Position::after(own), ..engine.call("child", "") }).await.unwrap();
    assert!(sent.position > Position::after(own));
    let childs = worker.given().await;
    assert!(childs.position >= Position::after(own));
    worker.succeed_at(&parents, "", Position::after(own));
    let reply = parent.await.unwrap().unwrap();
    // The parent has not seen what the child does later.
    assert_eq!(reply.position, Position::after(own));
    assert_eq!(engine.functions.whole_result(engine.book, sent.id, None).await.unwrap(), None);
    let late = engine.append().await;
    worker.succeed_at(&childs, "late", Position::after(late));
    let result = engine.functions.whole_result(engine.book, sent.id, Some(LONG)).await.unwrap().unwrap();
    assert!(result.position > Position::after(late));
    let status = engine.functions.call_status(engine.book, sent.id).await.unwrap();
    assert_eq!((&*status.function, status.result), ("child", Some(Ok(()))));
}

#[tokio::test]
async fn of_two_engines_that_run_a_call_the_first_result_is_everybodys() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let call = engine.spawn(engine.keyed("hold", "4", "k"));
    let given = worker.given().await;
    let second = Functions::new(engine.node.clone(), config());
    assert_eq!(second.recover().await.unwrap(), 1);
    let mut other = Worker::connect(&second, register("other", 4, &["hold"])).await;
    let again = other.given().await;
    assert_eq!(again.call, given.call);
    other.succeed(&again, "first");
    let result = second.whole_result(engine.book, given.call, Some(LONG)).await.unwrap().unwrap();
    assert_eq!(text(&result.output), "first");
    worker.succeed(&given, "second");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "first");
}

#[tokio::test]
async fn a_call_that_an_engine_accepts_before_it_has_recovered_runs_once() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let first = engine.functions.send(engine.call("hold", "before")).await.unwrap();
    worker.given().await;
    let second = Functions::new(engine.node.clone(), config());
    let mut other = Worker::connect(&second, register("other", 4, &["hold"])).await;
    let own = second.send(engine.call("hold", "own")).await.unwrap();
    assert_eq!(other.given().await.call, own.id);
    assert_eq!(second.recover().await.unwrap(), 1);
    assert_eq!(other.given().await.call, first.id);
    Worker::settled(&second, |functions| functions.status().backlog == 0).await;
    assert_eq!(second.status().running, 2);
}

#[tokio::test]
async fn a_send_to_nobody_is_refused_and_leaves_nothing() {
    let engine = Engine::start(config()).await;
    let error = engine.functions.send(engine.call("hold", "")).await.unwrap_err();
    assert_eq!(error, CallError::FunctionNotFound { function: arc("hold") });
    assert_eq!(tail(&engine.node, engine.book, "~calls").await, Seq::NONE);
    let missing = engine.functions.whole_result(engine.book, CallId([1; 16]), Some(LONG)).await.unwrap_err();
    assert_eq!(missing, CallError::CallNotFound { id: CallId([1; 16]) });
    assert_eq!(engine.functions.call_status(engine.book, CallId([1; 16])).await.unwrap_err().code(), "BK0409");
    assert_eq!(engine.functions.cancel(engine.book, CallId([1; 16])).await.unwrap_err().code(), "BK0409");
}

#[tokio::test]
async fn a_cancelled_call_ends_on_record_and_its_worker_is_told() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let sent = engine.functions.send(engine.call("hold", "")).await.unwrap();
    let given = worker.given().await;
    assert!(engine.functions.cancel(engine.book, sent.id).await.unwrap().is_none());
    let frame = worker.frame().await;
    assert_eq!((frame.kind, frame.corr), (INVOKE_CANCEL, given.corr));
    let error = engine.functions.whole_result(engine.book, sent.id, Some(LONG)).await.unwrap_err();
    assert_eq!(error, CallError::Cancelled { id: sent.id });
    let (engine, resumed) = engine.restart(config()).await;
    assert_eq!(resumed, 0);
    // What has a result cannot be cancelled: the result is returned.
    let mut worker = engine.worker(4, &["hold"]).await;
    let done = engine.spawn(engine.keyed("hold", "", "k"));
    let given = worker.given().await;
    worker.succeed(&given, "done");
    done.await.unwrap().unwrap();
    let result = engine.functions.cancel(engine.book, given.call).await.unwrap().unwrap();
    let result = result.whole(100).await.unwrap();
    assert_eq!(text(&result.output), "done");
}

#[tokio::test]
async fn a_caller_that_waits_no_longer_leaves_its_call_running() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let impatient = Call { deadline: Some(Duration::from_millis(10)), ..engine.keyed("hold", "", "k") };
    let impatient = engine.spawn(impatient);
    let given = worker.given().await;
    let error = impatient.await.unwrap().unwrap_err();
    assert_eq!(error, CallError::DeadlineExceeded { function: arc("hold"), id: given.call });
    let patient = engine.spawn(engine.keyed("hold", "", "k"));
    worker.succeed(&given, "late");
    assert_eq!(text(&patient.await.unwrap().unwrap().output), "late");
}

#[tokio::test]
async fn a_call_that_was_sent_with_a_deadline_ends_at_it() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let sent = Call { deadline: Some(Duration::from_millis(200)), ..engine.call("hold", "") };
    let sent = engine.functions.send(sent).await.unwrap();
    let given = worker.given().await;
    assert!((1..=200).contains(&given.deadline_ms));
    let error = engine.functions.whole_result(engine.book, sent.id, Some(LONG)).await.unwrap_err();
    assert_eq!(error, CallError::DeadlineExceeded { function: arc("hold"), id: sent.id });
}

#[tokio::test]
async fn a_call_on_record_waits_for_its_function_longer_than_others() {
    let engine = Engine::start(FunctionsConfig { reconnect_grace: Duration::from_millis(1), ..config() }).await;
    let mut worker = engine.worker(1, &["hold"]).await;
    let sent = engine.functions.send(Call { deadline: None, ..engine.call("hold", "") }).await.unwrap();
    worker.given().await;
    worker.crash();
    let gone = |functions: &Functions| functions.workers().is_empty() && functions.status().queued == 1;
    Worker::settled(&engine.functions, gone).await;
    // Others are refused by now.
    Worker::settled(&engine.functions, |functions| functions.list()[0].workers == 0).await;
    loop {
        match engine
            .functions
            .call_whole(Call { deadline: Some(Duration::from_millis(1)), ..engine.call("hold", "") })
            .await
        {
            Err(CallError::FunctionNotFound { .. }) => break,
            Err(CallError::DeadlineExceeded { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut worker = engine.worker(1, &["hold"]).await;
    let given = worker.given().await;
    assert_eq!((given.call, given.attempt), (sent.id, 2));
    worker.succeed(&given, "at last");
    let result = engine.functions.whole_result(engine.book, sent.id, Some(LONG)).await.unwrap().unwrap();
    assert_eq!((text(&result.output), result.attempts), ("at last", 2));
}

#[tokio::test]
async fn the_records_of_calls_are_trimmed_when_they_are_over() {
    let engine = Engine::start(FunctionsConfig { retention: Duration::ZERO, ..config() }).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    for round in 0..300 {
        let call = engine.spawn(engine.keyed("hold", "", &round.to_string()));
        let given = worker.given().await;
        worker.succeed(&given, "");
        call.await.unwrap().unwrap();
    }
    // The key of a call that is forgotten is a new key.
    let again = loop {
        let again = engine.spawn(engine.keyed("hold", "", "0"));
        tokio::select! {
            given = worker.given() => {
                worker.succeed(&given, "anew");
                break again.await.unwrap().unwrap();
            }
            // The last sweeps may still be on their way.
            _ = tokio::task::yield_now(), if again.is_finished() => {}
        }
    };
    assert_eq!(text(&again.output), "anew");
    engine.functions.shutdown(LONG).await;
    let read = Read {
        book: engine.book,
        tag: None,
        from: Seq::FIRST,
        direction: Direction::Next,
        limit: 1000,
        consistency: Consistency::Linearizable,
        wait: None,
    };
    let left = engine.node.read(read).await.unwrap().records.len();
    assert!(left <= 300 - 256 + 2, "{left} records are left");
    let (engine, _) = engine.restart(config()).await;
    assert_eq!(tail(&engine.node, engine.book, "~calls").await, Seq::NONE);
}

#[tokio::test]
async fn an_output_too_large_to_be_kept_is_a_failure_on_record() {
    let engine = Engine::start(FunctionsConfig { blob_bytes: 1 << 20, ..config() }).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let call = engine.spawn(engine.keyed("hold", "", "k"));
    let given = worker.given().await;
    worker.succeed(&given, &"x".repeat((1 << 20) + 1));
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::PayloadTooLarge { what: "output", .. }), "{error:?}");
    let again = engine.functions.call(engine.keyed("hold", "", "k")).await.unwrap_err();
    assert_eq!(again, error);
}

#[tokio::test]
async fn the_records_cannot_be_read_as_anything_else_or_forged_by_users() {
    let engine = Engine::start(config()).await;
    let mut worker = engine.worker(4, &["hold"]).await;
    let call = engine.spawn(engine.keyed("hold", "", "k"));
    let given = worker.given().await;
    worker.succeed(&given, "");
    call.await.unwrap().unwrap();
    let batch = boki_log::BatchBuilder::new(engine.book)
        .record(vec![Tag::new(format!("~call/{}", given.call)).unwrap()], &b"forged"[..])
        .build()
        .unwrap();
    let append = boki_log::op::Append {
        batch,
        ack: boki_log::op::Ack::Ordered,
        reserved: boki_log::batch::ReservedTags::Refused,
    };
    assert_eq!(engine.node.append(append).await.unwrap_err().code(), "BK0103");
}
