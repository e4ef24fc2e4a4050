//! The Rust client of Boki, and what a function author imports.
//!
//! A [`Client`] is one connection to a server, shared by all its clones, with any number of operations in flight:
//!
//! ```no_run
//! # async fn example() -> boki_sdk::Result<()> {
//! let client = boki_sdk::Client::connect("127.0.0.1:2654").await?;
//! let book = client.book("orders").await?;
//! let seq = book.append(b"hello").tags(["user/42"]).if_tail("user/42", 0).await?;
//! for record in book.read_next(seq).tag("user/42").limit(10).await? {
//!     println!("{} {:?}", record.seq, record.data());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A connection that breaks is opened again by itself. An append is repeated with its id until it is answered, so it is
//! done once; reads are repeated; what cannot be repeated safely fails with [`Error::OutcomeUnknown`].
//! The client keeps, for each book, the position of the last answer and sends it along: it reads its own writes, and never
//! goes back in time, whichever server answers.
//!
//! This crate knows nothing of how a server works; the log's own types are those of `boki-log`.
#![deny(missing_docs)]

mod address;
mod answer;
mod append;
mod book;
mod call;
mod client;
mod connection;
mod cx;
mod deliver;
mod error;
mod failure;
mod flow;
mod function;
pub mod http;
mod in_flight;
mod options;
mod payload;
mod pending;
mod question;
mod random;
mod read;
mod record;
mod session;
mod stream;
mod subscription;
mod tags;
mod worker;
mod worker_side;

pub use address::Address;
pub use append::{Append, Durable, Trim};
pub use book::{Book, BookInfo};
pub use call::{Call, CallOutput, Detached, Sent};
pub use client::{Client, FunctionInfo};
pub use cx::{ChildCall, ChildSend, Cx};
pub use error::{Error, Result};
pub use failure::Failure;
pub use function::{Function, FunctionSpec, Input, Output, Running};
pub use in_flight::InFlight;
pub use options::ConnectOptions;
pub use payload::{IntoPayload, Json, Payload};
pub use read::{IntoSeq, Read, Tail};
pub use record::Record;
pub use stream::{InputStream, OutputStream, Writer, stream};
pub use subscription::Subscription;
pub use tags::{TagPage, Tags};
pub use worker::Worker;

pub use boki_log::error::Retry;
pub use boki_log::op::Appended;
pub use boki_log::{AppendId, BookId, LogError, Position, Seq};
pub use boki_macros::function;
pub use boki_wire::worker::{CallId, HttpHead, Level};
pub use bytes::Bytes;
pub use futures_core::Stream;

/// What a function author imports.
pub mod prelude {
    pub use crate::{
        Book, Bytes, Client, Cx, Failure, Input, InputStream, Json, Output, OutputStream, Position, Seq, Worker,
    };

    /// What a function returns: any error becomes a [`Failure`] with `?`.
    pub type Result<T, E = Failure> = std::result::Result<T, E>;
}
