//! Blocks of tables, sealed.

use std::sync::Arc;

use super::{HEAD_BYTES, Keyring};
use crate::table::{BlockCodec, BlockPlace};

/// Every block is a unit. Additional data: the directory's id (16 bytes), `"block"`, the table's number and the block's offset
/// (8 bytes each).
#[derive(Clone, Debug)]
pub struct SealedBlocks(Arc<Keyring>);

impl SealedBlocks {
    /// Blocks of tables of an encrypted directory.
    #[must_use]
    pub fn new(ring: Arc<Keyring>) -> SealedBlocks {
        SealedBlocks(ring)
    }
}

fn aad(place: &BlockPlace) -> [u8; 37] {
    let BlockPlace { directory, table, offset } = place;
    let mut aad = [0; 37];
    aad[..16].copy_from_slice(&directory.to_le_bytes());
    aad[16..21].copy_from_slice(b"block");
    aad[21..29].copy_from_slice(&table.to_le_bytes());
    aad[29..].copy_from_slice(&offset.to_le_bytes());
    aad
}

impl BlockCodec for SealedBlocks {
    fn id(&self) -> u8 {
        1
    }

    fn seal(&self, place: &BlockPlace, block: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.seal_copy(&aad(place), block));
    }

    fn open(&self, place: &BlockPlace, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let len = self.0.open(&aad(place), &mut sealed).ok()?;
        sealed.truncate(HEAD_BYTES + len);
        sealed.drain(..HEAD_BYTES);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{DataKey, DataKeys};

    #[test]
    fn a_block_opens_at_its_place_only() {
        let keys = DataKeys { current: DataKey::from_bytes([1; 32]), old: vec![] };
        let blocks = SealedBlocks::new(Arc::new(Keyring::new(&keys, false).unwrap()));
        let place = BlockPlace { directory: 1, table: 2, offset: 3 };
        let mut sealed = b"before".to_vec();
        blocks.seal(&place, b"MARKER", &mut sealed);
        let sealed = sealed.split_off(6);
        assert!(!sealed.windows(6).any(|window| window == b"MARKER"));
        assert_eq!(blocks.open(&place, sealed.clone()).unwrap(), b"MARKER");
        for other in
            [BlockPlace { directory: 2, ..place }, BlockPlace { table: 3, ..place }, BlockPlace { offset: 4, ..place }]
        {
            assert_eq!(blocks.open(&other, sealed.clone()), None, "{other:?}");
        }
    }
}
