//! Frames' bodies on their way to the disk and back: as they are, compressed, sealed, or compressed and then sealed.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::compress::{Compression, Compressor, expand};
use crate::frame::{Checksum, FRAME_HEADER_BYTES, FrameHeader};
use crate::journal::JournalConfig;
use crate::seal::{self, KeyId, Keyring, SEAL_BYTES};

/// Additional data of a frame's unit: the directory's id, `"frame"`, the header behind its checksum, and the offset of the frame
/// in its segment (8 bytes).
const AAD_BYTES: usize = 16 + 5 + (FRAME_HEADER_BYTES - 4) + 8;

/// How the frames of a segment may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Coding {
    /// All of them as they are.
    #[default]
    Plain,
    /// Some of them compressed.
    Compressed,
    /// All of them sealed with this key, and some of them compressed.
    Sealed(KeyId),
}

/// As messages name it.
impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Coding::Plain => f.write_str("plain"),
            Coding::Compressed => f.write_str("compressed"),
            Coding::Sealed(key) => write!(f, "encrypted with the key {key}"),
        }
    }
}

/// Reads frames.
#[derive(Clone, Debug)]
pub(crate) struct FrameReader {
    directory: u128,
    checksum: Checksum,
    ring: Option<Arc<Keyring>>,
}

impl FrameReader {
    pub(crate) fn new(config: &JournalConfig) -> FrameReader {
        let (directory, ring) = (config.directory, config.keyring.clone());
        FrameReader { directory, checksum: Checksum::new(directory), ring }
    }

    /// Whether `frame`, a header with its body, is as it was written.
    pub(crate) fn is_intact(&self, frame: &[u8]) -> bool {
        self.checksum.is_intact(frame)
    }

    /// Whether a segment's frames can be read; else why not.
    pub(crate) fn can_read(&self, coding: Coding) -> Result<(), Unreadable> {
        match (coding, &self.ring) {
            (Coding::Sealed(key), ring) if ring.as_ref().is_none_or(|ring| !ring.has(key)) => {
                Err(Unreadable::NoKey(key))
            }
            (Coding::Plain | Coding::Compressed, Some(ring)) if !ring.accepts_plain() => Err(Unreadable::NotSealed),
            _ => Ok(()),
        }
    }

    /// Whether a frame may be stored so in a segment of that coding.
    pub(crate) fn fits(header: &FrameHeader, coding: Coding) -> Result<(), &'static str> {
        match coding {
            Coding::Plain if header.is_coded() => Err("it is not stored as it is, as all of its segment are"),
            Coding::Compressed if header.is_sealed => Err("it is encrypted, and its segment is not"),
            Coding::Sealed(_) if !header.is_sealed => Err("it is not encrypted, and its segment is"),
            _ => Ok(()),
        }
    }

    /// The plain body of a frame that is not stored as it is: `body` is what is stored, `at` where the frame lies.
    pub(crate) fn open(&self, header: &FrameHeader, mut body: Vec<u8>, at: u64) -> Result<Bytes, &'static str> {
        let mut inner = 0..body.len();
        if header.is_sealed {
            let ring = self.ring.as_ref().ok_or("it is encrypted, and no key was given")?;
            let len = ring.open(&aad(self.directory, header, at), &mut body);
            let len = len.map_err(|_| "it is not what was encrypted at this place")?;
            inner = seal::HEAD_BYTES..seal::HEAD_BYTES + len;
        }
        if header.is_compressed {
            return expand(&body[inner]).map(Bytes::from);
        }
        Ok(Bytes::from(body).slice(inner))
    }
}

/// Why a segment's frames cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    NoKey(KeyId),
    NotSealed,
}

/// Writes frames.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    directory: u128,
    checksum: Checksum,
    ring: Option<Arc<Keyring>>,
    compression: Compression,
    compressor: Compressor,
    /// A body that is to be compressed, in one piece.
    gathered: Vec<u8>,
}

impl FrameWriter {
    pub(crate) fn new(config: &JournalConfig) -> FrameWriter {
        FrameWriter {
            directory: config.directory,
            checksum: Checksum::new(config.directory),
            ring: config.keyring.clone(),
            compression: config.compression,
            compressor: Compressor::default(),
            gathered: Vec::new(),
        }
    }

    /// How segments must be marked for what this writes.
    pub(crate) fn coding(&self) -> Coding {
        match (&self.ring, self.compression) {
            (Some(ring), _) => Coding::Sealed(ring.current()),
            (None, Compression::Lz4) => Coding::Compressed,
            (None, Compression::None) => Coding::Plain,
        }
    }

    /// By how much a frame is longer at the most than its header and plain body.
    pub(crate) fn extra_bytes(&self) -> usize {
        if self.ring.is_some() { SEAL_BYTES } else { 0 }
    }

    /// Adds a frame to `out`: `header` but for its length and how it is stored, and the body in parts. It will lie at `at` of its
    /// segment, in a group of `group_bytes`.
    pub(crate) fn put(
        &mut self,
        mut header: FrameHeader,
        parts: &[Bytes],
        at: u64,
        group_bytes: u64,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let body = start + FRAME_HEADER_BYTES;
        header.is_sealed = self.ring.is_some();
        out.resize(if header.is_sealed { body + seal::HEAD_BYTES } else { body }, 0);
        header.is_compressed = self.compression == Compression::Lz4 && self.compress(parts, group_bytes, out);
        if !header.is_compressed {
            for part in parts {
                out.extend_from_slice(part);
            }
        }
        if header.is_sealed {
            out.resize(out.len() + seal::TAG_BYTES, 0);
        }
        header.len = u32::try_from(out.len() - body).expect("the group is smaller than 4 GiB");
        out[start..body].copy_from_slice(&header.encode());
        if let Some(ring) = &self.ring {
            ring.seal(&aad(self.directory, &header, at), &mut out[body..]);
        }
        self.checksum.seal(&mut out[start..]);
    }

    fn compress(&mut self, parts: &[Bytes], group_bytes: u64, out: &mut Vec<u8>) -> bool {
        self.gathered.clear();
        let plain = match parts {
            [only] => only,
            _ => {
                parts.iter().for_each(|part| self.gathered.extend_from_slice(part));
                &self.gathered[..]
            }
        };
        self.compressor.compress(plain, group_bytes, out)
    }

    /// Gives back memory above so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.gathered.shrink_to(bytes);
    }
}

fn aad(directory: u128, header: &FrameHeader, at: u64) -> [u8; AAD_BYTES] {
    let mut aad = [0; AAD_BYTES];
    aad[..16].copy_from_slice(&directory.to_le_bytes());
    aad[16..21].copy_from_slice(b"frame");
    aad[21..AAD_BYTES - 8].copy_from_slice(&header.encode()[4..]);
    aad[AAD_BYTES - 8..].copy_from_slice(&at.to_le_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{DataKey, DataKeys};

    fn config() -> JournalConfig {
        let keys = DataKeys { current: DataKey::from_bytes([1; 32]), old: vec![] };
        let ring = Arc::new(Keyring::with_salt(&keys, false, [9; 16]));
        JournalConfig { compression: Compression::Lz4, keyring: Some(ring), ..JournalConfig::new(7) }
    }

    const HEADER: FrameHeader = FrameHeader {
        version: crate::frame::VERSION,
        kind: 3,
        is_last: true,
        is_compressed: false,
        is_sealed: false,
        len: 0,
        segment: 5,
        group: 6,
    };

    #[test]
    fn a_frame_that_was_moved_or_relabelled_does_not_open_even_if_its_checksum_was_made_to_fit() {
        let plain = Bytes::from(vec![b'x'; 10_000]);
        let mut bytes = Vec::new();
        FrameWriter::new(&config()).put(HEADER, std::slice::from_ref(&plain), 4096, 10_032, &mut bytes);
        let (head, body) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
        let header = FrameHeader::decode(head).unwrap();
        assert!(header.is_compressed && header.is_sealed && body.len() < 1000);
        let reader = FrameReader::new(&config());
        let open = |header: &FrameHeader, at: u64| reader.open(header, body.to_vec(), at);
        assert_eq!(open(&header, 4096).unwrap(), plain);
        assert!(open(&header, 8192).is_err());
        for other in [
            FrameHeader { kind: 4, ..header },
            FrameHeader { is_last: false, ..header },
            FrameHeader { is_compressed: false, ..header },
            FrameHeader { segment: 4, ..header },
            FrameHeader { group: 7, ..header },
            FrameHeader { len: header.len + 1, ..header },
        ] {
            assert!(open(&other, 4096).is_err(), "{other:?}");
        }
        let elsewhere = FrameReader::new(&JournalConfig { directory: 8, ..config() });
        assert!(elsewhere.open(&header, body.to_vec(), 4096).is_err());
        let keyless = FrameReader::new(&JournalConfig { keyring: None, ..config() });
        assert!(keyless.open(&header, body.to_vec(), 4096).is_err());
    }

    #[test]
    fn a_frame_is_stored_only_as_its_segment_says() {
        let (plain, compressed) = (HEADER, FrameHeader { is_compressed: true, ..HEADER });
        let sealed = FrameHeader { is_sealed: true, ..HEADER };
        let fits = |coding| [plain, compressed, sealed].map(|header| FrameReader::fits(&header, coding).is_ok());
        assert_eq!(fits(Coding::Plain), [true, false, false]);
        assert_eq!(fits(Coding::Compressed), [true, true, false]);
        assert_eq!(fits(Coding::Sealed(KeyId(1))), [false, false, true]);
    }
}
