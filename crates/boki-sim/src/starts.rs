//! A process starts: it opens its disk, and its machine takes back what is on it.

use boki_log::machine::{Checkpoint, Damage, FRAME_RUN, Machine};
use boki_log::storage::FramePlace;
use boki_log::{NodeId, Position};
use bytes::Bytes;

use crate::disk::NodeDisk;
use crate::ledger::OnDisk;
use crate::mutation::Mutation;
use crate::node;
use crate::plan::Topology;
use crate::violation::{Checked, Violation, ensure};
use crate::world::{Event, World};

impl World {
    /// Starts every node that is down.
    pub(crate) fn start_all(&mut self) -> Checked {
        let down: Vec<NodeId> = self.nodes.values().filter(|node| node.machine.is_none()).map(|node| node.id).collect();
        down.into_iter().try_for_each(|node| self.start(node))
    }

    /// A process starts on what its disk holds.
    pub(crate) fn start(&mut self, id: NodeId) -> Checked {
        let now_us = self.now_us;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.machine.is_some() {
            return Ok(());
        }
        node.new_process(now_us, &mut self.rng.faults);
        if node.term == 0 || self.mutation != Some(Mutation::TermContinues) {
            node.term += 1;
        }
        let mut config = node::config(&self.plan, id, node.term);
        if let Some(mutation) = self.mutation {
            mutation.spoil_config(&mut config);
        }
        let mut machine = Machine::new(config);
        let damaged = |damage: Damage| Violation { check: "recovery", detail: damage.to_string() };
        let is_late = node.term > 1;
        let (mut frames, mut last, mut segments) = (Vec::new(), None, Vec::new());
        if let Some(disk) = &mut node.disk {
            disk.set_lie(self.mutation.and_then(Mutation::lie));
            if is_late && !self.is_calm && self.rng.faults.chance(150) && !disk.is_damaged() {
                disk.open_interrupted(&mut self.rng.disk);
            }
            let Some(opened) = self.open_disk(id)? else {
                let down_us = self.rng.damage.below(50_000);
                let incarnation = self.nodes.get(&id).map_or(0, |node| node.incarnation);
                self.schedule(self.now_us + down_us, Event::Restart { node: id, incarnation });
                return Ok(());
            };
            (frames, last) = (opened.frames, opened.last);
            segments =
                self.nodes.get(&id).and_then(|node| node.disk.as_ref()).map_or_else(Vec::new, NodeDisk::segments);
            let mut covered = 0;
            if let Some(checkpoint) = opened.checkpoint {
                let checkpoint = Checkpoint::decode(&checkpoint).map_err(damaged)?;
                if let Some(last) = checkpoint.covered {
                    covered = opened.groups.partition_point(|group| *group <= last.group);
                }
                machine.recover_checkpoint(checkpoint).map_err(damaged)?;
            }
            let found: Vec<OnDisk> = frames.iter().map(|(frame, _)| frame.clone()).collect();
            let newly = self.ledger.recovered(id, &found)?;
            self.learn(newly)?;
            self.spoil_recovery(&mut frames);
            for (frame, place) in frames.iter().skip(covered) {
                machine.recover_frame(frame.kind, *place, &frame.body).map_err(damaged)?;
            }
        }
        if is_late {
            self.count("restarts");
        }
        self.note(id, format_args!("starts with {} frames", frames.len()));
        machine.start(self.timers_us(id), last, &segments).map_err(damaged)?;
        self.check_started(id, &machine)?;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.machine = Some(machine);
        }
        self.pump(id)
    }

    fn spoil_recovery(&self, frames: &mut Vec<(OnDisk, FramePlace)>) {
        if self.has(Mutation::RecoveryDropsLastGroup) {
            while let Some((frame, _)) = frames.pop()
                && frame.kind != FRAME_RUN
            {}
        }
        if self.has(Mutation::RecoveryPassesTornBytes)
            && let Some((frame, _)) = frames.iter_mut().rev().find(|(frame, _)| frame.kind == FRAME_RUN)
        {
            let mut body = frame.body.to_vec();
            if let Some(byte) = body.last_mut() {
                *byte ^= 1;
            }
            frame.body = Bytes::from(body);
        }
    }

    /// That the machine knows everything that is ordered, as soon as it has read its disk.
    fn check_started(&self, id: NodeId, machine: &Machine) -> Checked {
        let end = self.ledger.end();
        if let Some(sequencer) = machine.sequencer() {
            let at = Position(sequencer.committed_end());
            ensure(at == end, "recovery", || format!("the sequencer {id} starts at {at}, the order ends at {end}"))?;
        }
        if self.plan.topology == Topology::Alone
            && let Some(engine) = machine.engine()
        {
            let at = engine.index().position();
            ensure(at == end, "recovery", || format!("the engine {id} starts at {at}, the order ends at {end}"))?;
        }
        Ok(())
    }
}
