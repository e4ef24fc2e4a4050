//! `boki workers`, and what a server runs beside its workers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Target;

#[derive(Debug, Subcommand)]
pub(crate) enum WorkersCommand {
    /// List the worker pools that the server runs, with their processes.
    #[command(after_help = "Example:\n  boki workers ls")]
    Ls(Target),
}

#[derive(Args, Debug)]
pub(crate) struct WorkerExec {
    /// The `cgroup.procs` of the control group to enter.
    #[arg(long)]
    pub(crate) cgroup: Option<PathBuf>,
    /// Bytes of address space.
    #[arg(long)]
    pub(crate) memory: Option<u64>,
    /// Files open at once.
    #[arg(long)]
    pub(crate) open_files: Option<u64>,
    /// Processes and threads of the user.
    #[arg(long)]
    pub(crate) threads: Option<u64>,
    /// The worker's command.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}
