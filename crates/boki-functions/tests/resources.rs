//! What worker processes may use: by control groups, in a tree that plays those of the system, and without them.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boki_functions::{Functions, FunctionsConfig, PoolSpec, Resources};
use boki_wire::worker::*;
use common::*;
use rustix::process::{Pid, Signal, kill_process};

const LIMITS: Resources =
    Resources { memory: Some(64 << 20), cpu: Some(1500), open_files: Some(100), threads: Some(50) };

/// A system where this process is alone in a group of its own.
fn system(dir: &Path, groups: &str) -> PathBuf {
    let base = dir.join("cgroup/server");
    fs::create_dir_all(&base).unwrap();
    fs::create_dir_all(dir.join("proc/self")).unwrap();
    let mount = format!("31 23 0:28 / {} rw - cgroup2 cgroup2 rw\n", dir.join("cgroup").display());
    let files = [
        ("proc/self/cgroup", groups.to_owned()),
        ("proc/self/mountinfo", mount),
        ("cgroup/server/cgroup.controllers", "cpu memory pids".to_owned()),
        ("cgroup/server/cgroup.subtree_control", String::new()),
        ("cgroup/server/cgroup.type", "domain".to_owned()),
        ("cgroup/server/cgroup.procs", std::process::id().to_string()),
    ];
    for (file, text) in files {
        fs::write(dir.join(file), text).unwrap();
    }
    base
}

fn config_in(dir: &Path) -> FunctionsConfig {
    FunctionsConfig {
        launcher: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/launcher.sh")),
        proc: dir.join("proc"),
        max_attempts: 1,
        restart_pause: LONG,
        restart_pause_max: LONG,
        ..config()
    }
}

fn limited() -> PoolSpec {
    let script = "echo token $BOKI_WORKER; sleep 1000";
    let command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    PoolSpec { resources: LIMITS, ..PoolSpec::new("shop", command, "127.0.0.1:1") }
}

async fn line(functions: &Functions, prefix: &str) -> String {
    let printed = || {
        let mut lines = functions.worker_logs("shop").into_iter();
        lines.find_map(|line| line.line.strip_prefix(prefix).map(str::to_owned))
    };
    Worker::settled(functions, |_| printed().is_some()).await;
    printed().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_uses_too_much_memory_is_said_to_have() {
    let dir = tempfile::tempdir().unwrap();
    let base = system(dir.path(), "0::/server\n");
    let engine = Engine::start(config_in(dir.path())).await;
    engine.functions.start_pool(limited()).unwrap();
    let token = line(&engine.functions, "token ").await;
    let pool = engine.functions.pools().remove(0);
    assert_eq!(pool.limits, "memory 64 MiB (cgroup), 1.5 cores, 100 open files, 50 threads (cgroup)");
    assert_eq!(pool.limits_not_in_force, None);

    // It is in its group, and under those rlimits that a group does not have.
    let pid = pool.processes[0].pid.unwrap();
    let prefix = format!("boki-{}-", std::process::id());
    let names = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let group = base.join(names.filter(|name| name.starts_with(&prefix)).last().unwrap());
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap(), format!("{pid}\n"));
    assert_eq!(fs::read_to_string(group.join("memory.max")).unwrap(), "67108864\n");
    assert_eq!(fs::read_to_string(group.join("cpu.max")).unwrap(), "150000 100000\n");
    assert_eq!(fs::read_to_string(group.join("pids.max")).unwrap(), "50\n");
    let launched = line(&engine.functions, "launched worker-exec ").await;
    let entrance = group.join("cgroup.procs");
    assert!(launched.starts_with(&format!("--cgroup {} --open-files 100 -- ", entrance.display())), "{launched}");

    let registration = Register { process: token, ..register("w", 2, &["hold"]) };
    let mut worker = Worker::connect(&engine.functions, registration).await;
    let call = engine.spawn(engine.call("hold", ""));
    worker.given().await;
    fs::write(group.join("memory.events"), "max 3\noom 1\noom_kill 1\n").unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    worker.crash();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "BK0403");
    let why = "was killed because it used more than its memory of 64 MiB";
    assert!(error.to_string().ends_with(why), "{error}");
    Worker::settled(&engine.functions, |functions| functions.pools()[0].last_failure.is_some()).await;
    let failure = engine.functions.pools()[0].last_failure.clone().unwrap();
    assert_eq!((&*failure.reason, &**failure.lines.last().unwrap()), (why, why));
    assert_eq!(engine.functions.status().oom_kills, 1);
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_control_groups_rlimits_hold_and_what_does_not_hold_is_said() {
    let dir = tempfile::tempdir().unwrap();
    system(dir.path(), "4:memory:/old\n");
    let engine = Engine::start(config_in(dir.path())).await;
    engine.functions.start_pool(limited()).unwrap();
    let launched = line(&engine.functions, "launched worker-exec ").await;
    assert!(launched.starts_with("--memory 67108864 --open-files 100 --threads 50 -- "), "{launched}");
    let pool = engine.functions.pools().remove(0);
    assert_eq!(pool.limits, "memory 64 MiB (rlimit), 100 open files, 50 threads (rlimit)");
    assert_eq!(
        pool.limits_not_in_force.as_deref(),
        Some("the limit of 1.5 cores is not in force: the system has no cgroup v2")
    );
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_have_its_group_is_not_started_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let base = system(dir.path(), "0::/server\n");
    let engine = Engine::start(config_in(dir.path())).await;
    engine.functions.start_pool(limited()).unwrap();
    line(&engine.functions, "token ").await;
    fs::remove_dir_all(base).unwrap();
    let second = engine.functions.start_pool(PoolSpec { name: "second".into(), ..limited() }).unwrap();
    let failure = engine.functions.pool_ready(second).await.unwrap_err();
    assert!(failure.reason.starts_with("could not be started: cannot make the control group "), "{failure}");
    engine.functions.shutdown(Duration::ZERO).await;
}
