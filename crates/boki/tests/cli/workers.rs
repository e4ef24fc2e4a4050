//! Worker pools of a real server: their limits, how they are shown, and that they do not outlive it.

use crate::process::{BOKI, Server, json_lines};

/// What the worker has printed behind this word, once it has.
fn printed(server: &Server, word: &str) -> String {
    loop {
        let lines = json_lines(&server.ok(&["--json", "logs"]));
        let texts = lines.iter().filter_map(|line| line["line"].as_str()?.strip_prefix(word)?.strip_prefix(' '));
        if let Some(text) = texts.last() {
            return text.to_owned();
        }
        std::thread::yield_now();
    }
}

/// The server of these tests has an empty environment.
fn path() -> String {
    format!("env = {{ PATH = \"{}\" }}\n", std::env::var("PATH").unwrap())
}

/// Gone, or ended and not yet waited for.
fn has_ended(pid: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |command| command.is_empty())
}

#[test]
fn limits_hold_for_the_worker_and_are_shown() {
    let command = format!("echo memory $(ulimit -v); echo files $(ulimit -n); exec {BOKI} bench-worker");
    let server = Server::with_config(&format!(
        "[[worker]]\nname = \"w\"\ncommand = \"{command}\"\nmemory = \"16GiB\"\nopen_files = 300\nmax = 3\n{}",
        path()
    ));
    assert_eq!(printed(&server, "memory"), (16 << 20).to_string());
    assert_eq!(printed(&server, "files"), "300");
    assert_eq!(server.ok(&["call", "noop", "--raw"]), "");
    let pool = json_lines(&server.ok(&["--json", "workers", "ls"])).remove(0);
    assert_eq!((&pool["name"], &pool["state"]), (&"w".into(), &"serving".into()));
    assert_eq!((&pool["min"], &pool["max"], &pool["processes"][0]["calls"]), (&1.into(), &3.into(), &1.into()));
    assert_eq!(pool["limits"], "memory 16384 MiB, 300 open files");
    assert!(server.ok(&["workers", "ls"]).contains("1 (1 to 3)"));
}

#[test]
fn no_worker_outlives_a_server_that_is_killed() {
    let command = format!("sleep 1000 & echo child $!; echo shell $$; {BOKI} bench-worker");
    let mut server = Server::with_config(&format!("[[worker]]\nname = \"w\"\ncommand = \"{command}\"\n{}", path()));
    let pids = [printed(&server, "child"), printed(&server, "shell")];
    assert!(pids.iter().all(|pid| !has_ended(pid)));
    server.kill();
    while !pids.iter().all(|pid| has_ended(pid)) {
        std::thread::yield_now();
    }
}
