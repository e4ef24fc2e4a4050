//! Snapshots of version 1: the whole index, without tables. Little-endian; a list is its length (u64) and its items.

use std::collections::VecDeque;

use crate::codec::Reader;
use crate::error::LogError;
use crate::ids::{AppendId, BookId, LocalId, NodeId, Seq, ShardId, Term};
use crate::tag::Tag;

use super::chunk::TagState;
use super::claims::Claim;
use super::recent::{RecentTag, is_reserved};
use super::runs::Run;
use super::{Book, Index};

/// First field of such a snapshot.
pub(super) const VERSION: u32 = 1;

/// Takes what follows the version apart. All of it is recent.
pub(super) fn restore(mut reader: Reader<'_>) -> Result<Index, LogError> {
    let mut index = Index { end: Seq(reader.u64()?), ..Index::new() };
    index.next_cut = reader.u64()?;
    index.time_us = reader.u64()?;
    let living = reader.u64()?;
    for _ in 0..reader.u64()? {
        let start = Seq(reader.u64()?);
        let shard = ShardId { engine: NodeId(reader.u16()?), term: Term(reader.u32()?) };
        index.runs.0.push_back(Run { start, shard, from: LocalId(reader.u64()?), count: reader.u64()? });
    }
    for _ in 0..reader.u64()? {
        index.times.push_back((Seq(reader.u64()?), reader.u64()?));
    }
    for _ in 0..reader.u64()? {
        let id = BookId(reader.u64()?);
        let book = take_book(&mut reader, &mut index)?;
        if id == BookId::CATALOG {
            for seq in &book.recent.records {
                let at = index.times.partition_point(|(start, _)| start <= seq);
                let time = at.checked_sub(1).and_then(|at| index.times.get(at)).map_or(0, |(_, time_us)| *time_us);
                index.catalog_times.insert(*seq, time);
            }
        }
        index.books.insert(id, book);
    }
    reader.finish()?;
    if index.live_records() != living {
        return Err(LogError::Malformed { reason: "an index whose records are not as many as it says" });
    }
    Ok(index)
}

fn take_book(reader: &mut Reader<'_>, index: &mut Index) -> Result<Book, LogError> {
    let closed = reader.u8()? != 0;
    let mut book = Book { closed, floor: Seq(reader.u64()?), ..Book::default() };
    if closed {
        book.since = Seq::MAX;
    }
    for _ in 0..reader.u64()? {
        let seq = Seq(reader.u64()?);
        index.claims.set(seq, Claim::new(reader.u16()?, false));
        book.recent.records.push_back(seq);
        book.count += 1;
        index.recent_bytes += size_of::<Seq>();
    }
    for _ in 0..reader.u64()? {
        let tag = Tag::new(reader.short_str()?)?;
        let fence = reader.u64()?;
        let seqs = (0..reader.u64()?).map(|_| reader.u64().map(Seq)).collect::<Result<VecDeque<_>, _>>()?;
        if is_reserved(tag.as_str()) {
            for seq in &seqs {
                let claim = index.claims.get(*seq);
                if claim.is_alive() {
                    index.claims.set(*seq, Claim::new(claim.count(), true));
                }
            }
        }
        book.is_fenced |= fence > 0;
        let state = (fence > 0).then_some(TagState { fence, floor: Seq::NONE });
        book.recent.tags.insert(tag, RecentTag { seqs, state });
    }
    for _ in 0..reader.u64()? {
        let (time_us, id) = (reader.u64()?, AppendId(reader.array()?));
        book.ids.insert(id, Seq(reader.u64()?), time_us);
    }
    Ok(book)
}
