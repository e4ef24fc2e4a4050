//! Calls that functions make.

use super::*;

fn child(parent: &Asked, function: &'static str) -> Ask {
    Ask { parent: Some(parent.key), ..ask(function) }
}

#[test]
fn a_call_runs_although_its_caller_has_the_only_place() {
    let mut world = World::with(FunctionsConfig { max_depth: 3, ..FunctionsConfig::default() });
    world.worker(1, &["f"]);
    let first = world.submit(ask("f"));
    let second = world.submit(child(&first, "f"));
    let third = world.submit(child(&second, "f"));
    assert!(world.runs(&first) && world.runs(&second) && world.runs(&third));
    let refused = world.try_submit(child(&third, "f")).unwrap_err();
    let expected = CallError::NestedTooDeep { function: "f".into(), limit: 3, chain: "f > f > f".into() };
    assert_eq!(refused, expected);
    // Each level has one place.
    let waits = world.submit(child(&first, "f"));
    assert!(!world.runs(&waits));
    world.answer(third.key);
    world.answer(second.key);
    assert!(world.runs(&waits));
}

#[test]
fn what_an_attempt_called_is_given_up_with_it_on_every_level() {
    for how in ["answered", "given up", "lost"] {
        let mut world = World::new();
        let worker = world.worker(1, &["f"]);
        world.worker(1, &["g"]);
        let root = world.submit(ask("f"));
        let mut running = world.submit(child(&root, "g"));
        let mut waiting = world.submit(child(&root, "g"));
        let mut deeper = world.submit(child(&running, "g"));
        match how {
            "answered" => assert!(world.answer(root.key)),
            "given up" => world.cancel(root.key),
            _ => {
                world.table.detach(worker, world.now, &mut world.flushes);
            }
        }
        for asked in [&mut running, &mut waiting, &mut deeper] {
            assert!(matches!(asked.ended(), Some(Ended::Refused(CallError::Cancelled { .. }))), "{how}");
        }
        assert!(world.runs(&running) && world.runs(&deeper), "a place is held until the worker answers");
        assert!(world.table.attempts.get(waiting.key).is_none());
        assert!(!world.answer(running.key));
        assert!(!world.answer(deeper.key));
        let refused = world.try_submit(child(&root, "g")).unwrap_err();
        assert!(matches!(refused, CallError::Cancelled { .. }), "{refused:?}");
    }
}

#[test]
fn a_call_that_would_wait_for_its_own_ancestors_is_refused() {
    let mut world = World::new();
    world.worker(10, &["f", "g"]);
    let two = LimitRule { concurrency: Some(2), ..limit("two", "call:f") };
    let tenant = LimitRule { per_key: true, concurrency: Some(1), ..limit("tenant", "call:g") };
    world.limits(&[two, tenant]);
    let root = world.submit(ask("f"));
    let second = world.submit(child(&root, "f"));
    assert!(world.runs(&second), "one of two places is left");
    let refused = world.try_submit(child(&second, "f")).unwrap_err();
    assert_eq!(refused.code(), "BK0415");
    assert!(refused.to_string().contains("\"two\""), "{refused}");
    let keyed = |parent: &Asked, key: &str| Ask { key: Some(key.to_owned()), ..child(parent, "g") };
    let third = world.submit(keyed(&second, "a"));
    assert!(world.runs(&third));
    assert_eq!(world.try_submit(keyed(&third, "a")).unwrap_err().code(), "BK0415");
    let other = world.submit(keyed(&third, "b"));
    assert!(world.runs(&other), "another key has places of its own");
    // A place that somebody else holds will come free.
    world.answer(second.key);
    let stranger = world.submit(ask("f"));
    let waits = world.submit(child(&root, "f"));
    assert!(world.runs(&stranger) && !world.runs(&waits));
}

#[test]
fn a_child_has_no_more_time_than_its_caller() {
    let mut world = World::new();
    world.worker(1, &["f"]);
    let root = world.submit(ask("f"));
    let lineage = world.table.lineage(root.key, &"f".into()).unwrap().unwrap();
    assert_eq!((lineage.level, lineage.until), (1, Some(world.now + world.table.config.timeout)));
    world.answer(root.key);
    assert!(world.table.lineage(root.key, &"f".into()).unwrap().is_none());
}
