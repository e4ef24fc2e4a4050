//! The load. Each client does one kind of thing, over and over, and notes what it was told.
//!
//! A payload begins with what it is and who wrote it, so each is unique and can be judged by itself:
//! `plain 3 17`, `chain 1 5 <seq of the record before>`, `lock 0 9 <epoch>`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boki_sdk::{AppendId, Book, Error, LogError, Record, Seq};
use fastrand::Rng;
use tokio::task::JoinSet;

use crate::connect;
use crate::ledger::{Content, Ledger};

/// Tags of plain records.
pub(crate) const TAGS: [&str; 5] = ["a", "b", "c", "user/1", "user/2"];
/// Tags whose every record is conditional on the one before.
pub(crate) const CHAINS: [&str; 2] = ["chain/0", "chain/1"];
/// The fenced tag.
pub(crate) const LOCK: &str = "lock";

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Appends of every unconditional kind.
    Plain,
    /// Conditional appends.
    Chain,
    /// Fenced appends.
    Lock,
    /// Large records in a book of its own, which it trims.
    Scratch,
}

pub(crate) struct Clients {
    tasks: JoinSet<()>,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
}

/// Starts a client for each of `what`, with a connection of its own to one of `addresses`.
pub(crate) async fn start_clients(ledger: &Arc<Ledger>, addresses: &[String], what: &[Does], seed: u64) -> Clients {
    let mut clients = Clients { tasks: JoinSet::new(), ledger: Arc::clone(ledger), stop: Arc::default() };
    for (number, does) in what.iter().copied().enumerate() {
        let client = connect(&addresses[number % addresses.len()]).await;
        let book = match does {
            Does::Scratch => client.create_book(&format!("scratch-{number}")).await.unwrap(),
            _ => client.book("kept").await.unwrap(),
        };
        let worker = Worker {
            number,
            does,
            appended: 0,
            rng: Rng::with_seed(seed.wrapping_mul(1009).wrapping_add(number as u64)),
            book,
            ledger: Arc::clone(ledger),
        };
        clients.tasks.spawn(worker.run(Arc::clone(&clients.stop)));
    }
    clients
}

impl Clients {
    /// Becomes ready if one of them fails, and fails the test.
    pub(crate) async fn failed(&mut self) {
        self.tasks.join_next().await.unwrap().unwrap();
    }

    /// Ends them after what they are at; a client that failed fails the test.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ledger.let_all_end();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

struct Worker {
    number: usize,
    does: Does,
    appended: u64,
    rng: Rng,
    book: Book,
    ledger: Arc<Ledger>,
}

impl Worker {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        loop {
            self.ledger.may_go_on().await;
            if stop.load(Ordering::Relaxed) {
                return;
            }
            match self.does {
                Does::Plain => match self.rng.u32(0..10) {
                    0..6 => self.append_one().await,
                    6..8 => self.append_batch().await,
                    8 => self.append_twice().await,
                    _ => self.append_durable().await,
                },
                Does::Chain => self.extend_chain().await,
                Does::Lock => self.append_under_lock().await,
                Does::Scratch => self.fill_and_trim().await,
            }
        }
    }

    fn payload(&mut self, kind: &str, more: &str) -> String {
        self.appended += 1;
        let padding = ".".repeat(self.rng.usize(0..400));
        format!("{kind} {} {} {more}{padding}", self.number, self.appended)
    }

    fn record(&mut self) -> Content {
        let mut tags: Vec<String> =
            TAGS.iter().filter(|_| self.rng.u32(0..3) == 0).map(|tag| (*tag).to_owned()).collect();
        tags.sort_unstable();
        (tags, self.payload("plain", ""))
    }

    async fn append_one(&mut self) {
        let (tags, payload) = self.record();
        let seq = self.book.append(&payload).tags(&tags).await.unwrap();
        self.ledger.note(|promised| promised.records.push((seq, (tags.clone(), payload.clone()))));
        self.read_own(seq, &tags, &payload).await;
    }

    /// What was acknowledged is seen by the session at once, whatever was killed in between.
    async fn read_own(&mut self, seq: Seq, tags: &[String], payload: &str) {
        let mut read = if self.rng.bool() { self.book.read_next(seq) } else { self.book.read_prev(seq) };
        if let Some(tag) = tags.first() {
            read = read.tag(tag);
        }
        let found = read.first().await.unwrap().unwrap_or_else(|| panic!("own record {seq} is not there"));
        assert_eq!((found.seq, text(&found)), (seq, payload), "own record {seq}");
        assert!(self.book.tail().await.unwrap() >= seq, "the tail is below own record {seq}");
    }

    async fn append_batch(&mut self) {
        let records: Vec<Content> = (0..self.rng.usize(2..6)).map(|_| self.record()).collect();
        let mut batch = self.book.batch();
        for (tags, payload) in &records {
            batch = batch.record(payload).tags(tags);
        }
        let first = batch.await.unwrap();
        self.ledger.note(|promised| {
            for (at, content) in records.into_iter().enumerate() {
                promised.records.push((Seq(first.0 + at as u64), content));
            }
        });
    }

    /// The same id twice is one record.
    async fn append_twice(&mut self) {
        let (tags, payload) = self.record();
        let id = AppendId(self.rng.u128(1..).to_be_bytes());
        let append = || self.book.append(&payload).tags(&tags).id(id).outcome();
        let first = append().await.unwrap();
        let second = append().await.unwrap();
        assert_eq!(first.seq, second.seq, "an append was repeated with its id");
        assert!(second.repeated);
        let seq = first.seq.unwrap();
        self.ledger.note(|promised| {
            promised.records.push((seq, (tags.clone(), payload.clone())));
            promised.ids.push((id, seq, (tags, payload)));
        });
    }

    async fn append_durable(&mut self) {
        let (tags, payload) = self.record();
        self.book.append(&payload).tags(&tags).durable().await.unwrap();
        self.ledger.note(|promised| {
            promised.durable.insert(payload);
        });
    }

    /// Several clients extend the same chain; of those that saw the same end, one at most succeeds.
    async fn extend_chain(&mut self) {
        let chain = CHAINS[self.rng.usize(0..CHAINS.len())];
        let end = self.book.tail().tag(chain).await.unwrap();
        let payload = self.payload("chain", &format!("{end} "));
        let result = self.book.append(&payload).tag(chain).if_tail(chain, end).await;
        self.note_conditional(chain, payload, result);
    }

    /// Two owners take the lock from each other. What an earlier one appends after that is refused.
    async fn append_under_lock(&mut self) {
        let last = self.book.read_prev(Seq::MAX).tag(LOCK).first().await.unwrap();
        let seen = last.map_or(0, |record| number_in(text(&record)));
        // Now and then the lock is taken over; else this goes on as the owner it last knew of.
        let epoch = if self.rng.u32(0..4) == 0 { seen + 1 } else { seen };
        let payload = self.payload("lock", &format!("{epoch} "));
        let append = self.book.append(&payload).tag(LOCK);
        let append = if epoch > seen { append.raise(LOCK, epoch) } else { append.fence(LOCK, epoch) };
        let result = append.await;
        self.note_conditional(LOCK, payload, result);
    }

    fn note_conditional(&self, tag: &str, payload: String, result: Result<Seq, Error>) {
        match result {
            Ok(seq) => self.ledger.note(|promised| promised.records.push((seq, (vec![tag.to_owned()], payload)))),
            Err(Error::Log(LogError::ConditionFailed { .. } | LogError::Fenced { .. })) => {
                self.ledger.note(|promised| {
                    promised.refused.insert(payload);
                });
            }
            Err(error) => panic!("{tag}: {error}"),
        }
    }

    /// Large records that soon go again, so that whole segments are given back.
    async fn fill_and_trim(&mut self) {
        let filling = "#".repeat(self.rng.usize(10_000..60_000));
        let payload = self.payload("scratch", &filling);
        let seq = self.book.append(&payload).tag("s").await.unwrap();
        let book = self.book.name().to_owned();
        self.ledger.note(|promised| {
            promised.scratch.entry(book.clone()).or_default().records.push((seq, (vec!["s".to_owned()], payload)));
        });
        if self.rng.u32(0..20) == 0 {
            self.ledger.note_intent(|promised| promised.scratch.entry(book.clone()).or_default().trim_asked = seq);
            self.book.trim().below(seq).await.unwrap();
            self.ledger.note(|promised| {
                let scratch = promised.scratch.entry(book).or_default();
                scratch.trimmed = seq;
                scratch.records.retain(|(kept, _)| *kept >= seq);
            });
        }
    }
}

/// The number that a payload's fourth word is.
pub(crate) fn number_in(payload: &str) -> u64 {
    payload.split(' ').nth(3).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number in {payload:?}"))
}

/// The payload of a record.
pub(crate) fn text(record: &Record) -> &str {
    std::str::from_utf8(record.data()).unwrap()
}
