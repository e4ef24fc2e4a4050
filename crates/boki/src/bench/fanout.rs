//! One writer, and many subscribers of one tag: how long until every one of them has a record.
//!
//! The writer keeps to its rate whatever the server does, so a server that falls behind is seen as delay, not as less
//! work. Every subscriber checks that it gets each record once and in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boki_sdk::{Book, Record, Seq};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::latency::{Latencies, Measured, Plan, broken};
use super::loads::BOOK;
use super::process::CpuClock;
use crate::failure::Failure;
use crate::remote::of_server;

const TAG: &str = "bench/fan-out";
/// The writer appends what is due this often.
const TICK: Duration = Duration::from_millis(1);
/// What a record begins with: its number, and when it was due, in nanoseconds after the start.
const HEAD_BYTES: usize = 16;
/// Histograms that the subscribers share, so that memory does not grow with them.
const HISTOGRAMS: usize = 8;

/// Appends `rate` records per second, from `writer`, and reads them as `subscribers` subscribers on `books`. What is measured is each
/// record's way to each subscriber, from the moment at which it was due.
pub(crate) async fn fan_out(
    plan: Plan,
    server: Option<CpuClock>,
    writer: &Book,
    books: &[Book],
    (subscribers, rate): (u32, u32),
    size: usize,
) -> Result<Measured, Failure> {
    let from = writer.tail().tag(TAG).await.map_err(|error| of_server(&error, Some(BOOK)))?;
    let per_second = |time: Duration| (time.as_secs_f64() * f64::from(rate)).ceil() as u64;
    let (uncounted, count) = (per_second(plan.warm_up), per_second(plan.measure).max(1));
    let histograms: Arc<Vec<_>> = Arc::new((0..HISTOGRAMS).map(|_| Mutex::new(Latencies::new())).collect());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, book) in (0..subscribers as usize).zip(books.iter().cycle().cloned()) {
        let histograms = Arc::clone(&histograms);
        tasks.spawn(async move {
            let mut subscription = book.subscribe(Seq(from.0 + 1)).tag(TAG);
            for expected in 0..uncounted + count {
                let record = subscription.next().await.map_err(|error| of_server(&error, Some(BOOK)))?;
                let due = due(&record, expected)?;
                if expected >= uncounted {
                    histograms[number % HISTOGRAMS].lock().add(start.elapsed().saturating_sub(due));
                }
            }
            Ok(())
        });
    }
    let book = writer.clone();
    let interval = Duration::from_secs(1) / rate;
    tasks.spawn(async move { write(&book, start, interval, uncounted + count, size).await });
    tokio::time::sleep_until((start + plan.warm_up).into()).await;
    let own = CpuClock::own();
    let read = || Ok::<_, Failure>((server.as_ref().map(CpuClock::used).transpose()?, own.used()?));
    let (began, before) = (Instant::now(), read()?);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| broken(format!("a subscriber ended: {error}")))??;
    }
    let (over, after) = (began.elapsed(), read()?);
    let mut latencies = Latencies::new();
    histograms.iter().for_each(|histogram| latencies.merge(&histogram.lock()));
    Ok(Measured {
        latencies,
        over,
        server_cpu: after.0.zip(before.0).map(|(after, before)| after.saturating_sub(before)),
        client_cpu: Some(after.1.saturating_sub(before.1)),
    })
}

/// Appends `count` records, each when it is due.
async fn write(book: &Book, start: Instant, interval: Duration, count: u64, size: usize) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_flight = Vec::new();
    let mut next = 0;
    while next < count {
        tick.tick().await;
        while next < count && due_at(interval, next) <= start.elapsed() {
            let append = book.append(payload(next, due_at(interval, next), size)).tag(TAG);
            in_flight.push(append.send().await.map_err(|error| of_server(&error, Some(BOOK)))?);
            next += 1;
        }
    }
    for appended in in_flight {
        appended.await.map_err(|error| of_server(&error, Some(BOOK)))?;
    }
    Ok(())
}

fn due_at(interval: Duration, number: u64) -> Duration {
    Duration::from_nanos(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).saturating_mul(number))
}

fn payload(number: u64, due: Duration, size: usize) -> Bytes {
    let mut payload = vec![b'x'; size.max(HEAD_BYTES)];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload[8..HEAD_BYTES].copy_from_slice(&u64::try_from(due.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
    payload.into()
}

/// When the record was due; that it is the one that must come now.
fn due(record: &Record, expected: u64) -> Result<Duration, Failure> {
    let head = record.data().first_chunk::<HEAD_BYTES>().map(|head| {
        let (mut number, mut due) = ([0; 8], [0; 8]);
        number.copy_from_slice(&head[..8]);
        due.copy_from_slice(&head[8..]);
        (u64::from_le_bytes(number), u64::from_le_bytes(due))
    });
    match head {
        Some((number, due)) if number == expected => Ok(Duration::from_nanos(due)),
        Some((number, _)) => Err(broken(format!("a subscriber got record {number} where {expected} is next"))),
        None => Err(broken("a subscriber got a record that is not the benchmark's")),
    }
}
