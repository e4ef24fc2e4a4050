//! Pools of worker processes: started, watched, started again, replaced, ended.
//!
//! A **pool** is a command and how many processes of it there may be. The engine starts its first process to learn
//! what it offers; from then on the functions of the pool are known, whether a process runs or not. [`crew`] decides
//! how many there are, [`run`] does what it decides, [`process`] is one process, and [`table`] knows which connection
//! belongs to which process. [`limits`] says by what the limits of a process hold: a group of [`cgroup`], or rlimits.
//!
//! Every process leads a process group of its own, and whatever is left of the group when the process ends is killed:
//! a worker leaves nothing behind. What it prints goes line by line to the log. It has `BOKI_URL`, where it finds the
//! engine, `BOKI_WORKER`, a token by which the engine knows its connection again, and `BOKI_VERSION`.

mod cgroup;
mod crew;
mod launch;
mod limits;
mod output;
mod process;
mod run;
mod spec;
mod table;

pub(crate) use crew::{Load, MemberNumber, WorkerLoad};
pub use launch::{Resources, exec_limited, guard_groups};
pub(crate) use run::Readiness;
pub use spec::{Environment, PoolError, PoolFailure, PoolId, PoolInfo, PoolSpec, PoolState, ProcessInfo, ProcessState};
pub(crate) use table::{Attached, Pools};
