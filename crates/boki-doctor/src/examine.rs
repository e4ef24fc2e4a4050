//! Looks at everything, and says what is wrong.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use boki_disk::check::{self, FrameFound, Hole, Meta, RemovedRange};
use boki_disk::vfs::{RealVfs, Vfs, VfsFile};
use boki_disk::{
    BlobError, BlobName, BlobStore, BlockCache, Damage, DataKeys, Keyring, Reach, SealedBlocks, TableConfig,
    TableError, TableStore,
};
use boki_log::index::TableInfo;
use boki_log::machine::Checkpoint;
use boki_log::storage::GroupPlace;

use crate::finding::{DoctorError, Finding, Report, Severity, Subject, Totals};
use crate::journal::{self, Journal, Segment};
use crate::lost::Order;

/// The checkpoint's file.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Where blobs are.
const BLOBS: &str = "blob";
/// How much of what is known of a table is kept in memory while it is read.
const CACHE_BYTES: u64 = 1 << 20;

/// Told how many bytes are about to be read, or were; it may wait, so that others get their share of the disk, or break off.
pub type Pace<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Which files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them: nobody writes.
    All,
    /// Those that nobody changes any more, beside a server that writes: not the segment being written, nor what is replaced.
    Settled,
}

/// The examination was broken off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

/// What is known after an examination, for who mends it.
pub(crate) struct Examined {
    pub(crate) report: Report,
    pub(crate) directory: u128,
    pub(crate) ring: Option<Arc<Keyring>>,
    pub(crate) meta: Option<Meta>,
    pub(crate) reach: Option<Reach>,
    pub(crate) removed: Vec<RemovedRange>,
    pub(crate) journal: Journal,
    pub(crate) covered: Option<GroupPlace>,
    /// The latest start that anything speaks of.
    pub(crate) max_term: u32,
}

/// Examines the data directory `path`. Changes nothing, and takes no lock: the caller knows who else is there. `None`: `pace`
/// has broken it off. `keys` are those of an encrypted directory.
///
/// # Errors
/// [`DoctorError`]: it cannot be examined at all.
pub fn examine(
    path: &Path,
    keys: Option<&DataKeys>,
    scope: Scope,
    pace: Pace<'_>,
) -> Result<Option<Report>, DoctorError> {
    let vfs = RealVfs::read_only(path)?;
    Ok(all(&vfs, path, keys, scope, pace)?.map(|examined| examined.report))
}

pub(crate) fn all(
    vfs: &RealVfs,
    path: &Path,
    keys: Option<&DataKeys>,
    scope: Scope,
    pace: Pace<'_>,
) -> Result<Option<Examined>, DoctorError> {
    let mut findings = Vec::new();
    look_at_format(vfs, path, &mut findings)?;
    let meta = match check::meta(vfs) {
        Ok(Some(meta)) => Some(meta),
        Ok(None) => {
            findings.push(missing(check::META, Subject::Meta));
            None
        }
        Err(error) => {
            findings.push(of_blob(check::META, Subject::Meta, error)?);
            None
        }
    };
    let directory = match meta {
        Some(meta) => meta.id,
        None => id_by_segments(vfs)?.ok_or_else(|| DoctorError::Nameless(path.to_owned()))?,
    };
    let ring = check::keyring(vfs, path, directory, keys)?;
    let removed = record(check::removed(vfs, directory), check::REMOVED, Subject::Removed, &mut findings)?;
    let reach = record(check::reach(vfs, directory), check::REACH, Subject::Reach, &mut findings)?;
    if let (Some(meta), Some(reach)) = (meta, reach)
        && reach.term > meta.term
    {
        let what = format!("it is of start {}, and the journal of start {}", meta.term, reach.term);
        findings.push(damage("BK0317", check::META, Subject::Meta, what));
    }
    let removed = removed.unwrap_or_default();
    let mut checked = Totals::default();
    let mut order = Order::default();
    let mut visit = |_: u64, frame: FrameFound| {
        order.note(&frame);
        if pace(frame.body.len() as u64).is_break() { Err(Stopped) } else { Ok(()) }
    };
    let frame = journal::Frame {
        directory,
        ring: ring.as_ref(),
        removed: &removed,
        reach,
        sealed_only: scope == Scope::Settled,
    };
    let Ok(journal) = journal::read(vfs, &frame, &mut visit)? else { return Ok(None) };
    for segment in journal.segments.values() {
        checked.segments += 1;
        checked.groups += segment.found.groups.len() as u64;
        checked.bytes += segment.found.bytes;
        look_at_segment(segment, &order, &mut findings);
    }
    let checkpoint = look_at_checkpoint(vfs, (directory, ring.as_ref()), &removed, &journal, scope, &mut findings)?;
    // What its index cannot be read for has no tables that could be missed.
    let named = checkpoint.as_ref().and_then(|checkpoint| checkpoint.tables().ok()).unwrap_or_default();
    let looked = look_at_blobs(vfs, (directory, ring.as_ref()), scope, pace, &mut checked, &mut findings)?
        .and_then(|()| {
            let keys = (directory, ring.as_ref());
            look_at_tables(vfs, keys, &named, scope, pace, &mut checked, &mut findings).transpose()
        })
        .transpose()?;
    if looked.is_none() {
        return Ok(None);
    }
    let max_term = order.max_term().max(reach.map_or(0, |reach| reach.term)).max(meta.map_or(0, |meta| meta.term));
    let id = format!("{directory:032x}");
    let unknown = unknown(scope, &journal, reach);
    let report = Report { path: path.to_owned(), id, checked, findings, unknown };
    let covered = checkpoint.and_then(|checkpoint| checkpoint.covered);
    Ok(Some(Examined { report, directory, ring, meta, reach, removed, journal, covered, max_term }))
}

/// What nobody can tell, whatever is there.
fn unknown(scope: Scope, journal: &Journal, reach: Option<Reach>) -> Vec<String> {
    let mut unknown = Vec::new();
    if scope == Scope::Settled {
        unknown.push("The segment that is being written was not read: its end changes.".to_owned());
        return unknown;
    }
    let torn = journal.last().is_some_and(|last| last.found.torn.is_some());
    match (reach, journal.last()) {
        (None, _) => unknown.push(
            "Nothing says how far the journal must reach: should its end be missing, that is not noticed.".to_owned(),
        ),
        (Some(reach), Some(last)) if torn && last.found.next_group >= reach.next_group => unknown.push(
            "The remains of a write at the end are taken for one that was interrupted. Should they be a group that was whole \
             once and has rotted, nobody can tell."
                .to_owned(),
        ),
        _ => {}
    }
    unknown
}

fn look_at_format(vfs: &RealVfs, path: &Path, findings: &mut Vec<Finding>) -> Result<(), DoctorError> {
    match check::format(vfs).map_err(io_error("read", check::FORMAT))? {
        Some(found)
            if found == check::KNOWN_FORMAT.as_bytes()
                || check::OLDER_FORMATS.iter().any(|older| found == older.as_bytes()) =>
        {
            Ok(())
        }
        Some(found) => {
            let found = String::from_utf8_lossy(&found[..found.len().min(64)]).into_owned();
            let what = format!("it says {found:?}, and this program knows {:?}", check::KNOWN_FORMAT);
            findings.push(damage("BK0318", check::FORMAT, Subject::Format, what));
            Ok(())
        }
        None if path.join(check::META).is_file() || path.join(check::SEGMENTS).is_dir() => {
            findings.push(missing(check::FORMAT, Subject::Format));
            Ok(())
        }
        None => {
            let names = vfs.list("").map_err(io_error("list", "."))?;
            let found = names.into_iter().next().unwrap_or_else(|| "nothing".to_owned());
            Err(boki_disk::DirError::Foreign { path: path.to_owned(), found }.into())
        }
    }
}

/// A record of the journal as a whole; `None` if it is not there or damaged.
fn record<T>(
    read: Result<Option<T>, BlobError>,
    name: &str,
    subject: Subject,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, DoctorError> {
    match read {
        Ok(Some(record)) => Ok(Some(record)),
        Ok(None) => {
            let mut finding = missing(name, subject);
            finding.severity = Severity::Note;
            findings.push(finding);
            Ok(None)
        }
        Err(error) => {
            findings.push(of_blob(name, subject, error)?);
            Ok(None)
        }
    }
}

fn id_by_segments(vfs: &RealVfs) -> Result<Option<u128>, DoctorError> {
    let Ok(numbers) = check::segments(vfs) else { return Ok(None) };
    for number in numbers {
        let id = check::directory_of_segment(vfs, number).map_err(io_error("read", check::SEGMENTS))?;
        if id.is_some() {
            return Ok(id);
        }
    }
    Ok(None)
}

fn look_at_segment(segment: &Segment, order: &Order, findings: &mut Vec<Finding>) {
    let number = segment.expected.number;
    let file = check::segment_file(number);
    for Hole { at, groups, what } in segment.holes() {
        let lost = order.lost_in(&groups);
        let code = match &what {
            Damage::MissingSegment => "BK0315",
            Damage::OtherDirectory { .. } | Damage::OtherSegment { .. } => "BK0316",
            Damage::UnexpectedGroup { .. } | Damage::EndsEarly { .. } => "BK0317",
            Damage::SegmentVersion { .. } | Damage::FrameVersion { .. } => "BK0318",
            _ => "BK0313",
        };
        let mut finding = damage(code, &file, Subject::Segment(number), what.to_string());
        finding.offset = segment.whole.is_none().then_some(at.start);
        finding.means = match lost.len() {
            0 => "Records in it cannot be read; which ones cannot be told from what is left.".to_owned(),
            _ => {
                let lost: Vec<String> = lost.iter().take(20).map(ToString::to_string).collect();
                format!("Cannot be read, unless trimmed before: {}.", lost.join("; "))
            }
        };
        finding.lost = lost;
        findings.push(finding);
    }
    if let Some(torn) = &segment.found.torn {
        let what = format!("{} bytes of a write that was interrupted lie behind the last group", torn.end - torn.start);
        let mut finding = damage("BK0313", &file, Subject::Segment(number), what);
        finding.severity = Severity::Note;
        finding.offset = Some(torn.start);
        finding.means = "Nothing: it was never acknowledged.".to_owned();
        finding.remedy = "Nothing: the next start cuts it off.".to_owned();
        findings.push(finding);
    }
}

/// The checkpoint, if there is one that can be read.
fn look_at_checkpoint(
    vfs: &RealVfs,
    (directory, ring): (u128, Option<&Arc<Keyring>>),
    removed: &[RemovedRange],
    journal: &Journal,
    scope: Scope,
    findings: &mut Vec<Finding>,
) -> Result<Option<Checkpoint>, DoctorError> {
    let bytes = match check::owned_blob(vfs, CHECKPOINT, directory, ring) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            if !removed.is_empty() {
                findings.push(missing(CHECKPOINT, Subject::Checkpoint));
            }
            return Ok(None);
        }
        Err(error) => {
            findings.push(of_blob(CHECKPOINT, Subject::Checkpoint, error)?);
            return Ok(None);
        }
    };
    let checkpoint = match Checkpoint::decode(&bytes) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            findings.push(damage("BK0313", CHECKPOINT, Subject::Checkpoint, error.to_string()));
            return Ok(None);
        }
    };
    let Some(covered) = checkpoint.covered else { return Ok(Some(checkpoint)) };
    let removed_to = removed.last().map_or(0, |range| range.to);
    // Beside a server, segments go and checkpoints come while this is read.
    if scope == Scope::Settled {
        return Ok(Some(checkpoint));
    }
    if covered.segment <= removed_to {
        let what = format!(
            "it covers what was before segment {}, and segments up to {removed_to} were removed since: it is an old copy",
            covered.segment
        );
        findings.push(damage("BK0317", CHECKPOINT, Subject::Checkpoint, what));
    } else if !journal.has(covered.segment, covered.group)
        && journal.damaged_groups().iter().all(|groups| !groups.contains(&covered.group))
    {
        let what = format!("it covers group {}, and the journal ends before it", covered.group);
        findings.push(damage("BK0317", CHECKPOINT, Subject::Checkpoint, what));
    }
    Ok(Some(checkpoint))
}

fn look_at_blobs(
    vfs: &RealVfs,
    (directory, ring): (u128, Option<&Arc<Keyring>>),
    scope: Scope,
    pace: Pace<'_>,
    checked: &mut Totals,
    findings: &mut Vec<Finding>,
) -> Result<Option<()>, DoctorError> {
    let store = BlobStore::look(vfs.clone(), directory).sealed(ring.cloned());
    for file in vfs.list(BLOBS).unwrap_or_default() {
        let path = format!("{BLOBS}/{file}");
        let Ok(name) = file.parse::<BlobName>() else {
            // One that is being written.
            if scope == Scope::All {
                findings.push(stray(&path));
            }
            continue;
        };
        match read_blob(&store, name, pace) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => {
                checked.blobs += 1;
                checked.bytes += bytes;
            }
            Err(error) => {
                let mut finding = of_blob(&path, Subject::Blob(name), error)?;
                finding.means = format!(
                    "An input or output of a call in {} cannot be read; the call and all others are not touched.",
                    if name.owner == 0 {
                        "no book".to_owned()
                    } else {
                        format!("the book with the number {}", name.owner)
                    }
                );
                findings.push(finding);
            }
        }
    }
    Ok(Some(()))
}

/// Reads a blob to its end; `None` if that was broken off.
pub(crate) fn read_blob<V: Vfs>(
    store: &BlobStore<V>,
    name: BlobName,
    pace: Pace<'_>,
) -> Result<Option<u64>, BlobError> {
    // Removed since it was listed.
    let Some(mut reader) = store.read(name)? else { return Ok(Some(0)) };
    let len = reader.len();
    while let Some(piece) = reader.next_piece()? {
        if pace(piece.len() as u64).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(len))
}

/// Looks at the tables there are, and at those that the checkpoint has `named`.
fn look_at_tables(
    vfs: &RealVfs,
    (directory, ring): (u128, Option<&Arc<Keyring>>),
    named: &[TableInfo],
    scope: Scope,
    pace: Pace<'_>,
    checked: &mut Totals,
    findings: &mut Vec<Finding>,
) -> Result<Option<()>, DoctorError> {
    let store = TableStore::look(vfs.clone(), table_config(directory, ring));
    let mut numbers = store.numbers().unwrap_or_default();
    numbers.extend(named.iter().map(|table| table.number));
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let file = check::table_file(number);
        let mut wrong = |error: TableError| {
            let (code, name) = match &error {
                // Merged away since it was listed.
                TableError::Missing { .. } if scope == Scope::Settled => return,
                TableError::Missing { name } => ("BK0315", name.clone()),
                TableError::Damaged { name, .. } => ("BK0313", name.clone()),
                _ => ("BK0314", file.clone()),
            };
            let mut finding = damage(code, &name, Subject::Table(number), error.to_string());
            finding.means = "Lookups that need this part of the index fail. No record is lost by it.".to_owned();
            findings.push(finding);
        };
        match store.read(number) {
            Ok(table) => {
                if pace(table.file_bytes()).is_break() {
                    return Ok(None);
                }
                checked.tables += 1;
                checked.bytes += table.file_bytes();
                table.check(&mut wrong);
            }
            Err(error) => wrong(error),
        }
    }
    Ok(Some(()))
}

/// How tables are read.
pub(crate) fn table_config(directory: u128, ring: Option<&Arc<Keyring>>) -> TableConfig {
    let config = TableConfig::new(directory, BlockCache::new(CACHE_BYTES));
    match ring {
        None => config,
        Some(ring) => TableConfig { codec: Arc::new(SealedBlocks::new(Arc::clone(ring))), ..config },
    }
}

fn stray(file: &str) -> Finding {
    Finding {
        code: "BK0313",
        severity: Severity::Note,
        file: file.to_owned(),
        offset: None,
        what: "the file has no meaning here, or is left of a write that did not end".to_owned(),
        means: "Nothing.".to_owned(),
        remedy: "Nothing: a server removes what it left itself, and leaves the rest alone.".to_owned(),
        lost: Vec::new(),
        subject: Subject::Stray,
    }
}

fn missing(file: &str, subject: Subject) -> Finding {
    damage("BK0315", file, subject, "the file is missing".to_owned())
}

fn of_blob(file: &str, subject: Subject, error: BlobError) -> Result<Finding, DoctorError> {
    Ok(match error {
        BlobError::Damaged { what, .. } => damage("BK0313", file, subject, what.to_owned()),
        BlobError::OtherDirectory { found, .. } => {
            damage("BK0316", file, subject, format!("it belongs to another data directory ({found:032x})"))
        }
        BlobError::Io { what, name, source } if source.kind() == io::ErrorKind::UnexpectedEof => {
            damage("BK0313", file, subject, format!("cannot {what} {name}: it is too short"))
        }
        BlobError::Io { what, source, .. } => return Err(io_error(what, file)(source)),
        other => damage("BK0314", file, subject, other.to_string()),
    })
}

/// A finding with what is said of such files in general.
fn damage(code: &'static str, file: &str, subject: Subject, what: String) -> Finding {
    let (means, remedy) = match &subject {
        Subject::Format => (
            "The server does not start, so that no other version mistakes the files.",
            "`boki doctor --repair` writes it anew if it is missing; else start the version that wrote it.",
        ),
        Subject::Meta => (
            "The server does not start: it would not know whose the files are, or would count a start twice.",
            "`boki doctor --repair` writes it anew from what the segments say.",
        ),
        Subject::Removed => (
            "The server does not start: segments that were removed look as if they were lost.",
            "`boki doctor --repair --from COPY` takes it from a copy; without one, if no segment was removed.",
        ),
        Subject::Reach => (
            "An end of the journal that is missing would not be noticed.",
            "`boki doctor --repair` writes it anew once the journal was found whole.",
        ),
        Subject::Checkpoint => (
            "The server does not start if segments were removed; else it reads the whole journal.",
            "`boki doctor --repair --from COPY` takes it from a copy; without one, if no segment was removed.",
        ),
        Subject::Segment(_) => {
            ("Records in it cannot be read.", "`boki doctor --repair --from COPY` takes what is intact in a copy.")
        }
        Subject::Blob(_) => (
            "An input or output of a call cannot be read.",
            "`boki doctor --repair --from COPY` takes it from a copy; `--discard` gives it up.",
        ),
        Subject::Table(_) => (
            "Lookups that need this part of the index fail.",
            "`boki doctor --repair --from COPY` takes it from a copy.",
        ),
        Subject::Stray => ("Nothing.", "Nothing."),
    };
    Finding {
        code,
        severity: Severity::Damage,
        file: file.to_owned(),
        offset: None,
        what,
        means: means.to_owned(),
        remedy: remedy.to_owned(),
        lost: Vec::new(),
        subject,
    }
}

pub(crate) fn io_error(what: &'static str, name: &str) -> impl FnOnce(io::Error) -> DoctorError {
    let name = name.to_owned();
    move |source| DoctorError::Io { what, name, source }
}

/// Length of a file, in bytes; 0 if it is not there.
pub(crate) fn len_of<V: Vfs>(vfs: &V, name: &str) -> u64 {
    vfs.open(name).and_then(|file| file.len()).unwrap_or(0)
}
