//! What the doctor says of every kind of damage, and what it mends.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use boki_doctor::{Lost, Repair, Report, Scope, Severity, Subject, examine, repair};
use boki_log::batch::ReservedTags;
use boki_log::op::{Ack, Append, Consistency, Direction, Read};
use boki_log::{BatchBuilder, BookId, Limits, Seq, Tag};
use boki_node::{Node, NodeConfig};
use tempfile::TempDir;

type Content = BTreeMap<u64, Vec<u8>>;

fn config(path: &Path) -> NodeConfig {
    NodeConfig {
        segment_bytes: 128 << 10,
        cache_bytes: 0,
        limits: Limits { batch_bytes: 64 << 10, ..Limits::default() },
        ..NodeConfig::new(path)
    }
}

async fn append(node: &Node, book: BookId, tag: &str, payload: &[u8]) -> Seq {
    let batch = BatchBuilder::new(book).record(vec![Tag::new(tag).unwrap()], payload.to_vec()).build().unwrap();
    let append = Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused };
    node.append(append).await.unwrap().seq.unwrap()
}

async fn content(path: &Path, book: BookId) -> Content {
    let node = Node::open(config(path)).unwrap_or_else(|error| panic!("{error}"));
    let mut content = Content::new();
    let mut from = Seq(0);
    loop {
        let (direction, consistency) = (Direction::Next, Consistency::Linearizable);
        let read = Read { book, tag: None, from, direction, limit: 100, consistency, wait: None };
        let records = node.read(read).await.unwrap().records;
        let Some(last) = records.last() else { break };
        from = Seq(last.seq.0 + 1);
        content.extend(records.iter().map(|record| (record.seq.0, record.body.payload().to_vec())));
    }
    node.shutdown().await;
    content
}

struct Life {
    folder: TempDir,
    book: BookId,
}

const TEXT: &[u8] = b"a payload that is found in the files";

/// Two starts, several segments, and, if wanted, removed ones; a blob.
async fn life(trims: bool) -> Life {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(config(folder.path())).unwrap();
    let book = node.create_book("orders").await.unwrap().id;
    for _ in 0..5 {
        append(&node, book, "a", &[7; 3000]).await;
    }
    node.shutdown().await;
    drop(node);
    let node = Node::open(config(folder.path())).unwrap();
    if trims {
        let mut last = Seq::NONE;
        for _ in 0..40 {
            last = append(&node, book, "drop", &[b'x'; 10_000]).await;
        }
        let trim = BatchBuilder::trim(book, Some(Tag::new("drop").unwrap()), last).unwrap();
        node.append(Append { batch: trim, ack: Ack::Ordered, reserved: ReservedTags::Refused }).await.unwrap();
        let before = node.status().segments;
        while node.status().segments >= before {
            append(&node, book, "a", &[8; 2000]).await;
        }
    }
    append(&node, book, "a", TEXT).await;
    for number in 0..60_u8 {
        append(&node, book, "a", &[number; 4000]).await;
    }
    let mut blob = node.blobs().write(node.blobs().name(book, 7, 1)).await.unwrap();
    blob.write(vec![5; 100_000].into()).await.unwrap();
    blob.finish().await.unwrap();
    node.shutdown().await;
    Life { folder, book }
}

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for dir in ["", "seg", "blob", "table"] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    found
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for (name, bytes) in files(from) {
        fs::create_dir_all(to.path().join(&name).parent().unwrap()).unwrap();
        fs::write(to.path().join(name), bytes).unwrap();
    }
    to
}

fn look(path: &Path) -> Report {
    let before = files(path);
    let report = examine(path, None, Scope::All, &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
    assert_eq!(files(path), before, "looking changes nothing");
    report
}

fn damages(report: &Report) -> Vec<(&str, &str)> {
    let damage = report.findings.iter().filter(|finding| finding.severity == Severity::Damage);
    damage.map(|finding| (finding.code, finding.file.as_str())).collect()
}

fn from(copy: &TempDir) -> Repair {
    Repair { from: vec![copy.path().to_owned()], discard: false, keys: None }
}

/// Where a payload lies: the file, and the offset in it.
fn place_of(root: &Path, text: &[u8]) -> (PathBuf, usize) {
    let found = files(root).into_iter().find_map(|(name, bytes)| {
        let at = bytes.windows(text.len()).position(|window| window == text)?;
        name.starts_with("seg").then_some((name, at))
    });
    found.unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_sound_directory_is_found_sound() {
    for trims in [false, true] {
        let life = life(trims).await;
        let report = look(life.folder.path());
        assert!(report.is_sound() && report.findings.is_empty(), "{:#?}", report.findings);
        assert!(report.checked.segments >= 2 && report.checked.groups > 60 && report.checked.blobs == 1);
    }
}

#[tokio::test]
async fn the_seq_and_the_book_of_a_damaged_record_are_named_and_the_record_is_mended_from_a_copy() {
    let life = life(false).await;
    let good = copy(life.folder.path());
    let expected = content(copy(life.folder.path()).path(), life.book).await;
    let seq = *expected.iter().find(|(_, payload)| *payload == TEXT).unwrap().0;
    let (file, at) = place_of(life.folder.path(), TEXT);
    flip(&life.folder.path().join(&file), at);
    let report = look(life.folder.path());
    assert_eq!(damages(&report), [("BK0313", file.to_str().unwrap())]);
    let lost = Lost { book: Some(life.book.0), name: Some("orders".into()), from: seq, to: Some(seq) };
    assert_eq!(report.findings[0].lost, [lost]);
    assert!(
        report.findings[0].means.contains(&format!("seq {seq} in the book orders")),
        "{}",
        report.findings[0].means
    );

    // Without a copy nothing is done.
    let mended = repair(life.folder.path(), &Repair::default()).unwrap();
    assert!(mended.done.is_empty() && !mended.report.is_sound());
    let mended = repair(life.folder.path(), &from(&good)).unwrap();
    assert!(mended.report.is_sound(), "{:#?}", mended.report.findings);
    assert_eq!(files(life.folder.path()), files(good.path()));
    let kept = fs::read_dir(life.folder.path().join("damaged")).unwrap().count();
    assert_eq!(kept, 1, "what was damaged is kept");
    assert_eq!(content(life.folder.path(), life.book).await, expected);
}

#[tokio::test]
async fn damage_in_two_copies_is_mended_if_it_is_not_the_same() {
    let life = life(false).await;
    let other = copy(life.folder.path());
    let good = files(life.folder.path());
    let (file, at) = place_of(life.folder.path(), TEXT);
    flip(&life.folder.path().join(&file), at);
    flip(&other.path().join(&file), at + 4096);
    let mended = repair(life.folder.path(), &from(&other)).unwrap();
    assert!(mended.report.is_sound(), "{:#?}", mended.report.findings);
    assert_eq!(files(life.folder.path()), good);
    flip(&life.folder.path().join(&file), at + 4096);
    let mended = repair(life.folder.path(), &from(&other)).unwrap();
    assert!(mended.done.is_empty() && !mended.report.is_sound(), "the same group is damaged in both");
}

#[tokio::test]
async fn every_file_that_is_damaged_or_missing_is_mended_from_a_copy() {
    for trims in [false, true] {
        let life = life(trims).await;
        let good = files(life.folder.path());
        let backup = copy(life.folder.path());
        let expected = content(copy(life.folder.path()).path(), life.book).await;
        for (name, bytes) in &good {
            let text = name.to_string_lossy();
            if text == "LOCK" || text.ends_with(".new") {
                continue;
            }
            for damage in ["missing", "empty", "flipped"] {
                let root = copy(life.folder.path());
                let path = root.path().join(name);
                match damage {
                    "missing" => fs::remove_file(&path).unwrap(),
                    "empty" => fs::write(&path, b"").unwrap(),
                    _ => flip(&path, bytes.len() / 2 / 4096 * 4096 + 20),
                }
                // Between groups, and in what is no more, a flipped bit is none.
                let is_known_to_be_missing = damage != "missing" || !text.starts_with("blob/");
                let report = look(root.path());
                if damage != "flipped"
                    && is_known_to_be_missing
                    && *text != *"seg/removed"
                    && *text != *"seg/reach"
                    && *text != *"checkpoint"
                    // Made again from its segment.
                    && !text.ends_with(".places")
                {
                    assert!(!report.is_sound(), "{text} {damage}");
                }
                if *text == *"FORMAT" && damage != "missing" {
                    // It may be right.
                    continue;
                }
                let mended = repair(root.path(), &from(&backup)).unwrap();
                assert!(mended.report.is_sound(), "{text} {damage}: {:#?} {:?}", mended.report.findings, mended.done);
                if text.starts_with("blob/") && damage != "missing" {
                    assert_eq!(&files(root.path())[name], bytes);
                }
                assert_eq!(content(root.path(), life.book).await, expected, "{text} {damage}");
            }
        }
    }
}

#[tokio::test]
async fn what_the_rest_says_is_mended_without_a_copy() {
    let life = life(true).await;
    let expected = content(copy(life.folder.path()).path(), life.book).await;
    for name in ["FORMAT", "meta", "seg/reach"] {
        let root = copy(life.folder.path());
        fs::remove_file(root.path().join(name)).unwrap();
        let mended = repair(root.path(), &Repair::default()).unwrap();
        assert!(mended.report.is_sound() && mended.done.len() == 1, "{name}: {:#?}", mended);
        assert_eq!(content(root.path(), life.book).await, expected, "{name}");
    }
}

#[tokio::test]
async fn old_copies_of_single_files_are_named() {
    let life = life(false).await;
    let old = copy(life.folder.path());
    for _ in 0..2 {
        let node = Node::open(config(life.folder.path())).unwrap();
        append(&node, life.book, "a", b"later").await;
        node.shutdown().await;
    }
    let segments: Vec<PathBuf> =
        files(old.path()).into_keys().filter(|name| name.to_string_lossy().ends_with(".log")).collect();
    let last = segments.last().unwrap();
    for name in [Path::new("meta"), last] {
        let root = copy(life.folder.path());
        fs::copy(old.path().join(name), root.path().join(name)).unwrap();
        let report = look(root.path());
        assert!(damages(&report).contains(&("BK0317", name.to_str().unwrap())), "{:#?}", report.findings);
        // The same old copy does not help; one of now does.
        let mended = repair(root.path(), &from(&old)).unwrap();
        assert_eq!(mended.report.is_sound(), name == Path::new("meta"), "{:#?}", mended);
        let mended = repair(root.path(), &from(&life.folder)).unwrap();
        assert!(mended.report.is_sound());
        assert_eq!(content(root.path(), life.book).await, content(copy(life.folder.path()).path(), life.book).await);
    }
}

#[tokio::test]
async fn a_file_of_another_directory_is_named_and_never_taken() {
    let life = life(false).await;
    let other = self::life(false).await;
    let name = "seg/0000000000000001.log";
    fs::copy(other.folder.path().join(name), life.folder.path().join(name)).unwrap();
    assert_eq!(damages(&look(life.folder.path())), [("BK0316", name)]);
    let mended = repair(life.folder.path(), &from(&other.folder)).unwrap();
    assert!(mended.done.is_empty() && !mended.report.is_sound());
}

#[tokio::test]
async fn the_end_behind_damage_is_given_up_only_if_that_is_asked_for() {
    let life = life(false).await;
    let whole = content(copy(life.folder.path()).path(), life.book).await;
    // As after a crash: no checkpoint has seen the end.
    let _ = fs::remove_file(life.folder.path().join("checkpoint"));
    let segments: Vec<PathBuf> =
        files(life.folder.path()).into_keys().filter(|name| name.to_string_lossy().ends_with(".log")).collect();
    let last = life.folder.path().join(segments.last().unwrap());
    flip(&last, 2 * 4096 + 50);
    let mended = repair(life.folder.path(), &Repair::default()).unwrap();
    assert!(mended.done.is_empty() && !mended.report.is_sound());
    let mended = repair(life.folder.path(), &Repair { from: Vec::new(), discard: true, keys: None }).unwrap();
    assert!(mended.report.is_sound(), "{:#?}", mended.report.findings);
    assert!(mended.done[0].contains("given up"), "{:?}", mended.done);
    let left = content(life.folder.path(), life.book).await;
    assert!(left.len() < whole.len() && left.iter().all(|(seq, payload)| whole[seq] == *payload));
}

#[tokio::test]
async fn a_damaged_blob_is_named_and_given_up_only_if_that_is_asked_for() {
    let life = life(false).await;
    let blob = files(life.folder.path()).into_keys().find(|name| name.starts_with("blob")).unwrap();
    flip(&life.folder.path().join(&blob), 70_000);
    let report = look(life.folder.path());
    assert_eq!(damages(&report), [("BK0313", blob.to_str().unwrap())]);
    assert!(matches!(report.findings[0].subject, Subject::Blob(_)));
    assert!(!repair(life.folder.path(), &Repair::default()).unwrap().report.is_sound());
    let mended = repair(life.folder.path(), &Repair { from: Vec::new(), discard: true, keys: None }).unwrap();
    assert!(mended.report.is_sound() && !life.folder.path().join(&blob).exists());
}

#[tokio::test]
async fn beside_a_running_server_the_settled_files_are_examined_and_it_can_be_broken_off() {
    let life = life(false).await;
    let node = Node::open(config(life.folder.path())).unwrap();
    let settled =
        |pace: &mut dyn FnMut(u64) -> ControlFlow<()>| examine(life.folder.path(), None, Scope::Settled, pace).unwrap();
    let report = settled(&mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.is_sound() && !report.unknown.is_empty(), "{:#?}", report.findings);
    let (file, at) = place_of(life.folder.path(), TEXT);
    flip(&life.folder.path().join(&file), at);
    let report = settled(&mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(damages(&report), [("BK0313", file.to_str().unwrap())]);
    assert!(settled(&mut |_| ControlFlow::Break(())).is_none());
    node.shutdown().await;
}

#[tokio::test]
async fn an_encrypted_directory_is_examined_and_mended_with_its_key_only() {
    let keys = || Some(boki_node::DataKeys { current: "01".repeat(32).parse().unwrap(), old: Vec::new() });
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(NodeConfig { keys: keys(), ..config(folder.path()) }).unwrap();
    let book = node.create_book("orders").await.unwrap().id;
    for number in 0..60_u8 {
        append(&node, book, "a", &[number; 4000]).await;
    }
    node.shutdown().await;
    drop(node);
    let good = copy(folder.path());
    let all = |_| ControlFlow::Continue(());
    assert!(examine(folder.path(), None, Scope::All, &mut { all }).is_err());
    let look = || examine(folder.path(), keys().as_ref(), Scope::All, &mut { all }).unwrap().unwrap();
    assert!(look().findings.is_empty(), "{:#?}", look().findings);
    flip(&folder.path().join("seg/0000000000000001.log"), 2 * 4096 + 100);
    let report = look();
    assert_eq!(damages(&report), [("BK0313", "seg/0000000000000001.log")]);
    assert_eq!(report.findings[0].lost.len(), 1, "seqs of whatever book");
    let mended = repair(folder.path(), &Repair { keys: keys(), ..from(&good) }).unwrap();
    assert!(mended.report.is_sound(), "{:#?}", mended.report.findings);
    assert_eq!(files(folder.path()), files(good.path()));
}
