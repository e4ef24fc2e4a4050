//! How much a worker may log: so many lines and bytes a second, after a burst of one second's worth.
//!
//! What is beyond is dropped and counted; the next line that passes says how many were. So a worker that logs without
//! end fills neither its pipe, nor memory, nor the server's own log, and drives nobody else's lines out of it for long.

use std::sync::Arc;
use std::time::Duration;

use boki_wire::worker::Level;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::counters::count;
use crate::functions::Shared;
use crate::logs::Source;

const BURST: Duration = Duration::from_secs(1);

/// How much one worker may log a second. Zero is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRate {
    /// Lines.
    pub lines: u32,
    /// Bytes of all lines.
    pub bytes: u32,
}

/// What one worker has logged lately.
#[derive(Debug)]
pub(crate) struct LogBudget {
    rate: LogRate,
    /// Until when the lines so far would have taken, one by one.
    lines_until: Instant,
    /// The same of the bytes.
    bytes_until: Instant,
    dropped: u64,
}

impl LogBudget {
    pub(crate) fn new(rate: LogRate, now: Instant) -> LogBudget {
        LogBudget { rate, lines_until: now, bytes_until: now, dropped: 0 }
    }

    /// Whether a line of so many bytes may pass; if so, how many were dropped since the last that did.
    pub(crate) fn admit(&mut self, bytes: usize, now: Instant) -> Option<u64> {
        let is_spent = |until: Instant| until.saturating_duration_since(now) >= BURST;
        if is_spent(self.lines_until) || is_spent(self.bytes_until) {
            self.dropped += 1;
            return None;
        }
        let time_of = |count: u64, rate: u32| match rate {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(count.saturating_mul(1_000_000_000) / u64::from(rate)),
        };
        self.lines_until = self.lines_until.max(now) + time_of(1, self.rate.lines);
        self.bytes_until = self.bytes_until.max(now) + time_of(bytes as u64, self.rate.bytes);
        Some(self.dropped())
    }

    /// How many were dropped since this was last told.
    pub(crate) fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

impl Shared {
    /// A line that a worker logs, unless it logs too much.
    pub(crate) fn log_of_worker(&self, budget: &Mutex<LogBudget>, source: Source<'_>, level: Level, line: &str) {
        let admitted = budget.lock().admit(line.len(), Instant::now());
        match admitted {
            None => count(&self.counters.dropped_lines),
            Some(dropped) => {
                self.say_dropped(dropped, source.worker, source.version);
                self.logs.add(source, level, line);
            }
        }
    }

    /// A worker is gone: lines of it that were dropped are told now.
    pub(crate) fn tell_dropped(&self, budget: &Mutex<LogBudget>, worker: &Arc<str>, version: &Arc<str>) {
        let dropped = budget.lock().dropped();
        self.say_dropped(dropped, worker, version);
    }

    fn say_dropped(&self, dropped: u64, worker: &Arc<str>, version: &Arc<str>) {
        if dropped > 0 {
            let source = Source { worker, version, call: None, function: None };
            self.logs.add(source, Level::Warn, &format!("{dropped} lines dropped: it logs too much"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: LogRate = LogRate { lines: 10, bytes: 1000 };

    fn passed(budget: &mut LogBudget, count: usize, bytes: usize, now: Instant) -> usize {
        (0..count).filter(|_| budget.admit(bytes, now).is_some()).count()
    }

    #[test]
    fn a_burst_passes_and_then_as_much_as_the_rate() {
        let start = Instant::now();
        let mut budget = LogBudget::new(RATE, start);
        assert_eq!(passed(&mut budget, 100, 1, start), 10);
        for tenth in 1..50 {
            assert_eq!(passed(&mut budget, 100, 1, start + tenth * Duration::from_millis(100)), 1);
        }
        assert_eq!(passed(&mut budget, 100, 1, start + Duration::from_secs(60)), 10, "no more than one burst gathers");
    }

    #[test]
    fn bytes_count_as_well_and_one_long_line_passes() {
        let start = Instant::now();
        let mut budget = LogBudget::new(RATE, start);
        assert_eq!(passed(&mut budget, 10, 400, start), 3);
        let mut budget = LogBudget::new(RATE, start);
        assert_eq!(passed(&mut budget, 2, 5000, start), 1);
        assert_eq!(passed(&mut budget, 2, 5000, start + Duration::from_secs(4)), 0);
        assert_eq!(passed(&mut budget, 2, 5000, start + Duration::from_millis(4001)), 1);
    }

    #[test]
    fn what_was_dropped_is_told_once() {
        let start = Instant::now();
        let mut budget = LogBudget::new(RATE, start);
        assert_eq!(budget.admit(1, start), Some(0));
        passed(&mut budget, 100, 1, start);
        let later = start + Duration::from_millis(100);
        assert_eq!(budget.admit(1, later), Some(91));
        assert_eq!(budget.admit(1, later), None);
        assert_eq!(budget.dropped(), 1);
        assert_eq!(budget.dropped(), 0);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let start = Instant::now();
        let mut budget = LogBudget::new(LogRate { lines: 0, bytes: 0 }, start);
        assert_eq!(passed(&mut budget, 10_000, 10_000, start), 10_000);
    }
}
