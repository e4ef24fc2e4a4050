//! What a version consists of besides its files: the workers and the build that the app's own `boki.toml` names.

use std::path::{Component, Path};
use std::time::Duration;

use super::error::DeployError;
use crate::config::{Config, DeploySection, WorkerSection};

/// Longest name of an app, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The file of a package that says what to run.
pub const APP_FILE: &str = "boki.toml";

/// How to run a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) workers: Vec<WorkerSection>,
    pub(crate) build: Option<String>,
    pub(crate) build_timeout: Duration,
    pub(crate) start_timeout: Duration,
}

impl Manifest {
    /// The manifest of `app` in the folder `files`.
    pub(crate) fn read(app: &str, files: &Path) -> Result<Manifest, DeployError> {
        let text = std::fs::read_to_string(files.join(APP_FILE))
            .map_err(|error| DeployError::Package(format!("its {APP_FILE} cannot be read: {error}")))?;
        Manifest::from_text(app, &text).map_err(DeployError::Package)
    }

    /// Of the text of a `boki.toml`. What it says about a server is not looked at.
    pub(crate) fn from_text(app: &str, text: &str) -> Result<Manifest, String> {
        let config: Config = Config::parse(APP_FILE, text).map_err(|error| error.to_string())?;
        let DeploySection { command, build, build_timeout, start_timeout, .. } = config.deploy;
        let workers = match command {
            Some(command) => vec![WorkerSection::of_command(app, &command)],
            None => config.worker,
        };
        if workers.is_empty() {
            return Err(format!("its {APP_FILE} has no command in [deploy], and no [[worker]]"));
        }
        let workers_only = Config { worker: workers, ..Config::default() };
        workers_only.check().map_err(|error| format!("in its {APP_FILE}, {error}"))?;
        let workers = workers_only.worker;
        for worker in &workers {
            let within =
                |dir: &Path| dir.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if worker.dir.as_deref().is_some_and(|dir| !within(dir)) {
                return Err(format!("in its {APP_FILE}, worker.dir of {:?} is not a folder of the app", worker.name));
            }
        }
        Ok(Manifest { workers, build, build_timeout: build_timeout.0, start_timeout: start_timeout.0 })
    }
}

/// That `app` can be an app's name, which is also that of a folder and part of those of its workers.
///
/// # Errors
/// Why not.
pub fn check_app_name(app: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !app.is_empty() && app.len() <= MAX_NAME_BYTES && app.bytes().all(plain) {
        return Ok(());
    }
    Err(format!("{app:?} cannot be the name of an app: it has 1 to {MAX_NAME_BYTES} letters, digits, '-' and '_'"))
}

/// That the text of a `boki.toml` says how to run `app`.
///
/// # Errors
/// Why not.
pub fn check_app(app: &str, text: &str) -> Result<(), String> {
    check_app_name(app)?;
    Manifest::from_text(app, text).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_is_one_worker() {
        let text = "[deploy]\ncommand = \"./run\"\nbuild = \"make\"\n[server]\nlisten = \"0.0.0.0:80\"\n";
        let manifest = Manifest::from_text("shop", text).unwrap();
        assert_eq!(manifest.build.as_deref(), Some("make"));
        assert_eq!((manifest.workers[0].name.as_str(), manifest.workers[0].command.as_str()), ("shop", "./run"));
    }

    #[test]
    fn workers_are_those_of_a_server() {
        let text =
            "[[worker]]\nname = \"a\"\ncommand = \"./a\"\n[[worker]]\nname = \"b\"\ncommand = \"./b\"\ndir = \"sub\"\n";
        let manifest = Manifest::from_text("shop", text).unwrap();
        assert_eq!(manifest.workers.len(), 2);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for (text, part) in [
            ("", "no command in [deploy]"),
            ("[deploy]\ncommand = \" \"\n", "worker.command"),
            ("[deploy]\ncomand = \"x\"\n", "comand"),
            ("[[worker]]\nname = \"a\"\ncommand = \"x\"\ndir = \"../other\"\n", "not a folder of the app"),
            ("[[worker]]\nname = \"a\"\ncommand = \"x\"\ndir = \"/\"\n", "not a folder of the app"),
            ("[[worker]]\nname = \"a\"\ncommand = \"x\"\n[[worker]]\nname = \"a\"\ncommand = \"x\"\n", "same name"),
        ] {
            let error = Manifest::from_text("shop", text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        for name in ["", "a/b", "..", "ä", &"x".repeat(65)] {
            assert!(check_app_name(name).is_err(), "{name}");
        }
        assert!(check_app_name("my-shop_2").is_ok());
    }
}
