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
use tokio::time::{Instant, sleep, timeout};

use super::crew::MemberNumber;
use super::output::{LastLines, copy_lines};
use super::spec::{Environment, PoolSpec};
use super::table::new_token;
use crate::dispatch::WorkerKey;
use crate::functions::Shared;

/// How long the last lines of a process that has ended may take to arrive. Its pipes end with its group, so they
/// are there at once unless something outside the group holds them.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(500);

/// Variables that a worker gets of the engine's environment in any case: what programs need to run at all.
const PASSED_VARIABLES: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];
const PASSED_PREFIX: &str = "LC_";

/// What a process is told to do, each more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Serve,
    /// Finish what it has; it has been told over its connection.
    Drain,
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
    output: Vec<JoinHandle<()>>,
}

impl Process {
    pub(super) fn new(number: MemberNumber, name: Arc<str>) -> Process {
        let (orders, _) = watch::channel(Order::Serve);
        Process {
            number,
            name,
            token: new_token(),
            born: Instant::now(),
            now: Mutex::default(),
            orders,
            last_lines: Arc::default(),
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

    /// Starts it.
    pub(super) fn start(&self, spec: &PoolSpec, version: &Arc<str>, shared: &Arc<Shared>) -> std::io::Result<Running> {
        let mut child = command(spec, &self.token)?.spawn()?;
        let pid = child.id();
        self.now.lock().pid = pid;
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
        let group = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        tracing::info!(%worker, pid, "worker process started");
        Ok(Running { child, group, output })
    }

    /// Until it has ended: by itself, or because it was ordered to or the engine stops. Returns what became of it.
    pub(super) async fn attend(&self, mut running: Running, drain_grace: Duration, shared: &Shared) -> String {
        let mut orders = self.orders.subscribe();
        let stopping = shared.pools.stopping();
        let drained = async {
            // The sender lives as long as the process.
            let _ = orders.wait_for(|order| *order >= Order::Drain).await;
            tokio::select! {
                _ = orders.wait_for(|order| *order >= Order::End) => {}
                () = sleep(drain_grace) => {}
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
        ended.map_or_else(|error| format!("was lost: {error}"), how_it_ended)
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

    /// To the process, and to what it has started.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Nobody left to signal is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn command(spec: &PoolSpec, token: &str) -> std::io::Result<Command> {
    let Some((program, arguments)) = spec.command.split_first() else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the command is empty"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    set_environment(&mut command, &spec.env);
    command.env("BOKI_URL", &spec.url).env("BOKI_WORKER", token).env("BOKI_VERSION", &spec.version);
    if let Some(dir) = &spec.dir {
        command.current_dir(dir);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    Ok(command)
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
    command.envs(env.set.iter().map(|(name, value)| (name, value)));
}
