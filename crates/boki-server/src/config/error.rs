//! What is wrong with a configuration, said so that it can be put right without looking anything up.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's word for it.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key or value that is not allowed.
    #[error("{place}{}: {reason}{}", key_suffix(.key), quoted(.source_line))]
    InFile {
        /// File and line, `boki.toml:3`.
        place: String,
        /// The key, with its section, where one is known.
        key: Option<String>,
        /// What is wrong, and what is allowed.
        reason: String,
        /// The line itself.
        source_line: String,
    },
    /// An environment variable names no setting, or has a value that is not allowed.
    #[error("environment variable {variable}={value}: {reason}")]
    InEnvironment {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// A value does not fit with the others.
    #[error("{place}{key}: {reason}")]
    Value {
        /// Where it was set, followed by a colon; empty if nowhere.
        place: String,
        /// The key, with its section.
        key: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// A data key cannot be used. Its text is shown nowhere.
    #[error("{variable}: {reason}")]
    DataKey {
        /// The variable, or the file that it names.
        variable: String,
        /// What is wrong.
        reason: String,
    },
    /// An address that others can reach, though nothing asks callers who they are.
    #[error("server.listen: {listen} can be reached from other machines, and nothing asks callers who they are")]
    Insecure {
        /// The address.
        listen: SocketAddr,
    },
}

impl ConfigError {
    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ConfigError::Unreadable { .. } => "BK0520",
            ConfigError::InFile { .. } | ConfigError::InEnvironment { .. } | ConfigError::Value { .. } => "BK0521",
            ConfigError::Insecure { .. } => "BK0522",
            ConfigError::DataKey { .. } => "BK0333",
        }
    }

    /// The next command to run.
    #[must_use]
    pub fn next(&self) -> &'static str {
        match self {
            ConfigError::Unreadable { .. } => "boki server --config PATH",
            ConfigError::DataKey { .. } => "boki key new",
            ConfigError::Insecure { .. } => {
                "boki server --listen 127.0.0.1:2654, or add --insecure if the network is trusted"
            }
            _ => "boki config schema",
        }
    }

    pub(super) fn value(key: &str, reason: &str) -> ConfigError {
        ConfigError::Value { place: String::new(), key: key.to_owned(), reason: reason.to_owned() }
    }

    /// A [`ConfigError::Value`] that also says which variable or line set the key.
    pub(super) fn value_in(
        file: &str,
        text: &str,
        variables: &[(String, String)],
        key: String,
        reason: String,
    ) -> ConfigError {
        let variable = format!("BOKI_{}", key.to_ascii_uppercase().replace('.', "__"));
        let place = if variables.iter().any(|(name, _)| name.eq_ignore_ascii_case(&variable)) {
            format!("environment variable {variable}: ")
        } else {
            line_of(text, &key).map_or_else(String::new, |line| format!("{file}:{line}: "))
        };
        ConfigError::Value { place, key, reason }
    }

    /// Of an error that the TOML reader found in `text`.
    pub(super) fn in_file(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count();
        let source_line = text.lines().nth(line).unwrap_or_default().trim_end().to_owned();
        ConfigError::InFile {
            place: format!("{file}:{}", line + 1),
            key: key_at(text, line),
            reason: error.message().trim_end().replace('\n', "; "),
            source_line,
        }
    }
}

fn key_suffix(key: &Option<String>) -> String {
    key.as_ref().map_or_else(String::new, |key| format!(": {key}"))
}

fn quoted(line: &str) -> String {
    let mut out = String::new();
    if !line.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n    {line}");
    }
    out
}

/// The section that a line of TOML opens, if it does.
fn section_of(line: &str) -> Option<&str> {
    let name = line.trim().strip_prefix('[')?;
    Some(name.split(']').next().unwrap_or(name).trim_start_matches('[').trim())
}

/// The key that a line of TOML sets, if it does.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    (!key.is_empty() && !key.starts_with('#')).then_some(key)
}

/// The key, with its section, at line number `at` (from 0).
fn key_at(text: &str, at: usize) -> Option<String> {
    let mut section = "";
    for (number, line) in text.lines().enumerate().take(at + 1) {
        if let Some(name) = section_of(line) {
            section = name;
            if number == at {
                return Some(format!("[{section}]"));
            }
        } else if number == at {
            let key = key_of(line)?;
            return Some(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
        }
    }
    None
}

/// The line number (from 1) that sets `key`, given with its section.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (wanted_section, wanted_key) = key.split_once('.')?;
    let mut section = "";
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = section_of(line) {
            section = name;
        } else if section == wanted_section && key_of(line) == Some(wanted_key) {
            return Some(number + 1);
        }
    }
    None
}
