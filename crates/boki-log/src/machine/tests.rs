//! The roles together, on a disk that a test completes by hand.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::batch::{BatchBuilder, Condition, ReservedTags};
use crate::ids::{BookId, Position, Seq};
use crate::limits::Limits;
use crate::op::{Ack, Append, Appended, Consistency, Direction, Read, Records, Reply};
use crate::tag::Tag;

const BOOK: BookId = BookId(3);

/// A machine alone, and everything its disk holds.
struct Alone {
    machine: Machine,
    disk: Vec<(u8, FramePlace, Bytes)>,
    now_us: u64,
    next_op: u64,
}

impl Alone {
    fn new(term: u32) -> Alone {
        let config = MachineConfig::alone(NodeId(1), Term(term), Limits::default(), 1 << 20);
        Alone { machine: Machine::new(config), disk: Vec::new(), now_us: 1, next_op: 0 }
    }

    fn submit(&mut self, op: Op) -> OpId {
        self.next_op += 1;
        self.machine.submit(self.now_us, OpId(self.next_op), op);
        OpId(self.next_op)
    }

    /// Where the group is that was written last.
    fn last(&self) -> GroupPlace {
        GroupPlace { segment: 1, group: self.disk.len() as u64, offset: 0 }
    }

    fn append(&mut self, builder: BatchBuilder) -> OpId {
        let (batch, reserved) = (builder.build().unwrap(), ReservedTags::Refused);
        self.submit(Op::Append(Append { batch, ack: Ack::Ordered, reserved }))
    }

    fn outcomes(&mut self) -> Vec<(OpId, Outcome)> {
        self.machine.take_outcomes().collect()
    }

    /// Writes one group; `false` if there is none.
    fn write(&mut self) -> bool {
        let frames = self.machine.take_writes(self.now_us, self.now_us, 1 << 20);
        let mut places = Vec::new();
        for frame in &frames {
            let place = FramePlace { segment: 1, offset: self.disk.len() as u32 * 1000 };
            self.disk.push((frame.kind, place, Bytes::from(frame.parts.concat())));
            places.push(place);
        }
        if !frames.is_empty() {
            self.machine.written(self.now_us, Some(self.last()), &places);
        }
        !frames.is_empty()
    }

    fn restart(self, term: u32) -> Alone {
        let mut next = Alone::new(term);
        for (kind, place, body) in self.disk {
            next.machine.recover_frame(kind, place, &body).unwrap();
            next.disk.push((kind, place, body));
        }
        next.machine.start(next.now_us, Some(next.last()), &[1]).unwrap();
        next
    }

    fn all(&mut self) -> Vec<(u64, Bytes)> {
        let (consistency, direction) = (Consistency::Linearizable, Direction::Next);
        let read = Read { book: BOOK, tag: None, from: Seq(0), direction, limit: 1000, consistency, wait: None };
        let id = self.submit(Op::Read(read));
        let outcome = self.outcomes().into_iter().find(|(op, _)| *op == id).unwrap().1;
        match outcome {
            Outcome::Done(Ok(Reply::Records(Records { records, .. }))) => {
                records.into_iter().map(|record| (record.seq.0, record.body.payload_bytes())).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn record(text: &'static str) -> BatchBuilder {
    BatchBuilder::new(BOOK).record(vec![Tag::new("t").unwrap()], Bytes::from_static(text.as_bytes()))
}

fn appended(seq: u64) -> Outcome {
    let position = Position::after(Seq(seq));
    Outcome::Done(Ok(Reply::Appended(Appended { seq: Some(Seq(seq)), count: 1, repeated: false, position })))
}

#[test]
fn appends_are_answered_after_one_write_that_holds_records_and_cut() {
    let mut alone = Alone::new(1);
    let (a, b) = (alone.append(record("a")), alone.append(record("b")));
    assert!(alone.machine.wants_disk());
    assert_eq!(alone.outcomes(), []);
    assert!(alone.write());
    assert_eq!(alone.disk.iter().map(|(kind, _, _)| *kind).collect::<Vec<_>>(), [FRAME_RUN, FRAME_CUT]);
    assert_eq!(alone.outcomes(), [(a, appended(1)), (b, appended(2))]);
    assert!(!alone.machine.wants_disk() && !alone.write());
    assert_eq!(alone.machine.next_timer(), None, "an idle machine has no timer");
}

#[test]
fn what_comes_during_a_write_makes_the_next_group() {
    let mut alone = Alone::new(1);
    alone.append(record("a"));
    let first = alone.machine.take_writes(1, 1, 1 << 20);
    let (b, c) = (alone.append(record("b")), alone.append(record("c")));
    assert!(!alone.machine.wants_disk(), "the disk is busy");
    assert!(alone.machine.take_writes(1, 1, 1 << 20).is_empty());
    alone.machine.written(1, Some(alone.last()), &vec![FramePlace { segment: 1, offset: 0 }; first.len()]);
    alone.outcomes();
    assert!(alone.write());
    assert_eq!(alone.outcomes(), [(b, appended(2)), (c, appended(3))]);
}

#[test]
fn a_restart_finds_everything_and_orders_what_was_on_disk_without_a_cut() {
    let mut alone = Alone::new(1);
    alone.append(record("a"));
    alone.write();
    alone.append(record("b"));
    alone.write();
    alone.disk.pop();
    let mut alone = alone.restart(2);
    assert_eq!(alone.all(), [(1, Bytes::from_static(b"a"))], "b is on disk, its cut is not");
    assert!(alone.write(), "the new sequencer orders it");
    alone.append(record("c"));
    alone.write();
    let expected = [(1, Bytes::from_static(b"a")), (2, Bytes::from_static(b"b")), (3, Bytes::from_static(b"c"))];
    assert_eq!(alone.all(), expected);
    assert_eq!(alone.restart(3).all(), expected);
}

#[test]
fn a_restart_from_a_checkpoint_judges_as_before_though_frames_are_gone() {
    let tag = Tag::new("t").unwrap();
    let mut alone = Alone::new(1);
    alone.append(record("a"));
    alone.write();
    alone.append(record("b").condition(Condition::Tail { tag: tag.clone(), seq: Seq(1) }));
    alone.write();
    let trim = BatchBuilder::trim(BOOK, Some(tag.clone()), Seq(2)).unwrap();
    alone.submit(Op::Append(Append { batch: trim, ack: Ack::Ordered, reserved: ReservedTags::Refused }));
    alone.write();
    let checkpoint = alone.machine.checkpoint().unwrap();
    alone.append(record("c").condition(Condition::Tail { tag, seq: Seq(2) }));
    alone.write();
    let mut next = Alone::new(2);
    next.machine.recover_checkpoint(Checkpoint::decode(&checkpoint.encode()).unwrap()).unwrap();
    for (kind, place, body) in alone.disk.split_off(6) {
        next.machine.recover_frame(kind, place, &body).unwrap();
    }
    next.machine.start(9, Some(next.last()), &[1]).unwrap();
    let found = next.machine.engine().unwrap().index().clone();
    assert_eq!(found.tail(BOOK, None), Ok(Seq(4)));
    assert_eq!(found.live_records(), 2);
}

#[test]
fn what_was_trimmed_before_a_checkpoint_without_sections_is_dead_after_it() {
    let mut alone = Alone::new(1);
    alone.append(record("a"));
    alone.write();
    let trim = BatchBuilder::trim(BOOK, None, Seq(2)).unwrap();
    alone.submit(Op::Append(Append { batch: trim, ack: Ack::Ordered, reserved: ReservedTags::Refused }));
    while alone.write() {}
    let checkpoint = alone.machine.checkpoint().unwrap().encode_without_sections();
    let mut next = Alone::new(2);
    next.machine.recover_checkpoint(Checkpoint::decode(&checkpoint).unwrap()).unwrap();
    for (kind, place, body) in alone.disk {
        next.machine.recover_frame(kind, place, &body).unwrap();
    }
    next.machine.start(9, Some(GroupPlace { segment: 2, group: 9, offset: 0 }), &[1, 2]).unwrap();
    assert_eq!(next.machine.dead_segments(), [1]);
}

#[test]
fn a_checkpoint_covers_every_group_whose_records_are_ordered_and_is_not_made_before() {
    let mut alone = Alone::new(1);
    assert_eq!(alone.machine.checkpoint(), None, "it has not started");
    alone.machine.start(0, None, &[]).unwrap();
    assert_eq!(alone.machine.checkpoint().unwrap().covered, None);
    alone.append(record("a"));
    alone.write();
    assert_eq!(alone.machine.checkpoint().unwrap().covered, Some(alone.last()));
    let last = alone.last();
    alone.append(record("b"));
    alone.machine.take_writes(1, 1, 1 << 20);
    assert_eq!(alone.machine.checkpoint().unwrap().covered, Some(last), "what is being written is not covered");
    let mut alone = Alone::new(1);
    alone.append(record("a"));
    alone.write();
    alone.disk.pop();
    let mut alone = alone.restart(2);
    assert_eq!(alone.machine.checkpoint(), None, "a record on disk has no cut");
    alone.write();
    assert_eq!(alone.machine.checkpoint().unwrap().covered, Some(alone.last()));
}

#[test]
fn missing_records_are_found_at_the_start() {
    let mut alone = Alone::new(1);
    for text in ["a", "b", "c"] {
        alone.append(record(text));
        alone.write();
    }
    let recover = |frames: Vec<usize>| {
        let mut next = Alone::new(2);
        frames
            .into_iter()
            .try_for_each(|at| next.machine.recover_frame(alone.disk[at].0, alone.disk[at].1, &alone.disk[at].2))
    };
    assert_eq!(recover(vec![0, 1, 2, 3, 4, 5]), Ok(()));
    assert!(matches!(recover(vec![0, 1, 4, 5]), Err(Damage::MissingRecords { .. })));
    assert_eq!(recover(vec![0, 1, 3]), Err(Damage::CutWithoutRecords { index: 1 }));
    assert_eq!(recover(vec![0, 1, 2, 4, 5]), Err(Damage::MissingCut { index: 2 }));
}

#[test]
fn a_full_disk_refuses_what_waits_and_continues_when_there_is_room() {
    let mut alone = Alone::new(1);
    alone.append(record("a"));
    alone.write();
    alone.outcomes();
    let b = alone.append(record("b"));
    assert!(!alone.machine.take_writes(1, 1, 1 << 20).is_empty());
    let c = alone.append(record("c"));
    alone.machine.write_refused(1);
    let full = Outcome::Done(Err(LogError::DiskFull));
    assert_eq!(alone.outcomes(), [(b, full.clone()), (c, full)]);
    assert!(!alone.machine.wants_disk());
    let d = alone.append(record("d"));
    alone.write();
    assert_eq!(alone.outcomes(), [(d, appended(2))]);
    assert_eq!(alone.all().len(), 2);
    assert_eq!(alone.restart(2).all().len(), 2);
}

#[test]
fn a_failed_write_ends_appends_and_not_reads() {
    let mut alone = Alone::new(1);
    alone.append(record("a"));
    alone.write();
    alone.append(record("b"));
    alone.machine.take_writes(1, 1, 1 << 20);
    alone.outcomes();
    alone.machine.write_failed(1, "EIO");
    let failed = Outcome::Done(Err(LogError::WriteFailed { reason: "EIO".into() }));
    assert_eq!(alone.outcomes()[0].1, failed);
    alone.append(record("c"));
    assert_eq!(alone.outcomes()[0].1, failed);
    assert!(!alone.machine.wants_disk());
    assert_eq!(alone.all().len(), 1);
}

#[test]
fn a_blocking_read_wakes_on_its_tag_only_and_times_out_without_activity() {
    let mut alone = Alone::new(1);
    let read = |tag: &str, from| Read {
        book: BOOK,
        tag: Some(Tag::new(tag).unwrap()),
        from: Seq(from),
        direction: Direction::Next,
        limit: 1,
        consistency: Consistency::Session(Position::START),
        wait: Some(std::time::Duration::from_micros(50)),
    };
    let other = alone.submit(Op::Read(read("other", 0)));
    let later = alone.submit(Op::Read(read("t", 2)));
    let waits = alone.submit(Op::Read(read("t", 0)));
    let given_up = alone.submit(Op::Read(read("t", 0)));
    alone.machine.cancel(given_up);
    alone.append(record("a"));
    alone.write();
    let ended: Vec<_> = alone.outcomes().into_iter().map(|(id, _)| id).collect();
    assert!(ended.contains(&waits) && !ended.contains(&other) && !ended.contains(&later) && !ended.contains(&given_up));
    assert_eq!(alone.machine.next_timer(), Some(51));
    alone.machine.tick(51);
    let ended: Vec<_> = alone.outcomes().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ended, [other, later]);
    assert_eq!(alone.machine.next_timer(), None);
}

#[test]
fn a_position_beyond_the_end_of_the_log_is_refused_and_one_within_is_not() {
    let mut alone = Alone::new(1);
    alone.append(record("a"));
    alone.write();
    alone.outcomes();
    let mut tail = |position| {
        let consistency = Consistency::Session(Position(Seq(position)));
        alone.submit(Op::Tail(crate::op::Tail { book: BOOK, tag: None, consistency }));
        alone.outcomes().pop().unwrap().1
    };
    assert!(matches!(tail(2), Outcome::Done(Ok(_))));
    assert!(matches!(tail(3), Outcome::Done(Err(LogError::InvalidArgument { .. }))));
}

#[test]
fn an_engine_with_a_blocking_read_asks_for_cuts_that_it_may_have_missed() {
    let mut machine = engine_alone(1);
    let (consistency, direction) = (Consistency::Any, Direction::Next);
    let wait = Some(std::time::Duration::from_micros(50));
    machine.submit(
        0,
        OpId(1),
        Op::Read(Read { book: BOOK, tag: None, from: Seq(0), direction, limit: 1, consistency, wait }),
    );
    for at in [10, 20] {
        assert_eq!(machine.next_timer(), Some(at));
        machine.tick(at);
        assert_eq!(machine.take_sends(), [(NodeId(2), Message::FetchCuts { from: 0 })]);
    }
}

/// A machine that is only an engine; what it sends goes to nodes 2 (sequencer) and 3 (storage).
fn engine_alone(term: u32) -> Machine {
    let mut config = MachineConfig::alone(NodeId(1), Term(term), Limits::default(), 0);
    (config.storage, config.sequencer) = (None, None);
    if let Some(engine) = &mut config.engine {
        engine.sequencer = NodeId(2);
        engine.storages = vec![NodeId(3)];
        engine.resend_after_us = Some(10);
    }
    Machine::new(config)
}

#[test]
fn an_answer_to_an_earlier_start_of_the_engine_answers_no_question_of_this_one() {
    let query = |term| {
        let mut machine = engine_alone(term);
        let consistency = Consistency::Linearizable;
        machine.submit(0, OpId(1), Op::Tail(crate::op::Tail { book: BOOK, tag: None, consistency }));
        match machine.take_sends().as_slice() {
            [(NodeId(2), Message::TailQuery { query })] => (machine, *query),
            other => panic!("{other:?}"),
        }
    };
    let (_, earlier) = query(1);
    let (mut machine, _) = query(2);
    machine.receive(1, NodeId(2), Message::TailIs { query: earlier, end: Seq(1) });
    assert_eq!(machine.take_outcomes().count(), 0);
}

#[test]
fn a_missing_batch_is_asked_for_once_until_it_is_time_to_ask_again() {
    let mut machine = engine_alone(1);
    let other = ShardId { engine: NodeId(7), term: Term(1) };
    let deltas = vec![crate::cut::ShardDelta { shard: other, from: LocalId(0), count: 1 }];
    let cut = Cut { index: 0, start: Seq(1), time_us: 1, deltas };
    let fetch = (NodeId(3), Message::FetchBatches { shard: other, from: LocalId(0) });
    machine.receive(0, NodeId(2), Message::Cuts(vec![cut.clone()]));
    assert_eq!(machine.take_sends(), std::slice::from_ref(&fetch));
    machine.receive(1, NodeId(2), Message::Cuts(vec![cut]));
    assert_eq!(machine.take_sends(), []);
    machine.tick(10);
    assert!(machine.take_sends().contains(&fetch));
}

#[test]
fn what_is_on_disk_of_a_start_that_has_not_begun_is_damage() {
    let mut alone = Alone::new(2);
    alone.append(BatchBuilder::new(BookId(1)).record(vec![], &b"x"[..]));
    while alone.write() {}
    let shard = ShardId { engine: NodeId(1), term: Term(2) };
    for (kind, place, body) in &alone.disk {
        let mut machine = Alone::new(2).machine;
        assert_eq!(machine.recover_frame(*kind, *place, body), Err(Damage::NotBegun { shard }));
    }
    let checkpoint = alone.machine.checkpoint().unwrap();
    assert_eq!(Alone::new(2).machine.recover_checkpoint(checkpoint.clone()), Err(Damage::NotBegun { shard }));
    assert_eq!(Alone::new(3).machine.recover_checkpoint(checkpoint), Ok(()));
    alone.restart(3);
}

#[test]
fn a_cut_that_ends_inside_a_batch_is_damage() {
    let mut alone = Alone::new(2);
    let batch = BatchBuilder::new(BookId(1)).record(vec![], &b"x"[..]).record(vec![], &b"y"[..]);
    alone.append(batch);
    while alone.write() {}
    let (kind, place, body) = alone.disk[1].clone();
    let mut cut = Cut::decode(&body).unwrap();
    cut.deltas[0].count = 1;
    let mut bytes = BytesMut::new();
    cut.encode(&mut bytes);
    let mut machine = Alone::new(3).machine;
    machine.recover_frame(alone.disk[0].0, alone.disk[0].1, &alone.disk[0].2).unwrap();
    let damage = machine.recover_frame(kind, place, &bytes.freeze());
    assert_eq!(damage, Err(Damage::CutWithoutRecords { index: 0 }));
}
