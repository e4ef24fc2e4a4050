//! What is kept of a book: seeing, setting and removing its rules.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use boki_log::LogError;
use boki_log::retention::{Keep, Rule, Scope};
use boki_node::{BookRetention, RulesFrom};
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::{PathOf, Query, from_json, read_body};
use super::{App, json_response};
use crate::config::{Size, Span};

/// What is kept of some records of a book; whichever bound is reached first lets the oldest go. At least one is set.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleJson {
    /// Records under this tag; `sensor/*`: those under each tag that begins so, each tag by itself. Without it: all of the book.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// Those younger than this: `7d`, `12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    max_age: Option<Span>,
    /// The newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_records: Option<u64>,
    /// The newest whose tags and payloads take so many bytes together: `10GiB`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    max_bytes: Option<Size>,
}

impl RuleJson {
    fn rule(&self) -> Result<Rule, LogError> {
        let age_us = self.max_age.map(|age| u64::try_from(age.0.as_micros()).unwrap_or(u64::MAX));
        let keep = Keep { age_us, records: self.max_records, bytes: self.max_bytes.map(|size| size.0) };
        Ok(Rule { scope: Scope::parse(self.tag.as_deref())?, keep })
    }
}

impl From<Rule> for RuleJson {
    fn from(Rule { scope, keep }: Rule) -> RuleJson {
        RuleJson {
            tag: (scope != Scope::Book).then(|| scope.to_string()),
            max_age: keep.age_us.map(|age_us| Span(std::time::Duration::from_micros(age_us))),
            max_records: keep.records,
            max_bytes: keep.bytes.map(Size),
        }
    }
}

/// The rules of a book.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetRetention {
    /// All of them; none: everything is kept.
    rules: Vec<RuleJson>,
}

/// What is kept of a book.
#[derive(Serialize, ToSchema)]
pub(crate) struct RetentionJson {
    book: String,
    /// Without any, everything is kept.
    rules: Vec<RuleJson>,
    /// `set`: they were set for the book; `config`: they are those of `boki.toml`, if there are any.
    source: &'static str,
    /// The book's records are counted, and what the rules do not keep goes.
    in_force: bool,
    /// Records that count for the rule of the whole book. Only if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    /// Bytes of their tags and payloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Tags that are counted by themselves.
    tags: u64,
    /// Records under tags that are not, because there are too many: no rule of a tag takes them.
    uncounted: u64,
}

impl RetentionJson {
    fn of(book: &str, retention: BookRetention) -> RetentionJson {
        RetentionJson {
            book: book.to_owned(),
            rules: retention.rules.into_iter().map(RuleJson::from).collect(),
            source: match retention.from {
                RulesFrom::Set => "set",
                RulesFrom::Configuration => "config",
            },
            in_force: retention.is_in_force,
            records: retention.counted.map(|(records, _)| records),
            bytes: retention.counted.map(|(_, bytes)| bytes),
            tags: retention.tags,
            uncounted: retention.uncounted,
        }
    }
}

/// What is kept of a book
#[utoipa::path(
    get, path = "/v1/books/{book}/retention", operation_id = "get_retention", tag = "books",
    params(("book" = String, Path, description = "Name of the book")),
    responses(
        (status = 200, description = "Its rules, and what they count", body = RetentionJson),
        (status = 404, description = "There is no such book (BK0110)"),
    )
)]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    found(&app, &book).await
}

async fn found(app: &App, book: &str) -> Result<Response, Problem> {
    let retention = app.node.retention(book).await.map_err(|error| Problem::of_log(&error, book))?;
    Ok(json_response(StatusCode::OK, &RetentionJson::of(book, retention)))
}

/// Set what is kept of a book
///
/// In place of all rules it had, those of `boki.toml` included. They are on record when this is answered, and in force once the
/// records that are there are counted, which is soon.
#[utoipa::path(
    put, path = "/v1/books/{book}/retention", operation_id = "set_retention", tag = "books",
    params(("book" = String, Path, description = "Name of the book")),
    request_body = SetRetention,
    responses(
        (status = 200, description = "They are on record", body = RetentionJson),
        (status = 400, description = "There can be no such rules (BK0114)"),
        (status = 404, description = "There is no such book (BK0110)"),
    )
)]
pub(crate) async fn set(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Query::parse(parts.uri.query(), &[])?;
    let of_log = |error: LogError| Problem::of_log(&error, &book);
    let body = read_body(body, app.body_limit).await?;
    let SetRetention { rules } = from_json(&body)?;
    let rules = rules.iter().map(RuleJson::rule).collect::<Result<_, _>>().map_err(of_log)?;
    app.node.set_retention(&book, rules).await.map_err(of_log)?;
    found(&app, &book).await
}

/// Remove what was set to be kept of a book
///
/// It goes by `boki.toml` again; without a rule there, everything is kept.
#[utoipa::path(
    delete, path = "/v1/books/{book}/retention", operation_id = "remove_retention", tag = "books",
    params(("book" = String, Path, description = "Name of the book")),
    responses(
        (status = 204, description = "The book has no rules of its own"),
        (status = 404, description = "There is no such book (BK0110)"),
    )
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    app.node.remove_retention(&book).await.map_err(|error| Problem::of_log(&error, &book))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
