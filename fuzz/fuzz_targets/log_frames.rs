//! Frames of the journal, in any order: the machine takes them back or says what is wrong with them, and then runs.
#![no_main]

use boki_fuzz::{pieces, seal};
use boki_log::cut::Cut;
use boki_log::machine::{FRAME_CUT, FRAME_RUN, Machine, MachineConfig};
use boki_log::storage::{FramePlace, GroupPlace, Run};
use boki_log::{Limits, NodeId, Term};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

/// Where the batches of a run begin.
const RUN_HEADER_BYTES: usize = 14;

/// Makes lengths and checksums of a run's batches right.
fn sealed(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    let mut at = RUN_HEADER_BYTES;
    while let Some(len) = bytes.get(at..at + 4) {
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        let end = at.saturating_add(len).min(bytes.len());
        if len < 8 || end <= at {
            break;
        }
        seal(&mut bytes[at..end], 4);
        at = end;
    }
    bytes.into()
}

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::new(MachineConfig::alone(NodeId(1), Term(9), Limits::default(), 1 << 20));
    for (index, piece) in pieces(data).iter().enumerate() {
        let Some((kind, _)) = piece.split_first() else { continue };
        let body = piece.slice(1..);
        let (kind, body) = if kind % 2 == 0 { (FRAME_RUN, sealed(&body)) } else { (FRAME_CUT, body) };
        if kind == FRAME_CUT
            && let Ok(cut) = Cut::decode(&body)
        {
            let mut again = BytesMut::new();
            cut.encode(&mut again);
            assert_eq!(again, body);
        }
        if kind == FRAME_RUN
            && let Ok(run) = Run::decode(&body)
        {
            assert_eq!(run.encode().concat(), body);
        }
        let place = FramePlace { segment: 1, offset: (index as u32 + 1) * 4096 };
        if machine.recover_frame(kind, place, &body).is_err() {
            return;
        }
    }
    if machine.start(0, None, &[1]).is_ok() {
        let writes = machine.take_writes(1, 1, 1 << 20);
        let places: Vec<_> =
            (0..writes.len()).map(|at| FramePlace { segment: 2, offset: 4096 + at as u32 * 64 }).collect();
        if !writes.is_empty() {
            machine.written(2, Some(GroupPlace { segment: 2, group: 1, offset: 4096 }), &places);
        }
        let _ = machine.checkpoint();
    }
});
