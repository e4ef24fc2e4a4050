//! `kill -9` of a real server, again and again, under load.
//!
//! Clients append (plain records, batches, conditions, fences, ids, trims) and read all the time; they never learn
//! that anything happens but by their connections breaking. After so and so many acknowledgements, a number from
//! a seed, the server is killed and started again on its data; now and then it is killed once more while it starts.
//! Then everything is read, and must agree with everything that was ever acknowledged and with everything that
//! was ever read before.
//!
//! This is the simulator's twin: fewer crashes and no torn sectors, but real processes, files and sockets.
//! `BOKI_KILLS` says how many kills (20), `BOKI_SEED` which (1).

#![allow(clippy::unwrap_used)]

mod clients;
mod ledger;
#[path = "../support/server_process.rs"]
mod server_process;
mod verify;

use std::time::Duration;

use boki_sdk::{Client, ConnectOptions};
use fastrand::Rng;

use crate::clients::{Does, start_clients};
use crate::ledger::Ledger;
use crate::server_process::ServerProcess;
use crate::verify::Verifier;

/// Small segments, so that they fill and are removed within the test.
const CONFIG: &str = r#"
[telemetry]
level = "warn"

[limits]
record = "256KiB"
batch = "1MiB"

[log]
segment = "2MiB"
cache = "256KiB"
"#;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// A client that does not mind how long the server is away.
async fn connect(address: &str) -> Client {
    let options = ConnectOptions::new(address).unwrap().wait_for_server().reconnect_for(Duration::from_secs(120));
    Client::connect_with(options).await.unwrap()
}

/// Kills the server under the load of `clients`, and verifies after each kill.
async fn kill_again_and_again(server: &mut ServerProcess, clients: &[Does], kills: u64, seed: u64) -> Verifier {
    let ledger = Ledger::new();
    let mut verifier = Verifier::new(connect(&server.tcp()).await).await;
    let mut clients = start_clients(&ledger, &[server.tcp(), server.unix()], clients, seed).await;
    let mut rng = Rng::with_seed(seed);
    for kill in 1..=kills {
        let more = rng.u64(30..250);
        tokio::select! {
            () = ledger.acknowledged_more(more) => {}
            () = clients.failed() => {}
        }
        server.kill().await;
        let promised = ledger.promised();
        if kill % 3 == 0 {
            server.start_and_kill_early(rng.u32(1..100)).await;
        }
        server.start_again().await;
        verifier.verify(&promised).await;
        println!("kill {kill} of {kills} after {more} more acknowledgements: {}", verifier.summary());
    }
    clients.stop().await;
    verifier.verify(&ledger.promised()).await;
    verifier
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_kill_9() {
    let mut clients = vec![Does::Plain; 6];
    clients.extend([Does::Chain; 4]);
    clients.extend([Does::Lock; 2]);
    clients.push(Does::Scratch);
    let home = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(home.path(), CONFIG).await;
    let kills = setting("BOKI_KILLS", 20);
    let verifier = kill_again_and_again(&mut server, &clients, kills, setting("BOKI_SEED", 1)).await;
    assert!(verifier.saw_everything_happen(), "the load did not do all it should: {}", verifier.summary());
    server.kill().await;
}

/// Here nothing is kept for long, so whole segments die and are removed, after a checkpoint: also under kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_trimmed_stays_gone_and_its_files_are_removed_whatever_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(home.path(), CONFIG).await;
    let kills = setting("BOKI_KILLS", 20);
    kill_again_and_again(&mut server, &[Does::Scratch; 4], kills, setting("BOKI_SEED", 1)).await;
    server.kill().await;
    let segments = server.segments();
    let made = *segments.last().unwrap() as usize;
    assert!(segments.len() < made, "none of {made} segments was removed: {segments:?}");
}
