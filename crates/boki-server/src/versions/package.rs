//! Unpacking what was sent: a tar of files, folders and links between them. Whoever sent it is not trusted with any other
//! place than the folder it is unpacked into, nor with more bytes and files than are allowed.
//!
//! Links are made last, when nothing is written any more, so that no file is written through one; those that lead out of
//! the folder are refused. Of an entry's mode only "may be executed" counts; owners and times do not.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

/// Longest path inside a package, in bytes.
const MAX_PATH_BYTES: usize = 1024;
/// Most folders around a file.
const MAX_DEPTH: usize = 64;

/// What a package may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) files: u32,
}

/// What a package held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) bytes: u64,
    pub(crate) files: u32,
}

/// Why a package was not unpacked.
#[derive(Debug)]
pub(crate) enum UnpackError {
    /// It is not one that can be used.
    Refused(String),
    /// The disk.
    Io(io::Error),
}

/// Unpacks `package` into the folder `into`, which is empty. After an error, something may be in it.
pub(crate) fn unpack(package: impl Read, into: &Path, bounds: Bounds) -> Result<Unpacked, UnpackError> {
    let garbled = |error: io::Error| UnpackError::Refused(format!("it is not a tar archive: {error}"));
    let mut archive = tar::Archive::new(package);
    let mut done = Unpacked::default();
    let mut folders = BTreeSet::new();
    let mut links = Vec::new();
    for entry in archive.entries().map_err(garbled)? {
        let mut entry = entry.map_err(garbled)?;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let inside = inside(&entry.path_bytes())?;
        done.files += 1;
        if done.files > bounds.files {
            return Err(refused(format!("it has more than {} files (versions.files)", bounds.files)));
        }
        let path = into.join(&inside);
        match kind {
            EntryType::Directory => make_folders(into, &inside, &mut folders)?,
            EntryType::Regular | EntryType::Continuous => {
                if let Some(parent) = inside.parent() {
                    make_folders(into, parent, &mut folders)?;
                }
                let executable = entry.header().mode().map_err(garbled)? & 0o111 != 0;
                let left = bounds.bytes.saturating_sub(done.bytes);
                done.bytes += write_file(&mut entry, &path, executable, left, bounds.bytes)?;
            }
            EntryType::Symlink => {
                if let Some(parent) = inside.parent() {
                    make_folders(into, parent, &mut folders)?;
                }
                let target = entry.link_name_bytes().unwrap_or_default();
                let target =
                    std::str::from_utf8(&target).map_err(|_| refused("a link's target is not UTF-8".into()))?;
                if target.is_empty() || target.starts_with('/') {
                    return Err(refused(format!("the link {} leads out of it", inside.display())));
                }
                links.push((inside, PathBuf::from(target)));
            }
            _ => return Err(refused(format!("{} is no file, folder or link", inside.display()))),
        }
    }
    make_links(into, &links)?;
    Ok(done)
}

fn refused(reason: String) -> UnpackError {
    UnpackError::Refused(reason)
}

/// An entry's path, if it is one below the folder.
fn inside(path: &[u8]) -> Result<PathBuf, UnpackError> {
    let text = std::str::from_utf8(path).map_err(|_| refused("a path in it is not UTF-8".to_owned()))?;
    let mut inside = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            _ => return Err(refused(format!("the path {text:?} leads out of it"))),
        }
    }
    if text.len() > MAX_PATH_BYTES || text.contains('\0') || inside.components().count() > MAX_DEPTH {
        return Err(refused("a path in it is too long, too deep or no path".to_owned()));
    }
    Ok(inside)
}

fn make_folders(root: &Path, inside: &Path, made: &mut BTreeSet<PathBuf>) -> Result<(), UnpackError> {
    let mut path = PathBuf::new();
    for part in inside.components() {
        path.push(part);
        if made.contains(&path) {
            continue;
        }
        fs::create_dir(root.join(&path)).map_err(|error| taken(error, &path))?;
        made.insert(path.clone());
    }
    Ok(())
}

/// Copies a file, of which at most `left` bytes are allowed.
fn write_file(
    entry: &mut impl Read,
    path: &Path,
    executable: bool,
    left: u64,
    allowed: u64,
) -> Result<u64, UnpackError> {
    let mode = if executable { 0o755 } else { 0o644 };
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(|error| taken(error, path))?;
    let mut written = 0;
    let mut buf = vec![0; 64 << 10];
    loop {
        let read = entry.read(&mut buf).map_err(|error| refused(format!("it ends too early: {error}")))?;
        let Some(chunk) = buf.get(..read).filter(|chunk| !chunk.is_empty()) else { return Ok(written) };
        written += chunk.len() as u64;
        if written > left {
            return Err(refused(format!("its files have more than {allowed} bytes (versions.unpacked)")));
        }
        file.write_all(chunk).map_err(UnpackError::Io)?;
    }
}

/// What making a file or folder met with: two of the same name are the package's fault.
fn taken(error: io::Error, path: &Path) -> UnpackError {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            refused(format!("{} is in it twice", path.display()))
        }
        io::ErrorKind::InvalidFilename => refused("a name in it is too long".to_owned()),
        _ => UnpackError::Io(error),
    }
}

fn make_links(root: &Path, links: &[(PathBuf, PathBuf)]) -> Result<(), UnpackError> {
    for (link, target) in links {
        symlink(target, root.join(link)).map_err(|error| taken(error, link))?;
    }
    let root = fs::canonicalize(root).map_err(UnpackError::Io)?;
    for (link, target) in links {
        // As the system resolves it, with whatever other links are on the way.
        let found = fs::canonicalize(root.join(link));
        if !found.is_ok_and(|found| found.starts_with(&root)) {
            return Err(refused(format!(
                "the link {} leads out of it, or nowhere: {}",
                link.display(),
                target.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1000, files: 20 };

    /// An archive with entries that no well-meaning packer makes.
    struct Archive(tar::Builder<Vec<u8>>);

    impl Archive {
        fn new() -> Archive {
            Archive(tar::Builder::new(Vec::new()))
        }

        fn entry(mut self, kind: EntryType, path: &str, link: &str, data: &[u8]) -> Archive {
            let mut header = tar::Header::new_ustar();
            // Written by hand: the crate refuses what is tested here.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(if path.ends_with(".sh") { 0o4775 } else { 0o600 });
            header.set_size(data.len() as u64);
            header.set_cksum();
            self.0.append(&header, data).unwrap();
            self
        }

        fn file(self, path: &str, data: &[u8]) -> Archive {
            self.entry(EntryType::Regular, path, "", data)
        }

        fn link(self, path: &str, to: &str) -> Archive {
            self.entry(EntryType::Symlink, path, to, b"")
        }

        fn unpack(self) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("files");
            fs::create_dir(&root).unwrap();
            let result = unpack(&self.0.into_inner().unwrap()[..], &root, BOUNDS);
            // Whatever was in it, nothing else was touched.
            let around: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(around, ["files"]);
            (folder, result)
        }

        #[track_caller]
        fn refused_for(self, part: &str) {
            match self.unpack().1 {
                Err(UnpackError::Refused(reason)) => assert!(reason.contains(part), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn files_folders_and_links_within_arrive() {
        let archive = Archive::new()
            .file("./boki.toml", b"[deploy]")
            .entry(EntryType::Directory, "src/", "", b"")
            .file("src/run.sh", b"#!")
            .file("a/b/c", b"deep")
            .link("current", "a/b")
            .link("a/up", "../src/run.sh");
        let (folder, result) = archive.unpack();
        assert_eq!(result.unwrap(), Unpacked { bytes: 14, files: 6 });
        let root = folder.path().join("files");
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        // As far as the umask allows: never a set-user bit.
        assert_eq!((mode("src/run.sh") & 0o4100, mode("boki.toml") & 0o4100), (0o100, 0));
        assert_eq!(fs::read(root.join("current/c")).unwrap(), b"deep");
        assert_eq!(fs::read(root.join("a/up")).unwrap(), b"#!");
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["../x", "a/../../x", "/etc/x", "a/../x"] {
            Archive::new().file(path, b"x").refused_for("leads out");
        }
    }

    #[test]
    fn links_that_lead_out_or_nowhere_are_refused() {
        for target in ["/etc/passwd", "..", "../..", "nowhere", "self"] {
            Archive::new().link("self", target).refused_for("leads out");
        }
        // Each link looks as if it stayed within.
        Archive::new().link("y", ".").link("x", "y/y/y/../../..").refused_for("leads out");
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        Archive::new().file("a/f", b"x").link("b", "a").file("b/f", b"y").refused_for("twice");
        Archive::new().link("out", "..").file("out/f", b"y").refused_for("twice");
    }

    #[test]
    fn other_kinds_of_entries_are_refused() {
        for kind in [EntryType::Link, EntryType::Fifo, EntryType::Char, EntryType::Block] {
            Archive::new().file("a", b"").entry(kind, "b", "a", b"").refused_for("no file");
        }
    }

    #[test]
    fn what_is_there_twice_is_refused() {
        Archive::new().file("a", b"").file("a", b"").refused_for("twice");
        Archive::new().file("a", b"").file("a/b", b"").refused_for("twice");
    }

    #[test]
    fn bytes_and_files_have_bounds() {
        Archive::new().file("a", &[0; 600]).file("b", &[0; 401]).refused_for("versions.unpacked");
        assert!(Archive::new().file("a", &[0; 600]).file("b", &[0; 400]).unpack().1.is_ok());
        let mut archive = Archive::new();
        for number in 0..21 {
            archive = archive.file(&number.to_string(), b"");
        }
        archive.refused_for("versions.files");
    }

    #[test]
    fn garbage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let whole = Archive::new().file("a", &[7; 600]).0.into_inner().unwrap();
        for bytes in [&[0xff; 2000][..], &whole[..700], &whole[..100]] {
            let root = tempfile::tempdir_in(folder.path()).unwrap();
            assert!(matches!(unpack(bytes, root.path(), BOUNDS), Err(UnpackError::Refused(_))));
        }
    }
}
