//! Running a version's build: in its folder, in a process group of its own, with an environment that holds no secrets of
//! the server, its output handed on line by line.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::error::{Failure, Stage};

/// Most lines of output that are kept for whoever asks why it failed.
const LAST_LINES: usize = 40;
/// A longer line is taken as several.
const MAX_LINE_BYTES: u64 = 4 << 10;
/// Lines that may wait to be handed on.
const LINES_AHEAD: usize = 256;
/// Variables of the server's environment that compilers and package tools need.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A build that runs. Dropping it kills everything in its process group.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn kill(&self) {
        if let Some(group) = self.group {
            // Nobody left to signal is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` in `folder`, for `within` at most and no longer than the server runs.
pub(super) async fn build(
    command: &str,
    folder: &Path,
    within: Duration,
    progress: &mpsc::Sender<Progress>,
    stopping: &CancellationToken,
) -> Result<(), Failure> {
    let failed = |reason: String, lines: VecDeque<String>| Failure { stage: Stage::Build, reason, lines: lines.into() };
    let mut running = start(command, folder)
        .map_err(|error| failed(format!("its build could not be started: {error}"), VecDeque::new()))?;
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    if let Some(stdout) = running.child.stdout.take() {
        tokio::spawn(read_lines(stdout, sender.clone()));
    }
    if let Some(stderr) = running.child.stderr.take() {
        tokio::spawn(read_lines(stderr, sender));
    }
    let mut last = VecDeque::new();
    let whole = async {
        let mut ended = None;
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                status = running.child.wait(), if ended.is_none() => {
                    ended = Some(status);
                    // What it left running would hold its output open.
                    running.kill();
                    continue;
                }
            };
            let Some(line) = line else { break };
            if last.len() >= LAST_LINES {
                last.pop_front();
            }
            last.push_back(String::clone(&line));
            // Whoever watches may be slow, or gone.
            let _ = progress.try_send(Progress::Output { line });
        }
        match ended {
            Some(status) => status,
            None => running.child.wait().await,
        }
    };
    let status: Option<std::io::Result<ExitStatus>> = tokio::select! {
        status = timeout(within, whole) => status.ok(),
        () = stopping.cancelled() => return Err(failed("the server stops".to_owned(), last)),
    };
    match status {
        Some(Ok(status)) if status.success() => Ok(()),
        Some(Ok(status)) => Err(failed(format!("its build ended with {status}"), last)),
        Some(Err(error)) => Err(failed(format!("its build was lost: {error}"), last)),
        None => {
            let within = humantime::format_duration(within);
            Err(failed(format!("its build took longer than {within} (deploy.build_timeout)"), last))
        }
    }
}

fn start(command: &str, folder: &Path) -> std::io::Result<Running> {
    let mut process = Command::new("/bin/sh");
    process.args(["-c", command]).current_dir(folder).env_clear();
    process.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = process.process_group(0).kill_on_drop(true).spawn()?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    Ok(Running { child, group })
}

async fn read_lines(output: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut output).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if lines.send(text).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn run(command: &str, within: Duration, stopping: &CancellationToken) -> (Result<(), Failure>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let (progress, mut told) = mpsc::channel(1000);
        let result = build(command, folder.path(), within, &progress, stopping).await;
        drop(progress);
        let mut lines = Vec::new();
        while let Some(Progress::Output { line }) = told.recv().await {
            lines.push(line);
        }
        (result, lines)
    }

    #[tokio::test]
    async fn output_is_told_and_the_last_of_it_kept() {
        let run = |command: &'static str| async move { run(command, LONG, &CancellationToken::new()).await };
        assert_eq!(run("pwd > here; echo one; echo two >&2; cat here | wc -l").await.0, Ok(()));
        let (result, lines) = run("sleep 600 & i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); done; exit 3").await;
        let failure = result.unwrap_err();
        assert!(failure.reason.contains("exit status: 3"), "{failure}");
        assert_eq!((failure.lines.len(), failure.lines.last().unwrap().as_str(), lines.len()), (LAST_LINES, "99", 100));
    }

    #[tokio::test]
    async fn what_the_server_knows_stays_with_it() {
        // Cargo sets this for tests, and it is none of the variables that are passed.
        let (_, lines) = run("env", LONG, &CancellationToken::new()).await;
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(lines.iter().any(|line| line.starts_with("PATH=")));
        assert!(!lines.iter().any(|line| line.starts_with("CARGO_MANIFEST_DIR")), "{lines:?}");
    }

    #[tokio::test]
    async fn a_build_ends_with_its_time_and_with_the_server() {
        let (result, _) = run("sleep 600", Duration::from_millis(20), &CancellationToken::new()).await;
        assert!(result.unwrap_err().reason.contains("deploy.build_timeout"));
        let stopping = CancellationToken::new();
        stopping.cancel();
        let (result, _) = run("sleep 600 & wait", LONG, &stopping).await;
        assert!(result.unwrap_err().reason.contains("stops"));
    }
}
