//! Counts how many instructions one append, one cached read and one call of a no-op take in user space, and fails if that is
//! more than `budget.toml` allows.
//!
//! Time cannot be a test on a shared machine; instructions can: the same program on the same input executes nearly the same
//! ones. Valgrind counts those of the whole process, which is a real server and a client that costs next to nothing. Each
//! load runs twice, once with more rounds, and the difference is divided by the operations that the second had more: what
//! starting takes falls out.
//!
//! - [`load`]: what is counted. [`count`]: how. [`budget`]: what is allowed.

mod budget;
mod count;
mod load;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use budget::Budget;
use load::Load;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts the instructions of one operation, and holds them to a budget. Needs valgrind.
#[derive(Parser)]
#[command(
    name = "boki-budget",
    after_help = "\
Build it for release: the budget is for what the compiler makes of the program then.

  cargo run --release -p boki-budget                 check
  cargo run --release -p boki-budget -- --write      take today's counts as the budget; commit the file
  cargo run --release -p boki-budget -- --profile append    and tell which functions the instructions are in"
)]
struct Arguments {
    /// Takes what is counted as the new budget.
    #[arg(long)]
    write: bool,
    /// Keeps callgrind's file of this load, for `callgrind_annotate`.
    #[arg(long, value_name = "LOAD")]
    profile: Option<Load>,
    /// The budget.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/budget.toml"))]
    budget: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// What is counted: a server, and a client with so many rounds of a load.
    #[command(hide = true)]
    Run { load: Load, rounds: u32 },
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Count(#[from] count::CountError),
    #[error(transparent)]
    Load(#[from] load::LoadError),
    #[error(transparent)]
    Budget(#[from] budget::BudgetError),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("boki-budget: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(Command::Run { load, rounds }) = arguments.command {
        load::run(load, rounds)?;
        return Ok(ExitCode::SUCCESS);
    }
    if cfg!(debug_assertions) {
        eprintln!("boki-budget: built for debugging: the counts mean nothing; use cargo run --release");
        return Ok(ExitCode::FAILURE);
    }
    if let Some(load) = arguments.profile {
        let file = count::profile(load)?;
        println!("callgrind_annotate {}", file.display());
        return Ok(ExitCode::SUCCESS);
    }
    let mut budget = if arguments.write { Budget::default() } else { Budget::read(&arguments.budget)? };
    let mut exceeded = 0;
    for load in Load::ALL {
        let counted = count::per_operation(load)?;
        if arguments.write {
            println!("{load}: {counted} instructions");
            budget.set(load, counted);
            continue;
        }
        let verdict = budget.judge(load, counted);
        println!("{load}: {counted} instructions, {verdict}");
        exceeded += u32::from(verdict.is_failure());
    }
    if arguments.write {
        budget.write(&arguments.budget)?;
    } else {
        // As the runners of tests close.
        println!("{} passed, {exceeded} failed", Load::ALL.len() as u32 - exceeded);
    }
    Ok(if exceeded == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
