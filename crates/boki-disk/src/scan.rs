//! Reads one segment file from its start: the whole groups in it, and what to think of the place where they end.
//!
//! Memory is a window of about 1 MiB or one group, whichever is larger, however long the file.

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::coding::{Coding, FrameReader};
use crate::error::Damage;
use crate::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, NoFrame, VERSION, to_blocks};
use crate::segment::FIRST_GROUP_AT;
use crate::vfs::VfsFile;

/// How much is read with one call.
const CHUNK_BYTES: u64 = 1 << 20;

/// A whole group.
pub(crate) struct Group {
    /// Its frames, one after the other, with headers.
    bytes: Bytes,
    frames: Vec<ScannedFrame>,
    /// Where in the file it starts.
    pub(crate) at: u64,
}

/// A frame of a group that was read.
struct ScannedFrame {
    kind: u8,
    /// Where its body is, as a range of the group's bytes.
    body: Range<usize>,
    /// The body, if it is not stored as it is.
    opened: Option<Bytes>,
}

impl Group {
    /// Kind, offset of the body in the file, and plain body of each frame.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (u8, u64, Bytes)> + '_ {
        self.frames.iter().map(|ScannedFrame { kind, body, opened }| {
            let plain = opened.clone().unwrap_or_else(|| self.bytes.slice(body.clone()));
            (*kind, self.at + body.start as u64, plain)
        })
    }
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
    coding: Coding,
    reader: &'a FrameReader,
    /// Where the next group starts.
    at: u64,
    /// Bytes of the file from `at` on.
    window: BytesMut,
}

impl<'a, F: VfsFile> SegmentScan<'a, F> {
    pub(crate) fn new(
        file: &'a F,
        segment: u64,
        coding: Coding,
        reader: &'a FrameReader,
    ) -> io::Result<SegmentScan<'a, F>> {
        let file_bytes = file.len()?;
        Ok(SegmentScan { file, file_bytes, segment, coding, reader, at: FIRST_GROUP_AT, window: BytesMut::new() })
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
        let mut frames: Vec<ScannedFrame> = Vec::new();
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
            if !self.fill(frame.end as u64)? || !self.reader.is_intact(&self.window[frame.clone()]) {
                return Ok(Err(Damage::Frame { expected }));
            }
            if !header.is_known() {
                return Ok(Err(Damage::FrameVersion { found: header.version, known: VERSION }));
            }
            if header.segment != self.segment {
                return Ok(Err(Damage::OtherSegment { found: header.segment }));
            }
            if header.group != expected {
                return Ok(Err(Damage::UnexpectedGroup { expected, found: header.group }));
            }
            let opened = match self.open(&header, body..frame.end) {
                Ok(opened) => opened,
                Err(what) => return Ok(Err(Damage::Body { group: expected, what })),
            };
            frames.push(ScannedFrame { kind: header.kind, body: body..frame.end, opened });
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

    /// The plain body of a frame whose body is at `body` of the window, if it is not stored as it is.
    fn open(&self, header: &FrameHeader, body: Range<usize>) -> Result<Option<Bytes>, &'static str> {
        FrameReader::fits(header, self.coding)?;
        if !header.is_coded() {
            return Ok(None);
        }
        let at = self.at + (body.start - FRAME_HEADER_BYTES) as u64;
        self.reader.open(header, self.window[body].to_vec(), at).map(Some)
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
        if header.is_known() && (header.segment != self.segment || header.group <= expected) {
            return Ok(false);
        }
        let bytes = FRAME_HEADER_BYTES as u64 + u64::from(header.len);
        if at + bytes > self.file_bytes {
            return Ok(false);
        }
        let mut frame = vec![0; usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?];
        self.file.read_at(&mut frame, at)?;
        Ok(self.reader.is_intact(&frame))
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
