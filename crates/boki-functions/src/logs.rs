//! The lines that workers log, the latest of them in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use boki_node::Clock;
use boki_wire::worker::{CallId, Level};
use parking_lot::Mutex;

/// A longer line is cut.
pub(crate) const MAX_LINE_BYTES: usize = 8 << 10;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it came in, microseconds since 1970.
    pub time_us: u64,
    /// What a human calls the worker.
    pub worker: Arc<str>,
    /// The call that it belongs to, if that is known.
    pub call: Option<CallId>,
    /// How serious it is.
    pub level: Level,
    /// Without its line end.
    pub line: Arc<str>,
}

/// A ring of lines.
#[derive(Debug)]
pub(crate) struct Logs {
    capacity: usize,
    clock: Clock,
    lines: Mutex<VecDeque<LogLine>>,
}

impl Logs {
    pub(crate) fn new(capacity: usize, clock: Clock) -> Logs {
        Logs { capacity, clock, lines: Mutex::default() }
    }

    /// Keeps a line, and hands it on to the log of the process.
    pub(crate) fn add(&self, worker: &Arc<str>, call: Option<CallId>, level: Level, line: &str) {
        let line = &line[..line.floor_char_boundary(MAX_LINE_BYTES)];
        trace(worker, call, level, line);
        if self.capacity == 0 {
            return;
        }
        let line =
            LogLine { time_us: self.clock.wall_us(), worker: Arc::clone(worker), call, level, line: line.into() };
        let mut lines = self.lines.lock();
        if lines.len() >= self.capacity {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines that `wanted` wants, oldest first.
    pub(crate) fn select(&self, wanted: impl Fn(&LogLine) -> bool) -> Vec<LogLine> {
        self.lines.lock().iter().filter(|line| wanted(line)).cloned().collect()
    }
}

fn trace(worker: &str, call: Option<CallId>, level: Level, line: &str) {
    let call = call.map(tracing::field::display);
    match level {
        Level::Error => tracing::error!(target: "worker", worker, call, "{line}"),
        Level::Warn => tracing::warn!(target: "worker", worker, call, "{line}"),
        Level::Info => tracing::info!(target: "worker", worker, call, "{line}"),
        Level::Debug => tracing::debug!(target: "worker", worker, call, "{line}"),
        Level::Trace => tracing::trace!(target: "worker", worker, call, "{line}"),
    }
}
