//! What limits let run.

use super::*;

fn running_of(world: &World, key: &str) -> usize {
    world.running().iter().filter(|one| world.table.attempts[**one].limit_key.as_deref() == Some(key)).count()
}

#[test]
fn no_more_run_than_a_limit_says_and_one_that_ends_makes_room() {
    let mut world = World::new();
    world.worker(10, &["f", "g"]);
    world.limits(&[LimitRule { concurrency: Some(2), ..limit("two", "call:*") }]);
    let asked: Vec<Asked> = ["f", "g", "f", "g"].into_iter().map(|name| world.submit(ask(name))).collect();
    assert_eq!(world.running().len(), 2);
    world.answer(asked[0].key);
    assert_eq!(world.running().len(), 2);
    assert!(world.runs(&asked[1]) && world.runs(&asked[2]), "f is due: g had its turn last");
}

#[test]
fn an_attempt_that_was_given_up_counts_until_its_worker_answers() {
    let mut world = World::new();
    world.worker(10, &["f"]);
    world.limits(&[LimitRule { concurrency: Some(1), ..limit("one", "call:f") }]);
    let first = world.submit(ask("f"));
    let second = world.submit(ask("f"));
    world.cancel(first.key);
    assert!(!world.runs(&second));
    world.answer(first.key);
    assert!(world.runs(&second));
}

#[test]
fn a_lost_worker_makes_room() {
    let mut world = World::new();
    let lost = world.worker(1, &["f"]);
    world.limits(&[LimitRule { concurrency: Some(1), ..limit("one", "call:f") }]);
    let mut first = world.submit(ask("f"));
    world.worker(1, &["f"]);
    let second = world.submit(ask("f"));
    assert!(!world.runs(&second));
    world.table.detach(lost, world.now, &mut world.flushes);
    assert!(matches!(first.ended(), Some(Ended::WorkerLost(None))));
    assert!(world.runs(&second));
}

#[test]
fn each_key_has_a_bucket_of_its_own() {
    let mut world = World::new();
    world.worker(10, &["f", "g"]);
    world.limits(&[LimitRule { per_key: true, concurrency: Some(1), ..limit("each", "call:*") }]);
    let a = [world.submit(of("f", "a")), world.submit(of("g", "a"))];
    let b = [world.submit(of("f", "b")), world.submit(of("f", "b"))];
    let none = [world.submit(ask("f")), world.submit(ask("g"))];
    assert_eq!((running_of(&world, "a"), running_of(&world, "b"), world.running().len()), (1, 1, 3));
    world.answer(a[0].key);
    assert!(world.runs(&a[1]), "the same key counts across functions");
    world.answer(b[0].key);
    assert!(world.runs(&b[1]));
    world.answer(none[0].key);
    assert!(world.runs(&none[1]), "calls without a key count together");
}

#[test]
fn a_pattern_of_keys_is_one_bucket_and_concerns_no_other_key() {
    let mut world = World::new();
    world.worker(10, &["f"]);
    let acme = LimitRule { key: Some("acme/*".parse().unwrap()), concurrency: Some(1), ..limit("acme", "call:*") };
    world.limits(&[acme]);
    let first = world.submit(of("f", "acme/1"));
    let second = world.submit(of("f", "acme/2"));
    let other = world.submit(of("f", "other"));
    assert!(world.runs(&first) && !world.runs(&second) && world.runs(&other));
    world.answer(first.key);
    assert!(world.runs(&second));
}

#[test]
fn a_call_is_held_to_every_limit_that_matches_it() {
    let mut world = World::new();
    world.worker(10, &["f", "report-a"]);
    let all = LimitRule { concurrency: Some(2), ..limit("all", "call:*") };
    let reports = LimitRule { concurrency: Some(1), ..limit("reports", "call:report-*") };
    world.limits(&[all, reports]);
    let reports = [world.submit(ask("report-a")), world.submit(ask("report-a"))];
    let calls = [world.submit(ask("f")), world.submit(ask("f"))];
    assert!(world.runs(&reports[0]) && !world.runs(&reports[1]) && world.runs(&calls[0]) && !world.runs(&calls[1]));
    world.answer(calls[0].key);
    assert!(!world.runs(&reports[1]) && world.runs(&calls[1]), "room under one limit is not enough");
}

#[test]
fn a_rate_is_exact() {
    let mut world = World::new();
    world.worker(10_000, &["f"]);
    let rate: crate::limits::Rate = "100/s".parse().unwrap();
    world.limits(&[LimitRule { rate: Some(rate.with_burst(5).unwrap()), ..limit("rate", "call:f") }]);
    let _asked: Vec<Asked> = (0..2000).map(|_| world.submit(ask("f"))).collect();
    assert_eq!(world.running().len(), 5, "the burst");
    for step in 1..=1000 {
        world.pass(Duration::from_millis(3));
        assert_eq!(world.running().len(), 5 + step * 3 / 10, "after {} ms", step * 3);
    }
}

#[test]
fn a_rate_that_was_not_used_gives_a_burst_and_no_more() {
    let mut world = World::new();
    world.worker(10_000, &["f"]);
    let rate: crate::limits::Rate = "2/s".parse().unwrap();
    world.limits(&[LimitRule { per_key: true, rate: Some(rate.with_burst(3).unwrap()), ..limit("rate", "call:f") }]);
    for round in 1..=3 {
        world.pass(Duration::from_secs(3600));
        let _asked: Vec<Asked> = (0..4).map(|_| world.submit(of("f", "a"))).collect();
        assert_eq!(world.running().len(), 4 * round - 1);
        world.pass(Duration::from_millis(499));
        assert_eq!(world.running().len(), 4 * round - 1);
        world.pass(Duration::from_millis(1));
        assert_eq!(world.running().len(), 4 * round);
    }
}

#[test]
fn the_clock_is_asked_for_only_while_somebody_waits_for_a_rate() {
    let mut world = World::new();
    world.worker(10, &["f"]);
    world.limits(&[LimitRule { rate: Some("1/s".parse().unwrap()), ..limit("rate", "call:f") }]);
    let first = world.submit(ask("f"));
    assert_eq!(world.table.next_timer(), None);
    let second = world.submit(ask("f"));
    assert_eq!(world.table.next_timer(), Some(world.now + Duration::from_secs(1)));
    world.pass(Duration::from_secs(1));
    assert!(world.runs(&second));
    assert_eq!(world.table.next_timer(), None);
    world.answer(first.key);
}

#[test]
fn raising_a_limit_starts_what_waits_and_lowering_it_ends_nothing() {
    let mut world = World::new();
    world.worker(10, &["f"]);
    let limited = |concurrency| LimitRule { concurrency: Some(concurrency), ..limit("f", "call:f") };
    let asked: Vec<Asked> = (0..6).map(|_| world.submit(ask("f"))).collect();
    world.limits(&[limited(2)]);
    assert_eq!(world.running().len(), 6, "what runs goes on");
    let more: Vec<Asked> = (0..6).map(|_| world.submit(ask("f"))).collect();
    for one in &asked[..4] {
        world.answer(one.key);
    }
    assert_eq!(world.running().len(), 2, "it has run down, and what ran before counts");
    world.answer(asked[4].key);
    assert!(world.runs(&more[0]) && world.running().len() == 2);
    world.limits(&[limited(5)]);
    assert_eq!(world.running().len(), 5);
    world.limits(&[]);
    assert_eq!(world.running().len(), 7);
}

#[test]
fn setting_a_limit_again_gives_no_rate_back() {
    let mut world = World::new();
    world.worker(10, &["f"]);
    let rate = |burst| Some("1/m".parse::<crate::limits::Rate>().unwrap().with_burst(burst).unwrap());
    let limited = |burst| LimitRule { per_key: true, rate: rate(burst), ..limit("f", "call:f") };
    world.limits(&[limited(2)]);
    let used = [world.submit(of("f", "a")), world.submit(of("f", "a"))];
    for one in &used {
        world.answer(one.key);
    }
    world.limits(&[limited(2), LimitRule { concurrency: Some(1), ..limit("other", "call:g") }]);
    let waits = world.submit(of("f", "a"));
    assert!(!world.runs(&waits));
    world.limits(&[limited(3)]);
    assert!(world.runs(&waits), "of three in a burst, two are spent");
}

#[test]
fn a_limit_on_what_waits_refuses_the_rest() {
    let mut world = World::new();
    world.worker(10, &["f"]);
    let limited = LimitRule { per_key: true, concurrency: Some(1), queue: Some(1), ..limit("one", "call:*") };
    world.limits(&[limited]);
    let running = world.submit(of("f", "a"));
    let _waiting = world.submit(of("f", "a"));
    let refused = world.try_submit(of("f", "a")).unwrap_err();
    assert_eq!(refused, CallError::LimitReached { limit: "one".into(), queue: 1 });
    let retry = world.submit(Ask { attempt: 2, ..of("f", "a") });
    let recorded = world.submit(Ask { on_record: true, ..of("f", "a") });
    let other = world.submit(of("f", "b"));
    assert!(world.runs(&other));
    world.answer(running.key);
    assert!(world.runs(&retry), "what was admitted once is not refused");
    assert!(!world.runs(&recorded));
}

#[test]
fn room_goes_to_the_higher_priority_even_if_it_was_closed_until_now() {
    let mut world = World::new();
    world.worker(1, &["f"]);
    let one = LimitRule { key: Some("a".parse().unwrap()), concurrency: Some(1), ..limit("a", "call:f") };
    world.limits(&[one]);
    let running = world.submit(of("f", "a"));
    let low = world.submit(Ask { priority: 1, ..of("f", "b") });
    let high = world.submit(Ask { priority: 9, ..of("f", "a") });
    world.answer(running.key);
    assert!(world.runs(&high) && !world.runs(&low));
}
