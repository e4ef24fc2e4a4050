//! The writing half of a connection: the stream, and the bytes that are on their way into it.
//!
//! It lies beside the outbox, behind a lock, so that not only the connection's task can write: see
//! [`Outbox::write`](crate::Outbox::write).

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Most pieces handed to one vectored write.
const SLICES: usize = 64;

/// A stream that takes bytes.
pub(crate) type Stream = Box<dyn AsyncWrite + Send + Unpin>;

/// See the module.
#[derive(Default)]
pub(crate) struct Writer {
    /// `None`: there is no connection yet, or no more.
    pub(crate) stream: Option<Stream>,
    /// Taken out of the outbox; in front of everything that is still in there.
    pub(crate) writing: VecDeque<Bytes>,
    /// The stream holds back bytes that it has accepted.
    unflushed: bool,
}

impl Writer {
    /// Writes what was taken; tells `wrote` of every piece that the stream has accepted. Pending: the stream takes no more
    /// now, and wakes the task of `cx` when it does.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, mut wrote: impl FnMut(usize)) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        while !self.writing.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled =
                self.writing.iter().zip(&mut slices).map(|(chunk, slice)| *slice = IoSlice::new(chunk)).count();
            let bytes = match ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..filled])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => bytes,
                Err(error) => return Poll::Ready(Err(error)),
            };
            self.unflushed = true;
            wrote(bytes);
            let mut left = bytes;
            while let Some(chunk) = self.writing.front_mut() {
                if left < chunk.len() {
                    chunk.advance(left);
                    break;
                }
                left -= chunk.len();
                self.writing.pop_front();
            }
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} pieces)", self.writing.len())
    }
}
