//! `boki doctor` on the files of a server, beside it and after it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{Server, boki, run};

const TEXT: &str = "what was written and is looked for";

/// Changes the record's payload on disk, as a disk would that rots.
fn rot(data: &Path) -> PathBuf {
    for entry in fs::read_dir(data.join("seg")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(TEXT.len()).position(|window| window == TEXT.as_bytes()) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("the record is in no segment");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn damage_is_told_in_plain_words_and_mended_from_a_copy() {
    let mut server = Server::start();
    server.ok(&["log", "append", TEXT, "--tag", "a"]);
    let data = server.folder.path().join(".boki");
    let data_text = data.to_str().unwrap().to_owned();
    let doctor = |more: &[&str]| {
        let arguments: Vec<&str> = ["doctor", "--data", &data_text].iter().chain(more).copied().collect();
        run(&mut boki(&arguments))
    };
    assert!(server.ok(&["doctor", "--online"]).contains("nothing is damaged"));
    doctor(&[]).failed(3, "BK0311");
    server.stop();

    assert!(doctor(&[]).ok().contains("nothing is damaged"));
    let backup = server.folder.path().join("backup");
    copy(&data, &backup);
    let file = rot(&data);
    let ended = doctor(&[]);
    let told = String::from_utf8(ended.stdout.clone()).unwrap();
    ended.failed(1, "BK0313");
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(told.contains(&format!("damage BK0313: seg/{name}, byte ")), "{told}");
    assert!(told.contains("in the book default"), "{told}");
    let ended = doctor(&["--json", "--read-only"]);
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(ended.code, 1);
    assert_eq!(report["report"]["findings"][0]["lost"][0]["name"], "default");
    let unknown = report["report"]["unknown"].as_array().unwrap();
    assert!(unknown.iter().any(|line| line.as_str().unwrap().starts_with("No lock was taken")));

    doctor(&["--repair"]).failed(1, "BK0313");
    let mended = doctor(&["--repair", "--from", backup.to_str().unwrap()]).ok();
    assert!(mended.contains("done: segment") && mended.contains("nothing is damaged"), "{mended}");
    let server = server.start_again();
    assert!(server.ok(&["log", "read", "--tag", "a"]).contains(TEXT));
}

#[test]
fn a_running_server_finds_damage_in_segments_that_are_full() {
    let server = Server::with_config("[limits]\nrecord = \"200KiB\"\nbatch = \"256KiB\"\n[log]\nsegment = \"2MiB\"\n");
    server.ok(&["log", "append", TEXT, "--tag", "a"]);
    let large = "x".repeat(100_000);
    for _ in 0..30 {
        server.ok(&["log", "append", &large, "--tag", "b"]);
    }
    rot(&server.folder.path().join(".boki"));
    let ended = run(&mut server.boki(&["doctor", "--online", "--rate", "1GiB"]));
    assert!(String::from_utf8_lossy(&ended.stdout).contains("in the book default"));
    ended.failed(1, "BK0313");
    run(&mut server.boki(&["doctor", "--online", "--rate", "0"])).failed(2, "BK0504");
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    fs::write(folder.path().join("thesis.tex"), "").unwrap();
    run(&mut boki(&["doctor", "--read-only", "--data", path])).failed(3, "BK0319");
    run(&mut boki(&["doctor", "--data", "/nowhere/at/all"])).failed(3, "BK0312");
}
