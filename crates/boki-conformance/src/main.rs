//! `boki-conformance -- COMMAND...`: runs the suite on the worker that the command starts.

use std::io::Write;
use std::process::ExitCode;

use boki_conformance::{CaseReport, Cases, Outcome, Settings};
use clap::Parser;

/// Runs the conformance suite on a worker.
///
/// Every case starts the command anew, with BOKI_URL in its environment. Which functions the worker has to offer is
/// written in docs/conformance.md. Exits with 0 if no case failed, with 1 if one did, and with 2 if nothing could be run.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  boki-conformance -- python3 conformance/reference.py")]
struct Args {
    /// Only the cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// List the names of the cases, and run none.
    #[arg(long)]
    list: bool,
    /// The worker's command and its arguments.
    #[arg(last = true, required_unless_present = "list")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let cases = match Cases::load() {
        Ok(cases) => cases,
        Err(error) => return cannot_run(&error.to_string()),
    };
    if args.list {
        let names = cases.link.iter().map(|case| &case.name).chain(cases.server.iter().map(|case| &case.name));
        for name in names {
            say(name);
        }
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_run(&error.to_string()),
    };
    let settings = Settings { command: args.command, only: args.only };
    let reports = runtime.block_on(Box::pin(boki_conformance::run(&cases, &settings, show)));
    runtime.shutdown_background();
    match reports {
        Err(why) => cannot_run(&why),
        Ok(reports) => {
            let count = |wanted: fn(&Outcome) -> bool| reports.iter().filter(|report| wanted(&report.outcome)).count();
            let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
            let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
            let passed = reports.len() - failed - skipped;
            say(&format!("{passed} passed, {failed} failed, {skipped} skipped"));
            if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn show(report: &CaseReport) {
    let name = &report.name;
    match &report.outcome {
        Outcome::Passed => say(&format!("pass  {name}")),
        Outcome::Skipped(function) => say(&format!("skip  {name}: {function} is not offered")),
        Outcome::Failed(why) => say(&format!("FAIL  {name}\n    {why}")),
    }
}

fn cannot_run(why: &str) -> ExitCode {
    eprintln!("the suite cannot run: {why}");
    ExitCode::from(2)
}

/// A reader that is gone is none to tell.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
