//! What an HTTP function answers.

use std::fmt;

use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;

use super::cookie::Cookie;
use super::event::{Event, Texts};
use crate::failure::Failure;
use crate::function::{INVALID_INPUT, Output, OutputBody};
use crate::stream::{INPUT_TOO_LARGE, OutputStream};

/// Status and headers of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    head: Head,
    content_type: String,
    body: OutputBody,
}

impl Default for Response {
    fn default() -> Response {
        Response::new()
    }
}

impl Response {
    /// 200, without a body.
    #[must_use]
    pub fn new() -> Response {
        let head = Head { status: 200, headers: Vec::new() };
        Response { head, content_type: String::new(), body: OutputBody::Whole(Bytes::new()) }
    }

    /// Plain text.
    pub fn text(text: impl Into<String>) -> Response {
        Response::new().body("text/plain; charset=utf-8", text.into())
    }

    /// A page.
    pub fn html(page: impl Into<String>) -> Response {
        Response::new().body("text/html; charset=utf-8", page.into())
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// If the value has no JSON.
    pub fn json<T: Serialize>(value: &T) -> Result<Response, Failure> {
        Ok(Response::new().body("application/json", serde_json::to_vec(value)?))
    }

    /// Sends the browser elsewhere: 303, with which it asks there with `GET`.
    pub fn redirect(to: impl Into<String>) -> Response {
        Response::new().status(303).header("location", to)
    }

    /// Events, each sent as it comes, for a browser's `EventSource`: of [`events`](super::events), or of any stream of events.
    pub fn sse<E: Into<Failure>>(events: impl Stream<Item = Result<Event, E>> + Send + 'static) -> Response {
        let texts = OutputStream::new(Texts(Box::pin(events)));
        Response::stream(texts.content_type("text/event-stream")).header("cache-control", "no-store")
    }

    /// A body that comes piece by piece.
    #[must_use]
    pub fn stream(stream: OutputStream) -> Response {
        let OutputStream { pieces, content_type } = stream;
        Response { content_type, body: OutputBody::Stream(pieces), ..Response::new() }
    }

    /// With this body, and what it is.
    #[must_use]
    pub fn body(mut self, content_type: impl Into<String>, body: impl Into<Bytes>) -> Response {
        self.body = OutputBody::Whole(body.into());
        self.content_type(content_type)
    }

    /// Says what the body is: at most 255 bytes; a longer one is cut.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Response {
        self.content_type = content_type.into();
        self.content_type.truncate(self.content_type.floor_char_boundary(255));
        self
    }

    /// With this status, 200 to 999.
    #[must_use]
    pub fn status(mut self, status: u16) -> Response {
        self.head.status = status;
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Response {
        self.head.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a cookie.
    #[must_use]
    pub fn cookie(self, cookie: Cookie) -> Response {
        self.header("set-cookie", cookie.to_string())
    }

    /// The output of a function that answered with this, or failed: what is wrong with the request is told to whoever sent
    /// it, every other failure is the call's.
    ///
    /// # Errors
    /// The failure, if it is not about the request.
    pub fn output(result: Result<Response, Failure>) -> Result<Output, Failure> {
        result
            .or_else(|failure| match failure.code.as_str() {
                INVALID_INPUT => Ok(Response::text(failure.message).status(400)),
                INPUT_TOO_LARGE => Ok(Response::text(failure.message).status(413)),
                _ => Err(failure),
            })
            .map(Output::from)
    }
}

impl From<Response> for Output {
    fn from(response: Response) -> Output {
        let Response { mut head, content_type, body } = response;
        if let OutputBody::Whole(bytes) = &body
            && !matches!(head.status, 204 | 304)
        {
            head.headers.push(("content-length".to_owned(), bytes.len().to_string()));
        }
        Output { body, content_type, head: Some(head) }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_request_is_told_to_whoever_sent_it() {
        let status = |code: &str| {
            let output = Response::output(Err(Failure::new("no").code(code)));
            output.map(|output| output.head.unwrap().status)
        };
        assert_eq!((status(INVALID_INPUT).unwrap(), status(INPUT_TOO_LARGE).unwrap()), (400, 413));
        assert_eq!(status("declined").unwrap_err().code, "declined");
    }
}
