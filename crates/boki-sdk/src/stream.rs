//! Inputs and outputs that come and go piece by piece.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use parking_lot::Mutex;

use crate::failure::Failure;
use crate::flow::InputQueue;

pub(crate) type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// A call's input, piece by piece. Whoever sends it is slowed down to the speed at which it is taken.
///
/// What is not taken is not sent: dropping it tells the server to keep the rest.
#[derive(Debug)]
pub struct InputStream {
    /// What came with the call.
    first: Bytes,
    rest: Option<InputQueue>,
    content_type: String,
}

impl InputStream {
    pub(crate) fn new(first: Bytes, rest: Option<InputQueue>, content_type: String) -> InputStream {
        InputStream { first, rest, content_type }
    }

    /// What the caller says it is; may be empty.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The next piece; `None`: that was all.
    ///
    /// # Cancel-safety
    /// Safe: no piece is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// All that is left of it, at most `limit` bytes.
    ///
    /// # Cancel-safety
    /// Dropping the future loses what was gathered.
    ///
    /// # Errors
    /// A failure with the code `input_too_large`, or that of an input that ends early.
    pub async fn gather(&mut self, limit: usize) -> Result<Bytes, Failure> {
        let mut gathered = BytesMut::new();
        let mut only = None;
        while let Some(piece) = self.next().await {
            let piece = piece?;
            let so_far = only.as_ref().map_or(gathered.len(), Bytes::len);
            if so_far + piece.len() > limit {
                let message = format_args!("the input has more than {limit} bytes");
                return Err(Failure::new(message).code(INPUT_TOO_LARGE));
            }
            if gathered.is_empty() && only.is_none() {
                only = Some(piece);
                continue;
            }
            if let Some(first) = only.take() {
                gathered.extend_from_slice(&first);
            }
            gathered.extend_from_slice(&piece);
        }
        Ok(only.unwrap_or_else(|| gathered.freeze()))
    }

    fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        let Some(rest) = &self.rest else { return Poll::Ready(None) };
        rest.poll_next(cx).map(|piece| {
            piece.map(|piece| piece.map_err(|_| Failure::new("the input ended before it was complete").retryable()))
        })
    }
}

/// The code of the failure of an input that is larger than its function takes.
pub(crate) const INPUT_TOO_LARGE: &str = "input_too_large";

impl Stream for InputStream {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.poll_piece(cx)
    }
}

impl Drop for InputStream {
    fn drop(&mut self) {
        if let Some(rest) = &self.rest {
            rest.refuse();
        }
    }
}

/// An output, piece by piece: what a function returns whose output is large, or comes while somebody reads it.
///
/// Each piece is sent as it comes, and the next one is asked for only when the reader has room. When the call is given up
/// (its caller goes away, say), the stream is dropped.
pub struct OutputStream {
    pub(crate) pieces: Pieces,
    pub(crate) content_type: String,
}

impl OutputStream {
    /// Of any stream of pieces. An error breaks the output off.
    pub fn new<E: Into<Failure>>(
        pieces: impl Stream<Item = Result<impl Into<Bytes>, E>> + Send + 'static,
    ) -> OutputStream {
        OutputStream { pieces: Box::pin(Converted(Box::pin(pieces))), content_type: String::new() }
    }

    /// Says what it is: at most 255 bytes; a longer one is cut.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> OutputStream {
        self.content_type = content_type.into();
        self.content_type.truncate(self.content_type.floor_char_boundary(255));
        self
    }
}

impl fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputStream({:?})", self.content_type)
    }
}

/// An output that is written while it is sent:
///
/// ```
/// # fn example(rows: Vec<String>) -> boki_sdk::OutputStream {
/// boki_sdk::stream(async move |out| {
///     for row in rows {
///         out.write(row).await;
///     }
///     Ok(())
/// })
/// # }
/// ```
///
/// [`Writer::write`] returns when the piece is on its way, so what is written never piles up. An error breaks the output off.
/// When the call is given up, the function is dropped at its `await`.
pub fn stream<W, F>(write: W) -> OutputStream
where
    W: FnOnce(Writer) -> F + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    OutputStream::new(written(|slot| write(Writer(slot))))
}

/// Where the pieces of an output are written; see [`stream`].
#[derive(Debug)]
pub struct Writer(Slot<Bytes>);

impl Writer {
    /// Writes a piece. It is sent at once.
    pub async fn write(&self, piece: impl Into<Bytes>) {
        self.0.put(piece.into()).await;
    }
}

/// The stream of what a future puts into its slot, item by item. The future runs only while somebody asks for an item.
pub(crate) fn written<T, F>(write: impl FnOnce(Slot<T>) -> F + 'static) -> impl Stream<Item = Result<T, Failure>> + Send
where
    T: Send + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let slot = Slot(Arc::new(Mutex::new(Place { item: None, waiting: Vec::new() })));
    let future = write(Slot(Arc::clone(&slot.0)));
    Written { future: Some(Box::pin(future)), failure: None, slot }
}

/// A place for one item.
pub(crate) struct Slot<T>(Arc<Mutex<Place<T>>>);

struct Place<T> {
    item: Option<T>,
    /// Who waits until it is taken.
    waiting: Vec<Waker>,
}

impl<T> Slot<T> {
    /// Puts an item there; returns when it has been taken and the next one is asked for.
    pub(crate) async fn put(&self, item: T) {
        let mut item = Some(item);
        poll_fn(|cx| {
            let mut place = self.0.lock();
            if place.item.is_none() {
                match item.take() {
                    Some(item) => place.item = Some(item),
                    None => return Poll::Ready(()),
                }
            }
            if !place.waiting.iter().any(|waiting| waiting.will_wake(cx.waker())) {
                place.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

/// What writes.
type Writing = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

struct Written<T> {
    /// `None`: it has ended.
    future: Option<Writing>,
    /// With which it ended, behind the last item.
    failure: Option<Failure>,
    slot: Slot<T>,
}

impl<T> Stream for Written<T> {
    type Item = Result<T, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, Failure>>> {
        let Some(future) = &mut self.future else { return Poll::Ready(self.failure.take().map(Err)) };
        let ended = future.as_mut().poll(cx);
        if ended.is_ready() {
            self.future = None;
        }
        let mut place = self.slot.0.lock();
        if let Some(item) = place.item.take() {
            let waiting = std::mem::take(&mut place.waiting);
            drop(place);
            // Several may write at once, inside of something that polls only what was woken.
            for waiting in waiting {
                waiting.wake();
            }
            self.failure = match ended {
                Poll::Ready(Err(failure)) => Some(failure),
                _ => None,
            };
            return Poll::Ready(Some(Ok(item)));
        }
        drop(place);
        ended.map(|result| result.err().map(Err))
    }
}

/// Pieces and errors of any kind as bytes and failures.
struct Converted<S>(Pin<Box<S>>);

impl<S, B, E> Stream for Converted<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
    E: Into<Failure>,
{
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let next = self.0.as_mut().poll_next(cx);
        next.map(|next| next.map(|piece| piece.map(Into::into).map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    async fn next(output: &mut OutputStream) -> Option<Result<Bytes, Failure>> {
        poll_fn(|cx| output.pieces.as_mut().poll_next(cx)).await
    }

    #[tokio::test]
    async fn each_piece_is_taken_before_the_next_is_made() {
        let made = Arc::new(AtomicUsize::new(0));
        let making = Arc::clone(&made);
        let mut output = stream(async move |out| {
            for number in 0..3 {
                making.fetch_add(1, Ordering::Relaxed);
                out.write(format!("{number}")).await;
            }
            Ok(())
        });
        assert_eq!(made.load(Ordering::Relaxed), 0);
        for number in 0..3 {
            assert_eq!(next(&mut output).await.unwrap().unwrap(), number.to_string());
            assert_eq!(made.load(Ordering::Relaxed), number + 1);
        }
        assert!(next(&mut output).await.is_none());
        assert!(next(&mut output).await.is_none());
    }

    #[tokio::test]
    async fn an_error_comes_behind_what_was_written_before() {
        let mut output = stream(async |out: Writer| {
            out.write("a").await;
            Err(Failure::new("no more"))
        });
        assert_eq!(next(&mut output).await.unwrap().unwrap(), "a");
        assert_eq!(next(&mut output).await.unwrap().unwrap_err().message(), "no more");
        assert!(next(&mut output).await.is_none());
    }

    #[tokio::test]
    async fn two_writers_at_once_lose_nothing() {
        let mut output = stream(async |out: Writer| {
            tokio::join!(
                async {
                    out.write("a").await;
                    out.write("b").await;
                },
                async {
                    out.write("c").await;
                }
            );
            Ok(())
        });
        let mut written = Vec::new();
        while let Some(piece) = next(&mut output).await {
            written.push(piece.unwrap());
        }
        written.sort_unstable();
        assert_eq!(written, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn an_input_is_gathered_up_to_a_limit() {
        let input = |bytes: &'static [u8]| InputStream::new(Bytes::from_static(bytes), None, String::new());
        assert_eq!(input(b"abc").gather(3).await.unwrap(), "abc");
        assert_eq!(input(b"").gather(0).await.unwrap(), "");
        assert_eq!(input(b"abcd").gather(3).await.unwrap_err().code, INPUT_TOO_LARGE);
    }
}
