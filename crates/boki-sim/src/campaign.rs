//! Many runs: over all seeds of a range, on all cores, each run in one thread.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::mutation::Mutation;
use crate::plan::Topology;
use crate::violation::Violation;
use crate::{Report, Run};

/// Seeds that once failed: one per line, `topology seed`, with what it was.
pub const REGRESSIONS: &str = include_str!("../seeds/regressions.txt");

thread_local! {
    /// The run of this thread.
    pub(crate) static RUNNING: Cell<Option<Run>> = const { Cell::new(None) };
}

/// From now on a panic in a run prints one line that names the run, and nothing else.
pub fn name_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match RUNNING.get() {
        Some(Run { mutation: None, seed, topology, .. }) => {
            eprintln!("{} seed {seed}: {panic}", topology.name());
        }
        // Whoever hunts it reads this; where panics unwind, the check's name follows.
        Some(Run { seed, .. }) => println!("{seed} panic"),
        None => usual(panic),
    }));
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Summary {
    /// How often what happened, over all runs.
    pub counts: BTreeMap<&'static str, u64>,
    /// Runs without a violation.
    pub passed: u64,
    /// The others.
    pub failed: Vec<(Run, Violation)>,
}

/// The runs that once failed.
#[must_use]
pub fn regressions() -> Vec<Run> {
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let topology = match words.next()? {
                "alone" => Topology::Alone,
                _ => Topology::Apart,
            };
            Some(Run::new(words.next()?.parse().ok()?, topology))
        })
        .collect()
}

/// Does `runs` on `threads` threads; `progress` hears of each that has ended.
#[must_use]
pub fn run_all(runs: &[Run], threads: usize, progress: &(dyn Fn(usize, &Run, &Report) + Sync)) -> Summary {
    let next = AtomicUsize::new(0);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run.run();
                    let mut summary = summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    summary.add(*run, &report);
                    let done = summary.passed as usize + summary.failed.len();
                    drop(summary);
                    progress(done, run, &report);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    summary.failed.sort_by_key(|(run, _)| (run.topology, run.seed));
    summary
}

impl Summary {
    fn add(&mut self, run: Run, report: &Report) {
        for (what, count) in &report.counts {
            *self.counts.entry(what).or_default() += count;
        }
        match &report.violation {
            None => self.passed += 1,
            Some(violation) => self.failed.push((run, violation.clone())),
        }
    }
}

/// The first seed below `seeds` that catches `mutation`, and how.
#[must_use]
pub fn hunt(mutation: Mutation, seeds: u64) -> Option<(u64, Violation)> {
    (0..seeds).find_map(|seed| {
        let run = Run { mutation: Some(mutation), ..Run::new(seed, mutation.topology()) };
        run.run().violation.map(|violation| (seed, violation))
    })
}
