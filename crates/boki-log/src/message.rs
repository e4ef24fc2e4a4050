//! What the roles tell each other. Any message may be lost, doubled, delayed or overtaken; no role relies on more.

use crate::batch::Batch;
use crate::cut::Cut;
use crate::ids::{LocalId, NodeId, Seq, ShardId, Term};

/// A message between two roles. Its kind says which role it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Engine to storage: keep this batch, whose first record has the local id `first`.
    Replicate {
        /// The engine's shard.
        shard: ShardId,
        /// Local id of the batch's first record.
        first: LocalId,
        /// The batch.
        batch: Batch,
    },
    /// Storage to engine: every record of the shard below `upto` is on my disk.
    Stored {
        /// The shard.
        shard: ShardId,
        /// The first local id that is not.
        upto: LocalId,
    },
    /// Storage to sequencer: how far each of these shards has got here.
    Progress(Vec<ShardProgress>),
    /// Sequencer to storage: I have taken note of this progress.
    ProgressSeen(Vec<(ShardId, LocalId)>),
    /// Sequencer to storage: tell me all your progress; I have just started.
    ProgressQuery {
        /// Which start of the sequencer asks: the answer to an earlier one may be older than what that one knew.
        term: Term,
    },
    /// Storage to sequencer: all my progress, as you asked.
    AllProgress {
        /// From the question.
        term: Term,
        /// Every shard that has records here.
        shards: Vec<ShardProgress>,
    },
    /// Sequencer to engine and storage: these cuts are committed.
    Cuts(Vec<Cut>),
    /// Engine or storage to sequencer: send me the committed cuts from this index on.
    FetchCuts {
        /// The index.
        from: u64,
    },
    /// Engine to sequencer: up to where is the log ordered?
    TailQuery {
        /// The engine's number for the question.
        query: u64,
    },
    /// Sequencer to engine: every committed cut ends below `end`.
    TailIs {
        /// The engine's number for the question.
        query: u64,
        /// The seq after the last ordered one.
        end: Seq,
    },
    /// Engine to storage: send me the batches of this shard from this record on.
    FetchBatches {
        /// The shard.
        shard: ShardId,
        /// The first record wanted.
        from: LocalId,
    },
    /// Storage to engine: batches of a shard, one after the other.
    Batches {
        /// The shard.
        shard: ShardId,
        /// Local id of the first batch's first record.
        first: LocalId,
        /// The batches.
        batches: Vec<Batch>,
    },
}

/// How far a shard has got at one storage node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardProgress {
    /// The shard.
    pub shard: ShardId,
    /// Every record below is in the group of frames that is written next, or before. Means something only to a
    /// sequencer whose metalog shares that journal: a cut behind the records in the same group is on disk only
    /// if they are.
    pub staged: LocalId,
    /// Every record below is on disk.
    pub durable: LocalId,
}

/// What a role wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) to: NodeId,
    pub(crate) message: Message,
}
