//! The engine's half of the log: it gives appends their place in its shard, follows the metalog, keeps the index, and
//! answers reads.
//!
//! An append is answered when its cut has been applied here, so that whatever the caller reads next sees it. A read
//! is answered at once if the index has reached its position, else when it does.

mod cache;
mod pending;
mod waiting;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::batch::{Batch, Kind, Record, RecordBody, ReservedTags};
use crate::cut::Cut;
use crate::error::LogError;
use crate::ids::{BookId, LocalId, NodeId, Position, Seq, ShardId};
use crate::index::{Gone, Index, TableError, Verdict};
use crate::limits::Limits;
use crate::message::{Message, Send};
use crate::op::{
    Ack, Append, Appended, Consistency, Direction, Op, Read, Records, Reply, SetAux, TagsReply, TailReply,
};
use crate::retention::Retention;

use cache::{AuxCache, RecordCache};
use pending::{Pending, PendingAppends};
use waiting::Waiting;

/// Names an operation until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Its shard: never used before.
    pub shard: ShardId,
    /// The storage nodes of the shard.
    pub storages: Vec<NodeId>,
    /// How many of them must have a record on disk before it counts as durable.
    pub quorum: usize,
    /// The sequencer.
    pub sequencer: NodeId,
    /// What is refused at the door.
    pub limits: Limits,
    /// Memory for recent records, in bytes.
    pub cache_bytes: usize,
    /// Memory for aux data, in bytes.
    pub aux_bytes: usize,
    /// After how long to send again what got no answer, in microseconds; `None` where messages cannot be lost.
    pub resend_after_us: Option<u64>,
}

/// The end of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, or it failed.
    Done(Result<Reply, LogError>),
    /// A read whose records are known, some of whose bodies are not in memory.
    Fetch(Fetch),
}

/// A read that has to fetch record bodies from storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The records, in reading order.
    pub records: Vec<(FetchedRecord, Body)>,
    /// What the read has seen.
    pub position: Position,
}

/// A record's body, or which record of which shard it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In memory.
    Here(RecordBody),
    /// At storage.
    Stored(ShardId, LocalId),
}

/// What is known of a record before its body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRecord {
    /// Its seq.
    pub seq: Seq,
    /// Its time, microseconds since 1970.
    pub time_us: u64,
    /// Aux data, where this node has any.
    pub aux: Option<Bytes>,
}

impl FetchedRecord {
    /// The whole record.
    #[must_use]
    pub fn with(self, body: RecordBody) -> Record {
        Record { seq: self.seq, time_us: self.time_us, body, aux: self.aux }
    }
}

/// What an engine wants done, in order within each list.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) sends: Vec<Send>,
    pub(crate) outcomes: Vec<(OpId, Outcome)>,
    pub(crate) gone: Vec<Gone>,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records that came to exist.
    pub appended: u64,
    /// Batches that were void.
    pub voided: u64,
    /// Records read from memory.
    pub cache_hits: u64,
    /// Records that had to be fetched.
    pub cache_misses: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    index: Index,
    retention: Retention,
    /// Own appends that no cut has reached.
    pending: PendingAppends,
    /// Batches of other shards that no cut has reached.
    feed: BTreeMap<ShardId, VecDeque<(LocalId, Batch)>>,
    /// Cuts that cannot be applied yet: an earlier one, or a batch, is missing.
    cuts: BTreeMap<u64, Cut>,
    /// The batch that was asked for last. Every storage node answers, so asking at each answer again would multiply.
    fetching: Option<(ShardId, LocalId)>,
    cache: RecordCache,
    aux: AuxCache,
    waiting: Waiting,
    /// Reads that wait for the sequencer's word on the tail, with the position they must not miss.
    asking: BTreeMap<u64, (OpId, Op, Position)>,
    next_query: u64,
    /// Why no append is taken any more.
    failed: Option<LogError>,
    /// Why a batch could not be judged: nothing is applied any more.
    stuck: Option<TableError>,
    nudge_at_us: Option<u64>,
    counters: Counters,
}

impl Engine {
    /// An engine that knows the empty log.
    #[must_use]
    pub fn new(config: EngineConfig) -> Engine {
        Engine {
            index: Index::new(),
            retention: Retention::default(),
            pending: PendingAppends::new(config.storages.len()),
            feed: BTreeMap::new(),
            cuts: BTreeMap::new(),
            fetching: None,
            cache: RecordCache::new(config.cache_bytes),
            aux: AuxCache::new(config.aux_bytes),
            waiting: Waiting::default(),
            asking: BTreeMap::new(),
            // The answer to a question of an earlier start must not pass for one to a question of this.
            next_query: u64::from(config.shard.term.0) << 32,
            failed: None,
            stuck: None,
            nudge_at_us: None,
            counters: Counters::default(),
            config,
        }
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Why nothing is applied any more, if that is so.
    pub(crate) fn stuck(&self) -> Option<&TableError> {
        self.stuck.as_ref()
    }

    /// What the rules of books add up to.
    #[must_use]
    pub fn retention(&self) -> &Retention {
        &self.retention
    }

    pub(crate) fn retention_mut(&mut self) -> &mut Retention {
        &mut self.retention
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Appends that wait for their cut.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Reads that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.asking.len()
    }

    /// Bytes of records in memory.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// The shard that this engine writes.
    pub(crate) fn shard(&self) -> ShardId {
        self.config.shard
    }

    /// Takes index and retention from a checkpoint, before anything else.
    pub(crate) fn restore(&mut self, index: Index, retention: Retention) {
        self.index = index;
        self.retention = retention;
    }

    /// The index, to freeze it, or to give it tables.
    pub(crate) fn index_mut(&mut self) -> &mut Index {
        &mut self.index
    }

    /// Starts an operation.
    pub(crate) fn submit(&mut self, now_us: u64, id: OpId, op: Op, fx: &mut Effects) {
        let result = match op {
            Op::Append(append) => self.append(now_us, id, append, fx),
            Op::SetAux(set_aux) => self.set_aux(set_aux).map(|()| fx.outcomes.push((id, done(Reply::AuxSet)))),
            op => self.start_read(now_us, id, op, fx),
        };
        if let Err(error) = result {
            fx.outcomes.push((id, Outcome::Done(Err(error))));
        }
    }

    /// Gives up a read that waits. Anything else goes on.
    pub(crate) fn cancel(&mut self, id: OpId) {
        self.waiting.cancel(id);
        self.asking.retain(|_, (asking, _, _)| *asking != id);
    }

    fn append(&mut self, now_us: u64, id: OpId, append: Append, fx: &mut Effects) -> Result<(), LogError> {
        let Append { batch, ack, reserved } = append;
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        batch.check(&self.config.limits, reserved)?;
        if reserved == ReservedTags::Refused {
            check_user(&batch)?;
        }
        if ack == Ack::Durable && (batch.is_conditional() || batch.id().is_some_and(|_| batch.kind() != Kind::Records))
        {
            return Err(LogError::DurableWithConditions);
        }
        if self.pending.bytes() + batch.bytes().len() > self.config.limits.pending_bytes {
            return Err(LogError::Overloaded { what: "too many bytes of appends wait for the disk" });
        }
        let first = self.pending.push(Pending { batch: batch.clone(), op: Some(id), ack });
        for to in &self.config.storages {
            let message = Message::Replicate { shard: self.config.shard, first, batch: batch.clone() };
            fx.sends.push(Send { to: *to, message });
        }
        self.nudge_later(now_us);
        Ok(())
    }

    fn set_aux(&mut self, set_aux: SetAux) -> Result<(), LogError> {
        let (actual, limit) = (set_aux.aux.len(), self.config.limits.aux_bytes);
        if actual > limit {
            return Err(LogError::TooLarge { what: "aux data in bytes", actual: actual as u64, limit: limit as u64 });
        }
        if !self.index.contains(set_aux.book, set_aux.seq)? {
            return Err(LogError::NoSuchRecord { seq: set_aux.seq });
        }
        self.aux.set(set_aux.seq, set_aux.aux);
        Ok(())
    }

    /// Serves a read now, or lets it wait for what it was promised.
    fn start_read(&mut self, now_us: u64, id: OpId, op: Op, fx: &mut Effects) -> Result<(), LogError> {
        match consistency(&op) {
            Consistency::Linearizable => self.ask(now_us, Position::START, id, op, fx),
            // Positions come from committed cuts alone, so the sequencer knows whether one can be reached at all.
            Consistency::Session(at) if at > self.index.position() => self.ask(now_us, at, id, op, fx),
            Consistency::Session(_) | Consistency::Any => self.read_at(now_us, Position::START, id, op, fx),
        }
    }

    /// Asks the sequencer for the tail before `op` is served.
    fn ask(&mut self, now_us: u64, at: Position, id: OpId, op: Op, fx: &mut Effects) -> Result<(), LogError> {
        if self.waiting() >= self.config.limits.waiting_reads {
            return Err(LogError::Overloaded { what: "too many reads wait" });
        }
        let query = self.next_query;
        self.next_query += 1;
        self.asking.insert(query, (id, op, at));
        fx.sends.push(Send { to: self.config.sequencer, message: Message::TailQuery { query } });
        self.nudge_later(now_us);
        Ok(())
    }

    fn read_at(&mut self, now_us: u64, at: Position, id: OpId, op: Op, fx: &mut Effects) -> Result<(), LogError> {
        if at > self.index.position() {
            self.waiting.for_position(at, id, op);
            self.nudge_later(now_us);
            return Ok(());
        }
        match op {
            Op::Read(read) => self.read(now_us, id, read, fx),
            Op::Tail(tail) => {
                let seq = self.index.tail(tail.book, tail.tag.as_ref())?;
                let reply = TailReply { seq, position: self.index.position() };
                fx.outcomes.push((id, done(Reply::Tail(reply))));
                Ok(())
            }
            Op::Tags(tags) => {
                let limit = (tags.limit.max(1) as usize).min(self.config.limits.read_records);
                let (tags, more) = self.index.tags(tags.book, &tags.prefix, tags.after.as_ref(), limit)?;
                let reply = TagsReply { tags, more, position: self.index.position() };
                fx.outcomes.push((id, done(Reply::Tags(reply))));
                Ok(())
            }
            Op::Append(_) | Op::SetAux(_) => Ok(()),
        }
    }

    fn read(&mut self, now_us: u64, id: OpId, read: Read, fx: &mut Effects) -> Result<(), LogError> {
        let limit = (read.limit.max(1) as usize).min(self.config.limits.read_records);
        let mut seqs = Vec::with_capacity(limit.min(16));
        match read.direction {
            Direction::Next => self.index.next(read.book, read.tag.as_ref(), read.from, limit, &mut seqs)?,
            Direction::Prev => self.index.prev(read.book, read.tag.as_ref(), read.from, limit, &mut seqs)?,
        }
        if seqs.is_empty()
            && read.direction == Direction::Next
            && let Some(wait) = read.wait.filter(|wait| !wait.is_zero())
        {
            if self.waiting() >= self.config.limits.waiting_reads {
                return Err(LogError::Overloaded { what: "too many reads wait" });
            }
            let until_us = now_us.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
            self.waiting.for_match(until_us, id, read);
            self.nudge_later(now_us);
            return Ok(());
        }
        let outcome = self.outcome(&seqs)?;
        fx.outcomes.push((id, outcome));
        Ok(())
    }

    /// The records at `seqs`, as many as one reply may hold.
    fn outcome(&mut self, seqs: &[Seq]) -> Result<Outcome, LogError> {
        let position = self.index.position();
        let mut bytes = 0;
        let mut missing = 0;
        let mut records = Vec::with_capacity(seqs.len());
        for seq in seqs {
            let Some((shard, local, time_us)) = self.index.place(*seq)? else { continue };
            let known = FetchedRecord { seq: *seq, time_us, aux: self.aux.get(*seq) };
            let body = self.cache.get(*seq);
            bytes += body.as_ref().map_or(0, |body| body.bytes().len());
            if bytes > self.config.limits.read_bytes && !records.is_empty() {
                break;
            }
            missing += usize::from(body.is_none());
            records.push((known, body.map_or(Body::Stored(shard, local), Body::Here)));
        }
        self.counters.cache_misses += missing as u64;
        self.counters.cache_hits += (records.len() - missing) as u64;
        if missing > 0 {
            return Ok(Outcome::Fetch(Fetch { records, position }));
        }
        let whole = |(known, body): (FetchedRecord, Body)| match body {
            Body::Here(body) => Some(known.with(body)),
            Body::Stored(..) => None,
        };
        let records = records.into_iter().filter_map(whole).collect();
        Ok(done(Reply::Records(Records { records, position })))
    }

    pub(crate) fn on_stored(&mut self, from: NodeId, shard: ShardId, upto: LocalId, fx: &mut Effects) {
        let Some(at) = self.config.storages.iter().position(|node| *node == from) else { return };
        if shard != self.config.shard {
            return;
        }
        let position = self.index.position();
        for (op, count) in self.pending.stored(at, upto, self.config.quorum) {
            let reply = Appended { seq: None, count, repeated: false, position };
            fx.outcomes.push((op, done(Reply::Appended(reply))));
        }
    }

    pub(crate) fn on_cuts(&mut self, now_us: u64, cuts: Vec<Cut>, fx: &mut Effects) {
        for cut in cuts {
            if cut.index >= self.index.next_cut() {
                self.cuts.insert(cut.index, cut);
            }
        }
        self.apply_cuts(now_us, fx);
    }

    pub(crate) fn on_tail_is(&mut self, now_us: u64, query: u64, end: Seq, fx: &mut Effects) {
        let Some((id, op, at)) = self.asking.remove(&query) else { return };
        let result = if at > Position(end) {
            let reason = "it is above the end of the log: it belongs to another log, or this one was restored";
            Err(LogError::InvalidArgument { argument: "position", reason })
        } else {
            let at = if at == Position::START { Position(end) } else { at };
            self.read_at(now_us, at, id, op, fx)
        };
        if let Err(error) = result {
            fx.outcomes.push((id, Outcome::Done(Err(error))));
        }
    }

    /// Takes batches of a shard of another engine, or of an earlier incarnation of this one.
    pub(crate) fn on_batches(
        &mut self,
        now_us: u64,
        shard: ShardId,
        first: LocalId,
        batches: Vec<Batch>,
        fx: &mut Effects,
    ) {
        self.feed(shard, first, batches);
        self.apply_cuts(now_us, fx);
    }

    /// Adds batches that follow what is there of their shard; passes over what is there already.
    pub(crate) fn feed(&mut self, shard: ShardId, first: LocalId, batches: Vec<Batch>) {
        let feed = self.feed.entry(shard).or_default();
        let mut at = first;
        for batch in batches {
            let next = LocalId(at.0 + u64::from(batch.record_count()));
            let follows = feed.back().is_none_or(|(last, batch)| last.0 + u64::from(batch.record_count()) == at.0);
            if follows {
                feed.push_back((at, batch));
            }
            at = next;
        }
    }

    /// Applies every cut whose turn it is and whose batches are all here.
    fn apply_cuts(&mut self, now_us: u64, fx: &mut Effects) {
        while let Some(cut) = self.cuts.remove(&self.index.next_cut()).filter(|_| self.stuck.is_none()) {
            if let Some((shard, from)) = self.missing(&cut) {
                if self.fetching.replace((shard, from)) != Some((shard, from)) {
                    for to in &self.config.storages {
                        fx.sends.push(Send { to: *to, message: Message::FetchBatches { shard, from } });
                    }
                }
                self.cuts.insert(cut.index, cut);
                break;
            }
            if let Err(error) = self.apply(&cut, fx) {
                self.cuts.clear();
                self.fail(&LogError::IndexFailed { reason: error.to_string() }, fx);
                self.stuck = Some(error);
            }
        }
        if self.cuts.is_empty() {
            self.settle_nudge();
        } else {
            self.nudge_later(now_us);
        }
        self.serve_waiting(now_us, fx);
    }

    /// The first batch that `cut` needs and this engine does not have.
    fn missing(&mut self, cut: &Cut) -> Option<(ShardId, LocalId)> {
        for delta in &cut.deltas {
            if delta.shard == self.config.shard {
                continue;
            }
            let feed = self.feed.entry(delta.shard).or_default();
            while feed.front().is_some_and(|(at, _)| *at < delta.from) {
                feed.pop_front();
            }
            let mut next = delta.from;
            for (at, batch) in feed.iter() {
                if *at != next || next >= delta.end() {
                    break;
                }
                next = LocalId(at.0 + u64::from(batch.record_count()));
            }
            if next < delta.end() {
                // What does not continue from here would block what does.
                feed.retain(|(at, _)| *at < next);
                return Some((delta.shard, next));
            }
        }
        None
    }

    fn apply(&mut self, cut: &Cut, fx: &mut Effects) -> Result<(), TableError> {
        self.index.begin(cut);
        for delta in &cut.deltas {
            let mut at = delta.from;
            while at < delta.end() {
                let (batch, pending) = if delta.shard == self.config.shard {
                    let Some(pending) = self.pending.pop() else { return Ok(()) };
                    (pending.batch.clone(), Some(pending))
                } else {
                    let Some((_, batch)) = self.feed.get_mut(&delta.shard).and_then(VecDeque::pop_front) else {
                        return Ok(());
                    };
                    (batch, None)
                };
                at = LocalId(at.0 + u64::from(batch.record_count()));
                self.apply_batch(&batch, pending, fx)?;
            }
            if self.feed.get(&delta.shard).is_some_and(VecDeque::is_empty) {
                self.feed.remove(&delta.shard);
            }
        }
        Ok(())
    }

    fn apply_batch(&mut self, batch: &Batch, pending: Option<Pending>, fx: &mut Effects) -> Result<(), TableError> {
        let seq = self.index.position().0;
        let count = batch.record_count();
        // What retention hears of must be this batch's alone.
        let is_watched = self.retention.watch(batch.book()).is_some();
        let mut own = Vec::new();
        let gone = if is_watched { &mut own } else { &mut fx.gone };
        let verdict = match self.index.apply(batch, gone) {
            Ok(verdict) => verdict,
            Err(error) => {
                let failed = LogError::IndexFailed { reason: error.to_string() };
                fx.outcomes.extend(pending.and_then(|pending| pending.op).map(|op| (op, Outcome::Done(Err(failed)))));
                return Err(error);
            }
        };
        if is_watched && verdict == Verdict::Applied {
            self.retention.applied(batch, seq, self.index.time_us(), &own);
        }
        fx.gone.append(&mut own);
        if verdict == Verdict::Applied && batch.kind() == Kind::Records {
            self.counters.appended += u64::from(count);
            for (record, seq) in batch.records().zip(seq.0..) {
                self.waiting.note(batch.book(), &record);
                self.cache.push(Seq(seq), record);
            }
        } else if verdict != Verdict::Applied {
            self.counters.voided += 1;
        }
        let position = self.index.position();
        let Some(op) = pending.and_then(|pending| pending.op) else { return Ok(()) };
        let appended = |seq, repeated| Reply::Appended(Appended { seq: Some(seq), count, repeated, position });
        fx.outcomes.push((
            op,
            Outcome::Done(match verdict {
                Verdict::Applied => Ok(appended(seq, false)),
                Verdict::Repeated(first) => Ok(appended(first, true)),
                Verdict::Void(error) => Err(error),
            }),
        ));
        Ok(())
    }

    /// Answers the reads for which enough has been applied, or a record has come.
    fn serve_waiting(&mut self, now_us: u64, fx: &mut Effects) {
        while let Some((id, op)) = self.waiting.pop_reached(self.index.position()) {
            if let Err(error) = self.read_at(now_us, Position::START, id, op, fx) {
                fx.outcomes.push((id, Outcome::Done(Err(error))));
            }
        }
        for (until_us, id, read) in self.waiting.take_noted() {
            let mut seqs = Vec::new();
            let limit = (read.limit.max(1) as usize).min(self.config.limits.read_records);
            let found = self.index.next(read.book, read.tag.as_ref(), read.from, limit, &mut seqs);
            let outcome = match found.map_err(LogError::from) {
                Ok(()) if seqs.is_empty() => {
                    self.waiting.for_match(until_us, id, read);
                    continue;
                }
                Ok(()) => self.outcome(&seqs),
                Err(error) => Err(error),
            };
            fx.outcomes.push((id, outcome.unwrap_or_else(|error| Outcome::Done(Err(error)))));
        }
    }

    /// When [`Engine::tick`] wants to be called.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        [self.nudge_at_us, self.waiting.next_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn tick(&mut self, now_us: u64, fx: &mut Effects) {
        for id in self.waiting.pop_timed_out(now_us) {
            let reply = Records { records: Vec::new(), position: self.index.position() };
            fx.outcomes.push((id, done(Reply::Records(reply))));
        }
        if self.nudge_at_us.is_none_or(|at| at > now_us) {
            return;
        }
        self.nudge_at_us = None;
        for (at, to) in self.config.storages.iter().enumerate() {
            for (first, batch) in self.pending.not_stored_at(at).take(256) {
                let message = Message::Replicate { shard: self.config.shard, first, batch: batch.clone() };
                fx.sends.push(Send { to: *to, message });
            }
        }
        for query in self.asking.keys() {
            fx.sends.push(Send { to: self.config.sequencer, message: Message::TailQuery { query: *query } });
        }
        let message = Message::FetchCuts { from: self.index.next_cut() };
        fx.sends.push(Send { to: self.config.sequencer, message });
        self.fetching = None;
        self.apply_cuts(now_us, fx);
        if self.is_owed_something() {
            self.nudge_later(now_us);
        }
    }

    fn is_owed_something(&self) -> bool {
        // The record that a blocking read waits for may be in a cut that was lost.
        self.pending.len() > 0 || !self.cuts.is_empty() || self.waiting() > 0
    }

    fn nudge_later(&mut self, now_us: u64) {
        if self.nudge_at_us.is_none() {
            self.nudge_at_us = self.config.resend_after_us.map(|after| now_us + after);
        }
    }

    fn settle_nudge(&mut self) {
        if !self.is_owed_something() {
            self.nudge_at_us = None;
        }
    }

    /// The disk is full: everything of the own shard from `from` on was refused and is not in the log.
    pub(crate) fn refused(&mut self, from: LocalId, fx: &mut Effects) {
        for pending in self.pending.take_back(from) {
            if let Some(op) = pending.op {
                fx.outcomes.push((op, Outcome::Done(Err(LogError::DiskFull))));
            }
        }
    }

    /// No append can be written any more: those that wait have an unknown outcome, later ones are refused.
    pub(crate) fn fail(&mut self, error: &LogError, fx: &mut Effects) {
        self.failed = Some(error.clone());
        for op in self.pending.take_ops() {
            fx.outcomes.push((op, Outcome::Done(Err(error.clone()))));
        }
    }

    /// The process stops: takes no more appends, and answers every read that waits.
    pub(crate) fn stop(&mut self, fx: &mut Effects) {
        let error = LogError::ShuttingDown;
        self.failed.get_or_insert(error.clone());
        let asking = std::mem::take(&mut self.asking).into_values().map(|(id, _, _)| id);
        for id in self.waiting.take_all().into_iter().chain(asking) {
            fx.outcomes.push((id, Outcome::Done(Err(error.clone()))));
        }
    }
}

/// What only Boki's own libraries may append.
fn check_user(batch: &Batch) -> Result<(), LogError> {
    if batch.book() == BookId::CATALOG {
        return Err(LogError::BookNotFound { name: BookId::CATALOG.to_string() });
    }
    match batch.kind() {
        Kind::Trim { below, .. } if below >= Seq::MAX => {
            Err(LogError::InvalidArgument { argument: "below", reason: "it is above every seq" })
        }
        _ => Ok(()),
    }
}

fn done(reply: Reply) -> Outcome {
    Outcome::Done(Ok(reply))
}

fn consistency(op: &Op) -> Consistency {
    match op {
        Op::Read(read) => read.consistency,
        Op::Tail(tail) => tail.consistency,
        Op::Tags(tags) => tags.consistency,
        Op::Append(_) | Op::SetAux(_) => Consistency::Any,
    }
}
