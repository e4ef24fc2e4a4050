//! The server that is measured: a new process in a folder of its own, or one that runs already.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use boki_server::config::Durability;
use rustix::fs::statfs;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{HttpConnection, request};
use super::latency::broken;
use super::process::{CpuClock, OwnProcess, children};
use super::worker::NOOP;
use crate::cli::BenchOptions;
use crate::failure::Failure;

/// What `statfs` says of a file system in memory.
const TMPFS: u64 = 0x0102_1994;
/// How long a worker of ours has to register with a server that is not.
const REGISTER_WITHIN: Duration = Duration::from_secs(10);

/// The server, as long as it is measured.
#[derive(Debug)]
pub(crate) struct ServerUnderTest {
    // Before the folder: its processes end first.
    process: Option<OwnProcess>,
    _worker: Option<OwnProcess>,
    _folder: Option<TempDir>,
    address: String,
    /// From the start of the process to its first answer over HTTP.
    pub(crate) first_answer: Option<Duration>,
}

/// Whether a function that does nothing is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worker {
    None,
    Noop,
}

/// Where files of a benchmark go.
pub(crate) fn folder(options: &BenchOptions) -> PathBuf {
    options.dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// Whether `folder` is memory: then nothing here is measured against a disk.
pub(crate) fn is_memory(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.f_type as u64 == TMPFS)
}

impl ServerUnderTest {
    pub(crate) async fn prepare(options: &BenchOptions, worker: Worker) -> Result<ServerUnderTest, Failure> {
        match &options.server {
            Some(address) => ServerUnderTest::existing(address, worker).await,
            None => ServerUnderTest::start(options, worker).await,
        }
    }

    async fn start(options: &BenchOptions, worker: Worker) -> Result<ServerUnderTest, Failure> {
        let within = folder(options);
        let cannot = |error| Failure::io(format!("cannot make a folder in {}", within.display()), &error);
        let folder = tempfile::Builder::new().prefix("boki-bench-").tempdir_in(&within).map_err(cannot)?;
        let file = folder.path().join("boki.toml");
        fs::write(&file, config(folder.path(), options, worker)?).map_err(cannot)?;
        let file = file.to_str().ok_or_else(|| broken("the folder's path is not UTF-8"))?;
        let mut process = OwnProcess::start("the server", &["--json", "server", "--config", file], &[])?;
        let ready: Value = serde_json::from_str(&process.line()?).unwrap_or_default();
        let address =
            ready["address"].as_str().ok_or_else(|| broken("the server does not say its address"))?.to_owned();
        let mut connection = HttpConnection::open(&address).await?;
        connection.exchange(&request("GET", "/healthz", &address, "", b"")).await?;
        let first_answer = Some(process.started().elapsed());
        Ok(ServerUnderTest { process: Some(process), _worker: None, _folder: Some(folder), address, first_answer })
    }

    async fn existing(address: &str, worker: Worker) -> Result<ServerUnderTest, Failure> {
        let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/').to_owned();
        let worker = match worker {
            Worker::None => None,
            Worker::Noop => {
                let process = OwnProcess::start("the worker", &["bench-worker"], &[("BOKI_URL", &address)])?;
                wait_for_noop(&address).await?;
                Some(process)
            }
        };
        Ok(ServerUnderTest { process: None, _worker: worker, _folder: None, address, first_answer: None })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process, if it is ours.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(OwnProcess::id)
    }

    /// The processor time of the server and the workers that it runs.
    pub(crate) fn cpu(&self) -> Result<Option<CpuClock>, Failure> {
        let Some(pid) = self.pid() else { return Ok(None) };
        let mut pids = children(pid)?;
        pids.push(pid);
        Ok(Some(CpuClock::of(pids)))
    }
}

fn config(folder: &Path, options: &BenchOptions, worker: Worker) -> Result<String, Failure> {
    let binary = std::env::current_exe().map_err(|error| Failure::io("cannot find this program's own file", &error))?;
    let durability = match Durability::from(options.durability) {
        Durability::Fsync => "fsync",
        Durability::Memory => "memory",
    };
    let mut sections = serde_json::json!({
        "server": { "listen": "127.0.0.1:0", "data": folder.join("data"), "durability": durability },
        "telemetry": { "level": "warn" },
    });
    if worker == Worker::Noop {
        let command = crate::remote::shell_word(&binary.to_string_lossy());
        sections["worker"] = serde_json::json!([{ "name": "bench", "command": format!("{command} bench-worker") }]);
    }
    toml::to_string(&sections).map_err(|error| broken(format!("the configuration cannot be written: {error}")))
}

/// Until the worker that was just started is known to the server.
async fn wait_for_noop(address: &str) -> Result<(), Failure> {
    let call = request("POST", &format!("/call/{NOOP}"), address, "content-type: application/json\r\n", b"null");
    let until = Instant::now() + REGISTER_WITHIN;
    loop {
        let mut connection = HttpConnection::open(address).await?;
        match connection.exchange(&call).await {
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            result => return result,
        }
    }
}
