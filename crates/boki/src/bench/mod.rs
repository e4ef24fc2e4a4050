//! `boki bench`: what a server does, next to what the machine can do, in the same run.
//!
//! - [`machine`]: the machine alone. [`latency`]: the closed loop that every load is.
//! - [`target`]: the server; [`workloads`]: the loads on it; [`http`], [`worker`]: what they need.
//! - [`report`]: figures and ratios, for people and programs.
//!
//! The load comes from this process and the server is another, so that neither takes the other's locks, and each pays
//! for its own system calls.

mod http;
mod latency;
mod machine;
mod process;
mod report;
mod target;
mod worker;
mod workloads;

use std::time::Duration;

use crate::cli::{Bench, BenchOptions, Format, Workload};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) use machine::echo;
pub(crate) use worker::worker;

/// How long each measurement of the machine takes at most.
const MACHINE_SECONDS: f64 = 2.0;

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
    let mut note = |text: &str| eprintln!("measuring: {text}");
    note("the machine");
    let mut machine = measure_machine(options)?;
    let (mut figures, mut idle) = (Vec::new(), None);
    for workload in each(&args.workload) {
        if let Workload::Idle { window } = workload {
            idle = workloads::idle(window, options, &mut note).await?;
        } else {
            figures.extend(workloads::run(&workload, options, &mut note).await?);
        }
    }
    note("the machine once more");
    machine.merge(&measure_machine(options)?);
    let report = report::Report { options: options.clone(), machine, figures, idle, beside };
    let format = if out.is_json() { Format::Json } else { options.format };
    match format {
        Format::Json => out.json(&report.to_json())?,
        Format::Table => out.line(&report.to_table())?,
        Format::Markdown => out.line(&report.to_markdown())?,
    }
    out.finish()
}

fn measure_machine(options: &BenchOptions) -> Result<machine::Machine, Failure> {
    let each = Duration::from_secs_f64(options.seconds.min(MACHINE_SECONDS));
    machine::measure(&target::folder(options), options.size as usize, each)
}

/// What `workload` consists of.
fn each(workload: &Workload) -> Vec<Workload> {
    match workload {
        Workload::All => vec![
            Workload::Idle { window: 10.0 },
            Workload::Append { in_flight: vec![1, 16, 64, 256, 1024] },
            Workload::Http { clients: vec![1, 64] },
            Workload::Read { in_flight: vec![1, 64] },
            Workload::Call { clients: vec![1, 16, 64] },
        ],
        one => vec![one.clone()],
    }
}
