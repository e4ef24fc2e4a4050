//! `boki call` and `boki functions`, with a worker that the server starts.

use crate::process::{BOKI, Server, json_lines, run, run_with};

fn server_with_noop() -> Server {
    Server::with_config(&format!("[[worker]]\nname = \"w\"\ncommand = \"{BOKI} bench-worker\"\n"))
}

#[test]
fn bytes_go_in_and_come_out() {
    let server = server_with_noop();
    assert_eq!(server.ok(&["call", "noop", "{\"a\":  1}"]), "{\"a\":  1}\n");
    assert_eq!(server.ok(&["call", "noop"]), "null\n");
    assert_eq!(run_with(&mut server.boki(&["call", "noop", "-"]), b"[1]").ok(), "[1]\n");
    let raw = run_with(&mut server.boki(&["call", "noop", "-", "--raw"]), b"\xff\x00");
    assert_eq!((raw.code, raw.stdout.as_slice()), (0, &b"\xff\x00"[..]));
    let answer = json_lines(&server.ok(&["--json", "call", "noop", "\"x\""])).remove(0);
    assert_eq!((&answer["data"], &answer["attempts"]), (&"x".into(), &1.into()));
}

#[test]
fn a_key_makes_calls_one() {
    let server = server_with_noop();
    let call = |input| json_lines(&server.ok(&["--json", "call", "noop", input, "--key", "k"])).remove(0);
    assert_eq!(call("1")["call"], call("1")["call"]);
    run(&mut server.boki(&["call", "noop", "2", "--key", "k"])).failed(1, "BK0407");
    let id = server.ok(&["call", "noop", "3", "--detach"]);
    assert_eq!(id.trim().len(), 32, "{id}");
}

#[test]
fn functions_are_listed_and_missed() {
    let server = server_with_noop();
    server.ok(&["call", "noop"]);
    let functions = json_lines(&server.ok(&["--json", "functions", "ls"]));
    let noop = functions.iter().find(|function| function["name"] == "noop").unwrap();
    assert_eq!(noop["workers"], 1);
    assert!(server.ok(&["functions", "ls"]).lines().any(|line| line.starts_with("noop ")));
    let text = run(&mut server.boki(&["call", "nope"])).failed(5, "BK0401");
    assert!(text.contains("boki functions ls"), "{text}");
}
