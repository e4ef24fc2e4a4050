//! `boki bench index`: what an append and a read cost as the log grows, what memory it takes, and how long it takes to open.
//!
//! The log is filled with records of one tag each, the tags at random out of a tenth as many. At each power of ten it is
//! measured: an append, the last record of a tag that was written lately, the last record of any tag, and of a tag that
//! has none. In the end the server is stopped and started, killed and started.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use boki_sdk::{Book, Client, Seq};
use bytes::Bytes;
use serde_json::{Value, json};

use super::http::{HttpConnection, request};
use super::latency::{Load, broken};
use super::loads::BOOK;
use super::process::resident_bytes;
use super::target::{End, ServerUnderTest, Workers};
use super::workloads::Loads;
use crate::failure::Failure;
use crate::remote::of_server;

/// The first size that is measured.
const FIRST: u64 = 10_000;
/// Records of one append, and how many such are under way, while the log is filled.
const BATCH: u64 = 100;
const UNDER_WAY: usize = 64;
/// A tag was written lately if its record is among so many last ones.
const LATELY: u64 = 1000;

/// The server at one size of its log.
#[derive(Clone, Debug)]
pub(crate) struct AtSize {
    records: u64,
    /// While it was filled to this size.
    records_per_second: f64,
    /// Of the whole process; `None` if it is not ours.
    resident_bytes: Option<u64>,
    /// Of the index, as the server tells it; `None` if it does not.
    index_bytes: Option<u64>,
    disk_bytes: u64,
}

/// A start of the server with a log that is there.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    records: u64,
    end: End,
    /// From the signal to the end of the process.
    ended: Duration,
    /// From the start of the process to its first answer over HTTP.
    first_answer: Duration,
    resident_bytes: Option<u64>,
}

/// Everything about a log that grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Growth {
    sizes: Vec<AtSize>,
    openings: Vec<Opening>,
}

impl Growth {
    /// For people, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let megabytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |b| format!("{:.1}", b as f64 / 1e6));
        let mut lines = Vec::new();
        for size in &self.sizes {
            lines.push(format!(
                "{} records: index {} MB, resident {} MB, on disk {:.1} MB; filled with {:.0} records per second",
                size.records,
                megabytes(size.index_bytes),
                megabytes(size.resident_bytes),
                size.disk_bytes as f64 / 1e6,
                size.records_per_second,
            ));
        }
        for opening in &self.openings {
            lines.push(format!(
                "{} records, {} ({:.0} ms): first answer {:.0} ms after the start, resident {} MB",
                opening.records,
                opening.end.past(),
                opening.ended.as_secs_f64() * 1e3,
                opening.first_answer.as_secs_f64() * 1e3,
                megabytes(opening.resident_bytes),
            ));
        }
        lines
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "sizes": self.sizes.iter().map(|size| json!({
                "records": size.records,
                "records_per_second": size.records_per_second,
                "resident_bytes": size.resident_bytes,
                "index_bytes": size.index_bytes,
                "disk_bytes": size.disk_bytes,
            })).collect::<Vec<_>>(),
            "openings": self.openings.iter().map(|opening| json!({
                "records": opening.records,
                "after": opening.end.past(),
                "ended_ms": opening.ended.as_secs_f64() * 1e3,
                "first_answer_ms": opening.first_answer.as_secs_f64() * 1e3,
                "resident_bytes": opening.resident_bytes,
            })).collect::<Vec<_>>(),
        })
    }
}

/// Numbers that jump about, the same at every run.
fn scatter(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Which record has which tag, and how many there are by now.
#[derive(Debug)]
struct Tags {
    tags: u64,
    records: AtomicU64,
}

impl Tags {
    fn of(&self, record: u64) -> String {
        format!("index/{}", scatter(record) % self.tags)
    }

    /// The tag of the next record.
    fn next(&self) -> String {
        self.of(self.records.fetch_add(1, Ordering::Relaxed))
    }

    fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// Appends a record to the next tag.
struct AppendNext {
    book: Book,
    tags: Arc<Tags>,
    payload: Bytes,
}

impl Load for AppendNext {
    async fn once(&mut self) -> Result<Option<Duration>, Failure> {
        let append = self.book.append(self.payload.clone()).tag(self.tags.next());
        append.await.map(|_| None).map_err(|error| of_server(&error, Some(BOOK)))
    }
}

/// Which tags are looked at.
#[derive(Clone, Copy, Debug)]
enum Which {
    Late,
    Any,
    Absent,
}

impl Which {
    fn workload(self) -> &'static str {
        match self {
            Which::Late => "read last of a tag written lately",
            Which::Any => "read last of any tag",
            Which::Absent => "read last of a tag without records",
        }
    }
}

/// Reads the last record of one tag after another.
struct ReadTails {
    book: Book,
    tags: Arc<Tags>,
    which: Which,
    turn: u64,
}

impl Load for ReadTails {
    async fn once(&mut self) -> Result<Option<Duration>, Failure> {
        self.turn += 1;
        let (records, number) = (self.tags.records(), scatter(!self.turn));
        let (tag, is_there) = match self.which {
            Which::Late => (self.tags.of(records - 1 - number % LATELY.min(records)), true),
            Which::Any => (self.tags.of(number % records), true),
            Which::Absent => (format!("index/{}/none", number % self.tags.tags), false),
        };
        let found = self.book.read_prev(Seq::MAX).tag(tag.as_str()).first().await;
        let found = found.map_err(|error| of_server(&error, Some(BOOK)))?;
        match found.is_some() == is_there {
            true => Ok(None),
            false if is_there => Err(broken(format!("no record under {tag}, to which one was appended"))),
            false => Err(broken(format!("a record under {tag}, to which none was appended"))),
        }
    }
}

/// Sizes up to `records`: powers of ten, and that itself.
fn sizes(records: u64) -> Vec<u64> {
    let powers = std::iter::successors(Some(FIRST), |size| size.checked_mul(10));
    powers.take_while(|size| *size < records).chain([records]).collect()
}

/// Fills a log to `records`, measures it on the way, and opens it again.
pub(crate) async fn grow(loads: &mut Loads<'_>, records: u64) -> Result<Growth, Failure> {
    let mut growth = Growth::default();
    let mut server = ServerUnderTest::prepare(loads.options(), Workers::None).await?;
    let tags = Arc::new(Tags { tags: (records / 10).max(1), records: AtomicU64::new(0) });
    for size in sizes(records) {
        let book = connect(&server).await?;
        loads.note(&format!("filling the log to {size} records"));
        let (before, begun) = (tags.records(), Instant::now());
        fill(&book, &tags, size, &loads.payload()).await?;
        let records_per_second = (tags.records() - before) as f64 / begun.elapsed().as_secs_f64();
        measure(loads, &server, &book, &tags, size).await?;
        let status = status(&server).await?;
        growth.sizes.push(AtSize {
            records: size,
            records_per_second,
            resident_bytes: server.pid().map(resident_bytes).transpose()?,
            index_bytes: status["log"]["index_bytes"].as_u64(),
            disk_bytes: status["log"]["disk_bytes"].as_u64().unwrap_or(0),
        });
    }
    if server.pid().is_none() {
        return Ok(growth);
    }
    for end in [End::Stopped, End::Killed] {
        loads.note(&format!("the server, {}, starts again", end.past()));
        // Something that the last checkpoint does not have.
        fill(&connect(&server).await?, &tags, tags.records() + BATCH, &loads.payload()).await?;
        let ended = server.restart(end).await?;
        let last = tags.of(tags.records() - 1);
        let book = connect(&server).await?;
        let found = book.read_prev(Seq::MAX).tag(last).first().await.map_err(|error| of_server(&error, Some(BOOK)))?;
        if found.is_none() {
            return Err(broken("the last record was lost"));
        }
        growth.openings.push(Opening {
            records: tags.records(),
            end,
            ended,
            first_answer: server.first_answer.unwrap_or_default(),
            resident_bytes: server.pid().map(resident_bytes).transpose()?,
        });
    }
    Ok(growth)
}

async fn connect(server: &ServerUnderTest) -> Result<Book, Failure> {
    let client = Client::connect(server.address()).await.map_err(|error| of_server(&error, None))?;
    client.book(BOOK).await.map_err(|error| of_server(&error, Some(BOOK)))
}

/// Appends records until there are `size`.
async fn fill(book: &Book, tags: &Tags, size: u64, payload: &Bytes) -> Result<(), Failure> {
    let failed = |error| of_server(&error, Some(BOOK));
    let mut under_way = VecDeque::new();
    while tags.records() < size {
        let mut batch = book.batch();
        for _ in 0..BATCH.min(size - tags.records()) {
            batch = batch.record(payload.clone()).tag(tags.next());
        }
        under_way.push_back(batch.send().await.map_err(failed)?);
        if under_way.len() >= UNDER_WAY
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await.map_err(failed)?;
        }
    }
    for append in under_way {
        append.await.map_err(failed)?;
    }
    Ok(())
}

/// The figures at one size.
async fn measure(
    loads: &mut Loads<'_>,
    server: &ServerUnderTest,
    book: &Book,
    tags: &Arc<Tags>,
    size: u64,
) -> Result<(), Failure> {
    let at = |workload: &str| format!("{workload}, {size} records");
    // Reads first: appends take the log beyond the size.
    for which in [Which::Late, Which::Any, Which::Absent] {
        let reader = ReadTails { book: book.clone(), tags: Arc::clone(tags), which, turn: size };
        loads.figure(&at(which.workload()), server.cpu()?, vec![reader]).await?;
    }
    let append = AppendNext { book: book.clone(), tags: Arc::clone(tags), payload: loads.payload() };
    loads.figure(&at("append"), server.cpu()?, vec![append]).await
}

async fn status(server: &ServerUnderTest) -> Result<Value, Failure> {
    let mut connection = HttpConnection::open(server.address()).await?;
    let ask = request("GET", "/v1/status", server.address(), "", b"");
    let status = connection.exchange_with(&ask, |body| serde_json::from_slice(body)).await?;
    status.map_err(|error| broken(format!("the server's status is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_ten_and_the_last() {
        assert_eq!(sizes(500), [500]);
        assert_eq!(sizes(10_000), [10_000]);
        assert_eq!(sizes(2_000_000), [10_000, 100_000, 1_000_000, 2_000_000]);
        assert_eq!(sizes(u64::MAX).last(), Some(&u64::MAX));
    }

    #[test]
    fn tags_are_a_tenth_and_all_are_used() {
        let tags = Tags { tags: 10, records: AtomicU64::new(0) };
        let used: std::collections::BTreeSet<_> = (0..200).map(|_| tags.next()).collect();
        assert_eq!((used.len(), tags.records()), (10, 200));
        assert_eq!(tags.of(5), tags.of(5));
    }
}
