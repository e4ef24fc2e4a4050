//! What damage in the journal means: which seqs of which books cannot be read.
//!
//! A group is records and the cut that orders them. If the records of a group are damaged, the cuts before and behind say
//! which seqs were theirs; if the cut itself is damaged, so is the order of everything in it. Batches have checksums of their
//! own, so in a damaged frame most can be told to be intact.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use boki_disk::check::FrameFound;
use boki_log::batch::Batch;
use boki_log::cut::Cut;
use boki_log::machine::{FRAME_CUT, FRAME_RUN};
use boki_log::{BookId, LocalId, ShardId};
use bytes::Bytes;

use crate::finding::Lost;

/// What the names of books are kept under in the catalog.
const BOOK_PREFIX: &str = "~book/";
/// Bytes of a run before its batches: engine, term, first local id.
const RUN_HEADER_BYTES: usize = 14;
/// Where a batch says its book, and how many records it has.
const BOOK_AT: usize = 8;
const RECORDS_AT: usize = 40;

/// A batch in a damaged frame that is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BadBatch {
    group: u64,
    shard: (u16, u32),
    first: u64,
    records: u32,
    book: u64,
}

/// Gathers what says something of the order, while the journal is read.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Of each cut: its group, its first seq and the one behind its last.
    cuts: Vec<(u64, u64, u64)>,
    /// Where local ids got their seqs: shard, local ids, first seq.
    deltas: BTreeMap<((u16, u32), u64), (u64, u64)>,
    bad: Vec<BadBatch>,
    /// Groups in which there is a frame that nothing can be told of.
    unreadable: BTreeSet<u64>,
    /// Names of books, by the shard and local id of the record that made them.
    names: Vec<((u16, u32), u64, String)>,
    max_term: u32,
}

impl Order {
    /// The latest start of which anything is in the journal.
    pub(crate) fn max_term(&self) -> u32 {
        self.max_term
    }

    /// Takes note of a frame.
    pub(crate) fn note(&mut self, frame: &FrameFound) {
        match frame.kind {
            FRAME_CUT if frame.is_intact => {
                if let Ok(cut) = Cut::decode(&frame.body) {
                    self.note_cut(frame.group, &cut);
                }
            }
            FRAME_RUN => self.note_run(frame),
            _ if frame.is_intact => {}
            _ => drop(self.unreadable.insert(frame.group)),
        }
    }

    fn note_cut(&mut self, group: u64, cut: &Cut) {
        self.cuts.push((group, cut.start.0, cut.end().0));
        let mut seq = cut.start.0;
        for delta in &cut.deltas {
            self.max_term = self.max_term.max(delta.shard.term.0);
            self.deltas.insert((key(delta.shard), delta.from.0), (delta.end().0, seq));
            seq += u64::from(delta.count);
        }
    }

    /// Of an intact run only the catalog's records are of interest, of a damaged one what is damaged.
    fn note_run(&mut self, frame: &FrameFound) {
        let body = &frame.body;
        let Some((shard, mut first)) = run_header(body) else {
            self.unreadable.insert(frame.group);
            return;
        };
        let mut at = RUN_HEADER_BYTES;
        while at < body.len() {
            let word =
                |at: usize| body.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).map(|b| u32::from_le_bytes(*b));
            let len = word(at).map(|len| len as usize).filter(|len| *len > RECORDS_AT && at + len <= body.len());
            let (Some(len), Some(records)) = (len, word(at + RECORDS_AT)) else {
                // The lengths themselves are damaged: all the rest is.
                self.unreadable.insert(frame.group);
                return;
            };
            let bytes = body.slice(at..at + len);
            let book = bytes.get(BOOK_AT..).and_then(<[u8]>::first_chunk).map_or(0, |book| u64::from_le_bytes(*book));
            if !frame.is_intact && Batch::decode(bytes.clone()).is_err() {
                self.bad.push(BadBatch { group: frame.group, shard, first, records, book });
            } else if book == BookId::CATALOG.0 {
                self.note_books(shard, first, bytes);
            }
            first += u64::from(records);
            at += len;
        }
    }

    fn note_books(&mut self, shard: (u16, u32), first: u64, bytes: Bytes) {
        let Ok(batch) = Batch::decode(bytes) else { return };
        for (record, local) in batch.records().zip(first..) {
            let name = record.tags().find_map(|tag| tag.strip_prefix(BOOK_PREFIX).map(str::to_owned));
            self.names.extend(name.map(|name| (shard, local, name)));
        }
    }

    fn seq_of(&self, shard: (u16, u32), local: u64) -> Option<u64> {
        let ((found, from), (end, seq)) = self.deltas.range(..=(shard, local)).next_back()?;
        (*found == shard && local < *end).then(|| seq + local - from)
    }

    fn name_of(&self, book: u64) -> Option<String> {
        let named = self.names.iter().find(|(shard, local, _)| self.seq_of(*shard, *local) == Some(book));
        named.map(|(_, _, name)| name.clone())
    }

    /// The records that were in these groups and cannot be read.
    pub(crate) fn lost_in(&self, groups: &Range<u64>) -> Vec<Lost> {
        let before = self.cuts.iter().filter(|(group, ..)| *group < groups.start).map(|(.., end)| *end).max();
        let inside: Vec<u64> =
            self.cuts.iter().filter(|(group, ..)| groups.contains(group)).map(|(.., end)| *end).collect();
        let behind = self.cuts.iter().filter(|(group, ..)| *group >= groups.end).map(|(_, start, _)| *start).min();
        let from = before.unwrap_or(1);
        // Every group that is damaged has been told of batch by batch, and has its cut.
        let is_exact = groups.clone().all(|group| {
            !self.unreadable.contains(&group)
                && self.bad.iter().any(|bad| bad.group == group && self.seq_of(bad.shard, bad.first).is_some())
        });
        if is_exact && groups.end - groups.start < 1000 {
            let bad = self.bad.iter().filter(|bad| groups.contains(&bad.group));
            let lost = bad.filter_map(|bad| {
                let from = self.seq_of(bad.shard, bad.first)?;
                let to = from + u64::from(bad.records.max(1)) - 1;
                Some(Lost { book: Some(bad.book), name: self.name_of(bad.book), from, to: Some(to) })
            });
            return lost.collect();
        }
        let to = behind.or_else(|| inside.iter().max().copied());
        match to {
            // Only cuts, or nothing, were in them.
            Some(to) if to <= from => Vec::new(),
            Some(to) => vec![Lost { book: None, name: None, from, to: Some(to - 1) }],
            None => vec![Lost { book: None, name: None, from, to: None }],
        }
    }
}

fn key(shard: ShardId) -> (u16, u32) {
    (shard.engine.0, shard.term.0)
}

fn run_header(body: &Bytes) -> Option<((u16, u32), u64)> {
    let engine = u16::from_le_bytes(*body.first_chunk()?);
    let term = u32::from_le_bytes(*body.get(2..)?.first_chunk()?);
    let first = LocalId(u64::from_le_bytes(*body.get(6..)?.first_chunk()?));
    (body.len() >= RUN_HEADER_BYTES).then_some(((engine, term), first.0))
}
