//! The loads: which servers they need, and the figures that they give.

use std::time::Duration;

use boki_sdk::{Book, Client};
use bytes::Bytes;

use super::fanout::fan_out;
use super::http::{HttpConnection, request};
use super::index::{Growth, grow};
use super::latency::{Load, Measured, Plan, broken, closed_loop};
use super::loads::{Append, BOOK, Exchange, Nested, Ping, ReadLast};
use super::machine::{Meter, Pace};
use super::nats::Publish;
use super::process::{CpuClock, resident_bytes, sleeps};
use super::stream::{Streamed, stream};
use super::target::{FUNCTIONS_PER_WORKER, ServerUnderTest, Workers, folder};
use super::worker::{NOOP, OUTER, idle_name};
use crate::cli::{BenchOptions, Language, Workload};
use crate::failure::Failure;
use crate::remote::of_server;

/// Tags that appends are spread over, and reads look at.
const TAGS: u32 = 64;

/// One measured figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What was done.
    pub(crate) workload: String,
    /// How many at once.
    pub(crate) in_flight: u32,
    pub(crate) measured: Measured,
    /// The machine's, directly before and after.
    pub(crate) pace: Pace,
}

/// A server without load.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    /// How many functions its workers offer, and how many of them were called once.
    pub(crate) functions: u32,
    pub(crate) called: u32,
    pub(crate) resident_bytes: u64,
    /// Share of one core.
    pub(crate) cpu_share: f64,
    pub(crate) sleeps_per_second: f64,
    pub(crate) first_answer: Option<Duration>,
}

pub(crate) const APPEND: &str = "append";
/// With a connection for each.
pub(crate) const CONNECTIONS: &str = "append, a connection each";
pub(crate) const READ: &str = "read last of a tag";
pub(crate) const PING: &str = "ping on the same connection";
pub(crate) const CALL: &str = "HTTP call of a no-op";
const OUTER_CALL: &str = "HTTP call of a function that calls a no-op";
const NESTED: &str = "the no-op's call, as that function sees it";
pub(crate) const HTTP_APPEND: &str = "HTTP append";

/// What was measured so far, and what measures.
pub(crate) struct Loads<'a> {
    options: &'a BenchOptions,
    /// Is told what is being measured.
    note: &'a dyn Fn(&str),
    meter: Meter,
    pace: Pace,
    figures: Vec<Figure>,
    idle: Vec<Idle>,
    streamed: Vec<Streamed>,
    growth: Growth,
}

/// Everything that was measured, and the machine's pace over the whole time.
pub(crate) struct Measurements {
    pub(crate) figures: Vec<Figure>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) streamed: Vec<Streamed>,
    pub(crate) growth: Growth,
    pub(crate) pace: Pace,
}

impl<'a> Loads<'a> {
    pub(crate) fn new(options: &'a BenchOptions, note: &'a dyn Fn(&str)) -> Result<Loads<'a>, Failure> {
        let mut meter = Meter::new(&folder(options), options.size as usize)?;
        let pace = meter.pace(pace_time(options))?;
        let (figures, idle, streamed) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Loads { options, note, meter, pace, figures, idle, streamed, growth: Growth::default() })
    }

    pub(crate) fn finish(mut self) -> Result<Measurements, Failure> {
        self.pace.merge(&self.meter.pace(pace_time(self.options))?);
        let Loads { figures, idle, streamed, growth, pace, .. } = self;
        Ok(Measurements { figures, idle, streamed, growth, pace })
    }

    /// Measures one workload.
    pub(crate) async fn run(&mut self, workload: &Workload) -> Result<(), Failure> {
        match workload {
            Workload::Append { in_flight, of_size } => self.append(in_flight, *of_size).await,
            Workload::Connections { clients } => self.connections(clients).await,
            Workload::FanOut { subscribers, rate } => self.fan_out(*subscribers, *rate).await,
            Workload::Nats { address, name, clients } => self.nats(address, name, clients).await,
            Workload::Read { in_flight } => self.read(in_flight).await,
            Workload::Http { clients } => self.http_append(clients).await,
            Workload::Call { clients, worker, nested } => self.call(clients, *worker, *nested).await,
            Workload::Stream { megabytes } => {
                (self.note)(&format!("a stream of {megabytes} MB"));
                let server = ServerUnderTest::prepare(self.options, Workers::Noop(Language::Rust)).await?;
                self.streamed.push(stream(&server, u64::from(*megabytes) * 1_000_000).await?);
                Ok(())
            }
            Workload::Index { records } => {
                self.growth = grow(self, *records).await?;
                Ok(())
            }
            Workload::Idle { window, functions, called } => self.idle(*window, *functions, *called).await,
            Workload::Url { url, body, name, pid, clients } => {
                let clock = pid.map(|pid| CpuClock::of(vec![pid]));
                self.url(url, body.as_deref(), name, clock, clients).await
            }
            Workload::Fairness { backlog } => self.fairness(*backlog).await,
            Workload::All => Ok(()),
        }
    }

    /// One figure: the machine, the load, the machine again.
    pub(super) async fn figure<L: Load>(
        &mut self,
        workload: &str,
        server: Option<CpuClock>,
        clients: Vec<L>,
    ) -> Result<(), Failure> {
        let in_flight = u32::try_from(clients.len()).unwrap_or(u32::MAX);
        (self.note)(&format!("{workload}, {in_flight} at once"));
        let mut pace = self.meter.pace(pace_time(self.options))?;
        let (measured, told) = closed_loop(self.plan(), server, clients).await?;
        pace.merge(&self.meter.pace(pace_time(self.options))?);
        self.pace.merge(&pace);
        let figure = |workload: &str, measured| Figure { workload: workload.to_owned(), in_flight, measured, pace };
        if let Some(told) = told {
            self.figures.push(figure.clone()(NESTED, told));
        }
        self.figures.push(figure(workload, measured));
        Ok(())
    }

    fn plan(&self) -> Plan {
        let seconds = Duration::from_secs_f64;
        Plan { warm_up: seconds(self.options.warm_up), measure: seconds(self.options.seconds) }
    }

    pub(super) fn options(&self) -> &'a BenchOptions {
        self.options
    }

    pub(super) fn note(&self, text: &str) {
        (self.note)(text);
    }

    pub(super) fn payload(&self) -> Bytes {
        self.payload_of(self.options.size)
    }

    fn payload_of(&self, size: u32) -> Bytes {
        // Neither JSON nor all the same byte, so that no shortcut applies.
        (0..size).map(|at| b'a' + (at % 23) as u8).collect()
    }

    async fn books(&self, server: &ServerUnderTest) -> Result<Vec<Book>, Failure> {
        books_of(&clients_of(server, self.options.connections).await?).await
    }

    async fn append(&mut self, counts: &[u32], of_size: Option<u32>) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Workers::None).await?;
        let books = self.books(&server).await?;
        let payload = self.payload_of(of_size.unwrap_or(self.options.size));
        let name = of_size.map_or_else(|| APPEND.to_owned(), |size| format!("{APPEND} of {size} bytes"));
        for &in_flight in counts {
            self.figure(&name, server.cpu()?, appends(&books, in_flight, &payload)).await?;
        }
        Ok(())
    }

    async fn connections(&mut self, counts: &[u32]) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Workers::None).await?;
        for &clients in counts {
            let books = books_of(&clients_of(&server, clients).await?).await?;
            self.figure(CONNECTIONS, server.cpu()?, appends(&books, clients, &self.payload())).await?;
        }
        Ok(())
    }

    async fn fan_out(&mut self, subscribers: u32, rate: u32) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Workers::None).await?;
        let books = self.books(&server).await?;
        // The writer does not share a connection with those it writes to.
        let writer = books_of(&clients_of(&server, 1).await?).await?;
        let writer = writer.first().ok_or_else(|| broken("there is no connection"))?;
        (self.note)(&format!("{subscribers} subscribers, {rate} records per second"));
        let mut pace = self.meter.pace(pace_time(self.options))?;
        let size = self.options.size as usize;
        let measured = fan_out(self.plan(), server.cpu()?, writer, &books, (subscribers, rate), size).await?;
        pace.merge(&self.meter.pace(pace_time(self.options))?);
        self.pace.merge(&pace);
        let workload = format!("a record to each of the subscribers, {rate} records per second");
        self.figures.push(Figure { workload, in_flight: subscribers, measured, pace });
        Ok(())
    }

    async fn nats(&mut self, address: &str, name: &str, counts: &[u32]) -> Result<(), Failure> {
        Publish::create_stream(address).await?;
        for &count in counts {
            let mut clients = Vec::new();
            for number in 0..count {
                clients.push(Publish::open(address, number, &self.payload()).await?);
            }
            self.figure(name, None, clients).await?;
        }
        Ok(())
    }

    async fn read(&mut self, counts: &[u32]) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Workers::None).await?;
        let clients = clients_of(&server, self.options.connections).await?;
        let books = books_of(&clients).await?;
        let first = books.first().ok_or_else(|| broken("there is no connection"))?;
        for number in 0..TAGS {
            first.append(self.payload()).tag(tag(number)).await.map_err(|error| of_server(&error, Some(BOOK)))?;
        }
        for &in_flight in counts {
            let pings = (0..in_flight as usize).map(|number| Ping { client: clients[number % clients.len()].clone() });
            self.figure(PING, server.cpu()?, pings.collect()).await?;
            let clients = spread(&books, in_flight).map(|(number, book)| ReadLast { book, tag: tag(number) });
            self.figure(READ, server.cpu()?, clients.collect()).await?;
        }
        Ok(())
    }

    async fn http_append(&mut self, counts: &[u32]) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Workers::None).await?;
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

    async fn call(&mut self, counts: &[u32], language: Language, nested: bool) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options, Workers::Noop(language)).await?;
        let of = |what: &str| match language {
            Language::Rust => what.to_owned(),
            Language::Python => format!("{what}, in Python"),
        };
        // The first call waits until the worker has started.
        HttpConnection::open(server.address()).await?.exchange(&call_request(NOOP, server.address())).await?;
        for &clients in counts {
            let requests = vec![call_request(NOOP, server.address()); clients as usize];
            self.exchange(&of(CALL), &server, requests).await?;
        }
        for &clients in counts.iter().filter(|_| nested) {
            let requests = vec![call_request(OUTER, server.address()); clients as usize];
            let clients = exchanges(server.address(), requests).await?.into_iter().map(Nested);
            self.figure(&of(OUTER_CALL), server.cpu()?, clients.collect()).await?;
        }
        Ok(())
    }

    /// One keep-alive connection for each of `requests`, on which it is sent again and again.
    async fn exchange(
        &mut self,
        workload: &str,
        server: &ServerUnderTest,
        requests: Vec<Vec<u8>>,
    ) -> Result<(), Failure> {
        let clients = exchanges(server.address(), requests).await?;
        self.figure(workload, server.cpu()?, clients).await
    }

    async fn url(
        &mut self,
        url: &str,
        body: Option<&str>,
        name: &str,
        server: Option<CpuClock>,
        counts: &[u32],
    ) -> Result<(), Failure> {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = format!("/{path}");
        let request = match body {
            Some(body) => request("POST", &path, address, JSON, body.as_bytes()),
            None => request("GET", &path, address, "", b""),
        };
        for &clients in counts {
            let clients = exchanges(address, vec![request.clone(); clients as usize]).await?;
            self.figure(name, server.clone(), clients).await?;
        }
        Ok(())
    }

    /// Watches a server that nobody uses any more.
    async fn idle(&mut self, window: f64, functions: u32, called: u32) -> Result<(), Failure> {
        let called = called.min(functions);
        let workers = if functions == 0 { Workers::None } else { Workers::Many(functions) };
        let server = ServerUnderTest::prepare(self.options, workers).await?;
        let Some(pid) = server.pid() else { return Ok(()) };
        let cpu = CpuClock::of(vec![pid]);
        (self.note)(&format!("idle, {functions} functions, {window} s"));
        let mut connection = HttpConnection::open(server.address()).await?;
        // The first call of each worker waits until that has started.
        let registered = (0..functions).step_by(FUNCTIONS_PER_WORKER as usize);
        for number in (0..called).chain(registered.skip_while(|first| *first < called)) {
            connection.exchange(&call_request(&idle_name(number), server.address())).await?;
        }
        // What starting has left to do is not idleness.
        tokio::time::sleep(Duration::from_secs_f64(self.options.warm_up)).await;
        let before = (cpu.used()?, sleeps(pid)?);
        tokio::time::sleep(Duration::from_secs_f64(window)).await;
        let after = (cpu.used()?, sleeps(pid)?);
        self.idle.push(Idle {
            functions,
            called,
            resident_bytes: resident_bytes(pid)?,
            cpu_share: after.0.saturating_sub(before.0).as_secs_f64() / window,
            sleeps_per_second: after.1.saturating_sub(before.1) as f64 / window,
            first_answer: server.first_answer,
        });
        Ok(())
    }
}

const JSON: &str = "content-type: application/json\r\n";

/// A call over HTTP, with the shortest input that is JSON.
fn call_request(function: &str, address: &str) -> Vec<u8> {
    request("POST", &format!("/call/{function}"), address, JSON, b"null")
}

async fn exchanges(address: &str, requests: Vec<Vec<u8>>) -> Result<Vec<Exchange>, Failure> {
    let mut clients = Vec::new();
    for request in requests {
        clients.push(Exchange { connection: HttpConnection::open(address).await?, request });
    }
    Ok(clients)
}

/// How long each look at the machine takes.
fn pace_time(options: &BenchOptions) -> Duration {
    Duration::from_secs_f64((options.seconds / 8.0).min(0.5))
}

/// So many connections to it.
async fn clients_of(server: &ServerUnderTest, connections: u32) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(server.address()).await.map_err(|error| of_server(&error, None))?);
    }
    Ok(clients)
}

/// The book that everything goes to, over each connection.
async fn books_of(clients: &[Client]) -> Result<Vec<Book>, Failure> {
    let mut books = Vec::new();
    for client in clients {
        books.push(client.book(BOOK).await.map_err(|error| of_server(&error, Some(BOOK)))?);
    }
    Ok(books)
}

/// So many clients that append.
fn appends(books: &[Book], in_flight: u32, payload: &Bytes) -> Vec<Append> {
    spread(books, in_flight).map(|(number, book)| Append { book, tag: tag(number), payload: payload.clone() }).collect()
}

/// Deals clients out to connections.
fn spread(books: &[Book], clients: u32) -> impl Iterator<Item = (u32, Book)> + '_ {
    (0..clients).zip(books.iter().cycle().cloned())
}

fn tag(number: u32) -> String {
    format!("bench/{}", number % TAGS)
}
