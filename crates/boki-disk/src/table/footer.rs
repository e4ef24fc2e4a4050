//! The two ends of a table file. Pure bytes, little-endian; nothing of them goes through the codec.
//!
//! | offset | bytes | header |
//! |---|---|---|
//! | 0 | 8 | magic `"BOKITABL"` |
//! | 8 | 4 | version, 1 |
//! | 12 | 8 | number of the table |
//! | 20 | 4 | checksum |
//!
//! | offset | bytes | footer, the last bytes of the file |
//! |---|---|---|
//! | 0 | 8 | offset of the root |
//! | 8 | 4 | bytes of the root |
//! | 12 | 1 | codec of the blocks |
//! | 13 | 3 | 0 |
//! | 16 | 8 | number of the table |
//! | 24 | 8 | entries |
//! | 32 | 8 | keys of the filter |
//! | 40 | 8 | where the blocks end and the filter begins |
//! | 48 | 4 | 0 |
//! | 52 | 8 | magic `"BOKITEND"` |
//! | 60 | 4 | checksum |

use super::seal::{CRC_BYTES, Kind, Seal};

const MAGIC: [u8; 8] = *b"BOKITABL";
const END_MAGIC: [u8; 8] = *b"BOKITEND";
const VERSION: u32 = 1;

pub(crate) const HEADER_BYTES: usize = 24;
pub(super) const FOOTER_BYTES: usize = 64;

const HEADER_COVERED: usize = HEADER_BYTES - CRC_BYTES;
const FOOTER_COVERED: usize = FOOTER_BYTES - CRC_BYTES;
const END_MAGIC_AT: usize = 52;

const _: () = assert!(MAGIC.len() + size_of::<u32>() + size_of::<u64>() == HEADER_COVERED);
const _: () = assert!(END_MAGIC_AT + END_MAGIC.len() == FOOTER_COVERED);

/// The header of the table that `seal` is for.
pub(super) fn header(seal: &Seal) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..20].copy_from_slice(&seal.table().to_le_bytes());
    let checksum = seal.checksum(Kind::Header, 0, &out[..HEADER_COVERED]);
    out[HEADER_COVERED..].copy_from_slice(&checksum);
    out
}

/// What is wrong with a header.
pub(super) fn check_header(bytes: &[u8; HEADER_BYTES], seal: &Seal) -> Result<(), &'static str> {
    if bytes[..8] != MAGIC {
        return Err("it does not start as a table does");
    }
    if read_u32(bytes, 8) != VERSION {
        return Err("it is of another version");
    }
    if read_u64(bytes, 12) != seal.table() {
        return Err("it holds another table");
    }
    if *bytes != header(seal) {
        return Err("its header is damaged, or it belongs to another data directory");
    }
    Ok(())
}

/// What a footer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) root_offset: u64,
    pub(super) root_bytes: u32,
    pub(super) entries: u64,
    pub(super) filter_keys: u64,
    pub(super) blocks_end: u64,
}

impl Footer {
    /// Its bytes; they lie at `offset` of the file.
    pub(super) fn encode(&self, offset: u64, seal: &Seal) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[..8].copy_from_slice(&self.root_offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.root_bytes.to_le_bytes());
        out[12] = seal.codec();
        out[16..24].copy_from_slice(&seal.table().to_le_bytes());
        out[24..32].copy_from_slice(&self.entries.to_le_bytes());
        out[32..40].copy_from_slice(&self.filter_keys.to_le_bytes());
        out[40..48].copy_from_slice(&self.blocks_end.to_le_bytes());
        out[END_MAGIC_AT..FOOTER_COVERED].copy_from_slice(&END_MAGIC);
        let checksum = seal.checksum(Kind::Footer, offset, &out[..FOOTER_COVERED]);
        out[FOOTER_COVERED..].copy_from_slice(&checksum);
        out
    }

    pub(super) fn decode(bytes: &[u8; FOOTER_BYTES], offset: u64, seal: &Seal) -> Result<Footer, &'static str> {
        if bytes[END_MAGIC_AT..FOOTER_COVERED] != END_MAGIC {
            return Err("it does not end as a table does: its end is missing or damaged");
        }
        if seal.checksum(Kind::Footer, offset, &bytes[..FOOTER_COVERED]) != bytes[FOOTER_COVERED..] {
            return Err("its end does not match its checksum");
        }
        if read_u64(bytes, 16) != seal.table() {
            return Err("its end is of another table");
        }
        if bytes[12] != seal.codec() {
            return Err("its blocks are sealed otherwise than this data directory's");
        }
        Ok(Footer {
            root_offset: read_u64(bytes, 0),
            root_bytes: read_u32(bytes, 8),
            entries: read_u64(bytes, 24),
            filter_keys: read_u64(bytes, 32),
            blocks_end: read_u64(bytes, 40),
        })
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}
