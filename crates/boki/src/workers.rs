//! `boki workers`: the worker pools of a server. And the two commands that a server runs beside its workers.

use boki_functions::{Resources, exec_limited, guard_groups};
use hyper::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::{WorkerExec, WorkersCommand};
use crate::failure::Failure;
use crate::http::{Http, nothing};
use crate::output::{Output, aligned};

/// What is shown of a pool. The rest is for programs, and is printed as it came.
#[derive(Deserialize)]
struct Shown {
    name: String,
    #[serde(default)]
    version: String,
    state: String,
    min: usize,
    max: usize,
    processes: Vec<ShownProcess>,
    waiting: usize,
    #[serde(default)]
    limits: String,
    limits_not_in_force: Option<String>,
    last_failure: Option<ShownFailure>,
}

#[derive(Deserialize)]
struct ShownProcess {
    name: String,
    pid: Option<u32>,
    state: String,
    running: usize,
    calls: u64,
}

#[derive(Deserialize)]
struct ShownFailure {
    reason: String,
    lines: Vec<String>,
}

pub(crate) async fn run(command: WorkersCommand, mut out: Output) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        pools: Vec<Value>,
    }
    let WorkersCommand::Ls(target) = command;
    let answer: Answer = Http::connect(&target).await?.json(Method::GET, "/v1/pools", &[], nothing()).await?;
    if out.is_json() {
        for pool in &answer.pools {
            out.json(pool)?;
        }
        return out.finish();
    }
    let pools = answer.pools.into_iter().filter_map(|pool| serde_json::from_value::<Shown>(pool).ok());
    let pools: Vec<Shown> = pools.collect();
    let rows: Vec<Vec<String>> = pools.iter().flat_map(rows_of).collect();
    out.line(&aligned(&["NAME", "STATE", "PROCESSES", "RUNNING", "CALLS", "WAITING", "VERSION", "LIMITS"], &rows))?;
    for pool in &pools {
        if let Some(reason) = &pool.limits_not_in_force {
            out.line(&format!("\n{}: {reason}", pool.name))?;
        }
    }
    for pool in pools.iter().filter(|pool| pool.state == "failing" || pool.state == "starting") {
        if let Some(failure) = &pool.last_failure {
            out.line(&format!("\n{}: its last process {}", pool.name, failure.reason))?;
            for line in &failure.lines {
                out.line(&format!("  {line}"))?;
            }
        }
    }
    out.finish()
}

fn rows_of(pool: &Shown) -> Vec<Vec<String>> {
    let sum = |count: fn(&ShownProcess) -> u64| pool.processes.iter().map(count).sum::<u64>().to_string();
    let bounds = if pool.min == pool.max { pool.max.to_string() } else { format!("{} to {}", pool.min, pool.max) };
    let mut rows = vec![vec![
        pool.name.clone(),
        pool.state.clone(),
        format!("{} ({bounds})", pool.processes.len()),
        sum(|process| process.running as u64),
        sum(|process| process.calls),
        pool.waiting.to_string(),
        pool.version.clone(),
        pool.limits.clone(),
    ]];
    for process in &pool.processes {
        let pid = process.pid.map_or_else(String::new, |pid| format!("pid {pid}"));
        let counts = [process.running.to_string(), process.calls.to_string()];
        rows.push([vec![format!("  {}", process.name), process.state.clone(), pid], counts.to_vec()].concat());
    }
    rows
}

/// Enters the control group, sets the limits and becomes the command; returns only if that fails.
pub(crate) fn exec(args: &WorkerExec) -> Result<(), Failure> {
    let WorkerExec { cgroup, memory, open_files, threads, command } = args;
    let rlimits = Resources { memory: *memory, cpu: None, open_files: *open_files, threads: *threads };
    let error = exec_limited(cgroup.as_deref(), &rlimits, command);
    Err(Failure::io(format!("cannot run {command:?}"), &error))
}

/// Until the server that runs it has ended.
pub(crate) fn guard() -> Result<(), Failure> {
    guard_groups(std::io::stdin().lock()).map_err(|error| Failure::io("cannot read standard input", &error))
}
