//! The server that is measured: a new process in a folder of its own, or one that runs already.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use boki_server::config::Durability;
use rustix::fs::statfs;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fairness::PLACES;
use super::http::{HttpConnection, request};
use super::latency::broken;
use super::process::{CpuClock, OwnProcess, children};
use super::worker::{NOOP, python_command};
use crate::cli::{BenchOptions, Language};
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
    folder: Option<TempDir>,
    address: String,
    /// From the start of the process to its first answer over HTTP.
    pub(crate) first_answer: Option<Duration>,
}

/// Which functions are to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    None,
    /// One worker, with the functions that are measured.
    Noop(Language),
    /// One worker with few places, whose function takes a while.
    Busy,
    /// So many functions, on as few workers as take them.
    Many(u32),
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was asked to.
    Stopped,
    /// As by a crash.
    Killed,
}

impl End {
    pub(crate) fn past(self) -> &'static str {
        match self {
            End::Stopped => "stopped",
            End::Killed => "killed",
        }
    }
}

/// How many functions one worker of many has; it could have 4096.
pub(crate) const FUNCTIONS_PER_WORKER: u32 = 2500;

/// Where files of a benchmark go.
pub(crate) fn folder(options: &BenchOptions) -> PathBuf {
    options.dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// Whether `folder` is memory: then nothing here is measured against a disk.
pub(crate) fn is_memory(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.f_type as u64 == TMPFS)
}

impl ServerUnderTest {
    pub(crate) async fn prepare(options: &BenchOptions, workers: Workers) -> Result<ServerUnderTest, Failure> {
        match &options.server {
            Some(address) => ServerUnderTest::existing(address, workers).await,
            None => ServerUnderTest::start(options, workers).await,
        }
    }

    async fn start(options: &BenchOptions, workers: Workers) -> Result<ServerUnderTest, Failure> {
        let within = folder(options);
        let cannot = |error| Failure::io(format!("cannot make a folder in {}", within.display()), &error);
        let folder = tempfile::Builder::new().prefix("boki-bench-").tempdir_in(&within).map_err(cannot)?;
        fs::write(config_file(folder.path()), config(folder.path(), options, workers)?).map_err(cannot)?;
        let (process, address, first_answer) = launch(folder.path()).await?;
        let (process, first_answer) = (Some(process), Some(first_answer));
        Ok(ServerUnderTest { process, _worker: None, folder: Some(folder), address, first_answer })
    }

    /// Ends the server, which must be ours, and starts it again with its data; returns how long its end took.
    pub(crate) async fn restart(&mut self, end: End) -> Result<Duration, Failure> {
        let (Some(process), Some(folder)) = (&mut self.process, &self.folder) else {
            return Err(Failure::input("only a server of the benchmark's own is started again", "leave out --server"));
        };
        let begun = Instant::now();
        let ended = match end {
            End::Stopped => process.stop(),
            End::Killed => process.kill(),
        };
        ended.map_err(|error| Failure::io("cannot end the server", &error))?;
        let took = begun.elapsed();
        let (process, address, first_answer) = launch(folder.path()).await?;
        self.process = Some(process);
        self.address = address;
        self.first_answer = Some(first_answer);
        Ok(took)
    }

    async fn existing(address: &str, workers: Workers) -> Result<ServerUnderTest, Failure> {
        let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/').to_owned();
        let worker = match workers {
            Workers::None => None,
            Workers::Noop(Language::Python) | Workers::Busy | Workers::Many(_) => {
                return Err(Failure::input(
                    "these workers are only started with a server of the benchmark's own",
                    "leave out --server",
                ));
            }
            Workers::Noop(Language::Rust) => {
                let process = OwnProcess::start("the worker", &["bench-worker"], &[("BOKI_URL", &address)])?;
                wait_for_noop(&address).await?;
                Some(process)
            }
        };
        Ok(ServerUnderTest { process: None, _worker: worker, folder: None, address, first_answer: None })
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

fn config_file(folder: &Path) -> PathBuf {
    folder.join("boki.toml")
}

/// Starts a server that is configured in `folder`; returns its address and how long it took to answer.
async fn launch(folder: &Path) -> Result<(OwnProcess, String, Duration), Failure> {
    let file = config_file(folder);
    let file = file.to_str().ok_or_else(|| broken("the folder's path is not UTF-8"))?;
    let mut process = OwnProcess::start("the server", &["--json", "server", "--config", file], &[])?;
    let ready: Value = serde_json::from_str(&process.line()?).unwrap_or_default();
    let address = ready["address"].as_str().ok_or_else(|| broken("the server does not say its address"))?.to_owned();
    let mut connection = HttpConnection::open(&address).await?;
    connection.exchange(&request("GET", "/healthz", &address, "", b"")).await?;
    let first_answer = process.started().elapsed();
    Ok((process, address, first_answer))
}

fn config(folder: &Path, options: &BenchOptions, workers: Workers) -> Result<String, Failure> {
    let binary = std::env::current_exe().map_err(|error| Failure::io("cannot find this program's own file", &error))?;
    let durability = match Durability::from(options.durability) {
        Durability::Fsync => "fsync",
        Durability::Memory => "memory",
    };
    let mut sections = json!({
        "server": { "listen": "127.0.0.1:0", "data": folder.join("data"), "durability": durability },
        "telemetry": { "level": "warn" },
    });
    let binary = crate::remote::shell_word(&binary.to_string_lossy());
    let commands = match workers {
        Workers::None => Vec::new(),
        Workers::Noop(Language::Rust) => vec![format!("exec {binary} bench-worker")],
        Workers::Noop(Language::Python) => {
            vec![python_command(folder).map_err(|error| Failure::io("cannot write the Python functions", &error))?]
        }
        Workers::Busy => vec![format!("exec {binary} bench-worker --places {PLACES}")],
        Workers::Many(functions) => (0..functions)
            .step_by(FUNCTIONS_PER_WORKER as usize)
            .map(|first| {
                let count = FUNCTIONS_PER_WORKER.min(functions - first);
                format!("exec {binary} bench-worker --first {first} --functions {count}")
            })
            .collect(),
    };
    if !commands.is_empty() {
        let workers = commands.iter().zip(1..);
        let workers = workers.map(|(command, number)| json!({ "name": format!("bench-{number}"), "command": command }));
        sections["worker"] = workers.collect();
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
