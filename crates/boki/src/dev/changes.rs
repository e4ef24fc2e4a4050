//! Changes of source files: one wake-up for each burst of them.
//!
//! The system tells when a file that was written has been closed, renamed or removed. After such an event a burst is over
//! almost at once: there is nothing to wait for but further files of the same save. Only while a file is open for writing is
//! there more patience. What git ignores is no source, nor is what tools and editors keep beside sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::failure::Failure;

/// A burst is over when nothing has changed for so long after a file was complete.
const QUIET: Duration = Duration::from_millis(15);
/// A file that is being written may take so long between two writes.
const WRITING: Duration = Duration::from_millis(100);
/// Folders of what is made from sources, or no source.
const NOT_SOURCES: [&str; 4] = ["target", "node_modules", "__pycache__", ".boki"];
const IGNORE_FILE: &str = ".gitignore";

/// Watches files and folders.
pub(super) struct Changes {
    _watcher: RecommendedWatcher,
    changed: watch::Receiver<Change>,
    /// How many changes had been taken in when the last burst ended.
    seen: u64,
}

/// The latest change.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// Of all that there were.
    number: u64,
    at: Instant,
    what: What,
}

/// What a change of a file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// It is as it will be.
    Complete,
    /// It is being written.
    Ongoing,
}

impl Changes {
    /// Watches `paths` and all below them, but not `data`, nor what the `.gitignore`s of `project` and below leave out.
    pub(super) fn watch(paths: &[PathBuf], project: &Path, data: &Path) -> Result<Changes, Failure> {
        let roots = paths.iter().map(|path| absolute(path)).collect::<Result<Vec<_>, _>>()?;
        // It may not be there yet; then its path says enough.
        let data =
            std::fs::canonicalize(data).or_else(|_| std::path::absolute(data)).unwrap_or_else(|_| data.to_owned());
        let (sender, changed) = watch::channel(Change { number: 0, at: Instant::now(), what: What::Complete });
        let mut sources = Sources { roots: roots.clone(), data, ignored: Ignored::new(absolute(project)?) };
        let told = move |event: notify::Result<Event>| match event {
            Ok(event) => {
                let Some(what) = change(&event) else { return };
                if event.paths.iter().any(|path| sources.has(path)) {
                    let at = Instant::now();
                    sender.send_modify(|change| *change = Change { number: change.number + 1, at, what });
                }
            }
            Err(error) => eprintln!("warning: changes of files may have been missed: {error}"),
        };
        let mut watcher = notify::recommended_watcher(told).map_err(|error| failed(Path::new("files"), &error))?;
        for root in &roots {
            watcher.watch(root, RecursiveMode::Recursive).map_err(|error| failed(root, &error))?;
        }
        Ok(Changes { _watcher: watcher, changed, seen: 0 })
    }

    /// Waits for a burst of changes, and for its end. Changes since the last call that returned count. Says when the
    /// burst began, as far as it was looked at.
    ///
    /// # Cancel-safety
    /// Safe: a burst that has begun is not forgotten.
    pub(super) async fn next(&mut self) -> Instant {
        let seen = self.seen;
        let began = match self.changed.wait_for(|change| change.number > seen).await {
            Ok(change) => change.at,
            // The watcher is in here, so its sender is not gone.
            Err(_) => return std::future::pending().await,
        };
        loop {
            let Change { number, what, .. } = *self.changed.borrow_and_update();
            let quiet = if what == What::Complete { QUIET } else { WRITING };
            if timeout(quiet, self.changed.changed()).await.is_err() {
                self.seen = number;
                return began;
            }
        }
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

fn change(event: &Event) -> Option<What> {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(What::Complete),
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => None,
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Some(What::Complete),
        EventKind::Create(CreateKind::Folder) => Some(What::Complete),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => Some(What::Ongoing),
    }
}

/// What the code is made of.
struct Sources {
    roots: Vec<PathBuf>,
    data: PathBuf,
    ignored: Ignored,
}

impl Sources {
    fn has(&mut self, path: &Path) -> bool {
        if path.starts_with(&self.data) {
            return false;
        }
        if path.file_name().is_some_and(|name| name == IGNORE_FILE) {
            self.ignored.forget();
            return false;
        }
        let Some(inside) = self.roots.iter().find_map(|root| path.strip_prefix(root).ok()) else { return true };
        let is_own = |name: &str| {
            !name.starts_with('.')
                && !NOT_SOURCES.contains(&name)
                && !name.ends_with(['~', '#'])
                && !name.ends_with(".swp")
        };
        inside.components().all(|part| part.as_os_str().to_str().is_none_or(is_own)) && !self.ignored.has(path)
    }
}

/// What the `.gitignore`s of a project leave out. Each is read once, until one of them changes.
struct Ignored {
    project: PathBuf,
    files: BTreeMap<PathBuf, Arc<Gitignore>>,
}

impl Ignored {
    fn new(project: PathBuf) -> Ignored {
        Ignored { project, files: BTreeMap::new() }
    }

    /// The nearest file that has something to say of `path` decides.
    fn has(&mut self, path: &Path) -> bool {
        let is_folder = path.is_dir();
        let folders: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        for folder in folders {
            if !folder.starts_with(&self.project) {
                break;
            }
            let found = self.file(&folder);
            let matched = found.matched_path_or_any_parents(path, is_folder);
            if !matched.is_none() {
                return matched.is_ignore();
            }
        }
        false
    }

    fn file(&mut self, folder: &Path) -> Arc<Gitignore> {
        if let Some(known) = self.files.get(folder) {
            return Arc::clone(known);
        }
        let mut builder = GitignoreBuilder::new(folder);
        // One that is not there ignores nothing; of one with a mistake the other lines count.
        let _ = builder.add(folder.join(IGNORE_FILE));
        let file = Arc::new(builder.build().unwrap_or_else(|_| Gitignore::empty()));
        self.files.insert(folder.to_owned(), Arc::clone(&file));
        file
    }

    fn forget(&mut self) {
        self.files.clear();
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, MetadataKind, RenameMode};

    use super::*;

    #[test]
    fn what_is_built_kept_or_ignored_is_no_source() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        std::fs::create_dir_all(root.join("src/gen")).unwrap();
        std::fs::write(root.join(".gitignore"), "*.log\n/dist\nsrc/gen/*\n").unwrap();
        std::fs::write(root.join("src/.gitignore"), "!kept.log\n").unwrap();
        let mut sources =
            Sources { roots: vec![root.clone()], data: root.join("store"), ignored: Ignored::new(root.clone()) };
        let paths = [
            ("src/main.rs", true),
            ("app.py", true),
            ("target/debug/app", false),
            (".git/index", false),
            ("src/.main.rs.swp", false),
            ("src/main.rs~", false),
            ("store/seg/1.log", false),
            ("__pycache__/app.pyc", false),
            ("node_modules/x/index.js", false),
            ("app.log", false),
            ("src/app.log", false),
            ("src/kept.log", true),
            ("dist/app.js", false),
            ("src/dist/app.js", true),
            ("src/gen/api.rs", false),
        ];
        for (path, expected) in paths {
            assert_eq!(sources.has(&root.join(path)), expected, "{path}");
        }
        // What was ignored may not be any more.
        std::fs::write(root.join(".gitignore"), "").unwrap();
        assert!(!sources.has(&root.join(".gitignore")));
        assert!(sources.has(&root.join("app.log")));
    }

    #[test]
    fn a_file_that_is_being_written_is_not_complete() {
        let kind = |kind| change(&Event::new(kind));
        assert_eq!(kind(EventKind::Modify(ModifyKind::Data(DataChange::Any))), Some(What::Ongoing));
        assert_eq!(kind(EventKind::Access(AccessKind::Close(AccessMode::Write))), Some(What::Complete));
        assert_eq!(kind(EventKind::Modify(ModifyKind::Name(RenameMode::To))), Some(What::Complete));
        assert_eq!(kind(EventKind::Access(AccessKind::Close(AccessMode::Read))), None);
        assert_eq!(kind(EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any))), None);
    }

    #[tokio::test]
    async fn a_written_file_is_heard_of_even_by_who_looked_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut changes = Changes::watch(&[folder.path().to_owned()], folder.path(), Path::new("/nowhere")).unwrap();
        std::fs::write(folder.path().join("main.rs"), "fn main() {}").unwrap();
        tokio::select! {
            biased;
            _ = changes.next() => unreachable!("a burst has not ended yet"),
            () = std::future::ready(()) => {}
        }
        changes.next().await;
        // As editors do that never leave half a file behind.
        std::fs::write(folder.path().join(".main.rs.new"), "fn main() { }").unwrap();
        std::fs::rename(folder.path().join(".main.rs.new"), folder.path().join("main.rs")).unwrap();
        changes.next().await;
    }
}
