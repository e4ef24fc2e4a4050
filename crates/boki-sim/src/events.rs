//! What happens to nodes: crashes, writes, faults.

use boki_log::NodeId;
use boki_log::machine::WriteFrame;
use boki_log::storage::FramePlace;
use bytes::Bytes;

use crate::disk::{CrashKind, Interrupted, Written};
use crate::faults::Fault;
use crate::ledger::OnDisk;
use crate::mutation::Mutation;
use crate::node::Reclaim;
use crate::violation::{Checked, ensure};
use crate::world::{Event, World};

impl World {
    /// A node loses its memory.
    pub(crate) fn crash(&mut self, id: NodeId, kind: CrashKind) -> Checked {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.machine.is_none() {
            return Ok(());
        }
        let rng = &mut self.rng.disk;
        let mut how = Interrupted::NotBegun;
        if let Some(disk) = &mut node.disk {
            if let Some(frames) = &node.writing {
                how = *rng.pick(&[Interrupted::NotBegun, Interrupted::Partly, Interrupted::Done]).unwrap_or(&how);
                disk.write_interrupted(frames, how, kind, rng);
            }
            if kind == CrashKind::PowerCut
                && how == Interrupted::NotBegun
                && let Some(reclaim) = &node.reclaim
            {
                match reclaim.dead.get(reclaim.removed.len()) {
                    Some(segment) if reclaim.is_checkpointed => disk.remove_segment_interrupted(*segment, rng),
                    _ => disk.write_checkpoint_interrupted(&reclaim.checkpoint, rng),
                }
            }
            disk.crash(kind, rng);
        }
        let removed = node.reclaim.as_ref().map(|reclaim| reclaim.dead.clone()).unwrap_or_default();
        let writing = node.writing.is_some();
        node.lose_memory();
        // What a reclaim was about to remove may be gone: its meaning is in the checkpoint.
        removed.into_iter().for_each(|segment| self.ledger.removed(id, segment));
        self.count(if kind == CrashKind::PowerCut { "power cuts" } else { "kills" });
        if writing {
            self.count("crashes during a write");
        }
        self.note(id, format_args!("crashes: {kind:?}, its write {how:?}"));
        self.lose_answers_of(id);
        Ok(())
    }

    pub(crate) fn crash_all(&mut self, kind: CrashKind) -> Checked {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.crash(id, kind))
    }

    /// Hands the disk of `id` the next group; whether there was one.
    pub(crate) fn begin_write(&mut self, id: NodeId) -> Checked<bool> {
        let now_us = self.now_us;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(false) };
        let (timers_us, wall_us) = (node.clock.timers_us(now_us), node.clock.wall_us(now_us));
        let Some(machine) = node.machine.as_mut().filter(|machine| machine.wants_disk()) else { return Ok(false) };
        if node.writing.is_some() {
            return Ok(false);
        }
        let frames = machine.take_writes(timers_us, wall_us, self.plan.disk.group_bytes);
        ensure(!frames.is_empty(), "disk", || format!("{id} wants the disk for nothing"))?;
        if self.mutation == Some(Mutation::AckBeforeSync) {
            machine.written(timers_us, None, &nowhere(&frames));
        }
        let plan = &self.plan.disk;
        let delay_us = plan.delay_us + self.rng.disk.below(plan.jitter_us + 1);
        let delay_us = if node.is_slow { delay_us * 30 } else { delay_us };
        let count = frames.len();
        node.writing = Some(frames);
        let incarnation = node.incarnation;
        self.note(id, format_args!("writes {count} frames"));
        self.schedule(now_us + delay_us, Event::DiskDone { node: id, incarnation });
        Ok(true)
    }

    /// The disk of `id` does what it was handed.
    pub(crate) fn finish_write(&mut self, id: NodeId) -> Checked {
        let timers_us = self.timers_us(id);
        let mutation = self.mutation;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(frames) = node.writing.take() else { return Ok(()) };
        let Some(disk) = &mut node.disk else { return Ok(()) };
        if std::mem::take(&mut node.fails_next) {
            disk.fail_next_write(&mut self.rng.disk);
        }
        match disk.write(&frames) {
            Written::Done(places) => {
                let last = disk.last_group();
                let on_disk: Vec<OnDisk> = frames.iter().zip(&places).map(on_disk).collect();
                self.count("groups");
                self.note(id, format_args!("has written at {:?}", places.first()));
                let newly = self.ledger.durable(id, &on_disk)?;
                self.learn(newly)?;
                let Some(machine) = self.machine(id) else { return Ok(()) };
                if mutation != Some(Mutation::AckBeforeSync) {
                    machine.written(timers_us, last, &places);
                }
                if machine.take_waned() {
                    self.count("segments waned");
                    self.begin_reclaim(id);
                }
            }
            Written::Full => {
                self.count("full disks met");
                self.note(id, format_args!("has no room"));
                let Some(machine) = self.machine(id) else { return Ok(()) };
                match mutation {
                    Some(Mutation::FullIsWritten) => machine.written(timers_us, None, &nowhere(&frames)),
                    Some(Mutation::FullIsForEver) => {}
                    _ => machine.write_refused(timers_us),
                }
            }
            Written::Failed(reason) => {
                self.count("failed writes");
                self.note(id, format_args!("cannot write: {reason}"));
                let Some(machine) = self.machine(id) else { return Ok(()) };
                if mutation == Some(Mutation::FailureIsWritten) {
                    machine.written(timers_us, None, &nowhere(&frames));
                } else {
                    machine.write_failed(timers_us, &reason);
                }
                let kind = if self.rng.faults.chance(500) { CrashKind::PowerCut } else { CrashKind::Killed };
                let at_us = self.now_us + self.rng.faults.below(20_000);
                self.schedule(at_us, Event::Fault(Fault::Crash(id, kind, 5_000)));
            }
        }
        self.pump(id)
    }

    pub(crate) fn fault(&mut self, fault: Fault) -> Checked {
        if self.is_calm
            && !matches!(fault, Fault::Crash(..) | Fault::Heal | Fault::Slow(_, false) | Fault::Full(_, false))
        {
            return Ok(());
        }
        match fault {
            Fault::Crash(id, kind, down_us) => {
                if self.is_calm && !self.cannot_write(id) {
                    return Ok(());
                }
                self.crash(id, kind)?;
                let incarnation = self.nodes.get(&id).map_or(0, |node| node.incarnation);
                self.schedule(self.now_us + down_us, Event::Restart { node: id, incarnation });
            }
            Fault::ShutDown(id) => {
                let timers_us = self.timers_us(id);
                self.note(id, format_args!("is told to stop"));
                if let Some(node) = self.nodes.get_mut(&id)
                    && let Some(machine) = &mut node.machine
                {
                    machine.shut_down(timers_us);
                    node.is_stopping = true;
                    self.count("shutdowns");
                    self.schedule(self.now_us + 3_000, Event::Fault(Fault::Crash(id, CrashKind::Killed, 1_000)));
                }
                self.pump(id)?;
            }
            Fault::Partition(blocked) => {
                self.count("partitions");
                self.note(self.plan.sequencer, format_args!("cut off: {blocked:?}"));
                blocked.into_iter().for_each(|(from, to)| self.network.block(from, to));
            }
            Fault::Heal => self.network.heal(),
            Fault::ClockJump(id, by_us) => {
                self.count("clock jumps");
                self.note(id, format_args!("its wall clock jumps by {by_us} us"));
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.clock.skew_us += by_us;
                }
            }
            Fault::Slow(id, is_slow) => {
                if is_slow {
                    self.count("slow disks");
                }
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.is_slow = is_slow;
                }
            }
            Fault::Full(id, is_full) => {
                if is_full {
                    self.count("full disks");
                }
                self.note(id, format_args!("its disk is {}", if is_full { "full" } else { "full no more" }));
                self.set_full(id, is_full);
            }
            Fault::FailWrite(id) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.fails_next = true;
                }
            }
            Fault::Reclaim(id) => self.begin_reclaim(id),
            Fault::Damage(id, damage) => {
                self.count(damage.counted());
                self.note(id, format_args!("its disk: {damage:?}"));
                if let Some(disk) = self.nodes.get_mut(&id).and_then(|node| node.disk.as_mut()) {
                    disk.damage(damage, &mut self.rng.damage);
                }
            }
        }
        Ok(())
    }

    fn set_full(&mut self, id: NodeId, is_full: bool) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.is_full = is_full;
        if let Some(disk) = &mut node.disk {
            disk.set_full(is_full);
        }
    }

    /// Whether the process only waits for being started anew.
    fn cannot_write(&self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        node.machine.is_some() && node.disk.as_ref().is_some_and(crate::disk::NodeDisk::has_failed)
    }

    /// The faults are over: everything runs and reaches everything, and nobody asks for more.
    pub(crate) fn calm(&mut self) -> Checked {
        self.is_calm = true;
        self.network.calm();
        self.stop_clients();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.set_full(id, false);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.is_slow = false;
                node.fails_next = false;
            }
            if self.cannot_write(id) || self.is_stopping(id) {
                self.crash(id, CrashKind::Killed)?;
            }
        }
        self.note(self.plan.sequencer, format_args!("the faults are over"));
        self.start_all()
    }

    fn is_stopping(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.is_stopping)
    }

    /// Begins to give back dead segments.
    fn begin_reclaim(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(machine) = node.machine.as_mut().filter(|_| node.reclaim.is_none()) else { return };
        let dead = machine.dead_segments();
        let Some(checkpoint) = machine.checkpoint() else { return };
        let count = dead.len();
        node.reclaim = Some(Reclaim { checkpoint, dead, removed: Vec::new(), is_checkpointed: false });
        self.count("checkpoints");
        self.note(id, format_args!("makes a checkpoint for {count} dead segments"));
        self.reclaim_later(id);
    }

    fn reclaim_later(&mut self, id: NodeId) {
        let Some(incarnation) = self.nodes.get(&id).map(|node| node.incarnation) else { return };
        let most_us = *self.rng.disk.pick(&[100, 3_000, 30_000]).unwrap_or(&100);
        let at_us = self.now_us + self.rng.disk.between(10, most_us);
        self.schedule(at_us, Event::Reclaim { node: id, incarnation });
    }

    /// The next step of giving back dead segments: the checkpoint, each segment, the machine's own notes.
    pub(crate) fn reclaim(&mut self, id: NodeId) -> Checked {
        let mutation = self.mutation;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let (Some(reclaim), Some(disk), Some(machine)) = (&mut node.reclaim, &mut node.disk, &mut node.machine) else {
            return Ok(());
        };
        if !reclaim.is_checkpointed {
            let is_omitted = match mutation {
                Some(Mutation::SegmentWithoutCheckpoint) => true,
                Some(Mutation::CheckpointTooOld) => disk.has_checkpoint(),
                _ => false,
            };
            let is_written = is_omitted || disk.write_checkpoint(&reclaim.checkpoint);
            if !is_written {
                node.reclaim = None;
                return Ok(());
            }
            reclaim.is_checkpointed = true;
            machine.filed(&reclaim.checkpoint.unfiled);
            self.reclaim_later(id);
            return Ok(());
        }
        if let Some(segment) = reclaim.dead.get(reclaim.removed.len()).copied() {
            disk.check_has(segment)?;
            let is_removed = match mutation {
                Some(Mutation::RemovalUnrecorded) => disk.unlink_segment(segment),
                _ => disk.remove_segment(segment),
            };
            if !is_removed {
                machine.forget_segments(&reclaim.removed);
                node.reclaim = None;
                return Ok(());
            }
            reclaim.removed.push(segment);
            self.ledger.removed(id, segment);
            self.count("segments removed");
            self.note(id, format_args!("removes segment {segment}"));
            self.reclaim_later(id);
            return Ok(());
        }
        machine.forget_segments(&reclaim.removed);
        node.reclaim = None;
        Ok(())
    }
}

fn on_disk((frame, place): (&WriteFrame, &FramePlace)) -> OnDisk {
    OnDisk { kind: frame.kind, segment: place.segment, body: Bytes::from(frame.parts.concat()) }
}

/// Places that a bug makes up.
fn nowhere(frames: &[WriteFrame]) -> Vec<FramePlace> {
    vec![FramePlace { segment: 1, offset: 0 }; frames.len()]
}
