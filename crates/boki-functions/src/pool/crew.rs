//! How many processes a pool has: when one is started, and which one leaves.
//!
//! A pure machine: it is told what happens and what the time is, and [`Crew::decide`] says what to do now. It
//! starts and ends nothing, and knows neither processes nor connections.
//!
//! A **member** is a process of the pool. It is *starting* until it has registered, then it *serves*, and at
//! last it is *leaving*: it takes no more calls. A member that is to be **replaced** (its code is old, it has
//! done its share of calls, it is too old) serves until its replacement does.
//!
//! Invariants:
//! - Members that start or serve and are not to be replaced: never more than `max`. While members are replaced
//!   there is one more.
//! - While the pool runs, what is missing to the wanted number is started, unless starts fail: then after a pause
//!   that grows. The wanted number is never below `min`.
//! - A pool grows when calls wait: by as many processes as the calls need, at most doubling at a time. It
//!   shrinks by one process at a time, each of which was idle for `idle_after`.
//! - There is a time to look again ([`Crew::next_look`]) only while something is going to be due.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::backoff;
use crate::dispatch::Wanted;

/// What a pool may and must have.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// A process without calls for so long leaves, if it is not among the `min`.
    pub(crate) idle_after: Duration,
    /// A process that has not registered after so long is killed; a pool that could not serve for so long fails.
    pub(crate) start_timeout: Duration,
    /// A process that has been given so many calls is replaced.
    pub(crate) max_calls: Option<u64>,
    /// A process that has served for so long is replaced.
    pub(crate) max_age: Option<Duration>,
    pub(crate) restart_pause: Duration,
    pub(crate) restart_pause_max: Duration,
    /// A process that lived so long was sound: the pause begins at its shortest again.
    pub(crate) healthy_after: Duration,
}

/// Which process of a pool, from 1. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberNumber(pub(crate) u64);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process.
    Start(MemberNumber),
    /// No more calls for it; it ends when it has finished what it has.
    Drain(MemberNumber),
    /// It did not register in time.
    Kill(MemberNumber),
}

/// What the calls ask of a pool now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// Calls that wait for a place in a worker.
    pub(crate) waiting: usize,
    pub(crate) workers: Vec<WorkerLoad>,
}

/// What a member has to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerLoad {
    pub(crate) member: MemberNumber,
    /// Since when it has had no call; `None`: it has some.
    pub(crate) idle_since: Option<Instant>,
    /// How many it has.
    pub(crate) running: usize,
    /// Calls that it takes at once.
    pub(crate) places: usize,
    /// Calls that it has been given in all.
    pub(crate) given: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Serving,
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    stage: Stage,
    /// When it was started.
    born: Instant,
    /// When its stage began.
    since: Instant,
    idle_since: Option<Instant>,
    is_replaced: bool,
}

impl Member {
    fn is_current(&self, stage: Stage) -> bool {
        self.stage == stage && !self.is_replaced
    }
}

/// The processes of a pool.
#[derive(Debug)]
pub(crate) struct Crew {
    rules: Rules,
    /// By which the pauses of pools that fail together differ.
    name: String,
    members: BTreeMap<MemberNumber, Member>,
    last_number: u64,
    /// How many members there should be.
    wanted: usize,
    waiting: usize,
    /// Calls that a member takes at once, as far as is known.
    places: usize,
    /// What the pool offers is not known until a member has registered.
    is_learning: bool,
    /// Processes in a row that ended before they were sound.
    failures: u32,
    /// No start before this.
    paused_until: Option<Instant>,
    /// Since when a member is missing and none serves.
    down_since: Option<Instant>,
    is_closing: bool,
    /// Members that had done their share, or were too old.
    recycled: u64,
}

impl Crew {
    pub(crate) fn new(name: &str, rules: Rules, now: Instant) -> Crew {
        Crew {
            wanted: rules.min.max(1),
            rules,
            name: name.to_owned(),
            members: BTreeMap::new(),
            last_number: 0,
            waiting: 0,
            places: 1,
            is_learning: true,
            failures: 0,
            paused_until: None,
            down_since: Some(now),
            is_closing: false,
            recycled: 0,
        }
    }

    /// A member has registered.
    pub(crate) fn registered(&mut self, number: MemberNumber, now: Instant) {
        let Some(member) = self.members.get_mut(&number) else { return };
        if member.stage == Stage::Starting {
            (member.stage, member.since, member.idle_since) = (Stage::Serving, now, Some(now));
        }
        if !member.is_replaced {
            self.is_learning = false;
        }
        self.down_since = None;
    }

    /// A member's connection has ended: it will connect again, or end.
    pub(crate) fn disconnected(&mut self, number: MemberNumber, now: Instant) {
        if let Some(member) = self.members.get_mut(&number)
            && member.stage == Stage::Serving
        {
            (member.stage, member.since) = (Stage::Starting, now);
        }
    }

    /// A member has ended, or could not be started.
    pub(crate) fn ended(&mut self, number: MemberNumber, now: Instant) {
        let Some(member) = self.members.remove(&number) else { return };
        if member.stage == Stage::Leaving {
            return;
        }
        if now.saturating_duration_since(member.born) >= self.rules.healthy_after {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let Rules { restart_pause, restart_pause_max, .. } = self.rules;
        self.paused_until = Some(now + backoff(restart_pause, restart_pause_max, self.failures, &self.name));
    }

    /// Every member is to be replaced, and what the pool offers is to be learned again.
    pub(crate) fn replace_all(&mut self) {
        self.is_learning = true;
        self.paused_until = None;
        for member in self.members.values_mut() {
            member.is_replaced = true;
        }
    }

    /// A member gets no more calls, whatever the others can take.
    pub(crate) fn dismiss(&mut self, number: MemberNumber) {
        if let Some(member) = self.members.get_mut(&number) {
            member.stage = Stage::Leaving;
        }
    }

    /// How many had done their share or were too old, since this was last asked.
    pub(crate) fn take_recycled(&mut self) -> u64 {
        std::mem::take(&mut self.recycled)
    }

    /// Everybody leaves, and nobody comes.
    pub(crate) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Closed, and the last one has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_closing && self.members.is_empty()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Calls wait in vain, as far as can be said.
    pub(crate) fn is_failing(&self, now: Instant) -> bool {
        !self.is_closing && self.down_since.is_some_and(|since| now >= since + self.rules.start_timeout)
    }

    /// Until when no further process is started, if one is missing.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// None is there, and none is missing.
    pub(crate) fn is_asleep(&self) -> bool {
        self.members.is_empty() && self.wanted == 0
    }

    /// It takes no more calls, or is not there.
    pub(crate) fn is_leaving(&self, number: MemberNumber) -> bool {
        self.members.get(&number).is_none_or(|member| member.stage == Stage::Leaving)
    }

    /// What it has to be told, as it may change what is decided. While a member starts, nothing more is started, and
    /// while one is idle, there is a time to look again.
    pub(crate) fn wants(&self, load: &Load) -> Wanted {
        let is_starting = self.members.values().any(|member| member.stage == Stage::Starting);
        let is_one_idle = load.workers.iter().any(|worker| worker.idle_since.is_some());
        Wanted {
            waiting: !self.is_closing && !is_starting && self.wanted < self.rules.max,
            idle: !self.is_closing && !is_one_idle && self.wanted > self.floor(),
        }
    }

    /// What is to be done now, given what the calls ask.
    pub(crate) fn decide(&mut self, load: &Load, now: Instant) -> Vec<Action> {
        self.take(load, now);
        let mut actions = Vec::new();
        if self.is_closing {
            self.drain_where(|_| true, usize::MAX, now, &mut actions);
            return actions;
        }
        // One that is to be replaced and has not even registered is of no use.
        self.drain_where(|member| member.is_replaced && member.stage == Stage::Starting, usize::MAX, now, &mut actions);
        self.grow();
        self.shrink(now, &mut actions);
        self.give_up_late(now, &mut actions);
        self.let_replaced_go(now, &mut actions);
        self.start_missing(now, &mut actions);
        let is_down = self.wanted > 0 && !self.members.values().any(|member| member.stage == Stage::Serving);
        self.down_since = if is_down { self.down_since.or(Some(now)) } else { None };
        actions
    }

    /// When to decide again, if nothing happens until then.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        if self.is_closing {
            return None;
        }
        let mut looks = Vec::new();
        let is_leaving = self.members.values().any(|member| member.stage == Stage::Leaving);
        for member in self.members.values() {
            match member.stage {
                Stage::Starting => looks.push(member.since + self.rules.start_timeout),
                Stage::Serving => {
                    if self.wanted > self.floor() && self.waiting == 0 && !is_leaving {
                        looks.extend(member.idle_since.map(|since| since + self.rules.idle_after));
                    }
                    if !member.is_replaced {
                        looks.extend(self.rules.max_age.map(|age| member.born + age));
                    }
                }
                Stage::Leaving => {}
            }
        }
        if self.missing() > 0 {
            looks.extend(self.paused_until);
        }
        looks.extend(self.down_since.map(|since| since + self.rules.start_timeout));
        looks.into_iter().filter(|look| *look > now).min()
    }

    fn take(&mut self, load: &Load, now: Instant) {
        self.waiting = load.waiting;
        for worker in &load.workers {
            let Some(member) = self.members.get_mut(&worker.member) else { continue };
            member.idle_since = worker.idle_since;
            self.places = worker.places.max(1);
            let is_spent = self.rules.max_calls.is_some_and(|most| worker.given >= most);
            let is_old = self.rules.max_age.is_some_and(|age| now >= member.born + age);
            if (is_spent || is_old) && !member.is_replaced {
                member.is_replaced = true;
                self.recycled += 1;
            }
        }
    }

    fn floor(&self) -> usize {
        self.rules.min.max(usize::from(self.is_learning))
    }

    fn count(&self, stage: Stage) -> usize {
        self.members.values().filter(|member| member.is_current(stage)).count()
    }

    /// Members that are to be replaced, and still serve or start.
    fn replaced(&self) -> usize {
        self.members.values().filter(|member| member.is_replaced && member.stage != Stage::Leaving).count()
    }

    fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.count(Stage::Serving) + self.count(Stage::Starting))
    }

    fn grow(&mut self) {
        let serving = self.count(Stage::Serving);
        if self.waiting > 0 {
            let needed = serving + self.waiting.div_ceil(self.places);
            self.wanted = self.wanted.max(needed.min((2 * serving).max(1)).min(self.rules.max));
        } else {
            // One that has gone is missed only if it is among the least.
            let present = self.members.values().filter(|member| member.stage != Stage::Leaving).count();
            self.wanted = self.wanted.min(present);
        }
        self.wanted = self.wanted.max(self.floor());
    }

    /// One at a time: the next one leaves when the last one has ended.
    fn shrink(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let is_leaving = self.members.values().any(|member| member.stage == Stage::Leaving);
        if self.waiting > 0 || is_leaving || self.wanted <= self.floor() {
            return;
        }
        let idle_after = self.rules.idle_after;
        let is_idle = |member: &Member| {
            member.stage == Stage::Serving && member.idle_since.is_some_and(|since| now >= since + idle_after)
        };
        self.wanted -= self.drain_where(is_idle, 1, now, actions);
    }

    fn give_up_late(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for (number, member) in &mut self.members {
            if member.stage == Stage::Starting && now >= member.since + self.rules.start_timeout {
                // Its end comes soon, and counts as that of one that was not sound.
                member.since = now;
                actions.push(Action::Kill(*number));
            }
        }
    }

    /// Those for whom somebody serves already.
    fn let_replaced_go(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let spare = (self.count(Stage::Serving) + self.replaced()).saturating_sub(self.wanted);
        self.drain_where(|member| member.is_replaced && member.stage == Stage::Serving, spare, now, actions);
    }

    fn start_missing(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let missing = match self.replaced() {
            0 => self.missing(),
            // One more than wanted, while they are replaced.
            replaced => self.missing().min((self.missing() + 1).saturating_sub(replaced)),
        };
        if missing == 0 {
            return;
        }
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        for _ in 0..missing {
            self.last_number += 1;
            let number = MemberNumber(self.last_number);
            let member = Member { stage: Stage::Starting, born: now, since: now, idle_since: None, is_replaced: false };
            self.members.insert(number, member);
            actions.push(Action::Start(number));
        }
    }

    /// The eldest `most` of those that `chosen` chooses leave. Returns how many there were.
    fn drain_where(
        &mut self,
        chosen: impl Fn(&Member) -> bool,
        most: usize,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> usize {
        let leaving = self.members.iter_mut().filter(|(_, member)| member.stage != Stage::Leaving && chosen(member));
        let mut count = 0;
        for (number, member) in leaving.take(most) {
            (member.stage, member.since) = (Stage::Leaving, now);
            actions.push(Action::Drain(*number));
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests;
