//! What an index says, wherever it lies: two are equal if they give the same answers. For tests and the simulator; it looks
//! at everything.

use std::collections::BTreeMap;

use crate::ids::{BookId, LocalId, Seq, ShardId};
use crate::tag::Tag;

use super::Index;
use super::lookup::TagHeads;
use super::table::TableError;
use super::window::Remembered;

/// Shard, local id and time of a record.
type Place = (ShardId, LocalId, u64);

#[derive(Debug, PartialEq, Eq)]
struct BookContent {
    closed: bool,
    count: u64,
    records: Vec<(Seq, Option<Place>)>,
    /// Those under which there is something, or that have a fence.
    tags: BTreeMap<Tag, (u64, Vec<Seq>)>,
    ids: Vec<Remembered>,
}

impl Index {
    fn content(&self) -> Result<BTreeMap<BookId, BookContent>, TableError> {
        let mut contents = BTreeMap::new();
        for (id, book) in self.books.iter().filter(|(_, book)| !book.is_blank()) {
            let (mut seqs, mut tags) = (Vec::new(), BTreeMap::new());
            self.next(*id, None, Seq::NONE, usize::MAX, &mut seqs)?;
            let places = seqs.iter().map(|seq| Ok((*seq, self.place(*seq)?)));
            let records = places.collect::<Result<_, TableError>>()?;
            let mut heads = TagHeads::new(self, *id, book, Seq::NONE, "", None)?;
            while let Some(tag) = heads.next()? {
                let mut seqs = Vec::new();
                self.next(*id, Some(&tag), Seq::NONE, usize::MAX, &mut seqs)?;
                let fence = if book.closed { 0 } else { self.state(*id, book, tag.as_str())?.fence };
                if fence > 0 || !seqs.is_empty() {
                    tags.insert(tag, (fence, seqs));
                }
            }
            let ids = book.ids.order.iter().copied().collect();
            contents.insert(*id, BookContent { closed: book.closed, count: book.count, records, tags, ids });
        }
        Ok(contents)
    }
}

impl PartialEq for Index {
    /// Whether both give the same answers to everything. An index with a table that cannot be read equals none.
    fn eq(&self, other: &Index) -> bool {
        let numbers = |index: &Index| (index.end, index.next_cut, index.time_us, index.live_records());
        numbers(self) == numbers(other)
            && self.content().is_ok_and(|content| other.content().is_ok_and(|other| content == other))
    }
}
