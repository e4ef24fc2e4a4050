//! Worker processes that the engine starts: with `/bin/sh` in the part of the process, and the test in that of its connection.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::Duration;

use boki_functions::{Functions, FunctionsConfig, WorkerCommand};
use boki_wire::worker::*;
use common::*;
use rustix::process::{Pid, test_kill_process};

fn shell(script: &str) -> WorkerCommand {
    WorkerCommand {
        name: "shop".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: vec![("GREETING".into(), "hello".into())],
        dir: None,
        processes: 1,
    }
}

/// What the processes of `worker` have printed, once there are so many lines that begin with `prefix`.
async fn lines(functions: &Functions, worker: &str, prefix: &str, count: usize) -> Vec<String> {
    let printed = || {
        let lines = functions.worker_logs(worker).into_iter();
        lines.filter_map(|line| line.line.strip_prefix(prefix).map(str::to_owned)).collect::<Vec<_>>()
    };
    Worker::settled(functions, |_| printed().len() >= count).await;
    printed()
}

fn is_alive(pid: &str) -> bool {
    test_kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap()).is_ok()
}

async fn gone(functions: &Functions, pid: &str) {
    Worker::settled(functions, |_| !is_alive(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_gets_its_environment_and_its_output_is_logged() {
    let engine = Engine::start(config()).await;
    let dir = tempfile::tempdir().unwrap();
    let command = WorkerCommand {
        dir: Some(dir.path().into()),
        ..shell("echo at $BOKI_URL; echo in $PWD >&2; echo say $GREETING; sleep 1000")
    };
    engine.functions.start_workers(vec![command], "127.0.0.1:1");
    assert_eq!(lines(&engine.functions, "shop", "at ", 1).await, ["127.0.0.1:1"]);
    let printed = lines(&engine.functions, "shop", "in ", 1).await;
    assert_eq!(Path::new(&printed[0]).canonicalize().unwrap(), dir.path().canonicalize().unwrap());
    assert_eq!(lines(&engine.functions, "shop", "say ", 1).await, ["hello"]);
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_is_started_again() {
    let engine = Engine::start(config()).await;
    engine.functions.start_workers(vec![shell("echo pid $$; exit 3")], "");
    let pids = lines(&engine.functions, "shop", "pid ", 4).await;
    let distinct: std::collections::BTreeSet<_> = pids.iter().collect();
    assert_eq!(distinct.len(), pids.len());
    assert!(engine.functions.status().restarts >= 3);
    engine.functions.shutdown(Duration::ZERO).await;
    for pid in pids {
        gone(&engine.functions, &pid).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_started_is_tried_again_and_stops_with_the_engine() {
    let engine = Engine::start(config()).await;
    let missing = WorkerCommand { command: vec!["/nowhere/at-all".into()], ..shell("") };
    let empty = WorkerCommand { command: vec![], ..shell("") };
    engine.functions.start_workers(vec![missing, empty], "");
    Worker::settled(&engine.functions, |functions| functions.status().restarts >= 4).await;
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_of_a_group_ends_with_the_engine_even_if_it_does_not_want_to() {
    let engine = Engine::start(FunctionsConfig { kill_after: Duration::from_millis(50), ..config() }).await;
    let stubborn = "trap '' TERM; sh -c 'trap \"\" TERM; echo child $$; while :; do sleep 1; done' & echo pid $$; wait; while :; do sleep 1; done";
    let commands = vec![WorkerCommand { processes: 2, ..shell(stubborn) }];
    engine.functions.start_workers(commands, "");
    let mut pids = Vec::new();
    for worker in ["shop-1", "shop-2"] {
        pids.extend(lines(&engine.functions, worker, "pid ", 1).await);
        pids.extend(lines(&engine.functions, worker, "child ", 1).await);
    }
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| is_alive(pid)));
    engine.functions.shutdown(Duration::ZERO).await;
    for pid in pids {
        gone(&engine.functions, &pid).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_a_worker_that_starts_and_no_longer() {
    let engine = Engine::start(config()).await;
    engine.functions.start_workers(vec![shell("echo token $BOKI_WORKER; sleep 1000")], "");
    // Nobody has said yet what the process offers.
    let early = engine.spawn(engine.call("hold", "early"));
    let unknown = engine.spawn(engine.call("nothing", ""));
    Worker::settled(&engine.functions, |functions| functions.status().queued == 2).await;
    let token = lines(&engine.functions, "shop", "token ", 1).await.remove(0);
    let registration = Register { process: token, ..register("ignored", 2, &["hold"]) };
    let mut worker = Worker::connect(&engine.functions, registration).await;
    assert_eq!(unknown.await.unwrap().unwrap_err().code(), "BK0401");
    let given = worker.given().await;
    worker.succeed(&given, "done");
    assert_eq!(text(&early.await.unwrap().unwrap().output), "done");
    assert_eq!(&*engine.functions.workers()[0].name, "shop");
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_survives_the_crash_of_its_process() {
    let engine = Engine::start(FunctionsConfig { reconnect_grace: Duration::ZERO, ..config() }).await;
    engine.functions.start_workers(vec![shell("echo pid $$ $BOKI_WORKER; sleep 1000")], "");
    let first = lines(&engine.functions, "shop", "pid ", 1).await.remove(0);
    let (pid, token) = first.split_once(' ').unwrap();
    let registration = Register { process: token.into(), ..register("w", 2, &["hold"]) };
    let mut worker = Worker::connect(&engine.functions, registration.clone()).await;
    let call = engine.spawn(engine.call("hold", ""));
    worker.given().await;
    rustix::process::kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), rustix::process::Signal::KILL).unwrap();
    worker.crash();
    let second = lines(&engine.functions, "shop", "pid ", 2).await.remove(1);
    let (_, new_token) = second.split_once(' ').unwrap();
    // The token of a process that is gone is worth nothing.
    let mut stale = Worker::open(&engine.functions, &registration);
    assert_eq!(stale.frame().await.kind, boki_wire::kinds::ERROR);
    let registration = Register { process: new_token.into(), ..registration };
    let mut worker = Worker::connect(&engine.functions, registration).await;
    let given = worker.given().await;
    assert_eq!(given.attempt, 2);
    worker.succeed(&given, "done");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "done");
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_replaced_only_once_the_new_one_has_registered() {
    let engine = Engine::start(config()).await;
    engine.functions.start_workers(vec![shell("echo pid $$ $BOKI_WORKER; sleep 1000")], "");
    let first = lines(&engine.functions, "shop", "pid ", 1).await.remove(0);
    let (old_pid, token) = first.split_once(' ').unwrap();
    let registration = Register { process: token.into(), ..register("w", 2, &["hold"]) };
    let mut old = Worker::connect(&engine.functions, registration.clone()).await;
    let slow = engine.spawn(engine.call("hold", "slow"));
    let slows = old.given().await;
    assert!(engine.functions.restart_workers("shop"));
    assert!(!engine.functions.restart_workers("nothing"));
    let second = lines(&engine.functions, "shop", "pid ", 2).await.remove(1);
    // The new one is there, but has not registered: the old one still serves.
    let other = engine.spawn(engine.call("hold", "other"));
    let given = old.given().await;
    old.succeed(&given, "by the old");
    assert_eq!(text(&other.await.unwrap().unwrap().output), "by the old");
    let (_, new_token) = second.split_once(' ').unwrap();
    let mut new = Worker::connect(&engine.functions, Register { process: new_token.into(), ..registration }).await;
    assert_eq!(old.frame().await.kind, DRAIN);
    let next = engine.spawn(engine.call("hold", "next"));
    let given = new.given().await;
    new.succeed(&given, "by the new");
    assert_eq!(text(&next.await.unwrap().unwrap().output), "by the new");
    old.succeed(&slows, "finished");
    assert_eq!(text(&slow.await.unwrap().unwrap().output), "finished");
    assert!(is_alive(old_pid));
    engine.functions.shutdown(Duration::ZERO).await;
    gone(&engine.functions, old_pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_line_takes_no_memory() {
    let engine = Engine::start(config()).await;
    let script = "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo done; sleep 1000";
    engine.functions.start_workers(vec![shell(script)], "");
    lines(&engine.functions, "shop", "done", 1).await;
    let long = lines(&engine.functions, "shop", "x", 1).await;
    assert_eq!(long[0].len() + 1, 8 << 10);
    engine.functions.shutdown(Duration::ZERO).await;
}
