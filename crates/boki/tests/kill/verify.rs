//! What must hold after every restart, while the clients go on.

use std::collections::BTreeMap;

use boki_sdk::{Book, Client, Record, Seq};

use crate::clients::{CHAINS, LOCK, TAGS, number_in, text};
use crate::ledger::{Content, Promised, Scratch};

/// How many of the latest appends with an id are repeated after a restart.
const REPEATED: usize = 5;

pub(crate) struct Verifier {
    client: Client,
    kept: Book,
    /// Everything read last time.
    seen: BTreeMap<Seq, Content>,
    counts: Counts,
}

/// That the load was what it is meant to be.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    promised: usize,
    durable: usize,
    refused: usize,
    repeated: usize,
    chained: usize,
    epochs: u64,
    trims: usize,
}

impl Verifier {
    pub(crate) async fn new(client: Client) -> Verifier {
        let kept = client.create_book("kept").await.unwrap();
        Verifier { client, kept, seen: BTreeMap::new(), counts: Counts::default() }
    }

    /// Reads everything and compares it with what was promised before this was called.
    pub(crate) async fn verify(&mut self, promised: &Promised) {
        self.verify_repeats(promised).await;
        let records = read_all(&self.kept, None).await;
        self.verify_order(&records);
        self.verify_promises(promised);
        self.verify_chains();
        self.verify_lock();
        self.verify_tags(&records).await;
        for (name, scratch) in &promised.scratch {
            self.verify_scratch(name, scratch).await;
        }
        self.counts.promised = promised.records.len();
        self.counts.durable = promised.durable.len();
        self.counts.refused = promised.refused.len();
        self.counts.trims = promised.scratch.values().filter(|scratch| scratch.trimmed > Seq::NONE).count();
    }

    pub(crate) fn summary(&self) -> String {
        format!("{} records, {:?}", self.seen.len(), self.counts)
    }

    /// Whether every kind of thing has happened that can go wrong.
    pub(crate) fn saw_everything_happen(&self) -> bool {
        let Counts { promised, durable, refused, repeated, chained, epochs, trims } = self.counts;
        promised > 0 && durable > 0 && refused > 0 && repeated > 0 && chained > 2 && epochs > 1 && trims > 0
    }

    /// An append repeated with its id after the restart finds the first one.
    async fn verify_repeats(&mut self, promised: &Promised) {
        for (id, seq, (tags, payload)) in promised.ids.iter().rev().take(REPEATED) {
            let again = self.kept.append(payload).tags(tags).id(*id).outcome().await.unwrap();
            assert_eq!((again.seq, again.repeated), (Some(*seq), true), "append {id:?} repeated");
            self.counts.repeated += 1;
        }
    }

    /// Everything seen before is where it was, and what is new comes after it; no record is there twice.
    fn verify_order(&mut self, records: &[Record]) {
        let mut now = BTreeMap::new();
        let mut payloads: BTreeMap<&str, Seq> = BTreeMap::new();
        let mut time_us = 0;
        for record in records {
            assert!(record.time_us >= time_us, "time goes back at seq {}", record.seq);
            time_us = record.time_us;
            if let Some(other) = payloads.insert(text(record), record.seq) {
                panic!("seqs {other} and {} are the same record", record.seq);
            }
            assert!(now.insert(record.seq, content(record)).is_none(), "seq {} is there twice", record.seq);
        }
        let last_seen = self.seen.keys().next_back().copied().unwrap_or(Seq::NONE);
        for (seq, before) in &self.seen {
            assert_eq!(now.get(seq), Some(before), "seq {seq} was read before");
        }
        let known = now.range(..=last_seen).count();
        assert_eq!(known, self.seen.len(), "records have appeared below seq {last_seen}, which was read before");
        self.seen = now;
    }

    fn verify_promises(&self, promised: &Promised) {
        for (seq, content) in &promised.records {
            assert_eq!(self.seen.get(seq), Some(content), "seq {seq} was acknowledged");
        }
        let mut durable = promised.durable.clone();
        for (seq, (_, payload)) in &self.seen {
            assert!(!promised.refused.contains(payload), "the append of seq {seq} was refused, and is there");
            durable.remove(payload);
        }
        assert!(durable.is_empty(), "{} records were acknowledged as durable, and are not there", durable.len());
    }

    /// Each record of a chain names the one before it: two conditional appends never both succeeded.
    fn verify_chains(&mut self) {
        let mut chained = 0;
        for chain in CHAINS {
            let mut end = Seq::NONE;
            for (seq, (_, payload)) in self.under(chain) {
                assert_eq!(
                    number_in(payload),
                    end.0,
                    "{chain}: seq {seq} was appended on the condition of another end"
                );
                end = *seq;
                chained += 1;
            }
        }
        self.counts.chained = chained;
    }

    /// Epochs never fall: a former owner appended nothing after it was fenced off.
    fn verify_lock(&mut self) {
        let mut fence = 0;
        for (seq, (_, payload)) in self.under(LOCK) {
            let epoch = number_in(payload);
            assert!(epoch >= fence, "seq {seq} has epoch {epoch}, but the fence was at {fence}");
            fence = epoch;
        }
        self.counts.epochs = fence;
    }

    fn under(&self, tag: &'static str) -> Vec<(&Seq, &Content)> {
        self.seen.iter().filter(|(_, (tags, _))| tags.iter().any(|own| own == tag)).collect()
    }

    /// Reading by tag finds the same as reading everything.
    async fn verify_tags(&self, records: &[Record]) {
        let Some(last) = records.last().map(|record| record.seq) else { return };
        for tag in TAGS.into_iter().chain(CHAINS).chain([LOCK]) {
            let expected: Vec<Seq> =
                records.iter().filter(|record| record.has_tag(tag)).map(|record| record.seq).collect();
            let found = read_all(&self.kept, Some(tag)).await;
            let found: Vec<Seq> = found.iter().map(|record| record.seq).filter(|seq| *seq <= last).collect();
            assert_eq!(found, expected, "tag {tag}");
        }
    }

    /// What was trimmed is gone; what was never asked to be is there.
    async fn verify_scratch(&self, name: &str, promised: &Scratch) {
        let book = self.client.book(name).await.unwrap();
        let records = read_all(&book, None).await;
        if let Some(first) = records.first() {
            assert!(first.seq >= promised.trimmed, "seq {} was trimmed, and is there", first.seq);
        }
        let found: BTreeMap<Seq, Content> = records.iter().map(|record| (record.seq, content(record))).collect();
        // The clients go on: a trim asked for meanwhile may take more away, but only from the beginning.
        let first = found.keys().next().copied().unwrap_or(Seq::MAX);
        for (seq, content) in &promised.records {
            if *seq >= promised.trim_asked && *seq >= first {
                assert!(found.get(seq) == Some(content), "seq {seq} of {name} was acknowledged");
            }
        }
    }
}

fn content(record: &Record) -> Content {
    (record.tags().map(str::to_owned).collect(), text(record).to_owned())
}

/// All records there are at some moment after this is called.
async fn read_all(book: &Book, tag: Option<&str>) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    let end = book.tail().linearizable().await.unwrap();
    loop {
        let from = all.last().map_or(Seq::FIRST, |record| record.seq.next());
        let mut read = book.read_next(from).limit(4096);
        if let Some(tag) = tag {
            read = read.tag(tag);
        }
        let page = read.await.unwrap();
        let is_last = page.last().is_none_or(|last| last.seq >= end);
        all.extend(page);
        if is_last {
            return all;
        }
    }
}
