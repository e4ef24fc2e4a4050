//! Why an app is not deployed, or a version not changed.

use std::fmt;

use boki_log::LogError;
use serde::{Deserialize, Serialize};

/// Why not. Each has a code with a page in `docs/errors/`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployError {
    /// Something else has to end first.
    #[error("{what} {reason}")]
    Busy {
        /// Which app or version.
        what: String,
        /// What is going on.
        reason: &'static str,
    },
    /// What was sent cannot become a version.
    #[error("the package cannot be used: {0}")]
    Package(String),
    /// The version did not come to serve. The one before goes on.
    #[error("version {version} of {app} is not active: {failure}")]
    Failed { app: String, version: u32, failure: Failure },
    /// The disk.
    #[error("the files of {app} cannot be kept: {source}")]
    NotKept { app: String, source: std::io::Error },
    /// There is no such app or version.
    #[error("there is no {what}")]
    NotFound { what: String },
    /// Whoever asks has no token, or a wrong one.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The log.
    #[error("which version is active could not be written to the log: {0}")]
    Log(#[from] LogError),
}

impl DeployError {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            DeployError::Busy { .. } => "BK0435",
            DeployError::Package(_) => "BK0436",
            DeployError::Failed { .. } | DeployError::NotKept { .. } => "BK0437",
            DeployError::NotFound { .. } => "BK0438",
            DeployError::Unauthorized(_) => "BK0439",
            DeployError::Log(error) => error.code(),
        }
    }

    pub(crate) fn no_app(app: &str) -> DeployError {
        DeployError::NotFound { what: format!("app {app:?}") }
    }

    pub(crate) fn no_version(app: &str, version: u32) -> DeployError {
        DeployError::NotFound { what: format!("version {version} of {app}") }
    }
}

/// Why a version does not serve. It is kept, so that it can be looked at later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) reason: String,
    /// The last lines that were printed.
    #[serde(default)]
    pub(crate) lines: Vec<String>,
}

impl Failure {
    pub(crate) fn new(stage: Stage, reason: impl fmt::Display) -> Failure {
        Failure { stage, reason: reason.to_string(), lines: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// How far a version came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    Build,
    Start,
    /// The switch to it could not be written to the log.
    Switch,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Stage::Build => "build",
            Stage::Start => "start",
            Stage::Switch => "switch",
        }
    }
}
