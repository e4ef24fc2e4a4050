//! What an append costs in the process that has the log, without a socket: latency with one in flight, throughput with many.
//! Records of 1 KiB that look like JSON, stored as they are, compressed, encrypted, and both, in turns.
//! `cargo run --release -p boki-node --example append_cost [folder]`; the folder is emptied.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use boki_log::batch::ReservedTags;
use boki_log::op::{Ack, Append, Op, Reply};
use boki_log::{BatchBuilder, BookId, LogError, Tag};
use boki_node::{Compression, DataKey, DataKeys, Node, NodeConfig, ReplySink};

struct Ended(SyncSender<()>);

impl ReplySink for Ended {
    fn reply(&self, _corr: u64, result: Result<Reply, LogError>) {
        result.unwrap();
        self.0.send(()).unwrap();
    }

    fn flush(&self) {}
}

fn append(node: &Node, book: BookId, sink: &Arc<dyn ReplySink>, number: u64) {
    let tags = vec![Tag::new(format!("user/{}", number % 1000)).unwrap()];
    let batch = BatchBuilder::new(book).record(tags, payload(number)).build().unwrap();
    node.submit(Op::Append(Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused }), sink, number);
}

/// An order of 1 KiB, as JSON: field names and formats repeat, numbers do not.
fn payload(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut text = format!(r#"{{"id":"{number:016x}","user":"user-{}","currency":"EUR","items":["#, next(100_000));
    while text.len() < 964 {
        let (sku, quantity, price, cents) = (next(1_000_000), next(9), next(500), next(100));
        text += &format!(r#"{{"sku":"SKU-{sku:06}","qty":{quantity},"price":{price}.{cents:02}}},"#);
    }
    text += "]}";
    let mut bytes = text.into_bytes();
    bytes.resize(1024, b' ');
    bytes
}

fn run(node: &Node, book: BookId, in_flight: u64, span: Duration) {
    let (sender, ended): (_, Receiver<()>) = sync_channel(in_flight as usize + 1);
    let sink: Arc<dyn ReplySink> = Arc::new(Ended(sender));
    let started = Instant::now();
    let (mut sent, mut done) = (0, 0_u64);
    let mut latencies = Vec::new();
    let before = node.status();
    while sent < in_flight {
        append(node, book, &sink, sent);
        sent += 1;
    }
    let mut last = Instant::now();
    while started.elapsed() < span {
        ended.recv().unwrap();
        done += 1;
        if in_flight == 1 {
            latencies.push(last.elapsed());
        }
        last = Instant::now();
        append(node, book, &sink, sent);
        sent += 1;
    }
    let elapsed = started.elapsed();
    for _ in done..sent {
        ended.recv().unwrap();
    }
    let after = node.status();
    latencies.sort_unstable();
    let rate = done as f64 / elapsed.as_secs_f64();
    let groups = (after.groups - before.groups).max(1);
    println!(
        "{in_flight:>5} in flight: {rate:>9.0}/s, {:>6.1} records a group, p50 {:?}, p99 {:?}",
        sent as f64 / groups as f64,
        latencies.get(latencies.len() / 2),
        latencies.get(latencies.len() * 99 / 100),
    );
}

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "/tmp/boki-append-cost".into());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..3 {
        for (name, compression, is_encrypted) in [
            ("as it is", Compression::None, false),
            ("lz4", Compression::Lz4, false),
            ("encrypted", Compression::None, true),
            ("lz4, encrypted", Compression::Lz4, true),
        ] {
            // What is left of the run before; there is none at first.
            let _ = std::fs::remove_dir_all(&folder);
            let keys = is_encrypted.then(|| DataKeys { current: DataKey::generate().unwrap(), old: vec![] });
            let node = Node::open(NodeConfig { compression, keys, ..NodeConfig::new(&folder) }).unwrap();
            let book = runtime.block_on(node.create_book("cost")).unwrap().id;
            println!("{name}");
            for in_flight in [1, 64, 1024] {
                run(&node, book, in_flight, Duration::from_secs(2));
            }
            runtime.block_on(node.shutdown());
        }
    }
}
