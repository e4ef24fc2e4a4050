//! The node on a real directory.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use boki_log::batch::{Condition, ReservedTags};
use boki_log::op::{Ack, Append, Consistency, Direction, Read, Tail};
use boki_log::{AppendId, BatchBuilder, BookId, Limits, LogError, Position, Seq, Tag};
use boki_node::{Clock, Node, NodeConfig, OpenError};

fn open(path: &std::path::Path) -> Node {
    Node::open(NodeConfig::new(path)).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

fn append(batch: BatchBuilder) -> Append {
    Append { batch: batch.build().unwrap(), ack: Ack::Ordered, reserved: ReservedTags::Refused }
}

fn record(book: BookId, text: &str, payload: &str) -> Append {
    append(BatchBuilder::new(book).record(vec![tag(text)], payload.as_bytes().to_vec()))
}

fn read(book: BookId, text: Option<&str>, consistency: Consistency) -> Read {
    let tag = text.map(tag);
    Read { book, tag, from: Seq(0), direction: Direction::Next, limit: 1000, consistency, wait: None }
}

async fn payloads(node: &Node, read: Read) -> Vec<String> {
    let records = node.read(read).await.unwrap().records;
    records.into_iter().map(|record| String::from_utf8(record.body.payload().to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let book = node.create_book("orders").await.unwrap().id;
    for number in 0..10 {
        node.append(record(book, "t", &number.to_string())).await.unwrap();
    }
    let before = node.read(read(book, None, Consistency::Linearizable)).await.unwrap();
    node.shutdown().await;
    assert!(matches!(node.append(record(book, "t", "late")).await, Err(LogError::ShuttingDown)));
    drop(node);
    let node = open(folder.path());
    assert_eq!(node.book("orders").await.unwrap().id, book);
    let after = node.read(read(book, None, Consistency::Session(before.position))).await.unwrap();
    assert_eq!(after.records, before.records);
    assert!(node.append(record(book, "t", "more")).await.unwrap().seq.unwrap() > after.records[9].seq);
}

#[tokio::test]
async fn an_entry_is_replaced_by_one_who_has_seen_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    node.create_book("orders").await.unwrap();
    let first = node.set_entry("app/shop", Seq::NONE, "1".into()).await.unwrap();
    let second = node.set_entry("app/shop", first, "2".into()).await.unwrap();
    for seen in [Seq::NONE, first] {
        let error = node.set_entry("app/shop", seen, "3".into()).await.unwrap_err();
        assert!(matches!(error, LogError::ConditionFailed { actual, .. } if actual == second), "{error}");
    }
    node.set_entry("app/other", Seq::NONE, "7".into()).await.unwrap();
    node.set_entry("else", Seq::NONE, "8".into()).await.unwrap();
    assert_eq!(node.status().books, 1);
    node.shutdown().await;
    drop(node);
    let node = open(folder.path());
    let entries = node.entries("app/").await.unwrap();
    let entries: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), &entry.value[..])).collect();
    assert_eq!(entries, [("app/other", &b"7"[..]), ("app/shop", b"2")]);
    assert_eq!(node.entries("app/x").await.unwrap(), []);
}

#[tokio::test]
async fn a_second_process_is_told_that_the_directory_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let _node = open(folder.path());
    let error = Node::open(NodeConfig::new(folder.path())).unwrap_err();
    assert_eq!(error.code(), "BK0311");
    assert!(matches!(error, OpenError::Directory(_)));
}

#[tokio::test]
async fn books_are_created_once_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let shop = node.create_book("shop").await.unwrap();
    assert_eq!(node.create_book("shop").await, Err(LogError::BookExists { name: "shop".into() }));
    assert!(matches!(node.create_book("a/b").await, Err(LogError::InvalidBookName { .. })));
    let bank = node.create_book("bank").await.unwrap();
    assert_eq!(node.books().await.unwrap(), [bank.clone(), shop.clone()]);
    node.append(record(shop.id, "t", "x")).await.unwrap();
    node.remove_book("shop").await.unwrap();
    assert_eq!(node.books().await.unwrap(), [bank]);
    assert!(matches!(node.append(record(shop.id, "t", "x")).await, Err(LogError::BookNotFound { .. })));
    let again = node.create_book("shop").await.unwrap();
    assert_ne!(again.id, shop.id);
    assert_eq!(payloads(&node, read(again.id, None, Consistency::Linearizable)).await, Vec::<String>::new());
    assert!(matches!(node.append(record(BookId(0), "t", "x")).await, Err(LogError::BookNotFound { .. })));
}

#[tokio::test]
async fn a_blocking_read_wakes_times_out_and_can_be_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let book = node.create_book("b").await.unwrap().id;
    let waiting = |text, wait| {
        let mut read = read(book, Some(text), Consistency::Session(Position::START));
        read.wait = Some(wait);
        read
    };
    let none = node.read(waiting("never", Duration::from_millis(20))).await.unwrap();
    assert_eq!(none.records, []);
    let reader = node.clone();
    let read = waiting("t", Duration::from_secs(60));
    let woken = tokio::spawn(async move { reader.read(read).await.unwrap().records.len() });
    while node.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    let given_up = tokio::time::timeout(Duration::ZERO, node.read(waiting("t", Duration::from_secs(60)))).await;
    assert!(given_up.is_err());
    node.append(record(book, "t", "x")).await.unwrap();
    assert_eq!(woken.await.unwrap(), 1);
    assert_eq!(node.status().waiting, 0);
}

#[tokio::test]
async fn two_racing_callers_agree_on_who_was_first() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let book = node.create_book("b").await.unwrap().id;
    for round in 0..50 {
        let text = format!("seat/{round}");
        let claim = |who: &str| {
            let free = Condition::Tail { tag: tag(&text), seq: Seq::NONE };
            append(BatchBuilder::new(book).condition(free).record(vec![tag(&text)], who.as_bytes().to_vec()))
        };
        let (a, b) = tokio::join!(node.append(claim("a")), node.append(claim("b")));
        let winner = if a.is_ok() { "a" } else { "b" };
        assert_eq!([a.is_ok(), b.is_ok()].iter().filter(|won| **won).count(), 1);
        assert_eq!(payloads(&node, read(book, Some(&text), Consistency::Linearizable)).await, [winner]);
    }
}

#[tokio::test]
async fn a_repeated_id_adds_nothing_even_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let book = node.create_book("b").await.unwrap().id;
    let once = || {
        let batch = BatchBuilder::new(book).id(AppendId([9; 16])).record(vec![], &b"once"[..]);
        Append { batch: batch.build().unwrap(), ack: Ack::Ordered, reserved: ReservedTags::Refused }
    };
    let first = node.append(once()).await.unwrap();
    node.shutdown().await;
    drop(node);
    let node = open(folder.path());
    let second = node.append(once()).await.unwrap();
    assert_eq!((second.seq, second.repeated), (first.seq, true));
    assert_eq!(payloads(&node, read(book, None, Consistency::Linearizable)).await, ["once"]);
}

#[tokio::test]
async fn trimmed_segments_are_given_back_and_nothing_else_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let config = || NodeConfig {
        segment_bytes: 256 << 10,
        cache_bytes: 64 << 10,
        limits: Limits { batch_bytes: 64 << 10, ..Limits::default() },
        ..NodeConfig::new(folder.path())
    };
    let node = Node::open(config()).unwrap();
    let book = node.create_book("b").await.unwrap().id;
    node.append(record(book, "keep", "kept")).await.unwrap();
    let large = "x".repeat(10_000);
    let mut last = Seq::NONE;
    for _ in 0..200 {
        last = node.append(record(book, "drop", &large)).await.unwrap().seq.unwrap();
    }
    assert!(node.status().segments > 6);
    let trim = BatchBuilder::trim(book, Some(tag("drop")), last).unwrap();
    node.append(Append { batch: trim, ack: Ack::Ordered, reserved: ReservedTags::Refused }).await.unwrap();
    while node.status().segments > 3 {
        // Every append gives the log thread a turn.
        node.append(record(book, "keep", "more")).await.unwrap();
    }
    let kept = payloads(&node, read(book, Some("keep"), Consistency::Linearizable)).await;
    let dropped = payloads(&node, read(book, Some("drop"), Consistency::Linearizable)).await;
    assert_eq!((kept[0].as_str(), dropped.len()), ("kept", 1));
    node.shutdown().await;
    drop(node);
    let node = Node::open(config()).unwrap();
    assert_eq!(payloads(&node, read(book, Some("keep"), Consistency::Linearizable)).await, kept);
    assert_eq!(payloads(&node, read(book, Some("drop"), Consistency::Linearizable)).await, dropped);
    let tail = Tail { book, tag: Some(tag("drop")), consistency: Consistency::Any };
    assert_eq!(node.tail(tail).await.unwrap().seq, last);
}

#[tokio::test]
async fn a_record_larger_than_the_limit_is_refused_and_one_at_the_limit_is_read_back_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = NodeConfig { cache_bytes: 0, ..NodeConfig::new(folder.path()) };
    let limit = config.limits.record_bytes;
    let node = Node::open(config).unwrap();
    let book = node.create_book("b").await.unwrap().id;
    let refused = node.append(record(book, "t", &"y".repeat(limit + 1))).await;
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    node.append(record(book, "t", &"y".repeat(limit))).await.unwrap();
    let found = payloads(&node, read(book, Some("t"), Consistency::Linearizable)).await;
    assert_eq!((found.len(), found[0].len()), (1, limit));
    assert!(node.status().cache_misses > 0);
}

#[tokio::test]
async fn a_record_that_rots_on_disk_is_named_and_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(NodeConfig { cache_bytes: 0, ..NodeConfig::new(folder.path()) }).unwrap();
    let book = node.create_book("b").await.unwrap().id;
    let text = "a payload that can be found in the file";
    node.append(record(book, "t", text)).await.unwrap();
    assert_eq!(payloads(&node, read(book, Some("t"), Consistency::Linearizable)).await, [text]);
    let segment = folder.path().join("seg/0000000000000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let failed = node.read(read(book, Some("t"), Consistency::Linearizable)).await;
    assert!(matches!(failed, Err(LogError::ReadFailed { .. })), "{failed:?}");
}

#[tokio::test]
async fn a_virtual_clock_dates_the_records_and_ends_the_waits_and_moves_only_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let start_us = 1_700_000_000_000_000;
    let clock = Clock::virtual_from(start_us);
    let node = Node::open(NodeConfig { clock: clock.clone(), ..NodeConfig::new(folder.path()) }).unwrap();
    let book = node.create_book("b").await.unwrap().id;
    let waits = Read {
        from: Seq(1),
        wait: Some(Duration::from_secs(3600)),
        ..read(book, Some("none"), Consistency::Linearizable)
    };
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { node.read(waits).await }
    });
    while node.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    assert!(node.advance(Duration::from_secs(3599)));
    // An append is answered by the thread that would have ended the wait.
    node.append(record(book, "t", "early")).await.unwrap();
    assert_eq!(node.status().waiting, 1);
    assert!(node.advance(Duration::from_secs(1)));
    assert!(waiting.await.unwrap().unwrap().records.is_empty());
    node.append(record(book, "t", "late")).await.unwrap();
    let found = node.read(read(book, Some("t"), Consistency::Linearizable)).await.unwrap().records;
    let times: Vec<u64> = found.iter().map(|record| record.time_us - start_us).collect();
    assert_eq!(times, [3_599_000_000, 3_600_000_000]);
    assert_eq!(node.now_us(), start_us + 3_600_000_000);
    node.shutdown().await;

    let other = tempfile::tempdir().unwrap();
    let real = Node::open(NodeConfig::new(other.path())).unwrap();
    assert!(!real.advance(Duration::from_secs(1)), "nobody moves the system's clock");
}
