use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rules(min: usize, max: usize) -> Rules {
    Rules {
        min,
        max,
        idle_after: 60 * SECOND,
        start_timeout: 30 * SECOND,
        max_calls: None,
        max_age: None,
        restart_pause: SECOND,
        restart_pause_max: 8 * SECOND,
        healthy_after: 10 * SECOND,
    }
}

/// A crew, the time, and what its members have to do.
struct Play {
    crew: Crew,
    now: Instant,
    load: Load,
}

impl Play {
    fn new(rules: Rules) -> Play {
        let now = Instant::now();
        Play { crew: Crew::new("shop", rules, now), now, load: Load::default() }
    }

    fn decide(&mut self) -> Vec<Action> {
        self.crew.decide(&self.load, self.now)
    }

    fn started(&mut self) -> Vec<MemberNumber> {
        let actions = self.decide();
        let start = |action| match action {
            Action::Start(number) => number,
            other => panic!("{other:?} instead of a start"),
        };
        actions.into_iter().map(start).collect()
    }

    fn register(&mut self, member: MemberNumber) {
        self.crew.registered(member, self.now);
        let idle_since = Some(self.now);
        self.load.workers.push(WorkerLoad { member, idle_since, running: 0, places: 10, given: 0 });
    }

    fn worker(&mut self, member: MemberNumber) -> &mut WorkerLoad {
        self.load.workers.iter_mut().find(|worker| worker.member == member).unwrap()
    }

    fn busy(&mut self, member: MemberNumber) {
        self.worker(member).idle_since = None;
    }

    fn idle(&mut self, member: MemberNumber) {
        self.worker(member).idle_since = Some(self.now);
    }

    fn end(&mut self, member: MemberNumber) {
        self.load.workers.retain(|worker| worker.member != member);
        self.crew.ended(member, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Waits until the crew wants to look again.
    fn wait(&mut self) {
        self.now = self.crew.next_look(self.now).expect("there is nothing to wait for");
    }

    /// So many members, all serving.
    fn serving(rules: Rules, count: usize) -> (Play, Vec<MemberNumber>) {
        let mut play = Play::new(rules);
        while play.load.workers.len() < count {
            play.load.waiting = (count - play.load.workers.len()) * 10;
            for member in play.started() {
                play.register(member);
                play.busy(member);
            }
        }
        play.load.waiting = 0;
        assert_eq!(play.decide(), []);
        let members = play.load.workers.iter().map(|worker| worker.member).collect();
        (play, members)
    }
}

#[test]
fn the_least_are_started_at_once_and_nothing_more() {
    let mut play = Play::new(rules(3, 5));
    assert_eq!(play.started().len(), 3);
    assert_eq!(play.decide(), []);
}

#[test]
fn a_pool_without_a_least_starts_one_to_learn_and_lets_it_go() {
    let mut play = Play::new(rules(0, 5));
    let members = play.started();
    assert_eq!(members.len(), 1);
    play.register(members[0]);
    assert_eq!(play.decide(), []);
    play.pass(60 * SECOND);
    assert_eq!(play.decide(), [Action::Drain(members[0])]);
    play.end(members[0]);
    assert_eq!(play.decide(), []);
    assert!(play.crew.is_asleep());
    assert_eq!(play.crew.next_look(play.now), None);
    play.load.waiting = 25;
    assert_eq!(play.started().len(), 1, "one learns how many calls a process takes");
}

#[test]
fn what_waits_starts_as_many_as_it_needs_at_most_doubling() {
    let (mut play, _) = Play::serving(rules(1, 9), 1);
    play.load.waiting = 1;
    let second = play.started();
    assert_eq!(second.len(), 1);
    play.load.waiting = 1000;
    assert_eq!(play.decide(), [], "the one that starts must serve first");
    play.register(second[0]);
    play.load.waiting = 11;
    let more = play.started();
    assert_eq!(more.len(), 2);
    more.into_iter().for_each(|member| play.register(member));
    play.load.waiting = 1000;
    let more = play.started();
    assert_eq!(more.len(), 4);
    more.into_iter().for_each(|member| play.register(member));
    assert_eq!(play.started().len(), 1, "there are nine at most");
}

#[test]
fn idle_ones_leave_one_by_one_and_the_least_stay() {
    let (mut play, members) = Play::serving(rules(1, 4), 3);
    for member in &members {
        play.idle(*member);
    }
    assert_eq!(play.decide(), []);
    play.wait();
    assert_eq!(play.decide(), [Action::Drain(members[0])]);
    assert_eq!(play.decide(), []);
    assert_eq!(play.crew.next_look(play.now), None, "the end of the first is waited for, not a time");
    play.end(members[0]);
    assert_eq!(play.decide(), [Action::Drain(members[1])]);
    play.end(members[1]);
    assert_eq!(play.decide(), []);
    assert_eq!(play.crew.next_look(play.now), None);
}

#[test]
fn who_was_busy_within_the_time_stays() {
    let (mut play, members) = Play::serving(rules(1, 2), 2);
    assert_eq!(play.crew.next_look(play.now), None, "all are busy");
    assert!(play.crew.wants(&play.load).idle);
    play.idle(members[1]);
    assert_eq!(play.decide(), []);
    play.pass(59 * SECOND);
    play.idle(members[1]);
    assert_eq!(play.decide(), []);
    play.pass(59 * SECOND);
    assert_eq!(play.decide(), []);
    play.pass(SECOND);
    assert_eq!(play.decide(), [Action::Drain(members[1])]);
}

#[test]
fn one_that_ends_is_started_again_after_a_pause_that_grows() {
    let mut play = Play::new(rules(1, 1));
    for pause in [1, 2, 4, 8, 8] {
        let member = play.started()[0];
        play.end(member);
        assert_eq!(play.decide(), []);
        let before = play.now;
        play.wait();
        let waited = play.now - before;
        assert!(waited >= pause * SECOND / 2 && waited <= pause * SECOND, "{waited:?}");
    }
    let member = play.started()[0];
    play.register(member);
    play.pass(10 * SECOND);
    play.end(member);
    play.decide();
    let before = play.now;
    play.wait();
    assert!(play.now - before <= SECOND, "it was sound");
}

#[test]
fn one_of_many_that_crashes_comes_back_only_if_it_is_missed() {
    let (mut play, members) = Play::serving(rules(1, 4), 3);
    play.end(members[0]);
    play.pass(10 * SECOND);
    assert_eq!(play.decide(), []);
    play.end(members[1]);
    play.load.waiting = 3;
    assert_eq!(play.decide(), []);
    play.wait();
    assert_eq!(play.started().len(), 1);
}

#[test]
fn one_that_does_not_register_in_time_is_killed_once_and_counts_as_failed() {
    let mut play = Play::new(rules(1, 1));
    let member = play.started()[0];
    play.wait();
    assert_eq!(play.decide(), [Action::Kill(member)]);
    assert!(play.crew.is_failing(play.now));
    assert_eq!(play.decide(), []);
    play.end(member);
    assert_eq!(play.decide(), []);
    play.wait();
    let next = play.started()[0];
    assert!(play.crew.is_failing(play.now));
    play.register(next);
    assert!(!play.crew.is_failing(play.now));
}

#[test]
fn a_pool_of_which_one_serves_does_not_fail() {
    let (mut play, _) = Play::serving(rules(1, 4), 1);
    play.load.waiting = 10;
    for _ in 0..10 {
        play.decide();
        play.wait();
        assert!(!play.crew.is_failing(play.now));
        for action in play.decide() {
            if let Action::Start(member) | Action::Kill(member) = action {
                play.end(member);
            }
        }
    }
}

#[test]
fn a_disconnected_one_has_the_time_of_a_start_to_come_back() {
    let (mut play, members) = Play::serving(rules(1, 1), 1);
    play.load.workers.clear();
    play.crew.disconnected(members[0], play.now);
    assert_eq!(play.decide(), []);
    play.pass(29 * SECOND);
    assert_eq!(play.decide(), []);
    play.register(members[0]);
    play.pass(29 * SECOND);
    assert_eq!(play.decide(), []);
    play.load.workers.clear();
    play.crew.disconnected(members[0], play.now);
    assert_eq!(play.decide(), []);
    play.wait();
    assert_eq!(play.decide(), [Action::Kill(members[0])]);
}

#[test]
fn replacing_goes_one_by_one_and_each_old_one_stays_until_a_new_one_serves() {
    let (mut play, old) = Play::serving(rules(2, 2), 2);
    play.crew.replace_all();
    let first = play.started();
    assert_eq!(first.len(), 1);
    assert_eq!(play.decide(), []);
    play.register(first[0]);
    let actions = play.decide();
    let [Action::Drain(gone), Action::Start(second)] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(gone, old[0]);
    play.register(second);
    assert_eq!(play.decide(), [Action::Drain(old[1])]);
    old.into_iter().for_each(|member| play.end(member));
    assert_eq!(play.decide(), []);
}

#[test]
fn replacing_wakes_a_pool_that_sleeps_and_ends_what_only_starts() {
    let mut play = Play::new(rules(0, 2));
    let first = play.started()[0];
    play.crew.replace_all();
    let actions = play.decide();
    let [Action::Drain(drained), Action::Start(second)] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(drained, first);
    play.end(first);
    play.register(second);
    assert_eq!(play.decide(), []);
    play.wait();
    assert_eq!(play.decide(), [Action::Drain(second)]);
    play.end(second);
    assert_eq!(play.decide(), []);
    play.crew.replace_all();
    assert_eq!(play.started().len(), 1);
}

#[test]
fn who_has_done_its_share_or_is_too_old_is_replaced() {
    let (mut play, members) =
        Play::serving(Rules { max_calls: Some(100), max_age: Some(3600 * SECOND), ..rules(1, 1) }, 1);
    play.worker(members[0]).given = 99;
    assert_eq!(play.decide(), []);
    play.worker(members[0]).given = 100;
    let second = play.started()[0];
    play.register(second);
    play.busy(second);
    assert_eq!(play.decide(), [Action::Drain(members[0])]);
    play.end(members[0]);
    assert_eq!(play.decide(), []);
    play.wait();
    assert_eq!(play.started().len(), 1);
}

#[test]
fn a_dismissed_one_is_missed_at_once() {
    let (mut play, members) = Play::serving(rules(1, 1), 1);
    play.crew.dismiss(members[0]);
    let next = play.started();
    assert_eq!(next.len(), 1);
    assert!(play.crew.is_leaving(members[0]));
    play.end(members[0]);
    assert_eq!(play.decide(), []);
}

#[test]
fn a_closed_pool_lets_all_go_and_starts_none() {
    let (mut play, members) = Play::serving(rules(2, 4), 2);
    play.crew.close();
    assert_eq!(play.decide(), [Action::Drain(members[0]), Action::Drain(members[1])]);
    play.load.waiting = 100;
    play.end(members[0]);
    assert!(!play.crew.is_gone());
    play.end(members[1]);
    assert_eq!(play.decide(), []);
    assert!(play.crew.is_gone());
    assert_eq!(play.crew.next_look(play.now), None);
}

#[derive(Clone, Debug)]
enum Event {
    Register(usize),
    Disconnect(usize),
    End(usize),
    Waiting(usize),
    Busy(usize),
    Idle(usize),
    Given(usize),
    Pass(u64),
    Look,
    ReplaceAll,
    Dismiss(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..8usize).prop_map(Event::Register),
        1 => (0..8usize).prop_map(Event::Disconnect),
        2 => (0..8usize).prop_map(Event::End),
        3 => prop_oneof![Just(0), 0..50usize].prop_map(Event::Waiting),
        2 => (0..8usize).prop_map(Event::Busy),
        3 => (0..8usize).prop_map(Event::Idle),
        1 => (0..8usize).prop_map(Event::Given),
        2 => (0..40u64).prop_map(Event::Pass),
        3 => Just(Event::Look),
        1 => Just(Event::ReplaceAll),
        1 => (0..8usize).prop_map(Event::Dismiss),
    ]
}

/// What the test knows of the members.
#[derive(Default)]
struct Known {
    all: BTreeSet<MemberNumber>,
    registered: BTreeSet<MemberNumber>,
    leaving: BTreeSet<MemberNumber>,
}

fn nth(set: &BTreeSet<MemberNumber>, index: usize) -> Option<MemberNumber> {
    set.iter().nth(index % set.len().max(1)).copied()
}

proptest! {
    #[test]
    fn whatever_happens_a_pool_keeps_its_bounds(
        (min, more) in (0..4usize, 1..4usize),
        events in prop::collection::vec(event(), 1..80),
    ) {
        let max = min + more;
        let mut play = Play::new(Rules { max_calls: Some(5), max_age: Some(600 * SECOND), ..rules(min, max) });
        let mut known = Known::default();
        for event in events {
            match event {
                Event::Register(index) => {
                    let starting: BTreeSet<_> = known.all.difference(&known.registered).copied().collect();
                    if let Some(member) = nth(&starting, index) {
                        known.registered.insert(member);
                        play.register(member);
                    }
                }
                Event::Disconnect(index) => {
                    if let Some(member) = nth(&known.registered, index) {
                        known.registered.remove(&member);
                        play.load.workers.retain(|worker| worker.member != member);
                        play.crew.disconnected(member, play.now);
                    }
                }
                Event::End(index) => {
                    if let Some(member) = nth(&known.all, index) {
                        known.all.remove(&member);
                        known.registered.remove(&member);
                        known.leaving.remove(&member);
                        play.end(member);
                    }
                }
                Event::Waiting(waiting) => play.load.waiting = waiting,
                Event::Busy(index) => if let Some(member) = nth(&known.registered, index) { play.busy(member) },
                Event::Idle(index) => if let Some(member) = nth(&known.registered, index) { play.idle(member) },
                Event::Given(index) => {
                    if let Some(member) = nth(&known.registered, index) { play.worker(member).given += 1 }
                }
                Event::Pass(seconds) => play.pass(Duration::from_secs(seconds)),
                Event::Look => {
                    if let Some(look) = play.crew.next_look(play.now) {
                        prop_assert!(look > play.now);
                        play.now = look;
                    }
                }
                Event::ReplaceAll => play.crew.replace_all(),
                Event::Dismiss(index) => {
                    if let Some(member) = nth(&known.all, index) {
                        known.leaving.insert(member);
                        play.crew.dismiss(member);
                    }
                }
            }
            for action in play.decide() {
                match action {
                    Action::Start(member) => prop_assert!(known.all.insert(member), "a number is used twice"),
                    Action::Drain(member) => {
                        prop_assert!(known.all.contains(&member));
                        prop_assert!(known.leaving.insert(member), "told to leave twice");
                    }
                    Action::Kill(member) => {
                        prop_assert!(known.all.contains(&member) && !known.registered.contains(&member));
                    }
                }
            }
            let present = known.all.difference(&known.leaving).count();
            prop_assert!(present <= max + 1, "{present} of {max}");
            // Below its least it is only while it must not start.
            let is_paused = play.crew.paused_until().is_some_and(|until| play.now < until);
            prop_assert!(present >= min || is_paused, "{present} of {min}");
            // Nothing is left to be done now.
            prop_assert_eq!(play.decide(), []);
            // What waits is not waited for in vain.
            let can_start = present < max && !is_paused;
            let starts = known.all.iter().any(|m| !known.registered.contains(m) && !known.leaving.contains(m));
            prop_assert!(play.load.waiting == 0 || !can_start || starts, "calls wait and nothing starts");
        }
    }
}
