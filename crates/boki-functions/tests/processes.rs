//! Worker processes that the engine starts: with `/bin/sh` in the part of the process, and the test in that of its connection.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::Duration;

use boki_functions::{Environment, Functions, FunctionsConfig, LogRate, PoolSpec, PoolState, Resources};
use boki_wire::worker::*;
use common::*;
use rustix::process::{Pid, test_kill_process};

fn shell(script: &str) -> PoolSpec {
    let env = Environment { set: vec![("GREETING".into(), "hello".into())], ..Environment::default() };
    let command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    PoolSpec { env, ..PoolSpec::new("shop", command, "127.0.0.1:1") }
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
    let command = PoolSpec {
        dir: Some(dir.path().into()),
        ..shell("echo at $BOKI_URL; echo in $PWD >&2; echo say $GREETING; sleep 1000")
    };
    engine.functions.start_pool(command).unwrap();
    assert_eq!(lines(&engine.functions, "shop", "at ", 1).await, ["127.0.0.1:1"]);
    let printed = lines(&engine.functions, "shop", "in ", 1).await;
    assert_eq!(Path::new(&printed[0]).canonicalize().unwrap(), dir.path().canonicalize().unwrap());
    assert_eq!(lines(&engine.functions, "shop", "say ", 1).await, ["hello"]);
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_is_started_again() {
    let engine = Engine::start(config()).await;
    engine.functions.start_pool(shell("echo pid $$; exit 3")).unwrap();
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
    let missing = PoolSpec { command: vec!["/nowhere/at-all".into()], ..shell("") };
    let pool = engine.functions.start_pool(missing).unwrap();
    let failure = engine.functions.pool_ready(pool).await.unwrap_err();
    assert!(failure.reason.starts_with("could not be started: "), "{failure}");
    Worker::settled(&engine.functions, |functions| functions.status().restarts >= 4).await;
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_of_a_group_ends_with_the_engine_even_if_it_does_not_want_to() {
    let engine = Engine::start(FunctionsConfig { kill_after: Duration::from_millis(50), ..config() }).await;
    let stubborn = "trap '' TERM; sh -c 'trap \"\" TERM; echo child $$; while :; do sleep 1; done' & echo pid $$; wait; while :; do sleep 1; done";
    engine.functions.start_pool(PoolSpec { min: 2, max: 2, ..shell(stubborn) }).unwrap();
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
    engine.functions.start_pool(shell("echo token $BOKI_WORKER; sleep 1000")).unwrap();
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
    engine.functions.start_pool(shell("echo pid $$ $BOKI_WORKER; sleep 1000")).unwrap();
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
    let pool = engine.functions.start_pool(shell("echo pid $$ $BOKI_WORKER; sleep 1000")).unwrap();
    let first = lines(&engine.functions, "shop", "pid ", 1).await.remove(0);
    let (old_pid, token) = first.split_once(' ').unwrap();
    let registration = Register { process: token.into(), ..register("w", 2, &["hold"]) };
    let mut old = Worker::connect(&engine.functions, registration.clone()).await;
    let slow = engine.spawn(engine.call("hold", "slow"));
    let slows = old.given().await;
    assert!(engine.functions.restart_pool(pool));
    let second = lines(&engine.functions, "shop", "pid ", 2).await.remove(1);
    // The new one is there, but has not registered: the old one still serves.
    let other = engine.spawn(engine.call("hold", "other"));
    let given = old.given().await;
    old.succeed(&given, "by the old");
    assert_eq!(text(&other.await.unwrap().unwrap().output), "by the old");
    let (new_pid, new_token) = second.split_once(' ').unwrap();
    let mut new = Worker::connect(&engine.functions, Register { process: new_token.into(), ..registration }).await;
    assert_eq!(old.frame().await.kind, DRAIN);
    let next = engine.spawn(engine.call("hold", "next"));
    let given = new.given().await;
    new.succeed(&given, "by the new");
    assert_eq!(text(&next.await.unwrap().unwrap().output), "by the new");
    assert!(is_alive(old_pid));
    old.succeed(&slows, "finished");
    assert_eq!(text(&slow.await.unwrap().unwrap().output), "finished");
    gone(&engine.functions, old_pid).await;
    assert!(is_alive(new_pid));
    engine.functions.shutdown(Duration::ZERO).await;
    assert!(!engine.functions.restart_pool(pool));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_line_takes_no_memory() {
    let engine = Engine::start(config()).await;
    let script = "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo done; sleep 1000";
    engine.functions.start_pool(shell(script)).unwrap();
    lines(&engine.functions, "shop", "done", 1).await;
    let long = lines(&engine.functions, "shop", "x", 1).await;
    assert_eq!(long[0].len() + 1, 8 << 10);
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_ready_once_a_process_has_registered_and_drained_once_all_have_finished() {
    let engine = Engine::start(config()).await;
    let pool = engine.functions.start_pool(shell("echo pid $$ $BOKI_WORKER; sleep 1000")).unwrap();
    let mut ready = Box::pin(engine.functions.pool_ready(pool));
    let first = tokio::select! {
        _ = &mut ready => panic!("nobody has registered"),
        mut lines = lines(&engine.functions, "shop", "pid ", 1) => lines.remove(0),
    };
    let (pid, token) = first.split_once(' ').unwrap();
    let mut worker =
        Worker::connect(&engine.functions, Register { process: token.into(), ..register("w", 2, &["hold"]) }).await;
    ready.await.unwrap();
    assert_eq!(engine.functions.pools()[0].state, PoolState::Serving);
    let call = engine.spawn(engine.call("hold", ""));
    let given = worker.given().await;
    let mut drained = Box::pin(engine.functions.drain_pool(pool));
    assert_eq!(worker.frame().await.kind, DRAIN);
    assert_eq!(engine.functions.pools()[0].state, PoolState::Draining);
    assert!(is_alive(pid));
    tokio::select! {
        () = &mut drained => panic!("a call runs"),
        () = tokio::task::yield_now() => {}
    }
    worker.succeed(&given, "done");
    drained.await;
    assert_eq!(text(&call.await.unwrap().unwrap().output), "done");
    assert!(!is_alive(pid));
    assert!(engine.functions.pools().is_empty());
    assert!(engine.functions.pool_ready(pool).await.is_err());
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_finish_in_time_is_ended() {
    let engine = Engine::start(config()).await;
    let spec = PoolSpec {
        drain_grace: Duration::from_millis(20),
        ..shell("trap 'exit 0' TERM; echo pid $$ $BOKI_WORKER; sleep 1000 & wait")
    };
    let pool = engine.functions.start_pool(spec).unwrap();
    let first = lines(&engine.functions, "shop", "pid ", 1).await.remove(0);
    let (pid, token) = first.split_once(' ').unwrap();
    let registration = Register { process: token.into(), ..register("w", 2, &["hold"]) };
    let mut worker = Worker::connect(&engine.functions, registration).await;
    let call = engine.spawn(engine.call("hold", ""));
    worker.given().await;
    engine.functions.drain_pool(pool).await;
    gone(&engine.functions, pid).await;
    drop(call);
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_process_ends_at_once_says_what_it_said() {
    let engine = Engine::start(config()).await;
    let pool = engine.functions.start_pool(shell("echo starting; echo no database >&2; exit 3")).unwrap();
    let failure = engine.functions.pool_ready(pool).await.unwrap_err();
    assert_eq!(&*failure.reason, "exited with status 3");
    assert_eq!(failure.lines.len(), 2);
    assert!(failure.to_string().starts_with("worker pool \"shop\" does not start: its process exited with status 3"));
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_pool_that_does_not_start_are_refused_after_a_while_and_taken_again_when_it_does() {
    let engine = Engine::start(config()).await;
    let good = tempfile::NamedTempFile::new().unwrap();
    let script =
        format!("test -s {} || {{ echo broken; exit 1; }}; echo token $BOKI_WORKER; sleep 1000", good.path().display());
    let spec = PoolSpec { start_timeout: Duration::from_millis(50), ..shell(&script) };
    engine.functions.start_pool(spec).unwrap();
    let error = engine.functions.call(engine.call("hold", "")).await.unwrap_err();
    assert_eq!(error.code(), "BK0430");
    assert_eq!(error.details()["lines"][0], "broken");
    assert_eq!(engine.functions.pools()[0].state, PoolState::Failing);
    std::fs::write(good.path(), "yes").unwrap();
    let token = lines(&engine.functions, "shop", "token ", 1).await.remove(0);
    let mut worker =
        Worker::connect(&engine.functions, Register { process: token, ..register("w", 1, &["hold"]) }).await;
    let call = engine.spawn(engine.call("hold", ""));
    let given = worker.given().await;
    worker.succeed(&given, "done");
    call.await.unwrap().unwrap();
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_sleeps_while_nobody_calls_and_wakes_for_a_call() {
    let engine = Engine::start(FunctionsConfig { reconnect_grace: Duration::ZERO, ..config() }).await;
    let spec =
        PoolSpec { min: 0, idle_after: Duration::from_millis(10), ..shell("echo token $BOKI_WORKER; sleep 1000") };
    engine.functions.start_pool(spec).unwrap();
    // The first process is started to learn what there is, and goes.
    let token = lines(&engine.functions, "shop", "token ", 1).await.remove(0);
    let registration = |token: &String| Register { process: token.clone(), ..register("w", 1, &["hold"]) };
    let mut worker = Worker::connect(&engine.functions, registration(&token)).await;
    assert_eq!(worker.frame().await.kind, DRAIN);
    drop(worker);
    Worker::settled(&engine.functions, |functions| functions.pools()[0].state == PoolState::Asleep).await;
    assert_eq!(engine.functions.list()[0].name, arc("hold"));
    assert_eq!(engine.functions.call(engine.call("nothing", "")).await.unwrap_err().code(), "BK0401");

    let call = engine.spawn(engine.call("hold", ""));
    let token = lines(&engine.functions, "shop", "token ", 2).await.remove(1);
    let mut worker = Worker::connect(&engine.functions, registration(&token)).await;
    let given = worker.given().await;
    worker.succeed(&given, "done");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "done");
    assert_eq!(engine.functions.status().restarts, 0);
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_grows_when_calls_wait_and_not_above_its_most() {
    let engine = Engine::start(config()).await;
    let spec = PoolSpec { max: 2, ..shell("echo token $BOKI_WORKER; sleep 1000") };
    engine.functions.start_pool(spec).unwrap();
    let calls: Vec<_> = (0..5).map(|_| engine.spawn(engine.call("hold", ""))).collect();
    let token = lines(&engine.functions, "shop-1", "token ", 1).await.remove(0);
    let registration = |token: String| Register { process: token, ..register("w", 1, &["hold"]) };
    let mut first = Worker::connect(&engine.functions, registration(token)).await;
    let given_first = first.given().await;
    let token = lines(&engine.functions, "shop-2", "token ", 1).await.remove(0);
    let mut second = Worker::connect(&engine.functions, registration(token)).await;
    let given_second = second.given().await;
    assert_eq!(engine.functions.pools()[0].waiting, 3);
    first.succeed(&given_first, "");
    let given_first = first.given().await;
    second.succeed(&given_second, "");
    let given_second = second.given().await;
    first.succeed(&given_first, "");
    let given_first = first.given().await;
    first.succeed(&given_first, "");
    second.succeed(&given_second, "");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(engine.functions.pools()[0].processes.len(), 2);
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_pool_takes_no_calls_before_it_is_released() {
    let engine = Engine::start(config()).await;
    let mut old = engine.worker(1, &["hold"]).await;
    let spec = PoolSpec { held: true, ..shell("echo token $BOKI_WORKER; sleep 1000") };
    let pool = engine.functions.start_pool(spec).unwrap();
    let token = lines(&engine.functions, "shop", "token ", 1).await.remove(0);
    let registration = Register { process: token, ..register("w", 1, &["hold", "new"]) };
    let mut new = Worker::connect(&engine.functions, registration).await;
    engine.functions.pool_ready(pool).await.unwrap();
    assert_eq!(engine.functions.call(engine.call("new", "")).await.unwrap_err().code(), "BK0401");
    let calls = [engine.spawn(engine.call("hold", "1")), engine.spawn(engine.call("hold", "2"))];
    let given = old.given().await;
    Worker::settled(&engine.functions, |functions| functions.status().queued == 1).await;
    engine.functions.release_pool(pool);
    let second = new.given().await;
    new.succeed(&second, "");
    old.succeed(&given, "");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let call = engine.spawn(engine.call("new", ""));
    let given = new.given().await;
    new.succeed(&given, "");
    call.await.unwrap().unwrap();
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_sees_what_it_needs_and_what_is_named_and_nothing_else() {
    let engine = Engine::start(config()).await;
    let script = "echo home ${HOME:+set}; echo path ${PATH:+set}; echo dir ${CARGO_MANIFEST_DIR:-none}; echo version $BOKI_VERSION; sleep 1000";
    let secrets = vec!["CARGO_MANIFEST_DIR".to_owned()];
    let spec = |name: &str, env| PoolSpec { name: name.into(), version: "v7".into(), env, ..shell(script) };
    engine.functions.start_pool(spec("plain", Environment::default())).unwrap();
    engine.functions.start_pool(spec("named", Environment { secrets, ..Environment::default() })).unwrap();
    engine.functions.start_pool(spec("heir", Environment { inherit: true, ..Environment::default() })).unwrap();
    let dir = env!("CARGO_MANIFEST_DIR");
    for (name, expected) in [("plain", "none"), ("named", dir), ("heir", dir)] {
        assert_eq!(lines(&engine.functions, name, "dir ", 1).await, [expected], "{name}");
        assert_eq!(lines(&engine.functions, name, "path ", 1).await, ["set"]);
        assert_eq!(lines(&engine.functions, name, "version ", 1).await, ["v7"]);
    }
    let secrets = vec!["NOBODY_HAS_SET_THIS".to_owned()];
    let error =
        engine.functions.start_pool(spec("poor", Environment { secrets, ..Environment::default() })).unwrap_err();
    assert_eq!(error.code(), "BK0432");
    let set = vec![("KEY".to_owned(), "hush".to_owned())];
    let shown = format!("{:?}", spec("quiet", Environment { set, ..Environment::default() }));
    assert!(shown.contains("KEY") && !shown.contains("hush"), "{shown}");
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_cannot_be_is_refused() {
    let engine = Engine::start(config()).await;
    let refused = |spec: PoolSpec| engine.functions.start_pool(spec).unwrap_err().code();
    let limits = Resources { memory: Some(1 << 30), ..Resources::default() };
    assert_eq!(refused(PoolSpec { min: 2, max: 1, ..shell("") }), "BK0431");
    assert_eq!(refused(PoolSpec { command: vec![], ..shell("") }), "BK0431");
    assert_eq!(refused(PoolSpec { resources: limits, ..shell("") }), "BK0431");
    assert!(engine.functions.pools().is_empty());
    engine.functions.shutdown(Duration::ZERO).await;
    assert_eq!(refused(shell("")), "BK0410");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_is_ended_and_replaced() {
    let engine = Engine::start(FunctionsConfig { cancel_grace: Duration::from_millis(20), ..config() }).await;
    engine.functions.start_pool(shell("echo pid $$ $BOKI_WORKER; sleep 1000")).unwrap();
    let first = lines(&engine.functions, "shop", "pid ", 1).await.remove(0);
    let (pid, token) = first.split_once(' ').unwrap();
    let registration = Register { process: token.into(), ..register("w", 2, &["hold"]) };
    let mut hanging = Worker::connect(&engine.functions, registration.clone()).await;
    let late = boki_functions::Call { deadline: Some(Duration::from_millis(1)), ..engine.call("hold", "") };
    let late = engine.spawn(late);
    hanging.given().await;
    assert_eq!(late.await.unwrap().unwrap_err().code(), "BK0404");
    gone(&engine.functions, pid).await;
    hanging.crash();
    assert_eq!(engine.functions.status().stuck, 1);
    let second = lines(&engine.functions, "shop", "pid ", 2).await.remove(1);
    let (_, token) = second.split_once(' ').unwrap();
    let mut next = Worker::connect(&engine.functions, Register { process: token.into(), ..registration }).await;
    let call = engine.spawn(engine.call("hold", ""));
    let given = next.given().await;
    next.succeed(&given, "done");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "done");
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_done_its_share_is_replaced_without_a_call_lost() {
    let engine = Engine::start(config()).await;
    let spec = PoolSpec { max_calls: Some(2), ..shell("echo pid $$ $BOKI_WORKER; sleep 1000") };
    engine.functions.start_pool(spec).unwrap();
    let first = lines(&engine.functions, "shop", "pid ", 1).await.remove(0);
    let (pid, token) = first.split_once(' ').unwrap();
    let registration = Register { process: token.into(), ..register("w", 2, &["hold"]) };
    let mut old = Worker::connect(&engine.functions, registration.clone()).await;
    let calls = [engine.spawn(engine.call("hold", "1")), engine.spawn(engine.call("hold", "2"))];
    let given = [old.given().await, old.given().await];
    let second = lines(&engine.functions, "shop", "pid ", 2).await.remove(1);
    let (_, token) = second.split_once(' ').unwrap();
    let mut new = Worker::connect(&engine.functions, Register { process: token.into(), ..registration }).await;
    assert_eq!(old.frame().await.kind, DRAIN);
    for given in &given {
        old.succeed(given, "old");
    }
    for call in calls {
        assert_eq!(text(&call.await.unwrap().unwrap().output), "old");
    }
    gone(&engine.functions, pid).await;
    assert_eq!((engine.functions.status().recycled, engine.functions.status().restarts), (1, 0));
    let call = engine.spawn(engine.call("hold", "3"));
    let given = new.given().await;
    new.succeed(&given, "new");
    assert_eq!(text(&call.await.unwrap().unwrap().output), "new");
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_call_says_what_became_of_its_process() {
    let engine = Engine::start(FunctionsConfig { max_attempts: 1, ..config() }).await;
    engine.functions.start_pool(shell("echo token $BOKI_WORKER; read -t 1000 line; sleep 1000")).unwrap();
    let token = lines(&engine.functions, "shop", "token ", 1).await.remove(0);
    let registration = Register { process: token, ..register("w", 2, &["hold"]) };
    let mut worker = Worker::connect(&engine.functions, registration).await;
    let call = engine.spawn(engine.call("hold", ""));
    worker.given().await;
    let pid = engine.functions.pools()[0].processes[0].pid.unwrap();
    // Its connection ends before its end is known.
    worker.crash();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "BK0403");
    assert!(
        error.to_string().ends_with("its worker was lost; the last one's process was ended by signal 9"),
        "{error}"
    );
    engine.functions.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_neither_blocks_the_process_nor_fills_the_log() {
    let log_rate = LogRate { lines: 10, bytes: 10_000 };
    let engine =
        Engine::start(FunctionsConfig { log_rate, restart_pause: LONG, restart_pause_max: LONG, ..config() }).await;
    let pool = engine.functions.start_pool(shell("yes flood | head -n 200000; echo last; exit 4")).unwrap();
    let failure = engine.functions.pool_ready(pool).await.unwrap_err();
    // The last lines are there, whatever was dropped.
    assert_eq!((&*failure.reason, failure.lines.last().map(|line| &**line)), ("exited with status 4", Some("last")));
    let lines = engine.functions.worker_logs("shop");
    let told = lines.iter().filter_map(|line| line.line.strip_suffix(" lines dropped: it logs too much")?.parse().ok());
    let told: Vec<usize> = told.collect();
    assert_eq!(lines.len() - told.len() + told.iter().sum::<usize>(), 200_001);
    assert!(lines.len() < 1000, "{} lines passed", lines.len());
    engine.functions.shutdown(Duration::ZERO).await;
}
