//! The simulator: one seed is one run, in one thread and in virtual time, of the production state machines of `boki-log`
//! and the production journal of `boki-disk`, under faults that the seed chose, with checkers that know what was promised.
//!
//! It is not a model of the protocol: what runs is what ships. What it replaces is what the real node is made of around the
//! machines: sockets, files, clocks, threads. `docs/simulation.md` says how to use it.
//!
//! - [`plan`]: what a seed decides beforehand; [`faults`], [`network`], [`disk`], [`damage`], [`workload`]: what happens to
//!   whom.
//! - [`world`]: the loop.
//! - [`ledger`]: what is on disk; [`model`]: what that means. Both share no code with what they check.
//! - [`mutation`]: deliberate bugs, for checking the checkers.
//! - [`campaign`]: many seeds.

mod answers;
pub mod campaign;
pub mod damage;
pub mod disk;
mod events;
pub mod faults;
mod finals;
pub mod ledger;
pub mod model;
pub mod mutation;
pub mod network;
pub mod node;
mod operations;
pub mod plan;
pub mod rng;
mod starts;
pub mod tables;
pub mod trace;
pub mod violation;
pub mod workload;
pub mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mutation::Mutation;
use plan::{Plan, Topology};
use violation::Violation;
use world::World;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// How the roles are spread.
    pub topology: Topology,
    /// A deliberate bug.
    pub mutation: Option<Mutation>,
    /// Whether to print the trace.
    pub printed: bool,
    /// When to end at the latest, in virtual microseconds.
    pub until_us: Option<u64>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// Hash of everything that happened.
    pub trace_hash: u64,
    /// What was broken.
    pub violation: Option<Violation>,
}

impl Run {
    /// A run without a deliberate bug.
    #[must_use]
    pub fn new(seed: u64, topology: Topology) -> Run {
        Run { seed, topology, mutation: None, printed: false, until_us: None }
    }

    /// Runs it. A panic is a violation, where panics unwind; where they abort, `campaign::name_panics` says whose it was.
    #[must_use]
    pub fn run(self) -> Report {
        campaign::RUNNING.set(Some(self));
        let live = || {
            let plan = Plan::new(self.seed, self.topology);
            let mut world = World::new(plan, self.mutation, self.printed, self.until_us);
            let violation = world.run().err();
            world.report(violation)
        };
        let report = catch_unwind(AssertUnwindSafe(live)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let detail =
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
            let violation = Some(Violation { check: "panic", detail });
            Report { counts: BTreeMap::new(), trace_hash: 0, violation }
        });
        campaign::RUNNING.set(None);
        report
    }
}
