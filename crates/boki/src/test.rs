//! `boki test`: runs a project's tests, which find this binary.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::cli::TestArgs;
use crate::failure::Failure;
use crate::settings::{self, Overrides};

/// Returns only if there is nothing to run: the tests take the place of this process.
pub(crate) fn run(args: &TestArgs) -> Result<(), Failure> {
    let config = settings::load(&args.file, &Overrides::default())?;
    let command = config.test.command.or_else(|| usual(Path::new(".")).map(str::to_owned));
    let Some(command) = command else {
        let what = "there is nothing to run: boki.toml has no `command` in [test], and the folder no Cargo.toml and no tests in Python";
        return Err(Failure::input(what, "set [test] command = \"...\" in boki.toml"));
    };
    let own = std::env::current_exe().map_err(|error| Failure::io("this binary has no path", &error))?;
    let mut shell = Command::new("/bin/sh");
    // The arguments are given on as they are, whatever is in them.
    shell.arg("-c").arg(format!("{command} \"$@\"")).arg("boki").args(&args.arguments).env("BOKI_BIN", own);
    Err(Failure::io(format!("cannot run {command}"), &shell.exec()))
}

/// What one runs in such a folder, if nothing is said.
fn usual(folder: &Path) -> Option<&'static str> {
    let has = |name: &str| folder.join(name).exists();
    if has("Cargo.toml") {
        return Some("cargo test");
    }
    if has(".venv/bin/pytest") {
        return Some(".venv/bin/pytest");
    }
    let is_python = has("pyproject.toml") || has("requirements.txt") || has("pytest.ini");
    is_python.then_some("pytest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_says_what_its_tests_are() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(usual(folder.path()), None);
        std::fs::write(folder.path().join("requirements.txt"), "").unwrap();
        assert_eq!(usual(folder.path()), Some("pytest"));
        std::fs::create_dir_all(folder.path().join(".venv/bin")).unwrap();
        std::fs::write(folder.path().join(".venv/bin/pytest"), "").unwrap();
        assert_eq!(usual(folder.path()), Some(".venv/bin/pytest"));
        std::fs::write(folder.path().join("Cargo.toml"), "").unwrap();
        assert_eq!(usual(folder.path()), Some("cargo test"));
    }
}
