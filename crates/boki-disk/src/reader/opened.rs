//! Bodies that were expanded or opened a short while ago: whoever reads one record after the other reads the same frame again
//! and again.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes that are kept.
const KEPT_BYTES: usize = 8 << 20;
/// How many bodies, so that looking for one is quick.
const KEPT_BODIES: usize = 128;

/// Segment and offset of a frame's body.
type Key = (u64, u32);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Opened {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The one used last is in front.
    bodies: VecDeque<(Key, Bytes)>,
    bytes: usize,
}

impl Opened {
    pub(super) fn get(&self, key: Key) -> Option<Bytes> {
        let mut kept = self.kept.lock();
        let at = kept.bodies.iter().position(|(known, _)| *known == key)?;
        let found = kept.bodies.remove(at)?;
        let body = found.1.clone();
        kept.bodies.push_front(found);
        Some(body)
    }

    pub(super) fn keep(&self, key: Key, body: Bytes) {
        // One that would push out most others is read again when it is needed again.
        if body.len() > KEPT_BYTES / 8 {
            return;
        }
        let mut kept = self.kept.lock();
        kept.bytes += body.len();
        kept.bodies.push_front((key, body));
        while kept.bytes > KEPT_BYTES || kept.bodies.len() > KEPT_BODIES {
            let Some((_, oldest)) = kept.bodies.pop_back() else { return };
            kept.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept_and_no_more_than_there_is_room_for() {
        let opened = Opened::default();
        opened.keep((1, 0), Bytes::from_static(b"first"));
        for offset in 1..KEPT_BODIES as u32 + 10 {
            opened.keep((1, offset), Bytes::from(vec![0; 70_000]));
            assert_eq!(opened.get((1, 0)).unwrap(), "first");
        }
        assert_eq!(opened.get((1, 1)), None);
        let kept = opened.kept.lock();
        assert!(kept.bytes <= KEPT_BYTES && kept.bytes == kept.bodies.iter().map(|(_, body)| body.len()).sum());
        drop(kept);
        opened.keep((2, 0), Bytes::from(vec![0; KEPT_BYTES]));
        assert_eq!(opened.get((2, 0)), None);
    }
}
