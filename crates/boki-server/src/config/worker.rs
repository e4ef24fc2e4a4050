//! `[[worker]]`: processes that the server runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Cores, Size, Span};

/// Worker processes that the server starts, watches and restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerSection {
    /// Its name, in logs and listings; each worker has its own.
    pub name: String,
    /// The command, as for a shell: "./app", "python app.py".
    pub command: String,
    /// Environment variables; of the server's own, only what every program needs is passed on.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A file with further ones, a line NAME=VALUE each; those in `env` win.
    #[serde(default)]
    pub env_file: Option<PathBuf>,
    /// Names of variables of the server's environment that are passed on; each must be set.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Pass on the server's whole environment.
    #[serde(default)]
    pub inherit_env: bool,
    /// The folder it runs in; the server's own unless set.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// How many processes of it run, if `min` and `max` do not say; 1 unless set.
    #[serde(default)]
    pub processes: Option<u32>,
    /// How many processes run at least; with 0, none runs while nothing is called.
    #[serde(default)]
    pub min: Option<u32>,
    /// How many processes run at most; further ones are started when calls wait.
    #[serde(default)]
    pub max: Option<u32>,
    /// A process without calls for so long ends, if it is not among the `min`; "1m" unless set.
    #[serde(default)]
    pub idle_after: Option<Span>,
    /// Calls that a process takes at once, if that is less than what it says itself.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// How long a process may take to start; "30s" unless set.
    #[serde(default)]
    pub start_timeout: Option<Span>,
    /// How long a process that is to end may go on with its calls; "1m" unless set.
    #[serde(default)]
    pub drain_grace: Option<Span>,
    /// A process that was given so many calls is replaced.
    #[serde(default)]
    pub max_calls: Option<u64>,
    /// A process that is so old is replaced.
    #[serde(default)]
    pub max_age: Option<Span>,
    /// Memory that a process may use: it is killed when it uses more. Without cgroup v2: its address space.
    #[serde(default)]
    pub memory: Option<Size>,
    /// Cores that a process may use: 0.5, 2. Only with cgroup v2.
    #[serde(default)]
    pub cpu: Option<Cores>,
    /// Files and sockets that a process may have open.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// Processes and threads that a process may have. Without cgroup v2: that its user may have in all (not for root).
    #[serde(default)]
    pub threads: Option<u64>,
}

impl WorkerSection {
    /// One process of `command`, and nothing else set.
    pub(crate) fn of_command(name: &str, command: &str) -> WorkerSection {
        WorkerSection { name: name.to_owned(), command: command.to_owned(), ..WorkerSection::default() }
    }

    /// How many processes run at least.
    #[must_use]
    pub fn least(&self) -> u32 {
        let processes = self.processes.unwrap_or(1);
        self.min.unwrap_or_else(|| self.max.map_or(processes, |max| max.min(processes)))
    }

    /// How many processes run at most.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.max.unwrap_or_else(|| self.processes.unwrap_or(1).max(self.least()))
    }

    /// What is wrong with it: the key and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let is_nothing = |span: Option<Span>| span.is_some_and(|span| span.0 == Duration::ZERO);
        let wrongs = [
            (self.name.is_empty() || self.name.len() > 100, "worker.name", "a name has 1 to 100 bytes"),
            (self.command.trim().is_empty(), "worker.command", "it is empty"),
            (self.processes == Some(0), "worker.processes", "it must be 1 to 1000"),
            (self.processes > Some(1000), "worker.processes", "it must be 1 to 1000"),
            (self.max == Some(0) || self.max > Some(1000), "worker.max", "it must be 1 to 1000"),
            (self.least() > self.most(), "worker.min", "it must not be above worker.max"),
            (self.most() > 1000, "worker.min", "it must be at most 1000"),
            (self.concurrency == Some(0), "worker.concurrency", "it must be at least 1"),
            (is_nothing(self.start_timeout), "worker.start_timeout", "it must be longer than nothing"),
            (self.max_calls == Some(0), "worker.max_calls", "it must be at least 1"),
            (is_nothing(self.max_age), "worker.max_age", "it must be longer than nothing"),
            (self.memory.is_some_and(|size| size.0 < 1 << 20), "worker.memory", "it must be at least 1MiB"),
            (self.open_files.is_some_and(|files| files < 16), "worker.open_files", "it must be at least 16"),
            (self.threads == Some(0), "worker.threads", "it must be at least 1"),
        ];
        wrongs.into_iter().find(|(is_wrong, ..)| *is_wrong).map_or(Ok(()), |(_, key, reason)| Err((key, reason)))
    }
}
