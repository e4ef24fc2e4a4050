//! The server process of the demo: started from this same binary, killed without warning, started again.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The environment variable that names the file in which each worker notes its process id.
pub(crate) const PIDS_FILE: &str = "DEMO_PIDS_FILE";

/// How long a server may take to end when asked to.
const GRACE: Duration = Duration::from_secs(15);

/// A server on a data directory, with one worker process under it.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    home: PathBuf,
    pub(crate) address: String,
    child: Option<Child>,
}

impl ServerProcess {
    /// Writes a `boki.toml` into `home` and starts a server with it.
    pub(crate) async fn start(home: &Path) -> io::Result<ServerProcess> {
        let address = free_address()?;
        std::fs::write(home.join("boki.toml"), configuration(home, &address)?)?;
        let mut server = ServerProcess { home: home.to_owned(), address, child: None };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts it on the same data and address. When this returns, it answers.
    pub(crate) async fn start_again(&mut self) -> io::Result<()> {
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(self.home.join("server.log"))?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("server")
            .arg("--config")
            .arg(self.home.join("boki.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0) // ctrl-c at the terminal is for the demo, which ends the server in order
            .kill_on_drop(true)
            .spawn()?;
        // It says that it is ready with a line.
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the server has no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        if lines.next_line().await?.is_none() {
            let log = std::fs::read_to_string(self.home.join("server.log")).unwrap_or_default();
            return Err(io::Error::other(format!("the server ended before it was ready:\n{log}")));
        }
        // What it prints later must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = Some(child);
        Ok(())
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The process id of the latest worker.
    pub(crate) fn worker_pid(&self) -> Option<u32> {
        self.worker_pids().pop()
    }

    /// Process ids of all workers that were ever started, the latest last.
    fn worker_pids(&self) -> Vec<u32> {
        let pids = std::fs::read_to_string(self.home.join("pids")).unwrap_or_default();
        pids.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// `kill -9` of the worker that runs now.
    pub(crate) fn kill_worker(&self) -> io::Result<u32> {
        let pid = self.worker_pid().ok_or_else(|| io::Error::other("no worker was started"))?;
        signal(pid, Signal::KILL)?;
        Ok(pid)
    }

    /// `kill -9` of the server.
    pub(crate) async fn kill(&mut self) -> io::Result<u32> {
        let mut child = self.child.take().ok_or_else(|| io::Error::other("the server does not run"))?;
        let pid = child.id().unwrap_or_default();
        child.kill().await?;
        Ok(pid)
    }

    /// Ends the server in order, and sees to it that nothing of it is left.
    pub(crate) async fn stop(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            if let Some(pid) = child.id() {
                signal(pid, Signal::TERM)?;
            }
            if timeout(GRACE, child.wait()).await.is_err() {
                child.kill().await?;
            }
        }
        self.end_workers();
        Ok(())
    }

    /// The workers of a killed server end by themselves when they find that it is gone; this does not wait for that.
    fn end_workers(&self) {
        for pid in self.worker_pids() {
            // The number may be another process's by now.
            if is_worker(pid) {
                // One that ended meanwhile is what is wanted.
                let _ = signal(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.end_workers();
    }
}

/// The worker's part: notes its process id where [`ServerProcess`] looks for it.
pub(crate) fn note_pid() -> io::Result<()> {
    use std::io::Write as _;
    if let Some(path) = std::env::var_os(PIDS_FILE) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{}", std::process::id())?;
    }
    Ok(())
}

fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no such process"))?;
    Ok(kill_process(pid, signal)?)
}

fn is_worker(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"demo-worker"))
}

/// An address that nobody listens on. Another process could take it before the server does; then the start fails.
fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}

fn configuration(home: &Path, address: &str) -> io::Result<String> {
    let text = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    let command = format!("'{}' demo-worker", std::env::current_exe()?.display().to_string().replace('\'', r"'\''"));
    Ok(format!(
        "[server]\nlisten = \"{address}\"\ndata = {}\n\n\
         [telemetry]\nlevel = \"warn\"\n\n\
         [[worker]]\nname = \"booking\"\ncommand = {}\nenv = {{ {PIDS_FILE} = {} }}\n",
        text(&home.join("data")),
        toml::Value::from(command),
        text(&home.join("pids")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_configuration_is_one_that_the_server_takes() {
        let text = configuration(Path::new("/tmp/it's \"here\""), "127.0.0.1:4000").unwrap();
        let config = boki_server::config::Config::from_text("boki.toml", &text, []).unwrap();
        assert_eq!(config.server.data, Path::new("/tmp/it's \"here\"/data"));
        assert_eq!(config.worker.len(), 1);
    }
}
