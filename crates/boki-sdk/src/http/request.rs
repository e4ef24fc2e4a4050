//! The request that an HTTP function answers.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use boki_wire::worker::HttpHead;

use crate::failure::Failure;
use crate::function::{INVALID_INPUT, Input};
use crate::stream::InputStream;

/// Most bytes of a body that is taken as a whole, unless its function says otherwise.
const BODY_BYTES: usize = 8 << 20;

/// An HTTP request. Its body is there as it comes.
pub struct Request {
    head: HttpHead,
    body: InputStream,
}

impl Request {
    /// What a call brought. One that came by no HTTP is a `POST` of `/`.
    #[must_use]
    pub fn of(input: Input) -> Request {
        let head = input.http.clone().unwrap_or_else(|| {
            let content_type = Some(("content-type", input.content_type()));
            HttpHead::new("POST", "/", "", content_type.filter(|(_, value)| !value.is_empty()))
        });
        Request { head, body: input.into_stream() }
    }

    /// In capitals: `GET`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.head.method()
    }

    /// Below the place where the function is mounted, as it was sent: percent-encoded, beginning with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// The path between its slashes, decoded: `/a%20b/c` has `a b` and `c`. A slash at the end adds nothing.
    #[must_use]
    pub fn segments(&self) -> Vec<String> {
        let path = self.path();
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Vec::new();
        }
        path.split('/').map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned()).collect()
    }

    /// The query as it was sent, without its `?`; may be empty.
    #[must_use]
    pub fn query(&self) -> &str {
        self.head.query()
    }

    /// The parameters of the query, decoded, in the order in which they came.
    pub fn params(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.head.query().as_bytes())
    }

    /// The first parameter `name` of the query, decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.params().find(|(param, _)| param == name).map(|(_, value)| value)
    }

    /// Names, in lower case, and values of the headers, in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.headers()
    }

    /// The first header `name`, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// What the body is said to be; may be empty.
    #[must_use]
    pub fn content_type(&self) -> &str {
        self.header("content-type").unwrap_or_default()
    }

    /// Names and values of the cookies.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers().filter(|(name, _)| *name == "cookie");
        let cookies = headers.flat_map(|(_, cookies)| cookies.split(';'));
        cookies.filter_map(|cookie| cookie.split_once('=')).map(|(name, value)| {
            let value = value.trim();
            let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (name.trim(), unquoted.unwrap_or(value))
        })
    }

    /// The first cookie `name`.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies().find(|(cookie, _)| *cookie == name).map(|(_, value)| value)
    }

    /// What is left of the body as JSON. If it does not fit, the failure becomes a response with the status 400.
    ///
    /// # Errors
    /// A failure with the code `invalid_input`, or as [`Request::bytes`].
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let bytes = self.bytes(BODY_BYTES).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format_args!("the body does not fit: {error}")).code(INVALID_INPUT))
    }

    /// What is left of the body as text.
    ///
    /// # Errors
    /// A failure with the code `invalid_input`, or as [`Request::bytes`].
    pub async fn text(&mut self) -> Result<String, Failure> {
        let bytes = self.bytes(BODY_BYTES).await?;
        String::from_utf8(bytes.into()).map_err(|_| Failure::new("the body is not UTF-8").code(INVALID_INPUT))
    }

    /// The fields of an HTML form that are left of the body, decoded.
    ///
    /// # Errors
    /// As [`Request::bytes`].
    pub async fn form(&mut self) -> Result<Vec<(String, String)>, Failure> {
        let bytes = self.bytes(BODY_BYTES).await?;
        Ok(form_urlencoded::parse(&bytes).into_owned().collect())
    }

    /// What is left of the body, at most `limit` bytes. If there is more, the failure becomes a response with the status 413.
    ///
    /// # Errors
    /// A failure with the code `input_too_large`, or that of a body that ends early.
    pub async fn bytes(&mut self, limit: usize) -> Result<Bytes, Failure> {
        self.body.gather(limit).await
    }

    /// The body, to be taken piece by piece.
    pub fn body(&mut self) -> &mut InputStream {
        &mut self.body
    }

    /// The same, where only the body is of interest any more.
    #[must_use]
    pub fn into_body(self) -> InputStream {
        self.body
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:?})", self.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, query: &str, headers: &[(&str, &str)], body: &'static [u8]) -> Request {
        let head = HttpHead::new("PUT", path, query, headers.iter().copied());
        Request::of(Input::new(Bytes::from_static(body), "".into(), Some(head), None))
    }

    #[test]
    fn the_path_and_the_query_are_taken_apart() {
        let root = request("/", "", &[], b"");
        assert!(root.segments().is_empty());
        let request = request("/a%20b/%2F/", "x=1&y=a+b%21&x=2&z", &[], b"");
        assert_eq!((request.method(), request.path()), ("PUT", "/a%20b/%2F/"));
        assert_eq!(request.segments(), ["a b", "/"]);
        assert_eq!(request.param("y").unwrap(), "a b!");
        assert_eq!((request.param("x").unwrap(), request.param("z").unwrap()), ("1".into(), "".into()));
        assert!(request.param("w").is_none());
        assert_eq!(request.params().count(), 4);
    }

    #[test]
    fn headers_and_cookies_are_found() {
        let headers = [("x-a", "1"), ("cookie", "a=1; b=\"2\"; bad"), ("cookie", "c=x=y")];
        let request = request("/", "", &headers, b"");
        assert_eq!((request.header("X-A"), request.header("x-b")), (Some("1"), None));
        let cookies: Vec<_> = request.cookies().collect();
        assert_eq!(cookies, [("a", "1"), ("b", "2"), ("c", "x=y")]);
        assert_eq!(request.cookie("b"), Some("2"));
    }

    #[tokio::test]
    async fn the_body_is_taken_as_what_it_is() {
        assert_eq!(request("/", "", &[], b"[1]").json::<Vec<u8>>().await.unwrap(), [1]);
        assert_eq!(request("/", "", &[], b"[").json::<Vec<u8>>().await.unwrap_err().code, INVALID_INPUT);
        assert_eq!(
            request("/", "", &[], b"a=1&b=%20").form().await.unwrap(),
            [("a".to_owned(), "1".to_owned()), ("b".to_owned(), " ".to_owned())]
        );
        assert_eq!(request("/", "", &[], b"\xff").text().await.unwrap_err().code, INVALID_INPUT);
    }

    #[test]
    fn a_call_without_http_is_a_post() {
        let request = Request::of(Input::new(Bytes::from_static(b"1"), "application/json".into(), None, None));
        assert_eq!((request.method(), request.path()), ("POST", "/"));
        assert_eq!(request.content_type(), "application/json");
    }
}
