//! Versions of apps: received, kept, started, switched to.
//!
//! An **app** is what is deployed under one name, a **version** an immutable copy of it: files, and the commands that its
//! `boki.toml` names. One version of an app is **active**: its workers run and get the calls. Which one that is stands in
//! the log's catalog (entry `app/<name>`); the switch to another is one conditional record there, so after a crash the old
//! version is active or the new one is, and never both or none. Everything else here can be found out from that record
//! and the files ([`store`]).
//!
//! A deploy ([`deploy`]) touches the old version only once the new one serves. Workers of the old one then finish what they
//! have (**draining**). One deploy of an app runs at a time.
//!
//! Deploying runs code: who may is decided by a [`token`]. This module does not know HTTP.

mod build;
mod deploy;
mod error;
mod list;
mod manifest;
pub(crate) mod package;
mod store;
mod token;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use boki_functions::{Environment, Functions, PoolId, PoolSpec};
use boki_log::{LogError, Seq};
use boki_node::Node;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use deploy::{Deployed, Upload};
pub(crate) use error::{DeployError, Failure, Stage};
pub(crate) use list::{AppPicture, Picture};
pub use manifest::{APP_FILE, check_app, check_app_name};
pub use token::TOKEN_FILE;

use crate::config::{VersionsSection, WorkerSection};
use crate::server::StartError;
use crate::workers::pool_spec;
use manifest::Manifest;
use store::{Info, Store};
use token::Token;

/// Most apps of a server.
const MAX_APPS: usize = 1000;
/// Under which names the active versions stand in the catalog.
const ENTRY_PREFIX: &str = "app/";

/// The versions of all apps. Clones share them.
#[derive(Clone)]
pub(crate) struct Versions(Arc<Shared>);

struct Shared {
    node: Node,
    functions: Functions,
    store: Store,
    token: Token,
    section: VersionsSection,
    /// Where workers find the server.
    url: String,
    apps: Mutex<BTreeMap<String, App>>,
    deploys: AtomicU64,
    failed_deploys: AtomicU64,
    /// Cancelled when the server begins to stop.
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// What is known of an app.
#[derive(Debug, Default)]
struct App {
    /// Of the catalog's entry, as it is now.
    seen: Option<Seq>,
    active: Option<u32>,
    versions: BTreeMap<u32, Info>,
    /// The pools of versions that run, those that end too.
    pools: BTreeMap<u32, Vec<PoolId>>,
    /// The highest number that was ever given.
    last_number: u32,
    /// Its active version could not be started.
    trouble: Option<String>,
    /// A deploy, a switch or a removal is under way.
    claimed: bool,
}

/// What the catalog's entry of an app says.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// None: the app was removed.
    active: Option<u32>,
    /// The highest number that was ever given, as far as is known: numbers are not used again.
    last_number: u32,
}

/// How far a deploy is, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Progress {
    Unpacked {
        version: u32,
        files: u32,
        bytes: u64,
    },
    Building {
        command: String,
    },
    /// A line that the build printed.
    Output {
        line: String,
    },
    Starting {
        version: u32,
        workers: usize,
    },
}

impl Versions {
    /// Opens the versions in a data directory and starts the workers of the active ones.
    pub(crate) async fn open(
        data: &Path,
        section: VersionsSection,
        node: Node,
        functions: Functions,
        url: String,
        stopping: CancellationToken,
    ) -> Result<Versions, VersionsError> {
        let data = data.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open(&data)?;
            let found = store.scan()?;
            Ok::<_, io::Error>((Token::open(&data)?, store, found))
        });
        // A task that does not end normally panicked, or the runtime is being shut down.
        let (token, store, found) = opened.await.map_err(|_| VersionsError::Log(LogError::ShuttingDown))??;
        let apps = active_versions(&node, found).await?;
        let shared = Arc::new(Shared {
            node,
            functions,
            store,
            token,
            section,
            url,
            apps: Mutex::new(apps),
            deploys: AtomicU64::new(0),
            failed_deploys: AtomicU64::new(0),
            stopping,
            tasks: TaskTracker::new(),
        });
        let settling = Arc::clone(&shared);
        let settled = tokio::task::spawn_blocking(move || settling.settle()).await;
        settled.map_err(|_| VersionsError::Log(LogError::ShuttingDown))?;
        Ok(Versions(shared))
    }

    /// That a request has the token.
    pub(crate) fn authorize(&self, authorization: Option<&str>) -> Result<(), DeployError> {
        self.0.token.check(authorization)
    }

    /// Makes a version active that is kept already.
    pub(crate) async fn activate(&self, app: &str, version: u32) -> Result<Deployed, DeployError> {
        let claim = Claim::take(&self.0, app, Claimed::Existing)?;
        self.run(claim, move |claim| async move { claim.activate(version).await }).await
    }

    /// Removes a version that does not run.
    pub(crate) async fn remove(&self, app: &str, version: u32) -> Result<(), DeployError> {
        let claim = Claim::take(&self.0, app, Claimed::Existing)?;
        self.run(claim, move |claim| async move { claim.remove(version).await }).await
    }

    /// Ends an app and removes all its versions.
    pub(crate) async fn remove_app(&self, app: &str) -> Result<(), DeployError> {
        let claim = Claim::take(&self.0, app, Claimed::Existing)?;
        self.run(claim, |claim| async move { claim.remove_app().await }).await
    }

    /// Runs `work` to its end, whether somebody waits for it or not: what was begun is finished or taken back.
    async fn run<T, W, F>(&self, claim: Claim, work: W) -> Result<T, DeployError>
    where
        T: Send + 'static,
        W: FnOnce(Claim) -> F,
        F: Future<Output = Result<T, DeployError>> + Send + 'static,
    {
        let task = self.0.tasks.spawn(work(claim));
        task.await.map_err(|_| DeployError::Log(LogError::ShuttingDown))?
    }

    /// Waits for what is under way. To be called once the server stops.
    pub(crate) async fn shutdown(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// Why versions cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionsError {
    #[error("the versions cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The apps, with what the log says of them.
async fn active_versions(
    node: &Node,
    found: BTreeMap<String, BTreeMap<u32, Info>>,
) -> Result<BTreeMap<String, App>, VersionsError> {
    let mut apps = BTreeMap::new();
    for (name, versions) in found {
        let last_number = versions.keys().next_back().copied().unwrap_or(0);
        apps.insert(name, App { versions, last_number, ..App::default() });
    }
    for entry in node.entries(ENTRY_PREFIX).await? {
        let Some(name) = entry.name.strip_prefix(ENTRY_PREFIX) else { continue };
        let app: &mut App = apps.entry(name.to_owned()).or_default();
        app.seen = Some(entry.seq);
        match serde_json::from_slice::<Entry>(&entry.value) {
            Ok(Entry { active, last_number }) => {
                app.last_number = app.last_number.max(last_number);
                app.active = active;
            }
            Err(error) => app.trouble = Some(format!("the log's entry of the app cannot be read: {error}")),
        }
    }
    Ok(apps)
}

impl Shared {
    /// After the start: what was cut off is taken back, and the active versions are started.
    fn settle(&self) {
        for (name, app) in self.apps.lock().iter_mut() {
            for info in app.versions.values_mut() {
                let is_active = app.active == Some(info.version);
                if is_active && info.activated_us.is_none() {
                    info.activated_us = Some(self.node.now_us());
                    self.note(name, info);
                } else if !is_active && info.activated_us.is_none() && info.failure.is_none() {
                    info.failure = Some(Failure::new(Stage::Start, "the server ended before it was active"));
                    self.note(name, info);
                    self.forget_files(name, info.version);
                }
            }
            let Some(active) = app.active else { continue };
            match self.start_active(name, active) {
                Ok(pools) => {
                    app.pools.insert(active, pools);
                }
                Err(reason) => {
                    tracing::error!(app = %name, version = active, %reason, "the active version cannot be started");
                    app.trouble = Some(reason);
                }
            }
        }
    }

    fn start_active(&self, app: &str, version: u32) -> Result<Vec<PoolId>, String> {
        let manifest = Manifest::read(app, &self.store.files(app, version)).map_err(|error| error.to_string())?;
        self.start_pools(app, version, &manifest, false).map_err(|error| error.to_string())
    }

    /// Starts the workers of a version; all of them, or none.
    fn start_pools(&self, app: &str, version: u32, manifest: &Manifest, held: bool) -> Result<Vec<PoolId>, StartError> {
        let files = self.store.files(app, version);
        let mut pools = Vec::new();
        for worker in &manifest.workers {
            // Its paths are those of its files.
            let env_file = worker.env_file.as_ref().map(|file| files.join(file));
            let worker = &WorkerSection { env_file, ..worker.clone() };
            let started = pool_spec(worker, &self.url).map_err(StartError::from).and_then(|base| {
                let mut env: Environment = base.env.clone();
                env.set.push(("BOKI_APP".to_owned(), app.to_owned()));
                let name = if worker.name == app { app.to_owned() } else { format!("{app}.{}", worker.name) };
                let dir = worker.dir.as_ref().map_or_else(|| files.clone(), |dir| files.join(dir));
                let (version, start_timeout) = (version.to_string(), manifest.start_timeout);
                let spec = PoolSpec { name, version, env, dir: Some(dir), start_timeout, held, ..base };
                Ok(self.functions.start_pool(spec)?)
            });
            match started {
                Ok(pool) => pools.push(pool),
                Err(error) => {
                    self.end_pools(&pools);
                    return Err(error);
                }
            }
        }
        Ok(pools)
    }

    /// Workers take no more calls from now on, and end. Nobody waits for that.
    fn end_pools(&self, pools: &[PoolId]) {
        for pool in pools {
            self.tasks.spawn(self.functions.drain_pool(*pool));
        }
    }

    /// Writes down what is known of a version. What the log says counts more, so a failure is only told.
    fn note(&self, app: &str, info: &Info) {
        if let Err(error) = self.store.save(app, info) {
            tracing::warn!(%app, version = info.version, %error, "cannot write down what is known of a version");
        }
    }

    fn forget_files(&self, app: &str, version: u32) {
        if let Err(error) = self.store.remove_files(app, version) {
            tracing::warn!(%app, version, %error, "cannot remove the files of a version");
        }
    }

    /// Makes `active` what the log says; the caller has the claim.
    async fn switch(&self, app: &str, active: Option<u32>) -> Result<(), LogError> {
        let (seen, last_number) = {
            let apps = self.apps.lock();
            let app = apps.get(app);
            (app.and_then(|app| app.seen).unwrap_or(Seq::NONE), app.map_or(0, |app| app.last_number))
        };
        let value = serde_json::to_vec(&Entry { active, last_number }).unwrap_or_default();
        let seq = self.node.set_entry(&format!("{ENTRY_PREFIX}{app}"), seen, Bytes::from(value)).await?;
        if let Some(app) = self.apps.lock().get_mut(app) {
            app.seen = Some(seq);
            app.active = active;
            app.trouble = None;
        }
        Ok(())
    }
}

/// The right to change an app: one at a time has it. Dropping it gives it back.
struct Claim {
    shared: Arc<Shared>,
    app: String,
}

/// Which app may be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claimed {
    Existing,
    OrNew,
}

impl Claim {
    fn take(shared: &Arc<Shared>, name: &str, which: Claimed) -> Result<Claim, DeployError> {
        let busy = |reason| DeployError::Busy { what: name.to_owned(), reason };
        let mut apps = shared.apps.lock();
        if shared.stopping.is_cancelled() {
            return Err(LogError::ShuttingDown.into());
        }
        if !apps.contains_key(name) {
            if which == Claimed::Existing {
                return Err(DeployError::no_app(name));
            }
            if apps.len() >= MAX_APPS {
                return Err(busy("cannot be added: the server has 1000 apps; remove one"));
            }
        }
        let app = apps.entry(name.to_owned()).or_default();
        if std::mem::replace(&mut app.claimed, true) {
            return Err(busy("is being deployed or changed already"));
        }
        Ok(Claim { shared: Arc::clone(shared), app: name.to_owned() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut apps = self.shared.apps.lock();
        let Some(app) = apps.get_mut(&self.app) else { return };
        app.claimed = false;
        // An app of which nothing came.
        if app.versions.is_empty() && app.pools.is_empty() && app.active.is_none() && app.seen.is_none() {
            apps.remove(&self.app);
        }
    }
}

impl std::fmt::Debug for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Versions").finish_non_exhaustive()
    }
}
