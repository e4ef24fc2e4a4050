//! The HTTP API: routes, and what every request and response has in common.
//!
//! Payloads are bytes. Whatever cannot be served is answered with a [`problem`]; a [`session`]'s position
//! travels in the header `Boki-Position`. The description at `/openapi.json` is generated from the handlers,
//! so a route cannot be missing there. This module knows requests, not sockets.

mod append;
mod books;
mod calls;
mod doctor;
mod forward;
mod health;
mod limits;
mod logs;
mod mounts;
mod pages;
mod pools;
mod problem;
mod read;
mod render;
mod request;
mod retention;
mod schema;
mod session;
mod subscribe;
mod time;
mod versions;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use boki_functions::Functions;
use boki_node::{Book, Node};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Request, StatusCode};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use calls::DEFAULT_BOOK;
use mounts::Mounts;
use problem::Problem;

use crate::config::Config;
use crate::door::Door;
use crate::versions::Versions;

/// What the handlers share.
pub(crate) struct App {
    pub(crate) node: Node,
    pub(crate) functions: Functions,
    pub(crate) versions: Versions,
    /// Largest body of a request, in bytes.
    pub(crate) body_limit: usize,
    /// Largest body of a request that calls a function which takes its input piece by piece, in bytes.
    pub(crate) stream_limit: u64,
    pub(crate) mounts: Mounts,
    pub(crate) doctor: doctor::Doctor,
    /// Cancelled when the server begins to stop: ends subscriptions.
    pub(crate) stopping: CancellationToken,
    pub(crate) counters: Counters,
    pub(crate) door: Arc<Door>,
    pub(crate) started: Instant,
    /// The API's description, written once the routes are known.
    openapi: OnceLock<Bytes>,
}

/// Requests answered, by class of status: 1xx to 5xx.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: [AtomicU64; 5],
}

impl App {
    fn book(&self, name: &str) -> Result<Book, Problem> {
        self.node.find_book(name).map_err(|error| Problem::of_log(&error, name))
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Boki",
        description = "Functions, and one durable, totally ordered log to keep their state in. Errors are RFC 9457 problems \
                       with a stable `code`, explained at `/errors/{code}`. Every response that has seen something of a log \
                       carries `Boki-Position`; send it with later requests to read your own writes."
    ),
    components(schemas(schema::ProblemJson)),
    tags(
        (name = "log", description = "Records of a book"),
        (name = "books", description = "Named logs"),
        (name = "functions", description = "Calls of functions"),
        (name = "limits", description = "How many calls run, begin and wait"),
        (name = "versions", description = "Apps that are deployed, and their versions"),
        (name = "operation", description = "How the server is"),
    )
)]
struct Description;

/// Everything that the API answers.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::<Arc<App>>::with_openapi(Description::openapi())
        .routes(routes!(append::append, read::read))
        .routes(routes!(read::read_one))
        .routes(routes!(read::set_aux))
        .routes(routes!(read::tail))
        .routes(routes!(read::tags))
        .routes(routes!(append::trim))
        .routes(routes!(books::list, books::create))
        .routes(routes!(books::get, books::remove))
        .routes(routes!(retention::get, retention::set, retention::remove))
        .routes(routes!(calls::call))
        .routes(routes!(calls::send))
        .routes(routes!(calls::get))
        .routes(routes!(calls::result))
        .routes(routes!(calls::cancel))
        .routes(routes!(logs::of_call))
        .routes(routes!(logs::logs))
        .routes(routes!(calls::list))
        .routes(routes!(limits::list))
        .routes(routes!(limits::get, limits::set, limits::remove))
        .routes(routes!(versions::list, versions::deploy))
        .routes(routes!(versions::get, versions::remove_app))
        .routes(routes!(versions::remove))
        .routes(routes!(versions::activate))
        .routes(routes!(mounts::list))
        .routes(routes!(pools::list))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::status))
        .routes(routes!(health::metrics))
        .routes(routes!(doctor::start, doctor::get))
        .routes(routes!(time::get))
        .routes(routes!(time::advance_time))
        .routes(routes!(pages::home))
        .routes(routes!(pages::error_page))
        .routes(routes!(pages::openapi))
}

/// The HTTP API, ready to answer requests.
pub(crate) struct Gateway {
    app: Arc<App>,
    router: Router,
}

impl Gateway {
    pub(crate) fn new(
        config: &Config,
        node: Node,
        functions: Functions,
        versions: Versions,
        door: Arc<Door>,
        stopping: CancellationToken,
    ) -> Gateway {
        let app = Arc::new(App {
            node,
            functions,
            versions,
            body_limit: config.limits.http_body.bytes(),
            stream_limit: config.limits.stream_body.0,
            mounts: Mounts::new(config.mount.clone()),
            doctor: doctor::Doctor::new(config.server.data.clone(), config.data_keys.clone()),
            stopping,
            counters: Counters::default(),
            door,
            started: Instant::now(),
            openapi: OnceLock::new(),
        });
        let (router, mut description) = routes().split_for_parts();
        schema::add_problems(&mut description);
        // The description is plain data: writing it as JSON cannot fail.
        let description = serde_json::to_vec(&description).unwrap_or_default();
        app.openapi.get_or_init(|| Bytes::from(description));
        let router = router.fallback(no_route).method_not_allowed_fallback(wrong_method).with_state(Arc::clone(&app));
        Gateway { app, router }
    }

    /// Answers a request. Never fails: what goes wrong is in the response.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response {
        let trace = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (Instant::now(), request.method().clone(), request.uri().clone()));
        let response = match self.app.mounts.find(request.uri().path()) {
            Some(found) => Box::pin(mounts::answer(&self.app, found, request)).await,
            None => match other_origin(request.headers()) {
                Some(problem) => problem.into_response(),
                None => self.route(request).await,
            },
        };
        let class = usize::from(response.status().as_u16() / 100).saturating_sub(1);
        if let Some(count) = self.app.counters.requests.get(class) {
            let number = count.fetch_add(1, Ordering::Relaxed);
            if let Some((started, method, uri)) = trace {
                let (status, took) = (response.status().as_u16(), started.elapsed());
                tracing::debug!(%method, %uri, status, ?took, request = format_args!("{}-{number}", class + 1), "answered");
            }
        }
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Response {
        match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// The answer to whoever is one connection too many.
    pub(crate) fn refuse(&self) -> Response {
        Problem::too_many_connections(u32::try_from(self.app.door.limit()).unwrap_or(u32::MAX)).into_response()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

/// Browsers let any page send requests to any server, and nothing here asks who is calling: a page of another origin is
/// therefore refused.
fn other_origin(headers: &HeaderMap) -> Option<Problem> {
    let origin = headers.get(ORIGIN)?;
    is_other_origin(headers).then(|| Problem::other_origin(origin.to_str().unwrap_or("unknown")))
}

/// Whether a request comes from a page that this server has not served.
fn is_other_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    authority.is_none() || authority != host
}

async fn no_route(request: Request<Body>) -> Problem {
    Problem::no_route(request.uri().path())
}

async fn wrong_method(request: Request<Body>) -> Problem {
    Problem::method_not_allowed(request.method().as_str(), request.uri().path())
}

/// A response with a JSON body.
fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("none of the bodies has a map whose keys are not text");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RESERVED;

    #[test]
    fn no_mount_can_take_a_path_of_the_api_away() {
        let (_, description) = routes().split_for_parts();
        for path in description.paths.paths.keys().filter(|path| *path != "/") {
            let first = path.trim_start_matches('/').split('/').next().unwrap();
            assert!(RESERVED.contains(&first), "{path} is not reserved");
        }
    }
}
