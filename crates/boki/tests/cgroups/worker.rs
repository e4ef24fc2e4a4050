//! A worker whose functions use as much of the system as they are told to.

use std::time::{Duration, Instant};

use boki_sdk::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// Processor time of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// How often this process's group was made to wait for more processor time.
fn throttled() -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let stat = std::fs::read_to_string(format!("/sys/fs/cgroup/{own}/cpu.stat")).unwrap();
    stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap().parse().unwrap()
}

fn use_processor(ms: u64) -> serde_json::Value {
    let (started, before) = (Instant::now(), processor_time());
    while processor_time() - before < Duration::from_millis(ms) {
        std::hint::spin_loop();
    }
    json!({ "passed_ms": started.elapsed().as_millis() as u64, "throttled": throttled() })
}

/// As many threads at once as it may have, `most` at most.
fn use_threads(most: usize) -> usize {
    let (keep, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    std::thread::scope(|scope| {
        let mut started = 0;
        while started < most {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                // Until nobody keeps it any more.
                let _ = wait.lock().unwrap().recv();
            });
            if thread.is_err() {
                break;
            }
            started += 1;
        }
        drop(keep);
        started
    })
}

#[test]
#[ignore = "a worker process that the server of another test starts"]
fn offers_what_uses_much() {
    Worker::new()
        .function("use_memory", |_cx: Cx, mib: usize| async move {
            let bytes = vec![1_u8; mib << 20];
            Ok(std::hint::black_box(bytes).len() >> 20)
        })
        .function("use_processor", |_cx: Cx, ms: u64| async move { Ok(use_processor(ms)) })
        .function("use_threads", |_cx: Cx, most: usize| async move { Ok(use_threads(most)) })
        .function("start_something", |_cx: Cx, _: u64| async move {
            // By a shell that ends at once: it belongs to nobody then.
            let script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!";
            let output = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
            Ok(String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap())
        })
        .function("crash", |_cx: Cx, _: u64| async move { std::process::abort() as std::result::Result<u64, Failure> })
        .run()
        .unwrap();
}
