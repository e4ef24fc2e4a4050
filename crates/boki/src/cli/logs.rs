//! `boki logs`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Target;
use super::client::span;

#[derive(Args, Debug)]
#[command(after_help = "\
What a function logs belongs to its call; what its process prints belongs to the worker. The server keeps the latest
10,000 lines in memory.

Examples:
  boki logs                                    what there is
  boki logs -f --function checkout             the last ten lines of a function, and those that come
  boki logs --level warn --since 10m
  boki logs --call 0123456789abcdef0123456789abcdef")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Go on with the lines that come, until ctrl-c.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only lines of calls of this function.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// Only lines of this call.
    #[arg(long, value_name = "ID")]
    pub(crate) call: Option<String>,
    /// Only lines of this worker.
    #[arg(long)]
    pub(crate) worker: Option<String>,
    /// Only lines as serious as this, or more.
    #[arg(long, value_enum)]
    pub(crate) level: Option<LevelArg>,
    /// Only lines that are not older than this: 30s, 10m, 2h.
    #[arg(long, value_parser = span)]
    pub(crate) since: Option<Duration>,
    /// At most so many of the latest lines (10 before those that come, 1000 else; 10000 at most).
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) lines: Option<usize>,
}

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// Something failed.
    Error,
    /// Something may be wrong.
    Warn,
    /// What normally happens.
    Info,
    /// For whoever looks for a mistake.
    Debug,
    /// Everything.
    Trace,
}

impl LevelArg {
    pub(crate) fn name(self) -> &'static str {
        match self {
            LevelArg::Error => "error",
            LevelArg::Warn => "warn",
            LevelArg::Info => "info",
            LevelArg::Debug => "debug",
            LevelArg::Trace => "trace",
        }
    }
}
