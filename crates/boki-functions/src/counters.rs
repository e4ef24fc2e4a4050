//! What is counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`Latencies`], in microseconds; the last bucket has none.
pub const LATENCY_BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000,
    60_000_000,
];

/// How long calls took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Calls per bucket, not cumulated: those above one bound of [`LATENCY_BOUNDS_US`] and up to the next.
    pub buckets: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Of all calls, in microseconds.
    pub sum_us: u64,
}

/// A picture of the functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionsStatus {
    /// Calls that ended, however, since the start.
    pub calls: u64,
    /// Those among them that ended with an error.
    pub failures: u64,
    /// Attempts after a call's first.
    pub retries: u64,
    /// Worker processes of pools that ended without having been asked to; as far as they are missed, others took their place.
    pub restarts: u64,
    /// Worker processes that were replaced because they had done their share of calls, or were too old.
    pub recycled: u64,
    /// Workers that did not answer a call that was given up, and were ended or disconnected for it.
    pub stuck: u64,
    /// Worker processes that were killed because they used more memory than they may.
    pub oom_kills: u64,
    /// Lines of workers that were dropped, because they logged too much.
    pub dropped_lines: u64,
    /// Answers of workers for which nobody waited: late, or given twice.
    pub stray_answers: u64,
    /// Calls put on record.
    pub recorded: u64,
    /// Workers that are connected now.
    pub workers: usize,
    /// Attempts that run now.
    pub running: usize,
    /// Attempts that wait for a worker now.
    pub queued: usize,
    /// Calls on record that wait for their turn now, in the log.
    pub backlog: usize,
    /// Outputs that are being passed on piece by piece now.
    pub streams: u64,
    /// Most bytes of any one such output that ever waited for its reader.
    pub stream_peak_bytes: u64,
    /// How long calls took, those whose output comes piece by piece until its beginning.
    pub latencies: Latencies,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) calls: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) stuck: AtomicU64,
    pub(crate) oom_kills: AtomicU64,
    pub(crate) dropped_lines: AtomicU64,
    pub(crate) stray_answers: AtomicU64,
    pub(crate) recorded: AtomicU64,
    streams: AtomicU64,
    stream_peak_bytes: AtomicU64,
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// A call has ended.
    pub(crate) fn call_ended(&self, took: Duration, failed: bool) {
        count(&self.calls);
        if failed {
            count(&self.failures);
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        count(&self.buckets[LATENCY_BOUNDS_US.partition_point(|bound| *bound < took_us)]);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// An output has begun.
    pub(crate) fn stream_opened(&self) {
        count(&self.streams);
    }

    /// An output has ended.
    pub(crate) fn stream_closed(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many bytes of an output wait for its reader.
    pub(crate) fn stream_buffered(&self, bytes: usize) {
        self.stream_peak_bytes.fetch_max(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn picture(&self) -> FunctionsStatus {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FunctionsStatus {
            calls: get(&self.calls),
            failures: get(&self.failures),
            retries: get(&self.retries),
            restarts: get(&self.restarts),
            recycled: get(&self.recycled),
            stuck: get(&self.stuck),
            oom_kills: get(&self.oom_kills),
            dropped_lines: get(&self.dropped_lines),
            stray_answers: get(&self.stray_answers),
            recorded: get(&self.recorded),
            streams: get(&self.streams),
            stream_peak_bytes: get(&self.stream_peak_bytes),
            latencies: Latencies { buckets: self.buckets.each_ref().map(get), sum_us: get(&self.sum_us) },
            ..FunctionsStatus::default()
        }
    }
}
