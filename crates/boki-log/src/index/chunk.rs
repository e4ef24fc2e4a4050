//! Chunks: rising seqs, or times of cuts, as the value of one key. Differences as variable-length integers (seven bits
//! to a byte, low ones first, the top bit says that more follow).

use bytes::Bytes;

use crate::ids::Seq;

use super::table::TableError;

/// How many seqs a chunk has at most. Tests meet the ends of chunks more often.
pub(super) const MOST: usize = if cfg!(test) { 3 } else { 256 };
/// How many times of cuts a chunk has at most.
pub(super) const MOST_TIMES: usize = if cfg!(test) { 2 } else { 128 };

/// Longest encoding of a u64.
const MAX_VARINT_BYTES: u32 = 10;

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..MAX_VARINT_BYTES {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn damaged() -> TableError {
    TableError::damaged("a chunk does not parse")
}

/// Rising seqs in as few bytes as that takes: about one each if they are near each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    first: u64,
    last: u64,
    count: usize,
    deltas: Vec<u8>,
}

impl Packed {
    pub(super) fn push(&mut self, seq: Seq) {
        if self.count == 0 {
            self.first = seq.0;
        } else {
            put(&mut self.deltas, seq.0 - self.last);
        }
        self.last = seq.0;
        self.count += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Seq> {
        let mut deltas = self.deltas.as_slice();
        let first = (self.count > 0).then_some(self.first);
        std::iter::successors(first, move |at| take(&mut deltas).map(|delta| at + delta)).map(Seq)
    }

    /// The first seq, and the value of a chunk that begins with it: how far it is to the last, then the differences.
    pub(super) fn chunk(&self) -> (Seq, Vec<u8>) {
        let mut value = Vec::with_capacity(self.deltas.len() + 4);
        put(&mut value, self.last - self.first);
        value.extend(&self.deltas);
        (Seq(self.first), value)
    }
}

/// A chunk of a table.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) first: Seq,
    pub(super) last: Seq,
    value: Bytes,
    at: usize,
}

impl Chunk {
    pub(super) fn parse(first: Seq, value: Bytes) -> Result<Chunk, TableError> {
        let mut rest = &*value;
        let span = take(&mut rest).ok_or_else(damaged)?;
        let at = value.len() - rest.len();
        let last = first.0.checked_add(span).filter(|last| *last <= Seq::MAX.0).ok_or_else(damaged)?;
        Ok(Chunk { first, last: Seq(last), value, at })
    }

    /// Adds its seqs to `out`.
    pub(super) fn unpack(&self, out: &mut Vec<Seq>) -> Result<(), TableError> {
        let mut deltas = self.value.get(self.at..).unwrap_or_default();
        let mut at = self.first.0;
        out.push(self.first);
        while !deltas.is_empty() {
            let delta = take(&mut deltas).filter(|delta| *delta > 0).ok_or_else(damaged)?;
            at = at.checked_add(delta).filter(|at| *at <= self.last.0).ok_or_else(damaged)?;
            out.push(Seq(at));
        }
        if at == self.last.0 { Ok(()) } else { Err(damaged()) }
    }
}

/// Times of cuts, each with the first seq it is of, as a value; the first seq is in the key.
pub(super) fn pack_times(times: &[(Seq, u64)]) -> Vec<u8> {
    let mut value = Vec::with_capacity(times.len() * 5 + 10);
    let (mut seq, mut time) = (times.first().map_or(0, |(seq, _)| seq.0), 0);
    for (next, time_us) in times {
        put(&mut value, next.0 - seq);
        put(&mut value, time_us - time);
        (seq, time) = (next.0, *time_us);
    }
    value
}

/// The time of `seq` in a chunk of times that begins at or before it.
pub(super) fn time_in(first: Seq, value: &[u8], seq: Seq) -> Result<u64, TableError> {
    let (mut at, mut time, mut rest) = (first.0, 0_u64, value);
    let mut found = None;
    while !rest.is_empty() {
        at = take(&mut rest).and_then(|delta| at.checked_add(delta)).ok_or_else(damaged)?;
        time = take(&mut rest).and_then(|delta| time.checked_add(delta)).ok_or_else(damaged)?;
        if at > seq.0 {
            break;
        }
        found = Some(time);
    }
    found.ok_or_else(damaged)
}

/// What is known of a tag besides its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TagState {
    /// The highest epoch that a record raised it to.
    pub(super) fence: u64,
    /// Nothing below is found under the tag.
    pub(super) floor: Seq,
}

impl TagState {
    pub(super) fn pack(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(12);
        put(&mut value, self.fence);
        put(&mut value, self.floor.0);
        value
    }

    pub(super) fn parse(value: &[u8]) -> Result<TagState, TableError> {
        let mut rest = value;
        let fence = take(&mut rest).ok_or_else(damaged)?;
        let floor = Seq(take(&mut rest).ok_or_else(damaged)?);
        if rest.is_empty() { Ok(TagState { fence, floor }) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_give_back_what_was_put_in_and_no_prefix_of_one_does() {
        let seqs = [1, 2, 300, 301, 1 << 40, Seq::MAX.0].map(Seq);
        let mut packed = Packed::default();
        seqs.iter().for_each(|seq| packed.push(*seq));
        assert_eq!(packed.iter().collect::<Vec<_>>(), seqs);
        let (first, value) = packed.chunk();
        let value = Bytes::from(value);
        let chunk = Chunk::parse(first, value.clone()).unwrap();
        let mut out = Vec::new();
        chunk.unpack(&mut out).unwrap();
        assert_eq!((out.as_slice(), chunk.last), (&seqs[..], Seq::MAX));
        for len in 0..value.len() {
            let parsed = Chunk::parse(first, value.slice(..len)).and_then(|chunk| chunk.unpack(&mut Vec::new()));
            assert!(parsed.is_err());
        }
    }

    #[test]
    fn the_time_of_a_seq_is_that_of_the_last_cut_at_or_before_it() {
        let times = [(Seq(5), 1000), (Seq(7), 1001), (Seq(100), u64::MAX)];
        let value = pack_times(&times);
        let time = |seq| time_in(Seq(5), &value, Seq(seq));
        assert_eq!((time(5), time(6), time(7), time(99)), (Ok(1000), Ok(1000), Ok(1001), Ok(1001)));
        assert_eq!((time(100), time(1 << 50)), (Ok(u64::MAX), Ok(u64::MAX)));
        assert!(time(4).is_err());
        let state = TagState { fence: u64::MAX, floor: Seq(9) };
        assert_eq!(TagState::parse(&state.pack()), Ok(state));
        assert!(TagState::parse(&[]).is_err());
    }
}
