//! A frozen part of the index: what was recent until a freeze. It does not change any more, is still asked, and is
//! written out as a table meanwhile.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::ids::{BookId, Seq};

use super::chunk::{self, Packed, TagState};
use super::claims::{self, Pages};
use super::key;
use super::recent::Recent;
use super::table::{Entries, Entry};

/// See the module's description.
#[derive(Debug)]
pub(super) struct Part {
    /// It covers the seqs from this one on ...
    pub(super) from: Seq,
    /// ... below this one.
    pub(super) to: Seq,
    pub(super) books: BTreeMap<BookId, Recent>,
    /// Rising; the first is of `from`.
    pub(super) times: VecDeque<(Seq, u64)>,
    /// The pages of claims that had changed, whatever they cover.
    pub(super) claims: Pages,
    /// Memory it takes, about.
    pub(super) bytes: usize,
}

impl Part {
    pub(super) fn list(&self, book: BookId, tag: Option<&str>) -> Option<&VecDeque<Seq>> {
        self.books.get(&book)?.list(tag)
    }

    pub(super) fn state(&self, book: BookId, tag: &str) -> Option<TagState> {
        self.books.get(&book)?.state(tag)
    }

    /// What it holds, as the entries of a table.
    pub(super) fn entries(&self) -> Entries<'_> {
        let tags = self.books.iter().flat_map(|(book, recent)| {
            recent.tags.iter().flat_map(|(tag, recent)| {
                let state = recent.state.map(|state| entry(key::state(*book, tag.as_str()), state.pack()));
                let list = chunks(key::tag_list(*book, tag.as_str()), recent.seqs.iter().copied());
                state.into_iter().chain(list)
            })
        });
        let books = self.books.iter().flat_map(|(book, recent)| {
            let living = recent.records.iter().copied().filter(|seq| claims::lives_in(&self.claims, *seq));
            chunks(key::book_list(*book), living)
        });
        let mut rest = self.times.iter().copied();
        let times = std::iter::from_fn(move || {
            let times: Vec<_> = rest.by_ref().take(chunk::MOST_TIMES).collect();
            times.first().map(|(first, _)| entry(key::times(*first), chunk::pack_times(&times)))
        });
        let claims = self.claims.iter().map(|(number, page)| {
            let value = page.as_ref().map_or_else(claims::empty_page, |page| page.encode());
            entry(key::claims(*number), value)
        });
        Box::new(tags.chain(books).chain(times).chain(claims).map(Ok))
    }
}

fn entry(key: Vec<u8>, value: Vec<u8>) -> Entry {
    (Bytes::from(key), Bytes::from(value))
}

fn chunks(list: Vec<u8>, mut seqs: impl Iterator<Item = Seq>) -> impl Iterator<Item = Entry> {
    std::iter::from_fn(move || {
        let mut packed = Packed::default();
        seqs.by_ref().take(chunk::MOST).for_each(|seq| packed.push(seq));
        chunk_entry(&list, &packed)
    })
}

/// A chunk of the list that begins with `list`, if it has anything.
pub(super) fn chunk_entry(list: &[u8], packed: &Packed) -> Option<Entry> {
    if packed.len() == 0 {
        return None;
    }
    let (first, value) = packed.chunk();
    Some(entry(key::in_list(list, first), value))
}
