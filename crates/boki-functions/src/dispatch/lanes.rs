//! Lanes: what waits of one function, on one level, at one priority, for one limit key. First in, first out.
//!
//! All calls in a lane are held to the same limits, so a lane is either **ready** (its first call needs nothing but a place
//! in a worker), or **parked** at one bucket that takes no further call now. Ready lanes of a level are in the order in which
//! they are served: higher priorities before lower ones, and within a priority by virtual time, which is what makes keys
//! share fairly:
//!
//! Each lane has a virtual `start`; the lane with the least is served, and its start moves on by one call's share, the
//! smaller the larger its weight. A lane that begins to wait starts at the present virtual time of its priority, or where
//! it was, if that is later: it gets no credit for not having asked. The present moves on, with each call served, by one
//! share of all weights that compete, and is never more than one call ahead of those that wait: so it passes every start in
//! the end, whatever comes anew, and no lane starves. Of equal starts the one not served for longer comes first, so a key that
//! asks after a while waits for no more than the calls that run.
//!
//! A lane in which nothing waits is kept while its start lies ahead of the present (else it would be first again by
//! emptying), and forgotten as the present passes it, or when nothing waits at its priority any more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::{AttemptKey, BucketKey, Dispatch, FunctionKey, LaneKey};

/// Virtual time that one call of weight 1 takes.
const SHARE: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId {
    pub(super) level: u8,
    pub(super) priority: u8,
    pub(super) key: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Nothing waits in it.
    Empty,
    Ready,
    Parked {
        at: BucketKey,
        order: u64,
    },
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) function: FunctionKey,
    pub(super) id: LaneId,
    /// Keys of attempts that were given up stay in here until they come to the front or the lane is swept.
    pub(super) queue: VecDeque<AttemptKey>,
    pub(super) waiting: usize,
    pub(super) weight: u32,
    pub(super) start: u64,
    /// When it was last served.
    pub(super) served: u64,
    /// When it was made.
    pub(super) order: u64,
    /// Of its key; those of its function come in addition.
    pub(super) buckets: Vec<BucketKey>,
    pub(super) state: LaneState,
}

/// The place of a ready lane in its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) priority: Reverse<u8>,
    start: u64,
    served: u64,
    order: u64,
    pub(super) lane: LaneKey,
}

impl Lane {
    fn due(&self, lane: LaneKey) -> Due {
        let Lane { start, served, order, .. } = *self;
        Due { priority: Reverse(self.id.priority), start, served, order, lane }
    }

    fn share(&self) -> u64 {
        (SHARE / u64::from(self.weight)).max(1)
    }
}

/// What waits of a function on one level.
#[derive(Debug, Default)]
pub(super) struct Level {
    pub(super) ready: BTreeSet<Due>,
    classes: BTreeMap<u8, Class>,
}

/// The lanes of one priority.
#[derive(Debug, Default)]
struct Class {
    /// The present virtual time.
    now: u64,
    /// Lanes in which something waits.
    waiting: usize,
    /// Of the lanes that are ready, and of those that are ahead.
    weight: u64,
    /// Lanes that are not ready and have had more than their share so far.
    ahead: BTreeSet<(u64, LaneKey)>,
}

impl Dispatch {
    /// The lane of this id, made if need be.
    pub(super) fn lane(&mut self, function_key: FunctionKey, id: LaneId, now: Instant) -> LaneKey {
        let Some(function) = self.functions.get(function_key) else { return LaneKey::default() };
        if let Some(lane) = function.lanes.get(&id) {
            return *lane;
        }
        let buckets = self.open_buckets(function_key, &id.key, now);
        for bucket in &buckets {
            self.buckets.refer(*bucket);
        }
        self.order += 1;
        let lane = self.lanes.insert(Lane {
            function: function_key,
            weight: self.weight_of(function_key, &id.key),
            id: id.clone(),
            queue: VecDeque::new(),
            waiting: 0,
            start: 0,
            served: 0,
            order: self.order,
            buckets,
            state: LaneState::Empty,
        });
        if let Some(function) = self.functions.get_mut(function_key) {
            function.lanes.insert(id, lane);
        }
        lane
    }

    /// Something begins to wait in a lane in which nothing did, or may go on after it was parked.
    pub(super) fn settle_lane(&mut self, key: LaneKey, now: Instant) {
        let Some(lane) = self.lanes.get(key) else { return };
        let closed = (0..lane.buckets.len()).find_map(|at| {
            let bucket = self.lanes[key].buckets[at];
            self.buckets.closed_until_looked_at(bucket, now).then_some(bucket)
        });
        match closed {
            Some(bucket) => self.park(key, bucket),
            None => self.make_ready(key),
        }
    }

    pub(super) fn park(&mut self, key: LaneKey, at: BucketKey) {
        self.unready(key);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        self.order += 1;
        lane.state = LaneState::Parked { at, order: self.order };
        if let Some(bucket) = self.buckets.get_mut(at) {
            bucket.parked.insert((Reverse(lane.id.priority), self.order, key));
        }
    }

    fn make_ready(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(function) = self.functions.get_mut(lane.function) else { return };
        let level = function.level(lane.id.level);
        let class = level.classes.entry(lane.id.priority).or_default();
        if !class.ahead.remove(&(lane.start, key)) {
            class.weight += u64::from(lane.weight);
        }
        lane.start = lane.start.max(class.now);
        lane.state = LaneState::Ready;
        level.ready.insert(lane.due(key));
        function.ready += 1;
        if function.ready == 1 {
            self.hot.insert(lane.function);
        }
    }

    /// A lane is no longer ready; the caller says what it is instead.
    pub(super) fn unready(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.state == LaneState::Ready) else { return };
        let Some(function) = self.functions.get_mut(lane.function) else { return };
        let level = function.level(lane.id.level);
        level.ready.remove(&lane.due(key));
        let class = level.classes.entry(lane.id.priority).or_default();
        if lane.start > class.now {
            class.ahead.insert((lane.start, key));
        } else {
            class.weight -= u64::from(lane.weight);
        }
        lane.state = LaneState::Empty;
        function.ready -= 1;
        if function.ready == 0 {
            self.hot.remove(&lane.function);
        }
    }

    /// Something waits in a lane, for the first time since nothing did.
    pub(super) fn note_waiting(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get(key) else { return };
        let Some(function) = self.functions.get_mut(lane.function) else { return };
        function.level(lane.id.level).classes.entry(lane.id.priority).or_default().waiting += 1;
    }

    /// Nothing waits in a lane any more.
    pub(super) fn empty_lane(&mut self, key: LaneKey, now: Instant) {
        self.unready(key);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if let LaneState::Parked { at, order } = std::mem::replace(&mut lane.state, LaneState::Empty)
            && let Some(bucket) = self.buckets.get_mut(at)
        {
            bucket.parked.remove(&(Reverse(lane.id.priority), order, key));
        }
        lane.queue.clear();
        let priority = lane.id.priority;
        let Some(function) = self.functions.get_mut(lane.function) else { return };
        let level = function.level(lane.id.level);
        let class = level.classes.entry(priority).or_default();
        class.waiting -= 1;
        if class.waiting > 0 {
            if !class.ahead.contains(&(lane.start, key)) {
                self.drop_lane(key, now);
            }
            return;
        }
        let forgotten = level.classes.remove(&priority);
        self.drop_lane(key, now);
        for (_, lane) in forgotten.into_iter().flat_map(|class| class.ahead) {
            self.drop_lane(lane, now);
        }
    }

    fn drop_lane(&mut self, key: LaneKey, now: Instant) {
        let Some(lane) = self.lanes.remove(key) else { return };
        if let Some(function) = self.functions.get_mut(lane.function) {
            function.lanes.remove(&lane.id);
        }
        for bucket in lane.buckets {
            self.buckets.unrefer(bucket, now);
        }
    }

    /// The first call of a ready lane is served: virtual time moves on. The lane is still to be settled or emptied.
    pub(super) fn serve_lane(&mut self, key: LaneKey, now: Instant) {
        self.order += 1;
        let order = self.order;
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(function) = self.functions.get_mut(lane.function) else { return };
        let level = function.level(lane.id.level);
        level.ready.remove(&lane.due(key));
        let served_at = lane.start;
        lane.start += lane.share();
        lane.served = order;
        level.ready.insert(lane.due(key));
        let priority = Reverse(lane.id.priority);
        let first = Due { priority, start: 0, served: 0, order: 0, lane: LaneKey::default() };
        let least = level.ready.range(first..).next().map_or(lane.start, |due| due.start);
        let Some(class) = level.classes.get_mut(&lane.id.priority) else { return };
        let step = (SHARE / class.weight.max(1)).max(1);
        class.now = (class.now + step).min(least + SHARE).max(class.now).max(served_at);
        let mut passed = Vec::new();
        while let Some((start, ahead)) = class.ahead.first().copied().filter(|(start, _)| *start <= class.now) {
            class.ahead.remove(&(start, ahead));
            passed.push(ahead);
        }
        for ahead in passed {
            self.let_pass(ahead, now);
        }
    }

    /// The present has come to where a lane is that was ahead.
    fn let_pass(&mut self, key: LaneKey, now: Instant) {
        let Some(lane) = self.lanes.get(key) else { return };
        if let Some(function) = self.functions.get_mut(lane.function)
            && let Some(class) = function.level(lane.id.level).classes.get_mut(&lane.id.priority)
        {
            class.weight -= u64::from(lane.weight);
        }
        if lane.state == LaneState::Empty {
            self.drop_lane(key, now);
        }
    }

    /// Forgets how far lanes were, where other limits come into force.
    pub(super) fn reset_shares(&mut self) {
        for function in self.functions.values_mut() {
            function.levels.clear();
            function.ready = 0;
        }
        self.hot.clear();
        self.lanes.retain(|_, lane| {
            let keep = lane.waiting > 0;
            if !keep && let Some(function) = self.functions.get_mut(lane.function) {
                function.lanes.remove(&lane.id);
            }
            lane.state = LaneState::Empty;
            lane.start = 0;
            keep
        });
    }
}
