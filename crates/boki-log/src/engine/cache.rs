//! What an engine keeps in memory beside the index: recent record bodies, and aux data.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::batch::RecordBody;
use crate::ids::Seq;

/// The bodies of the latest records: dense by seq, oldest out first.
#[derive(Debug)]
pub(super) struct RecordCache {
    /// Seq of the front of `bodies`.
    base: u64,
    /// `None` where a seq has no record.
    bodies: VecDeque<Option<RecordBody>>,
    bytes: usize,
    most_bytes: usize,
}

/// What an entry costs beside its bytes, roughly.
const ENTRY_BYTES: usize = 64;

impl RecordCache {
    pub(super) fn new(most_bytes: usize) -> RecordCache {
        RecordCache { base: 0, bodies: VecDeque::new(), bytes: 0, most_bytes }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the record at `seq`, above every one before.
    pub(super) fn push(&mut self, seq: Seq, body: RecordBody) {
        let gap = seq.0.saturating_sub(self.base + self.bodies.len() as u64);
        if self.bodies.is_empty() || gap > 1024 {
            self.bodies.clear();
            self.bytes = 0;
            self.base = seq.0;
        } else {
            self.bodies.extend((0..gap).map(|_| None));
            self.bytes += gap as usize * ENTRY_BYTES;
        }
        self.bytes += body.bytes().len() + ENTRY_BYTES;
        self.bodies.push_back(Some(body));
        while self.bytes > self.most_bytes {
            let Some(oldest) = self.bodies.pop_front() else { break };
            self.base += 1;
            self.bytes -= oldest.map_or(0, |body| body.bytes().len()) + ENTRY_BYTES;
        }
    }

    pub(super) fn get(&self, seq: Seq) -> Option<RecordBody> {
        let at = usize::try_from(seq.0.checked_sub(self.base)?).ok()?;
        self.bodies.get(at)?.clone()
    }
}

/// Aux data by seq: oldest out first.
#[derive(Debug)]
pub(super) struct AuxCache {
    aux: BTreeMap<Seq, Bytes>,
    /// In the order of setting; a seq may be there more than once, or no more in `aux`.
    order: VecDeque<Seq>,
    bytes: usize,
    most_bytes: usize,
}

impl AuxCache {
    pub(super) fn new(most_bytes: usize) -> AuxCache {
        AuxCache { aux: BTreeMap::new(), order: VecDeque::new(), bytes: 0, most_bytes }
    }

    pub(super) fn get(&self, seq: Seq) -> Option<Bytes> {
        self.aux.get(&seq).cloned()
    }

    /// Sets the aux data of `seq`; empty removes it.
    pub(super) fn set(&mut self, seq: Seq, aux: Bytes) {
        if aux.is_empty() {
            self.remove(seq);
            return;
        }
        self.bytes += aux.len() + ENTRY_BYTES;
        match self.aux.insert(seq, aux) {
            Some(old) => self.bytes -= old.len() + ENTRY_BYTES,
            None => self.order.push_back(seq),
        }
        while self.bytes > self.most_bytes {
            let Some(oldest) = self.order.pop_front() else { break };
            self.remove(oldest);
        }
        // Removed entries leave their place in the order behind: no more of them than of live ones.
        if self.order.len() > 2 * self.aux.len() + 16 {
            let aux = &self.aux;
            self.order.retain(|seq| aux.contains_key(seq));
        }
    }

    fn remove(&mut self, seq: Seq) {
        if let Some(old) = self.aux.remove(&seq) {
            self.bytes -= old.len() + ENTRY_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(len: usize) -> RecordBody {
        RecordBody::decode(Bytes::from(vec![0; len + 1])).unwrap()
    }

    #[test]
    fn the_record_cache_keeps_the_latest_and_stays_within_its_bytes() {
        let mut cache = RecordCache::new(10 * (101 + ENTRY_BYTES));
        for seq in (1..=100).filter(|seq| seq % 7 != 0) {
            cache.push(Seq(seq), body(100));
            assert!(cache.bytes() <= 10 * (101 + ENTRY_BYTES));
        }
        assert!(cache.get(Seq(100)).is_some());
        assert!(cache.get(Seq(98)).is_none(), "no record there");
        assert!(cache.get(Seq(1)).is_none(), "long gone");
        cache.push(Seq(1_000_000), body(1));
        assert!(cache.get(Seq(100)).is_none() && cache.get(Seq(1_000_000)).is_some());
    }

    #[test]
    fn aux_data_is_replaced_removed_and_bounded() {
        let mut cache = AuxCache::new(3 * (10 + ENTRY_BYTES));
        let aux = Bytes::from_static(b"0123456789");
        for seq in 1..=4 {
            cache.set(Seq(seq), aux.clone());
            cache.set(Seq(seq), aux.clone());
        }
        assert_eq!(cache.get(Seq(1)), None);
        assert_eq!(cache.get(Seq(4)), Some(aux));
        cache.set(Seq(4), Bytes::new());
        assert_eq!(cache.get(Seq(4)), None);
        assert_eq!(cache.bytes, 2 * (10 + ENTRY_BYTES));
    }
}
