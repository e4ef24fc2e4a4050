//! Data directories of earlier versions of the format: they open, and say what they said. The files under `tests/golden` were
//! written by the program of that version and never change; a new version of the format gets new ones.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use boki_log::batch::{Condition, ReservedTags};
use boki_log::op::{Ack, Append, Consistency, Direction, Read, Tail};
use boki_log::{AppendId, BatchBuilder, BookId, Limits, LogError, Seq, Tag};
use boki_node::{Clock, Node, NodeConfig};

/// Bytes of the segment files: their copies lack the zeros at their ends.
const SEGMENT_BYTES: u64 = 32 << 10;
const START_US: u64 = 1_790_000_000_000_000;

fn golden(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

fn config(data: &Path) -> NodeConfig {
    NodeConfig {
        segment_bytes: SEGMENT_BYTES,
        limits: Limits { batch_bytes: 16 << 10, record_bytes: 8 << 10, ..Limits::default() },
        clock: Clock::virtual_from(START_US),
        ..NodeConfig::new(data)
    }
}

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

fn append(batch: BatchBuilder) -> Append {
    Append { batch: batch.build().unwrap(), ack: Ack::Ordered, reserved: ReservedTags::Refused }
}

fn trim(book: BookId, text: &str, below: Seq) -> Append {
    let batch = BatchBuilder::trim(book, Some(tag(text)), below).unwrap();
    Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused }
}

fn once(book: BookId) -> Append {
    append(BatchBuilder::new(book).id(AppendId([7; 16])).record(vec![tag("once")], "only once"))
}

/// What every golden directory was filled with.
async fn fill(node: &Node) {
    let orders = node.create_book("orders").await.unwrap().id;
    node.create_book("empty").await.unwrap();
    node.append(once(orders)).await.unwrap();
    let mut last = Seq::NONE;
    for number in 0..12 {
        let batch = BatchBuilder::new(orders).record(vec![tag("drop")], format!("dropped {number}"));
        last = node.append(append(batch)).await.unwrap().seq.unwrap();
    }
    node.append(append(BatchBuilder::new(orders).raise(tag("fenced"), 3).record(vec![tag("fenced")], "fence")))
        .await
        .unwrap();
    node.append(trim(orders, "drop", last)).await.unwrap();
    for number in 0..12 {
        let tags = vec![tag("keep"), tag(&format!("number/{number}"))];
        node.append(append(BatchBuilder::new(orders).record(tags, format!("kept {number}")))).await.unwrap();
    }
    let mut blob = node.blobs().write(node.blobs().name(orders, 5, 1)).await.unwrap();
    blob.write("a blob".into()).await.unwrap();
    blob.finish().await.unwrap();
}

/// That a directory says what [`fill`] has put there, and goes on.
async fn check(node: &Node) {
    let orders = node.book("orders").await.unwrap().id;
    assert_eq!(node.books().await.unwrap().len(), 2);
    let read = |text: &str| Read {
        book: orders,
        tag: Some(tag(text)),
        from: Seq(0),
        direction: Direction::Next,
        limit: 100,
        consistency: Consistency::Linearizable,
        wait: None,
    };
    let payloads = async |text: &str| {
        let records = node.read(read(text)).await.unwrap().records;
        records.iter().map(|record| String::from_utf8(record.body.payload().to_vec()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(payloads("keep").await, (0..12).map(|number| format!("kept {number}")).collect::<Vec<_>>());
    assert_eq!(payloads("number/7").await, ["kept 7"]);
    assert_eq!(payloads("drop").await, ["dropped 11"]);
    assert_eq!(payloads("once").await, ["only once"]);
    let again = node.append(once(orders)).await.unwrap();
    assert!(again.repeated);
    let stale = BatchBuilder::new(orders).condition(Condition::Fence { tag: tag("fenced"), epoch: 2 });
    let refused = node.append(append(stale.record(vec![], "late"))).await;
    assert!(matches!(refused, Err(LogError::Fenced { .. })), "{refused:?}");
    let tail = Tail { book: orders, tag: Some(tag("drop")), consistency: Consistency::Linearizable };
    assert!(node.tail(tail).await.unwrap().seq > Seq::NONE);
    let names = node.blobs().names().await.unwrap();
    assert_eq!((names.len(), names[0].owner, names[0].item, names[0].part), (1, orders.0, 5, 1));
    let mut blob = node.blobs().read(names[0]).await.unwrap().unwrap();
    assert_eq!(blob.next().await.unwrap().unwrap(), "a blob");
    let more = node.append(append(BatchBuilder::new(orders).record(vec![tag("more")], "more"))).await.unwrap();
    assert!(more.seq.is_some());
    assert_eq!(payloads("more").await.last().unwrap(), "more");
}

/// Copies a directory's files, with or without the zeros at the ends of segments.
fn copy(from: &Path, to: &Path, segment_bytes: Option<u64>) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, segment_bytes);
            continue;
        }
        if name == "LOCK" || name.ends_with(".new") {
            continue;
        }
        let mut bytes = fs::read(entry.path()).unwrap();
        if name.ends_with(".log") {
            match segment_bytes {
                Some(len) => bytes.resize(usize::try_from(len).unwrap(), 0),
                None => bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1),
            }
        }
        fs::write(target, bytes).unwrap();
    }
}

#[tokio::test]
#[ignore = "writes the golden directory of this version"]
async fn make() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(config(folder.path())).unwrap();
    fill(&node).await;
    for _ in 0..50 {
        if node.status().segments < 4 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    println!("{:?}", node.status());
    node.shutdown().await;
    drop(node);
    copy(folder.path(), Path::new(&std::env::var("GOLDEN").unwrap()), None);
}

#[tokio::test]
async fn a_directory_of_version_1_opens() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("v1"), folder.path(), Some(SEGMENT_BYTES));
    for _ in 0..2 {
        let node = Node::open(config(folder.path())).unwrap();
        check(&node).await;
        node.shutdown().await;
    }
}
