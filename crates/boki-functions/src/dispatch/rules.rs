//! Which limits hold for what, and putting others into force.

use std::sync::Arc;

use tokio::time::Instant;

use super::buckets::InForce;
use super::{AttemptKey, BucketKey, Dispatch, Flushes, Function, FunctionKey, LaneKey};
use crate::error::CallError;

impl Dispatch {
    /// Finds the limits on a function.
    pub(super) fn bind_limits(&mut self, key: FunctionKey, now: Instant) {
        let Some(function) = self.functions.get_mut(key) else { return };
        let (mut gates, mut keyed, mut weight) = (Vec::new(), Vec::new(), 1);
        for (number, rule) in self.buckets.rules.iter().enumerate() {
            if !rule.limit.matches_function(&function.name) {
                continue;
            }
            if rule.limit.asks_for_key() {
                keyed.push(number);
            } else {
                gates.push(number);
                weight = weight.max(rule.limit.weight.unwrap_or(1));
            }
        }
        (function.keyed, function.weight, function.left) = (keyed, weight, weight);
        let gates = gates.into_iter().map(|number| self.buckets.open(number, &None, now));
        function.gates = gates.collect();
        for gate in &function.gates {
            self.buckets.refer(*gate);
        }
    }

    /// A function goes.
    pub(super) fn unbind_limits(&mut self, key: FunctionKey, now: Instant) {
        let Some(function) = self.functions.get_mut(key) else { return };
        for gate in std::mem::take(&mut function.gates) {
            self.buckets.unrefer(gate, now);
        }
    }

    /// The buckets that calls of a function with this limit key are counted in, those of the function apart.
    pub(super) fn open_buckets(
        &mut self,
        key: FunctionKey,
        limit_key: &Option<Arc<str>>,
        now: Instant,
    ) -> Vec<BucketKey> {
        let Some(function) = self.functions.get(key) else { return Vec::new() };
        let mut open = Vec::new();
        for rule in &function.keyed {
            if self.buckets.limit(*rule).matches_key(limit_key.as_deref()) {
                open.push(self.buckets.open(*rule, limit_key, now));
            }
        }
        open
    }

    /// As [`Dispatch::open_buckets`], those only that are there already.
    pub(super) fn found_buckets(
        &self,
        function: &Function,
        limit_key: &Option<Arc<str>>,
    ) -> impl Iterator<Item = BucketKey> {
        function.keyed.iter().filter_map(|rule| {
            let is_held = self.buckets.limit(*rule).matches_key(limit_key.as_deref());
            if is_held { self.buckets.find(*rule, limit_key) } else { None }
        })
    }

    /// The share of a limit key among those of a function.
    pub(super) fn weight_of(&self, key: FunctionKey, limit_key: &Option<Arc<str>>) -> u32 {
        let Some(function) = self.functions.get(key) else { return 1 };
        let limits = function.keyed.iter().map(|rule| self.buckets.limit(*rule));
        let weights = limits.filter(|limit| limit.matches_key(limit_key.as_deref())).filter_map(|limit| limit.weight);
        weights.max().unwrap_or(1)
    }

    /// Whether the limits let one more call wait.
    pub(super) fn admitted_by_limits(
        &self,
        function: Option<FunctionKey>,
        limit_key: &Option<Arc<str>>,
    ) -> Result<(), CallError> {
        let Some(function) = function.and_then(|key| self.functions.get(key)) else { return Ok(()) };
        let keyed = function.keyed.iter().filter_map(|rule| {
            let limit = self.buckets.limit(*rule);
            limit.matches_key(limit_key.as_deref()).then_some((limit, self.buckets.find(*rule, limit_key)))
        });
        let gates = function.gates.iter().filter_map(|gate| {
            let bucket = self.buckets.get(*gate)?;
            Some((self.buckets.limit(bucket.rule), Some(*gate)))
        });
        for (limit, bucket) in gates.chain(keyed) {
            let Some(most) = limit.queue else { continue };
            let waiting = bucket.and_then(|bucket| self.buckets.get(bucket)).map_or(0, |bucket| bucket.waiting);
            if waiting >= most as usize {
                return Err(CallError::LimitReached { limit: Arc::clone(&limit.name), queue: most });
            }
        }
        Ok(())
    }

    /// One more, or one less, that waits in a lane.
    pub(super) fn count_waiting(&mut self, function: FunctionKey, lane: LaneKey, change: isize) {
        if self.buckets.is_empty() {
            return;
        }
        let gates = self.functions.get(function).map_or(&[][..], |function| &function.gates);
        let own = self.lanes.get(lane).map_or(&[][..], |lane| &lane.buckets);
        for bucket in gates.iter().chain(own) {
            self.buckets.count_waiting(*bucket, change);
        }
    }

    /// An attempt begins to wait: counts it for the limits that have it wait.
    pub(super) fn count_throttled(&mut self, function: FunctionKey, lane: LaneKey, now: Instant) {
        if self.buckets.is_empty() {
            return;
        }
        let gates = self.functions.get(function).map_or(&[][..], |function| &function.gates);
        let own = self.lanes.get(lane).map_or(&[][..], |lane| &lane.buckets);
        for bucket in gates.iter().chain(own) {
            if self.buckets.closed(*bucket, now).is_some()
                && let Some(rule) = self.buckets.get(*bucket).map(|bucket| bucket.rule)
            {
                self.buckets.rules[rule].throttled += 1;
            }
        }
    }

    /// Puts other limits into force: what runs is counted under them, and what waits and may run now, runs. If more
    /// runs than they allow, it runs down.
    pub(crate) fn set_limits(&mut self, limits: Vec<InForce>, now: Instant, flushes: &mut Flushes) {
        self.buckets.replace(limits, now);
        self.reset_shares();
        let functions: Vec<FunctionKey> = self.functions.keys().collect();
        for key in functions {
            self.bind_limits(key, now);
        }
        let attempts: Vec<AttemptKey> = self.attempts.keys().collect();
        for key in attempts {
            let Some(attempt) = self.attempts.get(key).filter(|attempt| attempt.worker.is_some()) else { continue };
            let (function, limit_key) = (attempt.function, attempt.limit_key.clone());
            let mut buckets = self.functions.get(function).map(|function| function.gates.clone()).unwrap_or_default();
            buckets.extend(self.open_buckets(function, &limit_key, now));
            for bucket in &buckets {
                self.buckets.hold(*bucket);
            }
            if let Some(attempt) = self.attempts.get_mut(key) {
                attempt.buckets = buckets;
            }
        }
        let mut lanes: Vec<(u64, LaneKey)> = self.lanes.iter().map(|(key, lane)| (lane.order, key)).collect();
        lanes.sort_unstable();
        for (_, key) in lanes {
            let Some(lane) = self.lanes.get(key) else { continue };
            let (function, limit_key) = (lane.function, lane.id.key.clone());
            let (waiting, weight) = (lane.waiting, self.weight_of(function, &limit_key));
            let buckets = self.open_buckets(function, &limit_key, now);
            for bucket in &buckets {
                self.buckets.refer(*bucket);
            }
            if let Some(lane) = self.lanes.get_mut(key) {
                (lane.buckets, lane.weight) = (buckets, weight);
            }
            self.count_waiting(function, key, isize::try_from(waiting).unwrap_or(isize::MAX));
            self.note_waiting(key);
            self.settle_lane(key, now);
        }
        self.start_ready(now, flushes);
        self.note_all_demand(flushes);
        flushes.timer = self.buckets.next_timer();
    }
}
