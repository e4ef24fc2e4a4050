//! What one append and one read cost inside the machine, without a disk, a lock or a socket:
//! `cargo bench -p boki-log`.
#![allow(missing_docs, clippy::unwrap_used)]

use boki_log::batch::ReservedTags;
use boki_log::engine::OpId;
use boki_log::machine::{Machine, MachineConfig};
use boki_log::op::{Ack, Append, Consistency, Direction, Op, Read};
use boki_log::storage::FramePlace;
use boki_log::{Batch, BatchBuilder, BookId, Limits, NodeId, Position, Seq, Tag, Term};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const BOOK: BookId = BookId(1);
const GROUP: u64 = 128;

fn batch(number: u64) -> Batch {
    let tag = Tag::new(format!("user/{}", number % 1000)).unwrap();
    BatchBuilder::new(BOOK).record(vec![tag], Bytes::from(vec![7; 1024])).build().unwrap()
}

/// Appends one group and completes its write.
fn append_group(machine: &mut Machine, batches: Vec<Batch>) {
    for (id, batch) in batches.into_iter().enumerate() {
        let append = Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused };
        machine.submit(1, OpId(id as u64), Op::Append(append));
    }
    let frames = machine.take_writes(1, 1, usize::MAX);
    machine.written(1, None, &vec![FramePlace { segment: 1, offset: 0 }; frames.len()]);
    assert_eq!(machine.take_outcomes().len() as u64, GROUP);
}

fn bench(criterion: &mut Criterion) {
    let new = || Machine::new(MachineConfig::alone(NodeId(1), Term(1), Limits::default(), 64 << 20));
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(GROUP));
    let mut machine = new();
    group.bench_function("append", |bencher| {
        let group = || (0..GROUP).map(batch).collect();
        bencher.iter_batched(group, |batches| append_group(&mut machine, batches), BatchSize::SmallInput);
    });
    group.throughput(Throughput::Elements(1));
    let mut machine = new();
    for _ in 0..100 {
        append_group(&mut machine, (0..GROUP).map(batch).collect());
    }
    let tag = Tag::new("user/7").unwrap();
    group.bench_function("read_prev by tag", |bencher| {
        bencher.iter(|| {
            let read = Read {
                book: BOOK,
                tag: Some(tag.clone()),
                from: Seq::MAX,
                direction: Direction::Prev,
                limit: 1,
                consistency: Consistency::Session(Position::START),
                wait: None,
            };
            machine.submit(1, OpId(0), Op::Read(read));
            assert_eq!(machine.take_outcomes().len(), 1);
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
