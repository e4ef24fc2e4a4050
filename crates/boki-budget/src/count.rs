//! Counting: this program runs itself under valgrind.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::load::{Load, OPERATIONS_PER_ROUND};

/// Rounds of the shorter and the longer run of a load. Before the shorter one ends, everything has been used and buffers
/// have grown.
const ROUNDS: [u32; 2] = [40, 140];

/// Why nothing could be counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CountError {
    #[error("valgrind cannot be started ({0}): apt-get install valgrind")]
    NoValgrind(io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the load {load} failed under valgrind:\n{text}")]
    Run { load: Load, text: String },
    #[error("valgrind does not say how many instructions {load} took:\n{text}")]
    NoCount { load: Load, text: String },
}

/// Instructions that one operation of `load` takes.
pub(crate) fn per_operation(load: Load) -> Result<u64, CountError> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("callgrind");
    let [short, long] = ROUNDS.map(|rounds| run(load, rounds, &file));
    let operations = u64::from((ROUNDS[1] - ROUNDS[0]) * OPERATIONS_PER_ROUND);
    Ok(long?.saturating_sub(short?) / operations)
}

/// Counts, and keeps the file that tells where the instructions are.
pub(crate) fn profile(load: Load) -> Result<PathBuf, CountError> {
    let file = env::temp_dir().join(format!("callgrind.out.{load}"));
    run(load, ROUNDS[1], &file)?;
    Ok(file)
}

/// Instructions of the whole process.
fn run(load: Load, rounds: u32, file: &Path) -> Result<u64, CountError> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--fair-sched=yes"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe()?)
        .args(["run", &load.to_string(), &rounds.to_string()])
        .output()
        .map_err(CountError::NoValgrind)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(CountError::Run { load, text });
    }
    counted(&text).ok_or(CountError::NoCount { load, text })
}

/// The number in the line `==1234== Collected : 5678`.
fn counted(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_what_valgrind_says() {
        let text = "==9== Events    : Ir\n==9== Collected : 123456\n==9== \n==9== I   refs:      123,456\n";
        assert_eq!(counted(text), Some(123_456));
        assert_eq!(counted("==9== Events    : Ir\n"), None);
    }
}
