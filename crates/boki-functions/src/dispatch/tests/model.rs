//! Random scripts, and what holds after every step whatever they do.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Attach { concurrency: u32, functions: usize },
    Detach(usize),
    Drain(usize),
    Submit { function: usize, priority: u8, key: usize, parent: Option<usize>, retry: bool, on_record: bool },
    Answer(usize),
    Cancel(usize),
    Pass(u64),
    Limits(Vec<(usize, u32)>),
}

const FUNCTIONS: [&str; 3] = ["f", "g", "report-h"];
const KEYS: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("acme/c")];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..4u32, 1..8usize).prop_map(|(concurrency, functions)| Step::Attach { concurrency, functions }),
        1 => any::<usize>().prop_map(Step::Detach),
        1 => any::<usize>().prop_map(Step::Drain),
        20 => (0..3usize, 0..3u8, 0..4usize, prop::option::weighted(0.3, any::<usize>()), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(function, priority, key, parent, retry, on_record)| {
                Step::Submit { function, priority, key, parent, retry, on_record }
            }),
        16 => any::<usize>().prop_map(Step::Answer),
        3 => any::<usize>().prop_map(Step::Cancel),
        4 => (1..2000u64).prop_map(Step::Pass),
        2 => prop::collection::vec((0..LIMITS, 1..4u32), 0..4).prop_map(Step::Limits),
    ]
}

const LIMITS: usize = 7;

/// One of the limits that the scripts choose from.
fn limit_of(which: usize, number: u32) -> LimitRule {
    let rate = |text: &str| Some(text.parse::<crate::limits::Rate>().unwrap().with_burst(number).unwrap());
    match which {
        0 => LimitRule { concurrency: Some(number), ..limit("all", "call:*") },
        1 => LimitRule { concurrency: Some(number), per_key: true, ..limit("each", "call:*") },
        2 => LimitRule { rate: rate("3/s"), ..limit("rate", "call:f") },
        3 => LimitRule { rate: rate("1/s"), per_key: true, ..limit("rate-each", "call:report-*") },
        4 => LimitRule {
            key: Some("acme/*".parse().unwrap()),
            concurrency: Some(number),
            weight: Some(number),
            ..limit("acme", "call:*")
        },
        5 => LimitRule { queue: Some(number), ..limit("queue", "call:g") },
        _ => LimitRule { weight: Some(number), per_key: true, ..limit("weight", "call:f") },
    }
}

/// A script under way: the machine, and what happened so far.
struct Script {
    world: World,
    workers: Vec<WorkerKey>,
    asked: Vec<Asked>,
    /// Which of those were told an end.
    ended: BTreeSet<AttemptKey>,
    limits: Vec<LimitRule>,
    /// Began to run, by limit and key, since the limits were set.
    began: BTreeMap<(String, Option<Arc<str>>), Vec<Instant>>,
    running: BTreeSet<AttemptKey>,
}

/// Names a bucket: the rule, and the limit key if it has one for each.
type RuleAndKey = (String, Option<Arc<str>>);

impl Script {
    fn new() -> Script {
        let mut world = World::with(FunctionsConfig { max_depth: 3, queue_calls: 20, ..FunctionsConfig::default() });
        let workers = vec![world.worker(2, &FUNCTIONS)];
        Script {
            world,
            workers,
            asked: Vec::new(),
            ended: BTreeSet::new(),
            limits: Vec::new(),
            began: BTreeMap::new(),
            running: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: Step) {
        let before: BTreeSet<AttemptKey> = self.world.running().into_iter().collect();
        match step {
            Step::Attach { concurrency, functions } => {
                let offered: Vec<&str> =
                    (0..3).filter(|bit| functions & (1 << bit) != 0).map(|bit| FUNCTIONS[bit]).collect();
                self.workers.push(self.world.worker(concurrency, &offered));
            }
            Step::Detach(which) if !self.workers.is_empty() => {
                let worker = self.workers.swap_remove(which % self.workers.len());
                let world = &mut self.world;
                world.table.detach(worker, world.now, &mut world.flushes);
            }
            Step::Drain(which) if !self.workers.is_empty() => {
                let world = &mut self.world;
                let worker = self.workers[which % self.workers.len()];
                world.table.send_drain(worker, world.now, &mut world.flushes);
            }
            Step::Submit { function, priority, key, parent, retry, on_record } => {
                let parent = match parent {
                    Some(which) if !before.is_empty() => before.iter().nth(which % before.len()).copied(),
                    _ => None,
                };
                let ask = Ask {
                    function: FUNCTIONS[function],
                    priority,
                    key: KEYS[key].map(str::to_owned),
                    parent,
                    attempt: if retry { 2 } else { 1 },
                    on_record,
                };
                if let Ok(asked) = self.world.try_submit(ask) {
                    self.asked.push(asked);
                }
            }
            Step::Answer(which) if !before.is_empty() => {
                let key = before.iter().nth(which % before.len()).copied().unwrap();
                self.world.answer(key);
            }
            Step::Cancel(which) if !self.asked.is_empty() => {
                let key = self.asked[which % self.asked.len()].key;
                self.world.cancel(key);
            }
            Step::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Step::Limits(which) => {
                let chosen: BTreeMap<usize, u32> = which.into_iter().collect();
                self.limits = chosen.into_iter().map(|(which, number)| limit_of(which, number)).collect();
                self.world.limits(&self.limits.clone());
                self.began.clear();
            }
            _ => {}
        }
        self.note_begun();
        self.check(&before);
    }

    /// As `World::pass`, noting who began when.
    fn pass(&mut self, time: Duration) {
        let until = self.world.now + time;
        while let Some(at) = self.world.table.next_timer().filter(|at| *at <= until) {
            self.world.now = self.world.now.max(at);
            self.world.table.tick(self.world.now, &mut self.world.flushes);
            self.note_begun();
        }
        self.world.now = until;
    }

    fn note_begun(&mut self) {
        let running: BTreeSet<AttemptKey> = self.world.running().into_iter().collect();
        for key in running.difference(&self.running) {
            for (limit, bucket) in self.held_to(*key) {
                self.began.entry((limit.name.to_string(), bucket)).or_default().push(self.world.now);
            }
        }
        self.running = running;
    }

    /// The limits that a call is held to, and what they count it under: written down anew here, apart from the machine.
    fn held_to(&self, key: AttemptKey) -> Vec<(LimitRule, Option<Arc<str>>)> {
        let attempt = &self.world.table.attempts[key];
        let name = self.world.table.functions.get(attempt.function).map(|function| Arc::clone(&function.name));
        let Some(name) = name else { return Vec::new() };
        let key = &attempt.limit_key;
        let held = self.limits.iter().filter(|limit| {
            limit.matches.matches(&format!("call:{name}"))
                && limit.key.as_ref().is_none_or(|pattern| pattern.matches(key.as_deref().unwrap_or("")))
        });
        held.map(|limit| (limit.clone(), if limit.per_key { key.clone() } else { None })).collect()
    }

    fn check(&mut self, before: &BTreeSet<AttemptKey>) {
        let table = &self.world.table;
        let now = self.world.now;
        // Places: never more than there are.
        let mut taken: BTreeMap<(WorkerKey, u8), u32> = BTreeMap::new();
        for attempt in table.attempts.values() {
            if let Some(worker) = attempt.worker {
                *taken.entry((worker, attempt.level)).or_default() += 1;
            }
        }
        for ((worker, level), count) in &taken {
            let worker = &table.workers[*worker];
            assert!(*count <= worker.concurrency, "a worker has too many calls on level {level}");
            assert_eq!(worker.taken[usize::from(*level)], *count);
        }
        // Limits: nobody begins while as many run as may.
        let mut running: BTreeMap<RuleAndKey, (u32, bool)> = BTreeMap::new();
        for (key, attempt) in &table.attempts {
            if attempt.worker.is_some() {
                for (limit, bucket) in self.held_to(key) {
                    let entry = running.entry((limit.name.to_string(), bucket)).or_default();
                    entry.0 += 1;
                    entry.1 |= !before.contains(&key);
                }
            }
        }
        for limit in &self.limits {
            for ((name, key), (count, began)) in &running {
                if **name == *limit.name && *began {
                    assert!(limit.concurrency.is_none_or(|most| *count <= most), "{name} of {key:?}: {count} run");
                }
            }
            for ((name, key), times) in &self.began {
                let Some(rate) = limit.rate.filter(|_| **name == *limit.name) else { continue };
                for (at, time) in times.iter().enumerate() {
                    let since = &times[..=at];
                    for (from, first) in since.iter().enumerate() {
                        let count = at - from + 1;
                        let allowed =
                            u128::from(rate.burst()) + (*time - *first).as_nanos() / rate.interval().as_nanos();
                        assert!(count as u128 <= allowed, "{name} of {key:?}: {count} began");
                    }
                }
            }
        }
        self.check_nothing_waits_for_nothing(now);
        self.check_lanes();
        self.check_ends();
    }

    /// Work-conserving: what waits lacks a place, or is held back by a limit.
    fn check_nothing_waits_for_nothing(&self, now: Instant) {
        let table = &self.world.table;
        for lane in table.lanes.values().filter(|lane| lane.waiting > 0) {
            let function = &table.functions[lane.function];
            let has_place = function.workers.iter().any(|worker| !table.workers[*worker].is_full(lane.id.level));
            let first = lane.queue.iter().find(|attempt| table.attempts.contains_key(**attempt)).unwrap();
            let is_held_back = self.held_to(*first).into_iter().any(|(limit, key)| {
                let rule = table.buckets.rules.iter().position(|rule| rule.limit.name == limit.name).unwrap();
                let bucket = table.buckets.find(rule, &key);
                bucket.is_some_and(|bucket| table.buckets.closed(bucket, now).is_some())
            });
            assert!(!has_place || is_held_back, "{:?} of {} waits for nothing", lane.id, function.name);
        }
    }

    fn check_lanes(&self) {
        let table = &self.world.table;
        let (mut queued, mut bytes) = (0, 0);
        for lane in table.lanes.values() {
            let waiting: Vec<&Attempt> = lane.queue.iter().filter_map(|attempt| table.attempts.get(*attempt)).collect();
            assert_eq!(waiting.len(), lane.waiting);
            assert_eq!(lane.waiting == 0, lane.state == LaneState::Empty);
            // First in, first out: retries in front, each before the one that came later.
            let attempt_of = |attempt: &&Attempt| attempt.request.as_ref().unwrap().attempt;
            let firsts: Vec<u64> =
                waiting.iter().filter(|attempt| attempt_of(attempt) == 1).map(|attempt| attempt.order).collect();
            assert!(firsts.is_sorted());
            assert!(waiting.iter().map(attempt_of).is_sorted_by(|a, b| a >= b), "a retry waits behind a first attempt");
            queued += waiting.len();
            bytes += waiting.iter().map(|attempt| attempt.request.as_ref().unwrap().invocation.bytes()).sum::<usize>();
        }
        assert_eq!((table.queued, table.queued_bytes), (queued, bytes));
        let live = table.attempts.values().filter(|attempt| attempt.worker.is_some() && attempt.request.is_some());
        assert_eq!(table.running, live.count());
    }

    /// Each attempt ends once, and those that have not ended are in the table.
    fn check_ends(&mut self) {
        for asked in &mut self.asked {
            if self.ended.contains(&asked.key) {
                continue;
            }
            match asked.ended() {
                Some(_) => {
                    self.ended.insert(asked.key);
                    let attempt = self.world.table.attempts.get(asked.key);
                    assert!(attempt.is_none_or(|attempt| attempt.request.is_none()), "it ended and goes on");
                }
                None => {
                    let attempt = self.world.table.attempts.get(asked.key).expect("an attempt was lost");
                    assert!(attempt.request.is_some());
                    let parent = attempt.parent.map(|parent| self.world.table.attempts.get(parent));
                    assert!(parent.is_none_or(|parent| parent.is_some_and(|parent| parent.request.is_some())));
                }
            }
        }
    }

    /// With workers, time and answers enough, everything comes to its end.
    fn finish(&mut self) {
        self.workers.push(self.world.worker(2, &FUNCTIONS));
        for _ in 0..10_000 {
            if self.world.table.attempts.is_empty() {
                break;
            }
            // The deepest first: whoever waits for a call waits for its answer.
            let attempts = &self.world.table.attempts;
            let deepest = self.world.running().into_iter().max_by_key(|key| attempts[*key].level);
            if let Some(key) = deepest {
                self.world.answer(key);
            }
            self.pass(Duration::from_millis(400));
            self.note_begun();
        }
        assert!(self.world.table.attempts.is_empty(), "something starves");
        self.check_ends();
        assert_eq!(self.ended.len(), self.asked.len());
        assert!(self.world.table.lanes.is_empty());
        assert!(self.world.table.hot.is_empty());
        assert_eq!(self.world.table.next_timer(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(steps in prop::collection::vec(step(), 1..120)) {
        let mut script = Script::new();
        for step in steps {
            script.take(step);
        }
        script.finish();
    }
}
