//! What is run between the engine and a worker, and beside all workers. Both are run by the engine's own program.
//!
//! - The **launcher** enters a control group, sets limits for itself and then becomes the worker: so they hold from the worker's first instruction,
//!   for it and for all that it starts.
//! - The **guard** lives as long as the engine. The engine tells it which process groups there are; when the engine
//!   ends without having ended them, however it ends, the guard kills them. So no worker outlives a killed engine.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, setrlimit};
use tokio::net::unix::pipe;

use super::cgroup::enter;

/// The launcher's command, and that of the guard, as arguments of the engine's program.
const LAUNCH: &str = "worker-exec";
const GUARD: &str = "worker-guard";

/// What a worker process may use. What is not set is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes of memory in use, where the server can make control groups (cgroup v2); else of address space (`RLIMIT_AS`).
    pub memory: Option<u64>,
    /// Processor time, in thousandths of a core; holds only with control groups.
    pub cpu: Option<u32>,
    /// Files and sockets open at once (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Processes and threads, of the worker with control groups; else of its user in all (`RLIMIT_NPROC`), and not for root.
    pub threads: Option<u64>,
}

impl Resources {
    pub(super) fn is_empty(&self) -> bool {
        *self == Resources::default()
    }
}

/// `command`, run by the launcher in the group that is entered at `entrance`, and under these rlimits.
pub(super) fn launch(launcher: &Path, entrance: Option<&Path>, rlimits: &Resources, command: &[String]) -> Command {
    let mut launched = Command::new(launcher);
    launched.arg(LAUNCH);
    if let Some(entrance) = entrance {
        launched.arg("--cgroup").arg(entrance);
    }
    let Resources { memory, open_files, threads, .. } = *rlimits;
    for (name, limit) in [("--memory", memory), ("--open-files", open_files), ("--threads", threads)] {
        if let Some(limit) = limit {
            launched.arg(name).arg(limit.to_string());
        }
    }
    launched.arg("--").args(command);
    launched
}

/// The launcher: enters the control group at `entrance` and sets the rlimits, then this process becomes `command`. Returns only
/// if that fails.
#[must_use]
pub fn exec_limited(entrance: Option<&Path>, rlimits: &Resources, command: &[OsString]) -> io::Error {
    if let Some(entrance) = entrance
        && let Err(error) = enter(entrance)
    {
        return error;
    }
    let limits =
        [(Resource::As, rlimits.memory), (Resource::Nofile, rlimits.open_files), (Resource::Nproc, rlimits.threads)];
    for (resource, limit) in limits {
        if let Some(limit) = limit
            && let Err(error) = setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
        {
            return error.into();
        }
    }
    match command.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => io::Error::new(io::ErrorKind::InvalidInput, "there is no command"),
    }
}

/// The guard: hears on `input` which process groups begin (`+123`) and end (`-123`), and kills those that are left when it
/// ends.
///
/// # Errors
/// What reading says; those that were left are killed nevertheless.
pub fn guard_groups(input: impl BufRead) -> io::Result<()> {
    let mut groups = BTreeSet::new();
    let mut heard = Ok(());
    for line in input.lines() {
        match line.as_deref() {
            Ok(line) => {
                let group = line.get(1..).and_then(|number| Pid::from_raw(number.parse().ok()?));
                match (line.as_bytes().first(), group) {
                    (Some(b'+'), Some(group)) => groups.insert(group.as_raw_nonzero()),
                    (Some(b'-'), Some(group)) => groups.remove(&group.as_raw_nonzero()),
                    _ => false,
                };
            }
            Err(_) => heard = line.map(drop),
        }
        if heard.is_err() {
            break;
        }
    }
    for group in groups {
        if let Some(group) = Pid::from_raw(group.get()) {
            // One that has ended meanwhile is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    heard
}

/// The engine's end of the guard.
#[derive(Debug, Default)]
pub(super) struct Guard(Mutex<Option<File>>);

impl Guard {
    /// A process group has begun.
    pub(super) fn add(&self, launcher: &Path, group: Pid) {
        let mut guard = self.0.lock();
        if guard.is_none() {
            match start_guard(launcher) {
                Ok(sender) => *guard = Some(sender),
                Err(error) => {
                    tracing::warn!(%error, "no guard: worker processes may outlive a server that is killed");
                    return;
                }
            }
        }
        tell(&mut guard, format_args!("+{}\n", group.as_raw_nonzero()));
    }

    /// A process group has ended.
    pub(super) fn remove(&self, group: Pid) {
        tell(&mut self.0.lock(), format_args!("-{}\n", group.as_raw_nonzero()));
    }
}

fn tell(guard: &mut Option<File>, line: std::fmt::Arguments<'_>) {
    let Some(sender) = guard else { return };
    // The guard reads at once, and a line is far below what a pipe takes at a time. The pipe does not block. The runtime has no part
    // in it: it would not write before it has heard that the pipe is ready.
    if let Err(error) = sender.write_all(line.to_string().as_bytes()) {
        tracing::warn!(%error, "the guard of the worker processes is gone; another one is started with the next");
        *guard = None;
    }
}

fn start_guard(launcher: &Path) -> io::Result<File> {
    let (sender, receiver) = pipe::pipe()?;
    let sender = File::from(sender.into_nonblocking_fd()?);
    let mut command = Command::new(launcher);
    command.arg(GUARD).stdin(receiver.into_blocking_fd()?).stdout(Stdio::null());
    // In a group of its own, it is not ended with the engine by a ctrl-c.
    let mut child = command.process_group(0).spawn()?;
    // It ends when the engine does: until then somebody has to wait for it, or it stays a zombie.
    std::thread::Builder::new().name("worker-guard".into()).spawn(move || child.wait())?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    }

    #[test]
    fn the_guard_kills_what_is_left_and_nothing_else() {
        let (mut left, mut ended) = (sleeper(), sleeper());
        let heard = format!("+{}\nnonsense\n+{}\n+0\n-{}\n", left.id(), ended.id(), ended.id());
        guard_groups(heard.as_bytes()).unwrap();
        assert!(!left.wait().unwrap().success());
        assert!(ended.try_wait().unwrap().is_none());
        ended.kill().unwrap();
        ended.wait().unwrap();
    }

    #[tokio::test]
    async fn the_guard_hears_of_a_process_at_once() {
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/launcher.sh");
        let guard = Guard::default();
        // Nothing is awaited: the runtime knows nothing of the pipe as yet.
        guard.add(&launcher, Pid::from_raw(i32::MAX).unwrap());
        assert!(guard.0.lock().is_some());
    }

    #[test]
    fn limits_are_told_to_the_launcher() {
        let told = |entrance: Option<&Path>, limits: &Resources| {
            let command = launch(Path::new("/bin/boki"), entrance, limits, &["a".into(), "--b".into()]);
            command.get_args().map(|argument| argument.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let limits = Resources { memory: Some(256 << 20), threads: Some(9), ..Resources::default() };
        assert_eq!(told(None, &limits), ["worker-exec", "--memory", "268435456", "--threads", "9", "--", "a", "--b"]);
        let entered = told(Some(Path::new("/g/cgroup.procs")), &Resources::default());
        assert_eq!(entered, ["worker-exec", "--cgroup", "/g/cgroup.procs", "--", "a", "--b"]);
        assert!(Resources::default().is_empty());
    }
}
