//! What there is: apps, their versions, and how these are.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use boki_functions::{PoolId, PoolInfo};

use super::error::Failure;
use super::store::Info;
use super::{App, DeployError, Versions};

/// An app, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct AppPicture {
    pub(crate) app: String,
    pub(crate) active: Option<u32>,
    /// The one to go back to.
    pub(crate) previous: Option<u32>,
    pub(crate) is_changing: bool,
    /// Why the active version does not run.
    pub(crate) trouble: Option<String>,
    pub(crate) versions: Vec<Picture>,
}

/// A version, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) version: u32,
    pub(crate) state: VersionState,
    pub(crate) checksum: String,
    pub(crate) created_us: u64,
    pub(crate) activated_us: Option<u64>,
    pub(crate) bytes: u64,
    pub(crate) files: u32,
    /// Calls that its workers have now.
    pub(crate) running: usize,
    /// What its workers offer.
    pub(crate) functions: Vec<String>,
    pub(crate) failure: Option<Failure>,
}

/// How a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionState {
    /// Calls go to it.
    Active,
    /// Not active any more; its workers finish what they have.
    Draining,
    /// Kept, to go back to.
    Kept,
    /// On its way to be active.
    Deploying,
    /// It never served.
    Failed,
}

impl VersionState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            VersionState::Active => "active",
            VersionState::Draining => "draining",
            VersionState::Kept => "kept",
            VersionState::Deploying => "deploying",
            VersionState::Failed => "failed",
        }
    }
}

impl Versions {
    /// Every app, by name.
    pub(crate) fn apps(&self) -> Vec<AppPicture> {
        let pools = self.pools();
        let apps = self.0.apps.lock();
        let there = |app: &&App| app.active.is_some() || app.claimed || !app.versions.is_empty();
        apps.iter().filter(|(_, app)| there(app)).map(|(name, app)| picture(name, app, &pools)).collect()
    }

    /// One app.
    pub(crate) fn app(&self, name: &str) -> Result<AppPicture, DeployError> {
        let found = self.apps().into_iter().find(|app| app.app == name);
        found.ok_or_else(|| DeployError::no_app(name))
    }

    /// What an operator should know; empty if all is well.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warn = |(name, app): (&String, &App)| {
            let trouble = app.trouble.as_ref()?;
            Some(format!("the active version of app {name} does not run: {trouble}"))
        };
        self.0.apps.lock().iter().filter_map(warn).collect()
    }

    /// Deploys since the start: that were done, and that failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.0.deploys.load(Ordering::Relaxed), self.0.failed_deploys.load(Ordering::Relaxed))
    }

    fn pools(&self) -> BTreeMap<PoolId, PoolInfo> {
        self.0.functions.pools().into_iter().map(|pool| (pool.id, pool)).collect()
    }
}

fn picture(name: &str, app: &App, pools: &BTreeMap<PoolId, PoolInfo>) -> AppPicture {
    let activated = app.versions.values().filter(|info| Some(info.version) != app.active && info.failure.is_none());
    let previous = activated.max_by_key(|info| info.activated_us).filter(|info| info.activated_us.is_some());
    AppPicture {
        app: name.to_owned(),
        active: app.active,
        previous: previous.map(|info| info.version),
        is_changing: app.claimed,
        trouble: app.trouble.clone(),
        versions: app.versions.values().map(|info| version(app, info, pools)).collect(),
    }
}

fn version(app: &App, info: &Info, pools: &BTreeMap<PoolId, PoolInfo>) -> Picture {
    let own: Vec<&PoolInfo> =
        app.pools.get(&info.version).into_iter().flatten().filter_map(|pool| pools.get(pool)).collect();
    let state = if info.failure.is_some() {
        VersionState::Failed
    } else if app.active == Some(info.version) {
        VersionState::Active
    } else if app.pools.contains_key(&info.version) {
        VersionState::Draining
    } else if info.activated_us.is_none() {
        VersionState::Deploying
    } else {
        VersionState::Kept
    };
    let mut functions: Vec<String> =
        own.iter().flat_map(|pool| pool.functions.iter().map(ToString::to_string)).collect();
    functions.sort();
    functions.dedup();
    Picture {
        version: info.version,
        state,
        checksum: info.checksum.clone(),
        created_us: info.created_us,
        activated_us: info.activated_us,
        bytes: info.bytes,
        files: info.files,
        running: own.iter().flat_map(|pool| &pool.processes).map(|process| process.running).sum(),
        functions,
        failure: info.failure.clone(),
    }
}
