//! A batch of records, as it comes from the wire and from disk, and a record's body.
#![no_main]

use boki_log::batch::{RecordBody, ReservedTags};
use boki_log::{Batch, Limits};
use boki_fuzz::seal;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(body) = RecordBody::decode(Bytes::copy_from_slice(data)) {
        let tags: usize = body.tags().map(str::len).sum();
        assert!(tags + body.payload().len() < data.len().max(1));
        assert_eq!(body.tags().count(), body.tag_count());
    }
    let mut bytes = data.to_vec();
    let len = bytes.len() as u32;
    if let Some(field) = bytes.first_chunk_mut() {
        *field = len.to_le_bytes();
    }
    seal(&mut bytes, 4);
    let Ok(batch) = Batch::decode(bytes.into()) else { return };
    let _ = (batch.id(), batch.kind(), batch.book(), batch.is_conditional());
    let _ = (batch.conditions().count(), batch.raises().count());
    let records: Vec<_> = batch.records().collect();
    assert_eq!(records.len(), batch.record_count() as usize);
    assert_eq!(records.len(), batch.record_spans().count());
    for (record, (at, len)) in records.iter().zip(batch.record_spans()) {
        assert_eq!(record.bytes(), &batch.bytes().slice(at as usize..(at + len) as usize));
    }
    let _ = batch.check(&Limits::default(), ReservedTags::Refused);
});
