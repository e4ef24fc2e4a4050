//! A process of the simulated world: the production machine, its disk and its clocks.

use std::collections::BTreeMap;

use boki_log::engine::EngineConfig;
use boki_log::index::Freeze;
use boki_log::machine::{Checkpoint, Machine, MachineConfig, WriteFrame};
use boki_log::sequencer::SequencerConfig;
use boki_log::storage::StorageConfig;
use boki_log::{NodeId, Seq, ShardId, Term};
use bytes::Bytes;

use crate::disk::NodeDisk;
use crate::plan::{Plan, Topology};
use crate::rng::Rng;

/// The clocks of a node: one for timers, which runs a little fast or slow and starts anew with the process, and the wall
/// clock, which jumps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin_us: i64,
    drift_ppm: i64,
    /// By how much the wall clock is wrong.
    pub skew_us: i64,
}

/// The wall clock at the beginning: 2023-11-14.
const EPOCH_US: i64 = 1_700_000_000_000_000;

impl Clock {
    /// The clock of a process that starts at `now_us`.
    fn new(now_us: u64, skew_us: i64, rng: &mut Rng) -> Clock {
        let origin_us = rng.below(1_000_000_000) as i64 - now_us as i64;
        Clock { origin_us, drift_ppm: rng.below(4001) as i64 - 2000, skew_us }
    }

    /// What the clock for timers shows.
    #[must_use]
    pub fn timers_us(&self, now_us: u64) -> u64 {
        let now_us = now_us as i64;
        (self.origin_us + now_us + now_us * self.drift_ppm / 1_000_000).max(0) as u64
    }

    /// When the clock for timers shows `at_us`, about, and not before `now_us`.
    #[must_use]
    pub fn when(&self, now_us: u64, at_us: u64) -> u64 {
        let wait = at_us.saturating_sub(self.timers_us(now_us)) as i64;
        now_us + (wait - wait * self.drift_ppm / 1_000_000) as u64
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn wall_us(&self, now_us: u64) -> u64 {
        (EPOCH_US + now_us as i64 + self.skew_us).max(0) as u64
    }
}

/// Giving back dead segments, step by step.
#[derive(Clone, Debug)]
pub struct Reclaim {
    /// What must be on disk before any of them goes.
    pub checkpoint: Checkpoint,
    /// Those that are dead.
    pub dead: Vec<u64>,
    /// Those that are gone.
    pub removed: Vec<u64>,
    /// Whether the checkpoint is on disk.
    pub is_checkpointed: bool,
}

/// See the module's description.
#[derive(Debug)]
pub struct SimNode {
    /// Its number.
    pub id: NodeId,
    /// How often it has started.
    pub term: u32,
    /// Counts crashes: what was scheduled before the last concerns it no more.
    pub incarnation: u64,
    /// `None` while it is down.
    pub machine: Option<Machine>,
    /// An engine alone has none.
    pub disk: Option<NodeDisk>,
    /// The group in the hands of the disk.
    pub writing: Option<Vec<WriteFrame>>,
    /// Its clocks.
    pub clock: Clock,
    /// When its next tick is due, in the world's time.
    pub timer_at: Option<u64>,
    /// Aux data as they were set here.
    pub aux: BTreeMap<Seq, Bytes>,
    /// Under way.
    pub reclaim: Option<Reclaim>,
    /// Frozen of its index, and not a table yet.
    pub freeze: Option<Freeze>,
    /// Number of the next table of its index.
    pub next_table: u64,
    /// Its disk takes long.
    pub is_slow: bool,
    /// Its disk has no room.
    pub is_full: bool,
    /// Its next write fails.
    pub fails_next: bool,
    /// It was told to stop.
    pub is_stopping: bool,
}

impl SimNode {
    /// A node that has never run.
    #[must_use]
    pub fn new(id: NodeId, plan: &Plan, rng: &mut Rng) -> SimNode {
        let has_disk = plan.storages.contains(&id) || plan.sequencer == id;
        SimNode {
            id,
            term: 0,
            incarnation: 0,
            machine: None,
            disk: has_disk.then(|| NodeDisk::new(u128::from(id.0) + 1, plan.disk.segment_bytes)),
            writing: None,
            clock: Clock::new(0, rng.below(2_000_000) as i64 - 1_000_000, rng),
            timer_at: None,
            aux: BTreeMap::new(),
            reclaim: None,
            freeze: None,
            next_table: 1,
            is_slow: false,
            is_full: false,
            fails_next: false,
            is_stopping: false,
        }
    }

    /// Forgets everything that was only in memory.
    pub fn lose_memory(&mut self) {
        self.incarnation += 1;
        self.machine = None;
        self.writing = None;
        self.timer_at = None;
        self.aux.clear();
        self.reclaim = None;
        self.freeze = None;
        self.fails_next = false;
        self.is_stopping = false;
    }

    /// A process starts: its clock for timers too.
    pub fn new_process(&mut self, now_us: u64, rng: &mut Rng) {
        self.clock = Clock::new(now_us, self.clock.skew_us, rng);
    }
}

/// How node `id` of the plan is set up in its `term`.
#[must_use]
pub fn config(plan: &Plan, id: NodeId, term: u32) -> MachineConfig {
    if plan.topology == Topology::Alone {
        return MachineConfig::alone(id, Term(term), plan.limits.clone(), plan.cache_bytes);
    }
    let resend_after_us = Some(plan.resend_us);
    let subscribers = plan.engines.iter().chain(&plan.storages).copied().collect();
    MachineConfig {
        node: id,
        engine: plan.engines.contains(&id).then(|| EngineConfig {
            shard: ShardId { engine: id, term: Term(term) },
            storages: plan.storages.clone(),
            quorum: plan.quorum,
            sequencer: plan.sequencer,
            limits: plan.limits.clone(),
            cache_bytes: plan.cache_bytes,
            aux_bytes: plan.cache_bytes / 2,
            resend_after_us,
        }),
        storage: plan.storages.contains(&id).then_some(StorageConfig {
            sequencer: plan.sequencer,
            shares_journal: false,
            early_bytes: plan.early_bytes,
            run_bytes: usize::MAX,
            resend_after_us,
        }),
        sequencer: (plan.sequencer == id).then(|| SequencerConfig {
            term: Term(term),
            storages: plan.storages.clone(),
            quorum: plan.quorum,
            shares_journal_with: None,
            subscribers,
            keep_cuts: usize::MAX,
            resend_after_us,
        }),
    }
}
