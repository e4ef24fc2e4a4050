//! Processes of a benchmark: starting them, and what the kernel says they use.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};

use super::latency::broken;
use crate::failure::Failure;

/// A process that this one started; stopped when dropped.
#[derive(Debug)]
pub(crate) struct OwnProcess {
    child: Child,
    output: BufReader<ChildStdout>,
    name: &'static str,
    started: Instant,
}

impl OwnProcess {
    /// Starts this same binary with other arguments.
    pub(crate) fn start(name: &'static str, arguments: &[&str], env: &[(&str, &str)]) -> Result<OwnProcess, Failure> {
        let binary =
            std::env::current_exe().map_err(|error| Failure::io("cannot find this program's own file", &error))?;
        let started = Instant::now();
        let mut child = Command::new(binary)
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::io(format!("cannot start {name}"), &error))?;
        let output = child.stdout.take().ok_or_else(|| broken(format!("{name} has no output")))?;
        Ok(OwnProcess { child, output: BufReader::new(output), name, started })
    }

    /// Waits for its next line of output: each says one when it is ready.
    pub(crate) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .map_err(|error| Failure::io(format!("cannot read from {}", self.name), &error))?;
        if line.is_empty() {
            return Err(broken(format!("{} ended before it was ready", self.name)));
        }
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash would; returns when it has ended.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks it to end; returns when it has ended.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            match pid.map(|pid| kill_process(pid, Signal::TERM)) {
                Some(Ok(())) => {}
                _ => self.child.kill()?,
            }
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for OwnProcess {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("warning: {} (process {}) could not be stopped: {error}", self.name, self.child.id());
        }
    }
}

/// Processor time of processes, user and system together.
#[derive(Clone, Debug)]
pub(crate) struct CpuClock {
    pids: Vec<u32>,
    ticks_per_second: u64,
}

impl CpuClock {
    pub(crate) fn of(pids: Vec<u32>) -> CpuClock {
        CpuClock { pids, ticks_per_second: clock_ticks_per_second().max(1) }
    }

    /// Of this process.
    pub(crate) fn own() -> CpuClock {
        CpuClock::of(vec![std::process::id()])
    }

    /// Fails where there is no `/proc`.
    pub(crate) fn used(&self) -> Result<Duration, Failure> {
        let mut ticks = 0;
        for pid in &self.pids {
            let stat = read_proc(*pid, "stat")?;
            ticks += cpu_ticks(&stat).ok_or_else(|| broken(format!("/proc/{pid}/stat has no times")))?;
        }
        Ok(Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / self.ticks_per_second)))
    }
}

/// The processes that a process has started.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>, Failure> {
    let mut found = Vec::new();
    // Any thread may have started them.
    for thread in threads(pid)? {
        let children = std::fs::read_to_string(thread.join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(found)
}

/// Fields 14 and 15 of `/proc/<pid>/stat`: user and system time. The name before them may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory of a process that is in use, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, Failure> {
    let status = read_proc(pid, "status")?;
    number_after(&status, "VmRSS:")
        .map(|kib| kib * 1024)
        .ok_or_else(|| broken(format!("/proc/{pid}/status has no VmRSS")))
}

/// The most that it ever was.
pub(crate) fn peak_bytes(pid: u32) -> Result<u64, Failure> {
    let status = read_proc(pid, "status")?;
    number_after(&status, "VmHWM:")
        .map(|kib| kib * 1024)
        .ok_or_else(|| broken(format!("/proc/{pid}/status has no VmHWM")))
}

/// How often the threads of a process went to sleep so far: each time, something had woken them.
pub(crate) fn sleeps(pid: u32) -> Result<u64, Failure> {
    let mut sum = 0;
    for thread in threads(pid)? {
        // A thread may end between the listing and this.
        let status = std::fs::read_to_string(thread.join("status")).unwrap_or_default();
        sum += number_after(&status, "\nvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok(sum)
}

fn threads(pid: u32) -> Result<Vec<PathBuf>, Failure> {
    let path = format!("/proc/{pid}/task");
    let threads = std::fs::read_dir(&path).map_err(|error| Failure::io(format!("cannot read {path}"), &error))?;
    Ok(threads.flatten().map(|thread| thread.path()).collect())
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}

fn read_proc(pid: u32, file: &str) -> Result<String, Failure> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).map_err(|error| Failure::io(format!("cannot read {path}"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 5 1 2";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn numbers_of_a_status_are_found() {
        let status = "VmRSS:\t    1234 kB\nThreads:\t3\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t8\n";
        assert_eq!(number_after(status, "VmRSS:"), Some(1234));
        assert_eq!(number_after(status, "\nvoluntary_ctxt_switches:"), Some(9));
    }
}
