//! Checks after the run, when everything has come to rest: every engine's index says what the model says, and every promise
//! was kept.

use boki_log::index::{Index, TableError, Verdict};
use boki_log::op::Direction;
use boki_log::{NodeId, Seq, Tag};

use crate::answers::Stored;
use crate::disk::NodeDisk;
use crate::model::Model;
use crate::plan::Topology;
use crate::violation::{Checked, Violation, ensure, violated};
use crate::world::World;

impl World {
    /// See the module's description.
    pub(crate) fn check_finally(&self) -> Checked {
        self.check_appends()?;
        self.check_storm()?;
        self.check_bodies(!self.plan.faults.damages.is_empty())?;
        let mut first: Option<(NodeId, &Index)> = None;
        for node in &self.plan.engines {
            let Some(engine) = self.nodes.get(node).and_then(|node| node.machine.as_ref()?.engine()) else { continue };
            let index = engine.index();
            ensure(index.next_cut() == self.ledger.cuts(), "index", || {
                format!("{node} has applied {} cuts of {}", index.next_cut(), self.ledger.cuts())
            })?;
            check_index(*node, index, &self.model)?;
            // Checkpoints drop what no answer depends on, so that only indexes without are comparable as they are.
            if self.plan.topology == Topology::Apart {
                let (other, same) = *first.get_or_insert((*node, index));
                ensure(same == index, "index", || format!("the indexes of {other} and {node} differ"))?;
            }
        }
        Ok(())
    }

    /// That nothing is left of damage once the disks are sound: every record is there as it was written.
    pub(crate) fn check_healed(&mut self) -> Checked {
        self.nodes.values_mut().filter_map(|node| node.disk.as_mut()).for_each(NodeDisk::heal);
        self.check_bodies(false)
    }

    /// That every record that exists is read from disk as it was written; or not at all, if that place is damaged.
    fn check_bodies(&self, may_be_damaged: bool) -> Checked {
        let at = self.model.end();
        let Some(engine) = self.plan.engines.first() else { return Ok(()) };
        let index = self.nodes.get(engine).and_then(|node| Some(node.machine.as_ref()?.engine()?.index()));
        let Some(index) = index else { return Ok(()) };
        for book in self.model.books() {
            for record in self.model.read(book, None, Seq(0), Direction::Next, at) {
                let Some((shard, local, _)) = index.place(record.seq).map_err(unreadable)? else { continue };
                match self.stored(*engine, record.seq, shard, local)? {
                    Stored::Here(body) => {
                        ensure(body == record.body, "body", || format!("the record at {} is {body:?}", record.seq))?;
                    }
                    Stored::Damaged(reason) => ensure(may_be_damaged, "body", || reason)?,
                    Stored::Down => return violated("body", format!("no disk has the record at {}", record.seq)),
                }
            }
        }
        Ok(())
    }

    /// That engines asked for batches of others about as often as they missed one, and not once more for every answer.
    fn check_storm(&self) -> Checked {
        let nudges = (self.now_us / self.plan.resend_us + 1) * self.plan.engines.len() as u64;
        let starts: u64 = self.plan.engines.iter().filter_map(|id| self.nodes.get(id)).map(|n| u64::from(n.term)).sum();
        let most = self.plan.storages.len() as u64 * (nudges + starts * self.model.len());
        let fetches = self.counts.get("batches fetched").copied().unwrap_or(0);
        ensure(fetches <= most, "storm", || format!("engines asked for batches {fetches} times, {most} are explained"))
    }

    fn check_appends(&self) -> Checked {
        for (key, append) in &self.appends {
            let instances: Vec<_> = self.model.instances(*key).collect();
            ensure(!append.is_promised || !instances.is_empty(), "promise-broken", || {
                format!("{:?} had a durable ack and is not in the order", append.sent)
            })?;
            ensure(instances.len() as u64 <= append.submits - append.refused, "refused-and-there", || {
                format!(
                    "{:?} was asked for {} times, refused {} times, and is there {} times",
                    append.sent,
                    append.submits,
                    append.refused,
                    instances.len()
                )
            })?;
            if append.sent.id().is_some() {
                let applied: Vec<_> = instances.iter().filter(|one| one.verdict == Verdict::Applied).collect();
                let twice = applied.windows(2).any(|pair| pair[1].time_us - pair[0].time_us <= 3_600_000_000);
                ensure(!twice, "append", || format!("{:?} has an id and is there twice", append.sent))?;
            }
        }
        Ok(())
    }
}

fn unreadable(error: TableError) -> Violation {
    Violation { check: "index", detail: error.to_string() }
}

/// That `index` answers everything as the model does.
fn check_index(node: NodeId, index: &Index, model: &Model) -> Checked {
    let at = model.end();
    ensure(index.position() == at, "index", || format!("{node} is at {}, the order ends at {at}", index.position()))?;
    ensure(index.live_records() == model.live(at), "index", || {
        format!("{node} counts {} records, there are {}", index.live_records(), model.live(at))
    })?;
    for book in model.books() {
        let tags = model.tags(book, at);
        let (listed, more) = index.tags(book, "", None, usize::MAX).map_err(unreadable)?;
        let listed: Vec<_> = listed.iter().map(|(tag, seq)| (tag.as_str(), *seq)).collect();
        let expected: Vec<_> = tags.iter().map(|(tag, seq)| (*tag, *seq)).collect();
        ensure(listed == expected && !more, "index", || {
            format!("{node} lists tags {listed:?} of {book}, expected {expected:?}")
        })?;
        let tags = tags.keys().filter_map(|tag| Tag::new(*tag).ok()).map(Some);
        for tag in std::iter::once(None).chain(tags) {
            let tag = tag.as_ref();
            let expected = model.read(book, tag, Seq(0), Direction::Next, at);
            let seqs: Vec<_> = expected.iter().map(|record| record.seq).collect();
            let (mut next, mut prev) = (Vec::new(), Vec::new());
            index.next(book, tag, Seq(0), usize::MAX, &mut next).map_err(unreadable)?;
            index.prev(book, tag, Seq::MAX, usize::MAX, &mut prev).map_err(unreadable)?;
            prev.reverse();
            ensure(next == seqs && prev == seqs, "index", || {
                format!("{node} has {next:?} and {prev:?} of {book} under {tag:?}, expected {seqs:?}")
            })?;
            let tail = index.tail(book, tag).map_err(unreadable)?;
            ensure(tail == model.tail(book, tag, at), "index", || {
                format!("{node} has the tail {tail} of {book} under {tag:?}")
            })?;
            for record in expected {
                let time = index.place(record.seq).map_err(unreadable)?.map(|(_, _, time_us)| time_us);
                let exists = index.contains(book, record.seq).map_err(unreadable)?;
                ensure(time == Some(record.time_us) && exists, "index", || {
                    format!("{node} has the time {time:?} for {}, expected {}", record.seq, record.time_us)
                })?;
            }
        }
        let count = model.read(book, None, Seq(0), Direction::Next, at).len() as u64;
        ensure(index.count(book) == count, "index", || format!("{node} counts {} in {book}", index.count(book)))?;
    }
    Ok(())
}
