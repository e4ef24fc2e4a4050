use std::collections::BTreeSet;

use super::*;
use crate::batch::BatchBuilder;
use crate::cut::{Cut, ShardDelta};
use crate::ids::{LocalId, ShardId};
use crate::index::{Index, Verdict};

const BOOK: BookId = BookId(7);
const SECOND: u64 = 1_000_000;

/// A record that was appended, whatever became of it.
struct Past {
    seq: Seq,
    time_us: u64,
    tags: Vec<&'static str>,
    bytes: u64,
}

/// A log with its index and its retention: what is asked for is trimmed at once.
struct World {
    index: Index,
    retention: Retention,
    now_us: u64,
    past: Vec<Past>,
    trims: usize,
}

impl World {
    fn new() -> World {
        World { index: Index::new(), retention: Retention::default(), now_us: SECOND, past: Vec::new(), trims: 0 }
    }

    fn push(&mut self, batch: &Batch) -> Seq {
        let seq = self.index.position().0;
        let delta = ShardDelta { shard: ShardId::default(), from: LocalId(seq.0 - 1), count: batch.record_count() };
        let cut = Cut { index: self.index.next_cut(), start: seq, time_us: self.now_us, deltas: vec![delta] };
        let mut gone = Vec::new();
        self.index.begin(&cut);
        assert_eq!(self.index.apply(batch, &mut gone), Ok(Verdict::Applied));
        self.retention.applied(batch, seq, self.now_us, &gone);
        seq
    }

    fn append(&mut self, tags: &[&'static str], payload: usize) -> Seq {
        let named = tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect();
        let batch = BatchBuilder::new(BOOK).record(named, vec![0; payload]).build().unwrap();
        let bytes = batch.records().next().unwrap().bytes().len() as u64;
        let seq = self.push(&batch);
        let past = Past { seq, time_us: self.now_us, tags: tags.to_vec(), bytes };
        self.past.push(past);
        seq
    }

    fn trim(&mut self, tag: Option<&'static str>, below: Seq) {
        let tag = tag.map(|tag| Tag::new(tag).unwrap());
        self.push(&BatchBuilder::trim(BOOK, tag, below).unwrap());
    }

    fn set(&mut self, rules: &[Rule]) {
        self.retention.set(BOOK, rules.to_vec(), self.index.position().0);
        let Some(mut older) = self.retention.older(BOOK) else { return };
        for seq in self.seen(None) {
            let past = self.past.iter().find(|past| past.seq == seq).unwrap();
            let tags = past.tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect();
            let overhead = 1 + past.tags.iter().map(|tag| 1 + tag.len()).sum::<usize>();
            let payload = vec![0; past.bytes as usize - overhead];
            let batch = BatchBuilder::new(BOOK).record(tags, payload).build().unwrap();
            let body = batch.records().next().unwrap();
            older.note(&Record { seq, time_us: past.time_us, body, aux: None });
        }
        self.retention.complete(BOOK, older);
    }

    fn settle(&mut self, rules: &[Rule]) {
        loop {
            let trims = self.retention.plan(self.now_us, 3);
            if trims.is_empty() {
                break;
            }
            for Trim { book, tag, below } in trims {
                self.trims += 1;
                // What the rule keeps stays.
                let text = tag.as_ref().map(Tag::as_str);
                let keep = keep_by_hand(rules, text).unwrap();
                let seen = self.seen_past(text);
                let kept = self.kept(&keep, &seen);
                assert!(
                    seen.iter().all(|past| past.seq >= below || !kept.contains(&past.seq)),
                    "{text:?} below {below}"
                );
                self.push(&BatchBuilder::trim(book, tag, below).unwrap());
            }
        }
        assert!(!self.retention.is_due());
        assert!(self.retention.next_timer().is_none_or(|at_us| at_us > self.now_us));
    }

    fn seen(&self, tag: Option<&str>) -> Vec<Seq> {
        let tag = tag.map(|tag| Tag::new(tag).unwrap());
        let mut seqs = Vec::new();
        self.index.next(BOOK, tag.as_ref(), Seq(0), usize::MAX, &mut seqs).unwrap();
        seqs
    }

    /// What `keep` keeps of `records`, oldest first, by its very words.
    fn kept(&self, keep: &Keep, records: &[&Past]) -> BTreeSet<Seq> {
        let (mut count, mut bytes, mut kept) = (0, 0, BTreeSet::new());
        for past in records.iter().rev() {
            let young = keep.age_us.is_none_or(|age_us| past.time_us + age_us > self.now_us);
            if !young || keep.records.is_some_and(|most| count >= most) || keep.bytes.is_some_and(|most| bytes >= most)
            {
                break;
            }
            kept.insert(past.seq);
            count += 1;
            bytes += past.bytes;
        }
        kept
    }

    fn is_within(&self, keep: &Keep, past: &[&Past]) {
        let slack = keep.slack();
        if let Some(most) = keep.records {
            assert!((past.len() as u64) < most + slack.records, "{} records", past.len());
        }
        if let Some(most) = keep.bytes {
            let bytes: u64 = past.iter().map(|past| past.bytes).sum();
            assert!(bytes < most + slack.bytes + slack.bytes / 2, "{bytes} bytes");
        }
        if let (Some(age_us), Some(oldest)) = (keep.age_us, past.first()) {
            let age = self.now_us - oldest.time_us;
            assert!(age < age_us + 2 * slack.age_us, "{age} us old");
        }
    }

    /// The records that are seen under `tag`, or in the book but for those with reserved tags.
    fn seen_past(&self, tag: Option<&str>) -> Vec<&Past> {
        let seen = self.seen(tag);
        let past = self.past.iter().filter(|past| seen.binary_search(&past.seq).is_ok());
        past.filter(|past| tag.is_some() || !past.tags.iter().any(|tag| tag.starts_with('~'))).collect()
    }

    /// No more is left than the rules say.
    fn check(&self, rules: &[Rule], tags: &[&str]) {
        for tag in std::iter::once(None).chain(tags.iter().copied().map(Some)) {
            if let Some(keep) = keep_by_hand(rules, tag) {
                self.is_within(&keep, &self.seen_past(tag));
            }
        }
    }
}

/// What is kept of `tag`, or of the book.
fn keep_by_hand(rules: &[Rule], tag: Option<&str>) -> Option<Keep> {
    let fit = |rule: &&Rule| match (&rule.scope, tag) {
        (Scope::Book, None) => 1,
        (Scope::Tag(own), Some(tag)) if own.as_str() == tag => 1000,
        (Scope::Prefix(prefix), Some(tag)) if tag.starts_with(prefix) && !tag.starts_with('~') => 1 + prefix.len(),
        _ => 0,
    };
    rules.iter().max_by_key(fit).filter(|rule| fit(rule) > 0).map(|rule| rule.keep)
}

fn rule(scope: Option<&str>, keep: Keep) -> Rule {
    Rule { scope: Scope::parse(scope).unwrap(), keep }
}

fn records(most: u64) -> Keep {
    Keep { records: Some(most), ..Keep::default() }
}

/// Pseudo-random numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn keep(&mut self) -> Keep {
        loop {
            let mut bound = |of: u64, least: u64| (self.below(2) == 0).then(|| least + self.below(of));
            let keep = Keep {
                age_us: bound(200, 1).map(|seconds| seconds * SECOND),
                records: bound(300, 1),
                bytes: bound(400_000, 1),
            };
            if keep != Keep::default() {
                return keep;
            }
        }
    }
}

#[test]
fn whatever_happens_what_is_kept_is_what_the_rules_say() {
    const TAGS: &[&str] = &["a", "b/1", "b/2", "b/x/1", "c", "~call"];
    const SCOPES: &[Option<&str>] = &[None, Some("a"), Some("b/*"), Some("b/x/*"), Some("b/2"), Some("*")];
    let mut trims = 0;
    for seed in 1..=20 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed << 20);
        let mut world = World::new();
        let mut rules: Vec<Rule> = Vec::new();
        // Bytes of what a tag lets go are known on average only, so such a world has records of one size.
        let (book_rule, sizes) = if dice.below(2) == 0 { (true, 1) } else { (false, 3000) };
        for _ in 0..1500 {
            match dice.below(1000) {
                0..=2 => {
                    let scopes = SCOPES.iter().filter(|scope| book_rule || scope.is_some());
                    let scopes: Vec<_> = scopes.filter(|_| dice.below(3) == 0).collect();
                    rules = scopes.into_iter().map(|scope| rule(*scope, dice.keep())).collect();
                    assert_eq!(check(&rules), Ok(()));
                    world.set(&rules);
                }
                3..=5 => {
                    let end = world.index.position().0.0;
                    let tag = TAGS[dice.below(6) as usize];
                    let tag = (dice.below(4) > 0).then_some(tag);
                    let below = Seq(end.saturating_sub(dice.below(200)));
                    world.trim(tag, below);
                }
                6..=9 => {
                    let restored = Retention::restore(&world.retention.snapshot()).unwrap();
                    assert!(Retention::restore(&restored.snapshot()).unwrap() == restored);
                    world.retention = restored;
                }
                10..=29 => world.now_us += dice.below(20 * SECOND),
                30..=99 => drop(world.append(&["~call"], 10)),
                _ => {
                    world.now_us += dice.below(SECOND / 2);
                    let tags: BTreeSet<&str> = (0..dice.below(3)).map(|_| TAGS[dice.below(5) as usize]).collect();
                    let overhead: usize = tags.iter().map(|tag| 1 + tag.len()).sum();
                    world.append(&tags.into_iter().collect::<Vec<_>>(), 900 - overhead + dice.below(sizes) as usize);
                }
            }
            world.settle(&rules);
            if dice.below(10) == 0 {
                world.check(&rules, TAGS);
            }
        }
        // Time alone lets go, at the times that were said.
        for _ in 0..200 {
            let Some(at_us) = world.retention.next_timer() else { break };
            world.now_us = at_us;
            world.settle(&rules);
            world.check(&rules, TAGS);
        }
        trims += world.trims;
    }
    assert!(trims > 500, "{trims} trims");
}

#[test]
fn a_trim_is_worth_at_least_its_slack() {
    let mut world = World::new();
    let rules = [rule(None, records(1000))];
    world.set(&rules);
    for _ in 0..20_000 {
        world.append(&[], 10);
        if world.retention.is_due() {
            world.settle(&rules);
        }
    }
    // Each takes half of the slack, 32 records, at least.
    assert!((100..=19_000 / 32).contains(&world.trims), "{} trims", world.trims);
    let watch = world.retention.watch(BOOK).unwrap();
    assert!(watch.book.marks.len() < 100, "memory does not grow with the records");
}

#[test]
fn without_an_age_there_is_no_timer_and_with_one_a_single_one() {
    let mut world = World::new();
    world.set(&[rule(None, records(10)), rule(Some("a"), Keep { bytes: Some(10), ..Keep::default() })]);
    world.append(&["a"], 10);
    assert_eq!(world.retention.next_timer(), None);
    let hour = Keep { age_us: Some(3600 * SECOND), ..Keep::default() };
    let rules = [rule(Some("a*"), hour)];
    world.set(&rules);
    for _ in 0..50 {
        world.append(&["a"], 10);
    }
    assert_eq!(world.retention.timers.len(), 1);
    assert_eq!(world.retention.next_timer(), Some(world.now_us + hour.age_us.unwrap() + hour.slack().age_us));
    world.now_us = world.retention.next_timer().unwrap();
    world.settle(&rules);
    assert_eq!((world.seen(None), world.retention.next_timer()), (vec![], None));
}

#[test]
fn what_a_tag_lets_go_no_longer_counts_for_the_book() {
    let mut world = World::new();
    let rules = [rule(None, records(200)), rule(Some("debug/*"), records(1))];
    world.set(&rules);
    let first = world.append(&["order"], 10);
    for _ in 0..5000 {
        world.append(&["debug/1"], 10);
        world.settle(&rules);
    }
    assert!(world.seen(None).contains(&first), "5000 others came, of which about 64 are left");
}

#[test]
fn nothing_is_trimmed_before_the_past_is_known_and_then_it_counts() {
    let mut world = World::new();
    for _ in 0..300 {
        world.append(&[], 10);
    }
    world.retention.set(BOOK, vec![rule(None, records(100))], world.index.position().0);
    world.append(&[], 10);
    assert!(world.retention.plan(u64::MAX, 9).is_empty());
    let older = world.retention.older(BOOK).unwrap();
    let rules = [rule(None, records(50))];
    world.set(&rules);
    world.retention.complete(BOOK, older);
    world.settle(&rules);
    assert_eq!(world.seen(None).len(), 50 + 27, "by the rules of today, and marks hold 32 records");
}

#[test]
fn a_trim_that_failed_is_asked_for_again_with_the_next_record_or_later() {
    let mut world = World::new();
    world.set(&[rule(None, records(10))]);
    for _ in 0..74 {
        world.append(&[], 10);
    }
    let trim = world.retention.plan(world.now_us, 9).pop().unwrap();
    assert_eq!(world.retention.plan(world.now_us, 9), [], "it is under way");
    world.retention.failed(trim.clone(), world.now_us + 5);
    assert_eq!(world.retention.plan(world.now_us, 9), []);
    assert_eq!(world.retention.next_timer(), Some(world.now_us + 5));
    assert_eq!(world.retention.plan(world.now_us + 5, 9), std::slice::from_ref(&trim));
    world.retention.failed(trim, world.now_us + 50);
    world.append(&[], 10);
    assert!(world.retention.is_due());
}

#[test]
fn a_closed_book_is_forgotten() {
    let mut world = World::new();
    world.set(&[rule(None, Keep { age_us: Some(1), ..Keep::default() })]);
    world.append(&[], 10);
    world.trim(None, Seq::MAX);
    assert_eq!(world.retention, Retention::default());
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let wrong = |rules: &[Rule]| check(rules).unwrap_err().1;
    assert!(wrong(&[rule(None, Keep::default())]).contains("bounds nothing"));
    assert!(wrong(&[rule(None, records(0))]).contains("trim instead"));
    assert!(wrong(&[rule(Some("a"), records(1)), rule(Some("a"), records(2))]).contains("two rules"));
    assert!(wrong(&vec![rule(None, records(1)); MAX_RULES + 1]).contains("at most 64"));
    assert!(Scope::parse(Some("~calls")).is_err());
    assert!(Scope::parse(Some("")).is_err());
    assert_eq!(Scope::parse(Some("a/*")), Ok(Scope::Prefix("a/".into())));
}

#[test]
fn a_cut_off_snapshot_is_refused() {
    let mut world = World::new();
    world.set(&[rule(None, records(10)), rule(Some("a*"), records(10)), rule(Some("b"), records(1))]);
    world.append(&["a1"], 10);
    let bytes = world.retention.snapshot();
    for len in 0..bytes.len() {
        assert!(Retention::restore(&bytes.slice(..len)).is_err());
    }
}
