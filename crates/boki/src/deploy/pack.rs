//! Packing an app's folder: a tar of what belongs to a version, the same bytes for the same files.
//!
//! What `.gitignore` and `.bokiignore` leave out does not belong to it, nor do `.git`, `.boki` and the server's data; what
//! `deploy.include` names does in any case. Paths are sorted; owners and times are left out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use ignore::WalkBuilder;

use crate::failure::{Exit, Failure, NOT_PACKED};

/// Files of people and tools that are never part of an app.
const NEVER: [&str; 2] = [".git", ".boki"];
const IGNORE_FILE: &str = ".bokiignore";

/// What was packed.
#[derive(Debug)]
pub(crate) struct Package {
    /// At its beginning.
    pub(crate) file: File,
    pub(crate) bytes: u64,
    /// BLAKE3, in hexadecimal.
    pub(crate) checksum: String,
    pub(crate) files: usize,
}

/// The files of a version, with paths that begin below `folder`, sorted. `data` never belongs to it.
pub(crate) fn select(folder: &Path, include: &[PathBuf], data: Option<&Path>) -> Result<BTreeSet<PathBuf>, Failure> {
    let data = data.and_then(|data| fs::canonicalize(data).ok());
    let root = fs::canonicalize(folder).map_err(|error| cannot_read(folder, &error))?;
    let mut selected = BTreeSet::new();
    let mut walk = |from: &Path, respect: bool| -> Result<(), Failure> {
        let skipped = data.clone();
        let mut builder = WalkBuilder::new(from);
        builder.standard_filters(false).parents(false).follow_links(false).git_ignore(respect).require_git(false);
        if respect {
            builder.add_custom_ignore_filename(IGNORE_FILE);
        }
        builder.filter_entry(move |entry| {
            let name = entry.file_name();
            !NEVER.iter().any(|never| name == OsStr::new(never)) && skipped.as_deref() != Some(entry.path())
        });
        for entry in builder.build() {
            let entry = entry.map_err(|error| refused(error.to_string()))?;
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            if let Ok(path) = entry.path().strip_prefix(&root)
                && !is_folder
            {
                selected.insert(path.to_owned());
            }
        }
        Ok(())
    };
    walk(&root, true)?;
    for included in include {
        if !included.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refused(format!("{} (deploy.include) is not in the app's folder", included.display())));
        }
        let path = root.join(included);
        if let Err(error) = fs::symlink_metadata(&path) {
            return Err(refused(format!("{} (deploy.include): {error}", included.display())));
        }
        walk(&path, false)?;
    }
    Ok(selected)
}

/// Packs files of `folder` into a file that has no name.
pub(crate) fn pack(folder: &Path, selected: &BTreeSet<PathBuf>) -> Result<Package, Failure> {
    let written = |error: io::Error| Failure::io("cannot write a temporary file", &error);
    let file = tempfile::tempfile().map_err(written)?;
    let mut archive = tar::Builder::new(BufWriter::new(Hashing { file, hasher: blake3::Hasher::new(), bytes: 0 }));
    let root = fs::canonicalize(folder).map_err(|error| cannot_read(folder, &error))?;
    for path in selected {
        if path.to_str().is_none() {
            return Err(refused(format!("the name of {} is not UTF-8", path.display())));
        }
        let full = root.join(path);
        let metadata = fs::symlink_metadata(&full).map_err(|error| cannot_read(&full, &error))?;
        add(&mut archive, path, &full, &metadata, &root)?;
    }
    let hashing = archive.into_inner().map_err(written)?.into_inner().map_err(|error| written(error.into_error()))?;
    let Hashing { mut file, hasher, bytes } = hashing;
    file.rewind().map_err(written)?;
    Ok(Package { file, bytes, checksum: hasher.finalize().to_hex().to_string(), files: selected.len() })
}

fn add(
    archive: &mut tar::Builder<BufWriter<Hashing>>,
    path: &Path,
    full: &Path,
    metadata: &Metadata,
    root: &Path,
) -> Result<(), Failure> {
    let failed = |error: io::Error| refused(format!("{}: {error}", path.display()));
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    if metadata.is_symlink() {
        let target = fs::read_link(full).map_err(failed)?;
        // The server refuses what leads out: better to hear it now.
        if target.is_absolute() || !fs::canonicalize(full).is_ok_and(|found| found.starts_with(root)) {
            let shown = target.display();
            return Err(refused(format!("the link {} leads out of the folder, or nowhere: {shown}", path.display())));
        }
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        return archive.append_link(&mut header, path, target).map_err(failed);
    }
    if !metadata.is_file() {
        return Err(refused(format!("{} is no file, folder or link", path.display())));
    }
    let is_executable = metadata.permissions().mode() & 0o111 != 0;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(if is_executable { 0o755 } else { 0o644 });
    let file = File::open(full).map_err(failed)?;
    // As long as it was a moment ago, or it is an error: a file that changes is no part of a version.
    let len = metadata.len();
    header.set_size(len);
    archive.append_data(&mut header, path, Exactly { file, left: len }).map_err(failed)
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::io(format!("cannot read {}", path.display()), error)
}

fn refused(what: String) -> Failure {
    let next = "leave it out with a line in .bokiignore, or put it right; boki deploy --dry-run lists what is sent";
    Failure::new(NOT_PACKED, Exit::Usage, format!("the folder cannot be packed: {what}"), next)
}

/// Counts and hashes what is written.
struct Hashing {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buf)?;
        self.hasher.update(buf.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that has so many bytes, no fewer and no more.
struct Exactly {
    file: File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read(buf.get_mut(..most).unwrap_or_default())?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn names(selected: &BTreeSet<PathBuf>) -> Vec<&str> {
        selected.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn what_is_ignored_is_left_out_unless_it_is_named() {
        let folder = folder(&[
            (".gitignore", "/target\n*.log\n"),
            (".bokiignore", "notes/\n"),
            (".git/config", ""),
            (".boki/seg/1.log", ""),
            (".env.example", ""),
            ("store/x", ""),
            ("app.py", ""),
            ("sub/.gitignore", "cache\n"),
            ("sub/cache/x", ""),
            ("sub/code", ""),
            ("sub/x.log", ""),
            ("notes/todo", ""),
            ("target/release/app", ""),
            ("target/release/app.d", ""),
            ("target/debug/app", ""),
        ]);
        let data = folder.path().join("store");
        let chosen = |include: &[&str]| {
            let include: Vec<PathBuf> = include.iter().map(PathBuf::from).collect();
            select(folder.path(), &include, Some(&data))
        };
        let plain = [".bokiignore", ".env.example", ".gitignore", "app.py", "sub/.gitignore", "sub/code"];
        assert_eq!(names(&chosen(&[]).unwrap()), plain);
        let more = chosen(&["target/release/app", "./notes"]).unwrap();
        assert_eq!(names(&more)[4..], ["notes/todo", "sub/.gitignore", "sub/code", "target/release/app"]);
        for wrong in ["../x", "/etc", "nothing"] {
            assert!(chosen(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_files_are_the_same_package() {
        let files = [("boki.toml", "[deploy]"), ("a/b", "text")];
        let packed = |folder: &tempfile::TempDir| {
            let selected = select(folder.path(), &[], None).unwrap();
            pack(folder.path(), &selected).unwrap()
        };
        let one = folder(&files);
        fs::set_permissions(one.path().join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("a/b", one.path().join("link")).unwrap();
        let two = folder(&files);
        symlink("a/b", two.path().join("link")).unwrap();
        fs::set_permissions(two.path().join("a/b"), fs::Permissions::from_mode(0o755)).unwrap();
        let (one, two) = (packed(&one), packed(&two));
        assert_eq!((&one.checksum, one.bytes, one.files), (&two.checksum, two.bytes, 3));
        let mut archive = tar::Archive::new(one.file);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
            })
            .collect();
        let expected = [("a/b", 0o755), ("boki.toml", 0o644), ("link", 0o777)];
        assert_eq!(entries, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn links_out_of_the_folder_are_refused() {
        for target in ["/etc/passwd", "..", "nowhere"] {
            let folder = folder(&[("boki.toml", "")]);
            symlink(target, folder.path().join("link")).unwrap();
            let selected = select(folder.path(), &[], None).unwrap();
            assert!(pack(folder.path(), &selected).is_err(), "{target}");
        }
    }
}
