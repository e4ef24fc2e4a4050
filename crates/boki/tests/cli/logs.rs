//! `boki logs`, of a worker that prints what a file says.

use std::io::Write as _;

use crate::process::{BOKI, Server, Talk, json_lines, run};

fn say(server: &Server, line: &str) {
    let path = server.folder.path().join("said");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

#[test]
fn lines_are_followed_and_printed() {
    let command = format!("touch said; tail -n +1 -f said & exec {BOKI} bench-worker");
    let path = std::env::var("PATH").unwrap();
    let server = Server::with_config(&format!(
        "[[worker]]\nname = \"w\"\ncommand = \"{command}\"\nenv = {{ PATH = \"{path}\" }}\n"
    ));
    let mut follower = Talk::start(&mut server.boki(&["logs", "-f", "--worker", "w"]));
    say(&server, "one");
    let line = follower.line();
    assert!(line.ends_with(" info  w  one"), "{line}");
    say(&server, "two");
    assert!(follower.line().ends_with("two"));
    drop(follower);

    let lines = json_lines(&server.ok(&["--json", "logs"]));
    let texts: Vec<_> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!((&lines[0]["worker"], &lines[0]["level"]), (&"w".into(), &"info".into()));
    assert!(server.ok(&["logs", "-n", "1"]).trim_end().ends_with("two"));
    assert_eq!(server.ok(&["logs", "--level", "warn"]), "");
    assert_eq!(server.ok(&["logs", "--function", "noop"]), "");
    run(&mut server.boki(&["logs", "--call", "7"])).failed(2, "BK0504");
}

#[test]
fn without_a_server_there_are_no_logs() {
    run(crate::process::boki(&["logs", "-f"]).env("BOKI_URL", "127.0.0.1:1")).failed(3, "BK0612");
}
