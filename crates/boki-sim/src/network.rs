//! The network: when a message arrives, how often, and whether at all.

use std::collections::BTreeSet;

use boki_log::NodeId;

use crate::plan::NetworkPlan;
use crate::rng::Rng;

/// See the module's description.
#[derive(Debug)]
pub struct Network {
    rng: Rng,
    plan: NetworkPlan,
    /// Which nodes cannot reach which.
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// Nothing is lost, doubled or late any more.
    calm: bool,
    /// Messages lost.
    pub lost: u64,
    /// Messages that came twice.
    pub doubled: u64,
}

impl Network {
    /// The network of `seed`.
    #[must_use]
    pub fn new(seed: u64, plan: NetworkPlan) -> Network {
        Network { rng: Rng::new(seed, "network"), plan, blocked: BTreeSet::new(), calm: false, lost: 0, doubled: 0 }
    }

    /// After how long each copy of a message arrives; none: it is lost.
    pub fn route(&mut self, from: NodeId, to: NodeId) -> Vec<u64> {
        let lost = self.rng.chance(self.plan.lost);
        let doubled = self.rng.chance(self.plan.doubled);
        let delays = [self.delay(), self.delay()];
        if self.blocked.contains(&(from, to)) || (lost && !self.calm) {
            self.lost += 1;
            return Vec::new();
        }
        if doubled && !self.calm {
            self.doubled += 1;
            return delays.to_vec();
        }
        vec![delays[0]]
    }

    fn delay(&mut self) -> u64 {
        let usual = self.plan.delay_us + self.rng.below(self.plan.jitter_us + 1);
        let late = self.rng.chance(self.plan.late);
        let more = self.rng.below(40_000);
        if late && !self.calm { usual + more } else { usual }
    }

    /// Nothing from `from` reaches `to` any more.
    pub fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }

    /// Every node reaches every other again.
    pub fn heal(&mut self) {
        self.blocked.clear();
    }

    /// From now on every message arrives once and soon.
    pub fn calm(&mut self) {
        self.calm = true;
        self.heal();
    }
}
