//! The lines that workers log, the latest of them in memory.
//!
//! Lines are numbered as they come in, and the numbers of a later start of the engine are above those of every earlier one
//! (they begin at its start's time), so a reader can go on where it was even after a restart. A reader has no queue of
//! its own: it asks for what follows a number, and one that is slower than the lines come finds that some are gone,
//! and how many.

use std::collections::VecDeque;
use std::sync::Arc;

use boki_node::Clock;
use boki_wire::worker::{CallId, Level};
use parking_lot::Mutex;
use tokio::sync::watch;

/// A longer line is cut.
pub(crate) const MAX_LINE_BYTES: usize = 8 << 10;
/// Most bytes that the text of all lines in memory has.
const MAX_BYTES: usize = 16 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its place among all lines.
    pub number: u64,
    /// When it came in, microseconds since 1970.
    pub time_us: u64,
    /// What a human calls the worker.
    pub worker: Arc<str>,
    /// Which version of the code the worker runs; may be empty.
    pub version: Arc<str>,
    /// The call that it belongs to, if that is known.
    pub call: Option<CallId>,
    /// The function that was called, if that is known.
    pub function: Option<Arc<str>>,
    /// How serious it is.
    pub level: Level,
    /// Without its line end.
    pub line: Arc<str>,
}

/// Which lines are wanted: those that fit everything that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Of this call.
    pub call: Option<CallId>,
    /// Of calls of this function.
    pub function: Option<String>,
    /// Of this worker.
    pub worker: Option<String>,
    /// As serious as this, or more.
    pub level: Option<Level>,
    /// That came in then or later, microseconds since 1970.
    pub since_us: Option<u64>,
}

/// Some lines, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// From which number on to ask next.
    pub next: u64,
    /// So many lines (of all, whether they were wanted or not) are not in memory any more.
    pub missed: u64,
}

impl LogFilter {
    fn wants(&self, line: &LogLine) -> bool {
        self.call.is_none_or(|call| line.call == Some(call))
            && self.function.as_deref().is_none_or(|function| line.function.as_deref() == Some(function))
            && self.worker.as_deref().is_none_or(|worker| &*line.worker == worker)
            && self.level.is_none_or(|level| severity(line.level) >= severity(level))
            && self.since_us.is_none_or(|since_us| line.time_us >= since_us)
    }
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 5,
        Level::Warn => 4,
        Level::Info => 3,
        Level::Debug => 2,
        Level::Trace => 1,
    }
}

/// Whose line it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) worker: &'a Arc<str>,
    pub(crate) version: &'a Arc<str>,
    pub(crate) call: Option<CallId>,
    pub(crate) function: Option<&'a Arc<str>>,
}

/// A ring of lines.
#[derive(Debug)]
pub(crate) struct Logs {
    capacity: usize,
    clock: Clock,
    ring: Mutex<Ring>,
    /// The number that the next line gets: changes with every line.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    /// Number of the first line of this start.
    origin: u64,
    next: u64,
    bytes: usize,
    lines: VecDeque<LogLine>,
}

impl Logs {
    pub(crate) fn new(capacity: usize, clock: Clock) -> Logs {
        let origin = clock.wall_us();
        let ring = Ring { origin, next: origin, bytes: 0, lines: VecDeque::new() };
        Logs { capacity, clock, ring: Mutex::new(ring), next: watch::Sender::new(origin) }
    }

    /// Keeps a line, and hands it on to the log of the process.
    pub(crate) fn add(&self, source: Source<'_>, level: Level, line: &str) {
        let line = &line[..line.floor_char_boundary(MAX_LINE_BYTES)];
        trace(source, level, line);
        if self.capacity == 0 {
            return;
        }
        let mut ring = self.ring.lock();
        let line = LogLine {
            number: ring.next,
            time_us: self.clock.wall_us(),
            worker: Arc::clone(source.worker),
            version: Arc::clone(source.version),
            call: source.call,
            function: source.function.cloned(),
            level,
            line: line.into(),
        };
        ring.next += 1;
        ring.bytes += line.line.len();
        ring.lines.push_back(line);
        while ring.lines.len() > self.capacity || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= oldest.line.len();
        }
        // Under the lock, so that what is announced never goes back.
        self.next.send_replace(ring.next);
    }

    /// The lines from number `from` on that `filter` wants, at most `limit` of them, oldest first.
    pub(crate) fn from(&self, from: u64, limit: usize, filter: &LogFilter) -> LogPage {
        let ring = self.ring.lock();
        // A number of an earlier start, or one that was never given.
        let from = if from < ring.origin || from > ring.next { ring.origin } else { from };
        let first = ring.lines.front().map_or(ring.next, |line| line.number);
        let mut page = LogPage { lines: Vec::new(), next: ring.next, missed: first.saturating_sub(from) };
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        for line in ring.lines.iter().skip(skipped).filter(|line| filter.wants(line)) {
            if page.lines.len() == limit {
                page.next = page.lines.last().map_or(page.next, |last| last.number + 1);
                break;
            }
            page.lines.push(line.clone());
        }
        page
    }

    /// The last `limit` lines that `filter` wants, oldest first.
    pub(crate) fn last(&self, limit: usize, filter: &LogFilter) -> LogPage {
        let ring = self.ring.lock();
        let mut lines: Vec<LogLine> =
            ring.lines.iter().rev().filter(|line| filter.wants(line)).take(limit).cloned().collect();
        lines.reverse();
        LogPage { lines, next: ring.next, missed: 0 }
    }

    /// Changes with every line.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }
}

fn trace(source: Source<'_>, level: Level, line: &str) {
    let worker = &**source.worker;
    let call = source.call.map(tracing::field::display);
    match level {
        Level::Error => tracing::error!(target: "worker", worker, call, "{line}"),
        Level::Warn => tracing::warn!(target: "worker", worker, call, "{line}"),
        Level::Info => tracing::info!(target: "worker", worker, call, "{line}"),
        Level::Debug => tracing::debug!(target: "worker", worker, call, "{line}"),
        Level::Trace => tracing::trace!(target: "worker", worker, call, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(capacity: usize) -> Logs {
        Logs::new(capacity, Clock::virtual_from(100))
    }

    fn add(logs: &Logs, function: &str, level: Level, line: &str) {
        let (worker, version, function) = ("w".into(), "".into(), function.into());
        logs.add(Source { worker: &worker, version: &version, call: None, function: Some(&function) }, level, line);
    }

    fn texts(page: &LogPage) -> Vec<&str> {
        page.lines.iter().map(|line| &*line.line).collect()
    }

    #[test]
    fn a_reader_that_follows_sees_every_line_once() {
        let logs = logs(10);
        let all = LogFilter::default();
        let start = logs.last(10, &all).next;
        assert_eq!(start, 100);
        for line in ["a", "b", "c"] {
            add(&logs, "f", Level::Info, line);
        }
        let page = logs.from(start, 2, &all);
        assert_eq!((texts(&page), page.next, page.missed), (vec!["a", "b"], 102, 0));
        let page = logs.from(page.next, 2, &all);
        assert_eq!((texts(&page), page.next), (vec!["c"], 103));
        let page = logs.from(page.next, 2, &all);
        assert_eq!((texts(&page), page.next), (vec![], 103));
        assert_eq!(texts(&logs.last(2, &all)), ["b", "c"]);
    }

    #[test]
    fn a_slow_reader_is_told_how_many_it_missed() {
        let logs = logs(3);
        for number in 0..8 {
            add(&logs, "f", Level::Info, &number.to_string());
        }
        let page = logs.from(102, 10, &LogFilter::default());
        assert_eq!((texts(&page), page.missed, page.next), (vec!["5", "6", "7"], 3, 108));
    }

    #[test]
    fn a_number_of_another_start_begins_at_the_beginning() {
        let logs = logs(3);
        add(&logs, "f", Level::Info, "a");
        for from in [0, 99, 500] {
            let page = logs.from(from, 10, &LogFilter::default());
            assert_eq!((texts(&page), page.missed), (vec!["a"], 0), "{from}");
        }
    }

    #[test]
    fn what_does_not_fit_the_filter_is_passed_over() {
        let logs = logs(10);
        add(&logs, "f", Level::Info, "a");
        add(&logs, "g", Level::Error, "b");
        add(&logs, "f", Level::Warn, "c");
        let filter = LogFilter { function: Some("f".into()), level: Some(Level::Warn), ..LogFilter::default() };
        assert_eq!(texts(&logs.from(100, 10, &filter)), ["c"]);
        let filter = LogFilter { level: Some(Level::Warn), ..LogFilter::default() };
        let page = logs.from(100, 1, &filter);
        assert_eq!((texts(&page), page.next), (vec!["b"], 102));
        let filter = LogFilter { since_us: Some(101), ..LogFilter::default() };
        assert!(logs.last(10, &filter).lines.is_empty());
    }

    #[test]
    fn long_lines_are_bounded_in_all() {
        let logs = logs(usize::MAX);
        let long = "x".repeat(MAX_LINE_BYTES);
        for _ in 0..2 * MAX_BYTES / MAX_LINE_BYTES {
            add(&logs, "f", Level::Info, &long);
        }
        let page = logs.from(100, usize::MAX, &LogFilter::default());
        assert_eq!(page.lines.len(), MAX_BYTES / MAX_LINE_BYTES);
        assert_eq!(page.missed as usize, MAX_BYTES / MAX_LINE_BYTES);
    }
}
