//! A node whose data directory is encrypted, compressed, or both.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use boki_log::batch::ReservedTags;
use boki_log::op::{Ack, Append, Consistency, Direction, Read};
use boki_log::{BatchBuilder, BookId, Limits, Seq, Tag};
use boki_node::{Compression, DataKey, DataKeys, Node, NodeConfig, OpenError};

/// Whoever finds this on the disk has read what he must not.
const MARKER: &str = "MARKERMARKER";

fn keys(current: u8, old: &[u8]) -> Option<DataKeys> {
    let key = |byte: &u8| DataKey::from_bytes([*byte; 32]);
    Some(DataKeys { current: key(&current), old: old.iter().map(key).collect() })
}

fn config(data: &Path, keys: Option<DataKeys>) -> NodeConfig {
    NodeConfig {
        segment_bytes: 128 << 10,
        cache_bytes: 0,
        limits: Limits { batch_bytes: 64 << 10, ..Limits::default() },
        keys,
        ..NodeConfig::new(data)
    }
}

fn tag(text: &str) -> Tag {
    Tag::new(format!("{MARKER}/{text}")).unwrap()
}

fn append(batch: boki_log::Batch) -> Append {
    Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused }
}

/// Puts the marker into everything that a user can name or write, until segments and checkpoints were written.
async fn fill(node: &Node, from: u64) -> BookId {
    let name = format!("{MARKER}-{from}");
    let book = node.create_book(&name).await.unwrap().id;
    for number in 0..60 {
        let payload = format!("{MARKER} {number} ").repeat(500);
        let batch = BatchBuilder::new(book).record(vec![tag("all"), tag(&number.to_string())], payload);
        node.append(append(batch.build().unwrap())).await.unwrap();
    }
    node.append(append(BatchBuilder::trim(book, Some(tag("3")), Seq(u64::from(u32::MAX))).unwrap())).await.unwrap();
    node.set_entry(&format!("app/{name}"), Seq::NONE, MARKER.into()).await.unwrap();
    let mut blob = node.blobs().write(node.blobs().name(book, 1, 2)).await.unwrap();
    blob.write(MARKER.repeat(20_000).into()).await.unwrap();
    blob.finish().await.unwrap();
    book
}

async fn check(node: &Node, book: BookId) {
    let (from, direction, limit, consistency) = (Seq(0), Direction::Next, 100, Consistency::Linearizable);
    let read = Read { book, tag: Some(tag("all")), from, direction, limit, consistency, wait: None };
    let records = node.read(read).await.unwrap().records;
    let payloads: Vec<_> = records.iter().map(|record| record.body.payload().to_vec()).collect();
    assert_eq!(payloads.len(), 60);
    for (number, payload) in payloads.iter().enumerate() {
        assert_eq!(*payload, format!("{MARKER} {number} ").repeat(500).into_bytes(), "record {number}");
    }
    let names = node.blobs().names().await.unwrap();
    let name = names.into_iter().find(|name| name.owner == book.0).unwrap();
    let mut blob = node.blobs().read(name).await.unwrap().unwrap();
    let mut len = 0;
    while let Some(bytes) = blob.next().await.unwrap() {
        len += bytes.len();
    }
    assert_eq!(len, MARKER.len() * 20_000);
}

/// How many files of a folder have the marker in them, in their names too, and how many there are.
fn marked(folder: &Path) -> (usize, usize) {
    let (mut marked, mut all) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            let (below, files) = self::marked(&entry.path());
            (marked, all) = (marked + below, all + files);
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        let is_in = |bytes: &[u8]| bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
        all += 1;
        marked += usize::from(is_in(&bytes) || is_in(entry.file_name().as_encoded_bytes()));
    }
    (marked, all)
}

#[tokio::test]
async fn nothing_that_was_written_is_on_the_disk_in_plain() {
    for (compression, is_encrypted) in [(Compression::None, false), (Compression::None, true), (Compression::Lz4, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let keys = if is_encrypted { keys(1, &[]) } else { None };
            Node::open(NodeConfig { compression, ..config(folder.path(), keys) }).unwrap()
        };
        let node = open();
        let book = fill(&node, 0).await;
        check(&node, book).await;
        let (while_open, _) = marked(folder.path());
        node.shutdown().await;
        drop(node);
        let (marked, all) = marked(folder.path());
        assert!(all > 8, "{all} files");
        // Without a key there is something to find, so it would be found with one.
        assert_eq!((while_open > 3, marked > 3), (!is_encrypted, !is_encrypted));
        assert!(!is_encrypted || while_open + marked == 0, "{while_open} and {marked} files");
        let node = open();
        check(&node, book).await;
        node.shutdown().await;
    }
}

#[tokio::test]
async fn keys_follow_each_other_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |keys| Node::open(config(folder.path(), keys)).unwrap_err().code();
    let node = Node::open(config(folder.path(), None)).unwrap();
    let plain = fill(&node, 0).await;
    node.shutdown().await;
    drop(node);
    assert_eq!(refused(keys(1, &[])), "BK0332");
    let mut books = vec![plain];
    for (keys, encrypt) in [(keys(1, &[]), true), (keys(2, &[1]), false), (keys(3, &[1, 2]), false)] {
        let node = Node::open(NodeConfig { encrypt, ..config(folder.path(), keys) }).unwrap();
        books.push(fill(&node, books.len() as u64).await);
        for book in &books {
            check(&node, *book).await;
        }
        node.shutdown().await;
    }
    for keys in [None, keys(1, &[]), keys(3, &[2]), keys(3, &[1]), keys(2, &[1]), keys(9, &[])] {
        assert_eq!(refused(keys), "BK0331");
    }
    let error = Node::open(config(folder.path(), None)).unwrap_err();
    assert!(matches!(error, OpenError::Directory(_)));
    assert!(error.to_string().contains(&DataKey::from_bytes([3; 32]).check().to_string()), "{error}");
}

#[tokio::test]
async fn compressed_records_take_less_of_the_disk_and_are_the_same() {
    let mut used = Vec::new();
    for compression in [Compression::None, Compression::Lz4] {
        let folder = tempfile::tempdir().unwrap();
        let config = || NodeConfig { compression, segment_bytes: 1 << 20, ..config(folder.path(), None) };
        let node = Node::open(config()).unwrap();
        let book = fill(&node, 0).await;
        check(&node, book).await;
        node.shutdown().await;
        drop(node);
        let node = Node::open(config()).unwrap();
        check(&node, book).await;
        let segment = std::fs::read(folder.path().join("seg/0000000000000001.log")).unwrap();
        used.push(segment.iter().rposition(|byte| *byte != 0).unwrap());
        node.shutdown().await;
    }
    assert!(used[1] < used[0] * 2 / 3, "{used:?}");
}
