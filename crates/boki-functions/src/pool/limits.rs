//! By what the limits of a pool's processes hold: a control group where there can be one, else what the system limits for
//! each process by itself (rlimits). Decided when the pool is started.
//!
//! Files are always limited by an rlimit. Memory and threads are by one where there is no group; processor time cannot be.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use super::cgroup::{Allowance, Cgroups, Controller, Group};
use super::launch::{Resources, launch};

/// The server's groups, looked for when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Groups(OnceLock<Result<Arc<Cgroups>, Arc<str>>>);

impl Groups {
    fn get(&self, proc: &Path) -> Result<Arc<Cgroups>, Arc<str>> {
        let open = || match Cgroups::open(proc, std::process::id()) {
            Ok(groups) => Ok(Arc::new(groups)),
            Err(reason) => {
                tracing::info!(%reason, "no control groups for workers");
                Err(reason.into())
            }
        };
        self.0.get_or_init(open).clone()
    }
}

/// The limits of each process of a pool.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    wanted: Resources,
    groups: Result<Arc<Cgroups>, Arc<str>>,
}

impl Limits {
    pub(super) fn new(wanted: Resources, groups: &Groups, proc: &Path) -> Limits {
        let is_limited = wanted.memory.is_some() || wanted.cpu.is_some() || wanted.threads.is_some();
        let groups = if is_limited { groups.get(proc) } else { Err("".into()) };
        Limits { wanted, groups }
    }

    /// Why this is not limited by a group; `None`: it is.
    fn lacks(&self, controller: Controller) -> Option<&str> {
        match &self.groups {
            Ok(groups) => groups.lacks(controller),
            Err(reason) => Some(reason),
        }
    }

    fn means(&self, controller: Controller) -> &'static str {
        if self.lacks(controller).is_none() { "cgroup" } else { "rlimit" }
    }

    /// What holds, for people: `memory 256 MiB (cgroup), 1.5 cores, 100 open files`; empty: nothing is limited.
    pub(super) fn in_force(&self) -> String {
        let Resources { memory, cpu, open_files, threads } = self.wanted;
        let memory = memory.map(|bytes| format!("memory {} MiB ({})", bytes >> 20, self.means(Controller::Memory)));
        let cpu = cpu.filter(|_| self.lacks(Controller::Cpu).is_none()).map(cores);
        let files = open_files.map(|files| format!("{files} open files"));
        let threads = threads.map(|threads| format!("{threads} threads ({})", self.means(Controller::Pids)));
        [memory, cpu, files, threads].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// What does not hold, and why.
    pub(super) fn not_in_force(&self) -> Option<String> {
        let (cpu, reason) = (self.wanted.cpu?, self.lacks(Controller::Cpu)?);
        Some(format!("the limit of {} is not in force: {reason}", cores(cpu)))
    }

    /// A group for one process; `None`: a group would limit nothing.
    pub(super) fn group(&self) -> io::Result<Option<Group>> {
        let by_group = |controller| self.lacks(controller).is_none();
        let allowance = Allowance {
            memory: self.wanted.memory.filter(|_| by_group(Controller::Memory)),
            cpu: self.wanted.cpu.filter(|_| by_group(Controller::Cpu)),
            pids: self.wanted.threads.filter(|_| by_group(Controller::Pids)),
        };
        match &self.groups {
            Ok(groups) if allowance != Allowance::default() => groups.make(&allowance).map(Some),
            _ => Ok(None),
        }
    }

    /// `command`, run by the launcher if something is limited.
    pub(super) fn command(
        &self,
        launcher: Option<&Path>,
        group: Option<&Group>,
        command: &[String],
    ) -> io::Result<Command> {
        let Resources { memory, open_files, threads, .. } = self.wanted;
        let by_rlimit = Resources {
            memory: memory.filter(|_| self.lacks(Controller::Memory).is_some()),
            cpu: None,
            open_files,
            threads: threads.filter(|_| self.lacks(Controller::Pids).is_some()),
        };
        match (launcher, command.split_first()) {
            (_, None) => Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty")),
            (Some(launcher), _) if group.is_some() || !by_rlimit.is_empty() => {
                Ok(launch(launcher, group.map(Group::entrance).as_deref(), &by_rlimit, command))
            }
            (_, Some((program, arguments))) => {
                let mut command = Command::new(program);
                command.args(arguments);
                Ok(command)
            }
        }
    }

    /// What is said of a process that used more memory than it may.
    pub(super) fn out_of_memory(&self) -> String {
        let memory = self.wanted.memory.unwrap_or_default();
        format!("was killed because it used more than its memory of {} MiB", memory >> 20)
    }
}

fn cores(thousandths: u32) -> String {
    let cores = f64::from(thousandths) / 1000.0;
    format!("{cores} {}", if thousandths == 1000 { "core" } else { "cores" })
}
