//! Taking a request apart: its body within a limit, its query parameters, its path. Whatever is wrong with
//! them becomes a [`Problem`] that names it.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body as _;
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::config::Span;

/// Longest time that a request may ask to wait.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

/// Reads a body of at most `limit` bytes. One that arrives in one piece is not copied.
pub(crate) async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::body_too_large(limit));
    }
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::body_cut_short())?;
        let Ok(data) = frame.into_data() else { continue };
        let gathered = rest.as_ref().map_or(first.len(), BytesMut::len);
        if gathered + data.len() > limit {
            return Err(Problem::body_too_large(limit));
        }
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut buf = BytesMut::with_capacity(first.len() + data.len());
                buf.extend_from_slice(&first);
                buf.extend_from_slice(&data);
                rest = Some(buf);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// Reads JSON out of a body.
pub(crate) fn from_json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::invalid_body(format!("the body is not as expected: {error}")))
}

/// A request's query parameters, all of them known ones.
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Takes `query` apart; anything but the parameters in `allowed` is refused, so that a misspelt one is noticed.
    pub(crate) fn parse(query: Option<&'a str>, allowed: &[&str]) -> Result<Query<'a>, Problem> {
        let pairs: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        for (name, _) in &pairs {
            if !allowed.contains(&&**name) {
                let what = if allowed.is_empty() {
                    "there are none here".to_owned()
                } else {
                    format!("expected one of: {}", allowed.join(", "))
                };
                return Err(Problem::invalid_query(Some(name), format!("unknown query parameter {name:?}; {what}")));
            }
        }
        Ok(Query(pairs))
    }

    /// The value of a parameter that may be there once.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(Problem::invalid_query(Some(name), format!("the query parameter {name:?} is there twice")));
        }
        Ok(first)
    }

    /// The values of a parameter that may be there often.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The value of a parameter, as a `T`; `expected` says what that is.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.get(name)? else { return Ok(None) };
        let invalid = |_| Problem::invalid_query(Some(name), format!("{name}={text:?} must be {expected}"));
        text.parse().map(Some).map_err(invalid)
    }

    /// `wait`: how long to wait for what is not there yet.
    pub(crate) fn wait(&self) -> Result<Option<Duration>, Problem> {
        let Some(Span(wait)) = self.parsed("wait", "a duration with a unit, such as 30s")? else { return Ok(None) };
        if wait > MAX_WAIT {
            return Err(Problem::invalid_query(Some("wait"), "wait can be at most 1h".to_owned()));
        }
        Ok((!wait.is_zero()).then_some(wait))
    }
}

/// The variable parts of a path.
#[derive(Debug)]
pub(crate) struct PathOf<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathOf<T>, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(PathOf(value)),
            Err(_) => Err(Problem::no_route(parts.uri.path())),
        }
    }
}

/// A header's text, if it is there.
pub(crate) fn text_header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(|text| Some(text.trim())).map_err(|_| Problem::invalid_header(name, "visible ASCII text"))
}

/// Whether the `Accept` header names `media_type` itself (`*/*` does not count).
pub(crate) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get_all(hyper::header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type))
    })
}

/// The media type of the body, without its parameters, in lower case; empty if not told.
pub(crate) fn media_type(headers: &HeaderMap) -> Cow<'_, str> {
    let value = headers.get(hyper::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let value = value.split(';').next().unwrap_or_default().trim();
    if value.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(value.to_ascii_lowercase())
    } else {
        Cow::Borrowed(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        let query = Query::parse(Some("tag=a%2Fb&wait=30s&tag=c"), &["tag", "wait"]).unwrap();
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a/b", "c"]);
        assert_eq!(query.wait().unwrap(), Some(Duration::from_secs(30)));
        assert!(query.get("tag").unwrap_err().to_json()["detail"].as_str().unwrap().contains("twice"));
        let problem = Query::parse(Some("form=1"), &["from", "tag"]).unwrap_err().to_json();
        assert_eq!(problem["parameter"], "form");
        assert!(problem["detail"].as_str().unwrap().contains("expected one of: from, tag"));
    }

    #[test]
    fn durations_need_units_and_have_a_limit() {
        let query = |text| Query::parse(Some(text), &["wait"]).unwrap().wait();
        assert!(query("wait=30").is_err());
        assert!(query("wait=2h").is_err());
        assert_eq!(query("wait=0s").unwrap(), None);
    }
}
