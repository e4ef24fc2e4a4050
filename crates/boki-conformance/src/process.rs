//! The worker under test, as a process.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How many of its latest lines a failure shows.
const LINES: usize = 20;

/// A worker that runs. Dropping it kills it, and what it has started.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    child: Child,
    pid: Option<Pid>,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a worker is started.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) command: &'a [String],
    pub(crate) url: &'a str,
    /// `BOKI_WORKER` and `BOKI_VERSION`, for one that the server started.
    pub(crate) as_started_by_server: Option<(&'a str, &'a str)>,
}

impl WorkerProcess {
    pub(crate) fn start(start: &Start<'_>) -> Result<WorkerProcess, String> {
        let (program, arguments) = start.command.split_first().ok_or("there is no command to run")?;
        let mut command = Command::new(program);
        command.args(arguments).env("BOKI_URL", start.url).env_remove("BOKI_WORKER").env_remove("BOKI_VERSION");
        if let Some((token, version)) = start.as_started_by_server {
            command.env("BOKI_WORKER", token).env("BOKI_VERSION", version);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let mut child = child.map_err(|error| format!("{program} cannot be started: {error}"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            readers.push(tokio::spawn(keep_lines(output, Arc::clone(&lines))));
        }
        if let Some(output) = child.stderr.take() {
            readers.push(tokio::spawn(keep_lines(output, Arc::clone(&lines))));
        }
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(WorkerProcess { child, pid, lines, readers })
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        if let Some(pid) = self.pid {
            // One that has ended already is found out by whoever waits for it.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Until it has ended by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> Result<ExitStatus, String> {
        match timeout(within, self.child.wait()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(format!("the worker cannot be waited for: {error}")),
            Err(_) => Err(format!("the worker still runs after {within:?}")),
        }
    }

    /// Ends it at once.
    pub(crate) async fn kill(&mut self) {
        self.sweep();
        // A killed process ends.
        let _ = self.child.wait().await;
    }

    /// What it printed last, for whoever looks for the fault.
    pub(crate) async fn last_lines(&mut self) -> Vec<String> {
        self.kill().await;
        for reader in self.readers.drain(..) {
            // Its output has ended with it.
            let _ = reader.await;
        }
        self.lines.lock().await.clone()
    }

    fn sweep(&self) {
        if let Some(pid) = self.pid {
            // Nobody left to end is what is wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.sweep();
    }
}

async fn keep_lines(output: impl AsyncRead + Unpin, lines: Arc<Mutex<Vec<String>>>) {
    let mut output = BufReader::new(output).lines();
    // A line that is not UTF-8 ends the reading: nothing depends on it.
    while let Ok(Some(line)) = output.next_line().await {
        let mut lines = lines.lock().await;
        if lines.len() == LINES {
            lines.remove(0);
        }
        lines.push(line);
    }
}
