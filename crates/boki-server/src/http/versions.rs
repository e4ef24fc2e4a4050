//! Deploying apps, and looking at their versions.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::{PathOf, Query, accepts, text_header};
use super::schema::RawBytes;
use super::{App, json_response};
use crate::versions::{AppPicture, DeployError, Deployed, Failure, Picture, Progress, Upload};

/// How many steps of a deploy may wait for a slow watcher; what is above is not told.
const PROGRESS_AHEAD: usize = 1000;

/// Apps and their versions.
#[derive(Serialize, ToSchema)]
pub(crate) struct AppsJson {
    apps: Vec<AppJson>,
}

/// An app and its versions.
#[derive(Serialize, ToSchema)]
pub(crate) struct AppJson {
    app: String,
    /// The version that calls go to.
    active: Option<u32>,
    /// The version that was active before and can be gone back to.
    previous: Option<u32>,
    /// A deploy or another change is under way.
    changing: bool,
    /// Why the active version does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    /// Oldest first.
    versions: Vec<VersionJson>,
}

/// A version of an app.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionJson {
    version: u32,
    /// `active`, `draining` (its calls finish), `kept`, `deploying` or `failed`.
    state: &'static str,
    /// BLAKE3 of the package, in hexadecimal.
    checksum: String,
    /// Microseconds since 1970.
    created_us: u64,
    /// When it became active, the last time that it did.
    activated_us: Option<u64>,
    bytes: u64,
    files: u32,
    /// Calls that its workers have now.
    running: usize,
    /// What its workers offer.
    functions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureJson>,
}

/// Why a version never served.
#[derive(Serialize, ToSchema)]
pub(crate) struct FailureJson {
    /// `build`, `start` or `switch`.
    stage: &'static str,
    reason: String,
    /// The last lines that were printed.
    lines: Vec<String>,
}

/// A version became active.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeployedJson {
    app: String,
    version: u32,
    /// The version that was active before.
    replaced: Option<u32>,
    functions: Vec<String>,
    /// What the version before offered and this one does not: calls on record for these wait.
    missing: Vec<String>,
}

impl From<AppPicture> for AppJson {
    fn from(app: AppPicture) -> AppJson {
        AppJson {
            app: app.app,
            active: app.active,
            previous: app.previous,
            changing: app.is_changing,
            trouble: app.trouble,
            versions: app.versions.into_iter().map(VersionJson::from).collect(),
        }
    }
}

impl From<Picture> for VersionJson {
    fn from(version: Picture) -> VersionJson {
        VersionJson {
            version: version.version,
            state: version.state.as_str(),
            checksum: version.checksum,
            created_us: version.created_us,
            activated_us: version.activated_us,
            bytes: version.bytes,
            files: version.files,
            running: version.running,
            functions: version.functions,
            failure: version.failure.map(|Failure { stage, reason, lines }| FailureJson {
                stage: stage.as_str(),
                reason,
                lines,
            }),
        }
    }
}

impl From<Deployed> for DeployedJson {
    fn from(deployed: Deployed) -> DeployedJson {
        let Deployed { app, version, replaced, functions, missing } = deployed;
        DeployedJson { app, version, replaced, functions, missing }
    }
}

/// That whoever asks may deploy.
fn authorize(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let authorization = text_header(headers, AUTHORIZATION.as_str())?;
    app.versions.authorize(authorization).map_err(|error| Problem::of_deploy(&error))
}

fn number(text: &str) -> Result<u32, Problem> {
    let invalid = |_| Problem::invalid_query(Some("version"), format!("{text:?} is not the number of a version"));
    text.parse().map_err(invalid)
}

/// List apps and versions
#[utoipa::path(
    get, path = "/v1/versions", operation_id = "list_versions", tag = "versions",
    responses((status = 200, description = "Every app, by name", body = AppsJson))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let apps = app.versions.apps().into_iter().map(AppJson::from).collect();
    Ok(json_response(StatusCode::OK, &AppsJson { apps }))
}

/// One app's versions
#[utoipa::path(
    get, path = "/v1/versions/{app}", operation_id = "get_versions", tag = "versions",
    params(("app" = String, Path, description = "The app")),
    responses((status = 200, description = "The app", body = AppJson))
)]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    PathOf(name): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let found = app.versions.app(&name).map_err(|error| Problem::of_deploy(&error))?;
    Ok(json_response(StatusCode::OK, &AppJson::from(found)))
}

/// Deploy
///
/// The body is a tar of the app's files, its `boki.toml` among them. It is unpacked, built and started beside the active
/// version; once its workers have registered, calls go to it, and the old workers finish what they have. If anything goes
/// wrong before that, the old version stays as it is. With `Accept: text/event-stream` the steps are told as they are taken;
/// the last event is `done` or `failed` (its data is a problem).
#[utoipa::path(
    post, path = "/v1/versions", operation_id = "deploy", tag = "versions",
    params(
        ("app" = String, Query, description = "The app: letters, digits, '-' and '_'"),
        ("Authorization" = String, Header, description = "Bearer, and the token in the server's data directory"),
        ("Boki-Checksum" = Option<String>, Header, description = "BLAKE3 of the body, in hexadecimal"),
    ),
    request_body(content((RawBytes = "application/x-tar"))),
    responses((status = 200, description = "The version is active", content(
        (DeployedJson = "application/json"), (String = "text/event-stream"),
    )))
)]
pub(crate) async fn deploy(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    authorize(&app, request.headers())?;
    let query = Query::parse(request.uri().query(), &["app"])?;
    let Some(name) = query.get("app")?.map(str::to_owned) else {
        return Err(Problem::invalid_query(Some("app"), "app says which app this is".to_owned()));
    };
    let checksum = text_header(request.headers(), "boki-checksum")?.map(str::to_owned);
    let is_watched = accepts(request.headers(), "text/event-stream");
    let of_deploy = |error| Problem::of_deploy(&error);
    let allowed = app.versions.package_bytes();
    if request.body().size_hint().lower() > allowed {
        let reason = format!("it has more than {allowed} bytes (versions.package)");
        return Err(Problem::of_deploy(&DeployError::Package(reason)));
    }
    let upload = app.versions.receive(&name).await.map_err(of_deploy)?;
    let upload = receive(upload, request.into_body()).await?;
    let (progress, told) = mpsc::channel(PROGRESS_AHEAD);
    if !is_watched {
        let deployed = app.versions.deploy(upload, checksum.as_deref(), progress).await.map_err(of_deploy)?;
        return Ok(json_response(StatusCode::OK, &DeployedJson::from(deployed)));
    }
    let (done, ended) = oneshot::channel();
    tokio::spawn(async move {
        let deployed = app.versions.deploy(upload, checksum.as_deref(), progress).await;
        // Whoever watched may be gone; the deploy is done or not all the same.
        let _ = done.send(deployed);
    });
    Ok(watch(told, ended))
}

/// Takes in the package as it comes.
async fn receive(mut upload: Upload, mut body: Body) -> Result<Upload, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::body_cut_short())?;
        let Ok(piece) = frame.into_data() else { continue };
        upload = upload.write(piece).await.map_err(|error| Problem::of_deploy(&error))?;
    }
    Ok(upload)
}

type Outcome = oneshot::Receiver<Result<Deployed, DeployError>>;

/// The steps of a deploy as events, and how it ended.
fn watch(told: mpsc::Receiver<Progress>, ended: Outcome) -> Response {
    let stream = unfold(Some((told, ended)), |state| async {
        let (mut told, ended) = state?;
        // The sender is gone once the deploy has ended.
        if let Some(step) = told.recv().await {
            let step = serde_json::to_string(&step).unwrap_or_default();
            let event = format!("event: progress\ndata: {step}\n\n");
            return Some((Ok::<_, Infallible>(Bytes::from(event)), Some((told, ended))));
        }
        let event = match ended.await {
            Ok(Ok(deployed)) => {
                let done = serde_json::to_string(&DeployedJson::from(deployed)).unwrap_or_default();
                format!("event: done\ndata: {done}\n\n")
            }
            Ok(Err(error)) => format!("event: failed\ndata: {}\n\n", Problem::of_deploy(&error).to_json()),
            Err(_) => "event: failed\ndata: {}\n\n".to_owned(),
        };
        Some((Ok(Bytes::from(event)), None))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Activate a version
///
/// Starts a version that is kept beside the active one, and switches to it as a deploy does.
#[utoipa::path(
    post, path = "/v1/versions/{app}/{version}/activate", operation_id = "activate_version", tag = "versions",
    params(
        ("app" = String, Path, description = "The app"),
        ("version" = u32, Path, description = "The version"),
        ("Authorization" = String, Header, description = "Bearer, and the token in the server's data directory"),
    ),
    responses((status = 200, description = "The version is active", body = DeployedJson))
)]
pub(crate) async fn activate(
    State(app): State<Arc<App>>,
    PathOf((name, version)): PathOf<(String, String)>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    authorize(&app, request.headers())?;
    Query::parse(request.uri().query(), &[])?;
    let activated = app.versions.activate(&name, number(&version)?).await;
    let activated = activated.map_err(|error| Problem::of_deploy(&error))?;
    Ok(json_response(StatusCode::OK, &DeployedJson::from(activated)))
}

/// Remove a version
#[utoipa::path(
    delete, path = "/v1/versions/{app}/{version}", operation_id = "remove_version", tag = "versions",
    params(
        ("app" = String, Path, description = "The app"),
        ("version" = u32, Path, description = "A version that does not run"),
        ("Authorization" = String, Header, description = "Bearer, and the token in the server's data directory"),
    ),
    responses((status = 204, description = "It is gone"))
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathOf((name, version)): PathOf<(String, String)>,
    request: Request<Body>,
) -> Result<StatusCode, Problem> {
    authorize(&app, request.headers())?;
    Query::parse(request.uri().query(), &[])?;
    let removed = app.versions.remove(&name, number(&version)?).await;
    removed.map_err(|error| Problem::of_deploy(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove an app
///
/// Its workers finish what they have and end, and all its versions are removed.
#[utoipa::path(
    delete, path = "/v1/versions/{app}", operation_id = "remove_app", tag = "versions",
    params(
        ("app" = String, Path, description = "The app"),
        ("Authorization" = String, Header, description = "Bearer, and the token in the server's data directory"),
    ),
    responses((status = 204, description = "It is gone"))
)]
pub(crate) async fn remove_app(
    State(app): State<Arc<App>>,
    PathOf(name): PathOf<String>,
    request: Request<Body>,
) -> Result<StatusCode, Problem> {
    authorize(&app, request.headers())?;
    Query::parse(request.uri().query(), &[])?;
    app.versions.remove_app(&name).await.map_err(|error| Problem::of_deploy(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

impl Problem {
    /// Of a deploy, or of another change of versions.
    pub(crate) fn of_deploy(error: &DeployError) -> Problem {
        if let DeployError::Log(error) = error {
            return Problem::of_log(error, "");
        }
        let (status, next) = match error {
            DeployError::Busy { .. } => (StatusCode::CONFLICT, "boki versions ls"),
            DeployError::Package(_) => (StatusCode::BAD_REQUEST, "put it right, then deploy again"),
            DeployError::Failed { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "look at the last lines, put it right, then deploy again")
            }
            DeployError::NotKept { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "look at the server's data directory"),
            DeployError::NotFound { .. } => (StatusCode::NOT_FOUND, "boki versions ls"),
            DeployError::Unauthorized(_) | DeployError::Log(_) => (
                StatusCode::UNAUTHORIZED,
                "set BOKI_TOKEN to what stands in deploy-token in the server's data directory",
            ),
        };
        let problem = Problem::new(error.code(), status, error.to_string(), next);
        match error {
            DeployError::Failed { app, version, failure } => problem
                .with("app", app.as_str())
                .with("version", *version)
                .with("stage", failure.stage.as_str())
                .with("lines", json!(failure.lines)),
            _ => problem,
        }
    }
}
