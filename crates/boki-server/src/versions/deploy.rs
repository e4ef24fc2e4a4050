//! The steps of a deploy, in the order in which they can be taken back: receive, unpack, build, start, switch. Until the
//! switch is in the log the old version is active and untouched; from then on the new one is.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use boki_functions::PoolId;
use boki_log::LogError;
use boki_log::error::Retry;
use tokio::sync::mpsc;

use super::build::build;
use super::error::{DeployError, Failure, Stage};
use super::manifest::Manifest;
use super::package::{Bounds, UnpackError, Unpacked, unpack};
use super::store::{Incoming, Info};
use super::{App, Claim, Claimed, Progress, Shared, Versions};

/// A version became active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deployed {
    pub(crate) app: String,
    pub(crate) version: u32,
    /// The one that was active before.
    pub(crate) replaced: Option<u32>,
    /// What it offers.
    pub(crate) functions: Vec<String>,
    /// What the one before offered and this one does not.
    pub(crate) missing: Vec<String>,
}

/// A package that is being received. Dropping it forgets it.
pub(crate) struct Upload {
    claim: Claim,
    incoming: Incoming,
    file: File,
    hasher: blake3::Hasher,
    received: u64,
}

/// A package that was received as a whole.
struct Package {
    incoming: Incoming,
    checksum: String,
}

impl Versions {
    /// Begins to receive a version of `app`.
    pub(crate) async fn receive(&self, app: &str) -> Result<Upload, DeployError> {
        super::check_app_name(app).map_err(DeployError::Package)?;
        let claim = Claim::take(&self.0, app, Claimed::OrNew)?;
        blocking(move || {
            let incoming = claim.shared.store.incoming().map_err(|error| claim.not_kept(error))?;
            let file = File::create(incoming.package()).map_err(|error| claim.not_kept(error))?;
            Ok(Upload { claim, incoming, file, hasher: blake3::Hasher::new(), received: 0 })
        })
        .await
    }

    /// Deploys what was received, if it is what was sent: `checksum` is its BLAKE3 in hexadecimal, if told. Goes on if nobody waits
    /// for it any more.
    pub(crate) async fn deploy(
        &self,
        upload: Upload,
        checksum: Option<&str>,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Deployed, DeployError> {
        let Upload { claim, incoming, hasher, .. } = upload;
        let actual = hasher.finalize().to_hex();
        if let Some(sent) = checksum.filter(|sent| !actual.eq_ignore_ascii_case(sent)) {
            return Err(DeployError::Package(format!("its checksum is {actual}, not {sent}")));
        }
        let package = Package { incoming, checksum: actual.to_string() };
        let deployed = self.run(claim, move |claim| async move { claim.deploy(package, progress).await }).await;
        let counter = if deployed.is_ok() { &self.0.deploys } else { &self.0.failed_deploys };
        counter.fetch_add(1, Ordering::Relaxed);
        deployed
    }

    /// Largest package that is taken.
    pub(crate) fn package_bytes(&self) -> u64 {
        self.0.section.package.0
    }
}

impl Upload {
    /// Takes a piece of the package.
    pub(crate) async fn write(mut self, piece: bytes::Bytes) -> Result<Upload, DeployError> {
        self.received += piece.len() as u64;
        let allowed = self.claim.shared.section.package.0;
        if self.received > allowed {
            return Err(DeployError::Package(format!("it has more than {allowed} bytes (versions.package)")));
        }
        blocking(move || {
            self.hasher.update(&piece);
            let written = self.file.write_all(&piece);
            written.map_err(|error| self.claim.not_kept(error))?;
            Ok(self)
        })
        .await
    }
}

impl Claim {
    async fn deploy(self, package: Package, progress: mpsc::Sender<Progress>) -> Result<Deployed, DeployError> {
        let shared = Arc::clone(&self.shared);
        let Package { incoming, checksum } = package;
        let version = shared.with(&self.app, |app| {
            app.last_number += 1;
            app.last_number
        });
        let bounds = Bounds { bytes: shared.section.unpacked.0, files: shared.section.files };
        let app = self.app.clone();
        // The claim goes along: whoever drops this future does not let another deploy in while files are being written.
        let (this, incoming, unpacked, manifest) = blocking(move || {
            let package = File::open(incoming.package()).map_err(|error| self.not_kept(error))?;
            let unpacked = match unpack(io::BufReader::new(package), &incoming.files(), bounds) {
                Ok(unpacked) => unpacked,
                Err(UnpackError::Refused(reason)) => return Err(DeployError::Package(reason)),
                Err(UnpackError::Io(error)) => return Err(self.not_kept(error)),
            };
            let manifest = Manifest::read(&app, &incoming.files())?;
            Ok((self, incoming, unpacked, manifest))
        })
        .await?;
        let Unpacked { files, bytes } = unpacked;
        let _ = progress.try_send(Progress::Unpacked { version, files, bytes });
        let mut info = Info {
            version,
            checksum,
            created_us: shared.node.now_us(),
            activated_us: None,
            bytes,
            files,
            failure: None,
        };
        if let Some(command) = &manifest.build {
            let _ = progress.try_send(Progress::Building { command: command.clone() });
            let folder = incoming.files();
            let built = build(command, &folder, manifest.build_timeout, &progress, &shared.stopping).await;
            if let Err(failure) = built {
                info.failure = Some(failure);
            }
        }
        let app = this.app.clone();
        let (this, info) = blocking(move || {
            let admitted = this.shared.store.admit(&app, incoming, &info);
            admitted.map_err(|error| this.not_kept(error))?;
            Ok((this, info))
        })
        .await?;
        shared.with(&this.app, |app| app.versions.insert(version, info.clone()));
        let result = match info.failure {
            None => this.bring_up(version, &manifest, &progress).await,
            Some(failure) => Err(DeployError::Failed { app: this.app.clone(), version, failure }),
        };
        if let Err(DeployError::Failed { failure, .. }) = &result {
            this.give_up(version, failure).await;
        }
        shared.retain(&this.app).await;
        result
    }

    /// Makes a version active that is kept.
    pub(super) async fn activate(self, version: u32) -> Result<Deployed, DeployError> {
        let (known, is_active) = self.shared.with(&self.app, |app| {
            (app.versions.get(&version).cloned(), app.active == Some(version) && app.trouble.is_none())
        });
        let what = || format!("version {version} of {}", self.app);
        match known {
            None => return Err(DeployError::no_version(&self.app, version)),
            Some(Info { failure: Some(_), .. }) => {
                return Err(DeployError::Busy { what: what(), reason: "has failed and is not kept; deploy it again" });
            }
            Some(_) if is_active => return Err(DeployError::Busy { what: what(), reason: "is active already" }),
            Some(_) => {}
        }
        let manifest = Manifest::read(&self.app, &self.shared.store.files(&self.app, version))?;
        let (progress, _) = mpsc::channel(1);
        self.bring_up(version, &manifest, &progress).await
    }

    /// Starts a version beside the active one, and once it serves, switches to it.
    async fn bring_up(
        &self,
        version: u32,
        manifest: &Manifest,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Deployed, DeployError> {
        let shared = &self.shared;
        let failed = |failure| DeployError::Failed { app: self.app.clone(), version, failure };
        let _ = progress.try_send(Progress::Starting { version, workers: manifest.workers.len() });
        let started = shared.start_pools(&self.app, version, manifest, true);
        let pools = Started { pools: started.map_err(|error| failed(Failure::new(Stage::Start, error)))?, shared };
        self.wait_until_ready(&pools.pools).await.map_err(failed)?;
        let functions = shared.functions_of(&pools.pools);
        let replaced = shared.with(&self.app, |app| app.active);
        if let Err(error) = shared.switch(&self.app, Some(version)).await {
            // Whether it is in the log is known after a restart, which then starts the one or the other.
            let is_open = matches!(error.retry(), Retry::WithSameId) || matches!(error, LogError::WriteFailed { .. });
            return Err(if is_open { error.into() } else { failed(Failure::new(Stage::Switch, error)) });
        }
        let pools = pools.keep();
        for pool in &pools {
            shared.functions.release_pool(*pool);
        }
        let now_us = shared.node.now_us();
        let (old, info) = shared.with(&self.app, |app| {
            let old = app.pools.clone();
            app.pools.entry(version).or_default().extend(pools);
            let info = app.versions.get_mut(&version).map(|info| {
                info.activated_us = Some(now_us);
                info.clone()
            });
            (old, info)
        });
        self.write_down(info, false).await;
        let before: Vec<PoolId> = old.values().flatten().copied().collect();
        let missing = shared.functions_of(&before).into_iter().filter(|name| !functions.contains(name)).collect();
        for (old_version, pools) in old {
            self.drain(old_version, pools);
        }
        tracing::info!(app = %self.app, version, "a version is active");
        Ok(Deployed { app: self.app.clone(), version, replaced, functions, missing })
    }

    async fn wait_until_ready(&self, pools: &[PoolId]) -> Result<(), Failure> {
        for pool in pools {
            let ready = tokio::select! {
                ready = self.shared.functions.pool_ready(*pool) => ready,
                () = self.shared.stopping.cancelled() => return Err(Failure::new(Stage::Start, "the server stops")),
            };
            ready.map_err(|failure| Failure {
                stage: Stage::Start,
                reason: format!("its worker {}: {}", failure.pool, failure.reason),
                lines: failure.lines.iter().map(ToString::to_string).collect(),
            })?;
        }
        Ok(())
    }

    /// The workers of a version take no more calls, and it is forgotten that they run once they have ended.
    fn drain(&self, version: u32, pools: Vec<PoolId>) {
        let drained: Vec<_> = pools.iter().map(|pool| self.shared.functions.drain_pool(*pool)).collect();
        let (shared, name) = (Arc::clone(&self.shared), self.app.clone());
        self.shared.tasks.spawn(async move {
            for gone in drained {
                gone.await;
            }
            shared.with(&name, |app| {
                if let Some(left) = app.pools.get_mut(&version) {
                    left.retain(|pool| !pools.contains(pool));
                    if left.is_empty() {
                        app.pools.remove(&version);
                    }
                }
            });
            shared.retain(&name).await;
        });
    }

    /// A version that did not come to serve: its files go, what is known of it stays.
    async fn give_up(&self, version: u32, failure: &Failure) {
        tracing::warn!(app = %self.app, version, %failure, "a version did not come to serve");
        let info = self.shared.with(&self.app, |app| {
            let info = app.versions.get_mut(&version)?;
            info.failure = Some(failure.clone());
            Some(info.clone())
        });
        self.write_down(info, true).await;
    }

    /// Keeps what is known of a version, and if it is `over`, nothing else.
    async fn write_down(&self, info: Option<Info>, over: bool) {
        let Some(info) = info else { return };
        let (shared, name) = (Arc::clone(&self.shared), self.app.clone());
        let written = blocking(move || {
            shared.note(&name, &info);
            if over {
                shared.forget_files(&name, info.version);
            }
            Ok(())
        });
        // What goes wrong has been told.
        let _ = written.await;
    }

    pub(super) async fn remove(self, version: u32) -> Result<(), DeployError> {
        let busy = |reason| DeployError::Busy { what: format!("version {version} of {}", self.app), reason };
        self.shared.with(&self.app, |app| {
            if !app.versions.contains_key(&version) {
                return Err(DeployError::no_version(&self.app, version));
            }
            if app.active == Some(version) {
                return Err(busy("is active; activate another one first"));
            }
            if app.pools.contains_key(&version) {
                return Err(busy("still has calls that run"));
            }
            Ok(())
        })?;
        blocking(move || {
            let removed = self.shared.store.remove(&self.app, version);
            removed.map_err(|error| self.not_kept(error))?;
            self.shared.with(&self.app, |app| app.versions.remove(&version));
            Ok(())
        })
        .await
    }

    pub(super) async fn remove_app(self) -> Result<(), DeployError> {
        if self.shared.with(&self.app, |app| app.seen.is_some()) {
            self.shared.switch(&self.app, None).await?;
        }
        let pools: Vec<PoolId> =
            self.shared.with(&self.app, |app| std::mem::take(&mut app.pools).into_values().flatten().collect());
        let drained: Vec<_> = pools.into_iter().map(|pool| self.shared.functions.drain_pool(pool)).collect();
        for gone in drained {
            gone.await;
        }
        blocking(move || {
            let removed = self.shared.store.remove_app(&self.app);
            removed.map_err(|error| self.not_kept(error))?;
            self.shared.with(&self.app, |app| app.versions.clear());
            Ok(())
        })
        .await
    }

    fn not_kept(&self, source: io::Error) -> DeployError {
        if source.kind() == io::ErrorKind::StorageFull {
            return LogError::DiskFull.into();
        }
        DeployError::NotKept { app: self.app.clone(), source }
    }
}

/// Pools that were started for a version that is not active yet: they end unless they are kept.
struct Started<'a> {
    pools: Vec<PoolId>,
    shared: &'a Shared,
}

impl Started<'_> {
    fn keep(mut self) -> Vec<PoolId> {
        std::mem::take(&mut self.pools)
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        self.shared.end_pools(&self.pools);
    }
}

impl Shared {
    /// Looks at, or changes, an app that is claimed or draining.
    fn with<T>(&self, name: &str, look: impl FnOnce(&mut App) -> T) -> T {
        look(self.apps.lock().entry(name.to_owned()).or_default())
    }

    fn functions_of(&self, pools: &[PoolId]) -> Vec<String> {
        let mut names: Vec<String> = self
            .functions
            .pools()
            .iter()
            .filter(|pool| pools.contains(&pool.id))
            .flat_map(|pool| pool.functions.iter().map(ToString::to_string))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Removes the oldest versions beyond those that are kept. Those that run stay. Of those that failed as many stay, so
    /// that they do not push out the ones that can be gone back to.
    async fn retain(self: &Arc<Self>, name: &str) {
        let keep = self.section.keep as usize;
        let superfluous: Vec<u32> = self.with(name, |app| {
            let (failed, sound): (Vec<&Info>, Vec<&Info>) =
                app.versions.values().partition(|info| info.failure.is_some());
            let is_idle = |version: &u32| app.active != Some(*version) && !app.pools.contains_key(version);
            let oldest = |infos: Vec<&Info>| {
                let over = infos.len().saturating_sub(keep);
                let numbers: Vec<u32> = infos.into_iter().map(|info| info.version).collect();
                numbers.into_iter().filter(is_idle).take(over).collect::<Vec<u32>>()
            };
            let superfluous = [oldest(failed), oldest(sound)].concat();
            for version in &superfluous {
                app.versions.remove(version);
            }
            superfluous
        });
        if superfluous.is_empty() {
            return;
        }
        let (shared, name) = (Arc::clone(self), name.to_owned());
        let removed = blocking(move || {
            for version in superfluous {
                if let Err(error) = shared.store.remove(&name, version) {
                    tracing::warn!(app = %name, version, %error, "cannot remove a version that is not kept any more");
                }
            }
            Ok(())
        });
        // What goes wrong has been told.
        let _ = removed.await;
    }
}

/// Runs what waits for the disk where nobody else waits for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeployError> + Send + 'static,
) -> Result<T, DeployError> {
    // A task that does not end normally panicked, or the runtime is being shut down.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(DeployError::Log(LogError::ShuttingDown)))
}
