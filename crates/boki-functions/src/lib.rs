//! Functions: the workers that run them, the calls of them, and the durable record of calls.
//!
//! A **function** is code in a **worker**, a process that is connected over the worker link
//! (`boki_wire::worker`): one that this engine starts, watches and restarts, or one that connects by itself.
//! A **call** is one run of a function as its caller sees it: it has one result, however many **attempts** it takes.
//!
//! This crate schedules calls on workers, tries again when a worker is lost, and keeps the record of those
//! calls that must survive a crash (those with an idempotency key, and those that were sent). It does not
//! know HTTP, sockets or any library over the log.
//!
//! - A call without a key is not written anywhere: it lives and dies with its caller.
//! - A call on record runs **at least once**, until its first result is in the log; that result is the call's,
//!   for everybody, for as long as the record is kept.
//! - The position travels with the call and back with its result, failed or not.
//! - What waits is bounded: calls per function, bytes in all.
#![deny(missing_docs)]

mod attempt;
mod backoff;
mod body;
mod call;
mod config;
mod counters;
mod dispatch;
mod error;
mod exchange;
mod flood;
mod functions;
mod ids;
mod input;
mod limit_store;
mod limits;
mod link;
mod logs;
mod output;
mod pool;
mod record;
mod watch;
mod worker;

pub use body::{Body, BodyError, BodyStream};
pub use boki_wire::worker::{CallId, HttpHead};
pub use call::{Call, CallReply, CallStatus, Demand, FunctionInfo, Parent, Sent, WorkerInfo};
pub use config::FunctionsConfig;
pub use counters::{FunctionsStatus, LATENCY_BOUNDS_US, Latencies};
pub use error::CallError;
pub use flood::LogRate;
pub use functions::Functions;
pub use limit_store::{LimitError, LimitTerms};
pub use limits::{InvalidLimit, KeyState, LimitRule, LimitState, MAX_WEIGHT, Pattern, Rate};
pub use logs::{LogFilter, LogLine, LogPage};
pub use pool::{
    Environment, PoolError, PoolFailure, PoolId, PoolInfo, PoolSpec, PoolState, ProcessInfo, ProcessState, Resources,
    exec_limited, guard_groups,
};
pub use worker::WorkerLink;
