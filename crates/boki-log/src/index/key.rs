//! The keys of index tables. They sort so that what is asked for together lies together, and in the order of the tags
//! and seqs in them.
//!
//! | key | value |
//! |---|---|
//! | 1, book, tag, 0, 0 | what is known of the tag besides its records: fence, floor |
//! | 1, book, tag, 0, 1, seq | a chunk of the tag's records, the first at `seq` |
//! | 2, book, seq | a chunk of the book's records |
//! | 3, seq | a chunk of times of cuts |
//! | 4, page | a page of claims |
//!
//! Books, seqs and pages are u64, big-endian. A tag is its bytes; a zero byte in it is written as 0, 255, which no
//! terminator is, so tags sort as they would by themselves.

use crate::ids::{BookId, Seq};
use crate::tag::{RESERVED_PREFIX, Tag};

use super::table::TableError;

const TAG: u8 = 1;
const BOOK: u8 = 2;
const TIME: u8 = 3;
const CLAIMS: u8 = 4;

/// After a tag's bytes: its state.
const STATE_END: [u8; 2] = [0, 0];
/// After a tag's bytes: its records.
const RECORDS_END: [u8; 2] = [0, 1];

/// A key taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    State {
        book: BookId,
    },
    /// `list` is the length of the key without its seq.
    Records {
        book: BookId,
        list: usize,
        of_tag: bool,
        first: Seq,
    },
    Times {
        first: Seq,
    },
    Claims {
        page: u64,
    },
}

impl Key {
    pub(super) fn parse(key: &[u8]) -> Result<Key, TableError> {
        Key::parsed(key).ok_or_else(|| TableError::damaged("a key does not parse"))
    }

    fn parsed(key: &[u8]) -> Option<Key> {
        let (kind, rest) = key.split_first()?;
        let number = |at: usize| Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?));
        match *kind {
            TAG => {
                let book = BookId(number(1)?);
                let end = tag_end(key)?;
                match key.get(end..end + 2)? {
                    [0, 0] => (key.len() == end + 2).then_some(Key::State { book }),
                    _ => {
                        let list = end + 2;
                        let first = Seq(number(list)?);
                        (key.len() == list + 8).then_some(Key::Records { book, list, of_tag: true, first })
                    }
                }
            }
            BOOK if rest.len() == 16 => {
                Some(Key::Records { book: BookId(number(1)?), list: 9, of_tag: false, first: Seq(number(9)?) })
            }
            TIME if rest.len() == 8 => Some(Key::Times { first: Seq(number(1)?) }),
            CLAIMS if rest.len() == 8 => Some(Key::Claims { page: number(1)? }),
            _ => None,
        }
    }
}

/// The offset behind the bytes of a tag's key's tag.
fn tag_end(key: &[u8]) -> Option<usize> {
    let mut at = 9;
    loop {
        match (key.get(at)?, key.get(at + 1)) {
            (0, Some(255)) => at += 2,
            (0, _) => return Some(at),
            _ => at += 1,
        }
    }
}

/// The part of a key by which a table's filter knows whether it has anything with it; `None`: no filter has it.
#[must_use]
pub fn filter_key(key: &[u8]) -> Option<&[u8]> {
    match Key::parsed(key)? {
        Key::State { .. } => Some(key),
        Key::Records { list, .. } => key.get(..list),
        Key::Times { .. } | Key::Claims { .. } => None,
    }
}

/// A tag in a book: what all its keys begin with.
pub(super) fn tag_base(book: BookId, tag: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(tag.len() + 19);
    key.push(TAG);
    key.extend(book.0.to_be_bytes());
    put_tag(&mut key, tag);
    key
}

fn put_tag(key: &mut Vec<u8>, tag: &str) {
    for byte in tag.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(255);
        }
    }
}

pub(super) fn state(book: BookId, tag: &str) -> Vec<u8> {
    let mut key = tag_base(book, tag);
    key.extend(STATE_END);
    key
}

/// What the keys of all chunks of a tag's records begin with.
pub(super) fn tag_list(book: BookId, tag: &str) -> Vec<u8> {
    let mut key = tag_base(book, tag);
    key.extend(RECORDS_END);
    key
}

/// What the keys of all chunks of a book's records begin with.
pub(super) fn book_list(book: BookId) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(BOOK);
    key.extend(book.0.to_be_bytes());
    key
}

pub(super) fn in_list(list: &[u8], seq: Seq) -> Vec<u8> {
    let mut key = Vec::with_capacity(list.len() + 8);
    key.extend(list);
    key.extend(seq.0.to_be_bytes());
    key
}

pub(super) fn times(seq: Seq) -> Vec<u8> {
    in_list(&[TIME], seq)
}

pub(super) fn claims(page: u64) -> Vec<u8> {
    in_list(&[CLAIMS], Seq(page))
}

/// Above every key of `tag`, and below those of the tags after it.
pub(super) fn after_tag(book: BookId, tag: &str) -> Vec<u8> {
    let mut key = tag_base(book, tag);
    key.extend([0, 2]);
    key
}

/// Whether the tag in a tag's key is a reserved one.
pub(super) fn has_reserved_tag(key: &[u8]) -> bool {
    key.get(9).is_some_and(|first| char::from(*first) == RESERVED_PREFIX)
}

/// The tag in a tag's key, if it is of `book`.
pub(super) fn tag_of(key: &[u8], book: BookId) -> Result<Option<Tag>, TableError> {
    if key.first() != Some(&TAG) || key.get(1..9) != Some(&book.0.to_be_bytes()) {
        return Ok(None);
    }
    let damaged = || TableError::damaged("a key's tag does not parse");
    let escaped = tag_end(key).and_then(|end| key.get(9..end)).ok_or_else(damaged)?;
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut after_zero = false;
    for byte in escaped {
        if !after_zero {
            bytes.push(*byte);
        }
        after_zero = !after_zero && *byte == 0;
    }
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    Tag::new(text).map(Some).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_tags_and_seqs_do_even_with_zero_bytes() {
        let tags = ["\0", "\0\0", "\0a", "a", "a\0", "a\0\0", "a\0b", "ab", "b", "ÿ"];
        let mut keys = Vec::new();
        for tag in tags {
            keys.push(state(BookId(7), tag));
            keys.extend([1, 255, 256, Seq::MAX.0].map(|seq| in_list(&tag_list(BookId(7), tag), Seq(seq))));
            keys.push(after_tag(BookId(7), tag));
        }
        assert!(keys.is_sorted_by(|a, b| a < b));
        for (tag, keys) in tags.iter().zip(keys.chunks(6)) {
            for key in keys {
                assert_eq!(tag_of(key, BookId(7)).unwrap().unwrap().as_str(), *tag);
                assert_eq!(tag_of(key, BookId(8)).unwrap(), None);
            }
        }
    }

    #[test]
    fn a_filter_key_is_the_whole_list_and_a_state_is_not_its_list() {
        let list = tag_list(BookId(7), "a\0");
        assert_eq!(filter_key(&in_list(&list, Seq(9))), Some(&*list));
        assert_eq!(filter_key(&state(BookId(7), "a\0")), Some(&*state(BookId(7), "a\0")));
        assert_eq!(filter_key(&in_list(&book_list(BookId(3)), Seq(1))), Some(&*book_list(BookId(3))));
        assert_eq!(filter_key(&claims(3)), None);
        assert_eq!(Key::parse(&times(Seq(4))), Ok(Key::Times { first: Seq(4) }));
        assert!(Key::parse(b"").is_err() && Key::parse(&[1; 9]).is_err() && Key::parse(&[9; 9]).is_err());
    }
}
