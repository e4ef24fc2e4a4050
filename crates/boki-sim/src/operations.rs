//! Operations: what clients ask for, on its way to an engine and back.

use boki_log::batch::Batch;
use boki_log::engine::{OpId, Outcome};
use boki_log::error::Retry;
use boki_log::op::{Op, Reply};
use boki_log::{LogError, NodeId, Position, Seq};

use crate::ledger::NewlyOrdered;
use crate::mutation::Mutation;
use crate::violation::{Checked, violated};
use crate::workload::{Client, key_of};
use crate::world::{Event, World};

/// An operation under way.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// What the client asked for.
    pub(crate) op: Op,
    pub(crate) node: NodeId,
    /// `None`: the simulator itself.
    pub(crate) client: Option<usize>,
    /// What anyone had seen before it began.
    pub(crate) must_see: Position,
    /// The highest seq that was acknowledged before it began.
    pub(crate) after: Seq,
    /// When it began, by its node's clock for timers.
    pub(crate) timers_us: u64,
}

/// Everything about one append, however often it was sent.
#[derive(Debug)]
pub(crate) struct AppendState {
    /// What the engines were given.
    pub(crate) sent: Batch,
    pub(crate) submits: u64,
    /// How many submits were refused: those are not in the log.
    pub(crate) refused: u64,
    /// It had a durable ack.
    pub(crate) is_promised: bool,
}

impl World {
    /// A client does something.
    pub(crate) fn act(&mut self, number: usize) -> Checked {
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        if !(self.is_calm && client.is_done()) {
            let pause_us = 1 + self.rng.workload.below(self.plan.work.think_us);
            self.schedule(self.now_us + pause_us, Event::Client(number));
        }
        if self.rng.workload.chance(20) {
            self.give_up(number)?;
        }
        let client = &mut self.clients[number];
        let engine = client.engine;
        if self.nodes.get(&engine).is_none_or(|node| node.machine.is_none()) {
            client.engine = *self.rng.workload.pick(&self.plan.engines).unwrap_or(&engine);
            return Ok(());
        }
        let Some(op) = client.next(&self.plan, &mut self.rng.workload) else { return Ok(()) };
        let engine = client.engine;
        if self.nodes.get(&engine).is_none_or(|node| node.machine.is_none()) {
            client.busy += 1;
            client.lose(op, &mut self.rng.workload);
            return Ok(());
        }
        client.busy += 1;
        self.submit(engine, Some(number), op)
    }

    /// A client gives up a read.
    fn give_up(&mut self, number: usize) -> Checked {
        let of_client = |asked: &Asked| asked.client == Some(number) && !matches!(asked.op, Op::Append(_));
        let Some((id, asked)) = self.asked.iter().find(|(_, asked)| of_client(asked)) else { return Ok(()) };
        let (id, node) = (*id, asked.node);
        self.count("given up");
        self.note(node, format_args!("op {} is given up", id.0));
        self.asked.remove(&id);
        self.clients[number].fail();
        if let Some(machine) = self.machine(node) {
            machine.cancel(id);
        }
        self.pump(node)
    }

    pub(crate) fn submit(&mut self, node: NodeId, client: Option<usize>, op: Op) -> Checked {
        let id = OpId(self.next_op);
        self.next_op += 1;
        self.count(match &op {
            Op::Append(_) => "appends",
            Op::Read(read) if read.wait.is_some() => "blocking reads",
            Op::Read(_) => "reads",
            Op::Tail(_) => "tails",
            Op::Tags(_) => "tag lists",
            Op::SetAux(_) => "aux set",
        });
        self.note(node, format_args!("op {}: {op:?}", id.0));
        let asked = Asked {
            op: op.clone(),
            node,
            client,
            must_see: self.most_seen,
            after: self.last_acked,
            timers_us: self.timers_us(node),
        };
        let wanted = match &op {
            Op::Append(append) => Some(append.batch.clone()),
            _ => None,
        };
        self.asked.insert(id, asked);
        let given = match self.mutation {
            None => Ok(op),
            Some(mutation) => {
                let index = self.machine(node).and_then(|machine| Some(machine.engine()?.index()));
                mutation.spoil_op(op, index)
            }
        };
        if let Some(wanted) = wanted {
            let sent = match &given {
                Ok(Op::Append(append)) => append.batch.clone(),
                _ => wanted.clone(),
            };
            let key = key_of(&wanted);
            self.asked_for.insert(key_of(&sent), (key, wanted));
            let fresh = AppendState { sent, submits: 0, refused: 0, is_promised: false };
            self.appends.entry(key).or_insert(fresh).submits += 1;
        }
        match given {
            Err(error) => self.finish(node, id, Outcome::Done(Err(error)))?,
            Ok(op) => {
                let timers_us = self.timers_us(node);
                if let Some(machine) = self.machine(node) {
                    machine.submit(timers_us, id, op);
                }
            }
        }
        self.pump(node)
    }

    /// An operation has ended.
    pub(crate) fn finish(&mut self, node: NodeId, id: OpId, outcome: Outcome) -> Checked {
        let Some(asked) = self.asked.remove(&id) else {
            return violated("answered-twice", format!("op {}: {outcome:?}", id.0));
        };
        if matches!(outcome, Outcome::Fetch(_)) {
            self.count("reads from disk");
        }
        let mut result = self.resolve(node, outcome)?;
        if self.has(Mutation::PositionTooHigh)
            && let Some(Ok(Reply::Records(records))) = &mut result
        {
            records.position = Position(records.position.0.next());
        }
        self.note(node, format_args!("op {} ends: {result:?}", id.0));
        if let Some(result) = &result {
            self.check_answer(node, &asked, result)?;
            if let Err(error) = result {
                self.count(counted(error));
            }
        }
        let is_lost = self.rng.workload.chance(self.plan.faults.lost_answers);
        if is_lost {
            self.count("answers lost");
        }
        let Some(client) = asked.client.and_then(|number| self.clients.get_mut(number)) else { return Ok(()) };
        match result.filter(|_| !is_lost) {
            Some(Ok(reply)) => client.take(&asked.op, &reply),
            Some(Err(error)) if error.retry() == Retry::Never => client.fail(),
            _ => client.lose(asked.op, &mut self.rng.workload),
        }
        Ok(())
    }

    /// Whoever waited for an answer from `node` will get none.
    pub(crate) fn lose_answers_of(&mut self, node: NodeId) {
        let ids: Vec<OpId> = self.asked.iter().filter(|(_, asked)| asked.node == node).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(asked) = self.asked.remove(&id) else { continue };
            self.count("answers lost in crashes");
            if let Some(client) = asked.client.and_then(|number| self.clients.get_mut(number)) {
                client.lose(asked.op, &mut self.rng.workload);
            }
        }
    }

    /// What is newly ordered becomes part of the model.
    pub(crate) fn learn(&mut self, newly: Vec<NewlyOrdered>) -> Checked {
        for NewlyOrdered { batch, time_us } in newly {
            let Some((key, wanted)) = self.asked_for.get(&key_of(&batch)) else {
                return violated("append", format!("{batch:?} is in the order, and nobody asked for it"));
            };
            self.model.push(*key, wanted.clone(), time_us);
        }
        Ok(())
    }

    pub(crate) fn stop_clients(&mut self) {
        self.clients.iter_mut().for_each(Client::stop);
    }
}

fn counted(error: &LogError) -> &'static str {
    match error {
        LogError::ConditionFailed { .. } => "conditions failed",
        LogError::Fenced { .. } => "fenced",
        LogError::DiskFull => "refused by a full disk",
        LogError::WriteFailed { .. } => "failed by a write",
        LogError::Overloaded { .. } => "refused for overload",
        _ => "other errors",
    }
}
