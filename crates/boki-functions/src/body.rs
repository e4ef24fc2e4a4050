//! The bytes of an input or output: there as a whole, or coming piece by piece.
//!
//! A stream is pulled: whoever makes the pieces is asked for the next one only when the last was taken, so a slow reader
//! slows the writer and what lies in memory stays small. It ends in one of two ways that cannot be confused: with nothing more,
//! or with an error, behind which nothing comes.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};

use crate::error::CallError;

/// An input or output.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// It comes piece by piece.
    Stream(BodyStream),
}

impl Body {
    /// How many bytes there are at least, as far as that is known.
    #[must_use]
    pub fn at_least(&self) -> u64 {
        match self {
            Body::Whole(bytes) => bytes.len() as u64,
            Body::Stream(stream) => stream.len.unwrap_or(0),
        }
    }

    /// All of it, at most `limit` bytes.
    ///
    /// # Cancel-safety
    /// Dropping the future loses what was gathered.
    ///
    /// # Errors
    /// [`BodyError`]; [`BodyError::TooLarge`] if there is more.
    pub async fn gather(self, limit: usize) -> Result<Bytes, BodyError> {
        let (actual, limit_bytes) = (self.at_least(), limit as u64);
        if actual > limit_bytes {
            return Err(BodyError::TooLarge { actual, limit: limit_bytes });
        }
        match self {
            Body::Whole(bytes) => Ok(bytes),
            Body::Stream(mut stream) => gather(&mut stream, actual, limit).await,
        }
    }
}

/// All that `stream` brings, at most `limit` bytes; `at_least` of them will come as far as is known.
pub(crate) async fn gather(
    stream: &mut (impl Stream<Item = Result<Bytes, BodyError>> + Unpin),
    at_least: u64,
    limit: usize,
) -> Result<Bytes, BodyError> {
    let at_least = usize::try_from(at_least).unwrap_or(usize::MAX).min(limit);
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        let gathered = rest.as_ref().map_or(first.len(), BytesMut::len);
        if gathered + piece.len() > limit {
            return Err(BodyError::TooLarge { actual: (gathered + piece.len()) as u64, limit: limit as u64 });
        }
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&piece),
            // What comes in one piece is not copied.
            None if first.is_empty() => first = piece,
            None => {
                let mut buf = BytesMut::with_capacity(at_least.max(first.len() + piece.len()));
                buf.extend_from_slice(&first);
                buf.extend_from_slice(&piece);
                rest = Some(buf);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::Whole(bytes)
    }
}

/// Why a body ends before it is complete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Whoever sends it went away, or sent what cannot be read.
    #[error("it ended before it was complete")]
    CutShort,
    /// There is more than allowed.
    #[error("it has {actual} bytes or more, the limit is {limit}")]
    TooLarge {
        /// How many bytes there are at least.
        actual: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The call that it is the output of failed.
    #[error(transparent)]
    Call(Box<CallError>),
}

impl BodyError {
    /// What becomes of a call whose input (`what` = "input") or output ("output") this ended.
    pub(crate) fn of(self, what: &'static str) -> CallError {
        match self {
            BodyError::CutShort => CallError::BodyCutShort { what },
            BodyError::TooLarge { actual, limit } => CallError::PayloadTooLarge { what, actual, limit },
            BodyError::Call(error) => *error,
        }
    }
}

/// Bytes that come piece by piece. Dropping it tells whoever makes them that nobody wants them any more.
pub struct BodyStream {
    /// `None`: it has ended.
    pieces: Option<BoxStream<'static, Result<Bytes, BodyError>>>,
    /// How many bytes come in all, where that is known.
    len: Option<u64>,
    taken: u64,
    limit: u64,
}

impl BodyStream {
    /// Of pieces.
    pub fn new(pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> BodyStream {
        BodyStream { pieces: Some(Box::pin(pieces)), len: None, taken: 0, limit: u64::MAX }
    }

    /// Says how many bytes come in all.
    #[must_use]
    pub fn of_len(mut self, len: u64) -> BodyStream {
        self.len = Some(len);
        self
    }

    /// Ends with [`BodyError::TooLarge`] when more than `limit` bytes come.
    #[must_use]
    pub fn at_most(mut self, limit: u64) -> BodyStream {
        self.limit = limit;
        self
    }

    /// How many bytes come in all, where that is known.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "whether a stream is empty is known at its end")]
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// The next piece; `None`: it is complete, or an error was returned before.
    ///
    /// # Cancel-safety
    /// Safe: no piece is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        StreamExt::next(self).await
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let next = match ready!(pieces.as_mut().poll_next(cx)) {
            Some(Ok(piece)) => {
                self.taken += piece.len() as u64;
                if self.taken <= self.limit {
                    return Poll::Ready(Some(Ok(piece)));
                }
                Some(Err(BodyError::TooLarge { actual: self.taken, limit: self.limit }))
            }
            end => end,
        };
        self.pieces = None;
        Poll::Ready(next)
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyStream({} bytes taken of {:?})", self.taken, self.len)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::iter;

    use super::*;

    fn stream(pieces: &[Result<&'static str, BodyError>]) -> BodyStream {
        let pieces: Vec<_> =
            pieces.iter().cloned().map(|piece| piece.map(|text| Bytes::from_static(text.as_bytes()))).collect();
        BodyStream::new(iter(pieces))
    }

    #[tokio::test]
    async fn pieces_are_gathered_up_to_the_limit() {
        let whole = |pieces: &[_], limit| Body::Stream(stream(pieces)).gather(limit);
        assert_eq!(whole(&[Ok("ab"), Ok(""), Ok("cd"), Ok("e")], 5).await.unwrap(), "abcde");
        assert_eq!(whole(&[], 0).await.unwrap(), "");
        assert_eq!(whole(&[Ok("ab"), Ok("cd")], 3).await, Err(BodyError::TooLarge { actual: 4, limit: 3 }));
        let known = Body::Stream(stream(&[]).of_len(9));
        assert_eq!(known.gather(8).await, Err(BodyError::TooLarge { actual: 9, limit: 8 }));
        assert!(Body::from(Bytes::from_static(b"abc")).gather(2).await.is_err());
    }

    #[tokio::test]
    async fn an_error_ends_it_and_is_told_once() {
        let mut broken = stream(&[Ok("ab"), Err(BodyError::CutShort), Ok("cd")]);
        assert_eq!(broken.next().await, Some(Ok(Bytes::from_static(b"ab"))));
        assert_eq!(broken.next().await, Some(Err(BodyError::CutShort)));
        assert_eq!(broken.next().await, None);
        let mut long = stream(&[Ok("ab"), Ok("cd")]).at_most(3);
        assert!(long.next().await.unwrap().is_ok());
        assert_eq!(long.next().await, Some(Err(BodyError::TooLarge { actual: 4, limit: 3 })));
        assert_eq!(long.next().await, None);
    }
}
