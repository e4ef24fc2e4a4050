//! One worker process, from its start until nothing is left of it.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::cgroup::Group;
use super::crew::MemberNumber;
use super::limits::Limits;
use super::output::{LastLines, copy_lines};
use super::spec::{Environment, PoolSpec};
use super::table::new_token;
use crate::counters::count;
use crate::dispatch::WorkerKey;
use crate::flood::{LogBudget, LogRate};
use crate::functions::Shared;

/// How long the last lines of a process that has ended may take to arrive. Its pipes end with its group, so they
/// are there at once unless something outside the group holds them.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(500);

/// Variables that a worker gets of the engine's environment in any case: what programs need to run at all.
const PASSED_VARIABLES: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];
const PASSED_PREFIX: &str = "LC_";
/// What no process is given.
const WITHHELD_VARIABLES: [&str; 2] = ["BOKI_DATA_KEY", "BOKI_DATA_KEY_OLD"];

/// What a process is told to do, each more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Serve,
    /// Finish what it has; it has been told over its connection.
    Drain,
    /// The same, as quickly as a call that is given up has to end.
    Hurry,
    /// End.
    End,
}

/// A process of a pool, as the engine's other parts see it.
#[derive(Debug)]
pub(crate) struct Process {
    number: MemberNumber,
    name: Arc<str>,
    token: String,
    born: Instant,
    now: Mutex<Now>,
    orders: watch::Sender<Order>,
    last_lines: Arc<LastLines>,
    /// What became of it.
    end: watch::Sender<Option<Arc<str>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Now {
    pid: Option<u32>,
    worker: Option<WorkerKey>,
}

/// A process that runs.
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
    cgroup: Option<Group>,
    output: Vec<JoinHandle<()>>,
}

impl Process {
    pub(super) fn new(number: MemberNumber, name: Arc<str>, log_rate: LogRate) -> Process {
        let (orders, _) = watch::channel(Order::Serve);
        Process {
            number,
            name,
            token: new_token(),
            born: Instant::now(),
            now: Mutex::default(),
            orders,
            last_lines: Arc::new(LastLines::new(log_rate)),
            end: watch::Sender::new(None),
        }
    }

    pub(super) fn number(&self) -> MemberNumber {
        self.number
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.now.lock().pid
    }

    pub(super) fn worker(&self) -> Option<WorkerKey> {
        self.now.lock().worker
    }

    pub(super) fn connected(&self, worker: WorkerKey) {
        self.now.lock().worker = Some(worker);
    }

    /// Returns whether that was its latest connection.
    pub(super) fn disconnected(&self, worker: WorkerKey) -> bool {
        let mut now = self.now.lock();
        let is_latest = now.worker == Some(worker);
        if is_latest {
            now.worker = None;
        }
        is_latest
    }

    /// Tells it to do this, if it was not told more before.
    pub(super) fn order(&self, order: Order) {
        self.orders.send_if_modified(|last| {
            let is_more = order > *last;
            *last = order.max(*last);
            is_more
        });
    }

    pub(super) fn last_lines(&self) -> Vec<Arc<str>> {
        self.last_lines.get()
    }

    pub(super) fn budget(&self) -> &Arc<Mutex<LogBudget>> {
        &self.last_lines.budget
    }

    pub(super) fn ended(&self, how: &str) {
        self.end.send_replace(Some(how.into()));
    }

    /// What has become of it, once it has ended.
    pub(super) fn end(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.end.subscribe()
    }

    /// Starts it.
    pub(super) fn start(
        &self,
        spec: &PoolSpec,
        limits: &Limits,
        version: &Arc<str>,
        shared: &Arc<Shared>,
    ) -> std::io::Result<Running> {
        let launcher = shared.config.launcher.as_deref();
        let cgroup = limits.group()?;
        let started = || command(spec, limits.command(launcher, cgroup.as_ref(), &spec.command)?, &self.token).spawn();
        let mut child = match started() {
            Ok(child) => child,
            Err(error) => {
                cgroup.inspect(Group::remove);
                return Err(error);
            }
        };
        let pid = child.id();
        self.now.lock().pid = pid;
        // The guard knows of it before anybody hears of it.
        let group = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let (Some(launcher), Some(group)) = (launcher, group) {
            shared.pools.guard().add(launcher, group);
        }
        let mut output = Vec::new();
        let (worker, last) = (&self.name, &self.last_lines);
        if let Some(stdout) = child.stdout.take() {
            let copy =
                copy_lines(stdout, Arc::clone(worker), Arc::clone(version), Arc::clone(last), Arc::clone(shared));
            output.push(shared.runtime.spawn(copy));
        }
        if let Some(stderr) = child.stderr.take() {
            let copy =
                copy_lines(stderr, Arc::clone(worker), Arc::clone(version), Arc::clone(last), Arc::clone(shared));
            output.push(shared.runtime.spawn(copy));
        }
        let limits = Some(limits.in_force()).filter(|limits| !limits.is_empty());
        tracing::info!(%worker, pid, limits, "worker process started");
        Ok(Running { child, group, cgroup, output })
    }

    /// Until it has ended: by itself, or because it was ordered to or the engine stops. Returns what became of it.
    pub(super) async fn attend(
        &self,
        mut running: Running,
        drain_grace: Duration,
        limits: &Limits,
        shared: &Arc<Shared>,
    ) -> String {
        let mut orders = self.orders.subscribe();
        let stopping = shared.pools.stopping();
        let drained = async {
            loop {
                let grace = match *orders.borrow_and_update() {
                    Order::Serve => Duration::MAX,
                    Order::Drain => drain_grace,
                    Order::Hurry => drain_grace.min(shared.config.cancel_grace),
                    Order::End => return,
                };
                // The sender lives as long as the process.
                match timeout(grace, orders.changed()).await {
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        };
        let ended = tokio::select! {
            ended = running.child.wait() => Some(ended),
            () = stopping.cancelled() => None,
            () = drained => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => running.end(shared.config.kill_after).await,
        };
        running.signal(Signal::KILL);
        if let Some(group) = running.group {
            shared.pools.guard().remove(group);
        }
        self.now.lock().pid = None;
        let lines = async {
            for copy in &mut running.output {
                // It ends with the pipe, and does not panic.
                let _ = copy.await;
            }
        };
        if timeout(LAST_LINES_WITHIN, lines).await.is_err() {
            running.output.iter().for_each(JoinHandle::abort);
        }
        if running.leave_group(shared).await {
            count(&shared.counters.oom_kills);
            let how = limits.out_of_memory();
            self.last_lines.add(&how);
            return how;
        }
        ended.map_or_else(|error| format!("was lost: {error}"), |status| how_it_ended(status, limits))
    }
}

impl Running {
    /// Asks the process to end, and sees to it that it does.
    async fn end(&mut self, kill_after: Duration) -> std::io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        if let Ok(ended) = timeout(kill_after, self.child.wait()).await {
            return ended;
        }
        self.signal(Signal::KILL);
        self.child.wait().await
    }

    /// Removes its control group, with what is left in it. Returns whether the system killed it for its memory.
    async fn leave_group(&mut self, shared: &Shared) -> bool {
        let Some(cgroup) = self.cgroup.take() else { return false };
        let is_out_of_memory = cgroup.is_out_of_memory();
        // Its processes end in real time, whatever the runtime's is; it does not panic.
        let _ = shared.runtime.spawn_blocking(move || cgroup.remove()).await;
        is_out_of_memory
    }

    /// To the process, and to what it has started.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Nobody left to signal is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

fn how_it_ended(status: ExitStatus, limits: &Limits) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    // The system does not say whether that was the reason.
    match limits.in_force() {
        limits if !limits.is_empty() && !status.success() => format!("{how} (its limits: {limits})"),
        _ => how,
    }
}

fn command(spec: &PoolSpec, program: std::process::Command, token: &str) -> Command {
    let mut command = Command::from(program);
    set_environment(&mut command, &spec.env);
    command.env("BOKI_URL", &spec.url).env("BOKI_WORKER", token).env("BOKI_VERSION", &spec.version);
    if let Some(dir) = &spec.dir {
        command.current_dir(dir);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command
}

fn set_environment(command: &mut Command, env: &Environment) {
    if !env.inherit {
        command.env_clear();
        for (name, value) in std::env::vars_os() {
            let is_passed = name.to_str().is_some_and(|name| {
                PASSED_VARIABLES.contains(&name)
                    || name.starts_with(PASSED_PREFIX)
                    || env.secrets.iter().any(|secret| secret == name)
            });
            if is_passed {
                command.env(name, value);
            }
        }
    }
    // Even if everything is passed on: what the server's data is sealed with is nobody else's.
    for secret in WITHHELD_VARIABLES {
        command.env_remove(secret);
    }
    command.envs(env.set.iter().map(|(name, value)| (name, value)));
}
