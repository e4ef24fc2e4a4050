//! From a `[[worker]]` section to a pool of processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use boki_functions::{Environment, PoolSpec, Resources};

use crate::config::WorkerSection;

/// A file of environment variables that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvFileError {
    /// It cannot be read.
    #[error("cannot read the environment file {}: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's word for it.
        source: std::io::Error,
    },
    /// A line is not `NAME=VALUE`. What it is stays untold: it may be a secret.
    #[error("line {line} of the environment file {} is not NAME=VALUE", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

impl EnvFileError {
    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "BK0433"
    }
}

/// The pool that a section asks for. Its processes find the server at `url`.
///
/// # Errors
/// [`EnvFileError`].
pub fn pool_spec(worker: &WorkerSection, url: &str) -> Result<PoolSpec, EnvFileError> {
    let mut set = match &worker.env_file {
        Some(file) => read_env_file(file)?,
        None => Vec::new(),
    };
    set.extend(worker.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    let usual = PoolSpec::new(&worker.name, shell_command(&worker.command), url);
    let span = |span: Option<crate::config::Span>, usual: Duration| span.map_or(usual, |span| span.0);
    Ok(PoolSpec {
        env: Environment { inherit: worker.inherit_env, secrets: worker.secrets.clone(), set },
        dir: worker.dir.clone(),
        min: worker.least() as usize,
        max: worker.most() as usize,
        idle_after: span(worker.idle_after, usual.idle_after),
        concurrency: worker.concurrency,
        start_timeout: span(worker.start_timeout, usual.start_timeout),
        drain_grace: span(worker.drain_grace, usual.drain_grace),
        max_calls: worker.max_calls,
        max_age: worker.max_age.map(|age| age.0),
        resources: Resources {
            memory: worker.memory.map(|size| size.0),
            cpu: worker.cpu.map(|cores| cores.0),
            open_files: worker.open_files,
            threads: worker.threads,
        },
        ..usual
    })
}

/// How to run `command` as for a shell, whatever it consists of. The shell stays until the command has ended, also when it is
/// asked to end itself: it must not take away the time that the command has for that.
#[must_use]
pub fn shell_command(command: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("trap : TERM INT\n{command}")]
}

fn read_env_file(file: &Path) -> Result<Vec<(String, String)>, EnvFileError> {
    let text =
        std::fs::read_to_string(file).map_err(|source| EnvFileError::Unreadable { file: file.to_owned(), source })?;
    parse_env(&text).map_err(|line| EnvFileError::Line { file: file.to_owned(), line })
}

/// `NAME=VALUE` lines; empty ones and those that begin with `#` are skipped, quotes around a value are taken off. An error is
/// the number of the line.
fn parse_env(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let name = name.trim();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) || value.contains('\0') {
            return Err(index + 1);
        }
        let value = value.trim();
        let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = inside('"').or_else(|| inside('\'')).unwrap_or(value);
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_line_by_line() {
        let text = "# comment\n\nA=1\nexport B = two words \nC=\"x=y\"\nD='#'\nE=\n";
        let expected = [("A", "1"), ("B", "two words"), ("C", "x=y"), ("D", "#"), ("E", "")];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(parse_env(text), Ok(expected));
        assert_eq!(parse_env("A=1\nsecret\n"), Err(2));
        assert_eq!(parse_env("A B=1"), Err(1));
        let error = read_env_file(Path::new("/nowhere/at-all")).unwrap_err();
        assert_eq!(error.code(), "BK0433");
    }

    #[test]
    fn a_section_says_how_many_processes_there_are() {
        let counts = |text: &str| {
            let worker: WorkerSection = toml::from_str(&format!("name = 'w'\ncommand = 'x'\n{text}")).unwrap();
            let spec = pool_spec(&worker, "here").unwrap();
            (spec.min, spec.max)
        };
        assert_eq!(counts(""), (1, 1));
        assert_eq!(counts("processes = 3"), (3, 3));
        assert_eq!(counts("max = 8"), (1, 8));
        assert_eq!(counts("min = 0"), (0, 1));
        assert_eq!(counts("min = 2"), (2, 2));
        assert_eq!(counts("min = 0\nmax = 4"), (0, 4));
        assert_eq!(counts("processes = 2\nmax = 4"), (2, 4));
    }
}
