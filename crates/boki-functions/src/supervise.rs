//! Keeping one worker process alive: start, watch, start again, replace, end.
//!
//! Every process leads a process group of its own, and whatever is left of the group when the process ends
//! is killed: a worker leaves nothing behind. What it prints goes line by line to the log.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use boki_wire::worker::Level;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::backoff;
use crate::counters::count;
use crate::dispatch::Flushes;
use crate::functions::Shared;
use crate::logs::{MAX_LINE_BYTES, Source};
use crate::process::{Slot, WorkerCommand};

/// How long a process that is replaced may finish what it has.
const RETIRE_WITHIN: Duration = Duration::from_secs(60);

/// Looks after one slot.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    command: Arc<WorkerCommand>,
    url: String,
    incarnation: u64,
    failures: u32,
}

/// A process that runs.
struct Process {
    child: Child,
    group: Option<Pid>,
    token: String,
    incarnation: u64,
    since: Instant,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, slot: Arc<Slot>, command: Arc<WorkerCommand>, url: String) -> Supervisor {
        Supervisor { shared, slot, command, url, incarnation: 0, failures: 0 }
    }

    /// Until the engine stops.
    pub(crate) async fn run(mut self) {
        while !self.shared.closing.is_cancelled() {
            if self.incarnation > 0 {
                count(&self.shared.counters.restarts);
            }
            let Some(process) = self.start() else {
                self.failures = self.failures.saturating_add(1);
                self.pause().await;
                continue;
            };
            let (since, status) = self.watch(process).await;
            let Some(status) = status else { break };
            if self.shared.closing.is_cancelled() {
                break;
            }
            self.slot.expect(&self.shared);
            if since.elapsed() >= self.shared.config.healthy_after {
                self.failures = 0;
            }
            self.failures = self.failures.saturating_add(1);
            tracing::warn!(worker = %self.slot.name(), %status, "worker process ended; it will be started again");
            self.pause().await;
        }
        self.slot.settle(&self.shared);
    }

    /// Watches a process, and those that replace it, until the latest has ended. `None`: the engine stops.
    async fn watch(&mut self, mut process: Process) -> (Instant, Option<ExitStatus>) {
        loop {
            let since = process.since;
            let stopping = self.shared.processes.stopping().clone();
            tokio::select! {
                status = process.child.wait() => {
                    process.sweep(&self.shared);
                    return (since, status.ok());
                }
                () = stopping.cancelled() => {
                    process.end(&self.shared).await;
                    return (since, None);
                }
                () = self.slot.restart_asked() => {}
            }
            if self.shared.closing.is_cancelled() {
                continue;
            }
            // The old one goes on until a new one has registered.
            if let Some(next) = self.start() {
                let old = std::mem::replace(&mut process, next);
                let retire = retire(Arc::clone(&self.shared), Arc::clone(&self.slot), old, self.incarnation);
                self.shared.processes.tasks().spawn_on(retire, &self.shared.runtime);
            }
        }
    }

    fn start(&mut self) -> Option<Process> {
        self.incarnation += 1;
        let token = self.shared.processes.enter(&self.slot, self.incarnation);
        let name = self.slot.name();
        let started = spawn(&self.command, &self.url, &token);
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(worker = %name, command = ?self.command.command, %error, "worker process could not be started");
                self.shared.processes.leave(&token);
                return None;
            }
        };
        if let Some(stdout) = child.stdout.take() {
            self.shared.runtime.spawn(copy_lines(stdout, Arc::clone(name), Arc::clone(&self.shared)));
        }
        if let Some(stderr) = child.stderr.take() {
            self.shared.runtime.spawn(copy_lines(stderr, Arc::clone(name), Arc::clone(&self.shared)));
        }
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        tracing::info!(worker = %name, pid = child.id(), "worker process started");
        Some(Process { child, group, token, incarnation: self.incarnation, since: Instant::now() })
    }

    async fn pause(&self) {
        let config = &self.shared.config;
        let pause = backoff(config.restart_pause, config.restart_pause_max, self.failures, self.slot.name());
        tokio::select! {
            () = sleep(pause) => {}
            () = self.slot.restart_asked() => {}
            () = self.shared.closing.cancelled() => {}
        }
    }
}

/// Ends a process once incarnation `successor` (or a later one) has registered and it has finished what it has.
async fn retire(shared: Arc<Shared>, slot: Arc<Slot>, mut process: Process, successor: u64) {
    let stopping = shared.processes.stopping().clone();
    tokio::select! {
        _ = process.child.wait() => return process.sweep(&shared),
        () = stopping.cancelled() => return process.end(&shared).await,
        () = slot.has_registered(successor) => {}
    }
    if let Some(worker) = slot.worker_of(process.incarnation) {
        let mut flushes = Flushes::default();
        shared.dispatch.lock().send_drain(worker, Instant::now(), &mut flushes);
        shared.perform(flushes, None);
        tokio::select! {
            _ = process.child.wait() => return process.sweep(&shared),
            () = stopping.cancelled() => {}
            () = sleep(RETIRE_WITHIN) => {}
        }
    }
    process.end(&shared).await;
}

impl Process {
    /// Asks the process to end, and sees to it that it does.
    async fn end(mut self, shared: &Shared) {
        self.signal(Signal::TERM);
        if timeout(shared.config.kill_after, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            // A killed process ends; that the system says otherwise leaves nothing to do.
            let _ = self.child.wait().await;
        }
        self.sweep(shared);
    }

    /// The process has ended: so does what it started.
    fn sweep(&self, shared: &Shared) {
        self.signal(Signal::KILL);
        shared.processes.leave(&self.token);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Nobody left to signal is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

fn spawn(command: &WorkerCommand, url: &str, token: &str) -> std::io::Result<Child> {
    let Some((program, arguments)) = command.command.split_first() else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the command is empty"));
    };
    let mut process = Command::new(program);
    process.args(arguments).envs(command.env.iter().map(|(name, value)| (name, value)));
    process.env("BOKI_URL", url).env("BOKI_WORKER", token);
    if let Some(dir) = &command.dir {
        process.current_dir(dir);
    }
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process.process_group(0).kill_on_drop(true).spawn()
}

/// Hands a process's output to the log, line by line, until it ends.
async fn copy_lines(output: impl AsyncRead + Unpin, worker: Arc<str>, shared: Arc<Shared>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        let (taken, ended) = match output.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let part = &bytes[..end.unwrap_or(bytes.len())];
                // What is beyond the longest line is dropped, up to the line's end.
                let room = MAX_LINE_BYTES.saturating_sub(line.len()).min(part.len());
                line.extend_from_slice(&part[..room]);
                (end.map_or(bytes.len(), |end| end + 1), end.is_some())
            }
        };
        output.consume(taken);
        if ended {
            log_line(&shared, &worker, &mut line);
        }
    }
    if !line.is_empty() {
        log_line(&shared, &worker, &mut line);
    }
}

fn log_line(shared: &Shared, worker: &Arc<str>, line: &mut Vec<u8>) {
    let source = Source { worker, version: &Arc::from(""), call: None, function: None };
    shared.logs.add(source, Level::Info, String::from_utf8_lossy(line).trim_end());
    line.clear();
}
