//! Deliberate bugs, put between the production code and the simulated world: in what a machine is told, in what it says, in
//! how it is set up, in what its disk does. Each must be caught, else the checkers are worth nothing.

use std::collections::{BTreeMap, BTreeSet};

use boki_disk::mem::Lie;
use boki_log::batch::{Batch, Condition, Kind, ReservedTags};
use boki_log::cut::Cut;
use boki_log::engine::EngineConfig;
use boki_log::index::Index;
use boki_log::machine::MachineConfig;
use boki_log::message::Message;
use boki_log::op::{Append, Consistency, Op};
use boki_log::tag::RESERVED_PREFIX;
use boki_log::{BatchBuilder, LocalId, LogError, NodeId, Seq, ShardId};

use crate::disk::{NodeDisk, Opened, Refused};
use crate::plan::Topology;

/// Declares the bugs: name, topology in which it can show, what it is.
macro_rules! mutations {
    ($($name:ident: $topology:ident, $about:literal;)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation {
            $(#[doc = $about] $name,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Mutation] = &[$(Mutation::$name,)*];

            /// Where it can show.
            #[must_use]
            pub fn topology(self) -> Topology {
                match self { $(Mutation::$name => Topology::$topology,)* }
            }

            /// What it is.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Mutation::$name => $about,)* }
            }
        }
    };
}

mutations! {
    LyingSync: Alone, "The disk's sync does nothing and says that all is well.";
    AckBeforeSync: Apart, "A group counts as written when it is handed to the disk.";
    FullIsWritten: Alone, "A group that the full disk refused counts as written.";
    FailureIsWritten: Alone, "A group whose write or sync failed counts as written.";
    RecoveryDropsLastGroup: Alone, "Recovery takes the last whole group for a torn one.";
    RecoveryPassesTornBytes: Alone, "Recovery hands over a frame that is not as it was written.";
    TermContinues: Alone, "A restarted engine continues the shard of its last term.";
    SegmentWithoutCheckpoint: Alone, "Dead segments are removed without a checkpoint.";
    CheckpointTooOld: Alone, "Only the first checkpoint is written: segments are removed that it does not cover.";
    CheckpointUnsynced: Alone, "The checkpoint is not synced before it takes the place of the last.";
    DirectoriesUnsynced: Alone, "Names of files are not synced.";
    FailedSyncRetried: Alone, "A sync that failed is tried again, and what that says is believed.";
    RemovalUnrecorded: Alone, "A segment's file is removed and the removal is not recorded.";
    FullIsForEver: Alone, "Once the disk was full, nothing is written any more.";
    DamageCutOff: Alone, "Recovery takes damage in the middle for a torn tail, and cuts everything off from there.";
    DamageUnnamed: Alone, "A start that is refused for damage does not say which file it is.";
    RefusedStartTidies: Alone, "A start that is refused for damage has tidied up before.";
    ReadUnchecked: Alone, "A record read from disk is not compared with its checksum.";
    DamageIsAbsence: Alone, "A record that cannot be read is left out of the answer.";
    WrongPlace: Alone, "The place on disk is that of the next record.";
    IdsForgotten: Alone, "The ids of appends are ignored.";
    ConditionsIgnored: Alone, "Conditions are ignored: void records show.";
    ConditionsBeforeOrder: Alone, "Conditions are judged when the append arrives, not at its place in the order.";
    TrimOneMore: Alone, "A trim takes one record more than it should.";
    WaitHalved: Alone, "A blocking read gives up before its time.";
    PositionTooHigh: Alone, "An answer claims to have seen more than it has.";
    DoubleOutcome: Alone, "An operation is answered again.";
    SequencerQuorumLess: Apart, "The sequencer orders what one node less than the quorum has.";
    EngineQuorumLess: Apart, "The durable ack comes from one node less than the quorum.";
    StagedIsDurable: Apart, "What storage has staged counts as durable though the metalog is elsewhere.";
    DuplicateStoredTwice: Apart, "A batch that arrives twice is stored twice.";
    DeltasReversed: Apart, "One engine orders the shards of a cut the other way round.";
    CutOneMore: Apart, "One engine takes a cut for one record longer than it is.";
    CutTimeDiffers: Apart, "One engine has another time for a cut.";
    CutSkipped: Apart, "One engine leaves out a cut.";
    PositionIgnored: Apart, "A session's position is ignored by reads.";
    LinearizableIsLocal: Apart, "A linearizable read does not ask the sequencer.";
    TailFromMemory: Apart, "The sequencer answers a question for the tail with what it once said.";
    PromisesForgotten: Apart, "The sequencer, when it starts, takes no answer of storage for what it had reported.";
}

/// The engine in which bugs of one engine are.
const ONE_ENGINE: NodeId = NodeId(1);

impl Mutation {
    /// What disks lie about.
    #[must_use]
    pub fn lie(self) -> Option<Lie> {
        match self {
            Mutation::LyingSync => Some(Lie::Syncs(String::new())),
            Mutation::CheckpointUnsynced => Some(Lie::Syncs("checkpoint".to_owned())),
            Mutation::DirectoriesUnsynced => Some(Lie::DirectorySyncs),
            Mutation::FailedSyncRetried => Some(Lie::SyncsAgain),
            _ => None,
        }
    }

    /// Opens a disk as the bug does.
    pub(crate) fn open(mutation: Option<Mutation>, disk: &mut NodeDisk) -> Result<Opened, Refused> {
        let opened = match mutation {
            Some(Mutation::DamageCutOff) => disk.open_cutting_off(),
            _ => disk.open(),
        };
        opened.map_err(|refused| match mutation {
            Some(Mutation::DamageUnnamed) => Refused { file: String::new(), ..refused },
            Some(Mutation::RefusedStartTidies) => {
                disk.tidy();
                refused
            }
            _ => refused,
        })
    }

    /// Spoils how a node is set up.
    pub fn spoil_config(self, config: &mut MachineConfig) {
        let MachineConfig { engine, storage, sequencer, .. } = config;
        match self {
            Mutation::SequencerQuorumLess => {
                if let Some(sequencer) = sequencer {
                    sequencer.quorum = less(sequencer.quorum);
                }
            }
            Mutation::EngineQuorumLess => {
                if let Some(EngineConfig { quorum, .. }) = engine {
                    *quorum = less(*quorum);
                }
            }
            Mutation::StagedIsDurable => {
                if let Some(storage) = storage {
                    storage.shares_journal = true;
                }
                if let Some(sequencer) = sequencer {
                    sequencer.shares_journal_with = sequencer.storages.first().copied();
                    sequencer.quorum = less(sequencer.quorum);
                }
            }
            _ => {}
        }
    }

    /// Spoils an operation on its way into the engine. `index` is the engine's.
    pub fn spoil_op(self, op: Op, index: Option<&Index>) -> Result<Op, LogError> {
        Ok(match (self, op) {
            (_, Op::Append(append)) => {
                let Append { batch, ack, reserved } = append;
                Op::Append(Append { batch: self.spoil_batch(batch, index)?, ack, reserved })
            }
            (Mutation::WaitHalved, Op::Read(mut read)) => {
                read.wait = read.wait.map(|wait| wait / 2);
                Op::Read(read)
            }
            (Mutation::PositionIgnored, mut op) => {
                if let Some(consistency) = consistency_mut(&mut op)
                    && matches!(consistency, Consistency::Session(_))
                {
                    *consistency = Consistency::Any;
                }
                op
            }
            (Mutation::LinearizableIsLocal, mut op) => {
                if let Some(consistency) = consistency_mut(&mut op)
                    && *consistency == Consistency::Linearizable
                {
                    *consistency = Consistency::Any;
                }
                op
            }
            (_, op) => op,
        })
    }

    fn spoil_batch(self, batch: Batch, index: Option<&Index>) -> Result<Batch, LogError> {
        match self {
            Mutation::IdsForgotten if batch.id().is_some() => rebuild(&batch, Keep { id: false, conditions: true }),
            Mutation::ConditionsIgnored if batch.is_conditional() => {
                rebuild(&batch, Keep { id: true, conditions: false })
            }
            Mutation::ConditionsBeforeOrder if batch.is_conditional() && batch.raises().next().is_none() => {
                for condition in batch.conditions() {
                    if let (Condition::Tail { tag, seq }, Some(index)) = (condition, index) {
                        let actual = index.tail(batch.book(), Some(&tag))?;
                        if actual != seq {
                            return Err(LogError::ConditionFailed { tag, expected: seq, actual });
                        }
                    }
                }
                rebuild(&batch, Keep { id: true, conditions: false })
            }
            Mutation::TrimOneMore => match batch.kind() {
                Kind::Trim { tag, below } if below.next() < Seq::MAX => {
                    BatchBuilder::trim(batch.book(), tag, below.next())
                }
                _ => Ok(batch),
            },
            _ => Ok(batch),
        }
    }

    /// Spoils a message on its way to `to`. `memory` is the bug's own.
    pub fn spoil_message(self, to: NodeId, message: &mut Message, memory: &mut Memory) {
        match (self, message) {
            (Mutation::DuplicateStoredTwice, Message::Replicate { shard, first, batch }) => {
                let shift = memory.shift.entry((to, *shard)).or_default();
                if !memory.seen.insert((to, *shard, *first)) {
                    *shift += u64::from(batch.record_count());
                }
                *first = LocalId(first.0 + *shift);
            }
            (Mutation::TailFromMemory, Message::TailIs { end, .. }) => {
                *end = *memory.tail.get_or_insert(*end);
            }
            (_, Message::Cuts(cuts)) if to == ONE_ENGINE => cuts.iter_mut().for_each(|cut| self.spoil_cut(cut)),
            _ => {}
        }
    }

    fn spoil_cut(self, cut: &mut Cut) {
        match self {
            Mutation::DeltasReversed => cut.deltas.reverse(),
            Mutation::CutOneMore => {
                if let Some(last) = cut.deltas.last_mut() {
                    last.count += 1;
                }
            }
            Mutation::CutTimeDiffers => cut.time_us += 1,
            Mutation::CutSkipped if cut.index >= 3 => cut.index -= 1,
            _ => {}
        }
    }
}

/// What a bug has to remember.
#[derive(Debug, Default)]
pub struct Memory {
    seen: BTreeSet<(NodeId, ShardId, LocalId)>,
    shift: BTreeMap<(NodeId, ShardId), u64>,
    tail: Option<Seq>,
}

fn less(quorum: usize) -> usize {
    quorum.saturating_sub(1).max(1)
}

struct Keep {
    id: bool,
    conditions: bool,
}

/// The same batch with less in it.
fn rebuild(batch: &Batch, keep: Keep) -> Result<Batch, LogError> {
    let mut builder = BatchBuilder::new(batch.book());
    if let Some(id) = batch.id().filter(|_| keep.id) {
        builder = builder.id(id);
    }
    if keep.conditions {
        builder = batch.conditions().fold(builder, BatchBuilder::condition);
        builder = batch.raises().fold(builder, |builder, (tag, epoch)| builder.raise(tag, epoch));
    }
    for record in batch.records() {
        let tags = record.tags().map(boki_log::Tag::new).collect::<Result<_, _>>()?;
        builder = builder.record(tags, record.payload_bytes());
    }
    builder.build()
}

/// What a read is promised.
fn consistency_mut(op: &mut Op) -> Option<&mut Consistency> {
    match op {
        Op::Read(read) => Some(&mut read.consistency),
        Op::Tail(tail) => Some(&mut tail.consistency),
        Op::Tags(tags) => Some(&mut tags.consistency),
        Op::Append(_) | Op::SetAux(_) => None,
    }
}

/// Whether a user may append it.
#[must_use]
pub fn reserved_for(batch: &Batch) -> ReservedTags {
    match batch.kind() {
        Kind::Trim { below, .. } if below >= Seq::MAX => ReservedTags::Allowed,
        _ if batch.records().any(|record| record.tags().any(|tag| tag.starts_with(RESERVED_PREFIX))) => {
            ReservedTags::Allowed
        }
        _ => ReservedTags::Refused,
    }
}
