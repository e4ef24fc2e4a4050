//! Whatever is frozen, written, merged or read back from a checkpoint, and when: the index answers as one that keeps
//! everything in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::model::Model;
use super::*;
use crate::batch::BatchBuilder;
use crate::cut::ShardDelta;
use crate::ids::{AppendId, NodeId, Term};

/// With zero bytes, one a prefix of another, some reserved.
const TAGS: [&str; 7] = ["a", "a\0", "a\0b", "ab", "b/1", "~r", "~s"];
const BOOKS: u64 = 4;

/// How an append's condition is right or wrong when its turn comes.
#[derive(Clone, Debug)]
enum Claim {
    TailIs { tag: usize, right: bool },
    TailIsNone { tag: usize },
    Fence { tag: usize, epoch: u64 },
}

#[derive(Clone, Debug)]
enum Act {
    Append { book: u64, records: Vec<u8>, claims: Vec<Claim>, raise: Option<(usize, u64)>, id: Option<u8> },
    Trim { book: u64, tag: Option<usize>, back: u64 },
    Close { book: u64 },
}

#[derive(Clone, Debug)]
enum Step {
    /// Batches of one cut, some of another shard, after some time.
    Cut {
        acts: Vec<(Act, bool)>,
        later_us: u64,
    },
    Freeze,
    /// The table of the freeze that waits is written and installed, and the checkpoint is there.
    Write,
    /// It cannot be written.
    Fail,
    Merge {
        first: usize,
        count: usize,
    },
    /// Everything in memory is lost.
    Restart,
    /// Likewise, but a snapshot that stands for itself is made before.
    Snapshot,
}

/// Which tags a record has: mostly no reserved ones.
fn mask() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 0..32_u8, 1 => 0..128_u8]
}

fn act() -> impl Strategy<Value = Act> {
    let tag = 0..TAGS.len();
    let claim = prop_oneof![
        (tag.clone(), prop::bool::weighted(0.8)).prop_map(|(tag, right)| Claim::TailIs { tag, right }),
        tag.clone().prop_map(|tag| Claim::TailIsNone { tag }),
        (tag.clone(), 0..4_u64).prop_map(|(tag, epoch)| Claim::Fence { tag, epoch }),
    ];
    let raise = prop::option::weighted(0.2, (tag.clone(), 1..5_u64));
    let id = prop::option::weighted(0.2, 1..6_u8);
    let append = (0..BOOKS, prop::collection::vec(mask(), 1..4), prop::collection::vec(claim, 0..2), raise, id)
        .prop_map(|(book, records, claims, raise, id)| Act::Append { book, records, claims, raise, id });
    let trim = (0..BOOKS, prop::option::weighted(0.7, tag), 0..30_u64).prop_map(|(book, tag, back)| Act::Trim {
        book,
        tag,
        back,
    });
    prop_oneof![20 => append, 6 => trim, 1 => (1..BOOKS).prop_map(|book| Act::Close { book })]
}

fn step() -> impl Strategy<Value = Step> {
    let later_us = prop_oneof![8 => 0..3_u64, 1 => Just(window::LONGEST_US)];
    let cut = (prop::collection::vec((act(), prop::bool::weighted(0.2)), 1..5), later_us)
        .prop_map(|(acts, later_us)| Step::Cut { acts, later_us });
    prop_oneof![
        12 => cut,
        4 => Just(Step::Freeze),
        4 => Just(Step::Write),
        1 => Just(Step::Fail),
        3 => (0..6_usize, 1..4_usize).prop_map(|(first, count)| Step::Merge { first, count }),
        1 => Just(Step::Restart),
        1 => Just(Step::Snapshot),
    ]
}

fn tag(number: usize) -> Tag {
    Tag::new(TAGS[number]).unwrap()
}

/// An applied cut with what came of its batches.
type Applied = (Cut, Vec<(Batch, Verdict, Vec<Gone>)>);

struct Run {
    index: Index,
    model: Model,
    history: Vec<Applied>,
    time_us: u64,
    locals: [u64; 2],
    tables: BTreeMap<u64, Arc<MemoryTable>>,
    next_table: u64,
    waiting: Option<Freeze>,
    /// The last checkpoint on disk.
    checkpoint: Option<Bytes>,
    merges: usize,
}

impl Run {
    fn new() -> Run {
        Run {
            index: Index::new(),
            model: Model::new(),
            history: Vec::new(),
            time_us: 1_000_000,
            locals: [0; 2],
            tables: BTreeMap::new(),
            next_table: 1,
            waiting: None,
            checkpoint: None,
            merges: 0,
        }
    }

    /// The batch of `act`, should it be the first of the next cut.
    fn batch(&self, act: &Act) -> Batch {
        match act {
            Act::Append { book, records, claims, raise, id } => {
                let mut builder = BatchBuilder::new(BookId(*book));
                for claim in claims {
                    builder = builder.condition(match claim {
                        Claim::TailIs { tag: number, right } => {
                            let seq = self.model.tail(BookId(*book), Some(&tag(*number)));
                            let seq = if *right { seq } else { seq.next() };
                            Condition::Tail { tag: tag(*number), seq }
                        }
                        Claim::TailIsNone { tag: number } => Condition::Tail { tag: tag(*number), seq: Seq::NONE },
                        Claim::Fence { tag: number, epoch } => Condition::Fence { tag: tag(*number), epoch: *epoch },
                    });
                }
                if let Some((number, epoch)) = raise {
                    builder = builder.raise(tag(*number), *epoch);
                }
                if let Some(id) = id {
                    builder = builder.id(AppendId([*id; 16]));
                }
                for mask in records {
                    let tags = (0..TAGS.len()).filter(|number| mask >> number & 1 != 0).map(tag).collect();
                    builder = builder.record(tags, Bytes::from_static(b"x"));
                }
                builder.build().unwrap()
            }
            Act::Trim { book, tag: number, back } => {
                let end = self.index.position().0.0;
                BatchBuilder::trim(BookId(*book), number.map(tag), Seq((end + 3).saturating_sub(*back))).unwrap()
            }
            Act::Close { book } => BatchBuilder::trim(BookId(*book), None, Seq::MAX).unwrap(),
        }
    }

    fn cut(&mut self, acts: &[(Act, bool)], later_us: u64) {
        self.time_us += later_us;
        // A cut lists each shard once, so first one's batches, then the other's.
        let of = |shard: bool| acts.iter().filter(move |(_, other)| *other == shard).map(|(act, _)| self.batch(act));
        let shards: [Vec<Batch>; 2] = [of(false).collect(), of(true).collect()];
        let mut deltas = Vec::new();
        for (at, batches) in shards.iter().enumerate().filter(|(_, batches)| !batches.is_empty()) {
            let count = batches.iter().map(Batch::record_count).sum();
            let shard = ShardId { engine: NodeId(at as u16), term: Term(1) };
            deltas.push(ShardDelta { shard, from: LocalId(self.locals[at]), count });
            self.locals[at] += u64::from(count);
        }
        let start = self.index.position().0;
        let cut = Cut { index: self.index.next_cut(), start, time_us: self.time_us, deltas };
        self.index.begin(&cut);
        self.model.begin(&cut);
        let mut applied = Vec::new();
        for batch in shards.into_iter().flatten() {
            let (mut gone, mut expected) = (Vec::new(), Vec::new());
            let verdict = self.index.apply(&batch, &mut gone).unwrap();
            assert_eq!(verdict, self.model.apply(&batch, &mut expected), "{batch:?}");
            assert_eq!(gone, expected, "what is gone by {batch:?}");
            applied.push((batch, verdict, gone));
        }
        self.history.push((cut, applied));
    }

    fn store(&mut self, entries: Entries<'_>) -> (u64, Arc<MemoryTable>) {
        let table = Arc::new(MemoryTable::new(entries).unwrap());
        let number = self.next_table;
        self.next_table += 1;
        self.tables.insert(number, Arc::clone(&table));
        (number, table)
    }

    fn write(&mut self) {
        let Some(freeze) = self.waiting.take() else { return };
        let written = freeze.entries().map(|entries| self.store(entries)).map(|(number, table)| {
            let info = freeze.info(number, 1);
            self.index.install(info, table);
            info
        });
        self.checkpoint = Some(freeze.section(&freeze.tables(written)));
    }

    fn merge(&mut self, first: usize, count: usize) {
        let Some(merge) = self.index.merge(first, first + count) else { return };
        let (number, table) = self.store(merge.entries());
        self.index.install_merged(&merge, merge.info(number, 1), table);
        self.merges += 1;
    }

    fn restart(&mut self) {
        self.waiting = None;
        let mut index = match &self.checkpoint {
            Some(section) => {
                let open = |info: &TableInfo| Ok(Arc::clone(&self.tables[&info.number]) as Arc<dyn SortedTable>);
                Index::restore(section, open).unwrap()
            }
            None => Index::new(),
        };
        self.replay(&mut index);
        self.index = index;
    }

    /// Everything that follows is judged as it was the first time.
    fn replay(&self, index: &mut Index) {
        for (cut, batches) in self.history.iter().skip(index.next_cut() as usize) {
            index.begin(cut);
            for (batch, verdict, gone) in batches {
                let mut again = Vec::new();
                assert_eq!(index.apply(batch, &mut again), Ok(verdict.clone()), "{batch:?} when it is repeated");
                assert_eq!(&again, gone, "what is gone by {batch:?} when it is repeated");
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Cut { acts, later_us } => self.cut(acts, *later_us),
            Step::Freeze => self.waiting = Some(self.index.freeze()),
            Step::Write => self.write(),
            Step::Fail => self.waiting = None,
            Step::Merge { first, count } => self.merge(*first, *count),
            Step::Restart => self.restart(),
            Step::Snapshot => {
                let mut index = self.index.clone();
                let mut restored = Index::restore(&index.snapshot().unwrap(), Index::no_tables).unwrap();
                self.replay(&mut restored);
                assert!(restored == self.index && index == self.index);
            }
        }
        self.check(step);
    }

    /// That both say the same. What a cut changes shows in every answer; where it lies, in some.
    fn check(&self, step: &Step) {
        let is_cut = matches!(step, Step::Cut { .. });
        let (index, model) = (&self.index, &self.model);
        assert_eq!((index.position(), index.next_cut()), (model.position(), model.next_cut()));
        assert_eq!((index.time_us(), index.live_records()), (model.time_us(), model.live_records()));
        let end = model.position().0.0;
        for book in (0..BOOKS).map(BookId) {
            assert_eq!(index.count(book), model.count(book), "records of {book}");
            for number in (0..TAGS.len()).map(Some).chain([None]) {
                let tag = number.map(tag);
                let tag = tag.as_ref();
                assert_eq!(index.tail(book, tag), Ok(model.tail(book, tag)), "tail of {tag:?} in {book}");
                let froms = [0, 1, end / 3, end / 2, end - 1, end, Seq::MAX.0].map(Seq);
                for (at, from) in froms.into_iter().enumerate().filter(|(at, _)| !is_cut || at % 6 == 0) {
                    for limit in [1 + at % 2, usize::MAX] {
                        let (mut found, mut expected) = (Vec::new(), Vec::new());
                        index.next(book, tag, from, limit, &mut found).unwrap();
                        model.next(book, tag, from, limit, &mut expected);
                        assert_eq!(found, expected, "{limit} of {tag:?} in {book} from {from} on");
                        found.clear();
                        expected.clear();
                        index.prev(book, tag, from, limit, &mut found).unwrap();
                        model.prev(book, tag, from, limit, &mut expected);
                        assert_eq!(found, expected, "{limit} of {tag:?} in {book} from {from} down");
                    }
                }
            }
            for (prefix, after) in
                [("", None), ("a", None), ("a\0", None), ("b/", None), ("~", None), ("", Some(1)), ("a", Some(3))]
            {
                for limit in [1, 3, 100] {
                    let after = after.map(tag);
                    let (found, expected) = (
                        index.tags(book, prefix, after.as_ref(), limit),
                        model.tags(book, prefix, after.as_ref(), limit),
                    );
                    assert_eq!(found, Ok(expected), "tags of {book} that begin with {prefix:?}");
                }
            }
            for seq in (0..=end).map(Seq).filter(|seq| !is_cut || seq.0 % 7 == end % 7) {
                let exists = model.contains(book, seq);
                assert_eq!(index.contains(book, seq), Ok(exists), "{seq} in {book}");
                if exists {
                    assert_eq!(index.place(seq), Ok(model.place(seq)), "place of {seq}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn an_index_with_tables_answers_as_one_in_memory(steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        run.step(&Step::Restart);
    }
}
