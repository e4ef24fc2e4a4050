//! An HTTP request as the call of a function, and the function's output as the response.
//!
//! Bytes go through as they are. What belongs to one connection only (RFC 9110, 7.6.1) stays there in both directions, and so
//! do Boki's own headers. Large bodies go through piece by piece: the socket's own back-pressure reaches the function, and
//! the function's reaches the socket. A response whose output breaks off is cut off, never ended as if it were complete.

use axum::body::Body;
use axum::response::Response;
use boki_functions::{BodyError, BodyStream, CallError, CallReply, HttpHead};
use boki_log::Position;
use futures_util::TryStreamExt;
use hyper::body::Body as _;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{StatusCode, header};

use super::problem::Problem;
use super::request::read_body;
use super::session::set_position;

/// Bodies that are known to be no longer are read before the call is made.
const WHOLE_BYTES: u64 = 64 << 10;

const JSON: &str = "application/json";

/// The body of a request as a function's input; of at most `limit` bytes.
pub(super) async fn input_of(body: Body, limit: u64) -> Result<boki_functions::Body, Problem> {
    let size = body.size_hint();
    if size.lower() > limit {
        let error = CallError::PayloadTooLarge { what: "input", actual: size.lower(), limit };
        return Err(Problem::of_call(&error, ""));
    }
    if size.upper().is_some_and(|upper| upper <= WHOLE_BYTES) {
        return read_body(body, WHOLE_BYTES as usize).await.map(boki_functions::Body::Whole);
    }
    let pieces = BodyStream::new(body.into_data_stream().map_err(|_| BodyError::CutShort)).at_most(limit);
    Ok(boki_functions::Body::Stream(match size.exact() {
        Some(len) => pieces.of_len(len),
        None => pieces,
    }))
}

/// What a function sees of a request for `path` below the place where it is mounted.
pub(super) fn head_of(parts: &Parts, path: &str) -> HttpHead {
    let own = Connection::of(&parts.headers);
    let headers = parts.headers.iter().filter(|(name, _)| own.is_passed_on(name) && *name != header::EXPECT);
    // The link's texts are UTF-8, and its names have at most 255 bytes.
    let headers = headers
        .filter(|(name, _)| name.as_str().len() <= 255)
        .filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value.as_bytes()).ok()?)));
    HttpHead::new(parts.method.as_str(), path, parts.uri.query().unwrap_or_default(), headers)
}

/// The response that a function makes.
pub(super) fn respond(reply: CallReply, before: Position) -> Result<Response, Problem> {
    let (body, is_stream) = match reply.output {
        boki_functions::Body::Whole(bytes) => (Body::from(bytes), false),
        boki_functions::Body::Stream(stream) => (Body::from_stream(stream), true),
    };
    let mut response = Response::new(body);
    let content_type = match (&*reply.content_type, &reply.head) {
        (JSON, _) => Some(HeaderValue::from_static(JSON)),
        ("", Some(_)) => None,
        (text, _) => Some(
            HeaderValue::try_from(text)
                .ok()
                .filter(|value| !value.is_empty())
                .unwrap_or(HeaderValue::from_static("application/octet-stream")),
        ),
    };
    if let Some(head) = reply.head {
        let bad = |detail: String| Problem::bad_response(&detail);
        *response.status_mut() = match head.status {
            0 => StatusCode::OK,
            status => StatusCode::from_u16(status)
                .ok()
                .filter(|status| !status.is_informational())
                .ok_or_else(|| bad(format!("{status} is not a status that a response can have")))?,
        };
        let mut headers = HeaderMap::with_capacity(head.headers.len() + 3);
        for (name, value) in head.headers {
            let (Ok(name), Ok(value)) = (HeaderName::try_from(&name), HeaderValue::try_from(&value)) else {
                return Err(bad(format!("{name:?} has not the form of a header")));
            };
            headers.append(name, value);
        }
        let own = Connection::of(&headers);
        let mut passed = HeaderMap::with_capacity(headers.len() + 3);
        for (name, value) in &headers {
            if *name == CONTENT_LENGTH {
                let is_length = value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok());
                if !is_length || headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
                    return Err(bad("its Content-Length is not a number".to_owned()));
                }
                // The length of what is there is known better here.
                if !is_stream {
                    continue;
                }
            }
            if own.is_passed_on(name) {
                passed.append(name, value.clone());
            }
        }
        *response.headers_mut() = passed;
    }
    let headers = response.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if let Ok(id) = HeaderValue::try_from(reply.id.to_string()) {
        headers.insert("boki-call", id);
    }
    set_position(&mut response, before, reply.position);
    Ok(response)
}

/// Which headers belong to the connection.
struct Connection<'a> {
    /// Those that the message itself names.
    named: Option<&'a str>,
}

impl<'a> Connection<'a> {
    fn of(headers: &'a HeaderMap) -> Connection<'a> {
        Connection { named: headers.get(CONNECTION).and_then(|value| value.to_str().ok()) }
    }

    fn is_passed_on(&self, name: &HeaderName) -> bool {
        const OWN: [HeaderName; 7] =
            [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
        let text = name.as_str();
        if OWN.contains(name) || text == "keep-alive" || text == "proxy-connection" || text.starts_with("boki-") {
            return false;
        }
        let mut named = self.named.unwrap_or_default().split(',').map(str::trim);
        !named.any(|named| named.eq_ignore_ascii_case(text))
    }
}

#[cfg(test)]
mod tests {
    use boki_functions::CallId;
    use boki_wire::worker::OutputHead;
    use bytes::Bytes;
    use hyper::Request;

    use super::*;

    #[test]
    fn what_belongs_to_the_connection_or_to_boki_stays_here() {
        let request = Request::builder()
            .method("PUT")
            .uri("/shop/a%20b?x=1&x=2")
            .header("host", "a.example")
            .header("connection", "close, X-Hop")
            .header("x-hop", "1")
            .header("keep-alive", "5")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "websocket")
            .header("expect", "100-continue")
            .header("boki-book", "b")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-latin", HeaderValue::from_bytes(b"\xe9").unwrap());
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let head = head_of(&parts, "/a%20b");
        assert_eq!((head.method(), head.path(), head.query()), ("PUT", "/a%20b", "x=1&x=2"));
        let headers: Vec<_> = head.headers().collect();
        assert_eq!(headers, [("host", "a.example"), ("cookie", "a=1"), ("cookie", "b=2")]);
    }

    fn reply(status: u16, headers: &[(&str, &str)]) -> CallReply {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        CallReply {
            id: CallId([1; 16]),
            output: boki_functions::Body::Whole(Bytes::from_static(b"abc")),
            content_type: "".into(),
            head: Some(Box::new(OutputHead { status, content_type: String::new(), headers })),
            position: Position::START,
            attempts: 1,
        }
    }

    #[test]
    fn a_response_has_the_functions_status_and_headers() {
        let headers = [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("connection", "close"), ("content-length", "9")];
        let response = respond(reply(418, &headers), Position::START).unwrap();
        assert_eq!(response.status(), 418);
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        for absent in ["connection", "content-length", "content-type"] {
            assert!(!response.headers().contains_key(absent), "{absent}");
        }
        assert_eq!(respond(reply(0, &[]), Position::START).unwrap().status(), 200);
    }

    #[test]
    fn what_is_not_http_is_not_sent() {
        for (status, headers) in [
            (101, &[][..]),
            (200, &[("a b", "1")]),
            (200, &[("a", "1\n2")]),
            (200, &[("content-length", "x")]),
            (200, &[("content-length", "1"), ("content-length", "2")]),
        ] {
            let problem = respond(reply(status, headers), Position::START).unwrap_err().to_json();
            assert_eq!((&problem["code"], &problem["status"]), (&"BK0423".into(), &502.into()), "{headers:?}");
        }
    }
}
