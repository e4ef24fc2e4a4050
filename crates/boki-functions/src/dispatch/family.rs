//! Calls that functions make: what they inherit, and how they end with who made them.
//!
//! A call that comes from outside is on **level** 0, a call that an attempt makes on the level below that attempt's. Each worker
//! has all of its places on every level. So nesting cannot block itself: calls on the deepest level wait for no other call,
//! so each of them ends, and the places there come free again and again; then calls one level up, which wait for none but
//! those, end too; and so on up to level 0. No call ever waits for a place that its own ancestor, or any other call on
//! an ancestor's level, holds.
//!
//! Limits do not know levels, or they could be exceeded. What cannot end is refused instead: a call for which a limit has
//! no place left because the call's own ancestors hold all of them.
//!
//! An attempt that ends or is given up takes its children with it, those excepted that are on record.

use std::collections::BTreeSet;
use std::sync::Arc;

use boki_log::BookId;
use boki_wire::worker::{CallId, CancelReason};
use tokio::time::Instant;

use super::{Attempt, AttemptKey, Dispatch, Flushes, Request};
use crate::error::CallError;
use crate::exchange::Ended;

/// What a call has from the attempt that makes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lineage {
    /// The level that it runs on.
    pub(crate) level: u8,
    /// The caller's own deadline.
    pub(crate) until: Option<Instant>,
}

impl Dispatch {
    /// What a call of `function` has from the attempt `parent`; `None`: that has ended.
    ///
    /// # Errors
    /// [`CallError::NestedTooDeep`].
    pub(crate) fn lineage(&self, parent: AttemptKey, function: &Arc<str>) -> Result<Option<Lineage>, CallError> {
        let Some(attempt) = self.attempts.get(parent) else { return Ok(None) };
        let Some(request) = &attempt.request else { return Ok(None) };
        let level = attempt.level.saturating_add(1);
        if level >= self.config.max_depth {
            let mut chain: Vec<&str> = self.ancestors(parent).map(|(_, attempt)| self.name_of(attempt)).collect();
            chain.reverse();
            let (function, chain) = (Arc::clone(function), chain.join(" > ").into());
            return Err(CallError::NestedTooDeep { function, limit: self.config.max_depth, chain });
        }
        // An output that has begun may take as long as somebody reads it.
        let until = if request.reply.has_begun() { None } else { attempt.until };
        Ok(Some(Lineage { level, until }))
    }

    /// That a call which waits for the call `id`, or for a place under the limits on it, does not wait for itself.
    ///
    /// # Errors
    /// [`CallError::WaitsForItself`].
    pub(crate) fn check_no_circle(
        &self,
        parent: AttemptKey,
        function: &Arc<str>,
        limit_key: &Option<Arc<str>>,
        on_record: Option<(BookId, CallId)>,
    ) -> Result<(), CallError> {
        let circle =
            |what: String| Err(CallError::WaitsForItself { function: Arc::clone(function), what: what.into() });
        if let Some((book, id)) = on_record {
            let is_same = |attempt: &Attempt| {
                attempt.request.as_ref().is_some_and(|request| {
                    request.invocation.id == id && request.invocation.book == book && request.on_record
                })
            };
            if self.ancestors(parent).any(|(_, attempt)| is_same(attempt)) {
                return circle(format!("call {id} was asked for in the course of itself"));
            }
        }
        let Some(known) = self.by_name.get(function).and_then(|key| self.functions.get(*key)) else {
            return Ok(());
        };
        for key in known.gates.iter().copied().chain(self.found_buckets(known, limit_key)) {
            let Some(bucket) = self.buckets.get(key) else { continue };
            let limit = self.buckets.limit(bucket.rule);
            let Some(most) = limit.concurrency else { continue };
            let held = self.ancestors(parent).filter(|(_, attempt)| attempt.buckets.contains(&key)).count();
            if held >= most as usize {
                return circle(format!("the calls that led to it hold all {most} places of limit {:?}", &*limit.name));
            }
        }
        Ok(())
    }

    /// The level that an attempt runs on.
    pub(super) fn level_of(&self, request: &Request) -> Result<u8, CallError> {
        let Some(parent) = request.standing.parent else { return Ok(request.standing.level) };
        let invocation = &request.invocation;
        match self.lineage(parent, &invocation.function)? {
            Some(lineage) => {
                self.check_no_circle(parent, &invocation.function, &request.standing.limit_key, None)?;
                Ok(lineage.level)
            }
            None => Err(CallError::Cancelled { id: invocation.id }),
        }
    }

    fn name_of(&self, attempt: &Attempt) -> &str {
        self.functions.get(attempt.function).map_or("", |function| &function.name)
    }

    /// An attempt and those that led to it, going up.
    fn ancestors(&self, from: AttemptKey) -> impl Iterator<Item = (AttemptKey, &Attempt)> {
        let found = |key: AttemptKey| self.attempts.get(key).map(|attempt| (key, attempt));
        std::iter::successors(found(from), move |(_, attempt)| attempt.parent.and_then(found))
    }

    /// An attempt is no longer among those that are given up with its parent.
    pub(super) fn leave_family(&mut self, attempt: &Attempt, key: AttemptKey) {
        if let Some(parent) = attempt.parent.and_then(|parent| self.attempts.get_mut(parent)) {
            parent.children.remove(&key);
        }
    }

    /// Gives up attempts whose caller has ended, with all that they have called.
    pub(super) fn give_up_all(&mut self, children: BTreeSet<AttemptKey>, now: Instant, flushes: &mut Flushes) {
        for child in children {
            // No deeper than the levels go.
            if let Some(request) = self.give_up(child, CancelReason::Caller, now, flushes) {
                let id = request.invocation.id;
                request.reply.send(Ended::Refused(CallError::Cancelled { id }));
            }
        }
    }
}
