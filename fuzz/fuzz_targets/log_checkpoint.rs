//! A checkpoint: the machine takes it or refuses it, and what it took it can write again.
#![no_main]

use boki_log::machine::{Machine, MachineConfig};
use boki_log::{Limits, NodeId, Term};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let machine = || Machine::new(MachineConfig::alone(NodeId(1), Term(9), Limits::default(), 1 << 20));
    let mut first = machine();
    if first.recover_checkpoint(&Bytes::copy_from_slice(data)).is_err() {
        return;
    }
    let Some(written) = first.checkpoint() else { return };
    let mut second = machine();
    second.recover_checkpoint(&written).expect("what was written is read");
    assert_eq!(second.checkpoint(), Some(written));
    let _ = first.start(0);
});
