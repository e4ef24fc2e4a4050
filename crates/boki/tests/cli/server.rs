//! A server process: what it says, what it refuses, how it ends.

use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;

use crate::process::{Server, Talk, boki, run, server_in};

#[test]
fn it_says_where_it_is_and_ends_in_order() {
    let mut server = Server::start();
    assert_eq!(server.ready["durability"], "fsync");
    assert_eq!(server.ready["url"], format!("http://{}", server.address()));
    assert_eq!(server.ok(&["log", "append", "kept"]).lines().count(), 1);
    // Through the socket as well, which lies in the data directory.
    let socket = server.folder.path().join(".boki/boki.sock");
    run(&mut boki(&["log", "tail", "--server", &format!("unix:{}", socket.display())])).ok();
    assert_eq!(server.stop(), 0);

    let mut again = Talk::start(server_in(server.folder.path()).arg("--json"));
    let ready: serde_json::Value = serde_json::from_str(&again.line()).unwrap();
    let address = ready["address"].as_str().unwrap();
    assert_eq!(run(&mut boki(&["log", "read", "--raw", "--server", address])).ok(), "kept\n");
    again.signal(Signal::INT);
    assert_eq!(again.end(), 0);
}

#[test]
fn the_banner_is_for_people_without_json() {
    let folder = tempfile::tempdir().unwrap();
    let mut talk = Talk::start(server_in(folder.path()).args(["--data", "here", "--durability", "memory"]));
    let first = talk.line();
    assert!(first.contains("data here (kept)") && first.contains("memory: a power cut loses"), "{first}");
    assert!(talk.line().contains("http://127.0.0.1:"));
    talk.signal(Signal::TERM);
    assert_eq!(talk.end(), 0);
}

#[test]
fn it_does_not_start_on_what_others_use() {
    let server = Server::start();
    let text = run(&mut server_in(server.folder.path())).failed(3, "BK0311");
    assert!(text.contains(".boki"), "{text}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let text = run(boki(&["server", "--listen", &address]).current_dir(folder.path())).failed(3, "BK0523");
    assert!(text.contains(&address), "{text}");
}

/// Changes one byte of `text`, in whichever file below `folder` it stands.
fn damage(folder: &Path, text: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return damage(&path, text);
        }
        let Ok(mut bytes) = std::fs::read(&path) else { return false };
        let Some(at) = bytes.windows(text.len()).position(|window| window == text) else { return false };
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        true
    })
}

#[test]
fn it_does_not_start_on_a_damaged_log() {
    let mut server = Server::start();
    for text in ["the first of three", "second", "third"] {
        server.ok(&["log", "append", text]);
    }
    // A server that stops in peace leaves a checkpoint, and what that covers is not read at the start.
    server.kill();
    assert!(damage(server.folder.path(), b"the first of three"));
    let text = run(&mut server_in(server.folder.path())).failed(3, "BK0313");
    assert!(text.contains("boki explain BK0313"), "{text}");
}

#[test]
fn it_does_not_listen_to_others_by_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let server = |arguments: &[&str]| run(boki(&["server"]).args(arguments).current_dir(folder.path()));
    let text = server(&["--listen", "0.0.0.0:0"]).failed(2, "BK0522");
    assert!(text.contains("--insecure"), "{text}");
    assert!(!folder.path().join(".boki").exists());
    // What the command line allows counts together with what the file says. (No machine has this address.)
    std::fs::write(folder.path().join("boki.toml"), "[server]\nlisten = \"192.0.2.1:0\"\n").unwrap();
    server(&[]).failed(2, "BK0522");
    server(&["--insecure"]).failed(3, "BK0523");
}
