//! Changes of source files: one wake-up for each burst of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::failure::Failure;

/// A burst is over when nothing has changed for so long: editors and version control write many files at once.
const QUIET: Duration = Duration::from_millis(80);
/// Folders of what is made from sources, or no source.
const NOT_SOURCES: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// Watches files and folders.
pub(super) struct Changes {
    _watcher: RecommendedWatcher,
    changed: Arc<Notify>,
    /// Something has changed since the last call of [`Changes::next`] that returned.
    is_burst: bool,
}

impl Changes {
    /// Watches `paths` and all below them, but not `data`.
    pub(super) fn watch(paths: &[PathBuf], data: &Path) -> Result<Changes, Failure> {
        let changed = Arc::new(Notify::new());
        let roots = paths.iter().map(|path| absolute(path)).collect::<Result<Vec<_>, _>>()?;
        // It may not be there yet; then its path says enough.
        let data =
            std::fs::canonicalize(data).or_else(|_| std::path::absolute(data)).unwrap_or_else(|_| data.to_owned());
        let notify = Arc::clone(&changed);
        let watched = roots.clone();
        let told = move |event: notify::Result<Event>| match event {
            Ok(event) if is_change(&event) => {
                if event.paths.iter().any(|path| is_source(path, &watched, &data)) {
                    notify.notify_one();
                }
            }
            Ok(_) => {}
            Err(error) => tracing_error(&error),
        };
        let mut watcher = notify::recommended_watcher(told).map_err(|error| failed(Path::new("files"), &error))?;
        for root in &roots {
            watcher.watch(root, RecursiveMode::Recursive).map_err(|error| failed(root, &error))?;
        }
        Ok(Changes { _watcher: watcher, changed, is_burst: false })
    }

    /// Waits for a burst of changes, and for its end. Changes since the last call count.
    ///
    /// # Cancel-safety
    /// Safe: a burst that has begun is not forgotten.
    pub(super) async fn next(&mut self) {
        if !self.is_burst {
            self.changed.notified().await;
            self.is_burst = true;
        }
        while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {}
        self.is_burst = false;
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path)
        .map_err(|error| Failure::io(format!("cannot watch {} (dev.watch in boki.toml)", path.display()), &error))
}

fn failed(path: &Path, error: &notify::Error) -> Failure {
    let next = "watch fewer folders with dev.watch in boki.toml, or raise fs.inotify.max_user_watches";
    Failure::new(
        crate::failure::LOCAL_IO,
        crate::failure::Exit::Failed,
        format!("cannot watch {}: {error}", path.display()),
        next,
    )
}

fn tracing_error(error: &notify::Error) {
    eprintln!("warning: changes of files may have been missed: {error}");
}

fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

/// Whether `path` is something that the code is made of.
fn is_source(path: &Path, roots: &[PathBuf], data: &Path) -> bool {
    if path.starts_with(data) {
        return false;
    }
    let Some(inside) = roots.iter().find_map(|root| path.strip_prefix(root).ok()) else { return true };
    let is_own = |name: &str| {
        !name.starts_with('.') && !NOT_SOURCES.contains(&name) && !name.ends_with(['~', '#']) && !name.ends_with(".swp")
    };
    inside.components().all(|part| part.as_os_str().to_str().is_none_or(is_own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_or_kept_is_no_source() {
        let (roots, data) = ([PathBuf::from("/p")], Path::new("/p/store"));
        for (path, expected) in [
            ("/p/src/main.rs", true),
            ("/p/app.py", true),
            ("/p/target/debug/app", false),
            ("/p/.git/index", false),
            ("/p/src/.main.rs.swp", false),
            ("/p/src/main.rs~", false),
            ("/p/store/seg/1.log", false),
        ] {
            assert_eq!(is_source(Path::new(path), &roots, data), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_written_file_is_heard_of_even_by_who_looked_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut changes = Changes::watch(&[folder.path().to_owned()], Path::new("/nowhere")).unwrap();
        std::fs::write(folder.path().join("main.rs"), "fn main() {}").unwrap();
        changes.changed.notified().await;
        changes.changed.notify_one();
        tokio::select! {
            biased;
            () = changes.next() => unreachable!("a burst has not ended yet"),
            () = std::future::ready(()) => {}
        }
        changes.next().await;
    }
}
