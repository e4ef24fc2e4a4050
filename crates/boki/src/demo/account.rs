//! The account of a demo: lines for people as it happens, or one JSON object at the end.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::verdict::Check;
use crate::failure::Failure;
use crate::output::Output;

/// Most discrepancies that are printed per check.
const PRINTED: usize = 5;

#[derive(Debug)]
pub(crate) struct Account {
    started: Instant,
    out: Output,
    story: Story,
}

/// The account as JSON.
#[derive(Debug, Default, Serialize)]
struct Story {
    events: Vec<Event>,
    load: Option<Load>,
    checks: Vec<Check>,
}

/// Something that happened.
#[derive(Debug, Serialize)]
struct Event {
    at_ms: u64,
    what: String,
}

/// What the load was.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) requests: usize,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// Times a connection was lost or refused.
    pub(crate) lost: u64,
    /// Times the server said "later".
    pub(crate) asked_again: u64,
}

impl Load {
    pub(crate) fn of(mut times: Vec<Duration>, took: Duration, lost: u64, asked_again: u64) -> Load {
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let millis = |at: usize| times.get(at.min(last)).copied().unwrap_or_default().as_secs_f64() * 1e3;
        let requests = times.len();
        Load {
            requests,
            per_second: requests as f64 / took.as_secs_f64(),
            p50_ms: millis(requests / 2),
            p99_ms: millis(requests * 99 / 100),
            max_ms: millis(last),
            lost,
            asked_again,
        }
    }
}

impl Account {
    pub(crate) fn new(out: Output) -> Account {
        Account { started: Instant::now(), out, story: Story::default() }
    }

    /// Says something to people.
    pub(crate) fn say(&mut self, line: &str) -> Result<(), Failure> {
        if self.out.is_json() {
            return Ok(());
        }
        self.out.line(line)?;
        // Whoever watches wants it as it happens.
        self.out.flush()
    }

    /// Something has happened now.
    pub(crate) fn tell(&mut self, what: String) -> Result<(), Failure> {
        let at = self.started.elapsed();
        self.say(&format!("  {:>6.2} s  {what}", at.as_secs_f64()))?;
        self.story.events.push(Event { at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), what });
        Ok(())
    }

    pub(crate) fn load(&mut self, load: Load) -> Result<(), Failure> {
        self.story.load = Some(load);
        self.say(&format!(
            "\n  {:.0} requests/s; half within {:.1} ms, 99 of 100 within {:.1} ms, the slowest took {:.0} ms",
            load.per_second, load.p50_ms, load.p99_ms, load.max_ms
        ))?;
        self.say(&format!(
            "  connections lost or refused: {}; answers of \"later\": {}; each was asked again with the same key",
            load.lost, load.asked_again
        ))
    }

    /// Something was checked.
    pub(crate) fn check(&mut self, check: Check) -> Result<(), Failure> {
        let mark = if check.wrong.is_empty() { "✓" } else { "✗" };
        self.say(&format!("    {mark} {}", check.what))?;
        for wrong in check.wrong.iter().take(PRINTED) {
            self.say(&format!("        {wrong}"))?;
        }
        if check.wrong.len() > PRINTED {
            self.say(&format!("        and {} more", check.wrong.len() - PRINTED))?;
        }
        self.story.checks.push(check);
        Ok(())
    }

    /// How many discrepancies there are.
    pub(crate) fn discrepancies(&self) -> usize {
        self.story.checks.iter().map(|check| check.wrong.len()).sum()
    }

    /// The end of the account.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if self.out.is_json() {
            self.out.json(&self.story)?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times = (1..=100).map(Duration::from_millis).collect();
        let load = Load::of(times, Duration::from_secs(2), 0, 0);
        assert_eq!(
            (load.requests, load.per_second, load.p50_ms, load.p99_ms, load.max_ms),
            (100, 50.0, 51.0, 100.0, 100.0)
        );
        assert_eq!(Load::of(vec![], Duration::from_secs(1), 0, 0).max_ms, 0.0);
    }
}
