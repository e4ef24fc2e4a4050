//! The data directory and a journal on real files.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use boki_disk::{DataDir, DirError, JournalConfig, Meta, OpenError};
use common::*;

/// Opens the directory as a node does: with the journal in it.
fn begin(path: &Path) -> Meta {
    let directory = DataDir::open(path).unwrap();
    let meta = *directory.meta();
    let config = JournalConfig { directory: meta.id, term: meta.term, ..config() };
    let (mut journal, _) = open_with(&directory.vfs(), config).unwrap();
    directory.begin().unwrap();
    journal.mark().unwrap();
    meta
}

#[test]
fn a_new_directory_keeps_its_id_and_counts_its_terms() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("made/with/parents");
    let first = begin(&path);
    assert_eq!((first.node, first.term), (1, 1));
    assert_eq!(DataDir::open(&path).unwrap().meta().term, 2, "what only looks counts up nothing");
    let second = begin(&path);
    assert_eq!((second.id, second.node, second.term), (first.id, 1, 2));
    let other = *DataDir::open(root.path().join("other")).unwrap().meta();
    assert_ne!(other.id, first.id);
    assert_eq!(fs::read(path.join("FORMAT")).unwrap(), b"boki-data 2\n");
}

#[test]
fn a_directory_of_an_older_format_is_of_this_one_once_it_was_opened() {
    let root = tempfile::tempdir().unwrap();
    let id = begin(root.path()).id;
    let format = || fs::read(root.path().join("FORMAT")).unwrap();
    fs::write(root.path().join("FORMAT"), "boki-data 1\n").unwrap();
    drop(DataDir::open(root.path()).unwrap());
    assert_eq!(format(), b"boki-data 1\n", "what only looks changes nothing");
    let meta = begin(root.path());
    assert_eq!((meta.id, meta.term), (id, 2));
    assert_eq!(format(), b"boki-data 2\n");
}

#[test]
fn a_directory_is_open_once_only() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDir::open(root.path()).unwrap();
    let error = DataDir::open(root.path()).unwrap_err();
    assert!(matches!(error, DirError::Locked { .. }));
    assert!(error.to_string().starts_with(&root.path().display().to_string()), "{error}");
    drop(directory);
    assert_eq!(DataDir::open(root.path()).unwrap().meta().term, 1, "the refused one has changed nothing");
}

#[test]
fn what_is_not_a_data_directory_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("thesis.tex"), "").unwrap();
    assert!(matches!(DataDir::open(root.path()), Err(DirError::Foreign { found, .. }) if found == "thesis.tex"));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    assert!(matches!(DataDir::open(root.path().join("thesis.tex")), Err(DirError::Io { .. })));
}

#[test]
fn another_format_and_damaged_or_missing_meta_are_refused() {
    let root = tempfile::tempdir().unwrap();
    drop(DataDir::open(root.path()).unwrap());
    let meta = fs::read(root.path().join("meta")).unwrap();
    let mut damaged = meta.clone();
    damaged[30] ^= 1;
    fs::write(root.path().join("meta"), damaged).unwrap();
    assert!(matches!(DataDir::open(root.path()), Err(DirError::Blob { .. })));
    fs::remove_file(root.path().join("meta")).unwrap();
    assert!(matches!(DataDir::open(root.path()), Err(DirError::Missing { name: "meta", .. })));
    fs::write(root.path().join("meta"), meta).unwrap();
    fs::write(root.path().join("FORMAT"), "boki-data 3\n").unwrap();
    assert!(matches!(DataDir::open(root.path()), Err(DirError::Format { found, .. }) if found == "boki-data 3\n"));
}

#[test]
fn a_first_start_that_did_not_end_is_taken_up_again() {
    let root = tempfile::tempdir().unwrap();
    let id = DataDir::open(root.path()).unwrap().meta().id;
    fs::remove_file(root.path().join("FORMAT")).unwrap();
    let meta = *DataDir::open(root.path()).unwrap().meta();
    assert_eq!((meta.id, meta.term), (id, 1));
}

#[test]
fn an_old_copy_of_meta_is_refused_however_often() {
    let root = tempfile::tempdir().unwrap();
    begin(root.path());
    begin(root.path());
    let old = fs::read(root.path().join("meta")).unwrap();
    begin(root.path());
    fs::write(root.path().join("meta"), &old).unwrap();
    for _ in 0..3 {
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(error, DirError::OldMeta { found: 2, reached: 3, .. }), "{error}");
        assert_eq!(fs::read(root.path().join("meta")).unwrap(), old);
    }
}

#[test]
fn what_every_directory_has_is_missed() {
    let root = tempfile::tempdir().unwrap();
    begin(root.path());
    begin(root.path());
    for name in ["FORMAT", "meta", "seg/reach"] {
        let bytes = fs::read(root.path().join(name)).unwrap();
        fs::remove_file(root.path().join(name)).unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(error, DirError::Missing { name: missing, .. } if missing == name), "{name}: {error}");
        fs::write(root.path().join(name), bytes).unwrap();
    }
    fs::remove_dir_all(root.path().join("seg")).unwrap();
    let error = DataDir::open(root.path()).unwrap_err();
    assert!(matches!(error, DirError::Missing { name: "seg", .. }), "{error}");
    assert!(!root.path().join("seg").exists());
    // An empty one in its place, as where something is not mounted.
    fs::create_dir(root.path().join("seg")).unwrap();
    fs::write(root.path().join("seg/reach"), b"").unwrap();
    assert!(matches!(DataDir::open(root.path()), Err(DirError::Blob { .. })));
}

#[test]
fn a_journal_that_was_there_before_is_missed() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDir::open(root.path()).unwrap();
    let config = JournalConfig { directory: directory.meta().id, term: 2, ..config() };
    let error = open_with(&directory.vfs(), config).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { segment: 1, what: boki_disk::Damage::MissingSegment, .. }), "{error}");
}

#[test]
fn a_journal_on_real_files_is_read_while_written_and_after() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDir::open(root.path()).unwrap();
    let config = JournalConfig { directory: directory.meta().id, segment_bytes: 1 << 20, ..config() };
    let (mut journal, found) = open_with(&directory.vfs(), config.clone()).unwrap();
    assert!(found.is_empty());
    let reader = journal.reader();
    let mut locations = Vec::new();
    let bodies: Vec<_> = (0..300_u64).map(|group| body(group, 10_000)).collect();
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for (location, expected) in told {
                let location: boki_disk::Location = location;
                let expected: bytes::Bytes = expected;
                assert_eq!(reader.read(location.segment, location.offset, 0, 10_000).unwrap(), expected);
            }
        });
        for body in &bodies {
            journal.write(&[frame(9, body)], &mut locations).unwrap();
            tell.send((*locations.last().unwrap(), body.clone())).unwrap();
        }
        drop(tell);
    });
    assert!(journal.segments().len() > 3);
    journal.remove_segment(2).unwrap();
    drop(journal);
    let (journal, found) = open_with(&directory.vfs(), config).unwrap();
    let kept = bodies.iter().zip(&locations).filter(|(_, location)| location.segment != 2);
    assert_eq!(found, kept.map(|(body, _)| (9, body.clone())).collect::<Vec<_>>());
    let names: Vec<_> = directory_names(root.path());
    assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
    drop(journal);
}

fn directory_names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("seg")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
