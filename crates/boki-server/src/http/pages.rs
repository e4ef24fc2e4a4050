//! What a browser gets: the start page, the error pages, the API's description.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request};

use super::App;
use super::health::status_of;
use super::problem::Problem;
use super::request::{PathOf, accepts};
use crate::codes;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#222;background:#fff}h1{font-weight:600}table{border-collapse:collapse;margin:.5rem 0 1.5rem}\
th,td{text-align:left;padding:.25rem 1.5rem .25rem 0;border-bottom:1px solid #ddd}\
td.n{text-align:right}.bad{color:#b00020;font-weight:600}code,pre{font:14px/1.5 ui-monospace,monospace}\
pre{white-space:pre-wrap}a{color:#0b57d0}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}th,td{border-color:#444}a{color:#8ab4f8}\
.bad{color:#ff8a80}}";

fn page(title: &str, main: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>{main}</body></html>\n"
    );
    let mut response = Response::new(Body::from(html));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    response
}

/// `text` for HTML, element or attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Start page
#[utoipa::path(
    get, path = "/", operation_id = "home_page", tag = "operation",
    responses((status = 200, description = "A page for people", body = String, content_type = "text/html"))
)]
pub(crate) async fn home(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let books = app.node.books().await.map_err(|error| Problem::of_log(&error, ""))?;
    let functions = app.functions.list();
    let status = status_of(&app);
    let mut main = String::new();
    // Writing to a string cannot fail.
    let _ = write!(main, "<h1>Boki {}</h1>", status.version());
    for warning in status.warnings() {
        let _ = write!(main, "<p class=\"bad\">{}</p>", escaped(warning));
    }
    let _ = write!(main, "<p>{}</p>", escaped(&status.summary()));
    main.push_str("<h2>Books</h2><table><tr><th>name</th><th>id</th></tr>");
    for book in &books {
        let name = escaped(&book.name);
        let _ = write!(
            main,
            "<tr><td><a href=\"/v1/books/{name}/records?dir=prev\">{name}</a></td><td class=\"n\">{}</td></tr>",
            book.id.0
        );
    }
    main.push_str("</table><h2>Functions</h2>");
    if functions.is_empty() {
        main.push_str("<p>No worker is connected.</p>");
    } else {
        main.push_str("<table><tr><th>name</th><th>workers</th><th>running</th><th>queued</th><th></th></tr>");
        for function in &functions {
            let _ = write!(
                main,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                escaped(&function.name),
                function.workers,
                function.running,
                function.queued,
                escaped(&function.description)
            );
        }
        main.push_str("</table>");
    }
    main.push_str(
        "<p><a href=\"/v1/status\">status</a> · <a href=\"/metrics\">metrics</a> · \
         <a href=\"/openapi.json\">API description</a></p>",
    );
    Ok(page("Boki", &main))
}

/// What an error code means
#[utoipa::path(
    get, path = "/errors/{code}", tag = "operation",
    params(("code" = String, Path, description = "The code: BK0201")),
    responses(
        (status = 200, description = "What happened, why, what to do", body = String, content_type = "text/markdown"),
        (status = 404, description = "There is no such code (BK0501)"),
    )
)]
pub(crate) async fn error_page(PathOf(code): PathOf<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let found = codes::page(&code).ok_or_else(|| Problem::no_such_code(&code))?;
    if accepts(&headers, "text/html") {
        let title = escaped(found.title());
        return Ok(page(&format!("{} {title}", found.code), &format!("<pre>{}</pre>", escaped(found.markdown))));
    }
    let mut response = Response::new(Body::from(found.markdown));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/markdown; charset=utf-8"));
    Ok(response)
}

/// The API's description
///
/// This document, as OpenAPI 3.1.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "get_openapi", tag = "operation",
    responses((status = 200, description = "The description", body = serde_json::Value))
)]
pub(crate) async fn openapi(State(app): State<Arc<App>>, _: Request<Body>) -> Response {
    let mut response = Response::new(Body::from(app.openapi.get().cloned().unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
