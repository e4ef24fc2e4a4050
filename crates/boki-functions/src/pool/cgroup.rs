//! Control groups (cgroup v2) for worker processes: memory, processor time and processes are limited for a worker and all
//! that it starts, by what it uses and not by what it reserves.
//!
//! [`Cgroups`] is the place below the server's own group where the groups of workers are, found once; [`Group`] is that of one
//! process. Not here: what becomes of a pool whose limits cannot hold this way ([`limits`](super::limits)).
//!
//! Invariants:
//! - The system does not let a group have both processes and groups with limits. So the server moves itself, and what it has
//!   started, into a group `boki.server` below its own, but only if its group has nobody else's processes.
//! - A group is named `boki-<pid of the server>-<number>`. Numbers are never used again in a process, so a group that is there
//!   before the first number belongs to a server that is dead, and is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a server moves itself into.
const OWN_LEAF: &str = "boki.server";
const PREFIX: &str = "boki-";

/// Of processor time: what `cpu.max` counts in.
const CPU_PERIOD_US: u64 = 100_000;

/// How often it is tried to remove a group whose processes were killed and may not have ended yet,
const REMOVALS: u32 = 8;
/// and the first pause between; each is twice as long as the one before.
const REMOVAL_PAUSE: Duration = Duration::from_millis(2);

/// The last group of this process.
static LAST: AtomicU64 = AtomicU64::new(0);

/// What a group can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    const ALL: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Pids];

    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }
}

/// What one group allows; what is not set is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Bytes.
    pub(super) memory: Option<u64>,
    /// Thousandths of a core.
    pub(super) cpu: Option<u32>,
    /// Processes and threads.
    pub(super) pids: Option<u64>,
}

/// Where the groups of workers are.
#[derive(Debug)]
pub(super) struct Cgroups {
    base: PathBuf,
    server: u32,
    /// Controllers that cannot be used, and why.
    missing: BTreeMap<Controller, String>,
}

impl Cgroups {
    /// Finds the place for the groups of `server`, a process that `proc` (`/proc`) knows, moves the server out of the way, and
    /// removes what dead servers have left. An error says why there can be no groups.
    pub(super) fn open(proc: &Path, server: u32) -> Result<Cgroups, String> {
        let own = own_group(proc)?;
        let is_leaf = own.file_name().is_some_and(|name| name == OWN_LEAF);
        // A server of this process, or the one that started this one, has moved here before.
        let (base, is_moved) = match own.parent() {
            Some(parent) if is_leaf => (parent.to_owned(), true),
            _ => (own, false),
        };
        let present = words(&base.join("cgroup.controllers"))?;
        let mut missing = BTreeMap::new();
        for controller in Controller::ALL {
            if !present.contains(controller.name()) {
                missing.insert(controller, format!("{} has no {} controller", base.display(), controller.name()));
            }
        }
        if missing.len() == Controller::ALL.len() {
            return Err(format!("{} has neither a memory nor a cpu nor a pids controller", base.display()));
        }
        // The root of all groups is the only one without a type, and may have processes beside groups.
        if !is_moved && base.join("cgroup.type").exists() {
            move_away(proc, &base, server)?;
        }
        let enabled = words(&base.join("cgroup.subtree_control"))?;
        for controller in Controller::ALL {
            let name = controller.name();
            if missing.contains_key(&controller) || enabled.contains(name) {
                continue;
            }
            if let Err(error) = write(&base.join("cgroup.subtree_control"), format_args!("+{name}\n")) {
                let reason = format!("the {name} controller cannot be enabled in {}: {error}", base.display());
                missing.insert(controller, reason);
            }
        }
        if missing.len() == Controller::ALL.len() {
            return Err(missing.into_values().collect::<Vec<_>>().join("; "));
        }
        let groups = Cgroups { base, server, missing };
        groups.sweep(proc);
        // Whether a group can be made is known once one has been.
        groups.make(&Allowance::default()).map_err(|error| error.to_string())?.remove();
        Ok(groups)
    }

    /// Why this is not limited in groups; `None`: it is.
    pub(super) fn lacks(&self, controller: Controller) -> Option<&str> {
        self.missing.get(&controller).map(String::as_str)
    }

    /// A new group that allows this much. The controllers for that must be there.
    pub(super) fn make(&self, allowance: &Allowance) -> io::Result<Group> {
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let dir = self.base.join(format!("{PREFIX}{}-{number}", self.server));
        let made = |result: io::Result<()>| {
            let context = |error: io::Error| format!("cannot make the control group {}: {error}", dir.display());
            result.map_err(|error| io::Error::new(error.kind(), context(error)))
        };
        made(fs::create_dir(&dir))?;
        let group = Group { dir: dir.clone() };
        let set = group.allow(allowance);
        if set.is_err() {
            group.remove();
        }
        made(set)?;
        Ok(group)
    }

    /// Removes the groups of servers that are dead.
    fn sweep(&self, proc: &Path) {
        let Ok(entries) = fs::read_dir(&self.base) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(server) = name.to_str().and_then(server_of) else { continue };
            let is_alive = match server == self.server {
                // One that had the same number, as the first process of a container has.
                true => LAST.load(Ordering::Relaxed) > 0,
                false => proc.join(server.to_string()).exists(),
            };
            if !is_alive {
                Group { dir: entry.path() }.remove();
            }
        }
    }
}

/// The control group of one process, and of what it starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    dir: PathBuf,
}

impl Group {
    /// Whoever writes its number here enters.
    pub(super) fn entrance(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    fn allow(&self, allowance: &Allowance) -> io::Result<()> {
        if let Some(bytes) = allowance.memory {
            self.set("memory.max", format_args!("{bytes}\n"))?;
            // All of it ends or none: what is left of a worker would be of no use.
            self.set("memory.oom.group", format_args!("1\n"))?;
            // Not there on systems that do not swap.
            if self.dir.join("memory.swap.max").exists() {
                self.set("memory.swap.max", format_args!("0\n"))?;
            }
        }
        if let Some(cpu) = allowance.cpu {
            let quota_us = u64::from(cpu) * CPU_PERIOD_US / 1000;
            self.set("cpu.max", format_args!("{quota_us} {CPU_PERIOD_US}\n"))?;
        }
        if let Some(pids) = allowance.pids {
            self.set("pids.max", format_args!("{pids}\n"))?;
        }
        Ok(())
    }

    /// The system has killed it because it used more memory than it may.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        let kills = events.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        kills.filter_map(|kills| kills.trim().parse::<u64>().ok()).any(|kills| kills > 0)
    }

    /// Ends what is in it, and removes it. Takes a moment if something is in it: not for threads that must not wait.
    pub(super) fn remove(&self) {
        let kill = self.dir.join("cgroup.kill");
        if kill.exists()
            && let Err(error) = write(&kill, format_args!("1\n"))
        {
            tracing::warn!(%error, group = %self.dir.display(), "cannot kill what is left in a control group");
        }
        let mut pause = REMOVAL_PAUSE;
        for attempt in 1..=REMOVALS {
            match fs::remove_dir(&self.dir) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < REMOVALS => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err(error) => {
                    tracing::warn!(%error, group = %self.dir.display(), "a control group is left behind");
                    return;
                }
            }
        }
    }

    fn set(&self, file: &str, value: std::fmt::Arguments<'_>) -> io::Result<()> {
        let file = self.dir.join(file);
        write(&file, value).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
    }
}

/// Puts this process into the group whose entrance this is.
pub(super) fn enter(entrance: &Path) -> io::Result<()> {
    write(entrance, format_args!("{}\n", std::process::id())).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot enter the control group of {}: {error}", entrance.display()))
    })
}

/// The folder of the server's own group.
fn own_group(proc: &Path) -> Result<PathBuf, String> {
    let read = |name: &str| {
        let file = proc.join("self").join(name);
        fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    let groups = read("cgroup")?;
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Err("the system has no cgroup v2".to_owned());
    };
    let mounts = read("mountinfo")?;
    let mut folders = mounts.lines().filter_map(|line| {
        // ID, parent, device, root, mount point, options ... - type, source, options
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        let is_inside = !below.components().any(|part| part == std::path::Component::ParentDir);
        (file_system.starts_with("cgroup2 ") && is_inside).then(|| Path::new(point).join(below))
    });
    folders.next().ok_or_else(|| format!("cgroup v2 is not mounted where the server's group {path:?} is"))
}

/// Moves the server, and what it has started, out of its group, so that the group can have others below it.
fn move_away(proc: &Path, base: &Path, server: u32) -> Result<(), String> {
    let cannot = |what: &str, error: io::Error| {
        format!(
            "cannot {what} {}: {error}; the service manager has to delegate it (systemd: Delegate=yes)",
            base.display()
        )
    };
    let leaf = base.join(OWN_LEAF);
    let mut moved = BTreeSet::new();
    // What the server has started may start further processes meanwhile.
    loop {
        let present = words(&base.join("cgroup.procs"))?;
        let present: Vec<u32> = present.iter().filter_map(|pid| pid.parse().ok()).collect();
        if let Some(foreign) = present.iter().find(|pid| !descends(proc, **pid, server)) {
            let whose = base.display();
            return Err(format!(
                "process {foreign} is in the server's group {whose} and not the server's; it needs one of its own"
            ));
        }
        let new: Vec<u32> = present.into_iter().filter(|pid| !moved.contains(pid)).collect();
        if new.is_empty() {
            return Ok(());
        }
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot("make a group in", error)),
            _ => {}
        }
        for pid in new {
            match write(&leaf.join("cgroup.procs"), format_args!("{pid}\n")) {
                // It has ended meanwhile.
                Err(error) if pid != server && error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                }
                Err(error) => return Err(cannot("move the server inside", error)),
                Ok(()) => {}
            }
            moved.insert(pid);
        }
    }
}

/// Whether `pid` is `server`, or was started by it, or by what it has started. One that has ended is nobody's.
fn descends(proc: &Path, pid: u32, server: u32) -> bool {
    let mut pid = pid;
    while pid != server {
        let Ok(stat) = fs::read_to_string(proc.join(pid.to_string()).join("stat")) else { return true };
        // pid (name) state parent ...; the name may be anything.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
        match fields.and_then(|mut fields| fields.nth(1)?.parse().ok()) {
            Some(parent) if parent > 0 => pid = parent,
            _ => return false,
        }
    }
    true
}

/// Whose group has this name.
fn server_of(name: &str) -> Option<u32> {
    let (server, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u64>().ok()?;
    server.parse().ok()
}

fn words(file: &Path) -> Result<BTreeSet<String>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// In one piece, as the system wants it. What is not there on a real system cannot be made.
fn write(file: &Path, value: std::fmt::Arguments<'_>) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(file)?.write_all(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests;
