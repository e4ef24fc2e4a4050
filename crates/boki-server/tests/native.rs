//! Native connections against a real server: through the client library, and frame by frame where it would never
//! do such a thing.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::time::Duration;

use boki_log::op::{Consistency, Direction, Read};
use boki_log::{BookId, LogError, Position, Seq};
use boki_net::{Broken, Config as LinkConfig, Connection, Frame, Outbox, PREAMBLE};
use boki_sdk::{AppendId, Client, Error};
use boki_server::config::Span;
use boki_server::{Config, Server};
use boki_wire::{BookOpen, Call, Cancel, ErrorReply, Hello, HelloOk, Message, Ping, Pong, Role, kinds};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start() -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config.server.data = dir.path().join("data");
    config.server.shutdown_grace = Span(Duration::from_secs(20));
    (Server::start(config).await.unwrap(), dir)
}

async fn client(server: &Server) -> Client {
    Client::connect(&server.local_addr().to_string()).await.unwrap()
}

/// A connection by hand.
struct Raw {
    connection: Connection<TcpStream>,
    outbox: Outbox,
}

impl Raw {
    async fn open(server: &Server) -> Raw {
        let stream = TcpStream::connect(server.local_addr()).await.unwrap();
        let outbox = Outbox::new(64 << 20);
        let connection = Connection::opened(stream, outbox.clone(), LinkConfig::opening());
        Raw { connection, outbox }
    }

    async fn greeted(server: &Server) -> Raw {
        let mut raw = Raw::open(server).await;
        Hello { version: 1, role: Role::Client, name: "raw".into() }.push(&raw.outbox, 0);
        let hello: HelloOk = raw.expect(0).await;
        assert_eq!((hello.version, hello.max_in_flight), (1, 16384));
        raw
    }

    /// The next frame; `None`: the server has hung up.
    async fn frame(&mut self) -> Option<Frame> {
        match self.connection.run(&mut Err::<(), Frame>).await {
            Err(Broken::Refused(frame)) => Some(frame),
            _ => None,
        }
    }

    async fn expect<M: Message>(&mut self, corr: u64) -> M {
        let frame = self.frame().await.expect("the server hung up");
        assert_eq!((frame.kind, frame.corr), (M::KIND, corr));
        M::decode(&frame.body).unwrap()
    }

    /// That the server says `code` under `corr`.
    async fn expect_error(&mut self, corr: u64, code: &str) {
        let error: ErrorReply = self.expect(corr).await;
        assert_eq!(error.code, code, "{}", error.message);
    }
}

fn waiting_read(book: BookId) -> Read {
    Read {
        book,
        tag: None,
        from: Seq(1),
        direction: Direction::Next,
        limit: 1,
        consistency: Consistency::Any,
        wait: Some(Duration::from_secs(600)),
    }
}

#[tokio::test]
async fn everything_about_a_book_works_over_a_connection() {
    let (server, _dir) = start().await;
    let client = client(&server).await;
    assert_eq!(client.book("orders").await.unwrap_err().code(), "BK0110");
    let book = client.create_book("orders").await.unwrap();
    assert_eq!(client.create_book("orders").await.unwrap_err().code(), "BK0111");
    assert_eq!(client.book("orders").await.unwrap().id(), book.id());
    let names: Vec<_> = client.books().await.unwrap().into_iter().map(|book| book.name).collect();
    assert_eq!(names, ["default", "orders"]);

    let first = book.append(b"hello").tags(["user/42", "a"]).await.unwrap();
    let second = book.append(b"again").tag("user/42").if_tail("user/42", first).await.unwrap();
    let failed = book.append(b"no").tag("user/42").if_tail("user/42", first).await.unwrap_err();
    assert!(matches!(
        failed,
        Error::Log(LogError::ConditionFailed { expected, actual, .. }) if (expected, actual) == (first, second)
    ));
    book.append(b"mine").raise("lock", 5).await.unwrap();
    let fenced = book.append(b"late").fence("lock", 4).await.unwrap_err();
    assert!(matches!(fenced, Error::Log(LogError::Fenced { epoch: 4, fence: 5, .. })));
    assert_eq!(book.append(b"x").tag("~mine").await.unwrap_err().code(), "BK0103");

    let records = book.read_next(1).tag("user/42").await.unwrap();
    let payloads: Vec<_> = records.iter().map(|record| record.data().to_vec()).collect();
    assert_eq!(payloads, [b"hello", b"again"]);
    assert_eq!(records[0].tags().collect::<Vec<_>>(), ["a", "user/42"]);
    let last = book.read_prev(u64::MAX).tag("user/42").linearizable().first().await.unwrap().unwrap();
    assert_eq!(last.seq, second);
    assert_eq!(book.tail().tag("user/42").await.unwrap(), second);
    assert_eq!(book.tail().tag("none").await.unwrap(), Seq::NONE);
    let page = book.tags("").limit(1).await.unwrap();
    assert_eq!((page.tags, page.more), (vec![("a".to_owned(), first)], true));
    let page = book.tags("").after("a").await.unwrap();
    assert_eq!(page.tags, [("user/42".to_owned(), second)]);

    book.set_aux(first, b"hint").await.unwrap();
    assert_eq!(book.read_next(first).first().await.unwrap().unwrap().aux, Some(Bytes::from_static(b"hint")));
    book.trim().tag("user/42").below(second).await.unwrap();
    assert_eq!(book.read_next(1).tag("user/42").await.unwrap().len(), 1);

    client.remove_book("orders").await.unwrap();
    assert_eq!(client.book("orders").await.unwrap_err().code(), "BK0110");
    server.shutdown().await;
}

#[tokio::test]
async fn an_append_repeated_with_its_id_adds_nothing() {
    let (server, _dir) = start().await;
    let book = client(&server).await.book("default").await.unwrap();
    let id = AppendId([3; 16]);
    let first = book.append(b"x").tag("t").id(id).outcome().await.unwrap();
    let again = book.append(b"x").tag("t").id(id).outcome().await.unwrap();
    assert_eq!((first.seq, first.repeated, again.repeated), (again.seq, false, true));
    assert_eq!(book.read_next(1).tag("t").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_appends_in_flight_keep_their_order() {
    let (server, _dir) = start().await;
    let book = client(&server).await.book("default").await.unwrap();
    let mut sent = Vec::new();
    for n in 0..3000_u64 {
        sent.push(book.append(&n.to_le_bytes()).tag("t").send().await.unwrap());
    }
    let mut last = Seq::NONE;
    for append in sent {
        let seq = append.await.unwrap().seq.unwrap();
        assert!(seq > last);
        last = seq;
    }
    let mut from = Seq::FIRST;
    let mut numbers = Vec::new();
    loop {
        let records = book.read_next(from).tag("t").limit(1000).await.unwrap();
        let Some(record) = records.last() else { break };
        from = record.seq.next();
        numbers.extend(records.iter().map(|record| u64::from_le_bytes(record.data().try_into().unwrap())));
    }
    assert_eq!(numbers, (0..3000).collect::<Vec<u64>>());
}

#[tokio::test]
async fn large_records_go_there_and_back_over_the_unix_socket() {
    let (server, _dir) = start().await;
    let client = Client::connect(&server.local_url()).await.unwrap();
    let book = client.book("default").await.unwrap();
    let payload: Vec<u8> = (0..8_u32 << 20).map(|n| ((n * 31) >> 7) as u8).collect();
    let seq = book.append(&payload).await.unwrap();
    let record = book.read_next(seq).first().await.unwrap().unwrap();
    assert!(record.data() == payload);
    let too_large = book.append(vec![0; (8 << 20) + 1]).await.unwrap_err();
    assert_eq!(too_large.code(), "BK0104");
}

#[tokio::test]
async fn a_subscriber_sees_what_another_connection_appends() {
    let (server, _dir) = start().await;
    let reader = client(&server).await.book("default").await.unwrap();
    let writer = client(&server).await.book("default").await.unwrap();
    let mut subscription = reader.subscribe(1).tag("news");
    let mut next = Box::pin(subscription.next());
    // The read is waiting at the server once a later question on the same connection has been answered.
    tokio::select! {
        _ = &mut next => panic!("there is no record yet"),
        tail = reader.tail().into_future() => tail.unwrap(),
    };
    writer.append(b"other").await.unwrap();
    let seq = writer.append(b"one").tag("news").await.unwrap();
    assert_eq!(next.await.unwrap().seq, seq);
    let (record, _) = tokio::join!(subscription.next(), writer.append(b"two").tag("news").into_future());
    assert_eq!(record.unwrap().data(), b"two");
    let nothing = reader.read_next(Seq::MAX).wait(Duration::from_millis(1)).await.unwrap();
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_waiting_read_ends_with_its_cancellation_or_its_connection() {
    let (server, _dir) = start().await;
    let book = client(&server).await.create_book("quiet").await.unwrap();
    let mut raw = Raw::greeted(&server).await;
    waiting_read(book.id()).push(&raw.outbox, 7);
    waiting_read(book.id()).push(&raw.outbox, 8);
    Ping.push(&raw.outbox, 1);
    let Pong = raw.expect(1).await;
    assert_eq!(server.node().status().waiting, 2);
    Cancel.push(&raw.outbox, 7);
    Cancel.push(&raw.outbox, 99);
    Ping.push(&raw.outbox, 2);
    let Pong = raw.expect(2).await;
    assert_eq!(server.node().status().waiting, 1);
    // Its number is free again.
    waiting_read(book.id()).push(&raw.outbox, 7);
    book.append(b"x").await.unwrap();
    for _ in 0..2 {
        assert_eq!(raw.frame().await.unwrap().kind, kinds::RECORDS);
    }
    let from = book.position().0;
    Read { from, ..waiting_read(book.id()) }.push(&raw.outbox, 9);
    Ping.push(&raw.outbox, 3);
    let Pong = raw.expect(3).await;
    assert_eq!(server.node().status().waiting, 1);
    drop(raw);
    while server.node().status().waiting > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused_one_by_one() {
    let (server, _dir) = start().await;
    let mut raw = Raw::greeted(&server).await;
    raw.outbox.push(kinds::APPEND, 1, |body| body.fields().extend_from_slice(b"\0garbage"));
    raw.expect_error(1, "BK0101").await;
    raw.outbox.push(60, 2, |_| {});
    raw.expect_error(2, "BK0602").await;
    raw.outbox.push_frame(&Frame { kind: kinds::BOOK_LIST, flags: 4, corr: 3, body: Bytes::new() });
    raw.expect_error(3, "BK0101").await;
    BookOpen { name: "no such book".into() }.push(&raw.outbox, 4);
    raw.expect_error(4, "BK0112").await;
    let call = Call {
        book: BookId(0),
        position: Position::START,
        deadline: None,
        detached: false,
        priority: 5,
        parent: 0,
        function: "nobody".into(),
        idempotency_key: None,
        limit_key: None,
        content_type: String::new(),
        input: Bytes::new(),
    };
    call.push(&raw.outbox, 5);
    raw.expect_error(5, "BK0401").await;
    Call { book: BookId(999_999), ..call }.push(&raw.outbox, 6);
    raw.expect_error(6, "BK0110").await;
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_and_cut_off() {
    let (server, _dir) = start().await;
    let breaches: [fn(&Outbox); 5] = [
        |outbox| Ping.push(outbox, 1),
        |outbox| Hello { version: 0, role: Role::Client, name: String::new() }.push(outbox, 0),
        |outbox| {
            Hello { version: 1, role: Role::Client, name: String::new() }.push(outbox, 0);
            outbox.push(boki_wire::worker::DRAIN, 1, |_| {});
        },
        |outbox| {
            Hello { version: 1, role: Role::Worker, name: String::new() }.push(outbox, 0);
            outbox.push(boki_wire::worker::INVOKE_DONE, 1, |_| {});
        },
        |outbox| {
            Hello { version: 1, role: Role::Client, name: String::new() }.push(outbox, 0);
            outbox.push(kinds::BOOK_LIST, 0, |_| {});
        },
    ];
    for breach in breaches {
        let mut raw = Raw::open(&server).await;
        breach(&raw.outbox);
        let mut last = None;
        while let Some(frame) = raw.frame().await {
            last = Some(frame);
        }
        let last = last.expect("the server says why");
        assert_eq!((last.kind, last.corr), (kinds::ERROR, 0));
        let code = ErrorReply::decode(&last.body).unwrap().code;
        assert!(["BK0601", "BK0603"].contains(&code.as_str()), "{code}");
    }
}

#[tokio::test]
async fn garbage_after_the_preamble_ends_the_connection_with_an_error() {
    let (server, _dir) = start().await;
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(&[&PREAMBLE[..], &[0xff; 100]].concat()).await.unwrap();
    let mut answer = Vec::new();
    // The server hangs up with bytes unread, which may show as a reset.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer[4] == kinds::ERROR);
    client(&server).await.books().await.unwrap();
}

#[tokio::test]
async fn a_connection_may_not_have_too_many_questions_open() {
    let (server, _dir) = start().await;
    let book = client(&server).await.create_book("quiet").await.unwrap();
    let mut raw = Raw::greeted(&server).await;
    for corr in 1..=16385 {
        waiting_read(book.id()).push(&raw.outbox, corr);
    }
    raw.expect_error(16385, "BK0304").await;
    Cancel.push(&raw.outbox, 5);
    waiting_read(book.id()).push(&raw.outbox, 20000);
    Ping.push(&raw.outbox, 1);
    let Pong = raw.expect(1).await;
    assert_eq!(server.node().status().waiting, 16384);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_off_and_nobody_else_notices() {
    let (server, _dir) = start().await;
    let book = client(&server).await.create_book("big").await.unwrap();
    let mut raw = Raw::greeted(&server).await;
    // More than the outbox takes, without a wait: asked for in one go, answered when the record comes.
    let from = book.position().0;
    for corr in 1..=40 {
        Read { from, ..waiting_read(book.id()) }.push(&raw.outbox, corr);
    }
    Ping.push(&raw.outbox, 99);
    let Pong = raw.expect(99).await;
    // Its task must not run now: it would read.
    book.append(vec![8; 8 << 20]).await.unwrap();
    let mut heard = 0;
    let ended = raw
        .connection
        .run(&mut |_: Frame| {
            heard += 1;
            Ok::<(), Infallible>(())
        })
        .await;
    assert!(heard < 40, "{heard} {ended:?}");
    assert_eq!(book.tail().await.unwrap().next(), book.position().0);
}

#[tokio::test]
async fn a_server_that_stops_answers_what_is_open() {
    let (server, _dir) = start().await;
    let book = client(&server).await.create_book("quiet").await.unwrap();
    let mut raw = Raw::greeted(&server).await;
    waiting_read(book.id()).push(&raw.outbox, 7);
    Ping.push(&raw.outbox, 1);
    let Pong = raw.expect(1).await;
    let heard = async {
        raw.expect_error(7, "BK0305").await;
        assert!(raw.frame().await.is_none());
    };
    tokio::join!(server.shutdown(), heard);
}

#[tokio::test]
async fn a_client_goes_on_with_the_server_that_comes_back() {
    let (server, dir) = start().await;
    let address = server.local_addr();
    let config = server.config().clone();
    let book = client(&server).await.book("default").await.unwrap();
    let first = book.append(b"1").tag("t").await.unwrap();
    server.shutdown().await;
    let mut second = pin!(book.append(b"2").tag("t").if_tail("t", first).into_future());
    let waker = std::task::Waker::noop();
    assert!(second.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    let mut config = config;
    config.server.listen = address;
    let server = Server::start(config).await.unwrap();
    let second = second.await.unwrap();
    assert_eq!(book.read_prev(second).tag("t").await.unwrap().len(), 2);
    server.shutdown().await;
    drop(dir);
}
