//! Which faults come when.

use boki_log::NodeId;

use crate::damage::Damage;
use crate::disk::CrashKind;
use crate::plan::{Plan, Topology};
use crate::rng::Rng;

/// Something that goes wrong, or well again.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The node loses its memory; it comes back after so many microseconds.
    Crash(NodeId, CrashKind, u64),
    /// The node is told to stop, and is killed a little later.
    ShutDown(NodeId),
    /// From these to those, nothing gets through.
    Partition(Vec<(NodeId, NodeId)>),
    /// All partitions end.
    Heal,
    /// The node's wall clock jumps.
    ClockJump(NodeId, i64),
    /// The node's disk is slow from now on, or no more.
    Slow(NodeId, bool),
    /// The node's disk is full from now on, or no more.
    Full(NodeId, bool),
    /// The node's next write fails.
    FailWrite(NodeId),
    /// The node gives back dead segments.
    Reclaim(NodeId),
    /// The node's disk does what it must not.
    Damage(NodeId, Damage),
}

/// The faults of a plan, each with its time, within `span_us`.
#[must_use]
pub fn schedule(plan: &Plan, span_us: u64, rng: &mut Rng) -> Vec<(u64, Fault)> {
    let mut nodes: Vec<NodeId> = plan.engines.iter().chain(&plan.storages).copied().collect();
    nodes.push(plan.sequencer);
    nodes.dedup();
    let with_disk = with_disk(plan);
    let mut faults = Vec::new();
    let any = |nodes: &[NodeId], rng: &mut Rng| *rng.pick(nodes).unwrap_or(&plan.sequencer);
    for _ in 0..plan.faults.crashes {
        let at = rng.below(span_us);
        let node = any(&nodes, rng);
        let kind = if rng.chance(700) { CrashKind::PowerCut } else { CrashKind::Killed };
        // Some are back before what was sent to them before arrives.
        let down_us = *rng.pick(&[300, 3_000, 30_000]).unwrap_or(&300);
        match rng.below(10) {
            0 => faults.push((at, Fault::ShutDown(node))),
            1..=3 => {
                // Several at once, or all.
                let share = *rng.pick(&[400, 600, 1000]).unwrap_or(&1000);
                let some: Vec<NodeId> = nodes.iter().copied().filter(|_| rng.chance(share)).collect();
                faults.extend(some.into_iter().map(|node| (at, Fault::Crash(node, kind, rng.below(down_us)))));
            }
            _ => faults.push((at, Fault::Crash(node, kind, rng.below(down_us)))),
        }
    }
    for _ in 0..plan.faults.partitions {
        let at = rng.below(span_us);
        let one_way = rng.chance(400);
        let (some, others): (Vec<NodeId>, Vec<NodeId>) = nodes.iter().partition(|_| rng.chance(400));
        let mut blocked = Vec::new();
        for from in &some {
            for to in &others {
                blocked.push((*from, *to));
                if !one_way {
                    blocked.push((*to, *from));
                }
            }
        }
        faults.push((at, Fault::Partition(blocked)));
        faults.push((at + rng.below(60_000), Fault::Heal));
    }
    for _ in 0..plan.faults.clock_jumps {
        // Some jumps are longer than anything in the protocol lasts.
        let most = *rng.pick(&[10_000, 10_000_000, 3_000_000_000, 8_000_000_000]).unwrap_or(&0);
        let jump = rng.below(2 * most) as i64 - most as i64;
        faults.push((rng.below(span_us), Fault::ClockJump(any(&nodes, rng), jump)));
    }
    for _ in 0..plan.faults.slow_disks {
        let (at, node) = (rng.below(span_us), any(&with_disk, rng));
        faults.push((at, Fault::Slow(node, true)));
        faults.push((at + rng.below(50_000), Fault::Slow(node, false)));
    }
    if plan.topology == Topology::Alone {
        full_disks(plan.faults.full_disks, &with_disk, span_us, rng, &mut faults);
    }
    for _ in 0..plan.faults.failing_writes {
        faults.push((rng.below(span_us), Fault::FailWrite(any(&with_disk, rng))));
    }
    for _ in 0..plan.faults.reclaims {
        faults.push((rng.below(span_us), Fault::Reclaim(any(&with_disk, rng))));
    }
    faults
}

/// What disks do that they must not, each with its time, within `span_us`; and, where the roles are apart, when which disk
/// is full.
#[must_use]
pub fn damages(plan: &Plan, span_us: u64, rng: &mut Rng) -> Vec<(u64, Fault)> {
    let with_disk = with_disk(plan);
    let mut faults = Vec::new();
    for damage in &plan.faults.damages {
        let node = *rng.pick(&with_disk).unwrap_or(&plan.sequencer);
        faults.push((rng.below(span_us), Fault::Damage(node, *damage)));
    }
    if plan.topology == Topology::Apart {
        full_disks(plan.faults.full_disks, &with_disk, span_us, rng, &mut faults);
    }
    faults
}

fn with_disk(plan: &Plan) -> Vec<NodeId> {
    let mut nodes = plan.storages.clone();
    nodes.push(plan.sequencer);
    nodes.dedup();
    nodes
}

fn full_disks(times: u64, nodes: &[NodeId], span_us: u64, rng: &mut Rng, faults: &mut Vec<(u64, Fault)>) {
    for _ in 0..times {
        let at = rng.below(span_us);
        let Some(node) = rng.pick(nodes) else { return };
        faults.push((at, Fault::Full(*node, true)));
        faults.push((at + rng.below(60_000), Fault::Full(*node, false)));
    }
}
