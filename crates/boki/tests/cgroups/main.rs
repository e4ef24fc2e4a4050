//! Worker processes in real control groups (cgroup v2): what they may use, and that nothing of them is left.
//!
//! These tests change the control groups of the system that they run on and need all of its controllers, so they are ignored
//! unless asked for; `vm/cgroups` runs them in a virtual machine with a kernel of its own.
#![allow(clippy::unwrap_used)]

#[path = "../cli/process.rs"]
#[allow(dead_code)]
mod process;
mod worker;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{BOKI, Ended, Talk, boki, json_lines, run};

const ROOT: &str = "/sys/fs/cgroup";

/// A server that is alone in a control group of its own, as a service manager starts one.
struct Service {
    group: PathBuf,
    folder: TempDir,
    talk: Talk,
    address: String,
}

impl Service {
    /// With a worker that may use this much.
    fn start(limits: &str) -> Service {
        for controller in ["memory", "cpu", "pids"] {
            fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let group = Path::new(ROOT).join(folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.'));
        fs::create_dir(&group).unwrap();
        let command = std::env::current_exe().unwrap();
        let config = format!(
            "[[worker]]\nname = \"w\"\n\
             command = \"{} --ignored --exact worker::offers_what_uses_much --nocapture\"\n{limits}\n",
            command.display()
        );
        fs::write(folder.path().join("boki.toml"), config).unwrap();
        let (talk, address) = serve(&group, folder.path());
        Service { group, folder, talk, address }
    }

    /// Kills it, and starts another one on its files, in the same group.
    fn kill_and_start_again(self) -> Service {
        let Service { group, folder, mut talk, .. } = self;
        talk.kill();
        let (talk, address) = serve(&group, folder.path());
        Service { group, folder, talk, address }
    }

    fn call(&self, function: &str, input: &str) -> Ended {
        run(boki(&["call", function, input]).env("BOKI_URL", &self.address))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        run(boki(arguments).env("BOKI_URL", &self.address)).ok()
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.address.trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: boki\r\nconnection: close\r\n\r\n").unwrap();
        std::io::read_to_string(stream).unwrap()
    }

    fn pool(&self) -> Value {
        json_lines(&self.ok(&["--json", "workers", "ls"])).remove(0)
    }

    /// The groups below its own.
    fn groups(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.group).unwrap().map(Result::unwrap);
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

/// Enters the group, and becomes the server. Where a server has been before, the system lets nobody into the group itself any
/// more: then into the one that it had moved to.
fn serve(group: &Path, folder: &Path) -> (Talk, String) {
    let leaf = group.join("boki.server");
    let group = if leaf.exists() { &leaf } else { group };
    let mut command = Command::new("/bin/sh");
    let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
    command.args(["-c", script]).arg(group).args([BOKI, "server", "--listen", "127.0.0.1:0", "--json"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null()).current_dir(folder);
    command.env("BOKI_TELEMETRY__LEVEL", "warn");
    let mut talk = Talk::start(&mut command);
    let ready: Value = serde_json::from_str(&talk.line()).unwrap();
    let address = ready["address"].as_str().unwrap().to_owned();
    (talk, address)
}

fn has_ended(pid: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |command| command.is_empty())
}

#[test]
#[ignore = "changes the control groups of the system"]
fn a_worker_that_uses_more_memory_than_it_may_costs_its_own_calls_and_is_started_again() {
    let service = Service::start("memory = \"128MiB\"");
    assert_eq!(service.call("use_memory", "1").ok().trim(), "1");
    let error = service.call("use_memory", "512").failed(1, "BK0403");
    assert!(error.contains("was killed because it used more than its memory of 128 MiB"), "{error}");
    assert_eq!(service.call("use_memory", "2").ok().trim(), "2", "another process has taken its place");
    let pool = service.pool();
    assert_eq!(pool["limits"], "memory 128 MiB (cgroup)");
    // Each attempt of the call was killed for it.
    let metrics = service.metrics();
    let kills = metrics.lines().find_map(|line| line.strip_prefix("boki_worker_oom_kills_total ")).unwrap();
    assert!(kills.parse::<u64>().unwrap() >= 1, "{kills}");
}

#[test]
#[ignore = "changes the control groups of the system"]
fn a_worker_gets_no_more_of_the_processor_than_it_may_use() {
    let service = Service::start("cpu = 0.25");
    let spent: Value = serde_json::from_str(&service.call("use_processor", "300").ok()).unwrap();
    // A quarter of a core: 300 ms of it take 1,200 ms at the least, but for what one period allows at once.
    assert!(spent["passed_ms"].as_u64().unwrap() >= 900, "{spent}");
    assert!(spent["throttled"].as_u64().unwrap() > 0, "{spent}");
    assert_eq!(service.pool()["limits"], "0.25 cores");
    assert_eq!(service.pool()["limits_not_in_force"], Value::Null);
}

#[test]
#[ignore = "changes the control groups of the system"]
fn a_worker_has_no_more_threads_than_it_may_have() {
    let service = Service::start("threads = 40");
    let threads: u64 = service.call("use_threads", "200").ok().trim().parse().unwrap();
    assert!(threads < 40, "{threads}");
    assert_eq!(service.call("use_memory", "1").ok().trim(), "1", "it goes on");
}

#[test]
#[ignore = "changes the control groups of the system"]
fn what_a_worker_has_started_ends_with_it_and_its_group_with_that() {
    let service = Service::start("threads = 100\nmax_calls = 1000");
    let pid = service.call("start_something", "0").ok().trim().to_owned();
    assert!(!has_ended(&pid));
    let groups = service.groups();
    assert_eq!(groups.len(), 2, "its own and the worker's: {groups:?}");
    service.call("crash", "0").failed(1, "BK0403");
    while !has_ended(&pid) {
        std::thread::yield_now();
    }
    assert_eq!(service.call("use_memory", "1").ok().trim(), "1");
    while service.groups().contains(&groups[0]) {
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "changes the control groups of the system"]
fn the_groups_of_a_server_that_was_killed_are_removed_by_the_next() {
    let service = Service::start("threads = 100");
    let pid = service.call("start_something", "0").ok().trim().to_owned();
    let before = service.groups();
    let service = service.kill_and_start_again();
    assert_eq!(service.call("use_memory", "1").ok().trim(), "1");
    assert!(has_ended(&pid));
    let after = service.groups();
    let kept: Vec<_> = before.iter().filter(|group| after.contains(group)).collect();
    assert_eq!(kept, ["boki.server"], "{before:?} {after:?}");
}
