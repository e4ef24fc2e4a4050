//! Segment files and the record of removed ones: opening finds what can be found, or refuses and changes nothing; and what
//! it has opened, it opens again and goes on with.
#![no_main]

use boki_disk::mem::MemDisk;
use boki_disk::{Frame, Journal, JournalConfig, OpenError};
use boki_fuzz::{DIRECTORY, add, pieces, seal, seal_segment};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 16 << 10, first_segment_bytes: 16 << 10, ..JournalConfig::new(DIRECTORY) }
}

type Found = Vec<(u8, Bytes)>;

fn open(disk: &MemDisk) -> Result<(Journal<MemDisk>, Found), OpenError> {
    let mut found = Vec::new();
    let journal = Journal::open(disk.clone(), config(), None, &mut |frame| found.push((frame.kind, frame.body)))?;
    Ok((journal, found))
}

fuzz_target!(|data: &[u8]| {
    let disk = MemDisk::new();
    for (index, piece) in pieces(data).iter().take(5).enumerate() {
        let mut bytes = piece.to_vec();
        if index < 2 {
            seal(&mut bytes, 8);
            if !bytes.is_empty() {
                add(&disk, ["seg/removed", "seg/reach"][index], &bytes);
            }
            continue;
        }
        // A header is 64 bytes; groups start on blocks.
        if bytes.len() > 64 {
            let groups = bytes.split_off(64);
            bytes.resize(4096, 0);
            bytes.extend_from_slice(&groups);
        }
        seal_segment(&mut bytes);
        add(&disk, &format!("seg/{:016}.log", index - 1), &bytes);
    }
    let before: Vec<_> = disk.names().into_iter().map(|name| disk.contents(&name)).collect();
    match open(&disk) {
        Ok((mut journal, mut found)) => {
            let body = Bytes::from_static(b"one more");
            if journal.write(&[Frame { kind: 9, parts: vec![body.clone()] }], &mut Vec::new()).is_ok() {
                found.push((9, body));
            }
            drop(journal);
            let (_, again) = open(&disk).unwrap_or_else(|error| panic!("it does not open again: {error}"));
            assert_eq!(again, found);
        }
        Err(_) => {
            let after: Vec<_> = disk.names().into_iter().map(|name| disk.contents(&name)).collect();
            assert_eq!(before, after, "refusing changes nothing");
        }
    }
});
