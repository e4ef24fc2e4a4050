//! The index beyond its memory: tables on disk, merged, read back, damaged.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use boki_log::batch::{Condition, ReservedTags};
use boki_log::op::{Ack, Append, Consistency, Direction, Read, Records, Tags, Tail};
use boki_log::{BatchBuilder, BookId, LogError, Seq, Tag};
use boki_node::{Node, NodeConfig};

const PER_BATCH: u64 = 100;

/// What is recent may take 8 KiB: every few hundred records make a table.
fn open(path: &Path) -> Node {
    Node::open(NodeConfig { index_bytes: 64 << 10, segment_bytes: 40 << 20, ..NodeConfig::new(path) }).unwrap()
}

fn tag(number: u64) -> Tag {
    Tag::new(format!("user/{number:06}")).unwrap()
}

fn append(batch: BatchBuilder) -> Append {
    Append { batch: batch.build().unwrap(), ack: Ack::Ordered, reserved: ReservedTags::Refused }
}

/// Appends records, each under a tag of its own and one of ten; their numbers begin at `from`.
async fn fill(node: &Node, book: BookId, from: u64) -> Seq {
    let mut batch = BatchBuilder::new(book);
    for number in from..from + PER_BATCH {
        let shared = Tag::new(format!("shared/{}", number % 10)).unwrap();
        batch = batch.record(vec![tag(number), shared], number.to_string().into_bytes());
    }
    node.append(append(batch)).await.unwrap().seq.unwrap()
}

fn read(book: BookId, tag: Option<Tag>, direction: Direction) -> Read {
    let from = if direction == Direction::Next { Seq::NONE } else { Seq::MAX };
    Read { book, tag, from, direction, limit: 4000, consistency: Consistency::Linearizable, wait: None }
}

fn numbers(records: &Records) -> Vec<u64> {
    let number =
        |record: &boki_log::Record| String::from_utf8(record.body.payload().to_vec()).unwrap().parse().unwrap();
    records.records.iter().map(number).collect()
}

/// Everything that can be asked for is there, whatever table it lies in.
async fn check(node: &Node, book: BookId, first: u64, end: u64) {
    for number in (first..end).step_by(37) {
        let found = node.read(read(book, Some(tag(number)), Direction::Prev)).await.unwrap();
        assert_eq!(numbers(&found), [number]);
    }
    let shared = Tag::new("shared/3").unwrap();
    let found = node.read(read(book, Some(shared), Direction::Next)).await.unwrap();
    assert_eq!(numbers(&found), (first..end).filter(|number| number % 10 == 3).collect::<Vec<_>>());
    let all = node.read(read(book, None, Direction::Prev)).await.unwrap();
    assert_eq!(numbers(&all), (first..end).rev().take(4000).collect::<Vec<_>>());
    let tags = Tags { book, prefix: "user/".into(), after: None, limit: 4000, consistency: Consistency::Any };
    let page = node.tags(tags).await.unwrap();
    assert_eq!(page.tags.len() as u64, (end - first).min(4000));
    assert_eq!(page.tags[0].0, tag(first));
    let absent = Tail { book, tag: Some(tag(end)), consistency: Consistency::Any };
    assert_eq!(node.tail(absent).await.unwrap().seq, Seq::NONE);
    let again = append(
        BatchBuilder::new(book)
            .record(vec![tag(first)], vec![])
            .condition(Condition::Tail { tag: tag(first), seq: Seq::NONE }),
    );
    assert!(matches!(node.append(again).await, Err(LogError::ConditionFailed { .. })), "it is there");
}

/// Fills until there have been `merges` merges; how many records there are.
async fn fill_until_merged(node: &Node, book: BookId, merges: u64) -> u64 {
    let mut end = 0;
    while node.status().index_merges < merges {
        fill(node, book, end).await;
        end += PER_BATCH;
        assert!(end < 2_000_000, "no merge: {:?}", node.status());
    }
    end
}

#[tokio::test]
async fn an_index_larger_than_its_memory_answers_before_and_after_a_stop_and_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let book = node.create_book("b").await.unwrap().id;
    let mut end = fill_until_merged(&node, book, 1).await;
    let status = node.status();
    assert!(status.index_tables > 0 && status.index_table_bytes > 0, "{status:?}");
    check(&node, book, 0, end).await;
    node.shutdown().await;
    drop(node);

    let node = open(folder.path());
    assert!(node.status().index_tables > 0);
    check(&node, book, 0, end).await;
    fill(&node, book, end).await;
    end += PER_BATCH;
    // What a crash leaves: the files as they are, without a last checkpoint.
    let copy = tempfile::tempdir().unwrap();
    copy_all(folder.path(), copy.path());
    std::fs::write(copy.path().join("table/0000999999999999.tbl"), b"written for a checkpoint that there is not")
        .unwrap();
    node.shutdown().await;
    let node = open(copy.path());
    check(&node, book, 0, end).await;
    assert!(!copy.path().join("table/0000999999999999.tbl").exists());
    assert_eq!(std::fs::read_dir(copy.path().join("table")).unwrap().count() as u64, node.status().index_tables);
}

#[tokio::test]
async fn what_is_trimmed_is_gone_from_tables_too() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let book = node.create_book("b").await.unwrap().id;
    let end = fill_until_merged(&node, book, 1).await;
    let first = node.read(Read { limit: 1, ..read(book, Some(tag(end / 2)), Direction::Next) }).await.unwrap();
    let below = first.records[0].seq;
    let trim = BatchBuilder::trim(book, None, below).unwrap();
    node.append(Append { batch: trim, ack: Ack::Ordered, reserved: ReservedTags::Refused }).await.unwrap();
    let records = node.status().records;
    assert_eq!(records, 1 + end - end / 2, "the book's own record in the catalog, and the rest");
    check(&node, book, end / 2, end).await;
    node.shutdown().await;
    drop(node);
    let node = open(folder.path());
    assert_eq!(node.status().records, records);
    check(&node, book, end / 2, end).await;
}

#[tokio::test]
async fn a_damaged_table_is_an_error_and_never_an_absent_record() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path());
    let book = node.create_book("b").await.unwrap().id;
    let end = fill_until_merged(&node, book, 1).await;
    node.shutdown().await;
    drop(node);
    let table = std::fs::read_dir(folder.path().join("table")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&table).unwrap();
    let len = bytes.len();
    // The first block, which has the tags.
    bytes[len.min(200)] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    match Node::open(NodeConfig::new(folder.path())) {
        // Little is read at the start, but this may have been among it.
        Err(error) => assert_eq!(error.code(), "BK0306"),
        Ok(node) => {
            let mut damaged = 0;
            for number in 0..end {
                match node.read(read(book, Some(tag(number)), Direction::Next)).await {
                    Ok(found) => assert_eq!(numbers(&found), [number], "never served as absent"),
                    Err(error) => {
                        assert_eq!(error.code(), "BK0306");
                        damaged += 1;
                    }
                }
            }
            assert!(damaged > 0);
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
