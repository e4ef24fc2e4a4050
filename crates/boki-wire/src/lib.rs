//! The messages that travel in Boki's frames: client operations and the worker link.
//!
//! A message is one frame: its [`Message::KIND`] is the frame's kind, its fields are the frame's body. An answer
//! carries the `corr` of its question; several questions may be open at once, and are answered in any order.
//! Either side skips frames of a kind that it does not know (a server answers such a question with an error)
//! and refuses flags that it does not know.
//!
//! All integers are little-endian. In the tables of fields, `name` is a length (u8) and that many bytes of
//! UTF-8, `text` and `bytes` have a u32 length, and "rest" runs to the end of the body. The exact bytes are
//! pinned by `tests/vectors/`, for this crate as for any other implementation.
//!
//! This crate knows no sockets and no operations' meaning. Decoding never panics, whatever the bytes.
#![deny(missing_docs)]

pub mod books;
pub mod calls;
pub mod error;
pub mod hello;
mod http_head;
pub mod kinds;
pub mod log;
pub mod worker;

pub use books::{BookCreate, BookIs, BookList, BookOpen, BookRemove, BookRemoved, BooksAre};
pub use calls::{Call, CallAccepted, CallPending, CallResult, CallWait, FunctionIs, FunctionList, FunctionsAre};
pub use error::{ErrorReply, WireError};
pub use hello::{Cancel, Hello, HelloOk, Ping, Pong, Role, VERSION};

use boki_log::LogError;
use boki_net::{BodyWriter, Frame, Outbox};
use bytes::Bytes;

/// What a frame's body holds.
pub trait Message: Sized {
    /// The kind of the frames that carry it.
    const KIND: u8;

    /// Puts down the body.
    fn write(&self, body: &mut BodyWriter<'_>);

    /// Takes a body apart.
    ///
    /// # Errors
    /// If the bytes are not such a message.
    fn decode(body: &Bytes) -> Result<Self, LogError>;

    /// Pushes it to `outbox`, which is for the caller to flush.
    fn push(&self, outbox: &Outbox, corr: u64) {
        outbox.push(Self::KIND, corr, |body| self.write(body));
    }
}

/// That `frame` carries no flag: none is defined as yet.
///
/// # Errors
/// [`LogError::Malformed`].
pub fn check_flags(frame: &Frame) -> Result<(), LogError> {
    if frame.flags == 0 { Ok(()) } else { Err(LogError::Malformed { reason: "unknown flags" }) }
}

/// Implements [`Message`] for a message without fields.
macro_rules! empty_message {
    ($name:ident, $kind:expr) => {
        impl crate::Message for $name {
            const KIND: u8 = $kind;

            fn write(&self, _: &mut boki_net::BodyWriter<'_>) {}

            fn decode(body: &bytes::Bytes) -> Result<$name, boki_log::LogError> {
                boki_log::codec::Reader::new(body).finish()?;
                Ok($name)
            }
        }
    };
}
use empty_message;
