//! Frames over any byte stream, batched both ways.
//!
//! A [`Frame`] is a kind, a correlation number and a body of bytes; this crate does not know what any of them
//! means. A [`Connection`] is one task that reads and writes: it hands every frame that one read brought to a
//! [`FrameSink`], then writes, in as few system calls as it can, whatever was pushed to its [`Outbox`]
//! meanwhile, by the sink or by any other thread.
//!
//! Invariants:
//! - Frames leave in the order in which they were pushed, whole, or the connection ends.
//! - Pushing never blocks and never wakes anybody; [`Outbox::flush`] wakes the connection's task at most once
//!   until it has run. [`Outbox::write`] spares even that: the thread that pushed writes itself while the task sleeps.
//! - Memory is bounded: a peer that does not read is first no longer read from, then cut off.
#![deny(missing_docs)]

mod connection;
mod decoder;
mod frame;
mod frame_buf;
mod outbox;
mod socket;
mod writer;

pub use connection::{Broken, Config, Connection, Ended, FrameSink};
pub use decoder::Decoder;
pub use frame::{DEFAULT_MAX_BODY, Frame, FrameError, HEADER_BYTES, PREAMBLE};
pub use frame_buf::{BodyWriter, FrameBuf};
pub use outbox::{Close, Closed, Outbox};
pub use socket::tune_tcp;
