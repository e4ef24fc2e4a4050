//! The session of a client across requests: the position that it sends and gets back.

use axum::response::Response;
use boki_log::{Position, Seq};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::problem::Problem;

/// Carries the session's position, in requests and responses.
pub(crate) const POSITION: HeaderName = HeaderName::from_static("boki-position");

/// The position that a request carries.
pub(crate) fn position_of(headers: &HeaderMap) -> Result<Position, Problem> {
    let Some(value) = headers.get(POSITION) else { return Ok(Position::START) };
    let seq = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    match seq {
        Some(seq) if seq <= Seq::MAX.0 + 1 => Ok(Position(Seq(seq))),
        _ => Err(Problem::invalid_header("Boki-Position", "a whole number, as an earlier response gave it")),
    }
}

/// Tells a client that has seen `before` what it has seen now.
pub(crate) fn set_position(response: &mut Response, before: Position, now: Position) {
    response.headers_mut().insert(POSITION, HeaderValue::from(before.max(now).0.0));
}
