//! What an acknowledgement is worth.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use boki_sdk::Client;
use boki_sdk::prelude::*;

/// A server process; returns it and its address when it answers.
fn start(data: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_boki"))
        .args(["server", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the server ended before it was ready");
    (child, format!("unix:{}", data.join("boki.sock").display()))
}

/// There, an acknowledged record is in the memory of three machines. Here it is on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t15_a_record_is_readable_after_kill_9_right_after_its_acknowledgement() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        let (mut server, address) = start(&data);
        let client = Client::connect(&address).await.unwrap();
        let book = client.book("default").await.unwrap();
        for (payload, seq) in &acknowledged {
            let found = book.read_next(*seq).tag("t").first().await.unwrap().unwrap();
            assert_eq!((found.seq, found.data()), (*seq, &*format!("{payload}").into_bytes()));
        }
        let seq = book.append(format!("{round}")).tag("t").await.unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        acknowledged.push((round, seq));
    }
    let (mut server, address) = start(&data);
    let book = Client::connect(&address).await.unwrap().book("default").await.unwrap();
    let found: Vec<Seq> = book.read_next(Seq::FIRST).tag("t").await.unwrap().iter().map(|record| record.seq).collect();
    assert_eq!(found, acknowledged.iter().map(|(_, seq)| *seq).collect::<Vec<_>>());
    server.kill().unwrap();
    server.wait().unwrap();
}
