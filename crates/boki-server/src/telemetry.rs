//! The server's log lines, on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, TelemetrySection};

/// Log lines cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// `telemetry.level` is no filter.
    #[error("telemetry.level: {level:?} is not a level or a filter such as \"info,boki_server=debug\": {reason}")]
    Level {
        /// What is set.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process has set them up already.
    #[error("log lines are set up already")]
    AlreadySet,
}

impl TelemetryError {
    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "BK0521"
    }
}

/// Sends the log lines of this process to standard error, as configured. Once per process.
///
/// # Errors
/// [`TelemetryError`].
pub fn start_telemetry(config: &TelemetrySection) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.level)
        .map_err(|error| TelemetryError::Level { level: config.level.clone(), reason: error.to_string() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with_ansi(is_terminal).finish().try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|_| TelemetryError::AlreadySet)
}
