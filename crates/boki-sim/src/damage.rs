//! What a disk does that it must not, and what must hold then.
//!
//! The disk in memory keeps what a sound one would have, so it is known of every byte whether it is damaged. A node that
//! starts on a damaged disk either refuses, names a damaged file and leaves everything as it was; or it opens, and finds
//! exactly what it would on the sound disk. One thing cannot be told from a write that was interrupted: that the last groups, with
//! nothing intact behind them, are damaged, as when the last segment's file has lost its end. Then exactly those may be
//! missing.

use std::collections::BTreeMap;
use std::ops::Range;

use boki_disk::mem::MemDisk;
use boki_disk::vfs::{Vfs, VfsFile};
use boki_disk::{BLOCK_BYTES, FRAME_HEADER_BYTES};
use boki_log::NodeId;
use boki_log::codec::crc32c;
use boki_log::storage::{Found, FramePlace};
use bytes::Bytes;

use crate::disk::{NodeDisk, Opened, Refused, segment_file};
use crate::mutation::Mutation;
use crate::rng::Rng;
use crate::violation::{Checked, Violation, ensure};
use crate::world::World;

/// What happens to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A bit turns.
    Rot,
    /// A file loses its end.
    Truncated,
    /// A sector cannot be read any more.
    BadSector,
    /// A read fails, once.
    FailingRead,
    /// A write is reported as done and is not there.
    LostWrite,
    /// The same, but memory shows it until the power goes.
    ForgottenWrite,
    /// A write is elsewhere than it should be.
    MisdirectedWrite,
    /// No write and no sync succeeds any more.
    WornOut,
}

impl Damage {
    /// All of them.
    pub const ALL: &[Damage] = &[
        Damage::Rot,
        Damage::Truncated,
        Damage::BadSector,
        Damage::FailingRead,
        Damage::LostWrite,
        Damage::ForgottenWrite,
        Damage::MisdirectedWrite,
        Damage::WornOut,
    ];

    pub(crate) fn counted(self) -> &'static str {
        match self {
            Damage::Rot => "bits turned",
            Damage::Truncated => "files cut off",
            Damage::BadSector => "sectors spoiled",
            Damage::FailingRead => "reads made to fail",
            Damage::LostWrite => "writes lost",
            Damage::ForgottenWrite => "writes forgotten",
            Damage::MisdirectedWrite => "writes misdirected",
            Damage::WornOut => "disks worn out",
        }
    }
}

/// Why a record could not be read.
#[derive(Debug)]
pub enum Unread {
    /// The disk is damaged there, or was told to fail.
    Damaged(String),
    /// The disk is sound.
    Wrong(String),
}

impl NodeDisk {
    /// Damages the disk. Where and what, `rng` says.
    pub fn damage(&mut self, damage: Damage, rng: &mut Rng) {
        let mem = self.mem();
        let names = mem.names();
        let Some(name) = rng.pick(&names) else { return };
        let len = mem.contents(name).map_or(0, |bytes| {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if rng.chance(800) { used } else { bytes.len() }
        }) as u64;
        let at = rng.below(len);
        let writes = rng.below(4);
        match damage {
            Damage::Rot => drop(mem.flip_bit(name, at, rng.below(8) as u8)),
            Damage::Truncated => mem.truncate(name, at),
            Damage::BadSector => mem.spoil_sector(name, at),
            Damage::FailingRead => mem.fail_read_after(writes),
            Damage::LostWrite => mem.lose_write_after(writes, true),
            Damage::ForgottenWrite => mem.lose_write_after(writes, false),
            Damage::MisdirectedWrite => mem.misdirect_write_after(writes, name, at / 4096 * 4096),
            Damage::WornOut => mem.set_worn_out(true),
        }
    }

    /// Whether something on it is not as it should be.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.mem().is_worn_out() || !self.mem().damaged().is_empty()
    }

    /// The bytes of the record that is to be found there, if they are what was written.
    pub fn read_record(&self, found: Found, is_checked: bool) -> Result<Bytes, Unread> {
        let failed_reads = self.mem().counts().failed_reads;
        let has_failed = || self.mem().counts().failed_reads > failed_reads;
        let place = match self.place(found) {
            Ok(place) => place,
            Err(error) if has_failed() || self.is_damaged() => return Err(Unread::Damaged(error)),
            Err(error) => return Err(Unread::Wrong(error)),
        };
        let read = self.read(place);
        let (from, name) = (u64::from(place.frame) + u64::from(place.at), segment_file(place.segment));
        let is_explained = has_failed() || self.mem().is_damaged(&name, from..from + u64::from(place.len));
        let bytes = match read {
            Ok(bytes) if crc32c(&bytes) == place.checksum || !is_checked => return Ok(bytes),
            Ok(_) => format!("{name} is damaged at {from}"),
            Err(error) => error,
        };
        Err(if is_explained { Unread::Damaged(bytes) } else { Unread::Wrong(bytes) })
    }

    /// A deliberate bug: whatever stands in the way of opening is cut off, with all that is behind it.
    pub(crate) fn open_cutting_off(&mut self) -> Result<Opened, Refused> {
        let refused = match self.open() {
            Err(refused) => refused,
            opened => return opened,
        };
        let Some((segment, offset)) = refused.at else { return Err(refused) };
        let name = segment_file(segment);
        let later = self.mem().names().into_iter().filter(|other| other.ends_with(".log") && *other > name);
        later.for_each(|name| drop(self.mem().remove(&name)));
        if let (Ok(file), Some(bytes)) = (self.mem().open(&name), self.mem().contents(&name)) {
            let left = bytes.len().saturating_sub(offset as usize);
            let _ = file.write_at(&vec![0; left], u64::from(offset));
        }
        self.open()
    }

    /// A deliberate bug: removes what a start removes that finds everything good.
    pub(crate) fn tidy(&mut self) {
        let unused = self.mem().names().into_iter().filter(|name| name.ends_with(".new"));
        unused.for_each(|name| drop(self.mem().remove(&name)));
    }

    /// A deliberate bug: removes a segment as if it were any file.
    pub(crate) fn unlink_segment(&mut self, segment: u64) -> bool {
        self.mem().remove(&segment_file(segment)).is_ok()
    }

    /// Opens it, though it is damaged, and checks what came of that. If it does not open as it would have without the
    /// damage, it is sound afterwards and not open.
    fn open_damaged(&mut self, mutation: Option<Mutation>) -> Checked<Result<Opened, Ailment>> {
        let before = self.mem().fork();
        let failed_reads = self.mem().counts().failed_reads;
        let opened = Mutation::open(mutation, self);
        let may_fail = before.is_worn_out() || self.mem().counts().failed_reads > failed_reads;
        let mut sound = self.other(before.fork());
        sound.heal();
        let truth = sound.open().map_err(|refused| Violation { check: "recovery", detail: refused.text })?;
        let ailment = match opened {
            Ok(opened) => {
                if opened == truth {
                    return Ok(Ok(opened));
                }
                check_last_only(&before, &opened, &truth)?;
                Ailment::LastGroup
            }
            Err(refused) => {
                ensure(may_fail || before.is_damaged(&refused.file, 0..u64::MAX), "damage-misnamed", || {
                    format!("{:?} are damaged, and it says: {}", before.damaged(), refused.text)
                })?;
                // A sync that fails leaves on the disk whatever it likes of what was not synced before.
                ensure(before.is_worn_out() || all(&before) == all(self.mem()), "damage-touched", || {
                    format!("files have changed though the start was refused: {}", refused.text)
                })?;
                Ailment::Refused(refused)
            }
        };
        *self = self.other(before);
        self.heal();
        Ok(Err(ailment))
    }
}

/// What a damaged disk came to.
#[derive(Debug)]
enum Ailment {
    /// It did not open, and said why.
    Refused(Refused),
    /// It opened without the last group, as if that had been interrupted.
    LastGroup,
}

/// What is on the disk, whatever memory shows.
fn all(disk: &MemDisk) -> BTreeMap<String, Option<Vec<u8>>> {
    let disk = disk.fork();
    let mut files = BTreeMap::new();
    for name in disk.names() {
        // A file that is there opens.
        let _ = disk.open(&name).and_then(|file| file.forget_cached());
        files.insert(name.clone(), disk.contents(&name));
    }
    files
}

/// The number of the last group; 0 if there is none.
fn group(opened: &Opened) -> u64 {
    opened.last.map_or(0, |last| last.group)
}

/// That nothing but the last group is missing, and that this one is damaged; or the last groups of the last segment, all of
/// which are, as when its file has lost its end.
fn check_last_only(before: &MemDisk, opened: &Opened, truth: &Opened) -> Checked {
    let missing = truth.frames.get(opened.frames.len()..).unwrap_or_default();
    let is_prefix = opened.checkpoint == truth.checkpoint && truth.frames.starts_with(&opened.frames);
    let from = |place: &FramePlace| u64::from(place.offset) - FRAME_HEADER_BYTES as u64;
    let last_segment = truth.frames.last().map_or(0, |(_, place)| place.segment);
    let mut groups: Vec<(u64, Range<u64>)> = Vec::new();
    for (frame, place) in missing {
        let (start, end) = (from(place), u64::from(place.offset) + frame.body.len() as u64);
        match groups.last_mut() {
            Some((segment, group)) if *segment == place.segment && !start.is_multiple_of(BLOCK_BYTES as u64) => {
                group.end = end;
            }
            _ => groups.push((place.segment, start..end)),
        }
    }
    let is_damaged = |(segment, group): &(u64, Range<u64>)| before.is_damaged(&segment_file(*segment), group.clone());
    // One that is intact behind one that is not would have told.
    let is_last =
        group(opened) + 1 == group(truth) || groups.iter().all(|group| group.0 == last_segment && is_damaged(group));
    let is_damaged = groups.iter().any(is_damaged);
    ensure(is_prefix && is_damaged && is_last, "damage-served", || {
        format!(
            "{:?} are damaged; it opened with {} frames up to group {} and not with {} up to group {}",
            before.damaged(),
            opened.frames.len(),
            group(opened),
            truth.frames.len(),
            group(truth),
        )
    })
}

impl World {
    /// Opens the disk of `id`; nothing if that was refused for good reason, and the node stays down for a while.
    pub(crate) fn open_disk(&mut self, id: NodeId) -> Checked<Option<Opened>> {
        let Some(disk) = self.nodes.get_mut(&id).and_then(|node| node.disk.as_mut()) else { return Ok(None) };
        let is_reading_to_fail =
            !self.is_calm && self.plan.faults.damages.contains(&Damage::FailingRead) && self.rng.damage.chance(300);
        if is_reading_to_fail {
            disk.mem().fail_read_after(self.rng.damage.below(8));
        }
        // What a failure that has not come yet will do to the start is only known afterwards.
        if !self.plan.faults.damages.is_empty() {
            match disk.open_damaged(self.mutation)? {
                Ok(opened) => return Ok(Some(opened)),
                Err(Ailment::LastGroup) => self.count("last groups lost to damage"),
                Err(Ailment::Refused(refused)) => {
                    self.count("starts refused for damage");
                    self.note(id, format_args!("does not start: {}", refused.text));
                    if !self.is_calm && self.rng.damage.chance(500) {
                        return Ok(None);
                    }
                }
            }
        }
        let Some(disk) = self.nodes.get_mut(&id).and_then(|node| node.disk.as_mut()) else { return Ok(None) };
        let opened = disk.open();
        opened.map(Some).map_err(|refused| Violation {
            check: "recovery",
            detail: format!("the disk is sound and does not open: {}", refused.text),
        })
    }
}
