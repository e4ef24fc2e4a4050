//! Checkpoints: what recovery needs of the journal up to some group, so that it reads only what is behind it, and segments
//! before it may go. For a process that plays all roles.
//!
//! Little-endian: version u32; then sections, each an id (u8), a length (u64) and so many bytes. A section that is not known
//! here is from a later version, which this one must not go on from.
//!
//! | id | section | holds |
//! |---|---|---|
//! | 1 | journal | the last group that is covered: segment u64, group u64, offset u32; empty if there is none |
//! | 2 | order | how far each shard is ordered: engine u16, term u32, local id u64 for each |
//! | 3 | storage | which segments have which records, alive or dead; the rest is in place files |
//! | 4 | index | the index: which tables there are, and what is in none |
//! | 5 | retention | the rules of books and what they add up to; empty: there are none |
//!
//! Version 1 had no sections: the order's length (u32) and its entries, then the snapshot.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Damage, Machine};
use crate::codec::Reader;
use crate::engine::Engine;
use crate::error::LogError;
use crate::ids::{LocalId, NodeId, ShardId, Term};
use crate::index::{Freeze, Index, RestoreError, SortedTable, TableError, TableInfo};
use crate::retention::Retention;
use crate::storage::{GroupPlace, StorageSnapshot, Unfiled};

const VERSION: u32 = 2;
const WITHOUT_SECTIONS: u32 = 1;

const JOURNAL: u8 = 1;
const ORDER: u8 = 2;
const STORAGE: u8 = 3;
const INDEX: u8 = 4;
const RETENTION: u8 = 5;

/// Bytes of an entry of the order: engine, term, local id.
const ORDER_ENTRY_BYTES: usize = 14;

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last group that is covered.
    pub covered: Option<GroupPlace>,
    ordered: Vec<(ShardId, LocalId)>,
    storage: StorageSnapshot,
    /// A snapshot, or a section that names tables.
    index: Bytes,
    /// A snapshot.
    retention: Bytes,
    /// What must be in place files before the checkpoint is written. It is no part of it.
    pub unfiled: Vec<Unfiled>,
}

impl Machine {
    /// Takes back what a checkpoint holds, before any frame.
    ///
    /// # Errors
    /// [`Damage::Unreadable`], [`Damage::NotBegun`].
    pub fn recover_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), Damage> {
        self.recover_checkpoint_and_tables(checkpoint, Index::no_tables)
    }

    /// Likewise, of a checkpoint that names tables of the index; `open` gives each.
    ///
    /// # Errors
    /// [`Damage::Unreadable`], [`Damage::NotBegun`], [`Damage::Index`].
    pub fn recover_checkpoint_and_tables(
        &mut self,
        checkpoint: Checkpoint,
        open: impl FnMut(&TableInfo) -> Result<Arc<dyn SortedTable>, TableError>,
    ) -> Result<(), Damage> {
        let Checkpoint { covered, ordered, storage: places, index, retention, .. } = checkpoint;
        for (shard, _) in &ordered {
            self.check_begun(*shard)?;
        }
        let index = Index::restore(&index, open).map_err(|error| match error {
            RestoreError::Malformed(source) => Damage::Unreadable { what: "checkpoint", source },
            RestoreError::Table(error) => Damage::Index(error),
        })?;
        let retention = if retention.is_empty() {
            Retention::default()
        } else {
            let unreadable = |source| Damage::Unreadable { what: "checkpoint", source };
            Retention::restore(&retention).map_err(unreadable)?
        };
        self.covered = covered;
        self.counts_alive = covered.is_none();
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.restore(index.next_cut(), index.position().0, index.time_us(), &ordered);
        }
        if let Some(storage) = &mut self.storage {
            storage.restore(&ordered, places);
        }
        if let Some(engine) = &mut self.engine {
            engine.restore(index, retention);
        }
        Ok(())
    }

    /// What is known now, for a checkpoint that stands for itself. `None` while records on disk are not ordered yet, which the
    /// next group ends, in a process that does not play all roles, and if a table of the index cannot be read.
    #[must_use]
    pub fn checkpoint(&mut self) -> Option<Checkpoint> {
        let (checkpoint, _) = self.freeze()?;
        let index = self.index_mut()?.snapshot().ok()?;
        Some(Checkpoint { index, ..checkpoint })
    }

    /// As [`Machine::checkpoint`], but of the index there is only what must be written out; [`Checkpoint::with_index`] adds
    /// what comes of that.
    #[must_use]
    pub fn freeze(&mut self) -> Option<(Checkpoint, Freeze)> {
        if !self.covers_all {
            return None;
        }
        let ordered = self.ordered_by_index();
        let (storage, unfiled) = self.storage.as_ref()?.snapshot();
        let engine = self.engine.as_mut()?;
        let retention = engine.retention().snapshot();
        let freeze = engine.index_mut().freeze();
        let checkpoint =
            Checkpoint { covered: self.covered, ordered, storage, index: Bytes::new(), retention, unfiled };
        Some((checkpoint, freeze))
    }

    /// The index, to give it tables.
    pub fn index_mut(&mut self) -> Option<&mut Index> {
        self.engine.as_mut().map(Engine::index_mut)
    }

    /// What `checkpoint` needed in place files is there.
    pub fn filed(&mut self, unfiled: &[Unfiled]) {
        if let Some(storage) = &mut self.storage {
            storage.filed(unfiled);
        }
    }

    /// After recovery from a checkpoint that covers nothing, as version 1 wrote them: what was trimmed before it, no frame tells
    /// again, so the index is asked what is alive.
    pub(super) fn count_alive(&mut self) {
        if !std::mem::take(&mut self.counts_alive) {
            return;
        }
        let ordered = self.ordered_by_index();
        if let (Some(engine), Some(storage)) = (&self.engine, &mut self.storage) {
            storage.keep_only(&engine.index().live().collect(), &ordered);
        }
    }

    /// Everything up to the group `last` is on disk. A checkpoint may cover it if everything in it is ordered too.
    pub(super) fn cover(&mut self, last: Option<GroupPlace>) {
        let (Some(sequencer), Some(storage), Some(engine)) = (&self.sequencer, &self.storage, &self.engine) else {
            return;
        };
        // Looking at every shard is for the start: later, each group ends with the cut that orders all of it.
        if self.covers_all {
            self.covers_all = sequencer.cuts_from(engine.index().next_cut()).next().is_none();
        } else {
            self.covers_all = storage.is_ordered(&self.ordered_by_index());
        }
        if self.covers_all {
            self.covered = last;
        }
    }

    /// How far each shard is ordered by the cuts that the index has applied.
    fn ordered_by_index(&self) -> Vec<(ShardId, LocalId)> {
        let (Some(sequencer), Some(engine)) = (&self.sequencer, &self.engine) else { return Vec::new() };
        let unapplied = sequencer.cuts_from(engine.index().next_cut());
        let mut ordered: Vec<_> = sequencer.ordered().collect();
        for delta in unapplied.flat_map(|cut| &cut.deltas) {
            for (shard, upto) in &mut ordered {
                if *shard == delta.shard {
                    *upto = (*upto).min(delta.from);
                }
            }
        }
        ordered
    }
}

impl Checkpoint {
    /// The tables of the index that it needs.
    ///
    /// # Errors
    /// [`LogError::Malformed`], if its index does not parse.
    pub fn tables(&self) -> Result<Vec<TableInfo>, LogError> {
        Index::tables_named(&self.index)
    }

    /// With the section that a [`Freeze`] gave once its table was written.
    #[must_use]
    pub fn with_index(self, section: Bytes) -> Checkpoint {
        Checkpoint { index: section, ..self }
    }

    /// The checkpoint as bytes. The file that holds it has the checksum.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(VERSION);
        put_section(&mut out, JOURNAL, |out| {
            if let Some(GroupPlace { segment, group, offset }) = self.covered {
                out.put_u64_le(segment);
                out.put_u64_le(group);
                out.put_u32_le(offset);
            }
        });
        put_section(&mut out, ORDER, |out| self.put_order(out));
        put_section(&mut out, STORAGE, |out| self.storage.put(out));
        put_section(&mut out, INDEX, |out| out.put_slice(&self.index));
        put_section(&mut out, RETENTION, |out| out.put_slice(&self.retention));
        out.freeze()
    }

    /// As version 1 wrote it.
    #[cfg(test)]
    pub(super) fn encode_without_sections(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(WITHOUT_SECTIONS);
        out.put_u32_le(self.ordered.len() as u32);
        self.put_order(&mut out);
        out.put_slice(&self.index);
        out.freeze()
    }

    fn put_order(&self, out: &mut BytesMut) {
        for (shard, upto) in &self.ordered {
            out.put_u16_le(shard.engine.0);
            out.put_u32_le(shard.term.0);
            out.put_u64_le(upto.0);
        }
    }

    /// Takes a checkpoint's bytes apart.
    ///
    /// # Errors
    /// [`Damage::Unreadable`].
    pub fn decode(bytes: &Bytes) -> Result<Checkpoint, Damage> {
        decode(bytes).map_err(|source| Damage::Unreadable { what: "checkpoint", source })
    }
}

fn decode(bytes: &Bytes) -> Result<Checkpoint, LogError> {
    let mut reader = Reader::new(bytes);
    match reader.u32()? {
        VERSION => {}
        WITHOUT_SECTIONS => return decode_without_sections(reader),
        _ => return Err(LogError::Malformed { reason: "a checkpoint of another version" }),
    }
    let mut checkpoint = Checkpoint::default();
    let mut next = JOURNAL;
    while reader.remaining() > 0 {
        let id = reader.u8()?;
        let len = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        let section = reader.bytes(len)?;
        if id != next {
            return Err(LogError::Malformed { reason: "a section is missing, or is not known" });
        }
        next += 1;
        let mut section = Reader::new(&section);
        match id {
            JOURNAL if section.remaining() == 0 => {}
            JOURNAL => {
                let place = GroupPlace { segment: section.u64()?, group: section.u64()?, offset: section.u32()? };
                checkpoint.covered = Some(place);
            }
            ORDER => {
                while section.remaining() >= ORDER_ENTRY_BYTES {
                    checkpoint.ordered.push(order_entry(&mut section)?);
                }
            }
            STORAGE => checkpoint.storage = StorageSnapshot::take(&mut section)?,
            INDEX => checkpoint.index = section.rest(),
            _ => checkpoint.retention = section.rest(),
        }
        section.finish()?;
    }
    if next <= RETENTION {
        return Err(LogError::Malformed { reason: "a section is missing" });
    }
    Ok(checkpoint)
}

fn order_entry(reader: &mut Reader<'_>) -> Result<(ShardId, LocalId), LogError> {
    let shard = ShardId { engine: NodeId(reader.u16()?), term: Term(reader.u32()?) };
    Ok((shard, LocalId(reader.u64()?)))
}

/// What version 1 wrote: it covers nothing, so every frame is read again.
fn decode_without_sections(mut reader: Reader<'_>) -> Result<Checkpoint, LogError> {
    let count = reader.u32()?;
    let ordered = (0..count).map(|_| order_entry(&mut reader)).collect::<Result<_, _>>()?;
    Ok(Checkpoint { covered: None, ordered, index: reader.rest(), ..Checkpoint::default() })
}

/// Appends a section: its id, its length, and what `put` appends.
fn put_section(out: &mut BytesMut, id: u8, put: impl FnOnce(&mut BytesMut)) {
    out.put_u8(id);
    let len_at = out.len();
    out.put_u64_le(0);
    let start = out.len();
    put(out);
    let len = (out.len() - start) as u64;
    if let Some(field) = out.get_mut(len_at..start) {
        field.copy_from_slice(&len.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let shard = |term| ShardId { engine: NodeId(1), term: Term(term) };
        let covered = Some(GroupPlace { segment: 3, group: 9, offset: 8192 });
        Checkpoint {
            covered,
            ordered: vec![(shard(1), LocalId(5)), (shard(2), LocalId(7))],
            index: Index::new().snapshot().unwrap(),
            retention: Retention::default().snapshot(),
            ..Checkpoint::default()
        }
    }

    #[test]
    fn a_checkpoint_survives_its_encoding_and_no_prefix_of_it_does() {
        let checkpoint = checkpoint();
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint));
        for len in 0..bytes.len() {
            assert!(Checkpoint::decode(&bytes.slice(..len)).is_err(), "{len} bytes");
        }
        let empty = Checkpoint::default();
        assert_eq!(Checkpoint::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn a_checkpoint_with_a_section_of_a_later_version_is_refused() {
        let mut bytes = BytesMut::from(&checkpoint().encode()[..]);
        put_section(&mut bytes, 200, |out| out.put_u8(1));
        assert!(Checkpoint::decode(&bytes.freeze()).is_err());
    }
}
