//! How long operations took, and how a closed loop of them is driven.
//!
//! A closed loop has a fixed number of operations in flight: each client begins the next one when the last has
//! ended. An operation counts if it began after the warm-up and before the end of the measurement, however long it
//! takes then: the slow ones are what matters. Each client counts at least one.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::process::CpuClock;
use crate::failure::{BENCH_BROKEN, Exit, Failure};

/// How long to warm up and to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
}

/// Durations, in constant memory, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    const LONGEST_NS: u64 = 120_000_000_000;

    pub(crate) fn new() -> Latencies {
        Latencies(
            Histogram::new_with_max(Latencies::LONGEST_NS, 3).expect("the bounds and digits are constants that fit"),
        )
    }

    pub(crate) fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn merge(&mut self, other: &Latencies) {
        // Both have the same bounds, so it cannot fail.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantile (0.5 is the median), in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub(crate) fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }
}

/// What a closed loop did.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) latencies: Latencies,
    /// Over which time it was counted.
    pub(crate) over: Duration,
    /// Processor time that the server took meanwhile, where its process is known.
    pub(crate) server_cpu: Option<Duration>,
    /// Processor time that this process took meanwhile; not of a time that operations told.
    pub(crate) client_cpu: Option<Duration>,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.over.as_secs_f64()
    }
}

/// A client of a closed loop.
pub(crate) trait Load: Send + 'static {
    /// Its next operation. What it returns is a time that the operation itself has measured, if it does.
    fn once(&mut self) -> impl Future<Output = Result<Option<Duration>, Failure>> + Send;
}

/// Runs every client's operation one after the other, all clients beside each other, each as a task of this runtime.
/// Returns also what the operations told, if they did.
pub(crate) async fn closed_loop<L: Load>(
    plan: Plan,
    server: Option<CpuClock>,
    clients: Vec<L>,
) -> Result<(Measured, Option<Measured>), Failure> {
    let from = Instant::now() + plan.warm_up;
    let until = from + plan.measure;
    let own = CpuClock::own();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let (mut latencies, mut told) = (Latencies::new(), None);
            let mut begin = Instant::now();
            while begin < until || latencies.count() == 0 {
                let of_its_own = client.once().await?;
                let end = Instant::now();
                if begin >= from {
                    latencies.add(end - begin);
                    if let Some(time) = of_its_own {
                        told.get_or_insert_with(Latencies::new).add(time);
                    }
                }
                begin = end;
            }
            Ok::<_, Failure>((latencies, told))
        });
    }
    let read = || Ok::<_, Failure>((server.as_ref().map(CpuClock::used).transpose()?, own.used()?));
    tokio::time::sleep_until(from.into()).await;
    let (began, before) = (Instant::now(), read()?);
    let (mut latencies, mut told) = (Latencies::new(), None);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(result) => {
                let (its_latencies, its_told) = result?;
                latencies.merge(&its_latencies);
                if let Some(its_told) = its_told {
                    told.get_or_insert_with(Latencies::new).merge(&its_told);
                }
            }
            Err(error) => return Err(broken(format!("a client of the load ended: {error}"))),
        }
    }
    let (over, after) = (began.elapsed(), read()?);
    let server_cpu = after.0.zip(before.0).map(|(after, before)| after.saturating_sub(before));
    let client_cpu = Some(after.1.saturating_sub(before.1));
    let told = told.map(|latencies| Measured { latencies, over, server_cpu: None, client_cpu: None });
    Ok((Measured { latencies, over, server_cpu, client_cpu }, told))
}

/// What was measured cannot be trusted.
pub(crate) fn broken(what: impl Into<String>) -> Failure {
    Failure::new(BENCH_BROKEN, Exit::Failed, what, "look at the server's output, then run the benchmark again")
}
