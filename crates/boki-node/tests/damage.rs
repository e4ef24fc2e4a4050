//! Every kind of damage to the files of a node: it is found and named with its code, what is damaged is never served, and a
//! start that is refused changes nothing.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use boki_log::batch::ReservedTags;
use boki_log::op::{Ack, Append, Consistency, Direction, Read};
use boki_log::{BatchBuilder, BookId, Limits, LogError, Seq, Tag};
use boki_node::{Node, NodeConfig};
use tempfile::TempDir;

/// Records of the book, by seq: what must be read, or not at all.
type Content = BTreeMap<u64, Vec<u8>>;

fn config(path: &Path) -> NodeConfig {
    NodeConfig {
        segment_bytes: 128 << 10,
        cache_bytes: 0,
        limits: Limits { batch_bytes: 64 << 10, ..Limits::default() },
        ..NodeConfig::new(path)
    }
}

async fn append(node: &Node, book: BookId, tag: &str, payload: Vec<u8>) -> Seq {
    let batch = BatchBuilder::new(book).record(vec![Tag::new(tag).unwrap()], payload).build().unwrap();
    let append = Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused };
    node.append(append).await.unwrap().seq.unwrap()
}

async fn fill(node: &Node, book: BookId, records: u64) {
    for number in 0..records {
        append(node, book, "keep", number.to_string().repeat(500).into_bytes()).await;
    }
}

/// A directory that has been through a life: two starts, several segments, some of them removed, a checkpoint, a blob.
struct Life {
    folder: TempDir,
    book: BookId,
    content: Content,
}

async fn life() -> Life {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(config(folder.path())).unwrap();
    let book = node.create_book("b").await.unwrap().id;
    fill(&node, book, 20).await;
    node.shutdown().await;
    drop(node);
    let node = Node::open(config(folder.path())).unwrap();
    let mut last = Seq::NONE;
    for _ in 0..60 {
        last = append(&node, book, "drop", vec![b'x'; 10_000]).await;
    }
    let trim = BatchBuilder::trim(book, Some(Tag::new("drop").unwrap()), last).unwrap();
    node.append(Append { batch: trim, ack: Ack::Ordered, reserved: ReservedTags::Refused }).await.unwrap();
    let before = node.status().segments;
    while node.status().segments >= before {
        fill(&node, book, 1).await;
    }
    fill(&node, book, 200).await;
    let name = node.blobs().name(book, 7, 1);
    let mut blob = node.blobs().write(name).await.unwrap();
    blob.write(vec![5; 100_000].into()).await.unwrap();
    blob.finish().await.unwrap();
    let content = content(&node, book).await.unwrap();
    node.shutdown().await;
    drop(node);
    Life { folder, book, content }
}

async fn content(node: &Node, book: BookId) -> Result<Content, LogError> {
    let mut content = Content::new();
    let mut from = Seq(0);
    loop {
        let read = Read {
            book,
            tag: None,
            from,
            direction: Direction::Next,
            limit: 100,
            consistency: Consistency::Linearizable,
            wait: None,
        };
        let records = node.read(read).await?.records;
        let Some(last) = records.last() else { return Ok(content) };
        from = Seq(last.seq.0 + 1);
        content.extend(records.iter().map(|record| (record.seq.0, record.body.payload().to_vec())));
    }
}

/// Every file, by its path.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for dir in ["", "seg", "blob", "table"] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_file() {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for dir in ["seg", "blob"] {
        fs::create_dir(to.path().join(dir)).unwrap();
    }
    for (name, bytes) in files(from) {
        fs::create_dir_all(to.path().join(&name).parent().unwrap()).unwrap();
        fs::write(to.path().join(name), bytes).unwrap();
    }
    to
}

/// What becomes of a directory: the code it is refused with, or that it opens and serves nothing that is wrong.
async fn verdict(life: &Life, root: &Path) -> Result<(), &'static str> {
    let before = files(root);
    match Node::open(config(root)) {
        Err(error) => {
            let after = files(root);
            let changed: Vec<_> = after
                .iter()
                .filter(|(name, bytes)| name.as_os_str() != "LOCK" && before.get(*name) != Some(bytes))
                .map(|(name, _)| name)
                .chain(before.keys().filter(|name| !after.contains_key(*name)))
                .collect();
            assert!(changed.is_empty(), "{error}: changed {changed:?}");
            assert!(boki_explains(error.code()), "{} has no page", error.code());
            Err(error.code())
        }
        Ok(node) => {
            match content(&node, life.book).await {
                Ok(found) => assert_eq!(found, life.content, "what was acknowledged, and nothing else"),
                Err(error) => {
                    let is_named = matches!(error, LogError::ReadFailed { .. } | LogError::IndexUnreadable { .. });
                    assert!(is_named, "{error}");
                }
            }
            for name in node.blobs().names().await.unwrap() {
                if let Ok(Some(mut source)) = node.blobs().read(name).await {
                    while let Ok(Some(bytes)) = source.next().await {
                        assert!(bytes.iter().all(|byte| *byte == 5));
                    }
                }
            }
            node.shutdown().await;
            Ok(())
        }
    }
}

fn boki_explains(code: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/errors/{code}.md")).is_file()
}

#[tokio::test]
async fn a_sound_directory_opens() {
    let life = life().await;
    assert_eq!(verdict(&life, copy(life.folder.path()).path()).await, Ok(()));
}

#[tokio::test]
async fn flipped_bits_are_found_wherever_they_are() {
    let life = life().await;
    let whole = files(life.folder.path());
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let root = copy(life.folder.path());
    for (name, bytes) in &whole {
        // Bytes that mean something; zeros between are padding.
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for round in 0..if places.is_empty() { 0 } else { 12 } {
            let at = if round < 4 { round * 16 % bytes.len() } else { places[random(places.len() as u64) as usize] };
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << random(8);
            fs::write(root.path().join(name), damaged).unwrap();
            let verdict = verdict(&life, root.path()).await;
            let must_be_refused = ["FORMAT", "meta", "checkpoint", "seg/reach", "seg/removed"];
            if must_be_refused.iter().any(|file| name.as_os_str() == *file) {
                assert!(verdict.is_err(), "{} byte {at}", name.display());
            }
            if verdict.is_ok() {
                // It has been opened: back to how it was.
                for (name, bytes) in &whole {
                    fs::write(root.path().join(name), bytes).unwrap();
                }
                let strange = files(root.path()).into_keys().filter(|name| !whole.contains_key(name));
                strange.for_each(|name| fs::remove_file(root.path().join(name)).unwrap());
            } else {
                fs::write(root.path().join(name), bytes).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn files_that_are_missing_empty_or_cut_off_are_found() {
    let life = life().await;
    for (name, bytes) in files(life.folder.path()) {
        let text = name.to_string_lossy().into_owned();
        if text == "LOCK" || text.ends_with(".new") || text.starts_with("blob/") {
            continue;
        }
        let root = copy(life.folder.path());
        fs::remove_file(root.path().join(&name)).unwrap();
        let missing = verdict(&life, root.path()).await;
        match text.as_str() {
            // It says that segments were removed on purpose: without it they are missed.
            // Made again from its segment.
            _ if text.ends_with(".places") => assert_eq!(missing, Ok(()), "{text}"),
            _ if text.starts_with("seg/") || text == "meta" || text == "FORMAT" => {
                assert_eq!(missing, Err("BK0315"), "{text}");
            }
            _ => assert!(missing.is_err(), "{text}"),
        }
        for len in [0, bytes.len() / 2] {
            let root = copy(life.folder.path());
            fs::write(root.path().join(&name), &bytes[..len]).unwrap();
            let cut = verdict(&life, root.path()).await;
            let may_open = text.ends_with(".log") && len > 0 || text.ends_with(".places");
            assert!(cut.is_err() || may_open, "{text} cut to {len}: {cut:?}");
        }
    }
}

#[tokio::test]
async fn files_that_are_swapped_or_of_another_directory_are_found() {
    let life = life().await;
    let other = self::life().await;
    let segments: Vec<PathBuf> =
        files(life.folder.path()).into_keys().filter(|name| name.to_string_lossy().ends_with(".log")).collect();
    assert!(segments.len() >= 3);
    let root = copy(life.folder.path());
    let (a, b) = (root.path().join(&segments[0]), root.path().join(&segments[1]));
    fs::rename(&a, root.path().join("aside")).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(root.path().join("aside"), &b).unwrap();
    assert_eq!(verdict(&life, root.path()).await, Err("BK0316"));

    for (name, bytes) in files(other.folder.path()) {
        let text = name.to_string_lossy().into_owned();
        if matches!(text.as_str(), "LOCK" | "FORMAT") || text.ends_with(".new") || text.starts_with("blob/") {
            continue;
        }
        let root = copy(life.folder.path());
        // A table of a number that the checkpoint does not name is removed, whatever it is.
        let is_named = root.path().join(&name).exists();
        fs::write(root.path().join(&name), bytes).unwrap();
        let expected = match text.starts_with("table/") {
            true if is_named => Err("BK0306"),
            true => Ok(()),
            // Made again from its segment.
            false if text.ends_with(".places") => Ok(()),
            false => Err("BK0316"),
        };
        assert_eq!(verdict(&life, root.path()).await, expected, "{text}");
    }
}

#[tokio::test]
async fn a_single_file_from_an_old_copy_is_found_or_harmless() {
    let life = life().await;
    let old = copy(life.folder.path());
    // Two more lives: what is in the copy is of the past.
    let mut content_now = Content::new();
    for _ in 0..2 {
        let node = Node::open(config(life.folder.path())).unwrap();
        fill(&node, life.book, 60).await;
        content_now = content(&node, life.book).await.unwrap();
        node.shutdown().await;
    }
    let life = Life { content: content_now, ..life };
    for (name, bytes) in files(old.path()) {
        let text = name.to_string_lossy().into_owned();
        let now = fs::read(life.folder.path().join(&name)).ok();
        if now.as_ref() == Some(&bytes) || now.is_none() || text.ends_with(".new") {
            continue;
        }
        let root = copy(life.folder.path());
        fs::write(root.path().join(&name), bytes).unwrap();
        let verdict = verdict(&life, root.path()).await;
        match text.as_str() {
            // It claims less than the one of now, and recovery reads further back.
            "seg/reach" | "checkpoint" => {}
            // As good as the one of now, or made again.
            _ if text.ends_with(".places") => assert_eq!(verdict, Ok(()), "{text}"),
            // What a checkpoint covers is not read at the start, and missed when it is read.
            _ if text.ends_with(".log") => assert!(matches!(verdict, Ok(()) | Err("BK0317" | "BK0315")), "{text}"),
            _ => assert!(matches!(verdict, Err("BK0317" | "BK0315")), "{text}: {verdict:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_data_directory_or_of_another_version_is_refused() {
    let life = life().await;
    let root = copy(life.folder.path());
    fs::write(root.path().join("FORMAT"), "boki-data 9\n").unwrap();
    assert_eq!(verdict(&life, root.path()).await, Err("BK0318"));

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.tex"), "").unwrap();
    assert_eq!(verdict(&life, foreign.path()).await, Err("BK0319"));

    let root = copy(life.folder.path());
    let node = Node::open(config(root.path())).unwrap();
    assert_eq!(Node::open(config(root.path())).unwrap_err().code(), "BK0311");
    node.shutdown().await;
}

#[tokio::test]
async fn a_whole_directory_from_an_old_copy_is_a_directory() {
    let life = life().await;
    let old = copy(life.folder.path());
    let node = Node::open(config(life.folder.path())).unwrap();
    fill(&node, life.book, 10).await;
    node.shutdown().await;
    assert_eq!(verdict(&life, old.path()).await, Ok(()), "nobody can tell, and nothing in it is wrong");
}
