//! Identifiers. Each is its own type, so that one cannot be taken for another.

use std::fmt;

/// Declares a number that is an identifier: ordered, printable, without arithmetic.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A record's place in the order: starts at 1, strictly increasing in a book, never reused,
    /// always below 2^53 so that JavaScript can hold it. 0 stands for "none".
    Seq(u64),
    "{}"
);
id!(
    /// A book, by number: the seq of the record in the catalog that created it. The catalog itself is book 0.
    BookId(u64),
    "book:{}"
);
id!(
    /// A record's number within its shard, from 0, given by the engine that owns the shard.
    LocalId(u64),
    "local:{}"
);
id!(
    /// A process of the cluster.
    NodeId(u16),
    "n{}"
);
id!(
    /// An incarnation of a node: grows with every start, so that no two starts share a shard.
    Term(u32),
    "t{}"
);

impl Seq {
    /// No record: the tail of an empty tag.
    pub const NONE: Seq = Seq(0);
    /// The first seq of a log.
    pub const FIRST: Seq = Seq(1);
    /// Above every seq that can exist; the largest integer JavaScript holds exactly.
    pub const MAX: Seq = Seq((1 << 53) - 1);

    /// The seq after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl BookId {
    /// The catalog: the book whose records name all other books.
    pub const CATALOG: BookId = BookId(0);
}

/// One incarnation of an engine's shard. A restarted engine begins a new shard and never continues an old
/// one, so a delayed message of the past cannot be taken for one of the present.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardId {
    /// The engine that owns the shard.
    pub engine: NodeId,
    /// Which incarnation of it.
    pub term: Term,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.engine, self.term)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// "Everything below this seq is visible to me": the whole session state of a client. It only grows, and
/// the larger of two positions covers both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Position(pub Seq);

impl Position {
    /// Has seen nothing.
    pub const START: Position = Position(Seq(0));

    /// The position of one who has seen `seq` and everything before it.
    #[must_use]
    pub fn after(seq: Seq) -> Position {
        Position(seq.next())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.0.0)
    }
}

/// Names one append, so that repeating it adds nothing: 128 bits chosen by the client. All zero is not an id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct AppendId(pub [u8; 16]);

impl fmt::Debug for AppendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
