//! The log's files: a journal of checksummed frames in preallocated segments, and the data directory around it.
//!
//! It knows bytes, frames and files. It is *not* the log: it knows nothing of seqs, books, cuts or roles; what a frame
//! holds is the caller's. It has no async and, but for the preparation of the next segment file, no threads: the caller
//! gives the [`Journal`] one thread of its own.
//!
//! ```text
//! <data>/FORMAT                      "boki-data 2\n"
//! <data>/LOCK                        held while the directory is open
//! <data>/meta                        blob: directory id, node, term
//! <data>/keys                        blob, in an encrypted directory: which keys it needs
//! <data>/<name>                      blobs of the caller's
//! <data>/blob/<name>                 blobs of the caller's that are too large for memory
//! <data>/table/0000000000000001.tbl  sorted tables of the caller's
//! <data>/seg/0000000000000001.log    segments of the journal
//! <data>/seg/0000000000000002.new    the next segment, being filled with zeros; never needed
//! <data>/seg/0000000000000001.places where records lie in segment 1; made again when it is missing
//! <data>/seg/removed                 blob: which segments were removed on purpose
//! <data>/seg/reach                   blob: how far the journal reaches at the least
//! ```
//!
//! What holds:
//! 1. A group (what one call of [`Journal::write`] was given) is there whole or not at all after a crash, and whole if the
//!    call returned `Ok`.
//! 2. No byte of an acknowledged group is ever written again: every group starts on a block of its own.
//! 3. What is not as it was written is never handed out as if it were: opening says where the damage is and changes nothing.
//! 4. After a write or sync that failed, nothing more is written: what the disk holds is only known after a restart.

#![deny(missing_docs)]

mod blob;
pub mod check;
mod coding;
mod compress;
mod dir;
mod error;
mod frame;
mod journal;
pub mod mem;
mod place_file;
mod random;
mod reach;
mod reader;
mod recovery;
mod removed;
mod scan;
mod seal;
mod segment;
mod store;
mod table;
pub mod vfs;
mod zeros;

pub use blob::{read_blob, write_blob};
pub use coding::Coding;
pub use compress::Compression;
pub use dir::{DataDir, Meta};
pub use error::{BlobError, Damage, DirError, OpenError, PlaceError, ReadError, RemoveError, TableError, WriteError};
pub use frame::{BLOCK_BYTES, FRAME_HEADER_BYTES};
pub use journal::{Frame, GroupPlace, Journal, JournalConfig, Location, SegmentInfo};
pub use place_file::{PlaceEntry, PlaceFiles, RecordsIn};
pub use reach::Reach;
pub use reader::JournalReader;
pub use recovery::{FrameRef, TornTail};
pub use seal::{DataKey, DataKeys, InvalidDataKey, KeyCheck, KeyId, Keyring, SEAL_BYTES, SealError, SealedBlocks};
pub use store::{BlobName, BlobReader, BlobStore, BlobWriter, InvalidBlobName, PIECE_BYTES};
pub use table::{
    BlockCache, BlockCodec, BlockPlace, MAX_KEY_BYTES, MAX_VALUE_BYTES, Merge, PlainBlocks, Scan, Table, TableConfig,
    TableInfo, TableStore, TableWriter,
};
