//! `boki bench`: what a server does, next to what the machine can do, in the same run.
//!
//! - [`machine`]: the machine alone. [`latency`]: the closed loop that every load is.
//! - [`target`]: the server; [`workloads`]: which loads it gets; [`loads`]: what one client of each does; [`http`], [`worker`]:
//!   what they need.
//! - [`fairness`]: one customer beside the backlog of another.
//! - [`fanout`]: many subscribers of one tag. [`nats`]: another system, under the same load.
//! - [`stream`]: one large body instead of many operations.
//! - [`index`]: the same operations while the log grows.
//! - [`report`]: figures and ratios, for people and programs.
//!
//! The load comes from this process and the server is another, so that neither takes the other's locks, and each pays
//! for its own system calls.

mod fairness;
mod fanout;
mod http;
mod index;
mod latency;
mod loads;
mod machine;
mod nats;
mod process;
mod report;
mod stream;
mod target;
mod worker;
mod workloads;

use std::time::Duration;

use workloads::Measurements;

use crate::cli::{Bench, Format, Language, Workload};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) use machine::echo;
pub(crate) use worker::worker;

/// How long the stream of writes is measured at most.
const STREAM_SECONDS: f64 = 2.0;

/// Payload of a small record, in bytes.
const SMALL_BYTES: u32 = 100;

pub(crate) async fn run(args: Bench, mut out: Output) -> Result<(), Failure> {
    let options = &args.options;
    let beside = options.beside.as_deref().map(report::read_beside).transpose()?.unwrap_or_default();
    let folder = target::folder(options);
    if target::is_memory(&folder) {
        eprintln!(
            "warning: {} is memory, so nothing is measured against a disk; name another with --dir",
            folder.display()
        );
    }
    let note = |text: &str| eprintln!("measuring: {text}");
    note("the machine");
    let each = Duration::from_secs_f64(options.seconds.min(STREAM_SECONDS));
    let stream_before = machine::stream_bytes_per_second(&folder, each)?;
    let mut bench = workloads::Loads::new(options, &note)?;
    for workload in parts(&args.workload) {
        bench.run(&workload).await?;
    }
    let Measurements { figures, idle, streamed, growth, pace } = bench.finish()?;
    let stream_after = machine::stream_bytes_per_second(&folder, each)?;
    let report = report::Report {
        options: options.clone(),
        pace,
        stream_bytes_per_second: f64::midpoint(stream_before, stream_after),
        figures,
        idle,
        streamed,
        growth,
        beside,
    };
    let format = if out.is_json() { Format::Json } else { options.format };
    match format {
        Format::Json => out.json(&report.to_json())?,
        Format::Table => out.line(&report.to_table())?,
        Format::Markdown => out.line(&report.to_markdown())?,
    }
    out.finish()
}

/// What `workload` consists of.
fn parts(workload: &Workload) -> Vec<Workload> {
    match workload {
        Workload::All => vec![
            Workload::Idle { window: 10.0, functions: 0, called: 0 },
            Workload::Idle { window: 10.0, functions: 10_000, called: 1000 },
            Workload::Append { in_flight: vec![1, 16, 64, 256, 1024], of_size: None },
            Workload::Append { in_flight: vec![1024, 4096], of_size: Some(SMALL_BYTES) },
            Workload::Connections { clients: vec![64] },
            Workload::FanOut { subscribers: 1000, rate: 1000 },
            Workload::Http { clients: vec![1, 64] },
            Workload::Read { in_flight: vec![1, 64] },
            Workload::Call { clients: vec![1, 16, 64], worker: Language::Rust, nested: true },
            Workload::Stream { megabytes: 1000 },
        ],
        one => vec![one.clone()],
    }
}
