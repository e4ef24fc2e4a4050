//! The index as bytes, for a checkpoint. Little-endian; a list is its length (u64) and its items. The file that holds
//! it has the checksum.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Reader, Writer};
use crate::error::LogError;
use crate::ids::{AppendId, BookId, LocalId, NodeId, Seq, ShardId, Term};
use crate::tag::Tag;

use super::Index;
use super::book::{BookIndex, Entry, TagIndex};
use super::places::{Places, Run};

/// First field of a snapshot: changes with its layout.
const VERSION: u32 = 1;

impl Index {
    /// The whole index as bytes.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.put_snapshot(&mut out);
        out.freeze()
    }

    /// Appends the whole index as bytes.
    pub fn put_snapshot(&self, out: &mut BytesMut) {
        out.put_u32_le(VERSION);
        out.put_u64_le(self.end.0);
        out.put_u64_le(self.next_cut);
        out.put_u64_le(self.time_us);
        out.put_u64_le(self.live_records);
        out.put_u64_le(self.places.runs.len() as u64);
        for run in &self.places.runs {
            out.put_u64_le(run.start.0);
            out.put_u16_le(run.shard.engine.0);
            out.put_u32_le(run.shard.term.0);
            out.put_u64_le(run.from.0);
            out.put_u64_le(run.count);
        }
        out.put_u64_le(self.places.times.len() as u64);
        for (seq, time) in &self.places.times {
            out.put_u64_le(seq.0);
            out.put_u64_le(*time);
        }
        out.put_u64_le(self.books.len() as u64);
        for (id, book) in &self.books {
            out.put_u64_le(id.0);
            put_book(out, book);
        }
    }

    /// Takes a snapshot apart.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if `bytes` is not a whole snapshot of this version.
    pub fn restore(bytes: &Bytes) -> Result<Index, LogError> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != VERSION {
            return Err(LogError::Malformed { reason: "an index snapshot of another version" });
        }
        let mut index = Index {
            end: Seq(reader.u64()?),
            next_cut: reader.u64()?,
            time_us: reader.u64()?,
            live_records: reader.u64()?,
            ..Index::default()
        };
        let mut places = Places::default();
        for _ in 0..reader.u64()? {
            let start = Seq(reader.u64()?);
            let shard = ShardId { engine: NodeId(reader.u16()?), term: Term(reader.u32()?) };
            places.runs.push_back(Run { start, shard, from: LocalId(reader.u64()?), count: reader.u64()? });
        }
        for _ in 0..reader.u64()? {
            places.times.push_back((Seq(reader.u64()?), reader.u64()?));
        }
        index.places = places;
        for _ in 0..reader.u64()? {
            index.books.insert(BookId(reader.u64()?), take_book(&mut reader)?);
        }
        reader.finish()?;
        Ok(index)
    }
}

fn put_book(out: &mut BytesMut, book: &BookIndex) {
    out.put_u8(u8::from(book.closed));
    out.put_u64_le(book.floor.0);
    out.put_u64_le((book.records.len() - book.tombs) as u64);
    for entry in book.records.iter().filter(|entry| entry.claims > 0) {
        out.put_u64_le(entry.seq.0);
        out.put_u16_le(entry.claims);
    }
    out.put_u64_le(book.tags.len() as u64);
    for (tag, index) in &book.tags {
        out.put_short_str(tag.as_str());
        out.put_u64_le(index.fence);
        out.put_u64_le(index.seqs.len() as u64);
        for seq in &index.seqs {
            out.put_u64_le(seq.0);
        }
    }
    out.put_u64_le(book.ids.order.len() as u64);
    for (time, id) in &book.ids.order {
        out.put_u64_le(*time);
        out.put_slice(&id.0);
        out.put_u64_le(book.ids.get(*id).unwrap_or_default().0);
    }
}

fn take_book(reader: &mut Reader<'_>) -> Result<BookIndex, LogError> {
    let mut book = BookIndex { closed: reader.u8()? != 0, floor: Seq(reader.u64()?), ..BookIndex::default() };
    for _ in 0..reader.u64()? {
        book.records.push_back(Entry { seq: Seq(reader.u64()?), claims: reader.u16()? });
    }
    for _ in 0..reader.u64()? {
        let tag = Tag::new(reader.short_str()?)?;
        let fence = reader.u64()?;
        let mut seqs = VecDeque::new();
        for _ in 0..reader.u64()? {
            seqs.push_back(Seq(reader.u64()?));
        }
        book.tags.insert(tag, TagIndex { seqs, fence });
    }
    for _ in 0..reader.u64()? {
        let time = reader.u64()?;
        let id = AppendId(reader.array()?);
        book.ids.insert(id, Seq(reader.u64()?), time);
    }
    Ok(book)
}
