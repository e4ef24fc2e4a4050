//! The files of versions on disk.
//!
//! ```text
//! <data>/versions/<app>/<number>/version.json   what is known of the version
//!                               /files/         its files; gone once it has failed
//! <data>/versions/.incoming/<random>/           what is being received, unpacked or removed
//! ```
//!
//! A version's folder appears under its number by one rename, with all its files, and goes the same way; so after a crash
//! it is there whole or not at all. What lies in `.incoming` at a start is nobody's, and is removed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::error::Failure;
use super::manifest::check_app_name;

const FOLDER: &str = "versions";
const INCOMING: &str = ".incoming";
const INFO: &str = "version.json";
const FILES: &str = "files";

/// What is known of a version; kept beside its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) version: u32,
    /// BLAKE3 of the package, in hexadecimal.
    pub(crate) checksum: String,
    /// Microseconds since 1970.
    pub(crate) created_us: u64,
    /// When it became active, the last time that it did.
    pub(crate) activated_us: Option<u64>,
    /// Of all its files, as they were sent.
    pub(crate) bytes: u64,
    pub(crate) files: u32,
    /// Why it never served.
    pub(crate) failure: Option<Failure>,
}

/// The folder of all versions.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the versions in a data directory, and removes what is left over there.
    pub(crate) fn open(data: &Path) -> io::Result<Store> {
        // Workers are started in there: their folder must not depend on where the server was.
        let root = std::path::absolute(data.join(FOLDER))?;
        let incoming = root.join(INCOMING);
        match fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&incoming)?;
        Ok(Store { root })
    }

    /// Every version of every app. What cannot be read is told, and is no version.
    pub(crate) fn scan(&self) -> io::Result<BTreeMap<String, BTreeMap<u32, Info>>> {
        let mut apps: BTreeMap<String, BTreeMap<u32, Info>> = BTreeMap::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let Ok(app) = entry.file_name().into_string() else { continue };
            if check_app_name(&app).is_err() || !entry.file_type()?.is_dir() {
                continue;
            }
            let versions = apps.entry(app).or_default();
            for entry in fs::read_dir(entry.path())? {
                let path = entry?.path();
                match read_info(&path) {
                    Ok(info) => {
                        versions.insert(info.version, info);
                    }
                    Err(error) => tracing::warn!(path = %path.display(), %error, "not a version: it is left alone"),
                }
            }
        }
        Ok(apps)
    }

    /// A folder for what is being received. Dropping it removes it.
    pub(crate) fn incoming(&self) -> io::Result<Incoming> {
        let folder = tempfile::Builder::new().prefix("v").tempdir_in(self.root.join(INCOMING))?;
        fs::create_dir(folder.path().join(FILES))?;
        Ok(Incoming(folder))
    }

    /// Makes what was received a version: it is under its number, with all its files, or it is not there.
    pub(crate) fn admit(&self, app: &str, incoming: Incoming, info: &Info) -> io::Result<()> {
        write_info(incoming.0.path(), info)?;
        remove_if_there(&incoming.package())?;
        let folder = self.root.join(app);
        fs::create_dir_all(&folder)?;
        // On disk before the log may say that it is active.
        rustix::fs::syncfs(File::open(&folder)?)?;
        fs::rename(incoming.0.keep(), self.folder(app, info.version))?;
        File::open(&folder)?.sync_all()?;
        File::open(&self.root)?.sync_all()
    }

    /// Writes down what is known of a version.
    pub(crate) fn save(&self, app: &str, info: &Info) -> io::Result<()> {
        write_info(&self.folder(app, info.version), info)
    }

    /// Removes a version.
    pub(crate) fn remove(&self, app: &str, version: u32) -> io::Result<()> {
        self.take_away(&self.folder(app, version))
    }

    /// Removes the files of a version, which stays on record.
    pub(crate) fn remove_files(&self, app: &str, version: u32) -> io::Result<()> {
        self.take_away(&self.files(app, version))
    }

    /// The folder of an app that has no version any more.
    pub(crate) fn remove_app(&self, app: &str) -> io::Result<()> {
        self.take_away(&self.root.join(app))
    }

    /// Where the files of a version are.
    pub(crate) fn files(&self, app: &str, version: u32) -> PathBuf {
        self.folder(app, version).join(FILES)
    }

    fn folder(&self, app: &str, version: u32) -> PathBuf {
        self.root.join(app).join(version.to_string())
    }

    fn take_away(&self, path: &Path) -> io::Result<()> {
        let away = tempfile::Builder::new().prefix("gone").tempdir_in(self.root.join(INCOMING))?;
        match fs::rename(path, away.path().join("gone")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => away.close(),
        }
    }
}

/// What is being received.
#[derive(Debug)]
pub(crate) struct Incoming(TempDir);

impl Incoming {
    /// Where the package goes.
    pub(crate) fn package(&self) -> PathBuf {
        self.0.path().join("package.tar")
    }

    /// Where its files go.
    pub(crate) fn files(&self) -> PathBuf {
        self.0.path().join(FILES)
    }
}

fn read_info(folder: &Path) -> io::Result<Info> {
    let info: Info = serde_json::from_slice(&fs::read(folder.join(INFO))?)?;
    let is_named_so = folder.file_name().is_some_and(|name| name.to_str() == Some(&info.version.to_string()));
    if is_named_so { Ok(info) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it is of another version")) }
}

/// Beside and renamed, so that it is always whole.
fn write_info(folder: &Path, info: &Info) -> io::Result<()> {
    let beside = folder.join("version.json.new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(info)?)?;
    file.sync_all()?;
    fs::rename(beside, folder.join(INFO))?;
    File::open(folder)?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: u32) -> Info {
        let (checksum, created_us) = ("ab".to_owned(), 7);
        Info { version, checksum, created_us, activated_us: None, bytes: 1, files: 1, failure: None }
    }

    #[test]
    fn a_version_is_there_whole_or_not_at_all() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        let incoming = store.incoming().unwrap();
        fs::write(incoming.package(), "tar").unwrap();
        fs::write(incoming.files().join("app"), "code").unwrap();
        store.admit("shop", incoming, &info(3)).unwrap();
        // What is cut off leaves no version, and nothing in the way of the next start.
        std::mem::forget(store.incoming().unwrap());
        let store = Store::open(data.path()).unwrap();
        assert_eq!(fs::read_dir(data.path().join("versions/.incoming")).unwrap().count(), 0);
        assert_eq!(store.scan().unwrap()["shop"], BTreeMap::from([(3, info(3))]));
        assert_eq!(fs::read(store.files("shop", 3).join("app")).unwrap(), b"code");
        assert!(!store.folder("shop", 3).join("package.tar").exists());

        let known = Info { activated_us: Some(9), ..info(3) };
        store.save("shop", &known).unwrap();
        store.remove_files("shop", 3).unwrap();
        store.remove_files("shop", 3).unwrap();
        assert_eq!(store.scan().unwrap()["shop"][&3], known);
        store.remove("shop", 3).unwrap();
        assert!(store.scan().unwrap()["shop"].is_empty());
    }

    #[test]
    fn what_is_no_version_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        let folder = data.path().join("versions/shop");
        for (path, text) in [("1/version.json", "garbage"), ("x/version.json", "{}"), ("2/other", "")] {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert!(store.scan().unwrap()["shop"].is_empty());
        assert!(folder.join("1/version.json").exists());
    }
}
