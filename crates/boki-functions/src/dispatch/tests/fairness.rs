//! Who comes first.

use super::*;

/// With one place: answers what runs, `count` times, and says whose calls ran.
fn run_order(world: &mut World, count: usize) -> Vec<String> {
    let mut order = Vec::new();
    for _ in 0..count {
        let [running] = world.running()[..] else { panic!("one place, one call") };
        let attempt = &world.table.attempts[running];
        let request = attempt.request.as_ref().unwrap();
        order.push(attempt.limit_key.as_deref().unwrap_or(&request.invocation.function).to_owned());
        world.answer(running);
    }
    order
}

#[test]
fn a_key_that_asks_now_and_then_waits_for_the_running_call_only() {
    let mut world = World::new();
    world.worker(1, &["f"]);
    let backlog: Vec<Asked> = (0..100_000).map(|_| world.submit(of("f", "a"))).collect();
    // Those of a run in their order.
    let mut of_a = backlog.iter().map(|asked| asked.key);
    let mut running = of_a.next().unwrap();
    for _ in 0..2 {
        world.answer(running);
        running = of_a.next().unwrap();
    }
    for round in 0..1000 {
        let b = world.submit(of("f", "b"));
        assert!(!world.runs(&b));
        world.answer(running);
        assert!(world.runs(&b), "b waits for another call of a in round {round}");
        world.answer(b.key);
        running = of_a.next().unwrap();
        // Now and then b asks again only after a few of a's.
        for _ in 0..round % 3 {
            world.answer(running);
            running = of_a.next().unwrap();
        }
    }
    world.answer(running);
    assert_eq!(world.table.lanes.len(), 1, "b's lane is forgotten once it is no longer ahead");
}

#[test]
fn keys_that_all_have_a_backlog_share_by_weight() {
    let mut world = World::new();
    world.worker(1, &["f"]);
    let heavy = LimitRule { key: Some("heavy".parse().unwrap()), weight: Some(3), ..limit("heavy", "call:f") };
    world.limits(&[heavy]);
    let _asked: Vec<Asked> = (0..400).flat_map(|_| ["heavy", "x", "y"]).map(|key| world.submit(of("f", key))).collect();
    let order = run_order(&mut world, 500);
    let count = |key: &str| order.iter().filter(|one| *one == key).count();
    assert!((299..=301).contains(&count("heavy")), "{}", count("heavy"));
    assert!((99..=101).contains(&count("x")), "{}", count("x"));
    // Evenly, not in bursts.
    for window in order[10..].windows(10) {
        let heavy = window.iter().filter(|one| *one == "heavy").count();
        assert!((5..=7).contains(&heavy), "{window:?}");
    }
}

#[test]
fn a_key_that_empties_its_lane_each_time_does_not_push_ahead() {
    let mut world = World::new();
    world.worker(1, &["f"]);
    let _a: Vec<Asked> = (0..100).map(|_| world.submit(of("f", "a"))).collect();
    let mut order = Vec::new();
    let mut waiting = world.submit(of("f", "b"));
    for _ in 0..40 {
        order.extend(run_order(&mut world, 1));
        // There is always exactly one call of b that waits.
        if world.runs(&waiting) {
            waiting = world.submit(of("f", "b"));
        }
    }
    let b = order.iter().filter(|one| *one == "b").count();
    assert!((18..=21).contains(&b), "{order:?}");
}

#[test]
fn keys_that_come_without_end_do_not_starve_one_that_waits() {
    let mut world = World::new();
    world.worker(1, &["f"]);
    let mut asked: Vec<Asked> = (0..5).map(|_| world.submit(of("f", "a"))).collect();
    let mut served = 0;
    for number in 0..400 {
        // Two new keys for each call served: the backlog grows without end.
        asked.push(world.submit(of("f", &format!("{number}x"))));
        asked.push(world.submit(of("f", &format!("{number}y"))));
        served += run_order(&mut world, 1).iter().filter(|one| *one == "a").count();
    }
    // Its share becomes the smaller the more keys wait, and never nothing.
    assert!(served >= 4, "{served}");
    assert!(world.table.lanes.len() <= 2 * 400 + 2);
}

#[test]
fn keys_that_come_once_leave_nothing_behind() {
    let mut world = World::new();
    world.worker(1, &["f"]);
    let per_key =
        LimitRule { per_key: true, rate: Some("1/s".parse().unwrap()), concurrency: Some(1), ..limit("k", "call:*") };
    world.limits(&[per_key]);
    for number in 0..10_000 {
        let one = world.submit(of("f", &number.to_string()));
        assert!(world.runs(&one));
        world.answer(one.key);
        world.pass(Duration::from_millis(10));
    }
    // Those whose rate is not whole again are remembered for a second.
    assert!(world.table.buckets.count() <= 102, "{}", world.table.buckets.count());
    assert_eq!((world.table.lanes.len(), world.table.attempts.len()), (0, 0));
}

#[test]
fn higher_priorities_come_first_and_lower_ones_when_none_is_left() {
    let mut world = World::new();
    world.worker(1, &["f", "g"]);
    let at = |priority, key: &str| Ask { priority, ..of("f", key) };
    let _asked = [
        world.submit(at(5, "first")),
        world.submit(at(0, "zero")),
        world.submit(at(9, "nine")),
        world.submit(Ask { priority: 7, ..of("g", "seven") }),
        world.submit(at(9, "nine again")),
        world.submit(at(5, "five")),
    ];
    assert_eq!(run_order(&mut world, 6), ["first", "nine", "nine again", "seven", "five", "zero"]);
}

#[test]
fn functions_that_share_a_worker_take_turns_by_weight() {
    let mut world = World::new();
    world.worker(1, &["f", "g"]);
    world.limits(&[LimitRule { weight: Some(2), ..limit("g", "call:g") }]);
    let _f: Vec<Asked> = (0..10).map(|_| world.submit(ask("f"))).collect();
    let _g: Vec<Asked> = (0..10).map(|_| world.submit(ask("g"))).collect();
    assert_eq!(run_order(&mut world, 10), ["f", "g", "g", "f", "g", "g", "f", "g", "g", "f"]);
}

#[test]
fn a_retry_comes_before_what_waits_in_its_lane() {
    let mut world = World::new();
    world.worker(1, &["f"]);
    let running = world.submit(ask("f"));
    let next = world.submit(ask("f"));
    let retry = world.submit(Ask { attempt: 2, ..ask("f") });
    world.answer(running.key);
    assert!(world.runs(&retry) && !world.runs(&next));
}
