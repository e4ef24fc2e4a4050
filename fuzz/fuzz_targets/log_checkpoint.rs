//! A checkpoint: the machine takes it or refuses it, and what it took it can write again.
#![no_main]

use boki_log::machine::{Checkpoint, Machine, MachineConfig};
use boki_log::{Limits, NodeId, Term};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(checkpoint) = Checkpoint::decode(&Bytes::copy_from_slice(data)) else { return };
    assert_eq!(Checkpoint::decode(&checkpoint.encode()).as_ref(), Ok(&checkpoint));
    let machine = || Machine::new(MachineConfig::alone(NodeId(1), Term(9), Limits::default(), 1 << 20));
    let mut first = machine();
    let covered = checkpoint.covered;
    if first.recover_checkpoint(checkpoint).is_err() || first.start(0, covered, &[]).is_err() {
        return;
    }
    let Some(written) = first.checkpoint() else { return };
    let read = Checkpoint::decode(&written.encode()).expect("what was written is read");
    assert_eq!(read, written);
    machine().recover_checkpoint(read).expect("what was taken once is taken again");
});
