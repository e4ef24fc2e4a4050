//! The limits in force, and what is taken of each.
//!
//! A **bucket** is what one limit counts together: all of its calls, or those of one limit key. It knows how many run,
//! how many wait, and until when its rate is spent. Buckets of keys are made when a call of the key comes and forgotten when
//! nothing refers to them and their rate is whole again, so keys that come once leave nothing behind.
//!
//! A rate is kept as the instant at which it would be whole again (`spent_until`): each call that begins moves it by one
//! interval, and a call may begin while it lies less than `burst` intervals ahead. Nothing has to be added as time goes by.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use slotmap::{SlotMap, new_key_type};
use tokio::time::Instant;

use super::LaneKey;
use crate::limits::{LimitRule, Rate};

new_key_type! {
    /// A bucket.
    pub(crate) struct BucketKey;
}

/// Buckets that are looked at, when one is made, for whether they can be forgotten: as more are forgotten than made, they
/// do not gather.
const FORGOTTEN_PER_NEW: usize = 2;

pub(super) type LimitKeyOf = Option<Arc<str>>;

/// A limit that is to be in force.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    pub(crate) limit: Arc<LimitRule>,
    /// Not one of the configuration.
    pub(crate) is_stored: bool,
}

/// A limit in force.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) limit: Arc<LimitRule>,
    pub(super) is_stored: bool,
    /// Of each key; of `None`, if keys are not told apart.
    pub(super) buckets: HashMap<LimitKeyOf, BucketKey>,
    /// Calls that had to wait for it, since the start.
    pub(super) throttled: u64,
}

#[derive(Debug)]
pub(super) struct Bucket {
    /// Which limit, by its number.
    pub(super) rule: usize,
    pub(super) key: LimitKeyOf,
    /// Attempts that run, those included that were given up and keep their place.
    pub(super) running: u32,
    /// Attempts that wait, for whatever.
    pub(super) waiting: usize,
    /// Lanes and functions that refer to it.
    pub(super) referred: usize,
    spent_until: Option<Instant>,
    /// When somebody waits for its rate: until when.
    timer: Option<Instant>,
    /// Under which it is in `Buckets::forgettable`.
    forgettable: Option<Instant>,
    /// Lanes that wait for it: higher priorities first, then as they came.
    pub(super) parked: BTreeSet<(Reverse<u8>, u64, LaneKey)>,
}

/// All limits and buckets.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    pub(super) rules: Vec<Rule>,
    table: SlotMap<BucketKey, Bucket>,
    /// When somebody's wait for a rate is over.
    timers: BTreeSet<(Instant, BucketKey)>,
    /// Nothing refers to them, and their rate is whole at this time.
    forgettable: BTreeSet<(Instant, BucketKey)>,
}

/// Why a bucket takes no further attempt now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// As many run as may.
    Full,
    /// Its rate is spent until then.
    Spent(Instant),
}

impl Buckets {
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn get(&self, key: BucketKey) -> Option<&Bucket> {
        self.table.get(key)
    }

    pub(super) fn get_mut(&mut self, key: BucketKey) -> Option<&mut Bucket> {
        self.table.get_mut(key)
    }

    pub(super) fn limit(&self, rule: usize) -> &Arc<LimitRule> {
        &self.rules[rule].limit
    }

    /// How many buckets there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table.len()
    }

    /// The bucket that a limit counts calls of this key in, if there is one.
    pub(super) fn find(&self, rule: usize, key: &LimitKeyOf) -> Option<BucketKey> {
        let rule = self.rules.get(rule)?;
        let key = if rule.limit.per_key { key } else { &None };
        rule.buckets.get(key).copied()
    }

    /// The same, made if need be.
    pub(super) fn open(&mut self, rule: usize, key: &LimitKeyOf, now: Instant) -> BucketKey {
        if let Some(found) = self.find(rule, key) {
            return found;
        }
        self.forget_some(now);
        let key = if self.rules[rule].limit.per_key { key.clone() } else { None };
        let bucket = self.table.insert(Bucket {
            rule,
            key: key.clone(),
            running: 0,
            waiting: 0,
            referred: 0,
            spent_until: None,
            timer: None,
            forgettable: None,
            parked: BTreeSet::new(),
        });
        self.rules[rule].buckets.insert(key, bucket);
        bucket
    }

    fn forget_some(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_PER_NEW {
            match self.forgettable.first() {
                Some((whole_at, key)) if *whole_at <= now => {
                    let key = *key;
                    self.forget(key);
                }
                _ => return,
            }
        }
    }

    fn forget(&mut self, key: BucketKey) {
        let Some(bucket) = self.table.remove(key) else { return };
        if let Some(at) = bucket.forgettable {
            self.forgettable.remove(&(at, key));
        }
        if let Some(at) = bucket.timer {
            self.timers.remove(&(at, key));
        }
        self.rules[bucket.rule].buckets.remove(&bucket.key);
    }

    /// Something refers to it from now on.
    pub(super) fn refer(&mut self, key: BucketKey) {
        let Some(bucket) = self.table.get_mut(key) else { return };
        bucket.referred += 1;
        if let Some(at) = bucket.forgettable.take() {
            self.forgettable.remove(&(at, key));
        }
    }

    /// Something refers to it no longer.
    pub(super) fn unrefer(&mut self, key: BucketKey, now: Instant) {
        if let Some(bucket) = self.table.get_mut(key) {
            bucket.referred -= 1;
            self.tidy(key, now);
        }
    }

    /// Forgets a bucket that says nothing any more, now or once its rate is whole.
    pub(super) fn tidy(&mut self, key: BucketKey, now: Instant) {
        let Some(bucket) = self.table.get_mut(key) else { return };
        if bucket.referred > 0 || bucket.running > 0 {
            return;
        }
        match bucket.spent_until {
            Some(whole_at) if whole_at > now => {
                if bucket.forgettable != Some(whole_at) {
                    if let Some(at) = bucket.forgettable.replace(whole_at) {
                        self.forgettable.remove(&(at, key));
                    }
                    self.forgettable.insert((whole_at, key));
                }
            }
            _ => self.forget(key),
        }
    }

    /// Whether one more attempt may run in it now.
    pub(super) fn closed(&self, key: BucketKey, now: Instant) -> Option<Closed> {
        let bucket = self.table.get(key)?;
        let limit = &self.rules[bucket.rule].limit;
        if limit.concurrency.is_some_and(|most| bucket.running >= most) {
            return Some(Closed::Full);
        }
        let rate = limit.rate?;
        let ahead = bucket.spent_until?.saturating_duration_since(now);
        let too_far = ahead.checked_sub(rate.interval() * (rate.burst() - 1))?;
        (!too_far.is_zero()).then(|| Closed::Spent(now + too_far))
    }

    /// As [`Buckets::closed`]; if time alone opens it, it is looked at again then.
    pub(super) fn closed_until_looked_at(&mut self, key: BucketKey, now: Instant) -> bool {
        match self.closed(key, now) {
            None => false,
            Some(Closed::Full) => true,
            Some(Closed::Spent(at)) => {
                if let Some(bucket) = self.table.get_mut(key)
                    && bucket.timer != Some(at)
                {
                    if let Some(earlier) = bucket.timer.replace(at) {
                        self.timers.remove(&(earlier, key));
                    }
                    self.timers.insert((at, key));
                }
                true
            }
        }
    }

    /// So many more, or less, wait that it counts.
    pub(super) fn count_waiting(&mut self, key: BucketKey, change: isize) {
        let Some(bucket) = self.table.get_mut(key) else { return };
        bucket.waiting = bucket.waiting.saturating_add_signed(change);
        if bucket.waiting == 0
            && let Some(at) = bucket.timer.take()
        {
            self.timers.remove(&(at, key));
        }
    }

    /// An attempt begins to run in it.
    pub(super) fn take(&mut self, key: BucketKey, now: Instant) {
        self.hold(key);
        let Some(bucket) = self.table.get_mut(key) else { return };
        if let Some(rate) = self.rules[bucket.rule].limit.rate {
            bucket.spent_until = Some(bucket.spent_until.map_or(now, |spent| spent.max(now)) + rate.interval());
        }
    }

    /// An attempt that runs already is counted in it.
    pub(super) fn hold(&mut self, key: BucketKey) {
        if let Some(bucket) = self.table.get_mut(key) {
            bucket.running += 1;
            if let Some(at) = bucket.forgettable.take() {
                self.forgettable.remove(&(at, key));
            }
        }
    }

    /// An attempt runs in it no longer. Returns whether somebody may have waited for that.
    pub(super) fn give_back(&mut self, key: BucketKey, now: Instant) -> bool {
        let Some(bucket) = self.table.get_mut(key) else { return false };
        bucket.running -= 1;
        let reopened = self.rules[bucket.rule].limit.concurrency.is_some_and(|most| bucket.running + 1 == most);
        let awaited = reopened && bucket.waiting > 0;
        self.tidy(key, now);
        awaited
    }

    /// When to look at a bucket again that somebody waits for.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A bucket that time has opened.
    pub(super) fn pop_timer(&mut self, now: Instant) -> Option<BucketKey> {
        let (at, key) = *self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, key));
        if let Some(bucket) = self.table.get_mut(key) {
            bucket.timer = None;
        }
        Some(key)
    }

    /// How many more may run at once.
    pub(super) fn room(&self, key: BucketKey) -> usize {
        let Some(bucket) = self.table.get(key) else { return usize::MAX };
        let most = self.rules[bucket.rule].limit.concurrency;
        most.map_or(usize::MAX, |most| most.saturating_sub(bucket.running) as usize)
    }

    /// How many may begin at once now; `None`: the limit has no rate.
    pub(super) fn tokens(&self, key: BucketKey, now: Instant) -> Option<u32> {
        let bucket = self.table.get(key)?;
        let rate = self.rules[bucket.rule].limit.rate?;
        Some(rate.burst().saturating_sub(spent(rate, bucket.spent_until, now)))
    }

    /// Puts other limits into force. What is spent of a rate is not given back by that; all else is to be counted anew.
    pub(super) fn replace(&mut self, limits: Vec<InForce>, now: Instant) {
        let old = std::mem::take(self);
        self.rules = limits
            .into_iter()
            .map(|InForce { limit, is_stored }| Rule { limit, is_stored, buckets: HashMap::new(), throttled: 0 })
            .collect();
        for (number, rule) in old.rules.iter().enumerate() {
            let Some(at) = self.rules.iter().position(|new| new.limit.name == rule.limit.name) else { continue };
            self.rules[at].throttled = rule.throttled;
            let (Some(old_rate), Some(rate)) = (rule.limit.rate, self.rules[at].limit.rate) else { continue };
            if rule.limit.per_key != self.rules[at].limit.per_key {
                continue;
            }
            for bucket in old.table.values().filter(|bucket| bucket.rule == number) {
                let spent = spent(old_rate, bucket.spent_until, now).min(rate.burst());
                if spent > 0 {
                    let key = self.open(at, &bucket.key, now);
                    if let Some(bucket) = self.table.get_mut(key) {
                        bucket.spent_until = Some(now + rate.interval() * spent);
                    }
                    self.tidy(key, now);
                }
            }
        }
    }
}

/// How many of a burst are spent.
fn spent(rate: Rate, spent_until: Option<Instant>, now: Instant) -> u32 {
    let ahead = spent_until.map_or(0, |until| until.saturating_duration_since(now).as_nanos());
    u32::try_from(ahead.div_ceil(rate.interval().as_nanos().max(1))).unwrap_or(u32::MAX)
}
