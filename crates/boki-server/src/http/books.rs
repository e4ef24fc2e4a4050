//! Books: listing, making, removing.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use boki_node::Book;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::read::last_seq;
use super::request::{PathOf, Query, from_json, read_body};
use super::{App, json_response};

/// A book.
#[derive(Serialize, ToSchema)]
pub(crate) struct BookJson {
    name: String,
    /// Its number, which no other book ever has.
    id: u64,
    /// When it was made, in microseconds since 1970.
    created_us: u64,
    /// Seq of its last record; 0 if it has none. Only where one book was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tail: Option<u64>,
}

impl BookJson {
    fn of(book: Book) -> BookJson {
        BookJson { name: book.name, id: book.id.0, created_us: book.created_us, tail: None }
    }
}

/// All books.
#[derive(Serialize, ToSchema)]
pub(crate) struct BooksJson {
    /// By name.
    books: Vec<BookJson>,
}

/// A book to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBook {
    name: String,
}

/// List books
#[utoipa::path(get, path = "/v1/books", operation_id = "list_books", tag = "books", responses((status = 200, description = "All books", body = BooksJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let books = app.node.books().await.map_err(|error| Problem::of_log(&error, ""))?;
    Ok(json_response(StatusCode::OK, &BooksJson { books: books.into_iter().map(BookJson::of).collect() }))
}

/// Make a book
#[utoipa::path(
    post, path = "/v1/books", operation_id = "create_book", tag = "books",
    request_body = CreateBook,
    responses(
        (status = 201, description = "It is made", body = BookJson),
        (status = 400, description = "No book can have that name (BK0112)"),
        (status = 409, description = "It exists (BK0111)"),
    )
)]
pub(crate) async fn create(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Query::parse(parts.uri.query(), &[])?;
    let body = read_body(body, app.body_limit).await?;
    let CreateBook { name } = from_json(&body)?;
    let book = app.node.create_book(&name).await.map_err(|error| Problem::of_log(&error, &name))?;
    // A name has no character that would have to be encoded.
    let location = format!("/v1/books/{}", book.name);
    let mut response = json_response(StatusCode::CREATED, &BookJson::of(book));
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// One book
#[utoipa::path(
    get, path = "/v1/books/{book}", operation_id = "get_book", tag = "books",
    params(("book" = String, Path, description = "Name of the book")),
    responses(
        (status = 200, description = "The book", body = BookJson),
        (status = 404, description = "There is none of that name (BK0110)"),
    )
)]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let found = app.book(&book)?;
    let tail = last_seq(&app, found.id).await.map_err(|error| Problem::of_log(&error, &book))?;
    Ok(json_response(StatusCode::OK, &BookJson { tail: Some(tail), ..BookJson::of(found) }))
}

/// Remove a book
///
/// With all of its records, for good.
#[utoipa::path(
    delete, path = "/v1/books/{book}", operation_id = "remove_book", tag = "books",
    params(("book" = String, Path, description = "Name of the book")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none of that name (BK0110)"),
    )
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    app.node.remove_book(&book).await.map_err(|error| Problem::of_log(&error, &book))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
