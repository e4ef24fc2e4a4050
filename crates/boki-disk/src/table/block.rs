//! A block: sorted entries in a few kilobytes, each key without what it shares with the one before. Pure bytes.
//!
//! ```text
//! block  = entry* · restart u32* · number of restarts u32                            little-endian
//! entry  = shared varint · rest varint · value varint · rest bytes · value bytes
//! ```
//!
//! `shared` is how many bytes the key has in common with the key before. Every [`RESTART_INTERVAL`]th entry is a **restart**:
//! its key is whole, and its offset is in the list at the end, so a search halves the list and walks the entries of one
//! interval. Checksums lie around blocks (`seal.rs`); still nothing here trusts a length it reads.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

/// Every so manieth key is whole.
const RESTART_INTERVAL: usize = 16;

const RESTART_BYTES: usize = size_of::<u32>();

/// Bytes that are not a block, though their checksum is right: a bug, or a chance of one in four billion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A key with its value.
pub(super) type Entry = (Bytes, Bytes);

/// Appends `value`, seven bits to a byte, the lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads what [`put_varint`] wrote at `at`, and moves `at` behind it.
pub(super) fn take_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// How many bytes both start with.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Makes blocks, one after another.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    last_key: Vec<u8>,
    entries: usize,
}

impl BlockBuilder {
    /// Adds an entry, whose key is greater than all before.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        let shared = if self.entries.is_multiple_of(RESTART_INTERVAL) {
            self.restarts.push(self.bytes.len() as u32);
            0
        } else {
            common_prefix(&self.last_key, key)
        };
        let rest = &key[shared..];
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, rest.len() as u64);
        put_varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(rest);
        self.bytes.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(rest);
        self.entries += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes that the block has by now.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + (self.restarts.len() + 1) * RESTART_BYTES
    }

    /// The last key that was added, in this block or one before.
    pub(super) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Gives the block's bytes to `take` and begins the next one.
    pub(super) fn finish<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> T {
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        let taken = take(&self.bytes);
        self.bytes.clear();
        self.restarts.clear();
        self.entries = 0;
        taken
    }
}

/// A block that was read.
#[derive(Clone, Debug)]
pub(super) struct Block {
    bytes: Bytes,
    /// Where the entries end and the restarts begin.
    entries_end: usize,
}

/// Where an entry lies.
struct Header {
    shared: usize,
    rest: Range<usize>,
    value: Range<usize>,
}

/// The last entry that is not above the key that was looked for.
struct Found {
    key: Vec<u8>,
    value: Range<usize>,
}

impl Block {
    pub(super) fn new(bytes: Bytes) -> Result<Block, Malformed> {
        let restarts_end = bytes.len().checked_sub(RESTART_BYTES).ok_or(Malformed)?;
        let restarts = read_u32(&bytes, restarts_end)?.checked_mul(RESTART_BYTES).ok_or(Malformed)?;
        let entries_end = restarts_end.checked_sub(restarts).ok_or(Malformed)?;
        if restarts == 0 {
            return Err(Malformed);
        }
        Ok(Block { bytes, entries_end })
    }

    /// The first entry whose key is at or above `target`.
    pub(super) fn at_or_after(&self, target: &[u8]) -> Result<Option<Entry>, Malformed> {
        let (found, next) = self.search(target)?;
        match found {
            Some(found) if found.key == target => Ok(Some(self.entry(found))),
            found => self.entry_at(next, found.map_or_else(Vec::new, |found| found.key)),
        }
    }

    /// The last entry whose key is at or below `target`.
    pub(super) fn at_or_before(&self, target: &[u8]) -> Result<Option<Entry>, Malformed> {
        let (found, _) = self.search(target)?;
        Ok(found.map(|found| self.entry(found)))
    }

    /// The first entry.
    pub(super) fn first(&self) -> Result<Option<Entry>, Malformed> {
        self.entry_at(0, Vec::new())
    }

    /// The last entry.
    pub(super) fn last(&self) -> Result<Option<Entry>, Malformed> {
        let mut cursor = Cursor { block: self.clone(), ..Cursor::default() };
        cursor.next = self.restart(self.restarts() - 1)?;
        let mut is_any = false;
        while cursor.advance()? {
            is_any = true;
        }
        Ok(is_any.then(|| cursor.into_entry()))
    }

    /// Goes through the entries in order.
    pub(super) fn cursor(self) -> Cursor {
        Cursor { block: self, ..Cursor::default() }
    }

    fn restarts(&self) -> usize {
        (self.bytes.len() - self.entries_end) / RESTART_BYTES - 1
    }

    fn restart(&self, index: usize) -> Result<usize, Malformed> {
        read_u32(&self.bytes, self.entries_end + index * RESTART_BYTES)
    }

    fn slice(&self, range: Range<usize>) -> Result<&[u8], Malformed> {
        self.bytes.get(range).ok_or(Malformed)
    }

    fn header(&self, mut at: usize) -> Result<Header, Malformed> {
        let mut field = || take_varint(&self.bytes, &mut at).and_then(|value| usize::try_from(value).ok());
        let (shared, rest, value) = (field().ok_or(Malformed)?, field().ok_or(Malformed)?, field().ok_or(Malformed)?);
        let rest_end = at.checked_add(rest).ok_or(Malformed)?;
        let value_end = rest_end.checked_add(value).ok_or(Malformed)?;
        if value_end > self.entries_end {
            return Err(Malformed);
        }
        Ok(Header { shared, rest: at..rest_end, value: rest_end..value_end })
    }

    /// The last entry whose key is at or below `target`, and where the entry behind it lies.
    fn search(&self, target: &[u8]) -> Result<(Option<Found>, usize), Malformed> {
        // How many restarts have a key at or below it.
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = low + (high - low) / 2;
            let header = self.header(self.restart(middle)?)?;
            if self.slice(header.rest)? <= target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == 0 {
            return Ok((None, 0));
        }
        let header = self.header(self.restart(low - 1)?)?;
        let mut key = Vec::with_capacity(target.len() + 16);
        key.extend_from_slice(self.slice(header.rest)?);
        let mut next = header.value.end;
        let mut value = header.value;
        // How many bytes of the target the key has. The key is at or below the target, so where they part it is the less.
        let mut matched = common_prefix(&key, target);
        while next < self.entries_end {
            let header = self.header(next)?;
            let rest = self.slice(header.rest)?;
            match header.shared.cmp(&matched) {
                // It parts from the target where the key before did.
                Ordering::Greater => {}
                // It parts from the key before within what that has of the target.
                Ordering::Less => break,
                Ordering::Equal => {
                    let wanted = target.get(matched..).ok_or(Malformed)?;
                    if rest > wanted {
                        break;
                    }
                    matched += common_prefix(rest, wanted);
                }
            }
            if header.shared > key.len() {
                return Err(Malformed);
            }
            key.truncate(header.shared);
            key.extend_from_slice(rest);
            next = header.value.end;
            value = header.value;
        }
        Ok((Some(Found { key, value }), next))
    }

    fn entry(&self, found: Found) -> Entry {
        (Bytes::from(found.key), self.bytes.slice(found.value))
    }

    /// The entry at `at`, if there is one; `key` is the key before it.
    fn entry_at(&self, at: usize, mut key: Vec<u8>) -> Result<Option<Entry>, Malformed> {
        if at >= self.entries_end {
            return Ok(None);
        }
        let header = self.header(at)?;
        if header.shared > key.len() {
            return Err(Malformed);
        }
        key.truncate(header.shared);
        key.extend_from_slice(self.slice(header.rest)?);
        Ok(Some((Bytes::from(key), self.bytes.slice(header.value))))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let field = bytes.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or(Malformed)?;
    usize::try_from(u32::from_le_bytes(*field)).map_err(|_| Malformed)
}

/// Goes through a block's entries in order.
#[derive(Debug)]
pub(super) struct Cursor {
    block: Block,
    key: Vec<u8>,
    value: Range<usize>,
    next: usize,
}

impl Default for Cursor {
    /// At the end of nothing.
    fn default() -> Cursor {
        let block = Block { bytes: Bytes::new(), entries_end: 0 };
        Cursor { block, key: Vec::new(), value: 0..0, next: 0 }
    }
}

impl Cursor {
    /// Steps to the next entry; whether there is one.
    pub(super) fn advance(&mut self) -> Result<bool, Malformed> {
        if self.next >= self.block.entries_end {
            return Ok(false);
        }
        let header = self.block.header(self.next)?;
        if header.shared > self.key.len() {
            return Err(Malformed);
        }
        self.key.truncate(header.shared);
        self.key.extend_from_slice(self.block.slice(header.rest)?);
        self.next = header.value.end;
        self.value = header.value;
        Ok(true)
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn value(&self) -> &[u8] {
        self.block.bytes.get(self.value.clone()).unwrap_or_default()
    }

    fn into_entry(self) -> Entry {
        (Bytes::from(self.key), self.block.bytes.slice(self.value))
    }
}
