//! Checks every answer at the moment it is given, against the model of what is on the disks by then.

use boki_log::batch::{Record, RecordBody};
use boki_log::engine::{Body, Fetch, Outcome};
use boki_log::index::Verdict;
use boki_log::op::{Ack, Append, Appended, Consistency, Direction, Op, Read, Records, Reply, SetAux, Tags, TagsReply};
use boki_log::{LocalId, LogError, NodeId, Position, Seq, ShardId};

use crate::damage::{Damage, Unread};
use crate::mutation::Mutation;
use crate::operations::Asked;
use crate::plan::Topology;
use crate::violation::{Checked, Violation, ensure, violated};
use crate::workload::key_of;
use crate::world::World;

/// What is known of a record that is on disks.
#[derive(Debug)]
pub(crate) enum Stored {
    /// It is this.
    Here(RecordBody),
    /// No node is up that has it.
    Down,
    /// It cannot be read.
    Damaged(String),
}

impl World {
    /// Checks the answer to `asked`, given by `node`.
    pub(crate) fn check_answer(&mut self, node: NodeId, asked: &Asked, result: &Result<Reply, LogError>) -> Checked {
        if let Ok(reply) = result
            && let Some(position) = position_of(reply)
        {
            ensure(position <= self.ledger.end(), "told-before-durable", || {
                format!("{reply:?} to {:?}, and only what is below {} is on disk", asked.op, self.ledger.end())
            })?;
            self.most_seen = self.most_seen.max(position);
        }
        match (&asked.op, result) {
            (Op::Append(append), result) => self.check_append(asked, append, result),
            (Op::Read(read), Ok(Reply::Records(records))) => self.check_read(node, asked, read, records),
            (Op::Tail(tail), Ok(Reply::Tail(reply))) => {
                self.check_promise(asked, tail.consistency, reply.position)?;
                let expected = self.model.tail(tail.book, tail.tag.as_ref(), reply.position);
                ensure(reply.seq == expected, "read", || format!("{tail:?} gave {reply:?}, not {expected}"))
            }
            (Op::Tags(tags), Ok(Reply::Tags(reply))) => self.check_tags(asked, tags, reply),
            (Op::SetAux(aux), result) => self.check_set_aux(node, aux, result),
            (_, Err(LogError::Overloaded { .. })) if self.plan.limits.waiting_reads < 100 => Ok(()),
            (_, Err(LogError::ShuttingDown)) => Ok(()),
            // Only the simulator itself says so, and not without a reason.
            (Op::Read(_), Err(LogError::ReadFailed { .. })) => {
                self.count("reads refused for damage");
                Ok(())
            }
            (op, result) => violated("unexpected", format!("{result:?} to {op:?}")),
        }
    }

    /// The whole outcome of a read, with bodies from disk; `None` if no node that has them is up.
    pub(crate) fn resolve(&self, node: NodeId, outcome: Outcome) -> Checked<Option<Result<Reply, LogError>>> {
        let Fetch { records, position } = match outcome {
            Outcome::Done(result) => return Ok(Some(result)),
            Outcome::Fetch(fetch) => fetch,
        };
        let mut whole: Vec<Record> = Vec::with_capacity(records.len());
        let mut bytes = 0;
        for (known, body) in records {
            let body = match body {
                Body::Here(body) => body,
                Body::Stored(shard, local) => {
                    let local = if self.has(Mutation::WrongPlace) { LocalId(local.0 + 1) } else { local };
                    match self.stored(node, known.seq, shard, local)? {
                        Stored::Here(body) => body,
                        Stored::Down => return Ok(None),
                        Stored::Damaged(_) if self.has(Mutation::DamageIsAbsence) => continue,
                        Stored::Damaged(reason) => {
                            return Ok(Some(Err(LogError::ReadFailed { seq: known.seq, reason })));
                        }
                    }
                }
            };
            bytes += body.bytes().len();
            if bytes > self.plan.limits.read_bytes && !whole.is_empty() {
                break;
            }
            whole.push(known.with(body));
        }
        Ok(Some(Ok(Reply::Records(Records { records: whole, position }))))
    }

    /// The record that is `local` of `shard`, from a disk that has it: of several the first that is not damaged there.
    pub(crate) fn stored(&self, node: NodeId, seq: Seq, shard: ShardId, local: LocalId) -> Checked<Stored> {
        let holders = match self.plan.topology {
            Topology::Alone => vec![node],
            Topology::Apart => self.plan.storages.clone(),
        };
        let mut stored = Stored::Down;
        for holder in holders.iter().filter_map(|holder| self.nodes.get(holder)) {
            let (Some(disk), Some(machine)) = (&holder.disk, &holder.machine) else { continue };
            let Some(found) = machine.find(shard, local) else { continue };
            let broken = |detail: String| Violation { check: "body", detail: format!("at {seq}: {detail}") };
            match disk.read_record(found, !self.has(Mutation::ReadUnchecked)) {
                Ok(bytes) => {
                    let body = RecordBody::decode(bytes).map_err(|error| broken(error.to_string()))?;
                    return Ok(Stored::Here(body));
                }
                Err(Unread::Damaged(reason)) => stored = Stored::Damaged(reason),
                Err(Unread::Wrong(reason)) => return Err(broken(format!("the disk is sound: {reason}"))),
            }
        }
        ensure(self.plan.topology == Topology::Apart || !matches!(stored, Stored::Down), "body", || {
            format!("nothing says where the record at {seq} is")
        })?;
        Ok(stored)
    }

    fn check_append(&mut self, asked: &Asked, append: &Append, result: &Result<Reply, LogError>) -> Checked {
        let key = key_of(&append.batch);
        let instances: Vec<(Seq, Verdict)> =
            self.model.instances(key).map(|instance| (instance.seq, instance.verdict.clone())).collect();
        let Some(state) = self.appends.get_mut(&key) else {
            return violated("unexpected", "an append that nobody asked for");
        };
        let count = append.batch.record_count();
        match result {
            Ok(Reply::Appended(Appended { seq: None, count: told, .. })) => {
                ensure(append.ack == Ack::Durable && *told == count, "unexpected", || format!("{result:?}"))?;
                state.is_promised = true;
                let sent = &state.sent;
                ensure(self.ledger.is_durable(|batch| batch == sent), "told-before-durable", || {
                    format!("a durable ack for {:?}, which no quorum has on disk", append.batch)
                })
            }
            Ok(Reply::Appended(Appended { seq: Some(seq), count: told, repeated, position })) => {
                ensure(*told == count, "unexpected", || format!("{result:?}"))?;
                if *repeated {
                    let is_so = instances.iter().any(|(_, verdict)| *verdict == Verdict::Repeated(*seq));
                    return ensure(is_so, "append", || format!("{result:?}, but the order says {instances:?}"));
                }
                ensure(instances.contains(&(*seq, Verdict::Applied)), "append", || {
                    format!("{result:?}, but the order says {instances:?} of {:?}", append.batch)
                })?;
                ensure(position.0.0 >= seq.0 + u64::from(count), "session", || {
                    format!("{result:?}: whoever has this position may not see the append")
                })?;
                ensure(*seq > asked.after, "real-time-order", || {
                    format!("{seq} was asked for after {} was acknowledged", asked.after)
                })?;
                self.last_acked = self.last_acked.max(*seq);
                Ok(())
            }
            Err(
                error @ (LogError::ConditionFailed { .. } | LogError::Fenced { .. } | LogError::BookNotFound { .. }),
            ) => {
                let is_so = instances.iter().any(|(_, verdict)| *verdict == Verdict::Void(error.clone()));
                ensure(is_so, "append", || format!("{error}, but the order says {instances:?}"))
            }
            Err(LogError::DurableWithConditions) => {
                state.refused += 1;
                ensure(append.ack == Ack::Durable && append.batch.is_conditional(), "unexpected", || {
                    format!("{result:?}")
                })
            }
            Err(LogError::DiskFull) => {
                state.refused += 1;
                ensure(self.plan.faults.full_disks > 0, "unexpected", || format!("{result:?}"))
            }
            Err(LogError::Overloaded { .. }) => {
                state.refused += 1;
                ensure(self.plan.limits.pending_bytes < 1 << 20, "unexpected", || format!("{result:?}"))
            }
            Err(LogError::WriteFailed { .. }) => {
                let faults = &self.plan.faults;
                let is_explained = faults.failing_writes > 0 || faults.damages.contains(&Damage::WornOut);
                ensure(is_explained, "unexpected", || format!("{result:?}"))
            }
            Err(LogError::ShuttingDown) => Ok(()),
            other => violated("unexpected", format!("{other:?} to an append")),
        }
    }

    /// What a read is promised, by its position.
    fn check_promise(&self, asked: &Asked, consistency: Consistency, position: Position) -> Checked {
        match consistency {
            Consistency::Session(at) => {
                ensure(position >= at, "session", || format!("a session at {at} was answered from {position}"))
            }
            Consistency::Linearizable => ensure(position >= asked.must_see, "linearizable", || {
                format!("an answer from {position}, though {} had been seen before it was asked for", asked.must_see)
            }),
            Consistency::Any => Ok(()),
        }
    }

    fn check_read(&self, node: NodeId, asked: &Asked, read: &Read, got: &Records) -> Checked {
        self.check_promise(asked, read.consistency, got.position)?;
        let limits = &self.plan.limits;
        let limit = (read.limit.max(1) as usize).min(limits.read_records);
        let mut expected = self.model.read(read.book, read.tag.as_ref(), read.from, read.direction, got.position);
        expected.truncate(limit);
        let wrong = |what: &str| {
            let seqs: Vec<_> = expected.iter().map(|record| record.seq).collect();
            let got_seqs: Vec<_> = got.records.iter().map(|record| record.seq).collect();
            format!("{read:?} at {} gave {got_seqs:?}, expected {seqs:?}: {what}", got.position)
        };
        ensure(got.records.len() <= expected.len(), "read", || wrong("too many"))?;
        for (got, expected) in got.records.iter().zip(&expected) {
            ensure(got.seq == expected.seq, "read", || wrong("other records"))?;
            ensure(got.time_us == expected.time_us, "time", || wrong("another time"))?;
            ensure(got.body == expected.body, "body", || wrong("another body"))?;
            if let Some(aux) = &got.aux {
                let set = self.nodes.get(&node).and_then(|node| node.aux.get(&got.seq));
                ensure(set == Some(aux), "aux", || wrong("aux data that nobody set last"))?;
            }
        }
        if got.records.len() < expected.len() {
            let bytes: usize =
                expected.iter().take(got.records.len() + 1).map(|record| record.body.bytes().len()).sum();
            ensure(!got.records.is_empty() && bytes > limits.read_bytes, "read", || wrong("too few"))?;
        }
        if let Some(wait) = read.wait
            && got.records.is_empty()
            && read.direction == Direction::Next
        {
            let waited_us = self.timers_us(node).saturating_sub(asked.timers_us);
            ensure(u128::from(waited_us) >= wait.as_micros(), "blocking-read", || {
                wrong(&format!("it gave up after {waited_us} us"))
            })?;
        }
        Ok(())
    }

    fn check_tags(&self, asked: &Asked, tags: &Tags, got: &TagsReply) -> Checked {
        self.check_promise(asked, tags.consistency, got.position)?;
        let limit = (tags.limit.max(1) as usize).min(self.plan.limits.read_records);
        let all = self.model.tags(tags.book, got.position);
        let mut expected: Vec<(&str, Seq)> = all
            .into_iter()
            .filter(|(tag, _)| tag.starts_with(&tags.prefix))
            .filter(|(tag, _)| tags.after.as_ref().is_none_or(|after| *tag > after.as_str()))
            .collect();
        let more = expected.len() > limit;
        expected.truncate(limit);
        let got_tags: Vec<_> = got.tags.iter().map(|(tag, seq)| (tag.as_str(), *seq)).collect();
        ensure(got_tags == expected && got.more == more, "read", || {
            format!("{tags:?} gave {got:?}, expected {expected:?}, more: {more}")
        })
    }

    fn check_set_aux(&mut self, node: NodeId, aux: &SetAux, result: &Result<Reply, LogError>) -> Checked {
        let Some(node) = self.nodes.get_mut(&node) else { return Ok(()) };
        let Some(engine) = node.machine.as_ref().and_then(|machine| machine.engine()) else { return Ok(()) };
        let exists = self.model.contains(aux.book, aux.seq, engine.index().position());
        match result {
            Ok(Reply::AuxSet) if exists => {
                node.aux.insert(aux.seq, aux.aux.clone());
                Ok(())
            }
            Err(LogError::NoSuchRecord { seq }) if !exists && *seq == aux.seq => Ok(()),
            other => violated("aux", format!("{other:?} to {aux:?}, there is one: {exists}")),
        }
    }
}

fn position_of(reply: &Reply) -> Option<Position> {
    match reply {
        Reply::Appended(appended) => Some(appended.position),
        Reply::Records(records) => Some(records.position),
        Reply::Tail(tail) => Some(tail.position),
        Reply::Tags(tags) => Some(tags.position),
        Reply::AuxSet => None,
    }
}
