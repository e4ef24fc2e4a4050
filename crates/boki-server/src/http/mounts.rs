//! Functions that answer HTTP requests below a path: which one answers, and which web pages may ask.
//!
//! A mount is the function's own ground: the request goes to it as it came, whatever the method. Only what the
//! configuration says is done here. Whoever asks need not know of Boki, so its headers count for nothing but the position of
//! a session, nothing is put on record, and `Idempotency-Key` is the function's own affair. Not here: WebSockets.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use boki_functions::Call;
use boki_wire::calls::DEFAULT_PRIORITY;
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    ALLOW, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::forward::{head_of, input_of, respond};
use super::problem::Problem;
use super::request::Query;
use super::session::position_of;
use super::{App, is_other_origin, json_response};
use crate::config::{MountSection, RESERVED};

/// How long a browser need not ask again, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// All mounts, the longest paths first.
#[derive(Debug)]
pub(crate) struct Mounts(Vec<Mount>);

#[derive(Debug)]
struct Mount {
    section: MountSection,
    function: Arc<str>,
}

/// A request's mount, and its path below that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'m> {
    mount: &'m Mount,
    /// Where in the request's path the rest begins.
    rest: usize,
}

impl Mounts {
    pub(crate) fn new(mut sections: Vec<MountSection>) -> Mounts {
        sections.sort_by_key(|section| std::cmp::Reverse(section.path.len()));
        let mount = |section: MountSection| Mount { function: section.function.as_str().into(), section };
        Mounts(sections.into_iter().map(mount).collect())
    }

    /// The mount with the longest path that `path` lies below.
    pub(super) fn find(&self, path: &str) -> Option<Found<'_>> {
        if self.0.is_empty() {
            return None;
        }
        let first = path.strip_prefix('/')?.split('/').next().unwrap_or_default();
        if RESERVED.contains(&first) {
            return None;
        }
        self.0.iter().find_map(|mount| {
            // The path of the root is the slash with which every rest begins.
            let prefix = mount.section.path.trim_end_matches('/');
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(Found { mount, rest: prefix.len() })
        })
    }
}

impl Mount {
    fn takes(&self, method: &Method) -> bool {
        let methods = &self.section.methods;
        let listed = |name: &str| methods.iter().any(|method| method == name);
        methods.is_empty() || listed(method.as_str()) || (*method == Method::HEAD && listed("GET"))
    }

    /// The methods as a header lists them.
    fn allow(&self) -> HeaderValue {
        let mut methods = self.section.methods.clone();
        if methods.iter().any(|method| method == "GET") && !methods.iter().any(|method| method == "HEAD") {
            methods.push("HEAD".to_owned());
        }
        HeaderValue::try_from(methods.join(", ")).unwrap_or(HeaderValue::from_static(""))
    }

    /// What a response to a page of the origin that `headers` name says about that; an error if such a page may not ask.
    fn cors(&self, headers: &HeaderMap) -> Result<Option<Cors>, Problem> {
        let origins = &self.section.origins;
        let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
        if origins.is_empty() {
            return Ok(None);
        }
        if origins.iter().any(|allowed| allowed == "*") {
            return Ok(Some(Cors::Any));
        }
        if origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
            return Ok(Some(Cors::One(origin.clone())));
        }
        if is_other_origin(headers) {
            return Err(Problem::other_origin(origin.to_str().unwrap_or("unknown")));
        }
        Ok(None)
    }

    /// The answer to a browser that asks whether it may ask.
    fn preflight(&self, headers: &HeaderMap, cors: &Cors) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        let methods = match (self.section.methods.is_empty(), headers.get(ACCESS_CONTROL_REQUEST_METHOD)) {
            (true, Some(asked)) => asked.clone(),
            _ => self.allow(),
        };
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        cors.add_to(answer);
        response
    }
}

/// Which pages may see a response.
enum Cors {
    /// Any, but not with the cookies of whoever looks at it.
    Any,
    One(HeaderValue),
}

impl Cors {
    fn add_to(&self, headers: &mut HeaderMap) {
        match self {
            Cors::Any => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Cors::One(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
        }
    }
}

/// Answers a request that lies below a mount.
pub(super) async fn answer(app: &App, found: Found<'_>, request: Request<Incoming>) -> Response {
    let mount = found.mount;
    let (parts, body) = request.into_parts();
    let cors = match mount.cors(&parts.headers) {
        Ok(cors) => cors,
        Err(problem) => return problem.into_response(),
    };
    if let Some(cors) = &cors
        && parts.method == Method::OPTIONS
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    {
        return mount.preflight(&parts.headers, cors);
    }
    if !mount.takes(&parts.method) {
        let problem = Problem::method_not_allowed(parts.method.as_str(), parts.uri.path());
        let mut response = problem.into_response();
        response.headers_mut().insert(ALLOW, mount.allow());
        return response;
    }
    let path = parts.uri.path().get(found.rest..).filter(|rest| !rest.is_empty()).unwrap_or("/");
    let mut response = call(app, mount, &parts, path, body).await.unwrap_or_else(IntoResponse::into_response);
    if let Some(cors) = cors {
        cors.add_to(response.headers_mut());
    }
    response
}

async fn call(
    app: &App,
    mount: &Mount,
    parts: &hyper::http::request::Parts,
    path: &str,
    body: Incoming,
) -> Result<Response, Problem> {
    let book = &mount.section.book;
    let position = position_of(&parts.headers)?;
    let content_type = parts.headers.get(hyper::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let call = Call {
        function: Arc::clone(&mount.function),
        // The function has the headers too: one that is too long for its place there is not lost.
        content_type: content_type.filter(|text| text.len() <= 255).unwrap_or_default().into(),
        book: app.book(book)?.id,
        position,
        idempotency_key: None,
        deadline: None,
        priority: DEFAULT_PRIORITY,
        limit_key: None,
        parent: None,
        input: input_of(Body::new(body), app.stream_limit).await?,
        http: Some(head_of(parts, path)),
    };
    match app.functions.call(call).await {
        Ok(reply) => respond(reply, position),
        Err(error) => {
            let seen = position.max(error.position().unwrap_or(position));
            Err(Problem::of_call(&error, book).at(Some(seen)))
        }
    }
}

/// All mounts.
#[derive(Serialize, ToSchema)]
pub(crate) struct MountsJson {
    mounts: Vec<MountJson>,
}

/// A path below which a function answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct MountJson {
    path: String,
    function: String,
    /// Empty: all.
    methods: Vec<String>,
    book: String,
    /// Origins whose web pages may use it; empty: the function sees to that itself.
    origins: Vec<String>,
}

/// Mounts
///
/// The paths below which functions answer HTTP requests, the longest first.
#[utoipa::path(
    get, path = "/v1/mounts", operation_id = "list_mounts", tag = "functions",
    responses((status = 200, description = "Those of the configuration", body = MountsJson))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let mounts = app.mounts.0.iter().map(|Mount { section, .. }| MountJson {
        path: section.path.clone(),
        function: section.function.clone(),
        methods: section.methods.clone(),
        book: section.book.clone(),
        origins: section.origins.clone(),
    });
    Ok(json_response(StatusCode::OK, &MountsJson { mounts: mounts.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(paths: &[&str]) -> Mounts {
        let section = |path: &&str| MountSection {
            path: (*path).to_owned(),
            function: (*path).to_owned(),
            methods: Vec::new(),
            book: "default".to_owned(),
            origins: Vec::new(),
        };
        Mounts::new(paths.iter().map(section).collect())
    }

    #[test]
    fn the_longest_path_wins_and_segments_are_whole() {
        let mounts = mounts(&["/shop", "/", "/shop/admin"]);
        for (path, expected) in [
            ("/shop", Some(("/shop", ""))),
            ("/shop/", Some(("/shop", "/"))),
            ("/shop/a/b", Some(("/shop", "/a/b"))),
            ("/shopping", Some(("/", "/shopping"))),
            ("/shop/admin", Some(("/shop/admin", ""))),
            ("/shop/admin/x", Some(("/shop/admin", "/x"))),
            ("/shop/administrator", Some(("/shop", "/administrator"))),
            ("/", Some(("/", "/"))),
            ("/v1", None),
            ("/v1/books", None),
            ("/call/f", None),
            ("/v11", Some(("/", "/v11"))),
            ("*", None),
        ] {
            let found = mounts.find(path);
            let found = found.map(|found| (found.mount.section.path.as_str(), &path[found.rest..]));
            assert_eq!(found, expected, "{path}");
        }
        assert!(Mounts::new(Vec::new()).find("/shop").is_none());
    }
}
