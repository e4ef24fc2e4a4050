//! What an append costs in the process that has the log, without a socket: latency with one in flight, throughput with many.
//! `cargo run --release -p boki-node --example append_cost [folder]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use boki_log::batch::ReservedTags;
use boki_log::op::{Ack, Append, Op, Reply};
use boki_log::{BatchBuilder, BookId, LogError, Tag};
use boki_node::{Node, NodeConfig, ReplySink};

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
    let batch = BatchBuilder::new(book).record(tags, vec![7; 1024]).build().unwrap();
    node.submit(Op::Append(Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused }), sink, number);
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
    let started = Instant::now();
    let node = Node::open(NodeConfig::new(&folder)).unwrap();
    println!("opened in {:?}", started.elapsed());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let book = runtime.block_on(async {
        match node.create_book("cost").await {
            Ok(book) => book.id,
            Err(_) => node.book("cost").await.unwrap().id,
        }
    });
    for in_flight in [1, 16, 64, 256, 1024] {
        run(&node, book, in_flight, Duration::from_secs(3));
    }
    runtime.block_on(node.shutdown());
}
