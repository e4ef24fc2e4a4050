//! Books are kept to their rules, on a real directory, in virtual time.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use boki_log::batch::ReservedTags;
use boki_log::op::{Ack, Append, Consistency, Direction, Read};
use boki_log::retention::{Keep, Rule, Scope};
use boki_log::{BatchBuilder, BookId, LogError, Seq, Tag};
use boki_node::{Clock, ConfiguredRule, Node, NodeConfig, RulesFrom};

const START_US: u64 = 1_700_000_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn config(path: &std::path::Path) -> NodeConfig {
    let segment_bytes = 1 << 20;
    NodeConfig { clock: Clock::virtual_from(START_US), segment_bytes, cache_bytes: 1 << 20, ..NodeConfig::new(path) }
}

/// Opens a node whose books are kept to their rules.
fn start(config: NodeConfig) -> Node {
    let node = Node::open(config).unwrap();
    let keeper = node.clone();
    tokio::spawn(async move { keeper.keep_retention().await });
    node
}

fn rule(scope: Option<&str>, keep: Keep) -> Rule {
    Rule { scope: Scope::parse(scope).unwrap(), keep }
}

fn records(most: u64) -> Keep {
    Keep { records: Some(most), ..Keep::default() }
}

fn age(hours: u64) -> Keep {
    Keep { age_us: Some(hours * HOUR.as_micros() as u64), ..Keep::default() }
}

async fn append(node: &Node, book: BookId, tags: &[&str], payload: usize) -> Seq {
    let reserved =
        if tags.iter().any(|tag| tag.starts_with('~')) { ReservedTags::Allowed } else { ReservedTags::Refused };
    let tags = tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect();
    let batch = BatchBuilder::new(book).record(tags, vec![7; payload]).build().unwrap();
    node.append(Append { batch, ack: Ack::Ordered, reserved }).await.unwrap().seq.unwrap()
}

async fn seen(node: &Node, book: BookId, tag: Option<&str>) -> Vec<Seq> {
    let tag = tag.map(|tag| Tag::new(tag).unwrap());
    let mut read = Read {
        book,
        tag,
        from: Seq(0),
        direction: Direction::Next,
        limit: 4096,
        consistency: Consistency::Linearizable,
        wait: None,
    };
    let mut seqs = Vec::new();
    loop {
        let page = node.read(read.clone()).await.unwrap().records;
        let Some(last) = page.last() else { return seqs };
        read.from = last.seq.next();
        seqs.extend(page.into_iter().map(|record| record.seq));
    }
}

/// Waits until `is_so`; whatever ends the test's patience ends the wait.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    while !is_so().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_book_is_kept_to_its_rules_from_the_moment_they_are_set() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(config(folder.path()));
    let book = node.create_book("orders").await.unwrap().id;
    let call = append(&node, book, &["~call/1"], 10).await;
    for _ in 0..300 {
        append(&node, book, &["t"], 10).await;
    }
    node.set_retention("orders", vec![rule(None, records(100))]).await.unwrap();
    until(async || seen(&node, book, Some("t")).await.len() < 164).await;
    for _ in 0..500 {
        append(&node, book, &["t"], 10).await;
    }
    until(async || seen(&node, book, Some("t")).await.len() < 164).await;
    let left = seen(&node, book, None).await;
    assert!(left.len() > 100, "{} are left", left.len());
    assert_eq!(left[0], call, "what is not the user's is not trimmed");
    let retention = node.retention("orders").await.unwrap();
    assert_eq!((retention.from, retention.is_in_force), (RulesFrom::Set, true));
    assert_eq!(retention.counted.unwrap().0, left.len() as u64 - 1);
    assert!(node.status().retention_trims >= 2);
    node.shutdown().await;
}

#[tokio::test]
async fn what_is_too_old_goes_when_its_time_has_come_and_nothing_before() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(config(folder.path()));
    let book = node.create_book("orders").await.unwrap().id;
    node.set_retention("orders", vec![rule(Some("state/*"), age(1)), rule(Some("log"), age(10))]).await.unwrap();
    until(async || node.retention("orders").await.unwrap().is_in_force).await;
    append(&node, book, &["state/1"], 10).await;
    let both = append(&node, book, &["state/2", "log"], 10).await;
    let untagged = append(&node, book, &[], 10).await;
    assert!(node.advance(HOUR));
    assert_eq!(seen(&node, book, None).await.len(), 3);
    assert!(node.advance(HOUR / 32));
    until(async || seen(&node, book, None).await == [both, untagged]).await;
    until(async || seen(&node, book, Some("state/2")).await.is_empty()).await;
    assert!(node.advance(10 * HOUR));
    until(async || seen(&node, book, None).await == [untagged]).await;
    node.shutdown().await;
}

#[tokio::test]
async fn rules_and_what_they_count_outlive_a_stop_and_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::virtual_from(START_US);
    let config = NodeConfig { clock: clock.clone(), ..config(folder.path()) };
    let node = start(config.clone());
    let book = node.create_book("orders").await.unwrap().id;
    node.set_retention("orders", vec![rule(None, records(1000)), rule(Some("a"), age(1))]).await.unwrap();
    until(async || node.retention("orders").await.unwrap().is_in_force).await;
    for _ in 0..300 {
        append(&node, book, &["a"], 100).await;
    }
    let before = node.retention("orders").await.unwrap();
    assert_eq!(before.counted.unwrap().0, 300);
    node.shutdown().await;
    let node = Node::open(config.clone()).unwrap();
    assert_eq!(node.retention("orders").await.unwrap(), before, "known at once, without the task that counts");
    append(&node, book, &["a"], 100).await;
    node.shutdown().await;
    // As after a crash: without the last checkpoint everything comes from the journal, and the rules are new again.
    std::fs::remove_file(folder.path().join("checkpoint")).unwrap();
    let node = start(config);
    until(async || node.retention("orders").await.unwrap().counted.is_some_and(|(count, _)| count == 301)).await;
    assert!(node.advance(2 * HOUR));
    until(async || seen(&node, book, None).await.is_empty()).await;
    node.shutdown().await;
}

#[tokio::test]
async fn books_without_rules_of_their_own_go_by_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let configured = |books: &str, keep| ConfiguredRule { books: books.into(), rule: rule(None, keep) };
    let retention = vec![configured("log-*", records(10)), configured("log-audit", age(5)), configured("x", age(1))];
    let node = start(NodeConfig { retention, ..config(folder.path()) });
    let book = node.create_book("log-web").await.unwrap().id;
    node.create_book("log-audit").await.unwrap();
    node.create_book("orders").await.unwrap();
    let rules = async |name| node.retention(name).await.unwrap().rules;
    assert_eq!(rules("log-web").await, [rule(None, records(10))]);
    assert_eq!(rules("log-audit").await, [rule(None, age(5))]);
    assert_eq!(rules("orders").await, []);
    for _ in 0..200 {
        append(&node, book, &[], 10).await;
    }
    until(async || seen(&node, book, None).await.len() < 74).await;
    node.set_retention("log-web", vec![]).await.unwrap();
    until(async || node.status().retention_books == 1).await;
    for _ in 0..200 {
        append(&node, book, &[], 10).await;
    }
    assert!(seen(&node, book, None).await.len() >= 200, "everything is kept");
    node.remove_retention("log-web").await.unwrap();
    until(async || seen(&node, book, None).await.len() < 74).await;
    assert_eq!(node.retention("log-web").await.unwrap().from, RulesFrom::Configuration);
    node.remove_book("log-web").await.unwrap();
    assert!(matches!(node.retention("log-web").await, Err(LogError::BookNotFound { .. })));
    until(async || node.status().retention_books == 1).await;
    node.shutdown().await;
}

#[tokio::test]
async fn rules_that_make_no_sense_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(config(folder.path()));
    node.create_book("orders").await.unwrap();
    let error = node.set_retention("orders", vec![rule(Some("a/*"), Keep::default())]).await.unwrap_err();
    assert_eq!(error.code(), "BK0114");
    assert!(error.to_string().contains("a/*"), "{error}");
    assert_eq!(node.retention("orders").await.unwrap().rules, []);
    assert!(matches!(node.set_retention("none", vec![]).await, Err(LogError::BookNotFound { .. })));
    node.shutdown().await;
}

#[tokio::test]
async fn a_book_kept_by_size_keeps_the_disk_flat_over_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let config = NodeConfig { durability: boki_node::Durability::Memory, ..config(folder.path()) };
    let segment_bytes = config.segment_bytes;
    let node = start(config);
    let book = node.create_book("orders").await.unwrap().id;
    node.set_retention("orders", vec![rule(None, Keep { bytes: Some(8 << 20), ..Keep::default() })]).await.unwrap();
    let mut sizes = Vec::new();
    // 48 MiB through 8 MiB of room and segments of 1 MiB.
    for round in 0..48 {
        for _ in 0..64 {
            append(&node, book, &["t"], 16 << 10).await;
        }
        // Half a segment of each is lost where the next batch did not fit; one holds the catalog, one is filled, one is
        // ready to be, and one or two have died and are about to go.
        if round >= 16 {
            until(async || node.status().disk_bytes <= 14 * segment_bytes).await;
            sizes.push(node.status().disk_bytes);
        }
    }
    assert!(sizes.iter().all(|size| *size >= 8 << 20), "{sizes:?}");
    node.shutdown().await;
}
