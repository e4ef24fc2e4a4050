//! The simulator's command.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use boki_sim::campaign::{self, Summary};
use boki_sim::mutation::Mutation;
use boki_sim::plan::Topology;
use boki_sim::{Report, Run};
use clap::{Parser, ValueEnum};

/// Runs Boki's protocol under simulated faults.
#[derive(Debug, Parser)]
#[command(name = "boki-sim")]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Only this topology
    #[arg(long, value_enum)]
    topology: Option<TopologyArgument>,
    /// Print everything that happens (with --seed)
    #[arg(long)]
    trace: bool,
    /// End at this virtual time, in microseconds (with --seed)
    #[arg(long, value_name = "T")]
    until: Option<u64>,
    /// Run each seed twice and compare
    #[arg(long)]
    twice: bool,
    /// Check that every deliberate bug is caught
    #[arg(long)]
    mutants: bool,
    /// Run with this deliberate bug
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Only look for the first seed that catches the deliberate bug
    #[arg(long, hide = true, requires = "mutant")]
    hunt: bool,
    /// How many threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TopologyArgument {
    Alone,
    Apart,
}

/// A deliberate bug must be caught by one of so many seeds.
const SEEDS_PER_MUTANT: u64 = 300;

/// Prints a line; whoever reads may have read enough.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    campaign::name_panics();
    let is_good = match (&arguments.mutant, arguments.mutants) {
        (Some(name), _) if arguments.hunt => hunt(name),
        (_, true) => mutants(),
        _ => seeds(&arguments),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn runs(arguments: &Arguments) -> Result<Vec<Run>, String> {
    let topologies = match arguments.topology {
        None => vec![Topology::Alone, Topology::Apart],
        Some(TopologyArgument::Alone) => vec![Topology::Alone],
        Some(TopologyArgument::Apart) => vec![Topology::Apart],
    };
    let mutation = match &arguments.mutant {
        None => None,
        Some(name) => Some(mutation(name).ok_or_else(|| format!("no deliberate bug is called {name:?}"))?),
    };
    let seeds = match arguments.seed {
        Some(seed) => seed..=seed,
        None if arguments.seeds == 0 => return Ok(Vec::new()),
        None => arguments.from..=arguments.from + arguments.seeds - 1,
    };
    let mut runs = if arguments.seed.is_none() { campaign::regressions() } else { Vec::new() };
    for seed in seeds {
        runs.extend(topologies.iter().map(|topology| Run {
            mutation,
            printed: arguments.trace && arguments.seed.is_some(),
            until_us: arguments.until,
            ..Run::new(seed, *topology)
        }));
    }
    Ok(runs)
}

fn mutation(name: &str) -> Option<Mutation> {
    Mutation::ALL.iter().copied().find(|mutation| format!("{mutation:?}") == name)
}

fn seeds(arguments: &Arguments) -> bool {
    let runs = match runs(arguments) {
        Ok(runs) => runs,
        Err(error) => {
            eprintln!("{error}");
            return false;
        }
    };
    let start = Instant::now();
    let step = (runs.len() / 10).max(1);
    let summary = campaign::run_all(&runs, arguments.threads, &|done, run: &Run, report: &Report| {
        if let Some(violation) = &report.violation {
            say(format_args!("{} seed {}: {violation}", run.topology.name(), run.seed));
        }
        if done % step == 0 && runs.len() > 1 {
            say(format_args!("{done} of {} after {:.1} s", runs.len(), start.elapsed().as_secs_f64()));
        }
    });
    let differing = if arguments.twice { compare(&runs) } else { 0 };
    print(&summary);
    say(format_args!("{} passed, {} failed", summary.passed, summary.failed.len() + differing));
    summary.failed.is_empty() && differing == 0
}

/// Runs everything twice more; how many runs differed.
fn compare(runs: &[Run]) -> usize {
    let mut differing = 0;
    for run in runs {
        let quiet = Run { printed: false, ..*run };
        let (first, second) = (quiet.run().trace_hash, quiet.run().trace_hash);
        if first != second {
            say(format_args!(
                "{} seed {}: two runs differ: {first:016x}, {second:016x}",
                run.topology.name(),
                run.seed
            ));
            differing += 1;
        }
    }
    differing
}

fn print(summary: &Summary) {
    say(format_args!(""));
    for (what, count) in &summary.counts {
        say(format_args!("{count:>12}  {what}"));
    }
    say(format_args!(""));
    for (run, violation) in summary.failed.iter().take(20) {
        say(format_args!("{} seed {}: {violation}", run.topology.name(), run.seed));
        let mutant = run.mutation.map_or(String::new(), |mutation| format!(" --mutant {mutation:?}"));
        say(format_args!(
            "  replay: cargo run --release -p boki-sim -- --topology {} --seed {}{mutant} --trace",
            run.topology.name(),
            run.seed
        ));
    }
}

fn mutants() -> bool {
    say(format_args!("| deliberate bug | what it is | caught in | by seed | check |"));
    say(format_args!("| --- | --- | --- | --- | --- |"));
    let mut survivors = 0;
    for mutation in Mutation::ALL {
        let caught = hunt_apart(*mutation);
        let (seed, check) = caught.as_deref().and_then(|line| line.split_once(' ')).unwrap_or(("–", "**survives**"));
        survivors += usize::from(caught.is_none());
        say(format_args!(
            "| `{mutation:?}` | {} | {} | {seed} | {check} |",
            mutation.about(),
            mutation.topology().name()
        ));
    }
    say(format_args!(""));
    say(format_args!("{} caught, {survivors} survived", Mutation::ALL.len() - survivors));
    survivors == 0
}

/// Looks for a seed that catches `mutation` in a process of its own, because a panic ends a process: "seed check".
fn hunt_apart(mutation: Mutation) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let output =
        std::process::Command::new(program).args(["--mutant", &format!("{mutation:?}"), "--hunt"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().map(str::to_owned)
}

fn hunt(name: &str) -> bool {
    let caught = mutation(name).and_then(|mutation| campaign::hunt(mutation, SEEDS_PER_MUTANT));
    if let Some((seed, violation)) = &caught {
        say(format_args!("{seed} {}", violation.check));
    }
    caught.is_some()
}
