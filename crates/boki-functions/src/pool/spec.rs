//! What a pool is to be, what it is now, and why it may not be.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::launch::Resources;

/// A pool of worker processes to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// What a human calls it, and its processes.
    pub name: String,
    /// Of the code, told to the processes as `BOKI_VERSION`; may be empty.
    pub version: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where the processes find the engine, told as `BOKI_URL`.
    pub url: String,
    /// What else is in their environment.
    pub env: Environment,
    /// Where they run; `None`: where the engine does.
    pub dir: Option<PathBuf>,
    /// How many processes there are at least. With 0, the pool sleeps while nothing calls its functions.
    pub min: usize,
    /// How many there are at most.
    pub max: usize,
    /// A process that has had no call for so long ends, if it is not among the `min`.
    pub idle_after: Duration,
    /// Calls that a process takes at once, if that is less than what it says itself.
    pub concurrency: Option<u32>,
    /// A process that has not registered after so long is ended, and counts as failed.
    pub start_timeout: Duration,
    /// A process that is asked to end may finish its calls for so long.
    pub drain_grace: Duration,
    /// A process that has been given so many calls is replaced.
    pub max_calls: Option<u64>,
    /// A process that is so old is replaced.
    pub max_age: Option<Duration>,
    /// What each process may use.
    pub resources: Resources,
    /// Its processes start and register, but take no calls before [`release_pool`](crate::Functions::release_pool).
    pub held: bool,
}

impl PoolSpec {
    /// One process of `command` all the time, and nothing else set.
    #[must_use]
    pub fn new(name: impl Into<String>, command: Vec<String>, url: impl Into<String>) -> PoolSpec {
        PoolSpec {
            name: name.into(),
            version: String::new(),
            command,
            url: url.into(),
            env: Environment::default(),
            dir: None,
            min: 1,
            max: 1,
            idle_after: Duration::from_secs(60),
            concurrency: None,
            start_timeout: Duration::from_secs(30),
            drain_grace: Duration::from_secs(60),
            max_calls: None,
            max_age: None,
            resources: Resources::default(),
            held: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), PoolError> {
        let invalid = |reason| Err(PoolError::Invalid { pool: self.name.clone(), reason });
        if self.name.is_empty() || self.name.len() > 100 {
            return invalid("a name has 1 to 100 bytes");
        }
        if self.version.len() > 255 {
            return invalid("a version has at most 255 bytes");
        }
        if self.command.first().is_none_or(String::is_empty) {
            return invalid("there is no command");
        }
        if self.max == 0 || self.max > 1000 {
            return invalid("it has at most 1 to 1000 processes");
        }
        if self.min > self.max {
            return invalid("it has more processes at least than at most");
        }
        if self.concurrency == Some(0) {
            return invalid("its processes take no call at once");
        }
        if self.max_calls == Some(0) {
            return invalid("its processes are given no call");
        }
        if self.start_timeout.is_zero() {
            return invalid("its processes have no time to start");
        }
        Ok(())
    }
}

/// The environment of a pool's processes, besides what the engine tells them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Everything that is in the engine's own; otherwise only what every program needs (`PATH`, `HOME`, `LANG`, ...).
    pub inherit: bool,
    /// Names of variables that are taken from the engine's own.
    pub secrets: Vec<String>,
    /// Names and values.
    pub set: Vec<(String, String)>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are nobody's business.
        let names: Vec<&String> = self.set.iter().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("Environment");
        shown.field("inherit", &self.inherit).field("secrets", &self.secrets).field("set", &names).finish()
    }
}

/// Which pool. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolId(pub(super) u64);

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool:{}", self.0)
    }
}

/// Why a pool is not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// It cannot be as it is asked for.
    #[error("worker pool {pool:?} cannot be started: {reason}")]
    Invalid {
        /// Its name.
        pool: String,
        /// Why.
        reason: &'static str,
    },
    /// A variable that its processes are to have is not in the engine's environment.
    #[error("worker pool {pool:?} cannot be started: the server's environment has no variable {variable}")]
    NoSecret {
        /// Its name.
        pool: String,
        /// Which variable.
        variable: String,
    },
    /// The engine stops.
    #[error("worker pool {pool:?} cannot be started: the engine is shutting down")]
    ShuttingDown {
        /// Its name.
        pool: String,
    },
}

impl PoolError {
    /// Every code of this type, each with a page in `docs/errors/`.
    pub const CODES: &[&str] = &["BK0410", "BK0431", "BK0432"];

    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            PoolError::ShuttingDown { .. } => "BK0410",
            PoolError::Invalid { .. } => "BK0431",
            PoolError::NoSecret { .. } => "BK0432",
        }
    }
}

/// Why a pool does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFailure {
    /// Its name.
    pub pool: Arc<str>,
    /// What happened to its latest process: "exited with status 3".
    pub reason: Arc<str>,
    /// The last lines that that process printed.
    pub lines: Vec<Arc<str>>,
}

impl fmt::Display for PoolFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker pool {:?} does not start: its process {}", self.pool, self.reason)?;
        match self.lines.last() {
            Some(line) => write!(f, "; the last it said is {line:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PoolFailure {}

/// How a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolState {
    /// None of its processes has registered yet.
    Starting,
    /// A process of it serves.
    Serving,
    /// It has no process, and starts one when it is called.
    Asleep,
    /// It tries to start processes in vain.
    Failing,
    /// It starts no more processes; those that it has finish what they have.
    Draining,
}

impl PoolState {
    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PoolState::Starting => "starting",
            PoolState::Serving => "serving",
            PoolState::Asleep => "asleep",
            PoolState::Failing => "failing",
            PoolState::Draining => "draining",
        }
    }
}

/// A pool, as it is now.
#[derive(Clone, Debug)]
pub struct PoolInfo {
    /// Which.
    pub id: PoolId,
    /// What a human calls it.
    pub name: Arc<str>,
    /// Of the code; may be empty.
    pub version: Arc<str>,
    /// How it is.
    pub state: PoolState,
    /// See [`PoolSpec::min`].
    pub min: usize,
    /// See [`PoolSpec::max`].
    pub max: usize,
    /// Its processes, those that end too.
    pub processes: Vec<ProcessInfo>,
    /// What it offers, as far as that is known.
    pub functions: Vec<Arc<str>>,
    /// What each of its processes may use, as far as it is in force, and by what: `memory 256 MiB (cgroup), 1.5 cores`.
    pub limits: String,
    /// Which limit is not in force, and why.
    pub limits_not_in_force: Option<String>,
    /// Calls that wait for its functions.
    pub waiting: usize,
    /// What became of the latest process that ended without having been asked to.
    pub last_failure: Option<Arc<PoolFailure>>,
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessState {
    /// It has not registered, or has to again.
    Starting,
    /// It takes calls.
    Serving,
    /// It takes no more calls.
    Leaving,
}

impl ProcessState {
    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessState::Starting => "starting",
            ProcessState::Serving => "serving",
            ProcessState::Leaving => "leaving",
        }
    }
}

/// A process of a pool, as it is now.
#[derive(Clone, Debug)]
pub struct ProcessInfo {
    /// What its lines in the log say.
    pub name: Arc<str>,
    /// As the system knows it; `None`: it has ended.
    pub pid: Option<u32>,
    /// How it is.
    pub state: ProcessState,
    /// How long ago it was started.
    pub age: Duration,
    /// Calls that it has now.
    pub running: usize,
    /// Calls that it has been given in all.
    pub given: u64,
}
