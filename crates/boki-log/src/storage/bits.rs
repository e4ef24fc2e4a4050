//! A set of small numbers, a bit each, that is cheap to share and short on disk where it has long stretches.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::codec::Reader;
use crate::error::LogError;

const WORD_BITS: u32 = u64::BITS;

/// See the module's description. Clones share their memory until one is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(Arc<Vec<u64>>);

impl Bits {
    /// Adds a number; whether it was not there.
    pub(super) fn set(&mut self, number: u32) -> bool {
        let (word, bit) = ((number / WORD_BITS) as usize, 1 << (number % WORD_BITS));
        if self.has(number) {
            return false;
        }
        let words = Arc::make_mut(&mut self.0);
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        if let Some(word) = words.get_mut(word) {
            *word |= bit;
        }
        true
    }

    pub(super) fn has(&self, number: u32) -> bool {
        let word = self.0.get((number / WORD_BITS) as usize);
        word.is_some_and(|word| word >> (number % WORD_BITS) & 1 == 1)
    }

    /// How many numbers are in it.
    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether it has no number from `end` on.
    pub(super) fn is_below(&self, end: u32) -> bool {
        let last = self.0.iter().rposition(|word| *word != 0);
        last.and_then(|at| Some((at, self.0.get(at)?))).is_none_or(|(at, word)| {
            u64::from(end) > at as u64 * u64::from(WORD_BITS) + u64::from(WORD_BITS - 1 - word.leading_zeros())
        })
    }

    /// Appends it: as often as needed how many words are 0 (u32), how many have all bits (u32), how many follow as they are
    /// (u32), and those (u64 each); in front how often (u32).
    pub(super) fn put(&self, out: &mut BytesMut) {
        let count_at = out.len();
        out.put_u32_le(0);
        let mut count: u32 = 0;
        let mut rest = self.0.as_slice();
        while !rest.is_empty() {
            let zeros = take_while(&mut rest, |word| word == 0).len();
            let ones = take_while(&mut rest, |word| word == u64::MAX).len();
            let mixed = take_while(&mut rest, |word| word != 0 && word != u64::MAX);
            out.put_u32_le(zeros as u32);
            out.put_u32_le(ones as u32);
            out.put_u32_le(mixed.len() as u32);
            mixed.iter().for_each(|word| out.put_u64_le(*word));
            count += 1;
        }
        if let Some(field) = out.get_mut(count_at..count_at + 4) {
            field.copy_from_slice(&count.to_le_bytes());
        }
    }

    /// Takes it off again. It has no number from `end` on.
    ///
    /// # Errors
    /// [`LogError::Malformed`].
    pub(super) fn take(reader: &mut Reader<'_>, end: u32) -> Result<Bits, LogError> {
        let too_long = LogError::Malformed { reason: "a set of records is larger than its segment" };
        let most = end.div_ceil(WORD_BITS) as usize;
        let mut words = Vec::new();
        for _ in 0..reader.u32()? {
            let (zeros, ones, mixed) = (reader.u32()? as usize, reader.u32()? as usize, reader.u32()? as usize);
            if words.len() + zeros + ones + mixed > most {
                return Err(too_long);
            }
            words.resize(words.len() + zeros, 0);
            words.resize(words.len() + ones, u64::MAX);
            for _ in 0..mixed {
                words.push(reader.u64()?);
            }
        }
        let bits = Bits(Arc::new(words));
        if bits.is_below(end) { Ok(bits) } else { Err(too_long) }
    }
}

fn take_while<'a>(rest: &mut &'a [u64], is: impl Fn(u64) -> bool) -> &'a [u64] {
    let count = rest.iter().position(|word| !is(*word)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: impl IntoIterator<Item = u32>) -> Bits {
        let mut bits = Bits::default();
        for number in numbers {
            bits.set(number);
        }
        bits
    }

    #[test]
    fn a_set_survives_its_encoding_and_is_short_where_it_is_even() {
        let sets = [of([]), of([0]), of(0..640), of(1000..90_000), of((0..5000).step_by(3)), of([63, 64, 4095])];
        for bits in sets {
            let mut out = BytesMut::new();
            bits.put(&mut out);
            let bytes = out.freeze();
            let mut reader = Reader::new(&bytes);
            assert_eq!(Bits::take(&mut reader, 90_000), Ok(bits));
            reader.finish().unwrap();
        }
        let mut out = BytesMut::new();
        of(0..1 << 20).put(&mut out);
        assert_eq!(out.len(), 16);
    }

    #[test]
    fn a_set_that_has_more_than_it_can_have_is_refused() {
        let mut out = BytesMut::new();
        of(0..100).put(&mut out);
        let bytes = out.freeze();
        assert!(Bits::take(&mut Reader::new(&bytes), 100).is_ok());
        assert!(Bits::take(&mut Reader::new(&bytes), 99).is_err());
        assert!(Bits::take(&mut Reader::new(&bytes), 64).is_err());
    }

    #[test]
    fn a_number_is_added_once_and_counted() {
        let mut bits = of([5, 70]);
        assert!(!bits.set(70) && bits.set(71));
        assert_eq!((bits.count(), bits.has(71), bits.has(72)), (3, true, false));
    }
}
