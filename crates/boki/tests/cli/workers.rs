//! Worker pools of a real server: their limits, how they are shown, and that they do not outlive it.

use crate::process::{BOKI, Server, json_lines};

/// What the worker has printed behind this word, once it has.
fn printed(server: &Server, word: &str) -> String {
    loop {
        let lines = json_lines(&server.ok(&["--json", "logs"]));
        let mut texts = lines.iter().filter_map(|line| line["line"].as_str()?.strip_prefix(word)?.strip_prefix(' '));
        if let Some(text) = texts.next_back() {
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
        "[[worker]]\nname = \"w\"\ncommand = \"{command}\"\nmemory = \"16GiB\"\ncpu = 1.5\nopen_files = 300\nmax = 3\n{}",
        path()
    ));
    assert_eq!(printed(&server, "files"), "300");
    assert_eq!(server.ok(&["call", "noop", "--raw"]), "");
    let pool = json_lines(&server.ok(&["--json", "workers", "ls"])).remove(0);
    assert_eq!((&pool["name"], &pool["state"]), (&"w".into(), &"serving".into()));
    assert_eq!((&pool["min"], &pool["max"], &pool["processes"][0]["calls"]), (&1.into(), &3.into(), &1.into()));
    // It depends on the machine by what the memory is limited, and whether the processor can be.
    let limits = pool["limits"].as_str().unwrap();
    let (means, address_space) = match limits.contains("(cgroup)") {
        true => ("cgroup", "unlimited".to_owned()),
        false => ("rlimit", (16 << 20).to_string()),
    };
    assert_eq!(printed(&server, "memory"), address_space);
    let shown = server.ok(&["workers", "ls"]);
    match pool["limits_not_in_force"].as_str() {
        Some(reason) => {
            assert_eq!(limits, format!("memory 16384 MiB ({means}), 300 open files"));
            assert!(reason.starts_with("the limit of 1.5 cores is not in force: "), "{reason}");
            assert!(shown.contains(&format!("w: {reason}")), "{shown}");
        }
        None => assert_eq!(limits, format!("memory 16384 MiB ({means}), 1.5 cores, 300 open files")),
    }
    assert!(shown.contains("1 (1 to 3)"));
}

#[test]
fn a_worker_is_in_its_control_group_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let entrance = dir.path().join("cgroup.procs");
    let launch = |entrance: &std::path::Path| {
        let script = "echo $$; ulimit -n";
        let arguments = ["--open-files", "300", "--", "/bin/sh", "-c", script];
        std::process::Command::new(BOKI)
            .arg("worker-exec")
            .arg("--cgroup")
            .arg(entrance)
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = launch(&entrance);
    let pid = std::fs::read_to_string(&entrance).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{pid}300\n"));
    // One that cannot enter does not begin.
    let output = launch(&dir.path().join("nowhere/cgroup.procs"));
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot enter the control group"));
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
