//! Mends what was found: out of what is there, and of copies of the same directory.
//!
//! What takes a file's place is written beside it and checked first. The file that was there goes into the folder `damaged`,
//! so that nothing is ever worse than before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boki_disk::check::{self, Expected, Meta, SegmentFound};
use boki_disk::mem::MemDisk;
use boki_disk::vfs::{RealVfs, Vfs, VfsFile};
use boki_disk::{BlobName, BlobStore, DataKeys, Keyring, Reach, TableStore};
use boki_log::machine::Checkpoint;
use serde::Serialize;

use crate::examine::{self, CHECKPOINT, Examined, Scope, io_error, len_of, read_blob};
use crate::finding::{DoctorError, Finding, Report, Severity, Subject};
use crate::journal::Segment;

/// Where files go that were replaced or given up.
const DAMAGED: &str = "damaged";

/// What may be done.
#[derive(Clone, Debug, Default)]
pub struct Repair {
    /// Copies of the directory, to take intact files from.
    pub from: Vec<PathBuf>,
    /// Give up what cannot be mended: blobs, and the end of the log behind damage in its last segment.
    pub discard: bool,
    /// The keys of an encrypted directory.
    pub keys: Option<DataKeys>,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Mended {
    /// One line for each thing.
    pub done: Vec<String>,
    /// How it is now.
    pub report: Report,
}

/// Mends the data directory `path`, of which the caller holds the lock.
///
/// # Errors
/// [`DoctorError`]. What was put in place until then is whole.
pub fn repair(path: &Path, repair: &Repair) -> Result<Mended, DoctorError> {
    let mut done = Vec::new();
    // What is mended can show what is behind it: a journal is only known in full once its directory is.
    for _ in 0..4 {
        let before = done.len();
        let mut bench = Bench::new(path, repair)?;
        let Some(examined) = examine::all(&bench.vfs, path, repair.keys.as_ref(), Scope::All, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })?
        else {
            break;
        };
        let findings = examined.report.findings.iter();
        let damaged: Vec<Finding> =
            findings.filter(|finding| mends_note(finding) || is_damage(finding)).cloned().collect();
        let mut segments = Vec::new();
        for finding in damaged {
            // A segment has one finding per hole, and is mended at once.
            if let Subject::Segment(number) = finding.subject {
                if segments.contains(&number) {
                    continue;
                }
                segments.push(number);
            }
            done.extend(bench.mend(&examined, &finding)?);
        }
        if done.len() == before {
            return Ok(Mended { done, report: examined.report });
        }
    }
    let vfs = RealVfs::read_only(path)?;
    let examined =
        examine::all(&vfs, path, repair.keys.as_ref(), Scope::All, &mut |_| std::ops::ControlFlow::Continue(()))?;
    let report = examined.map(|examined| examined.report).ok_or_else(|| DoctorError::Nameless(path.to_owned()))?;
    Ok(Mended { done, report })
}

fn is_damage(finding: &Finding) -> bool {
    finding.severity == Severity::Damage
}

/// What is no damage, but better with it.
fn mends_note(finding: &Finding) -> bool {
    matches!(finding.subject, Subject::Reach | Subject::Removed)
}

struct Bench<'a> {
    path: &'a Path,
    vfs: RealVfs,
    copies: Vec<(PathBuf, RealVfs)>,
    discard: bool,
}

impl Bench<'_> {
    fn new<'a>(path: &'a Path, repair: &Repair) -> Result<Bench<'a>, DoctorError> {
        let copies = repair.from.iter().map(|from| Ok((from.clone(), RealVfs::read_only(from)?)));
        let copies = copies.collect::<Result<Vec<_>, DoctorError>>()?;
        Ok(Bench { path, vfs: RealVfs::new(path)?, copies, discard: repair.discard })
    }

    /// Mends one thing if it can be; says what was done.
    fn mend(&mut self, examined: &Examined, finding: &Finding) -> Result<Option<String>, DoctorError> {
        match &finding.subject {
            Subject::Format => self.mend_format(),
            Subject::Meta => self.mend_meta(examined).map(Some),
            Subject::Removed => self.mend_removed(examined),
            Subject::Reach => self.mend_reach(examined),
            Subject::Segment(number) => match examined.journal.segments.get(number) {
                Some(segment) => self.mend_segment(examined, segment),
                None => Ok(None),
            },
            Subject::Checkpoint => self.mend_checkpoint(examined),
            Subject::Blob(name) => self.mend_blob(examined, *name),
            Subject::Table(number) => self.mend_table(examined, *number),
            Subject::Stray => Ok(None),
        }
    }

    /// Only what is missing: what says something else may be right.
    fn mend_format(&self) -> Result<Option<String>, DoctorError> {
        if check::format(&self.vfs).map_err(io_error("read", check::FORMAT))?.is_some() {
            return Ok(None);
        }
        check::replace(&self.vfs, check::FORMAT, check::KNOWN_FORMAT.as_bytes())
            .map_err(io_error("write", check::FORMAT))?;
        Ok(Some("FORMAT was written anew".to_owned()))
    }

    /// Its id stands in every segment, and its term may only grow.
    fn mend_meta(&self, examined: &Examined) -> Result<String, DoctorError> {
        let of_copy = |(_, copy): &(PathBuf, RealVfs)| check::meta(copy).ok().flatten();
        let known = self.copies.iter().filter_map(of_copy).find(|meta| meta.id == examined.directory);
        let node = examined.meta.or(known).map_or(1, |meta| meta.node);
        let term = examined.max_term.max(known.map_or(0, |meta| meta.term));
        // Blobs are named by the start that wrote them.
        let blobs = self.vfs.list("blob").unwrap_or_default();
        let starts = blobs.iter().filter_map(|name| name.parse::<BlobName>().ok());
        let term = starts.map(|name| (name.version >> 32) as u32).fold(term, u32::max);
        self.put_aside(check::META)?;
        check::write_meta(&self.vfs, &Meta { id: examined.directory, node, term })
            .map_err(|error| io_error("write", check::META)(io::Error::other(error)))?;
        Ok(format!("meta was written anew, for start {term}"))
    }

    fn mend_removed(&self, examined: &Examined) -> Result<Option<String>, DoctorError> {
        let there = check::segments(&self.vfs).unwrap_or_default();
        let last = there.last().copied().unwrap_or(0);
        let absent: Vec<u64> = (1..=last).filter(|number| !there.contains(number)).collect();
        for (path, copy) in &self.copies {
            let Ok(Some(ranges)) = check::removed(copy, examined.directory) else { continue };
            let is_removed = |number: &u64| ranges.iter().any(|range| (range.from..=range.to).contains(number));
            // It must say of exactly those that are not here that they were removed.
            if absent.iter().all(is_removed) && !there.iter().any(is_removed) {
                return self.take(check::REMOVED, path, copy).map(Some);
            }
        }
        if absent.is_empty() && last > 0 {
            self.put_aside(check::REMOVED)?;
            return Ok(Some(
                "seg/removed was set aside: no segment was removed, and the next start writes it anew".to_owned(),
            ));
        }
        Ok(None)
    }

    /// Of a journal that is whole as far as it goes.
    fn mend_reach(&self, examined: &Examined) -> Result<Option<String>, DoctorError> {
        let Some(last) = examined.journal.last().filter(|_| examined.journal.segments.values().all(Segment::is_whole))
        else {
            return Ok(None);
        };
        let Some(meta) = examined.meta else { return Ok(None) };
        self.put_aside(check::REACH)?;
        let (segment, next_group) = (last.expected.number, last.found.next_group);
        self.write_reach(Reach { directory: examined.directory, term: meta.term, segment, next_group })?;
        Ok(Some(format!("seg/reach was written anew: up to group {}", next_group.saturating_sub(1))))
    }

    fn write_reach(&self, reach: Reach) -> Result<(), DoctorError> {
        check::write_reach(&self.vfs, &reach).map_err(|error| io_error("write", check::REACH)(io::Error::other(error)))
    }

    fn mend_segment(&self, examined: &Examined, segment: &Segment) -> Result<Option<String>, DoctorError> {
        let number = segment.expected.number;
        let name = check::segment_file(number);
        for (path, copy) in &self.copies {
            let Some(bytes) =
                merge(&self.vfs, segment, copy, examined.ring.as_ref()).map_err(io_error("read", &name))?
            else {
                continue;
            };
            self.install(&name, &bytes)?;
            return Ok(Some(format!("segment {number} was mended with what is intact in {}", path.display())));
        }
        let last = examined.journal.last().map(|last| last.expected.number);
        match segment.found.holes.first() {
            Some(hole) if self.discard && segment.whole.is_none() && last == Some(number) => {
                let group = hole.groups.start;
                // What the index has seen cannot be unseen.
                if examined.covered.is_some_and(|covered| covered.group >= group) {
                    return Ok(None);
                }
                let mut bytes = check::file(&self.vfs, &name).map_err(io_error("read", &name))?.unwrap_or_default();
                if let Some(rest) = usize::try_from(hole.at.start).ok().and_then(|at| bytes.get_mut(at..)) {
                    rest.fill(0);
                }
                self.install(&name, &bytes)?;
                if let Some(reach) = examined.reach {
                    self.write_reach(Reach { segment: number, next_group: group, ..reach })?;
                }
                let lost = segment.found.groups.iter().filter(|found| found.group >= group).count();
                Ok(Some(format!(
                    "the log was cut off before group {group}; {lost} whole groups behind it were given up with it"
                )))
            }
            _ => Ok(None),
        }
    }

    fn mend_checkpoint(&self, examined: &Examined) -> Result<Option<String>, DoctorError> {
        if examined.removed.is_empty() && examined.journal.segments.values().all(Segment::is_whole) {
            self.put_aside(CHECKPOINT)?;
            return Ok(Some("the checkpoint was set aside: the next start reads the whole journal instead".to_owned()));
        }
        let removed_to = examined.removed.last().map_or(0, |range| range.to);
        for (path, copy) in &self.copies {
            let Ok(Some(bytes)) = check::owned_blob(copy, CHECKPOINT, examined.directory, examined.ring.as_ref())
            else {
                continue;
            };
            let Ok(checkpoint) = Checkpoint::decode(&bytes) else { continue };
            let fits = |covered: &boki_log::storage::GroupPlace| {
                covered.segment > removed_to && examined.journal.has(covered.segment, covered.group)
            };
            if checkpoint.covered.is_some_and(|covered| fits(&covered)) {
                return self.take(CHECKPOINT, path, copy).map(Some);
            }
        }
        Ok(None)
    }

    fn mend_blob(&self, examined: &Examined, name: BlobName) -> Result<Option<String>, DoctorError> {
        let file = format!("blob/{name}");
        for (path, copy) in &self.copies {
            let store = BlobStore::look(copy.clone(), examined.directory).sealed(examined.ring.clone());
            let is_there = matches!(store.read(name), Ok(Some(_)));
            if is_there && read_blob(&store, name, &mut |_| std::ops::ControlFlow::Continue(())).is_ok() {
                return self.take(&file, path, copy).map(Some);
            }
        }
        if self.discard {
            self.put_aside(&file)?;
            return Ok(Some(format!("{file} was given up")));
        }
        Ok(None)
    }

    fn mend_table(&self, examined: &Examined, number: u64) -> Result<Option<String>, DoctorError> {
        for (path, copy) in &self.copies {
            let config = examine::table_config(examined.directory, examined.ring.as_ref());
            let Ok(table) = TableStore::look(copy.clone(), config).read(number) else { continue };
            let mut is_sound = true;
            table.check(&mut |_| is_sound = false);
            if is_sound {
                return self.take(&check::table_file(number), path, copy).map(Some);
            }
        }
        Ok(None)
    }

    /// Takes a file from a copy, after it was checked there.
    fn take(&self, name: &str, path: &Path, copy: &RealVfs) -> Result<String, DoctorError> {
        let bytes = check::file(copy, name).map_err(io_error("read", name))?.unwrap_or_default();
        self.install(name, &bytes)?;
        Ok(format!("{name} was taken from {}", path.display()))
    }

    /// Puts a file in place, durably, and the one that was there aside.
    fn install(&self, name: &str, bytes: &[u8]) -> Result<(), DoctorError> {
        self.keep(name)?;
        check::replace(&self.vfs, name, bytes).map_err(io_error("write", name))
    }

    /// Keeps a second name for a file in the folder of the damaged ones.
    fn keep(&self, name: &str) -> Result<Option<PathBuf>, DoctorError> {
        let from = self.path.join(name);
        if !from.is_file() {
            return Ok(None);
        }
        let failed = || io_error("keep", name);
        self.vfs.create_dir(DAMAGED).map_err(failed())?;
        let flat = name.replace('/', "-");
        for round in 0_u32.. {
            let to = self.path.join(DAMAGED).join(if round == 0 { flat.clone() } else { format!("{flat}.{round}") });
            match fs::hard_link(&from, &to) {
                Ok(()) => {
                    self.vfs.sync_dir(DAMAGED).map_err(failed())?;
                    return Ok(Some(to));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed()(error)),
            }
        }
        Ok(None)
    }

    /// Takes a file away, into the folder of the damaged ones.
    fn put_aside(&self, name: &str) -> Result<(), DoctorError> {
        if self.keep(name)?.is_none() {
            return Ok(());
        }
        let removed = self.vfs.remove(name).and_then(|()| {
            let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
            self.vfs.sync_dir(dir)
        });
        removed.map_err(io_error("set aside", name))
    }
}

/// A segment put together from what is intact in it and in a copy of it; `None` if that is not all it must have.
fn merge(vfs: &RealVfs, segment: &Segment, copy: &RealVfs, ring: Option<&Arc<Keyring>>) -> io::Result<Option<Vec<u8>>> {
    let Expected { directory, number, first_group: least, .. } = segment.expected;
    let name = check::segment_file(number);
    if len_of(copy, &name) == 0 {
        return Ok(None);
    }
    let Ok(first_group) = check::first_group(copy, directory, number)? else { return Ok(None) };
    if first_group < least || (first_group > least && !segment.may_start_later) {
        return Ok(None);
    }
    let expected = Expected { first_group, ..segment.expected };
    let theirs = check::segment(copy, &name, &expected, ring, &mut |_| {})?;
    let mut bytes = match &segment.whole {
        None => check::file(vfs, &name)?.unwrap_or_default(),
        Some(_) => Vec::new(),
    };
    let length =
        usize::try_from(len_of(copy, &name).max(bytes.len() as u64)).map_err(|_| io::ErrorKind::FileTooLarge)?;
    bytes.resize(length, 0);
    let from = copy.open(&name)?;
    let mut take = |at: u64, len: u64| -> io::Result<()> {
        let (at, len) = (usize::try_from(at).unwrap_or(usize::MAX), usize::try_from(len).unwrap_or(usize::MAX));
        match bytes.get_mut(at..at.saturating_add(len)) {
            Some(part) => from.read_at(part, at as u64),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    // The header, and every group that is not intact here.
    if segment.whole.is_some() {
        take(0, boki_disk::BLOCK_BYTES as u64)?;
    }
    let have =
        |found: &SegmentFound, group: u64| found.groups.binary_search_by_key(&group, |found| found.group).is_ok();
    let is_whole = segment.whole.is_none();
    for found in theirs.groups.iter().filter(|found| !is_whole || !have(&segment.found, found.group)) {
        take(found.at, found.bytes)?;
    }
    // It is believed once it has been read.
    let trial = MemDisk::new();
    trial.create_dir(check::SEGMENTS)?;
    let file = trial.create(&name)?;
    file.write_at(&bytes, 0)?;
    let merged = check::segment(&trial, &name, &expected, ring, &mut |_| {})?;
    Ok(merged.holes.is_empty().then_some(bytes))
}
