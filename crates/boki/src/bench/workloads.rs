//! The loads: what each client does again and again.

use std::time::Duration;

use boki_sdk::{Book, Client, Seq};
use bytes::Bytes;

use super::http::{HttpConnection, request};
use super::latency::{Measured, Plan, broken, closed_loop};
use super::process::{resident_bytes, sleeps};
use super::target::{ServerUnderTest, Worker};
use super::worker::NOOP;
use crate::cli::{BenchOptions, Workload};
use crate::failure::Failure;
use crate::remote::of_server;

/// The book that everything goes to.
const BOOK: &str = "default";
/// Tags that appends are spread over, and reads look at.
const TAGS: u32 = 64;

/// One measured figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What was done.
    pub(crate) workload: &'static str,
    /// How many at once.
    pub(crate) in_flight: u32,
    pub(crate) measured: Measured,
}

/// A server without load.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    pub(crate) resident_bytes: u64,
    /// Share of one core.
    pub(crate) cpu_share: f64,
    pub(crate) sleeps_per_second: f64,
    pub(crate) first_answer: Option<Duration>,
}

pub(crate) const APPEND: &str = "append";
pub(crate) const READ: &str = "read last of a tag";
pub(crate) const CALL: &str = "HTTP call of a no-op";
pub(crate) const HTTP_APPEND: &str = "HTTP append";

/// Measures one workload; `note` is told what is being done.
pub(crate) async fn run(
    workload: &Workload,
    options: &BenchOptions,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>, Failure> {
    match workload {
        Workload::Append { in_flight } => append(in_flight, options, note).await,
        Workload::Read { in_flight } => read(in_flight, options, note).await,
        Workload::Http { clients } => http_append(clients, options, note).await,
        Workload::Call { clients } => call(clients, options, note).await,
        Workload::Idle { .. } | Workload::All => Ok(Vec::new()),
    }
}

fn plan(options: &BenchOptions) -> Plan {
    Plan { warm_up: Duration::from_secs_f64(options.warm_up), measure: Duration::from_secs_f64(options.seconds) }
}

fn payload(options: &BenchOptions) -> Bytes {
    // Neither JSON nor all the same byte, so that no shortcut applies.
    (0..options.size).map(|at| b'a' + (at % 23) as u8).collect()
}

async fn books(server: &ServerUnderTest, options: &BenchOptions) -> Result<Vec<Book>, Failure> {
    let mut books = Vec::new();
    for _ in 0..options.connections {
        let client = Client::connect(server.address()).await.map_err(|error| of_server(&error, None))?;
        books.push(client.book(BOOK).await.map_err(|error| of_server(&error, Some(BOOK)))?);
    }
    Ok(books)
}

async fn append(counts: &[u32], options: &BenchOptions, note: &mut dyn FnMut(&str)) -> Result<Vec<Figure>, Failure> {
    let server = ServerUnderTest::prepare(options, Worker::None).await?;
    let books = books(&server, options).await?;
    let mut figures = Vec::new();
    for &in_flight in counts {
        note(&format!("{APPEND}, {in_flight} in flight"));
        let clients = spread(&books, in_flight).map(|(number, book)| {
            let payload = payload(options);
            let tag = tag(number);
            async move || {
                let append = book.append(payload.clone()).tag(&tag);
                append.await.map(|_| ()).map_err(|error| of_server(&error, Some(BOOK)))
            }
        });
        let measured = closed_loop(plan(options), server.cpu()?, clients.collect()).await?;
        figures.push(Figure { workload: APPEND, in_flight, measured });
    }
    Ok(figures)
}

async fn read(counts: &[u32], options: &BenchOptions, note: &mut dyn FnMut(&str)) -> Result<Vec<Figure>, Failure> {
    let server = ServerUnderTest::prepare(options, Worker::None).await?;
    let books = books(&server, options).await?;
    let first = books.first().ok_or_else(|| broken("there is no connection"))?;
    for number in 0..TAGS {
        first.append(payload(options)).tag(tag(number)).await.map_err(|error| of_server(&error, Some(BOOK)))?;
    }
    let mut figures = Vec::new();
    for &in_flight in counts {
        note(&format!("{READ}, {in_flight} in flight"));
        let clients = spread(&books, in_flight).map(|(number, book)| {
            let tag = tag(number);
            async move || {
                let found = book.read_prev(Seq::MAX).tag(tag.as_str()).first().await;
                match found.map_err(|error| of_server(&error, Some(BOOK)))? {
                    Some(_) => Ok(()),
                    None => Err(broken("a record that was appended is not found")),
                }
            }
        });
        let measured = closed_loop(plan(options), server.cpu()?, clients.collect()).await?;
        figures.push(Figure { workload: READ, in_flight, measured });
    }
    Ok(figures)
}

async fn http_append(
    counts: &[u32],
    options: &BenchOptions,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>, Failure> {
    let server = ServerUnderTest::prepare(options, Worker::None).await?;
    let mut figures = Vec::new();
    for &clients in counts {
        note(&format!("{HTTP_APPEND}, clients: {clients}"));
        let requests = (0..clients).map(|number| {
            let headers = format!("content-type: application/octet-stream\r\nboki-tags: {}\r\n", tag(number));
            request("POST", &format!("/v1/books/{BOOK}/records"), server.address(), &headers, &payload(options))
        });
        let measured = exchange(&server, options, requests.collect()).await?;
        figures.push(Figure { workload: HTTP_APPEND, in_flight: clients, measured });
    }
    Ok(figures)
}

async fn call(counts: &[u32], options: &BenchOptions, note: &mut dyn FnMut(&str)) -> Result<Vec<Figure>, Failure> {
    let server = ServerUnderTest::prepare(options, Worker::Noop).await?;
    let request =
        request("POST", &format!("/call/{NOOP}"), server.address(), "content-type: application/json\r\n", b"null");
    // The first call waits until the worker has started.
    HttpConnection::open(server.address()).await?.exchange(&request).await?;
    let mut figures = Vec::new();
    for &clients in counts {
        note(&format!("{CALL}, clients: {clients}"));
        let measured = exchange(&server, options, vec![request.clone(); clients as usize]).await?;
        figures.push(Figure { workload: CALL, in_flight: clients, measured });
    }
    Ok(figures)
}

/// One keep-alive connection for each of `requests`, on which it is sent again and again.
async fn exchange(
    server: &ServerUnderTest,
    options: &BenchOptions,
    requests: Vec<Vec<u8>>,
) -> Result<Measured, Failure> {
    let mut clients = Vec::new();
    for request in requests {
        let mut connection = HttpConnection::open(server.address()).await?;
        clients.push(async move || connection.exchange(&request).await);
    }
    closed_loop(plan(options), server.cpu()?, clients).await
}

/// Watches a server that nobody uses.
pub(crate) async fn idle(
    window: f64,
    options: &BenchOptions,
    note: &mut dyn FnMut(&str),
) -> Result<Option<Idle>, Failure> {
    let server = ServerUnderTest::prepare(options, Worker::None).await?;
    let (Some(pid), Some(cpu)) = (server.pid(), server.cpu()?) else { return Ok(None) };
    note(&format!("idle, {window} s"));
    // What starting has left to do is not idleness.
    tokio::time::sleep(Duration::from_secs_f64(options.warm_up)).await;
    let before = (cpu.used()?, sleeps(pid)?);
    tokio::time::sleep(Duration::from_secs_f64(window)).await;
    let after = (cpu.used()?, sleeps(pid)?);
    Ok(Some(Idle {
        resident_bytes: resident_bytes(pid)?,
        cpu_share: after.0.saturating_sub(before.0).as_secs_f64() / window,
        sleeps_per_second: after.1.saturating_sub(before.1) as f64 / window,
        first_answer: server.first_answer,
    }))
}

/// Deals clients out to connections.
fn spread(books: &[Book], clients: u32) -> impl Iterator<Item = (u32, Book)> + '_ {
    (0..clients).zip(books.iter().cycle().cloned())
}

fn tag(number: u32) -> String {
    format!("bench/{}", number % TAGS)
}
