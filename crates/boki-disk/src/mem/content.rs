//! What a file holds: what readers see of it, what the disk has of that for certain, and, where the disk is damaged, what
//! a sound one would have.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::SECTOR_BYTES;

type Sector = [u8; SECTOR_BYTES];

/// Bytes, and what becomes of them when the power goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    durable_len: usize,
    /// What the disk still has of the sectors written since the last sync.
    unsynced: BTreeMap<usize, Sector>,
    /// The same of sectors that the system takes for written though the disk may never have got them: a sync passes over
    /// them, until they are written again.
    forgotten: BTreeMap<usize, Sector>,
}

impl Content {
    /// Writes, beyond the end too.
    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        self.grow(end);
        for sector in sectors(at..end) {
            let durable = self.forgotten.remove(&sector).unwrap_or_else(|| self.sector(sector));
            self.unsynced.entry(sector).or_insert(durable);
        }
        self.bytes[at..end].copy_from_slice(bytes);
    }

    fn grow(&mut self, len: usize) {
        self.bytes.resize(len.max(self.bytes.len()), 0);
    }

    /// The system takes these sectors for written from now on.
    fn forget(&mut self, sector: usize) {
        if let Some(durable) = self.unsynced.remove(&sector) {
            self.forgotten.entry(sector).or_insert(durable);
        }
    }

    fn sector(&self, sector: usize) -> Sector {
        let mut out = [0; SECTOR_BYTES];
        let start = (sector * SECTOR_BYTES).min(self.bytes.len());
        let end = self.bytes.len().min(start + SECTOR_BYTES);
        out[..end - start].copy_from_slice(&self.bytes[start..end]);
        out
    }

    fn put_back(&mut self, sector: usize, durable: &Sector) {
        let start = sector * SECTOR_BYTES;
        let end = self.bytes.len().min(start + SECTOR_BYTES);
        if let Some(bytes) = self.bytes.get_mut(start..end) {
            bytes.copy_from_slice(&durable[..bytes.len()]);
        }
    }

    /// What was written of this sector has got to the disk, or is lost.
    fn settle(&mut self, sector: usize, is_lost: bool) {
        let unsynced = self.unsynced.remove(&sector);
        let forgotten = self.forgotten.remove(&sector);
        if let Some(durable) = unsynced.or(forgotten).filter(|_| is_lost) {
            self.put_back(sector, &durable);
        }
    }
}

fn sectors(range: Range<usize>) -> Range<usize> {
    range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES)
}

/// What the disk makes of a write that it reports as done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// What it should.
    Done,
    /// Nothing.
    Lost,
    /// It is seen, and a sync passes over it.
    Forgotten,
}

/// A file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    content: Content,
    /// What a sound disk would have, once this one was damaged.
    sound: Option<Box<Content>>,
    /// Sectors that cannot be read.
    bad: BTreeSet<usize>,
}

impl Inode {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.content.bytes
    }

    fn both(&mut self) -> impl Iterator<Item = &mut Content> {
        std::iter::once(&mut self.content).chain(self.sound.as_deref_mut())
    }

    /// From here on the file goes another way than a sound disk's.
    fn part(&mut self) -> &mut Content {
        self.sound.get_or_insert_with(|| Box::new(self.content.clone()));
        &mut self.content
    }

    pub(super) fn write(&mut self, bytes: &[u8], at: usize, fate: &Fate) {
        match fate {
            Fate::Done => {
                self.both().for_each(|content| content.write(bytes, at));
                for sector in sectors(at..at + bytes.len()) {
                    self.bad.remove(&sector);
                }
            }
            Fate::Lost => {
                let len = at + bytes.len();
                self.part().grow(len);
                if let Some(sound) = &mut self.sound {
                    sound.write(bytes, at);
                }
            }
            Fate::Forgotten => {
                self.part();
                self.both().for_each(|content| content.write(bytes, at));
                sectors(at..at + bytes.len()).for_each(|sector| self.content.forget(sector));
            }
        }
    }

    /// A write that was meant for elsewhere.
    pub(super) fn hit(&mut self, bytes: &[u8], at: usize) {
        let content = self.part();
        content.grow(at + bytes.len());
        content.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn grow(&mut self, len: usize) {
        self.both().for_each(|content| content.grow(len));
    }

    pub(super) fn sync(&mut self) {
        for content in self.both() {
            content.durable_len = content.bytes.len();
            content.unsynced.clear();
        }
    }

    /// The system has tried, failed, and takes the sectors for written.
    pub(super) fn fail_sync(&mut self) {
        for content in self.both() {
            let sectors: Vec<usize> = content.unsynced.keys().copied().collect();
            sectors.into_iter().for_each(|sector| content.forget(sector));
        }
    }

    /// What memory has and the disk has not is gone.
    pub(super) fn forget_cached(&mut self) {
        for content in self.both() {
            for (sector, durable) in std::mem::take(&mut content.forgotten) {
                content.put_back(sector, &durable);
            }
        }
    }

    /// Whether a sector of `range` cannot be read.
    pub(super) fn is_bad(&self, range: Range<usize>) -> bool {
        self.bad.range(sectors(range)).next().is_some()
    }

    /// Whether `range` is not what a sound disk would have, now or once memory is gone, or cannot be read.
    pub(super) fn is_damaged(&self, range: Range<usize>) -> bool {
        let Some(sound) = &self.sound else { return self.is_bad(range) };
        let here = |content: &Content| {
            let len = content.bytes.len();
            content.bytes.get(range.start.min(len)..range.end.min(len)).map(<[u8]>::to_vec)
        };
        let mut forgotten = self.content.forgotten.range(sectors(range.clone())).map(|(sector, _)| sector);
        here(sound) != here(&self.content)
            || forgotten.any(|sector| !sound.forgotten.contains_key(sector))
            || self.is_bad(range)
    }

    pub(super) fn flip_bit(&mut self, at: usize, bit: u8) -> bool {
        if at >= self.content.bytes.len() {
            return false;
        }
        self.part().bytes[at] ^= 1 << (bit % 8);
        true
    }

    pub(super) fn truncate(&mut self, len: usize) {
        let content = self.part();
        content.bytes.truncate(len);
        content.durable_len = content.durable_len.min(len);
    }

    pub(super) fn spoil_sector(&mut self, at: usize) {
        self.bad.insert(at / SECTOR_BYTES);
    }

    /// As if the disk had never been damaged.
    pub(super) fn heal(&mut self) {
        if let Some(sound) = self.sound.take() {
            self.content = *sound;
        }
        self.bad.clear();
    }

    /// The power goes: of every sector and of the length `choose(2)` says whether the disk had got it (0: it had not).
    pub(super) fn crash(&mut self, choose: &mut dyn FnMut(u64) -> u64) {
        let sectors = self.both().flat_map(|content| content.unsynced.keys().chain(content.forgotten.keys()));
        let sectors: BTreeSet<usize> = sectors.copied().collect();
        for sector in sectors {
            let is_lost = choose(2) == 0;
            self.both().for_each(|content| content.settle(sector, is_lost));
        }
        let is_short = self.both().any(|content| content.bytes.len() != content.durable_len) && choose(2) == 0;
        for content in self.both() {
            if is_short {
                content.bytes.resize(content.durable_len, 0);
            }
            content.durable_len = content.bytes.len();
        }
        if self.sound.as_deref() == Some(&self.content) {
            self.sound = None;
        }
    }
}
