use bytes::Bytes;

use super::*;
use crate::batch::BatchBuilder;
use crate::cut::ShardDelta;
use crate::ids::AppendId;

const BOOK: BookId = BookId(5);

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

fn batch() -> BatchBuilder {
    BatchBuilder::new(BOOK)
}

fn with_tags(tags: &[&str]) -> BatchBuilder {
    batch().record(tags.iter().map(|text| tag(text)).collect(), Bytes::from_static(b"x"))
}

/// An index fed one batch per cut, all of one shard.
struct Log {
    index: Index,
    gone: Vec<Gone>,
    time_us: u64,
}

impl Log {
    fn new() -> Log {
        Log { index: Index::new(), gone: Vec::new(), time_us: 1000 }
    }

    fn push(&mut self, batch: &Batch) -> (Seq, Verdict) {
        let seq = self.index.position().0;
        let delta = ShardDelta { shard: ShardId::default(), from: LocalId(seq.0 - 1), count: batch.record_count() };
        self.time_us += 1;
        let cut = Cut { index: self.index.next_cut(), start: seq, time_us: self.time_us, deltas: vec![delta] };
        self.index.begin(&cut);
        let verdict = self.index.apply(batch, &mut self.gone).unwrap();
        (seq, verdict)
    }

    fn add(&mut self, builder: BatchBuilder) -> Seq {
        let (seq, verdict) = self.push(&builder.build().unwrap());
        assert_eq!(verdict, Verdict::Applied);
        seq
    }

    fn void(&mut self, builder: BatchBuilder) -> LogError {
        match self.push(&builder.build().unwrap()).1 {
            Verdict::Void(error) => error,
            other => panic!("expected a void batch, got {other:?}"),
        }
    }

    fn trim(&mut self, tag: Option<&str>, below: Seq) {
        let trim = BatchBuilder::trim(BOOK, tag.map(|text| Tag::new(text).unwrap()), below).unwrap();
        assert_eq!(self.push(&trim).1, Verdict::Applied);
    }

    fn all(&self, text: Option<&str>) -> Vec<u64> {
        let tag = text.map(|text| Tag::new(text).unwrap());
        let (mut up, mut down) = (Vec::new(), Vec::new());
        self.index.next(BOOK, tag.as_ref(), Seq(0), usize::MAX, &mut up).unwrap();
        self.index.prev(BOOK, tag.as_ref(), Seq::MAX, usize::MAX, &mut down).unwrap();
        down.reverse();
        assert_eq!(up, down, "both directions see the same");
        assert_eq!(self.index.tail(BOOK, tag.as_ref()), Ok(up.last().copied().unwrap_or(Seq::NONE)));
        up.into_iter().map(|seq| seq.0).collect()
    }
}

#[test]
fn a_record_is_found_once_under_each_of_its_tags() {
    let mut log = Log::new();
    log.add(with_tags(&["a", "b", "a"]));
    log.add(with_tags(&["b"]));
    log.add(with_tags(&[]));
    assert_eq!(log.all(Some("a")), [1]);
    assert_eq!(log.all(Some("b")), [1, 2]);
    assert_eq!(log.all(None), [1, 2, 3]);
    assert_eq!(log.all(Some("c")), []);
}

#[test]
fn reads_are_inclusive_of_their_seq_and_stop_at_their_limit() {
    let mut log = Log::new();
    for _ in 0..3 {
        log.add(with_tags(&["a"]));
        log.add(with_tags(&["b"]));
    }
    let mut out = Vec::new();
    log.index.next(BOOK, Some(&tag("a")), Seq(3), 10, &mut out).unwrap();
    assert_eq!(out, [Seq(3), Seq(5)]);
    out.clear();
    log.index.prev(BOOK, Some(&tag("a")), Seq(3), 10, &mut out).unwrap();
    assert_eq!(out, [Seq(3), Seq(1)]);
    out.clear();
    log.index.next(BOOK, None, Seq(2), 2, &mut out).unwrap();
    assert_eq!(out, [Seq(2), Seq(3)]);
    assert_eq!(log.index.tail(BookId(77), None), Ok(Seq::NONE));
}

#[test]
fn a_tail_condition_holds_only_at_the_very_tail_and_voids_the_whole_batch() {
    let mut log = Log::new();
    let condition = |seq| Condition::Tail { tag: tag("a"), seq: Seq(seq) };
    assert_eq!(log.add(with_tags(&["a"]).condition(condition(0))), Seq(1));
    let error = log.void(with_tags(&["a"]).record(vec![tag("b")], &b"y"[..]).condition(condition(0)));
    assert_eq!(error, LogError::ConditionFailed { tag: tag("a"), expected: Seq(0), actual: Seq(1) });
    assert_eq!(log.all(Some("b")), [], "no record of a void batch exists");
    assert_eq!(log.add(with_tags(&["a"]).condition(condition(1))), Seq(4), "void records keep their seqs");
    assert_eq!(log.all(None), [1, 4]);
    assert_eq!(log.gone, [Gone { seq: Seq(2), shard: ShardId::default(), from: LocalId(1), count: 2 }]);
}

#[test]
fn a_fence_rises_never_falls_and_refuses_older_epochs() {
    let mut log = Log::new();
    let fence = |epoch| Condition::Fence { tag: tag("a"), epoch };
    log.add(with_tags(&["a"]).condition(fence(1)).raise(tag("a"), 2));
    assert_eq!(log.void(with_tags(&["a"]).condition(fence(1))), LogError::Fenced { tag: tag("a"), epoch: 1, fence: 2 });
    assert!(matches!(log.void(with_tags(&[]).raise(tag("a"), 1)), LogError::Fenced { .. }));
    log.add(with_tags(&["a"]).condition(fence(2)));
    log.trim(None, Seq::MAX.min(log.index.position().0));
    log.add(with_tags(&["a"]).condition(fence(9)));
    assert!(
        matches!(log.void(with_tags(&["a"]).condition(fence(1))), LogError::Fenced { .. }),
        "a fence outlives trims"
    );
}

#[test]
fn a_repeated_id_returns_the_first_seq_and_adds_nothing() {
    let mut log = Log::new();
    let id = AppendId([3; 16]);
    let seq = log.add(with_tags(&["a"]).id(id));
    log.add(with_tags(&["a"]));
    assert_eq!(log.push(&with_tags(&["a"]).id(id).build().unwrap()).1, Verdict::Repeated(seq));
    assert_eq!(log.all(Some("a")), [1, 2]);
    log.time_us += window::LONGEST_US + 1;
    assert_eq!(log.add(with_tags(&["a"]).id(id)), Seq(4), "outside the window it is a new append");
}

#[test]
fn trimming_a_tag_hides_records_there_and_removes_those_no_tag_shows() {
    let mut log = Log::new();
    log.add(with_tags(&["a", "b"]));
    log.add(with_tags(&["a"]));
    log.add(with_tags(&[]));
    log.add(with_tags(&["a"]));
    log.trim(Some("a"), Seq(4));
    assert_eq!(log.all(Some("a")), [4]);
    assert_eq!(log.all(Some("b")), [1]);
    assert_eq!(log.all(None), [1, 3, 4]);
    log.trim(Some("b"), Seq::MAX);
    assert_eq!(log.all(None), [3, 4]);
    assert_eq!(log.index.live_records(), 2);
    log.add(with_tags(&["b"]).condition(Condition::Tail { tag: tag("b"), seq: Seq::NONE }));
}

#[test]
fn trimming_a_book_removes_everything_below_and_later_records_stay() {
    let mut log = Log::new();
    log.add(with_tags(&["a"]));
    log.add(with_tags(&[]));
    log.add(with_tags(&["a"]));
    log.trim(None, Seq(3));
    assert_eq!((log.all(None), log.all(Some("a"))), (vec![3], vec![3]));
    log.trim(None, Seq(1000));
    assert_eq!(log.all(None), []);
    assert_eq!(log.index.tags(BOOK, "", None, 10), Ok((vec![], false)));
    let seq = log.add(with_tags(&["a"]));
    assert!(seq < Seq(1000));
    assert_eq!(log.all(Some("a")), [seq.0], "a trim does not reach past its own place");
}

#[test]
fn trimming_a_book_spares_records_with_reserved_tags_until_their_tags_are_trimmed() {
    let mut log = Log::new();
    log.add(with_tags(&["a"]));
    log.add(with_tags(&["~call/1", "~calls"]));
    log.add(with_tags(&[]));
    log.add(with_tags(&["~call/2"]));
    log.add(with_tags(&["a"]));
    log.trim(None, Seq(5));
    assert_eq!((log.all(None), log.all(Some("a"))), (vec![2, 4, 5], vec![5]));
    assert_eq!(log.all(Some("~call/1")), [2]);
    assert_eq!((log.index.count(BOOK), log.index.live_records()), (3, 3));
    log.index = Index::restore(&log.index.snapshot().unwrap(), Index::no_tables).unwrap();
    log.trim(Some("a"), Seq(5));
    log.trim(Some("~call/1"), Seq(3));
    assert_eq!(log.all(None), [2, 4, 5], "still found under its other tag");
    log.trim(None, Seq(9));
    assert_eq!((log.all(None), log.all(Some("a"))), (vec![2, 4], vec![]));
    log.trim(Some("~calls"), Seq(9));
    assert_eq!(log.all(None), [4]);
    log.add(with_tags(&["a"]).condition(Condition::Tail { tag: tag("a"), seq: Seq::NONE }));
    log.trim(None, Seq::MAX);
    assert_eq!((log.all(None), log.index.live_records()), (vec![], 0), "a closed book spares nothing");
}

#[test]
fn a_closed_book_takes_nothing_more() {
    let mut log = Log::new();
    log.add(with_tags(&["a"]));
    log.trim(None, Seq::MAX);
    assert!(matches!(log.void(with_tags(&["a"])), LogError::BookNotFound { .. }));
    assert_eq!(log.all(None), []);
}

#[test]
fn tags_are_listed_by_prefix_in_pages() {
    let mut log = Log::new();
    for text in ["user/2", "user/1", "order/1", "user/3", "users"] {
        log.add(with_tags(&[text]));
    }
    let (page, more) = log.index.tags(BOOK, "user/", None, 2).unwrap();
    assert_eq!((page, more), (vec![(tag("user/1"), Seq(2)), (tag("user/2"), Seq(1))], true));
    let (page, more) = log.index.tags(BOOK, "user/", Some(&tag("user/2")), 2).unwrap();
    assert_eq!((page, more), (vec![(tag("user/3"), Seq(4))], false));
    assert_eq!(
        log.index.tags(BOOK, "user/", Some(&tag("a")), 9).unwrap().0.len(),
        3,
        "a mark before the prefix is no bound"
    );
}

#[test]
fn a_snapshot_restores_an_index_that_judges_alike() {
    let mut log = Log::new();
    log.add(with_tags(&["a", "b"]).id(AppendId([1; 16])).raise(tag("f"), 7));
    log.add(with_tags(&["a"]));
    log.add(with_tags(&[]));
    log.trim(Some("a"), Seq(2));
    let bytes = log.index.snapshot().unwrap();
    let restored = Index::restore(&bytes, Index::no_tables).unwrap();
    assert_eq!(restored, log.index);
    assert_eq!(restored.tail(BOOK, Some(&tag("b"))), Ok(Seq(1)));
    for len in 0..bytes.len() {
        assert!(Index::restore(&bytes.slice(..len), Index::no_tables).map_or(true, |shorter| shorter != restored));
    }
}

#[test]
fn places_follow_from_cuts_by_arithmetic() {
    let shard = |engine| ShardId { engine: crate::ids::NodeId(engine), ..ShardId::default() };
    let mut index = Index::new();
    let delta = |engine, from, count| ShardDelta { shard: shard(engine), from: LocalId(from), count };
    index.begin(&Cut { index: 0, start: Seq(1), time_us: 10, deltas: vec![delta(1, 0, 2), delta(2, 0, 3)] });
    for _ in 0..5 {
        index.apply(&with_tags(&[]).build().unwrap(), &mut Vec::new()).unwrap();
    }
    index.begin(&Cut { index: 1, start: Seq(6), time_us: 20, deltas: vec![delta(2, 3, 1), delta(1, 2, 1)] });
    for _ in 0..2 {
        index.apply(&with_tags(&[]).build().unwrap(), &mut Vec::new()).unwrap();
    }
    let place = |seq| index.place(Seq(seq)).unwrap().unwrap();
    assert_eq!(place(1), (shard(1), LocalId(0), 10));
    assert_eq!(place(5), (shard(2), LocalId(2), 10));
    assert_eq!(place(6), (shard(2), LocalId(3), 20));
    assert_eq!(place(7), (shard(1), LocalId(2), 20));
    assert_eq!(index.place(Seq(8)), Ok(None));
    assert_eq!(index.place(Seq(0)), Ok(None));
}
