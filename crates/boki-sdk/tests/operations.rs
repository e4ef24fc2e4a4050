//! What goes over the wire for each operation, and what comes back.
#![allow(clippy::unwrap_used)]

mod fake;

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use boki_log::batch::{Condition, Kind};
use boki_log::op::{self, Ack, Appended, Consistency, Direction, Records, TagsReply, TailReply};
use boki_log::{AppendId, LogError, Position, Record, Seq, Tag};
use boki_sdk::{Client, Error, Json, Retry};
use boki_wire::worker::CallId;
use boki_wire::{
    BookCreate, BookIs, BookList, BookRemove, BookRemoved, BooksAre, Call, CallAccepted, CallPending, CallResult,
    CallWait, Cancel, ErrorReply, FunctionIs, FunctionList, FunctionsAre, Message, Ping, Pong,
};
use bytes::Bytes;
use fake::{BOOK, Fake};
use serde_json::json;

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

fn record(seq: u64, body: &'static [u8]) -> Record {
    let body = boki_log::batch::RecordBody::decode(Bytes::from_static(body)).unwrap();
    Record { seq: Seq(seq), time_us: 1_000_000 * seq, body, aux: None }
}

#[tokio::test]
async fn an_append_carries_its_tags_conditions_and_an_id() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let append = book.append(b"hello").tags(["b", "a", "b"]).if_tail("a", 7).fence("lock", 3).raise("lock", 4);
    let serving = async {
        let (corr, append) = peer.append().await;
        assert_eq!(append.ack, Ack::Ordered);
        assert_eq!(append.batch.book(), BOOK);
        assert!(append.batch.id().is_some());
        let conditions: Vec<_> = append.batch.conditions().collect();
        let expected =
            [Condition::Tail { tag: tag("a"), seq: Seq(7) }, Condition::Fence { tag: tag("lock"), epoch: 3 }];
        assert_eq!(conditions, expected);
        assert_eq!(append.batch.raises().collect::<Vec<_>>(), [(tag("lock"), 4)]);
        let records: Vec<_> = append.batch.records().collect();
        assert_eq!(records[0].tags().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(records[0].payload(), b"hello");
        peer.appended(corr, 8);
    };
    let (seq, ()) = tokio::join!(append.into_future(), serving);
    assert_eq!(seq.unwrap(), Seq(8));
    assert_eq!(book.position(), Position(Seq(9)));
}

#[tokio::test]
async fn a_batch_tags_each_record_by_itself() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let id = AppendId([9; 16]);
    let append = book.batch().record(b"1").tag("x").record("2").tag("y").record(Json(json!({"n": 3}))).id(id).outcome();
    let serving = async {
        let (corr, append) = peer.append().await;
        assert_eq!(append.batch.id(), Some(id));
        let records: Vec<_> = append.batch.records().collect();
        assert_eq!(records[0].tags().collect::<Vec<_>>(), ["x"]);
        assert_eq!(records[1].tags().collect::<Vec<_>>(), ["y"]);
        assert_eq!(records[2].payload(), br#"{"n":3}"#);
        let position = Position(Seq(24));
        peer.answer(corr, &Appended { seq: Some(Seq(21)), count: 3, repeated: true, position });
    };
    let (appended, ()) = tokio::join!(append, serving);
    assert_eq!(appended.unwrap().count, 3);
}

#[tokio::test]
async fn a_durable_append_asks_for_its_ack_and_has_no_seq() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let serving = async {
        let (corr, append) = peer.append().await;
        assert_eq!(append.ack, Ack::Durable);
        peer.answer(corr, &Appended { seq: None, count: 1, repeated: false, position: Position::START });
    };
    let (appended, ()) = tokio::join!(book.append("x").durable().into_future(), serving);
    assert_eq!(appended.unwrap().seq, None);
}

#[tokio::test]
async fn what_is_wrong_with_an_append_is_said_before_anything_is_sent() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    assert_eq!(book.append("x").tag("").await.unwrap_err().code(), "BK0102");
    assert_eq!(book.batch().tag("x").await.unwrap_err().code(), "BK0105");
    assert_eq!(book.batch().await.unwrap_err().code(), "BK0105");
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn many_appends_are_in_flight_and_may_be_answered_in_any_order() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let mut sent = Vec::new();
    for n in 0..500_u64 {
        sent.push(book.append(&n.to_le_bytes()).send().await.unwrap());
    }
    let mut corrs = Vec::new();
    for n in 0..500_u64 {
        let (corr, append) = peer.append().await;
        assert_eq!(append.batch.records().next().unwrap().payload(), n.to_le_bytes());
        corrs.push(corr);
    }
    for (n, corr) in corrs.into_iter().enumerate().rev() {
        peer.appended(corr, n as u64 + 1);
    }
    for (n, append) in sent.into_iter().enumerate() {
        assert_eq!(append.await.unwrap().seq, Some(Seq(n as u64 + 1)));
    }
    assert_eq!(book.position(), Position(Seq(501)));
}

#[tokio::test]
async fn what_the_server_can_take_at_once_bounds_what_is_in_flight() {
    let fake = Fake::start().await.max_in_flight(8);
    let (book, mut peer) = fake.book().await;
    let first = book.append("1").send().await.unwrap();
    let _second = book.append("2").send().await.unwrap();
    let mut third = pin!(book.append("3").send());
    assert!(third.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    // A read that waits for something to happen does not keep out what makes it happen, nor the other way round.
    let mut waiting = pin!(book.read_next(1).wait(Duration::from_secs(60)).into_future());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let (corr, _) = peer.append().await;
    peer.append().await;
    peer.expect::<op::Read>().await;
    peer.appended(corr, 1);
    first.await.unwrap();
    let _third = third.await.unwrap();
    peer.append().await;
}

#[tokio::test]
async fn a_failed_condition_comes_back_with_its_fields() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let failed = LogError::ConditionFailed { tag: tag("a"), expected: Seq(7), actual: Seq(9) };
    let serving = async {
        let (corr, _) = peer.append().await;
        peer.fail(corr, &failed);
        let (corr, _) = peer.append().await;
        peer.answer(corr, &ErrorReply::new("BK0999", "what?".into(), Retry::Later, serde_json::Map::new()));
    };
    let asking = async {
        let error = book.append("x").if_tail("a", 7).await.unwrap_err();
        assert!(matches!(&error, Error::Log(error) if *error == failed));
        assert_eq!((error.code(), error.retry()), ("BK0201", Retry::Never));
        let error = book.append("x").await.unwrap_err();
        assert_eq!((error.code(), error.retry(), error.to_string()), ("BK0999", Retry::Later, "what?".into()));
    };
    tokio::join!(asking, serving);
}

#[tokio::test]
async fn reads_see_what_the_session_has_seen() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let serving = async {
        let (corr, _) = peer.append().await;
        peer.appended(corr, 41);
        let (corr, read) = peer.expect::<op::Read>().await;
        assert_eq!(read.consistency, Consistency::Session(Position(Seq(42))));
        assert_eq!((read.from, read.direction, read.limit, read.wait), (Seq(5), Direction::Next, 10, None));
        assert_eq!(read.tag, Some(tag("x")));
        let records = vec![record(41, b"\x01\x01xhello")];
        peer.answer(corr, &Records { records, position: Position(Seq(50)) });
        let (corr, read) = peer.expect::<op::Read>().await;
        assert_eq!(read.consistency, Consistency::Session(Position(Seq(50))));
        assert_eq!((read.from, read.direction), (Seq::MAX, Direction::Prev));
        peer.answer(corr, &Records { records: vec![], position: Position(Seq(45)) });
        let (corr, read) = peer.expect::<op::Read>().await;
        assert_eq!(read.consistency, Consistency::Linearizable);
        peer.answer(corr, &Records { records: vec![], position: Position(Seq(51)) });
        let (corr, tail) = peer.expect::<op::Tail>().await;
        assert_eq!(tail.consistency, Consistency::Session(Position(Seq(51))));
        peer.answer(corr, &TailReply { seq: Seq(41), position: Position(Seq(51)) });
    };
    let asking = async {
        book.append("x").await.unwrap();
        let records = book.read_next(5).tag("x").limit(10).await.unwrap();
        assert_eq!((records[0].seq, records[0].data()), (Seq(41), &b"hello"[..]));
        assert!(records[0].has_tag("x"));
        assert_eq!(records[0].time().duration_since(std::time::UNIX_EPOCH).unwrap(), Duration::from_secs(41));
        assert!(book.read_prev(u64::MAX).first().await.unwrap().is_none());
        assert_eq!(book.position(), Position(Seq(50)));
        assert!(book.read_next(1).linearizable().await.unwrap().is_empty());
        assert_eq!(book.tail().tag("x").await.unwrap(), Seq(41));
    };
    tokio::join!(asking, serving);
}

#[tokio::test]
async fn two_handles_of_a_book_are_one_session_and_a_calls_book_is_another() {
    let fake = Fake::start().await;
    let (client, mut peer) = fake.client().await;
    let (first, ()) = tokio::join!(client.book("orders"), peer.open_book());
    let (second, ()) = tokio::join!(client.book("orders"), peer.open_book());
    let (first, second) = (first.unwrap(), second.unwrap());
    let own = client.book_at(BOOK, "orders", Position(Seq(7)));
    first.advance_to(Position(Seq(30)));
    assert_eq!((second.position(), own.position()), (Position(Seq(30)), Position(Seq(7))));
}

#[tokio::test]
async fn a_waiting_read_that_nobody_waits_for_is_cancelled_at_the_server() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let mut read = Box::pin(book.read_next(1).wait(Duration::from_millis(1500)).into_future());
    let (corr, asked) = tokio::select! {
        _ = &mut read => panic!("nothing was answered"),
        asked = peer.expect::<op::Read>() => asked,
    };
    assert_eq!(asked.wait, Some(Duration::from_millis(1500)));
    drop(read);
    let (cancelled, Cancel) = peer.expect::<Cancel>().await;
    assert_eq!(cancelled, corr);
    // Its answer, which was on its way, is nobody's.
    peer.answer(corr, &Records { records: vec![], position: Position(Seq(1)) });
    let (tail, ()) = tokio::join!(book.tail().into_future(), async {
        let (corr, _) = peer.expect::<op::Tail>().await;
        peer.answer(corr, &TailReply { seq: Seq(3), position: Position(Seq(4)) });
    });
    assert_eq!(tail.unwrap(), Seq(3));
}

#[tokio::test]
async fn a_subscription_reads_on_after_what_it_has_given() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let mut subscription = book.subscribe(1).tag("x").batch(2);
    let serving = async {
        let (corr, read) = peer.expect::<op::Read>().await;
        assert_eq!((read.from, read.limit), (Seq(1), 2));
        assert!(read.wait.is_some());
        let records = vec![record(4, b"\0a"), record(9, b"\0b")];
        peer.answer(corr, &Records { records, position: Position(Seq(10)) });
        let (corr, read) = peer.expect::<op::Read>().await;
        assert_eq!(read.from, Seq(10));
        // The wait has passed without a record: it asks again.
        peer.answer(corr, &Records { records: vec![], position: Position(Seq(10)) });
        let (corr, read) = peer.expect::<op::Read>().await;
        assert_eq!(read.from, Seq(10));
        peer.answer(corr, &Records { records: vec![record(11, b"\0c")], position: Position(Seq(12)) });
    };
    let asking = async {
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(subscription.next().await.unwrap().seq.0);
        }
        seen
    };
    assert_eq!(tokio::join!(asking, serving).0, [4, 9, 11]);
}

#[tokio::test]
async fn tags_aux_and_trims_go_to_the_server() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let serving = async {
        let (corr, tags) = peer.expect::<op::Tags>().await;
        assert_eq!((tags.prefix.as_str(), tags.after, tags.limit), ("user/", Some(tag("user/1")), 5));
        let tags = vec![(tag("user/2"), Seq(8))];
        peer.answer(corr, &TagsReply { tags, more: true, position: Position(Seq(9)) });
        let (corr, set_aux) = peer.expect::<op::SetAux>().await;
        assert_eq!((set_aux.seq, &set_aux.aux[..]), (Seq(8), &b"hint"[..]));
        peer.answer(corr, &boki_wire::log::AuxSet);
        let (corr, append) = peer.append().await;
        assert_eq!(append.batch.kind(), Kind::Trim { tag: Some(tag("user/2")), below: Seq(8) });
        peer.appended(corr, 10);
    };
    let asking = async {
        let page = book.tags("user/").after("user/1").limit(5).await.unwrap();
        assert_eq!((page.tags, page.more), (vec![("user/2".to_owned(), Seq(8))], true));
        book.set_aux(8, "hint").await.unwrap();
        book.trim().tag("user/2").below(8).await.unwrap();
    };
    tokio::join!(asking, serving);
}

#[tokio::test]
async fn books_are_made_listed_and_removed_by_name() {
    let fake = Fake::start().await;
    let (client, mut peer) = fake.client().await;
    let orders = BookIs { id: BOOK, created_us: 5, name: "orders".into() };
    let serving = async {
        let (corr, create) = peer.expect::<BookCreate>().await;
        assert_eq!(create.name, "orders");
        peer.answer(corr, &orders);
        let (corr, BookList) = peer.expect::<BookList>().await;
        peer.answer(corr, &BooksAre { books: vec![orders.clone()] });
        let (corr, remove) = peer.expect::<BookRemove>().await;
        assert_eq!(remove.name, "orders");
        peer.answer(corr, &BookRemoved);
        let (corr, _) = peer.expect::<BookCreate>().await;
        peer.fail(corr, &LogError::BookExists { name: "orders".into() });
    };
    let asking = async {
        assert_eq!(client.create_book("orders").await.unwrap().id(), BOOK);
        let books = client.books().await.unwrap();
        assert_eq!((books[0].name.as_str(), books[0].created_us), ("orders", 5));
        client.remove_book("orders").await.unwrap();
        assert_eq!(client.create_book("orders").await.unwrap_err().code(), "BK0111");
    };
    tokio::join!(asking, serving);
}

#[tokio::test]
async fn a_call_carries_the_position_there_and_back() {
    let fake = Fake::start().await;
    let (client, mut peer) = fake.client().await;
    let (book, ()) = tokio::join!(client.book("orders"), peer.open_book());
    let book = book.unwrap();
    book.advance_to(Position(Seq(20)));
    let id = CallId([7; 16]);
    let serving = async {
        let (corr, call) = peer.expect::<Call>().await;
        assert_eq!((call.function.as_str(), call.book, call.position), ("checkout", BOOK, Position(Seq(20))));
        assert_eq!(call.idempotency_key.as_deref(), Some("order-1"));
        assert_eq!((call.deadline, call.detached), (Some(Duration::from_secs(5)), false));
        assert_eq!((call.content_type.as_str(), &call.input[..]), ("application/json", &b"{\"n\":1}"[..]));
        let output = Bytes::from_static(b"[2]");
        let content_type = "application/json".into();
        peer.answer(corr, &CallResult { call: id, position: Position(Seq(25)), attempts: 2, content_type, output });
        let (corr, call) = peer.expect::<Call>().await;
        assert_eq!(call.position, Position(Seq(25)));
        let details = json!({"position": 30, "function": "checkout"}).as_object().unwrap().clone();
        peer.answer(corr, &ErrorReply::new("BK0402", "function failed".into(), Retry::Never, details));
        let (corr, call) = peer.expect::<Call>().await;
        assert_eq!((call.book.0, call.detached), (0, true));
        assert!(call.idempotency_key.is_some(), "a detached call can always be repeated");
        peer.answer(corr, &CallAccepted { call: id, position: Position(Seq(31)) });
        let (corr, wait) = peer.expect::<CallWait>().await;
        assert_eq!((wait.call, wait.wait), (id, None));
        peer.answer(corr, &CallPending);
    };
    let asking = async {
        let call = client.call("checkout", Json(json!({"n": 1}))).book(&book).key("order-1");
        let output = call.deadline(Duration::from_secs(5)).await.unwrap();
        assert_eq!((output.json::<Vec<u32>>().unwrap(), output.attempts), (vec![2], 2));
        let error = client.call("checkout", "").book(&book).await.unwrap_err();
        assert_eq!(error.code(), "BK0402");
        assert_eq!(book.position(), Position(Seq(30)), "a failed call has been seen too");
        let sent = client.call("checkout", "").detach().await.unwrap();
        assert_eq!(sent.id, id);
        assert_eq!(client.default_call_result(id, None).await.unwrap(), None);
    };
    tokio::join!(asking, serving);
}

#[tokio::test]
async fn functions_are_listed_and_pings_answered() {
    let fake = Fake::start().await;
    let (client, mut peer) = fake.client().await;
    peer.answer(99, &Ping);
    let (corr, Pong) = peer.expect::<Pong>().await;
    assert_eq!(corr, 99);
    let (functions, ()) = tokio::join!(client.functions(), async {
        let (corr, FunctionList) = peer.expect::<FunctionList>().await;
        let function = FunctionIs {
            name: "checkout".into(),
            description: String::new(),
            workers: 1,
            running: 2,
            queued: 3,
            max_attempts: 4,
            timeout_ms: 60_000,
        };
        peer.answer(corr, &FunctionsAre { functions: vec![function] });
    });
    let functions = functions.unwrap();
    assert_eq!((functions[0].queued, functions[0].timeout), (3, Duration::from_secs(60)));
    let (pong, ()) = tokio::join!(client.ping(), async {
        let (corr, Ping) = peer.expect::<Ping>().await;
        peer.answer(corr, &Pong);
    });
    pong.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_an_error_of_its_question_alone() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let (tail, ()) = tokio::join!(book.tail().into_future(), async {
        let (corr, _) = peer.expect::<op::Tail>().await;
        peer.answer(corr, &BookRemoved);
    });
    assert_eq!(tail.unwrap_err().code(), "BK0616");
    let (tail, ()) = tokio::join!(book.tail().into_future(), async {
        let (corr, _) = peer.expect::<op::Tail>().await;
        peer.outbox.push(TailReply::KIND, corr, |body| body.fields().extend_from_slice(b"short"));
        peer.outbox.flush();
    });
    assert_eq!(tail.unwrap_err().code(), "BK0616");
}

#[tokio::test]
async fn the_last_handle_ends_the_connection() {
    let fake = Fake::start().await;
    let (book, mut peer) = fake.book().await;
    let clone = book.clone();
    drop(book);
    assert!(peer.is_quiet());
    drop(clone);
    assert!(peer.is_hung_up().await);
}

#[tokio::test]
async fn a_closed_client_fails_what_is_open() {
    let fake = Fake::start().await;
    let (client, mut peer) = fake.client().await;
    let (book, ()) = tokio::join!(client.book("orders"), peer.open_book());
    let book = book.unwrap();
    let append = book.append("x").send().await.unwrap();
    client.close();
    assert!(matches!(append.await, Err(Error::Closed)));
    assert!(matches!(book.append("x").await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_server_that_is_not_there_or_is_not_boki_is_an_error() {
    let fake = Fake::start().await;
    let address = fake.address();
    drop(fake);
    assert_eq!(Client::connect(&address).await.unwrap_err().code(), "BK0612");
    assert_eq!(Client::connect("unix:/nonexistent/boki.sock").await.unwrap_err().code(), "BK0612");
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap().to_string();
    let (client, ()) = tokio::join!(Client::connect(&address), async {
        let (mut stream, _) = other.accept().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    });
    assert_eq!(client.unwrap_err().code(), "BK0616");
}
