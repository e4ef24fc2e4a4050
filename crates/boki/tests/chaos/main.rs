//! Everything that workers and clients can do wrong, all at once, against a real server.
//!
//! Good workers are processes that the server starts; some of their functions crash or hang on their first attempt.
//! Bad workers answer twice, answer garbage, answer what nobody asked, flood the log, hang, or hang up at any moment.
//! Bad clients open connections and say nothing, half of something, or anything; ask for much and do not read it.
//! Meanwhile callers call and send. What must hold:
//!
//! - every call is answered once, with its own result or with an error that says what happened to it;
//! - every call that was accepted by a send ends, and what it did was done once;
//! - nothing breaks between the server and those who behave;
//! - the server's memory stays where it was.
//!
//! `BOKI_CHAOS_SECONDS` says how long (otherwise two short rounds), `BOKI_SEED` which of them.
#![allow(clippy::unwrap_used)]

mod bad_client;
mod bad_worker;
mod callers;
mod good_worker;
mod http;
#[path = "../support/server_process.rs"]
mod server_process;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::callers::{Tally, check_sends, run_caller};
use crate::server_process::ServerProcess;

const CALLERS: u64 = 16;
/// Requests of one caller in one round.
const REQUESTS: u64 = 150;
const BAD_WORKERS: u64 = 4;
const BAD_CLIENTS: u64 = 3;
/// What memory may grow by once the first rounds have warmed everything up: pages that the allocator keeps.
const SLACK_KIB: u64 = 48 << 10;

fn config() -> String {
    let command = std::env::current_exe().unwrap();
    let command = command.display();
    // Small caches and a short retention, so that what is kept on purpose does not look like what leaks.
    format!(
        r#"
[telemetry]
level = "error,worker=off"

[log]
cache = "4MiB"
segment = "8MiB"

[limits]
batch = "4MiB"
record = "2MiB"

[functions]
timeout = "5s"
retention = "30s"

[[worker]]
name = "steady"
command = "{command} --ignored --exact good_worker::steady --nocapture"
min = 2
max = 3
max_calls = 500

[[worker]]
name = "shaky"
command = "{command} --ignored --exact good_worker::shaky --nocapture"
min = 1
max = 2
"#
    )
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_answered_once_and_every_send_is_done_whatever_others_do() {
    let home = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(home.path(), &config()).await;
    let address = server.tcp();
    http::wait_for_functions(&address, &["work", "effect", "big", "crash", "hang"]).await;

    let seed = setting("BOKI_SEED").unwrap_or(1);
    let mut nuisances = JoinSet::new();
    for number in 0..BAD_WORKERS {
        nuisances.spawn(bad_worker::run(address.clone(), seed ^ (number << 32)));
    }
    for number in 0..BAD_CLIENTS {
        nuisances.spawn(bad_client::run(address.clone(), seed ^ (number << 40)));
    }
    nuisances.spawn(bad_client::read_slowly(address.clone()));

    let started = Instant::now();
    let length = setting("BOKI_CHAOS_SECONDS").map(Duration::from_secs);
    let tally = Arc::new(Tally::default());
    let mut memory = Vec::new();
    let mut round = 0;
    while length.map_or(round < 2, |length| started.elapsed() < length) {
        round += 1;
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            let name = (round << 32) | (number << 16);
            callers.spawn(run_caller(address.clone(), name, seed, REQUESTS, Arc::clone(&tally)));
        }
        let mut sends = Vec::new();
        while let Some(accepted) = callers.join_next().await {
            sends.extend(accepted.unwrap());
        }
        check_sends(&address, sends, &tally).await;
        memory.push(resident_kib(server.pid()));
        println!("round {round}: {tally}; server {} MiB", memory[memory.len() - 1] >> 10);
        assert!(nuisances.try_join_next().is_none(), "a nuisance gave up");
    }
    nuisances.abort_all();
    tally.assert_that_everything_happened();
    // Two rounds cannot show that memory is flat; a long run can.
    if memory.len() >= 8 {
        let (early, late) = memory.split_at(memory.len() / 2);
        let (early, late) = (early.iter().max().unwrap(), late.iter().max().unwrap());
        assert!(late <= &(early + SLACK_KIB), "memory grew from {early} KiB to {late} KiB");
    }
}
