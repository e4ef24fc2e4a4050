//! Frames that are compressed, sealed, or both.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use boki_disk::mem::MemDisk;
use boki_disk::{
    Coding, Compression, DataKey, DataKeys, FRAME_HEADER_BYTES, Frame, JournalConfig, Keyring, OpenError, ReadError,
};
use bytes::Bytes;
use common::*;

const MARKER: &[u8] = b"MARKER";

fn sealed_with(current: u8, old: &[u8], accepts_plain: bool) -> JournalConfig {
    let key = |byte: &u8| DataKey::from_bytes([*byte; 32]);
    let keys = DataKeys { current: key(&current), old: old.iter().map(key).collect() };
    JournalConfig { keyring: Some(Arc::new(Keyring::new(&keys, accepts_plain).unwrap())), ..config() }
}

/// Groups of every shape: of one small frame, of several, of none worth compressing.
fn shapes() -> Vec<Vec<Bytes>> {
    let text = |len: usize| Bytes::from(MARKER.repeat(len / MARKER.len() + 1));
    vec![
        vec![text(10)],
        vec![text(8000), Bytes::new(), body(1, 300), text(100)],
        vec![noise(6000), text(6000)],
        vec![text(100_000)],
        vec![Bytes::new()],
    ]
}

fn noise(len: usize) -> Bytes {
    let mut state = 1_u64;
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 56) as u8
    };
    (0..len).map(|_| next(&mut state)).collect()
}

fn write_shapes(disk: &MemDisk, config: JournalConfig) -> Vec<Read> {
    let (mut journal, _) = open_with(disk, config).unwrap();
    let mut written = Vec::new();
    for bodies in shapes() {
        let frames: Vec<Frame> = bodies.iter().map(|body| frame(3, body)).collect();
        journal.write(&frames, &mut Vec::new()).unwrap();
        written.extend(bodies.into_iter().map(|body| (3, body)));
    }
    written
}

fn holds_marker(disk: &MemDisk) -> bool {
    disk.names().iter().any(|name| disk.contents(name).unwrap().windows(MARKER.len()).any(|bytes| bytes == MARKER))
}

fn used_bytes(disk: &MemDisk, config: JournalConfig) -> u64 {
    open_with(disk, config).unwrap().0.segments().iter().map(|segment| segment.used_bytes).sum()
}

#[test]
fn what_is_written_is_read_back_however_it_is_stored() {
    let plain = MemDisk::new();
    write_shapes(&plain, config());
    assert!(holds_marker(&plain));
    for (is_compressed, is_sealed) in [(true, false), (false, true), (true, true)] {
        let disk = MemDisk::new();
        let config = || coded(is_compressed, is_sealed, false);
        let written = write_shapes(&disk, config());
        assert_eq!(open_with(&disk, config()).unwrap().1, written);
        assert_eq!(holds_marker(&disk), !is_sealed);
        let (less, more) = (used_bytes(&disk, config()), used_bytes(&plain, common::config()));
        assert!(if is_compressed { less < more / 2 } else { less >= more }, "{less} bytes, plain {more}");
    }
}

#[test]
fn parts_of_frames_are_read_and_nothing_beyond_them() {
    for (is_compressed, is_sealed) in [(false, false), (true, false), (false, true), (true, true)] {
        let disk = MemDisk::new();
        let (mut journal, _) = open_with(&disk, coded(is_compressed, is_sealed, false)).unwrap();
        let bodies = [body(1, 9000), noise(9000)];
        let mut places = Vec::new();
        journal.write(&bodies.iter().map(|body| frame(1, body)).collect::<Vec<_>>(), &mut places).unwrap();
        let reader = journal.reader();
        for (place, body) in places.iter().zip(&bodies) {
            for (at, len) in [(0, 9000), (17, 100), (8999, 1), (9000, 0), (0, 0)] {
                let found = reader.read(place.segment, place.offset, at, len).unwrap();
                assert_eq!(found, body[at as usize..(at + len) as usize]);
            }
        }
        if is_sealed {
            for (at, len) in [(9000, 1), (8999, 2), (u32::MAX, u32::MAX)] {
                let place = places[0];
                let refused = reader.read(place.segment, place.offset, at, len);
                assert!(matches!(refused, Err(ReadError::Damaged { .. })), "{refused:?}");
            }
            for frame in [0, places[0].offset - 1, places[0].offset + 8] {
                assert!(reader.read(places[0].segment, frame, 0, 1).is_err(), "at {frame}");
            }
        }
    }
}

#[test]
fn how_frames_are_stored_may_change_from_one_opening_to_the_next() {
    let disk = MemDisk::new();
    let mut written = Vec::new();
    let mut codings = Vec::new();
    let configs = [
        config(),
        coded(true, false, true),
        sealed_with(1, &[], true),
        JournalConfig { compression: Compression::Lz4, ..sealed_with(2, &[1], true) },
        sealed_with(1, &[2], true),
    ];
    for config in configs {
        written.extend(write_shapes(&disk, config));
        let (journal, found) = open_with(&disk, sealed_with(2, &[1], true)).unwrap();
        assert_eq!(found, written);
        codings.push(journal.segments().last().unwrap().coding);
    }
    let key = |byte: u8| DataKey::from_bytes([byte; 32]).check().to_string();
    let shown: Vec<String> = codings.iter().map(Coding::to_string).collect();
    let sealed = |byte: u8| format!("encrypted with the key {}", key(byte));
    assert_eq!(shown, ["plain".to_owned(), "compressed".to_owned(), sealed(1), sealed(2), sealed(1)]);
}

#[test]
fn a_journal_with_a_sealed_segment_needs_its_key() {
    let disk = MemDisk::new();
    write_shapes(&disk, sealed_with(1, &[], false));
    for config in [config(), coded(true, false, false), sealed_with(2, &[], false), sealed_with(2, &[3], true)] {
        let refused = open_with(&disk, config).unwrap_err();
        assert!(matches!(refused, OpenError::NoKey { segment: 1, .. }), "{refused}");
    }
    open_with(&disk, sealed_with(2, &[1], false)).unwrap();
}

#[test]
fn what_is_not_sealed_is_damage_where_everything_should_be() {
    let disk = MemDisk::new();
    write_shapes(&disk, config());
    let refused = open_with(&disk, sealed_with(1, &[], false)).unwrap_err();
    assert!(refused.to_string().contains("not encrypted"), "{refused}");
    open_with(&disk, sealed_with(1, &[], true)).unwrap();
}

#[test]
fn every_flipped_bit_of_a_coded_frame_is_noticed_when_it_is_read() {
    for (is_compressed, is_sealed) in [(true, false), (false, true), (true, true)] {
        let disk = MemDisk::new();
        let config = || coded(is_compressed, is_sealed, false);
        let (mut journal, _) = open_with(&disk, config()).unwrap();
        let mut places = Vec::new();
        journal.write(&[frame(1, &body(1, 5000)), frame(1, &body(2, 10))], &mut places).unwrap();
        let place = places[0];
        let start = u64::from(place.offset) - FRAME_HEADER_BYTES as u64;
        let end = u64::from(places[1].offset) - FRAME_HEADER_BYTES as u64;
        // It keeps nothing of what it could not read.
        let reader = journal.reader();
        for at in (start..end).filter(|at| at - start < 100 || end - at < 20 || at % 37 == 0) {
            disk.flip_bit(&segment(1), at, (at % 8) as u8);
            let read = reader.read(place.segment, place.offset, 0, 5000);
            assert!(matches!(read, Err(ReadError::Damaged { .. } | ReadError::Io { .. })), "byte {at}: {read:?}");
            disk.flip_bit(&segment(1), at, (at % 8) as u8);
        }
    }
}

#[test]
fn a_torn_tail_that_is_written_over_uses_up_new_nonces() {
    let disk = MemDisk::new();
    let (mut journal, _) = open_with(&disk, sealed_with(1, &[], false)).unwrap();
    disk.fail_sync_after(0);
    assert!(is_failed(journal.write(&[frame(1, &body(1, 50)), frame(1, &body(1, 60))], &mut Vec::new())));
    let head = |disk: &MemDisk| disk.contents(&segment(1)).unwrap()[4096 + FRAME_HEADER_BYTES..][..28].to_vec();
    let torn = head(&disk);
    assert_ne!(torn, vec![0; 28]);
    // The group got through in part.
    disk.crash(&mut |ways| ways - 1);
    patch(&disk, &segment(1), 4096 + 100, &[0; 30]);
    let (mut journal, found) = open_with(&disk, sealed_with(1, &[], false)).unwrap();
    assert_eq!((found.len(), journal.torn_tail().unwrap().offset), (0, 4096));
    journal.write(&[frame(1, &body(2, 50))], &mut Vec::new()).unwrap();
    let again = head(&disk);
    assert_eq!(torn[..4], again[..4], "the key's id");
    assert_ne!(torn[4..20], again[4..20], "the salt");
}
