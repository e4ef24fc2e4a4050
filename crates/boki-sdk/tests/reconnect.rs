//! What survives a lost connection, and what does not.
#![allow(clippy::unwrap_used)]

mod fake;

use std::future::IntoFuture;
use std::time::Duration;

use boki_log::op::{self, Consistency, TailReply};
use boki_log::{LogError, Position, Seq};
use boki_sdk::{Client, Error, Retry};
use boki_wire::worker::CallId;
use boki_wire::{Call, CallResult, ErrorReply, Ping, Pong, WireError};
use fake::Fake;

#[tokio::test]
async fn appends_without_an_answer_are_sent_again_with_their_ids_and_in_their_order() {
    let fake = Fake::start().await;
    let (book, mut first) = fake.book().await;
    let mut sent = Vec::new();
    for n in 0..20_u64 {
        sent.push(book.append(&n.to_le_bytes()).tags(["x"]).send().await.unwrap());
    }
    let mut ids = Vec::new();
    for _ in 0..20 {
        let (corr, append) = first.append().await;
        ids.push(append.batch.id().unwrap());
        if ids.len() == 5 {
            first.appended(corr, 5);
        }
    }
    assert_eq!(sent.remove(4).await.unwrap().seq, Some(Seq(5)));
    ids.remove(4);
    first.hang_up();
    let mut second = fake.accept().await;
    for id in &ids {
        let (corr, append) = second.append().await;
        assert_eq!(append.batch.id(), Some(*id));
        second.appended(corr, 100);
    }
    for append in sent {
        assert_eq!(append.await.unwrap().seq, Some(Seq(100)));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 19, "every append has an id of its own");
}

#[tokio::test]
async fn the_position_outlives_the_connection() {
    let fake = Fake::start().await;
    let (book, mut first) = fake.book().await;
    let (appended, ()) = tokio::join!(book.append("x").into_future(), async {
        let (corr, _) = first.append().await;
        first.appended(corr, 41);
    });
    appended.unwrap();
    first.hang_up();
    let (tail, ()) = tokio::join!(book.tail().into_future(), async {
        let mut second = fake.accept().await;
        let (corr, tail) = second.expect::<op::Tail>().await;
        assert_eq!(tail.consistency, Consistency::Session(Position(Seq(42))));
        second.answer(corr, &TailReply { seq: Seq(41), position: Position(Seq(42)) });
    });
    assert_eq!(tail.unwrap(), Seq(41));
}

#[tokio::test]
async fn a_question_asked_while_there_is_no_connection_waits_for_one() {
    let fake = Fake::start().await;
    let (book, mut first) = fake.book().await;
    first.hang_up();
    assert!(first.is_hung_up().await);
    let append = book.append("x").send().await.unwrap();
    let mut second = fake.accept().await;
    let (corr, _) = second.append().await;
    second.appended(corr, 1);
    append.await.unwrap();
}

#[tokio::test]
async fn a_call_is_repeated_only_if_it_has_a_key() {
    let fake = Fake::start().await;
    let (client, mut first) = fake.client().await;
    let keyed = client.call("f", "").key("k").into_future();
    let plain = client.call("f", "").into_future();
    let serving = async {
        first.expect::<Call>().await;
        first.expect::<Call>().await;
        first.hang_up();
        let mut second = fake.accept().await;
        let (corr, call) = second.expect::<Call>().await;
        assert_eq!(call.idempotency_key.as_deref(), Some("k"));
        let (call, position) = (CallId([1; 16]), Position(Seq(3)));
        let result = CallResult { call, position, attempts: 1, content_type: String::new(), output: "ok".into() };
        second.answer(corr, &result);
        second
    };
    let (keyed, plain, _second) = tokio::join!(keyed, plain, serving);
    assert_eq!(&keyed.unwrap().data[..], b"ok");
    let lost = plain.unwrap_err();
    assert!(matches!(lost, Error::OutcomeUnknown { .. }));
    assert_eq!(lost.retry(), Retry::WithSameId);
}

#[tokio::test]
async fn what_a_stopping_server_refuses_goes_to_the_next_one() {
    let fake = Fake::start().await;
    let (book, mut first) = fake.book().await;
    let append = book.append("x").send().await.unwrap();
    let (corr, refused) = first.append().await;
    first.fail(corr, &LogError::ShuttingDown);
    first.hang_up();
    let mut second = fake.accept().await;
    let (corr, append_again) = second.append().await;
    assert_eq!(append_again.batch.id(), refused.batch.id());
    second.appended(corr, 7);
    assert_eq!(append.await.unwrap().seq, Some(Seq(7)));
}

#[tokio::test]
async fn an_operation_gives_up_when_no_server_comes_back() {
    let fake = Fake::start().await;
    let options = fake.options().reconnect_for(Duration::ZERO);
    let (client, mut peer) = tokio::join!(Client::connect_with(options), fake.accept());
    let client = client.unwrap();
    let (book, ()) = tokio::join!(client.book("orders"), peer.open_book());
    let book = book.unwrap();
    let append = book.append("x").send().await.unwrap();
    drop(fake);
    peer.hang_up();
    let error = append.await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    assert_eq!(error.retry(), Retry::WithSameId);
}

#[tokio::test]
async fn the_callers_deadline_holds_without_a_connection() {
    let fake = Fake::start().await;
    let (book, peer) = fake.book().await;
    peer.hang_up();
    let error = book.append("x").deadline(Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(error, Error::Deadline(_)));
}

#[tokio::test]
async fn a_server_that_ends_the_connection_with_an_error_is_tried_again() {
    let fake = Fake::start().await;
    let (book, mut first) = fake.book().await;
    let append = book.append("x").send().await.unwrap();
    first.append().await;
    first.answer(0, &ErrorReply::from(&WireError::Protocol { reason: "test".into() }));
    let mut second = fake.accept().await;
    let (corr, _) = second.append().await;
    second.appended(corr, 1);
    append.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_asked_and_then_left() {
    let fake = Fake::start().await;
    let (book, mut first) = fake.book().await;
    let append = book.append("x").send().await.unwrap();
    first.append().await;
    for _ in 0..3 {
        // It owes an answer and says so.
        first.expect::<Ping>().await;
        first.answer(0, &Pong);
    }
    first.expect::<Ping>().await;
    let mut second = fake.accept().await;
    let (corr, _) = second.append().await;
    second.appended(corr, 1);
    append.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_nothing_open_is_left_in_peace() {
    let fake = Fake::start().await;
    let (_book, mut peer) = fake.book().await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(peer.is_quiet());
}
