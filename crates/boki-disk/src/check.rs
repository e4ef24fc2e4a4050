//! Looks at the files of a data directory one by one, and does not stop at the first that is damaged. Changes nothing.
//!
//! For whoever has to say what is wrong, and what of it can be mended: opening the [`Journal`](crate::Journal) only says that
//! something is.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::blob;
use crate::coding::FrameReader;
use crate::dir;
use crate::error::{BlobError, Damage, DirError};
use crate::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader};
use crate::journal::JournalConfig;
use crate::reach::Reach;
use crate::removed::Removed;
use crate::scan::SegmentScan;
use crate::seal::{DataKeys, Keyring};
use crate::segment::{self, FileKind, SegmentHeader};
use crate::vfs::{Vfs, VfsFile};

pub use crate::dir::{FORMAT, KNOWN_FORMAT, META, Meta, OLDER_FORMATS};
pub use crate::reach::NAME as REACH;
pub use crate::removed::NAME as REMOVED;
pub use crate::segment::DIR as SEGMENTS;

/// Holds the lock of a data directory, without opening it.
#[derive(Debug)]
pub struct Held {
    _lock: fs::File,
}

/// Takes the lock of a data directory.
///
/// # Errors
/// [`DirError::Locked`], [`DirError::Io`].
pub fn lock(path: impl AsRef<Path>) -> Result<Held, DirError> {
    Ok(Held { _lock: dir::lock(path.as_ref())? })
}

/// What opens the files of an encrypted directory; `None` if it is not encrypted.
///
/// # Errors
/// [`DirError::NoKey`], [`DirError::NotEncrypted`], [`DirError::Blob`].
pub fn keyring<V: Vfs>(
    vfs: &V,
    path: &Path,
    directory: u128,
    keys: Option<&DataKeys>,
) -> Result<Option<Arc<Keyring>>, DirError> {
    dir::look_at_keys(vfs, path, directory, keys).map(|ring| ring.map(Arc::new))
}

/// What the file `FORMAT` says; `None` if there is none.
///
/// # Errors
/// What the file system says.
pub fn format<V: Vfs>(vfs: &V) -> io::Result<Option<Vec<u8>>> {
    blob::read_file(vfs, FORMAT)
}

/// What the directory knows of itself; `None` if there is no file `meta`.
///
/// # Errors
/// [`BlobError`].
pub fn meta<V: Vfs>(vfs: &V) -> Result<Option<Meta>, BlobError> {
    Ok(dir::read_meta(vfs)?.map(|(meta, _)| meta))
}

/// Writes `meta`, durably.
///
/// # Errors
/// [`BlobError::Io`].
pub fn write_meta<V: Vfs>(vfs: &V, meta: &Meta) -> Result<(), BlobError> {
    dir::write_meta(vfs, meta, false)
}

/// How far the journal must reach; `None` if there is no such record.
///
/// # Errors
/// [`BlobError`].
pub fn reach<V: Vfs>(vfs: &V, directory: u128) -> Result<Option<Reach>, BlobError> {
    Reach::load(vfs, directory)
}

/// Writes the record of how far the journal must reach, durably.
///
/// # Errors
/// [`BlobError::Io`].
pub fn write_reach<V: Vfs>(vfs: &V, reach: &Reach) -> Result<(), BlobError> {
    reach.store(vfs)
}

/// Segments that followed one another and were removed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovedRange {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The first group of the first.
    pub first_group: u64,
}

/// Which segments were removed on purpose; `None` if there is no such record.
///
/// # Errors
/// [`BlobError`].
pub fn removed<V: Vfs>(vfs: &V, directory: u128) -> Result<Option<Vec<RemovedRange>>, BlobError> {
    let removed = Removed::load(vfs, directory)?;
    Ok(removed.map(|removed| {
        let range = |range: &crate::removed::Range| RemovedRange {
            from: range.from,
            to: range.to,
            first_group: range.first_group,
        };
        removed.ranges().iter().map(range).collect()
    }))
}

/// A blob of the caller's.
///
/// # Errors
/// [`BlobError`].
pub fn owned_blob<V: Vfs>(
    vfs: &V,
    name: &str,
    directory: u128,
    ring: Option<&Arc<Keyring>>,
) -> Result<Option<Bytes>, BlobError> {
    match ring {
        None => blob::read_owned(vfs, name, directory),
        Some(ring) => blob::read_sealed(vfs, name, directory, ring),
    }
}

/// A file as it is; `None` if there is none.
///
/// # Errors
/// What the file system says.
pub fn file<V: Vfs>(vfs: &V, name: &str) -> io::Result<Option<Vec<u8>>> {
    blob::read_file(vfs, name)
}

/// Replaces a file as a whole, durably: written beside it, then renamed.
///
/// # Errors
/// What the file system says; the old file is still there, or already the new one.
pub fn replace<V: Vfs>(vfs: &V, name: &str, bytes: &[u8]) -> io::Result<()> {
    blob::replace(vfs, name, bytes)
}

/// The numbers of the segment files there are, ascending.
///
/// # Errors
/// What the file system says.
pub fn segments<V: Vfs>(vfs: &V) -> io::Result<Vec<u64>> {
    let files = vfs.list(segment::DIR)?;
    let number = |name: &String| match FileKind::of(name) {
        FileKind::Segment(number) => Some(number),
        _ => None,
    };
    let mut numbers: Vec<u64> = files.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The file of a segment.
#[must_use]
pub fn segment_file(number: u64) -> String {
    segment::file_name(number)
}

/// The file of a table.
#[must_use]
pub fn table_file(number: u64) -> String {
    crate::table::file_name(number)
}

/// The id of the directory that a segment's header names, whichever it is: for a directory that has lost its own.
///
/// # Errors
/// What the file system says.
pub fn directory_of_segment<V: Vfs>(vfs: &V, number: u64) -> io::Result<Option<u128>> {
    match first_block(vfs, number)? {
        Some(block) => Ok(match SegmentHeader::decode(&block, 0, number) {
            Ok(header) => Some(header.directory),
            Err(Damage::OtherDirectory { found }) => Some(found),
            Err(_) => None,
        }),
        None => Ok(None),
    }
}

/// The number of the first group in a segment, by its header.
///
/// # Errors
/// What the file system says. The damage, if it has no header that fits.
pub fn first_group<V: Vfs>(vfs: &V, directory: u128, number: u64) -> io::Result<Result<u64, Damage>> {
    Ok(match first_block(vfs, number)? {
        Some(block) => SegmentHeader::decode(&block, directory, number).map(|header| header.first_group),
        None => Err(Damage::SegmentHeader),
    })
}

/// `None`: the file is too short for one.
fn first_block<V: Vfs>(vfs: &V, number: u64) -> io::Result<Option<Vec<u8>>> {
    let file = vfs.open(&segment::file_name(number))?;
    let mut block = vec![0; BLOCK_BYTES];
    match file.read_at(&mut block, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        other => other.map(|()| Some(block)),
    }
}

/// A group that is as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFound {
    /// Its number.
    pub group: u64,
    /// Where in the file it starts, in bytes.
    pub at: u64,
    /// How many bytes it takes, with what fills it up to the next block.
    pub bytes: u64,
}

/// A part of a segment in which groups should be, and are not as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The bytes of the file.
    pub at: Range<u64>,
    /// The groups that should be there; to the end of the segment if it is not known which is its last.
    pub groups: Range<u64>,
    /// What is wrong at its start.
    pub what: Damage,
}

/// A frame as it lies in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameFound {
    /// Its group.
    pub group: u64,
    /// Its kind.
    pub kind: u8,
    /// Its body. If the frame is damaged, what there is of it: as far as its header can be believed.
    pub body: Bytes,
    /// Whether it is as it was written.
    pub is_intact: bool,
}

/// What is in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentFound {
    /// The groups that are as they were written, in order.
    pub groups: Vec<GroupFound>,
    /// Where groups should be and are not.
    pub holes: Vec<Hole>,
    /// The remains of a write behind the last group, if there are such: never acknowledged, if nothing says otherwise.
    pub torn: Option<Range<u64>>,
    /// The number of the group after the last intact one.
    pub next_group: u64,
    /// Length of the file, in bytes.
    pub bytes: u64,
}

/// What should be in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Id of the data directory.
    pub directory: u128,
    /// Number of the segment.
    pub number: u64,
    /// Its first group.
    pub first_group: u64,
    /// The group after its last, if that is known.
    pub end: Option<u64>,
    /// The group after its last is this one or a later one.
    pub least: u64,
}

/// Reads a segment from its first group to its end, over whatever is damaged, and gives every frame to `visit`. It lies in the
/// file `name`.
///
/// # Errors
/// What the file system says.
pub fn segment<V: Vfs>(
    vfs: &V,
    name: &str,
    expected: &Expected,
    ring: Option<&Arc<Keyring>>,
    visit: &mut dyn FnMut(FrameFound),
) -> io::Result<SegmentFound> {
    let Expected { directory, number, first_group, end, least } = *expected;
    let file = vfs.open(name)?;
    let reader = FrameReader::new(&JournalConfig { keyring: ring.cloned(), ..JournalConfig::new(directory) });
    let mut block = vec![0; BLOCK_BYTES];
    file.read_at(&mut block, 0)?;
    let header = SegmentHeader::decode(&block, directory, number)
        .map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage))?;
    let mut scan = SegmentScan::new(&file, number, header.coding, &reader)?;
    let mut found = SegmentFound { next_group: first_group, bytes: scan.file_bytes(), ..SegmentFound::default() };
    while end != Some(found.next_group) {
        let expected = found.next_group;
        let at = scan.at();
        match scan.next_group(expected)? {
            Ok(group) => {
                for (kind, _, body) in group.frames() {
                    visit(FrameFound { group: expected, kind, body, is_intact: true });
                }
                found.groups.push(GroupFound { group: expected, at: group.at, bytes: scan.at() - group.at });
                found.next_group += 1;
            }
            Err(what) => {
                let dirty_to = scan.rest(expected)?.dirty_to;
                let next = scan.resync(expected)?;
                if next.is_none() && expected >= least.max(end.unwrap_or(0)) && is_torn(&what) {
                    found.torn = dirty_to.map(|to| at..to);
                    break;
                }
                let reached = end.unwrap_or(least);
                let what = match what {
                    Damage::MissingGroup { .. } if next.is_none() && expected < reached => {
                        Damage::EndsEarly { expected, reached: reached - 1 }
                    }
                    what => what,
                };
                let to = if next.is_some() { scan.at() } else { found.bytes };
                let groups = expected..next.or(end).unwrap_or(least.max(expected + 1));
                damaged_frames(&file, number, &reader, at..to, expected, visit)?;
                found.holes.push(Hole { at: at..to, groups, what });
                let Some(next) = next else { break };
                found.next_group = next;
            }
        }
    }
    Ok(found)
}

fn is_torn(what: &Damage) -> bool {
    matches!(what, Damage::MissingGroup { .. } | Damage::Frame { .. })
}

/// Gives the frames of damaged groups to `visit`, as far as their headers can be believed.
fn damaged_frames<F: VfsFile>(
    file: &F,
    number: u64,
    reader: &FrameReader,
    part: Range<u64>,
    expected: u64,
    visit: &mut dyn FnMut(FrameFound),
) -> io::Result<()> {
    let mut at = part.start;
    let mut expected = expected;
    while at + (FRAME_HEADER_BYTES as u64) <= part.end {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        file.read_at(&mut bytes, at)?;
        let header = FrameHeader::decode(&bytes).ok();
        let fits = |header: &FrameHeader| {
            let end = at + FRAME_HEADER_BYTES as u64 + u64::from(header.len);
            header.segment == number && header.group == expected && end <= part.end
        };
        let Some(header) = header.filter(fits) else { return Ok(()) };
        let mut frame = vec![0; FRAME_HEADER_BYTES + header.len as usize];
        file.read_at(&mut frame, at)?;
        let mut is_intact = reader.is_intact(&frame);
        let stored = Bytes::from(frame).slice(FRAME_HEADER_BYTES..);
        let body = match header.is_coded() {
            false => stored.clone(),
            // Of a coded body that is damaged nothing can be told.
            true => {
                let opened = reader.open(&header, stored.to_vec(), at).ok().filter(|_| is_intact);
                is_intact = opened.is_some();
                opened.unwrap_or_default()
            }
        };
        at += (FRAME_HEADER_BYTES + stored.len()) as u64;
        visit(FrameFound { group: expected, kind: header.kind, body, is_intact });
        if header.is_last {
            at = crate::frame::to_blocks(at);
            expected += 1;
        }
    }
    Ok(())
}
