//! The types of Boki's log and its protocol as pure state machines.
//!
//! A **book** is a named log. Its **records** are ordered by **seq**, carry **tags** for selective
//! reading, and may be appended under **conditions**. The order comes from the **metalog** alone: a
//! sequencer writes **cuts** that say how far each shard has got, and every seq follows from them by
//! arithmetic (the idea is Scalog's, NSDI'20, and Boki's, SOSP'21).
//!
//! This crate knows no I/O, no threads, no clock, no randomness and no async. Each role is a state
//! machine: inputs go in, effects come out, in order. The real node and the simulator drive the same
//! machines.
//!
//! - [`op`]: what a caller can ask of the log and what it gets back; [`error`]: how it can fail.
//! - [`batch`]: the unit of an append, in the one encoding that wire, disk and memory share.
//! - [`engine`], [`storage`], [`sequencer`]: the roles; [`message`]: what they tell each other.
//! - [`index`]: what a prefix of the order means: which records exist, under which tags.
//! - [`retention`]: which trims the rules of a book ask for.
//! - [`machine`]: the roles that one process plays, as one state machine with a disk and a network.
#![deny(missing_docs)]

pub mod batch;
pub mod codec;

pub mod cut;
pub mod engine;
pub mod error;
pub mod ids;
pub mod index;
pub mod limits;
pub mod machine;
pub mod message;
pub mod op;
pub mod retention;
pub mod sequencer;
pub mod storage;
pub mod tag;

pub use batch::{Batch, BatchBuilder, Record};
pub use error::LogError;
pub use ids::{AppendId, BookId, LocalId, NodeId, Position, Seq, ShardId, Term};
pub use limits::Limits;
pub use tag::Tag;
