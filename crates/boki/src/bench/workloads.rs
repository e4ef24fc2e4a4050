//! The loads: what each client does again and again.

use std::time::Duration;

use boki_sdk::{Book, Client, Seq};
use bytes::Bytes;

use super::http::{HttpConnection, request};
use super::latency::{Load, Measured, Plan, broken, closed_loop};
use super::machine::{Meter, Pace};
use super::process::{resident_bytes, sleeps};
use super::target::{ServerUnderTest, Worker, folder};
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
    /// The machine's, directly before and after.
    pub(crate) pace: Pace,
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

/// What was measured so far, and what measures.
pub(crate) struct Loads<'a> {
    options: &'a BenchOptions,
    /// Is told what is being measured.
    note: &'a dyn Fn(&str),
    meter: Meter,
    pace: Pace,
    figures: Vec<Figure>,
}

impl<'a> Loads<'a> {
    pub(crate) fn new(options: &'a BenchOptions, note: &'a dyn Fn(&str)) -> Result<Loads<'a>, Failure> {
        let mut meter = Meter::new(&folder(options), options.size as usize)?;
        let pace = meter.pace(pace_time(options))?;
        Ok(Loads { options, note, meter, pace, figures: Vec::new() })
    }

    /// All figures, and the machine's pace over the whole time.
    pub(crate) fn finish(mut self) -> Result<(Vec<Figure>, Pace), Failure> {
        self.pace.merge(&self.meter.pace(pace_time(self.options))?);
        Ok((self.figures, self.pace))
    }

    /// Measures one workload.
    pub(crate) async fn run(&mut self, workload: &Workload) -> Result<(), Failure> {
        match workload {
            Workload::Append { in_flight } => self.append(in_flight).await,
            Workload::Read { in_flight } => self.read(in_flight).await,
            Workload::Http { clients } => self.http_append(clients).await,
            Workload::Call { clients } => self.call(clients).await,
            Workload::Idle { .. } | Workload::All => Ok(()),
        }
    }

    /// One figure: the machine, the load, the machine again.
    async fn figure<L: Load>(
        &mut self,
        workload: &'static str,
        server: &ServerUnderTest,
        clients: Vec<L>,
    ) -> Result<(), Failure> {
        let in_flight = u32::try_from(clients.len()).unwrap_or(u32::MAX);
        (self.note)(&format!("{workload}, {in_flight} at once"));
        let mut pace = self.meter.pace(pace_time(self.options))?;
        let seconds = Duration::from_secs_f64;
        let plan = Plan { warm_up: seconds(self.options.warm_up), measure: seconds(self.options.seconds) };
        let measured = closed_loop(plan, server.cpu()?, clients).await?;
        pace.merge(&self.meter.pace(pace_time(self.options))?);
        self.pace.merge(&pace);
        self.figures.push(Figure { workload, in_flight, measured, pace });
        Ok(())
    }

    fn payload(&self) -> Bytes {
        // Neither JSON nor all the same byte, so that no shortcut applies.
        (0..self.options.size).map(|at| b'a' + (at % 23) as u8).collect()
    }

    async fn books(&self, server: &ServerUnderTest) -> Result<Vec<Book>, Failure> {
        let mut books = Vec::new();
        for _ in 0..self.options.connections {
            let client = Client::connect(server.address()).await.map_err(|error| of_server(&error, None))?;
            books.push(client.book(BOOK).await.map_err(|error| of_server(&error, Some(BOOK)))?);
        }
        Ok(books)
    }

    async fn append(&mut self, counts: &[u32]) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Worker::None).await?;
        let books = self.books(&server).await?;
        for &in_flight in counts {
            let payload = self.payload();
            let clients = spread(&books, in_flight).map(|(number, book)| Append {
                book,
                tag: tag(number),
                payload: payload.clone(),
            });
            self.figure(APPEND, &server, clients.collect()).await?;
        }
        Ok(())
    }

    async fn read(&mut self, counts: &[u32]) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Worker::None).await?;
        let books = self.books(&server).await?;
        let first = books.first().ok_or_else(|| broken("there is no connection"))?;
        for number in 0..TAGS {
            first.append(self.payload()).tag(tag(number)).await.map_err(|error| of_server(&error, Some(BOOK)))?;
        }
        for &in_flight in counts {
            let clients = spread(&books, in_flight).map(|(number, book)| ReadLast { book, tag: tag(number) });
            self.figure(READ, &server, clients.collect()).await?;
        }
        Ok(())
    }

    async fn http_append(&mut self, counts: &[u32]) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Worker::None).await?;
        let path = format!("/v1/books/{BOOK}/records");
        for &clients in counts {
            let requests = (0..clients).map(|number| {
                let headers = format!("content-type: application/octet-stream\r\nboki-tags: {}\r\n", tag(number));
                request("POST", &path, server.address(), &headers, &self.payload())
            });
            self.exchange(HTTP_APPEND, &server, requests.collect()).await?;
        }
        Ok(())
    }

    async fn call(&mut self, counts: &[u32]) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Worker::Noop).await?;
        let headers = "content-type: application/json\r\n";
        let request = request("POST", &format!("/call/{NOOP}"), server.address(), headers, b"null");
        // The first call waits until the worker has started.
        HttpConnection::open(server.address()).await?.exchange(&request).await?;
        for &clients in counts {
            self.exchange(CALL, &server, vec![request.clone(); clients as usize]).await?;
        }
        Ok(())
    }

    /// One keep-alive connection for each of `requests`, on which it is sent again and again.
    async fn exchange(
        &mut self,
        workload: &'static str,
        server: &ServerUnderTest,
        requests: Vec<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut clients = Vec::new();
        for request in requests {
            clients.push(Exchange { connection: HttpConnection::open(server.address()).await?, request });
        }
        self.figure(workload, server, clients).await
    }

    /// Watches a server that nobody uses.
    pub(crate) async fn idle(&mut self, window: f64) -> Result<Option<Idle>, Failure> {
        let server = ServerUnderTest::prepare(self.options, Worker::None).await?;
        let (Some(pid), Some(cpu)) = (server.pid(), server.cpu()?) else { return Ok(None) };
        (self.note)(&format!("idle, {window} s"));
        // What starting has left to do is not idleness.
        tokio::time::sleep(Duration::from_secs_f64(self.options.warm_up)).await;
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
}

/// Appends to a tag.
struct Append {
    book: Book,
    tag: String,
    payload: Bytes,
}

impl Load for Append {
    async fn once(&mut self) -> Result<(), Failure> {
        let append = self.book.append(self.payload.clone()).tag(&self.tag);
        append.await.map(|_| ()).map_err(|error| of_server(&error, Some(BOOK)))
    }
}

/// Reads the last record of a tag.
struct ReadLast {
    book: Book,
    tag: String,
}

impl Load for ReadLast {
    async fn once(&mut self) -> Result<(), Failure> {
        let found = self.book.read_prev(Seq::MAX).tag(self.tag.as_str()).first().await;
        match found.map_err(|error| of_server(&error, Some(BOOK)))? {
            Some(_) => Ok(()),
            None => Err(broken("a record that was appended is not found")),
        }
    }
}

/// Sends a request and reads its answer.
struct Exchange {
    connection: HttpConnection,
    request: Vec<u8>,
}

impl Load for Exchange {
    async fn once(&mut self) -> Result<(), Failure> {
        self.connection.exchange(&self.request).await
    }
}

/// How long each look at the machine takes.
fn pace_time(options: &BenchOptions) -> Duration {
    Duration::from_secs_f64((options.seconds / 8.0).min(0.5))
}

/// Deals clients out to connections.
fn spread(books: &[Book], clients: u32) -> impl Iterator<Item = (u32, Book)> + '_ {
    (0..clients).zip(books.iter().cycle().cloned())
}

fn tag(number: u32) -> String {
    format!("bench/{}", number % TAGS)
}
