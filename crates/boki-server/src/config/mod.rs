//! `boki.toml`: what an operator can set, where it comes from, and what is wrong with it.
//!
//! A setting comes from its default, from the file, or from an environment variable `BOKI_SECTION__KEY`, the
//! later of these winning. Nothing here opens a file other than `boki.toml` and files of data keys, or starts anything. A
//! [`Config`] that [`Config::load`] returned has passed [`Config::check`].

mod data_keys;
mod error;
mod limit;
mod mounts;
mod retention;
mod sections;
mod units;
mod worker;

use std::path::{Path, PathBuf};

use boki_node::DataKeys;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use error::ConfigError;
pub use limit::LimitSection;
pub use mounts::{MountSection, RESERVED};
pub use retention::RetentionSection;
pub use sections::{
    CallsSection, Compression, DEFAULT_PORT, DeploySection, Dev, Durability, FunctionsSection, LimitsSection,
    LogFormat, LogSection, ServerSection, TelemetrySection, TestSection, VersionsSection,
};
pub use units::{Cores, Size, Span};
pub use worker::WorkerSection;

/// Prefix of the environment variables that are settings.
const ENV_PREFIX: &str = "BOKI_";

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What `boki dev` runs beside the server.
    pub dev: Dev,
    /// What `boki test` runs.
    pub test: TestSection,
    /// Where the server listens and what it promises.
    pub server: ServerSection,
    /// What is refused at the door.
    pub limits: LimitsSection,
    /// The log's files and memory.
    pub log: LogSection,
    /// The worker processes that the server runs, each under `[[worker]]`.
    pub worker: Vec<WorkerSection>,
    /// Paths below which functions answer HTTP requests, each under `[[mount]]`.
    pub mount: Vec<MountSection>,
    /// What the server does with apps that are deployed to it.
    pub versions: VersionsSection,
    /// How this app is deployed: read by `boki deploy` and by the server that it deploys to.
    pub deploy: DeploySection,
    /// How calls are queued, retried and remembered.
    pub functions: FunctionsSection,
    /// Limits on calls, each under `[[limit]]`.
    pub limit: Vec<LimitSection>,
    /// What is kept of books, each rule under `[[retention]]`.
    pub retention: Vec<RetentionSection>,
    /// Calls on record: how many, and how large.
    pub calls: CallsSection,
    /// What the server says about itself.
    pub telemetry: TelemetrySection,
    /// The keys of an encrypted data directory: secrets, which only the environment can give.
    #[serde(skip)]
    pub data_keys: Option<DataKeys>,
    /// No setting, but the program's own affair: see `FunctionsConfig::launcher`.
    #[serde(skip)]
    pub launcher: Option<PathBuf>,
}

impl Config {
    /// Reads `file` (without one, only defaults apply) and `env`, in which variables without the prefix
    /// `BOKI_`, or without `__` and not of data keys, are skipped.
    ///
    /// # Errors
    /// [`ConfigError`]: it says the file or variable, the line, the key, and what is allowed.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigError> {
        let (name, text) = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Unreadable { file: path.to_owned(), source })?;
                (path.display().to_string(), text)
            }
            None => (String::new(), String::new()),
        };
        Config::from_text(&name, &text, env)
    }

    /// As [`Config::load`], of a file's text; `name` is what errors call it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_text(
        name: &str,
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut config: Config = toml::from_str(text).map_err(|error| ConfigError::in_file(name, text, &error))?;
        let mut table: Table = toml::from_str(text).map_err(|error| ConfigError::in_file(name, text, &error))?;
        let (mut variables, others): (Vec<_>, Vec<_>) = env.into_iter().partition(|(key, _)| is_setting(key));
        let data_keys = data_keys::from_env(&others)?;
        variables.sort();
        for (variable, value) in &variables {
            config = override_one(&mut table, variable, value)?;
        }
        match config.check() {
            Err(ConfigError::Value { key, reason, .. }) => {
                Err(ConfigError::value_in(name, text, &variables, key, reason))
            }
            Err(other) => Err(other),
            Ok(()) => Ok(Config { data_keys, ..config }),
        }
    }

    /// Reads the text of a file, without the environment and without a look at how its values fit.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::in_file(name, text, &error))
    }

    /// That the values fit each other.
    ///
    /// # Errors
    /// [`ConfigError::Value`] or [`ConfigError::Insecure`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, reason: &str| Err(ConfigError::value(key, reason));
        let LimitsSection { record, batch, http_body, .. } = self.limits;
        for (key, zero) in [
            ("limits.record", record.0 == 0),
            ("limits.batch_records", self.limits.batch_records == 0),
            ("limits.waiting_reads", self.limits.waiting_reads == 0),
            ("limits.pending", self.limits.pending.0 == 0),
            ("limits.read_records", self.limits.read_records == 0),
            ("limits.read", self.limits.read.0 == 0),
            ("limits.connections", self.limits.connections == 0),
            ("limits.http_body", http_body.0 == 0),
            ("limits.stream_body", self.limits.stream_body.0 == 0),
            ("versions.keep", self.versions.keep == 0),
            ("versions.files", self.versions.files == 0),
            ("functions.queue", self.functions.queue == 0),
            ("functions.attempts", self.functions.attempts == 0),
            ("calls.backlog", self.calls.backlog == 0),
            ("calls.blob", self.calls.blob.0 == 0),
        ] {
            if zero {
                return refuse(key, "it must be at least 1");
            }
        }
        if batch <= record {
            return refuse("limits.batch", "it must be larger than limits.record, since a batch holds its records");
        }
        if batch > Size::mib(512) {
            return refuse("limits.batch", "it can be at most 512MiB");
        }
        if self.log.segment.0 < batch.0 + (1 << 20) {
            return refuse(
                "log.segment",
                "it must be at least 1MiB larger than limits.batch, since a batch lies in one segment",
            );
        }
        if self.log.index < Size::mib(16) {
            return refuse("log.index", "it must be at least 16MiB");
        }
        if self.log.segment > Size::mib(2048) {
            return refuse("log.segment", "it can be at most 2GiB");
        }
        for (key, span) in
            [("functions.timeout", self.functions.timeout), ("calls.cancel_grace", self.calls.cancel_grace)]
        {
            if span.0.is_zero() {
                return refuse(key, "it must be longer than nothing");
            }
        }
        for (at, worker) in self.worker.iter().enumerate() {
            if let Err((key, reason)) = worker.check() {
                return refuse(key, reason);
            }
            if self.worker.iter().take(at).any(|other| other.name == worker.name) {
                return refuse("worker.name", "two workers have the same name");
            }
        }
        self.check_limits()?;
        self.check_retention()?;
        if let Err((key, reason)) = mounts::check(&self.mount) {
            return refuse(key, &reason);
        }
        if !self.server.listen.ip().is_loopback() && !self.server.insecure {
            return Err(ConfigError::Insecure { listen: self.server.listen });
        }
        Ok(())
    }

    /// The JSON schema of `boki.toml`.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Config);
        schema.insert("title".to_owned(), "boki.toml".into());
        schema.to_value()
    }

    /// As a `boki.toml` that sets everything.
    ///
    /// # Errors
    /// [`toml::ser::Error`], if a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

fn is_setting(variable: &str) -> bool {
    variable.strip_prefix(ENV_PREFIX).is_some_and(|rest| rest.contains("__"))
}

/// Sets the one value that `variable` names in `table`, and reads the whole again. A value is taken as TOML
/// (`true`, `10`, `["a"]`) where that fits the key, else as text.
fn override_one(table: &mut Table, variable: &str, value: &str) -> Result<Config, ConfigError> {
    let invalid = |reason: &str| ConfigError::InEnvironment {
        variable: variable.to_owned(),
        value: value.to_owned(),
        reason: reason.to_owned(),
    };
    let path = variable.strip_prefix(ENV_PREFIX).unwrap_or(variable).to_ascii_lowercase();
    let Some((section, key)) = path.split_once("__") else { return Err(invalid("expected BOKI_SECTION__KEY")) };
    if section == "worker" || section == "limit" {
        return Err(invalid("workers and limits are set in the file only"));
    }
    if section == "retention" {
        return Err(invalid("retention is set in the file only"));
    }
    if section == "mount" {
        return Err(invalid("mounts are set in the file only"));
    }
    let as_toml = toml::from_str::<Table>(&format!("v = {value}")).ok().and_then(|mut table| table.remove("v"));
    let as_text = Some(Value::String(value.to_owned()));
    let mut reason = None;
    for candidate in [as_toml, as_text].into_iter().flatten() {
        let mut changed = table.clone();
        let entry = changed.entry(section).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inside) = entry else { return Err(invalid("it is not in a section")) };
        inside.insert(key.to_owned(), candidate);
        match changed.clone().try_into::<Config>() {
            Ok(config) => {
                *table = changed;
                return Ok(config);
            }
            Err(error) => reason = Some(error.message().to_owned()),
        }
    }
    Err(invalid(reason.as_deref().unwrap_or("it cannot be read")))
}

#[cfg(test)]
mod tests;
