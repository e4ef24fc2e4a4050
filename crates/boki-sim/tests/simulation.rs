//! A small campaign: enough to notice what is broken outright. Longer ones are run by the command.

#![allow(clippy::unwrap_used)]

use boki_sim::Run;
use boki_sim::campaign;
use boki_sim::mutation::Mutation;
use boki_sim::plan::Topology;

fn passes(runs: &[Run]) {
    let summary = campaign::run_all(runs, 2, &|_, _, _| {});
    let failed: Vec<_> = summary.failed.iter().map(|(run, violation)| (run.topology, run.seed, violation)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(summary.passed, runs.len() as u64);
}

fn first(seeds: u64, topology: Topology) -> Vec<Run> {
    (0..seeds).map(|seed| Run::new(seed, topology)).collect()
}

#[test]
fn seeds_that_once_failed_pass() {
    let runs = campaign::regressions();
    assert!(!runs.is_empty());
    passes(&runs);
}

#[test]
fn one_process_keeps_its_promises() {
    passes(&first(50, Topology::Alone));
}

#[test]
fn processes_apart_keep_their_promises() {
    passes(&first(50, Topology::Apart));
}

#[test]
fn the_faults_that_are_planned_happen() {
    let runs: Vec<Run> = [first(40, Topology::Alone), first(40, Topology::Apart)].concat();
    let counts = campaign::run_all(&runs, 2, &|_, _, _| {}).counts;
    for what in [
        "answers lost",
        "bits turned",
        "clock jumps",
        "conditions failed",
        "crashes during a write",
        "disks worn out",
        "failed writes",
        "fenced",
        "files cut off",
        "full disks met",
        "given up",
        "kills",
        "messages doubled",
        "messages lost",
        "partitions",
        "power cuts",
        "reads from disk",
        "reads made to fail",
        "reads refused for damage",
        "sectors spoiled",
        "segments removed",
        "shutdowns",
        "slow disks",
        "starts refused for damage",
        "writes forgotten",
        "writes lost",
        "writes misdirected",
    ] {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "no {what}");
    }
}

#[test]
fn two_runs_of_a_seed_are_the_same_event_for_event() {
    for topology in [Topology::Alone, Topology::Apart] {
        let hashes: Vec<u64> = (0..8).map(|seed| Run::new(seed, topology).run().trace_hash).collect();
        let again: Vec<u64> = (0..8).map(|seed| Run::new(seed, topology).run().trace_hash).collect();
        assert_eq!(hashes, again);
        assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]), "seeds differ");
    }
}

#[test]
fn every_deliberate_bug_is_caught() {
    campaign::name_panics();
    let survivors: Vec<_> = Mutation::ALL.iter().filter(|mutation| campaign::hunt(**mutation, 100).is_none()).collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}
