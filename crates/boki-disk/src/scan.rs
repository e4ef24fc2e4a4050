//! Reads one segment file from its start: the whole groups in it, and what to think of the place where they end.
//!
//! Memory is a window of about 1 MiB or one group, whichever is larger, however long the file.

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::error::Damage;
use crate::frame::{BLOCK_BYTES, Checksum, FRAME_HEADER_BYTES, FrameHeader, NoFrame, VERSION, to_blocks};
use crate::segment::FIRST_GROUP_AT;
use crate::vfs::VfsFile;

/// How much is read with one call.
const CHUNK_BYTES: u64 = 1 << 20;

/// A whole group.
pub(crate) struct Group {
    /// Its frames, one after the other, with headers.
    pub(crate) bytes: Bytes,
    /// Kind and body of each, as a range of `bytes`.
    pub(crate) frames: Vec<(u8, Range<usize>)>,
    /// Where in the file it starts.
    pub(crate) at: u64,
}

/// What lies behind the last whole group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Groups later than the one that should come next, or of another version, that start with an intact frame: the one
    /// that should come next was acknowledged before they were written.
    pub(crate) groups: u64,
    /// Where the last byte that is not 0 ends, if there is one.
    pub(crate) dirty_to: Option<u64>,
}

/// Reads the groups of one segment in their order.
pub(crate) struct SegmentScan<'a, F> {
    file: &'a F,
    file_bytes: u64,
    segment: u64,
    checksum: Checksum,
    /// Where the next group starts.
    at: u64,
    /// Bytes of the file from `at` on.
    window: BytesMut,
}

impl<'a, F: VfsFile> SegmentScan<'a, F> {
    pub(crate) fn new(file: &'a F, segment: u64, checksum: Checksum) -> io::Result<SegmentScan<'a, F>> {
        let file_bytes = file.len()?;
        Ok(SegmentScan { file, file_bytes, segment, checksum, at: FIRST_GROUP_AT, window: BytesMut::new() })
    }

    /// The next group is the one at `at`: for a scan that has read nothing yet.
    pub(crate) fn skip_to(&mut self, at: u64) {
        self.at = at;
    }

    /// Where the next group starts.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Length of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The next group, which should have the number `expected`, or why it is not there.
    pub(crate) fn next_group(&mut self, expected: u64) -> io::Result<Result<Group, Damage>> {
        let mut frames = Vec::new();
        let mut end = 0;
        loop {
            let body = end + FRAME_HEADER_BYTES;
            if !self.fill(body as u64)? {
                let damage = Damage::MissingGroup { expected };
                return Ok(Err(if frames.is_empty() { damage } else { Damage::Frame { expected } }));
            }
            let header = match FrameHeader::decode(&array(&self.window[end..body])) {
                Ok(header) => header,
                Err(NoFrame::Zeros) if frames.is_empty() => return Ok(Err(Damage::MissingGroup { expected })),
                Err(NoFrame::Zeros | NoFrame::Garbage) => return Ok(Err(Damage::Frame { expected })),
            };
            let frame = end..body + header.len as usize;
            if !self.fill(frame.end as u64)? || !self.checksum.is_intact(&self.window[frame.clone()]) {
                return Ok(Err(Damage::Frame { expected }));
            }
            if header.version != VERSION {
                return Ok(Err(Damage::FrameVersion { found: header.version, known: VERSION }));
            }
            if header.segment != self.segment {
                return Ok(Err(Damage::OtherSegment { found: header.segment }));
            }
            if header.group != expected {
                return Ok(Err(Damage::UnexpectedGroup { expected, found: header.group }));
            }
            frames.push((header.kind, body..frame.end));
            end = frame.end;
            if header.is_last {
                break;
            }
        }
        let at = self.at;
        let padded = to_blocks(end as u64);
        self.fill(padded)?;
        let bytes = self.window.split_to(self.window.len().min(usize::try_from(padded).unwrap_or(usize::MAX)));
        self.at += padded;
        Ok(Ok(Group { bytes: bytes.freeze(), frames, at }))
    }

    /// Looks at everything from the place of the next group, which should have the number `expected`, to the end of the
    /// file. Groups start on blocks, so a damaged one does not hide those behind it.
    pub(crate) fn rest(&mut self, expected: u64) -> io::Result<Rest> {
        let mut rest = Rest::default();
        let mut chunk_at = self.at;
        let mut chunk = vec![0; BLOCK_BYTES.max(usize::try_from(CHUNK_BYTES).unwrap_or(BLOCK_BYTES))];
        while chunk_at < self.file_bytes {
            let len = usize::try_from(self.file_bytes - chunk_at).unwrap_or(usize::MAX).min(chunk.len());
            let bytes = &mut chunk[..len];
            self.file.read_at(bytes, chunk_at)?;
            for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
                let Some(last) = block.iter().rposition(|byte| *byte != 0) else { continue };
                let block_at = chunk_at + (index * BLOCK_BYTES) as u64;
                rest.dirty_to = Some(block_at + last as u64 + 1);
                if self.is_later_group(block, block_at, expected)? {
                    rest.groups += 1;
                }
            }
            chunk_at += len as u64;
        }
        Ok(rest)
    }

    /// Moves on to the next group behind the place of the one that should be here and have the number `expected`. Returns its
    /// number, or `None` if there is none.
    pub(crate) fn resync(&mut self, expected: u64) -> io::Result<Option<u64>> {
        let mut at = self.at;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            at += BLOCK_BYTES as u64;
            if at + BLOCK_BYTES as u64 > self.file_bytes {
                return Ok(None);
            }
            self.file.read_at(&mut block, at)?;
            if self.is_later_group(&block, at, expected)?
                && let Some(Ok(header)) = block.first_chunk().map(FrameHeader::decode)
            {
                self.at = at;
                self.window.clear();
                return Ok(Some(header.group));
            }
        }
    }

    /// Whether a frame starts with `block` that is intact and of a group behind `expected`. Earlier ones and those of other
    /// segments are none of ours: somebody may have stored a copy of a segment in the log.
    fn is_later_group(&self, block: &[u8], at: u64, expected: u64) -> io::Result<bool> {
        let Some(Ok(header)) = block.get(..FRAME_HEADER_BYTES).map(|bytes| FrameHeader::decode(&array(bytes))) else {
            return Ok(false);
        };
        if header.version == VERSION && (header.segment != self.segment || header.group <= expected) {
            return Ok(false);
        }
        let bytes = FRAME_HEADER_BYTES as u64 + u64::from(header.len);
        if at + bytes > self.file_bytes {
            return Ok(false);
        }
        let mut frame = vec![0; usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?];
        self.file.read_at(&mut frame, at)?;
        Ok(self.checksum.is_intact(&frame))
    }

    /// Reads on until the window has `bytes`; `false` if the file ends before.
    fn fill(&mut self, bytes: u64) -> io::Result<bool> {
        let have = self.window.len() as u64;
        if have >= bytes {
            return Ok(true);
        }
        let left = self.file_bytes.saturating_sub(self.at + have);
        if have + left < bytes {
            return Ok(false);
        }
        let more = left.min(CHUNK_BYTES.max(bytes - have));
        let have = self.window.len();
        self.window.resize(have + usize::try_from(more).map_err(|_| io::ErrorKind::FileTooLarge)?, 0);
        self.file.read_at(&mut self.window[have..], self.at + have as u64)?;
        Ok(true)
    }
}

/// A header's bytes; the caller has checked the length.
fn array(bytes: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    let mut out = [0; FRAME_HEADER_BYTES];
    out.copy_from_slice(bytes);
    out
}
