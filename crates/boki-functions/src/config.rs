//! Settings.

use std::path::PathBuf;
use std::time::Duration;

use crate::flood::LogRate;
use crate::limits::LimitRule;

/// Bounds and defaults for calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionsConfig {
    /// Most calls that may wait for a worker, per function; those on record not counted.
    pub queue_calls: usize,
    /// Most calls that may be on record without a result.
    pub backlog_calls: usize,
    /// Most bytes of input of all calls that wait.
    pub queue_bytes: usize,
    /// Largest input and output of a call that is given to a function, or taken from it, as a whole, in bytes.
    pub payload_bytes: usize,
    /// Inputs and outputs of calls on record that have more bytes lie beside the log.
    pub inline_bytes: usize,
    /// Largest of those, in bytes.
    pub blob_bytes: u64,
    /// How long a call may take, where neither caller nor function says.
    pub timeout: Duration,
    /// How often a call is tried at most, where the function does not say.
    pub max_attempts: u32,
    /// Pause before the second attempt of a call whose function failed and said that trying again may
    /// help; doubles with every further one, up to `retry_pause_max`.
    pub retry_pause: Duration,
    /// See `retry_pause`.
    pub retry_pause_max: Duration,
    /// How long the record of a finished call is kept.
    pub retention: Duration,
    /// How long calls wait for a function whose last worker was lost.
    pub reconnect_grace: Duration,
    /// Pause before a worker process that ended is started again; doubles each time, up to `restart_pause_max`.
    pub restart_pause: Duration,
    /// See `restart_pause`.
    pub restart_pause_max: Duration,
    /// A worker process that lived so long was sound: the pause begins at its shortest again.
    pub healthy_after: Duration,
    /// How long a worker process that was asked to end (SIGTERM) may take before it is killed (SIGKILL).
    pub kill_after: Duration,
    /// A worker that has not answered a call so long after it was given up takes no more calls: a process of a pool
    /// is ended, another one is disconnected.
    pub cancel_grace: Duration,
    /// The program that runs this engine, if it knows the commands `worker-exec` and `worker-guard`: without it, the
    /// resources of workers cannot be limited, and they outlive an engine that is killed.
    pub launcher: Option<PathBuf>,
    /// Where the system tells of its processes, control groups and mounts.
    pub proc: PathBuf,
    /// How much one worker may log.
    pub log_rate: LogRate,
    /// Limits on calls that are in force from the start.
    pub limits: Vec<LimitRule>,
    /// How many levels deep functions may call functions; at least 1.
    pub max_depth: u8,
    /// Most workers that may be connected.
    pub workers: usize,
    /// How many lines that workers logged are kept in memory.
    pub log_lines: usize,
}

impl Default for FunctionsConfig {
    fn default() -> FunctionsConfig {
        FunctionsConfig {
            queue_calls: 10_000,
            backlog_calls: 10_000_000,
            queue_bytes: 256 << 20,
            payload_bytes: 8 << 20,
            inline_bytes: 64 << 10,
            blob_bytes: 1 << 30,
            timeout: Duration::from_secs(60),
            max_attempts: 3,
            retry_pause: Duration::from_millis(100),
            retry_pause_max: Duration::from_secs(10),
            retention: Duration::from_secs(24 * 3600),
            reconnect_grace: Duration::from_secs(10),
            restart_pause: Duration::from_millis(100),
            restart_pause_max: Duration::from_secs(10),
            healthy_after: Duration::from_secs(10),
            kill_after: Duration::from_secs(5),
            cancel_grace: Duration::from_secs(10),
            launcher: None,
            proc: "/proc".into(),
            log_rate: LogRate { lines: 1000, bytes: 1 << 20 },
            limits: Vec::new(),
            max_depth: 16,
            workers: 1024,
            log_lines: 10_000,
        }
    }
}
