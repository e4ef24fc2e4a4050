//! Server-sent events: what a browser's `EventSource` reads.

use std::fmt::{self, Write as _};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;

use crate::failure::Failure;
use crate::stream::{Slot, written};

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    text: String,
}

impl Event {
    /// With this data, which may have several lines.
    pub fn data(data: impl AsRef<str>) -> Event {
        let mut event = Event::default();
        for line in lines(data.as_ref()) {
            event.field("data", line);
        }
        event
    }

    /// With a value as JSON.
    ///
    /// # Errors
    /// If the value has no JSON.
    pub fn json<T: Serialize>(value: &T) -> Result<Event, Failure> {
        Ok(Event::data(serde_json::to_string(value)?))
    }

    /// No event, but something to keep the connection from looking dead.
    pub fn comment(text: impl AsRef<str>) -> Event {
        let mut event = Event::default();
        for line in lines(text.as_ref()) {
            event.field("", line);
        }
        event
    }

    /// Its kind: what `addEventListener` names.
    #[must_use]
    pub fn event(mut self, kind: impl AsRef<str>) -> Event {
        self.field("event", &one_line(kind.as_ref()));
        self
    }

    /// Where it stands: what a browser that reconnects sends as `Last-Event-ID`.
    #[must_use]
    pub fn id(mut self, id: impl fmt::Display) -> Event {
        self.field("id", &one_line(&id.to_string()));
        self
    }

    /// How soon a browser that lost the connection is to come back.
    #[must_use]
    pub fn retry(mut self, after: Duration) -> Event {
        self.field("retry", &after.as_millis().to_string());
        self
    }

    fn field(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{name}: {value}");
    }

    pub(super) fn into_text(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}

/// As browsers split them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else { return rest.take() };
        let after = if text[end..].starts_with("\r\n") { end + 2 } else { end + 1 };
        rest = Some(&text[after..]);
        Some(&text[..end])
    })
}

/// A line break would end the field and begin another.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '\0'], " ")
}

/// Events that are written while they are sent: a body for [`Response::sse`](super::Response::sse). [`Events::send`] returns when the
/// event is on its way. When the reader goes away, the function is dropped at its `await`.
///
/// ```
/// # use boki_sdk::http::{Event, Response, events};
/// # fn example() -> Response {
/// Response::sse(events(async move |out| {
///     for number in 1..=3 {
///         out.send(Event::data(format!("{number}")).id(number)).await;
///     }
///     Ok(())
/// }))
/// # }
/// ```
pub fn events<W, F>(send: W) -> impl Stream<Item = Result<Event, Failure>> + Send
where
    W: FnOnce(Events) -> F + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    written(|slot| send(Events(slot)))
}

/// Where events are sent to; see [`events`].
#[derive(Debug)]
pub struct Events(Slot<Event>);

impl Events {
    /// Sends one.
    pub async fn send(&self, event: Event) {
        self.0.put(event).await;
    }
}

/// Events as the text that travels.
pub(super) struct Texts<S>(pub(super) Pin<Box<S>>);

impl<S: Stream<Item = Result<Event, E>>, E> Stream for Texts<S> {
    type Item = Result<String, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<String, E>>> {
        self.0.as_mut().poll_next(cx).map(|next| next.map(|event| event.map(Event::into_text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_fields_line_by_line() {
        let event = Event::data("a\nb\r\nc\r").event("x\ny").id(7).retry(Duration::from_secs(1));
        let text = "data: a\ndata: b\ndata: c\ndata: \nevent: x y\nid: 7\nretry: 1000\n\n";
        assert_eq!(event.into_text(), text);
        assert_eq!(Event::json(&[1]).unwrap().into_text(), "data: [1]\n\n");
        assert_eq!(Event::data("").into_text(), "data: \n\n");
        assert_eq!(Event::comment("still here").into_text(), ": still here\n\n");
    }
}
