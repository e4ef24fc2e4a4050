//! The simulated world: nodes, disks, network, clients and faults, in one thread, in virtual time.
//!
//! Everything that happens is an event in one heap, ordered by time; ties are broken by a number drawn from the seed. An
//! event may make further events, and nothing else can: two runs of a seed are the same, event for event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use boki_log::batch::Batch;
use boki_log::engine::OpId;
use boki_log::message::Message;
use boki_log::op::{Consistency, Op, Tail};
use boki_log::{BookId, NodeId, Position, Seq};

use crate::Report;
use crate::faults::{self, Fault};
use crate::ledger::Ledger;
use crate::model::Model;
use crate::mutation::{Memory, Mutation};
use crate::network::Network;
use crate::node::SimNode;
use crate::operations::{AppendState, Asked};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::trace::{Brief, Trace};
use crate::violation::{Checked, Violation, ensure};
use crate::workload::Client;

/// In the end, everything that is under way must have ended after so much virtual time without faults.
const REST_US: u64 = 5_000_000;

#[derive(Debug)]
pub(crate) enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        message: Message,
    },
    /// The group in the hands of the disk is done.
    DiskDone {
        node: NodeId,
        incarnation: u64,
    },
    Timer {
        node: NodeId,
        incarnation: u64,
    },
    Restart {
        node: NodeId,
        incarnation: u64,
    },
    Reclaim {
        node: NodeId,
        incarnation: u64,
    },
    Fault(Fault),
    Client(usize),
}

#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    tie: (u64, u64),
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.tie) == (other.at_us, other.tie)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.tie).cmp(&(other.at_us, other.tie))
    }
}

/// The streams of random numbers, one per concern.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) damage: Rng,
    pub(crate) disk: Rng,
    pub(crate) faults: Rng,
    pub(crate) index: Rng,
    scheduling: Rng,
    pub(crate) workload: Rng,
}

/// See the module's description.
#[derive(Debug)]
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) memory: Memory,
    pub(crate) now_us: u64,
    heap: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub(crate) rng: Streams,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<NodeId, SimNode>,
    pub(crate) clients: Vec<Client>,
    pub(crate) asked: BTreeMap<OpId, Asked>,
    pub(crate) next_op: u64,
    pub(crate) appends: BTreeMap<u64, AppendState>,
    /// What clients asked for, by the bytes that engines were given.
    pub(crate) asked_for: BTreeMap<u64, (u64, Batch)>,
    pub(crate) ledger: Ledger,
    pub(crate) model: Model,
    /// The highest position that any answer had.
    pub(crate) most_seen: Position,
    /// The highest seq acknowledged.
    pub(crate) last_acked: Seq,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) trace: Trace,
    /// Faults are over.
    pub(crate) is_calm: bool,
    until_us: u64,
}

impl World {
    /// The world of `plan`, before anything happened. Ends at `until_us` if that comes first.
    #[must_use]
    pub fn new(plan: Plan, mutation: Option<Mutation>, printed: bool, until_us: Option<u64>) -> World {
        let seed = plan.seed;
        let mut rng = Streams {
            damage: Rng::new(seed, "damage"),
            disk: Rng::new(seed, "disk"),
            faults: Rng::new(seed, "faults"),
            index: Rng::new(seed, "index"),
            scheduling: Rng::new(seed, "scheduling"),
            workload: Rng::new(seed, "workload"),
        };
        let ids: BTreeSet<NodeId> =
            plan.engines.iter().chain(&plan.storages).chain([&plan.sequencer]).copied().collect();
        let nodes = ids.into_iter().map(|id| (id, SimNode::new(id, &plan, &mut rng.faults))).collect();
        let clients = (0..plan.work.clients).map(|number| Client::new(number, &plan, &mut rng.workload)).collect();
        World {
            mutation,
            memory: Memory::default(),
            now_us: 0,
            heap: BinaryHeap::new(),
            scheduled: 0,
            network: Network::new(seed, plan.network.clone()),
            nodes,
            clients,
            asked: BTreeMap::new(),
            next_op: 0,
            appends: BTreeMap::new(),
            asked_for: BTreeMap::new(),
            ledger: Ledger::new(plan.storages.clone(), plan.quorum),
            model: Model::default(),
            most_seen: Position::START,
            last_acked: Seq::NONE,
            counts: BTreeMap::new(),
            trace: Trace::new(printed),
            is_calm: false,
            until_us: until_us.unwrap_or(u64::MAX),
            rng,
            plan,
        }
    }

    /// Lives through the plan.
    pub fn run(&mut self) -> Checked {
        let span_us = self.plan.work.operations * self.plan.work.think_us * 3 / 2 + 50_000;
        for (at_us, fault) in faults::schedule(&self.plan, span_us, &mut self.rng.faults) {
            self.schedule(at_us, Event::Fault(fault));
        }
        for (at_us, fault) in faults::damages(&self.plan, span_us, &mut self.rng.damage) {
            self.schedule(at_us, Event::Fault(fault));
        }
        self.start_all()?;
        for client in 0..self.clients.len() {
            let at_us = self.rng.workload.below(self.plan.work.think_us + 1);
            self.schedule(at_us, Event::Client(client));
        }
        self.run_until(span_us + 300_000, World::is_work_done)?;
        self.calm()?;
        self.come_to_rest()?;
        self.check_finally()?;
        // Once more, from what is on the disks alone.
        self.crash_all(crate::disk::CrashKind::PowerCut)?;
        self.start_all()?;
        self.come_to_rest()?;
        self.check_finally()?;
        self.check_healed()
    }

    /// What came of it.
    #[must_use]
    pub fn report(self, violation: Option<Violation>) -> Report {
        let mut counts = self.counts;
        counts.insert("events", self.trace.lines());
        counts.insert("messages lost", self.network.lost);
        counts.insert("messages doubled", self.network.doubled);
        counts.insert("cuts", self.ledger.cuts());
        counts.retain(|_, count| *count > 0);
        Report { counts, trace_hash: self.trace.hash(), violation }
    }

    /// Whether a deliberate bug is there.
    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn note(&mut self, node: NodeId, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now_us, node, what);
    }

    /// What the clock for timers of `node` shows.
    pub(crate) fn timers_us(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).map_or(0, |node| node.clock.timers_us(self.now_us))
    }

    pub(crate) fn schedule(&mut self, at_us: u64, event: Event) {
        let tie = (self.rng.scheduling.any() >> 32, self.scheduled);
        self.scheduled += 1;
        self.heap.push(Reverse(Scheduled { at_us, tie, event }));
    }

    fn is_work_done(&self) -> bool {
        self.asked.is_empty() && self.clients.iter().all(Client::is_done)
    }

    fn is_at_rest(&self) -> bool {
        self.asked.is_empty() && self.ledger.unordered().is_none() && self.nodes.values().all(|n| n.writing.is_none())
    }

    /// Lets things happen until `end_us` or until `is_enough`; whether it was.
    fn run_until(&mut self, end_us: u64, is_enough: impl Fn(&World) -> bool) -> Checked<bool> {
        while !is_enough(self) {
            let Some(Reverse(next)) = self.heap.peek() else { return Ok(false) };
            if next.at_us > end_us.min(self.until_us) {
                return Ok(false);
            }
            if let Some(Reverse(next)) = self.heap.pop() {
                self.now_us = next.at_us;
                self.happen(next.event)?;
            }
        }
        Ok(true)
    }

    /// Everything that is under way ends, and every engine knows the whole order.
    fn come_to_rest(&mut self) -> Checked {
        self.rest()?;
        for engine in self.plan.engines.clone() {
            let consistency = Consistency::Linearizable;
            self.submit(engine, None, Op::Tail(Tail { book: BookId(1), tag: None, consistency }))?;
        }
        self.rest()?;
        // What was sent once too often is sent no more once the answers are there.
        self.run_until(self.now_us + 1_000_000, World::is_silent)?;
        ensure(self.is_silent() || self.until_us < u64::MAX, "idle", || {
            let timers = self.nodes.values().map(|node| (node.id, node.machine.as_ref().and_then(|m| m.next_timer())));
            format!("nothing is under way, and something goes on: {:?}", timers.collect::<Vec<_>>())
        })
    }

    /// Whether nothing is kept for anyone, and nothing will happen by itself.
    fn is_silent(&self) -> bool {
        self.nodes.values().filter_map(|node| node.machine.as_ref()).all(|machine| {
            let engine = machine.engine().is_none_or(|engine| engine.pending() == 0 && engine.waiting() == 0);
            let storage = machine.storage().is_none_or(|storage| storage.gathered_bytes() == 0);
            engine && storage && machine.next_timer().is_none()
        })
    }

    fn rest(&mut self) -> Checked {
        let end_us = self.now_us + REST_US;
        let rests = self.run_until(end_us, World::is_at_rest)?;
        ensure(rests || self.until_us < end_us, "liveness", || {
            let waits: Vec<_> = self.asked.values().take(3).map(|asked| (asked.node, &asked.op)).collect();
            let unordered = self.ledger.unordered();
            format!("{} operations do not end: {waits:?} ...; unordered: {unordered:?}", self.asked.len())
        })
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Deliver { from, to, mut message } => {
                if self.machine(to).is_none() {
                    return Ok(());
                }
                self.note(to, format_args!("from {from}: {}", Brief(&message)));
                if let Some(mutation) = self.mutation {
                    mutation.spoil_message(to, &mut message, &mut self.memory);
                }
                if self.has(Mutation::PromisesForgotten)
                    && let Message::ProgressQuery { term } = message
                {
                    let message = Message::AllProgress { term, shards: Vec::new() };
                    self.schedule(self.now_us + 1, Event::Deliver { from: to, to: from, message });
                    return Ok(());
                }
                self.count("messages");
                let timers_us = self.timers_us(to);
                if let Some(machine) = self.machine(to) {
                    machine.receive(timers_us, from, message);
                }
                self.pump(to)
            }
            Event::Timer { node, incarnation } => {
                if !self.is_current(node, incarnation) {
                    return Ok(());
                }
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.timer_at = None;
                }
                self.note(node, format_args!("tick"));
                let timers_us = self.timers_us(node);
                if let Some(machine) = self.machine(node) {
                    machine.tick(timers_us);
                }
                self.pump(node)
            }
            Event::DiskDone { node, incarnation } if self.is_current(node, incarnation) => self.finish_write(node),
            Event::Restart { node, incarnation } if self.is_current(node, incarnation) => self.start(node),
            Event::Reclaim { node, incarnation } if self.is_current(node, incarnation) => self.reclaim(node),
            Event::DiskDone { .. } | Event::Restart { .. } | Event::Reclaim { .. } => Ok(()),
            Event::Fault(fault) => self.fault(fault),
            Event::Client(client) => self.act(client),
        }
    }

    fn is_current(&self, node: NodeId, incarnation: u64) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.incarnation == incarnation)
    }

    pub(crate) fn machine(&mut self, node: NodeId) -> Option<&mut boki_log::machine::Machine> {
        self.nodes.get_mut(&node)?.machine.as_mut()
    }

    /// Does what the machine of `node` wants done.
    pub(crate) fn pump(&mut self, id: NodeId) -> Checked {
        self.keep_index(id)?;
        loop {
            let Some(machine) = self.machine(id) else { return Ok(()) };
            let sends = machine.take_sends();
            let outcomes: Vec<_> = machine.take_outcomes().collect();
            if sends.is_empty() && outcomes.is_empty() && !self.begin_write(id)? {
                break;
            }
            for (to, message) in sends {
                if matches!(message, Message::FetchBatches { .. }) {
                    self.count("batches fetched");
                }
                for delay_us in self.network.route(id, to) {
                    self.schedule(self.now_us + delay_us, Event::Deliver { from: id, to, message: message.clone() });
                }
            }
            for (op, outcome) in outcomes {
                if self.has(Mutation::DoubleOutcome) {
                    self.finish(id, op, outcome.clone())?;
                }
                self.finish(id, op, outcome)?;
            }
        }
        self.set_timer(id);
        Ok(())
    }

    fn set_timer(&mut self, id: NodeId) {
        let now_us = self.now_us;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(wanted) = node.machine.as_ref().and_then(|machine| machine.next_timer()) else { return };
        let at_us = node.clock.when(now_us, wanted).max(now_us + 1);
        if node.timer_at.is_none_or(|set| at_us < set) {
            node.timer_at = Some(at_us);
            let incarnation = node.incarnation;
            self.schedule(at_us, Event::Timer { node: id, incarnation });
        }
    }
}
