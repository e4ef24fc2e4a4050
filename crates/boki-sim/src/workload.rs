//! The clients: what they ask for, what they remember of the answers, and what they send again.

use std::collections::BTreeMap;
use std::time::Duration;

use boki_log::batch::{Batch, Condition, Kind};
use boki_log::op::{Ack, Append, Consistency, Direction, Op, Read, Reply, SetAux, Tags, Tail};
use boki_log::tag::RESERVED_PREFIX;
use boki_log::{AppendId, BatchBuilder, BookId, NodeId, Position, Seq, Tag};
use bytes::Bytes;

use crate::mutation::reserved_for;
use crate::plan::{Plan, WorkPlan};
use crate::rng::Rng;

const TAGS: &[&str] = &["a", "b", "ab", "job/1", "job/2", "job"];

/// The book that gets closed in some runs.
const CLOSING: BookId = BookId(9);

/// A client: a session that goes on over many operations, and from engine to engine.
#[derive(Debug)]
pub struct Client {
    number: usize,
    /// The engine it talks to.
    pub engine: NodeId,
    /// What its session has seen.
    pub position: Position,
    /// How many operations it has under way.
    pub busy: usize,
    most_busy: usize,
    left: u64,
    /// The last seq that it saw under a tag.
    tails: BTreeMap<(BookId, Tag), Seq>,
    /// Some records that it saw.
    seen: Vec<(BookId, Seq)>,
    /// Appends whose outcome it does not know.
    again: Vec<Append>,
    /// Its last ids, for using one twice.
    ids: Vec<AppendId>,
    epoch: u64,
    made: u64,
}

impl Client {
    /// Client `number` of the plan.
    #[must_use]
    pub fn new(number: usize, plan: &Plan, rng: &mut Rng) -> Client {
        Client {
            number,
            engine: plan.engines[number % plan.engines.len()],
            position: Position::START,
            busy: 0,
            most_busy: if rng.chance(500) { 1 } else { rng.between(2, 6) as usize },
            left: plan.work.operations,
            tails: BTreeMap::new(),
            seen: Vec::new(),
            again: Vec::new(),
            ids: Vec::new(),
            epoch: 0,
            made: 0,
        }
    }

    /// Whether it will ask for more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.again.is_empty()
    }

    /// What it asks for next; nothing if enough is under way.
    pub fn next(&mut self, plan: &Plan, rng: &mut Rng) -> Option<Op> {
        if self.busy >= self.most_busy {
            return None;
        }
        if plan.engines.len() > 1 && rng.chance(50) {
            self.engine = *rng.pick(&plan.engines)?;
        }
        if let Some(append) = self.again.pop() {
            return Some(Op::Append(append));
        }
        self.left = self.left.checked_sub(1)?;
        let work = &plan.work;
        if rng.chance(work.appends) {
            let append = if rng.chance(work.trims) { self.trim(work, rng) } else { self.append(work, rng) };
            return append.map(Op::Append);
        }
        Some(match rng.below(10) {
            0..=4 => Op::Read(self.read(work, rng)),
            5..=6 => {
                let consistency = self.consistency(rng);
                Op::Tail(Tail { book: book(work, rng), tag: some_tag(work, rng), consistency })
            }
            7..=8 => Op::Tags(self.tags(work, rng)),
            _ => {
                let (book, seq) = *rng.pick(&self.seen).unwrap_or(&(BookId(1), Seq(1)));
                let aux = if rng.chance(200) { Bytes::new() } else { payload(rng.any(), rng.below(40)) };
                Op::SetAux(SetAux { book, seq, aux })
            }
        })
    }

    fn append(&mut self, work: &WorkPlan, rng: &mut Rng) -> Option<Append> {
        let book = book(work, rng);
        let mut builder = BatchBuilder::new(book);
        self.made += 1;
        if rng.chance(600) {
            builder = builder.id(self.id(rng));
        }
        let conditional = rng.chance(350);
        if conditional {
            for _ in 0..rng.between(1, 2) {
                builder = self.condition(builder, book, work, rng);
            }
        }
        let records = match rng.below(1000) {
            0..=699 => 1,
            700..=997 => rng.between(2, 12),
            _ => 1200,
        };
        for at in 0..records {
            let mut tags: Vec<Tag> = (0..rng.below(6)).filter_map(|_| some_tag(work, rng)).collect();
            if rng.chance(700) {
                tags.truncate(1);
            }
            if tags.iter().any(Tag::is_reserved) {
                tags = tags.into_iter().filter_map(reserved).collect();
            }
            // The first record of a batch tells it from every other.
            let number = (self.number as u64) << 48 | self.made << 16 | at;
            let len = if at >= 12 || (at > 0 && rng.chance(100)) { 0 } else { 8 + rng.below(work.payload_bytes) };
            builder = builder.record(tags, payload(number, len));
        }
        let ack = if rng.chance(if conditional { 20 } else { 250 }) { Ack::Durable } else { Ack::Ordered };
        let batch = builder.build().ok()?;
        Some(Append { reserved: reserved_for(&batch), batch, ack })
    }

    /// A new id; rarely one that was used before.
    fn id(&mut self, rng: &mut Rng) -> AppendId {
        if rng.chance(30)
            && let Some(id) = rng.pick(&self.ids)
        {
            return *id;
        }
        let id = AppendId((((self.number as u128 + 1) << 64) | u128::from(self.made)).to_be_bytes());
        self.ids.push(id);
        id
    }

    fn condition(&mut self, builder: BatchBuilder, book: BookId, work: &WorkPlan, rng: &mut Rng) -> BatchBuilder {
        let Some(tag) = tag(work, rng) else { return builder };
        match rng.below(10) {
            0..=5 => {
                let known = self.tails.get(&(book, tag.clone())).copied().unwrap_or(Seq::NONE);
                let seq = if rng.chance(50) { Seq(rng.below(50)) } else { known };
                builder.condition(Condition::Tail { tag, seq })
            }
            6..=7 => builder.condition(Condition::Fence { tag, epoch: self.epoch }),
            _ => {
                self.epoch += rng.below(3);
                builder.raise(tag, self.epoch)
            }
        }
    }

    fn trim(&mut self, work: &WorkPlan, rng: &mut Rng) -> Option<Append> {
        let (book, tag) = (book(work, rng), some_tag(work, rng));
        if rng.chance(30) {
            let batch = BatchBuilder::trim(CLOSING, None, Seq::MAX).ok()?;
            return Some(Append { reserved: reserved_for(&batch), batch, ack: Ack::Ordered });
        }
        let seen = self.position.0.0;
        let below = match rng.below(10) {
            0..=2 => rng.below(seen + 1),
            3..=7 => seen.saturating_sub(rng.below(4)),
            8 => seen + rng.below(20),
            _ => Seq::MAX.0 - 1,
        };
        let batch = BatchBuilder::trim(book, tag, Seq(below)).ok()?;
        let ack = if rng.chance(100) { Ack::Durable } else { Ack::Ordered };
        Some(Append { reserved: reserved_for(&batch), batch, ack })
    }

    fn read(&mut self, work: &WorkPlan, rng: &mut Rng) -> Read {
        let near = self.position.0.0;
        let from = match rng.below(10) {
            0..=1 => 0,
            2..=5 => rng.below(near + 2),
            6..=8 => near.saturating_sub(rng.below(5)),
            _ => Seq::MAX.0,
        };
        let waits = rng.chance(250);
        Read {
            book: book(work, rng),
            tag: some_tag(work, rng),
            from: Seq(if waits { near + rng.below(3) } else { from }),
            direction: if rng.chance(500) || waits { Direction::Next } else { Direction::Prev },
            limit: *rng.pick(&[0, 1, 1, 4, 100]).unwrap_or(&1),
            consistency: self.consistency(rng),
            wait: waits.then(|| Duration::from_micros(rng.below(40_000))),
        }
    }

    fn tags(&mut self, work: &WorkPlan, rng: &mut Rng) -> Tags {
        Tags {
            book: book(work, rng),
            prefix: (*rng.pick(&["", "", "a", "job", "job/", "x"]).unwrap_or(&"")).to_owned(),
            after: rng.chance(300).then(|| tag(work, rng)).flatten(),
            limit: *rng.pick(&[0, 1, 2, 100]).unwrap_or(&100),
            consistency: self.consistency(rng),
        }
    }

    fn consistency(&self, rng: &mut Rng) -> Consistency {
        match rng.below(10) {
            0..=6 => Consistency::Session(self.position),
            7..=8 => Consistency::Linearizable,
            _ => Consistency::Any,
        }
    }

    /// It gets an answer.
    pub fn take(&mut self, op: &Op, reply: &Reply) {
        self.busy -= 1;
        match reply {
            Reply::Appended(appended) => {
                self.see(appended.position);
                if let (Op::Append(append), Some(first)) = (op, appended.seq)
                    && append.batch.kind() == Kind::Records
                {
                    for (record, seq) in append.batch.records().zip(first.0..) {
                        for tag in record.tags().filter_map(|tag| Tag::new(tag).ok()) {
                            self.tails.insert((append.batch.book(), tag), Seq(seq));
                        }
                    }
                }
            }
            Reply::Records(records) => {
                self.see(records.position);
                if let Op::Read(read) = op {
                    self.seen.extend(records.records.iter().map(|record| (read.book, record.seq)));
                    let excess = self.seen.len().saturating_sub(50);
                    self.seen.drain(..excess);
                }
            }
            Reply::Tail(tail) => {
                self.see(tail.position);
                if let Op::Tail(Tail { book, tag: Some(tag), .. }) = op {
                    self.tails.insert((*book, tag.clone()), tail.seq);
                }
            }
            Reply::Tags(tags) => {
                self.see(tags.position);
                if let Op::Tags(Tags { book, .. }) = op {
                    self.tails.extend(tags.tags.iter().map(|(tag, seq)| ((*book, tag.clone()), *seq)));
                }
            }
            Reply::AuxSet => {}
        }
    }

    /// It will not get an answer. What has an id it sends again.
    pub fn lose(&mut self, op: Op, rng: &mut Rng) {
        self.busy -= 1;
        if let Op::Append(append) = op
            && append.batch.id().is_some()
            && rng.chance(900)
        {
            self.again.push(append);
        }
    }

    /// It is told that the operation failed for good, or that it gave it up.
    pub fn fail(&mut self) {
        self.busy -= 1;
    }

    /// It stops asking for more.
    pub fn stop(&mut self) {
        self.left = 0;
        self.again.clear();
    }

    fn see(&mut self, position: Position) {
        self.position = self.position.max(position);
    }
}

/// A batch whose bytes are these, for the checkers.
#[must_use]
pub fn key_of(batch: &Batch) -> u64 {
    crate::rng::hash(batch.bytes())
}

fn book(work: &WorkPlan, rng: &mut Rng) -> BookId {
    if rng.chance(20) { CLOSING } else { BookId(rng.between(1, work.books)) }
}

fn tag(work: &WorkPlan, rng: &mut Rng) -> Option<Tag> {
    Tag::new(*rng.pick(TAGS.get(..work.tags)?)?).ok()
}

fn some_tag(work: &WorkPlan, rng: &mut Rng) -> Option<Tag> {
    if rng.chance(200) {
        return None;
    }
    let tag = tag(work, rng)?;
    if rng.chance(12) { reserved(tag) } else { Some(tag) }
}

/// The tag of Boki's own libraries that is most like `tag`.
fn reserved(tag: Tag) -> Option<Tag> {
    if tag.is_reserved() { Some(tag) } else { Tag::new(format!("{RESERVED_PREFIX}{tag}")).ok() }
}

/// `len` bytes that begin with `number`.
fn payload(number: u64, len: u64) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(len as usize, number as u8);
    Bytes::from(bytes)
}
