//! Retention at work: which rules each book has, and the task that appends the trims they ask for.
//!
//! A book goes by the rules that were set for it, which are an entry of the catalog; else by those of the configuration that
//! fit its name; else it keeps everything. What its records add up to is followed by the engine and lies in the checkpoints,
//! so a start reads nothing again. Only when a book's rules change are its records read once.
//!
//! The task sleeps until a book has too much, a record is too old, or rules change: what nobody writes to and nothing ages in
//! costs nothing. Its trims are appends like any; a trim that could not be made is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use boki_log::batch::ReservedTags;
use boki_log::op::{Ack, Append, Consistency, Direction, Read};
use boki_log::retention::{self, Older, Rule, Scope, Trim};
use boki_log::{BatchBuilder, BookId, LogError, Seq};
use tokio::task::JoinSet;

use crate::catalog::Book;
use crate::entries::Entry;
use crate::node::Node;

/// What the names of the entries begin with; the book's number follows.
const ENTRY: &str = "retention/";
/// Trims that are under way at one time: they share a group.
const TRIMS: usize = 64;
/// Records that are read at one time when rules are new.
const PAGE: u32 = 1000;
/// When a trim that failed is tried again, if no record comes before.
const AGAIN: Duration = Duration::from_secs(10);
/// No sleep is longer, since clocks of the system are moved.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// A rule of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredRule {
    /// Of books with this name, or whose names begin so, if it ends in `*`.
    pub books: String,
    /// What it says.
    pub rule: Rule,
}

/// Where a book's rules come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesFrom {
    /// They were set for it.
    Set,
    /// The configuration, or there are none.
    Configuration,
}

/// What is kept of a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookRetention {
    /// Its rules; none: everything is kept.
    pub rules: Vec<Rule>,
    /// Where they come from.
    pub from: RulesFrom,
    /// They are in force: all records of the book are counted. Soon after they were set.
    pub is_in_force: bool,
    /// Records and bytes (of tags and payloads) that count for the rule of the whole book, if there is one.
    pub counted: Option<(u64, u64)>,
    /// How many tags are counted by themselves.
    pub tags: u64,
    /// Records under tags that are not, because there are too many.
    pub uncounted: u64,
}

/// What the task and its wakers tell each other.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Books whose rules may be others than the engine has.
    changed: BTreeMap<BookId, String>,
    /// The task sleeps, until then (microseconds since 1970) if nothing comes before.
    asleep: Option<Option<u64>>,
    /// Trims made since the start, and those that failed.
    pub(crate) trims: u64,
    pub(crate) failed: u64,
}

impl Keeping {
    /// Whether the task must be woken, because a trim is due or is so before it would wake.
    pub(crate) fn take_sleeper(&mut self, retention: &retention::Retention) -> bool {
        let Some(until_us) = self.asleep else { return false };
        let earlier = retention.next_timer().is_some_and(|at_us| until_us.is_none_or(|until_us| at_us < until_us));
        let wakes = earlier || retention.is_due();
        if wakes {
            self.asleep = None;
        }
        wakes
    }
}

impl Node {
    /// What is kept of the book of that name.
    ///
    /// # Errors
    /// [`LogError::BookNotFound`], and what a read can fail with.
    pub async fn retention(&self, name: &str) -> Result<BookRetention, LogError> {
        let book = self.find_book(name)?;
        let (rules, from) = self.rules_of(&book).await?;
        let state = self.lock_state();
        let watch = state.machine.engine().and_then(|engine| engine.retention().watch(book.id));
        let watch = watch.filter(|watch| watch.is_whole() && watch.rules() == rules.as_slice());
        Ok(BookRetention {
            is_in_force: rules.is_empty() || watch.is_some(),
            counted: watch.and_then(retention::Watch::of_book),
            tags: watch.map_or(0, |watch| watch.counted_tags() as u64),
            uncounted: watch.map_or(0, retention::Watch::uncounted),
            rules,
            from,
        })
    }

    /// Sets the rules of a book, in place of all that it had. None: it keeps everything, whatever the configuration says. They
    /// are on record when this returns, and in force when the book's records are counted.
    ///
    /// # Errors
    /// [`LogError::InvalidRetention`], [`LogError::BookNotFound`], and what an append can fail with.
    pub async fn set_retention(&self, name: &str, rules: Vec<Rule>) -> Result<(), LogError> {
        let book = self.find_book(name)?;
        retention::check(&rules).map_err(|(scope, reason)| LogError::InvalidRetention {
            of: scope.map_or_else(|| "the book".to_owned(), |scope| scope.to_string()),
            reason,
        })?;
        let value = retention::encode_rules(&rules);
        loop {
            let seen = self.stored_rules(book.id).await?.map_or(Seq::NONE, |entry| entry.seq);
            match self.set_entry(&entry_of(book.id), seen, value.clone()).await {
                // Somebody else was faster: the later one counts.
                Err(LogError::ConditionFailed { .. }) => {}
                other => break other.map(|_| ())?,
            }
        }
        self.rules_changed(book);
        Ok(())
    }

    /// Removes the rules that were set for a book: it goes by the configuration again.
    ///
    /// # Errors
    /// [`LogError::BookNotFound`], and what an append can fail with.
    pub async fn remove_retention(&self, name: &str) -> Result<(), LogError> {
        let book = self.find_book(name)?;
        self.remove_rules(book.id).await?;
        self.rules_changed(book);
        Ok(())
    }

    pub(crate) async fn remove_rules(&self, book: BookId) -> Result<(), LogError> {
        match self.stored_rules(book).await? {
            Some(entry) => self.remove_entry(&entry).await,
            None => Ok(()),
        }
    }

    async fn stored_rules(&self, book: BookId) -> Result<Option<Entry>, LogError> {
        let name = entry_of(book);
        Ok(self.entries(&name).await?.into_iter().find(|entry| entry.name == name))
    }

    async fn rules_of(&self, book: &Book) -> Result<(Vec<Rule>, RulesFrom), LogError> {
        match self.stored_rules(book.id).await? {
            Some(entry) => Ok((retention::decode_rules(&entry.value)?, RulesFrom::Set)),
            None => Ok((self.configured_rules(&book.name), RulesFrom::Configuration)),
        }
    }

    /// Of each scope, the rule of the configuration that fits the name most closely.
    fn configured_rules(&self, name: &str) -> Vec<Rule> {
        let fit = |books: &str| match books.strip_suffix('*') {
            None => (books == name).then_some(usize::MAX),
            Some(prefix) => name.starts_with(prefix).then_some(prefix.len()),
        };
        let mut closest: BTreeMap<&Scope, (usize, &Rule)> = BTreeMap::new();
        for ConfiguredRule { books, rule } in &self.config().retention {
            let Some(fit) = fit(books) else { continue };
            if closest.get(&rule.scope).is_none_or(|(other, _)| *other < fit) {
                closest.insert(&rule.scope, (fit, rule));
            }
        }
        closest.into_values().map(|(_, rule)| rule.clone()).collect()
    }

    /// Lets the task look at the rules of a book.
    pub(crate) fn rules_changed(&self, book: Book) {
        let mut state = self.lock_state();
        state.retention.changed.insert(book.id, book.name);
        state.retention.asleep = None;
        drop(state);
        self.retention_wake().notify_one();
    }

    /// Keeps every book to its rules, until the node stops. To be run once, as a task of its own.
    pub async fn keep_retention(&self) {
        match self.books().await {
            Ok(books) => self.lock_state().retention.changed.extend(books.into_iter().map(|book| (book.id, book.name))),
            Err(error) => return tracing::error!(%error, "the books cannot be listed: nothing is trimmed by rules"),
        }
        loop {
            let changed = self.lock_state().retention.changed.pop_first();
            if let Some((id, name)) = changed {
                match self.apply_rules(&Book { id, name: name.clone(), created_us: 0 }).await {
                    Ok(()) | Err(LogError::BookNotFound { .. }) => {}
                    Err(LogError::ShuttingDown) => return,
                    Err(error) => tracing::error!(book = name, %error, "the rules of a book are not in force"),
                }
                continue;
            }
            let now_us = self.now_us();
            let trims = self.with_retention(|retention| retention.plan(now_us, TRIMS)).unwrap_or_default();
            if !trims.is_empty() {
                if !self.append_trims(trims).await {
                    return;
                }
                continue;
            }
            let Some(sleep) = self.retention_sleep() else { continue };
            let woken = self.retention_wake().notified();
            match sleep {
                Sleep::Stopping => return,
                Sleep::Until(None) => woken.await,
                Sleep::Until(Some(until_us)) => {
                    let left = Duration::from_micros(until_us.saturating_sub(self.now_us())).min(LONGEST_SLEEP);
                    // Whichever ends first.
                    let _ = tokio::time::timeout(left, woken).await;
                }
            }
            self.lock_state().retention.asleep = None;
        }
    }

    /// How long to sleep; `None`: there is something to do.
    fn retention_sleep(&self) -> Option<Sleep> {
        let now_us = self.now_us();
        let mut state = self.lock_state();
        if state.stopping {
            return Some(Sleep::Stopping);
        }
        let retention = state.machine.engine()?.retention();
        let until_us = retention.next_timer();
        if retention.is_due() || until_us.is_some_and(|at_us| at_us <= now_us) || !state.retention.changed.is_empty() {
            return None;
        }
        state.retention.asleep = Some(until_us);
        Some(Sleep::Until(until_us))
    }

    /// Gives the engine the rules of a book, if it has others, and counts the records that are there.
    async fn apply_rules(&self, book: &Book) -> Result<(), LogError> {
        let (rules, _) = self.rules_of(book).await?;
        let older = {
            let mut state = self.lock_state();
            let since = state.machine.engine().map_or(Seq::FIRST, |engine| engine.index().position().0);
            let Some(retention) = state.machine.retention_mut() else { return Ok(()) };
            let known = retention.watch(book.id);
            if known.map_or(rules.is_empty(), |watch| watch.is_whole() && watch.rules() == rules.as_slice()) {
                return Ok(());
            }
            retention.set(book.id, rules, since);
            retention.older(book.id)
        };
        if let Some(older) = older {
            let older = self.count_older(book, older).await?;
            self.with_retention(|retention| retention.complete(book.id, older));
        }
        Ok(())
    }

    async fn count_older(&self, book: &Book, mut older: Older) -> Result<Older, LogError> {
        let (mut from, mut limit, until) = (Seq::FIRST, PAGE, older.until());
        loop {
            let read = Read {
                book: book.id,
                tag: None,
                from,
                direction: Direction::Next,
                limit,
                consistency: Consistency::Any,
                wait: None,
            };
            match self.read(read).await {
                Ok(page) => {
                    for record in page.records.iter().filter(|record| record.seq < until) {
                        older.note(record);
                    }
                    match page.records.last() {
                        Some(last) if last.seq < until => from = last.seq.next(),
                        _ => return Ok(older),
                    }
                }
                Err(LogError::ReadFailed { seq, .. }) if limit == 1 => {
                    tracing::warn!(book = book.name, %seq, "a record that cannot be read is not counted by the book's rules");
                    (from, limit) = (seq.next(), PAGE);
                }
                // Up to the one that cannot be read, one by one.
                Err(LogError::ReadFailed { .. }) => limit = 1,
                Err(error) => return Err(error),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Appends trims, together. `false`: there is no use in going on.
    async fn append_trims(&self, trims: Vec<Trim>) -> bool {
        let mut appends = JoinSet::new();
        for trim in trims {
            let node = self.clone();
            appends.spawn(async move {
                let result = node.append_trim(&trim).await;
                (trim, result)
            });
        }
        let mut goes_on = true;
        while let Some(done) = appends.join_next().await {
            let Ok((trim, result)) = done else { continue };
            let mut state = self.lock_state();
            match result {
                Ok(()) => state.retention.trims += 1,
                Err(error) => {
                    goes_on &= !matches!(error, LogError::ShuttingDown | LogError::WriteFailed { .. });
                    state.retention.failed += 1;
                    let again_us = self.now_us() + AGAIN.as_micros() as u64;
                    let book = trim.book;
                    if let Some(retention) = state.machine.retention_mut() {
                        retention.failed(trim, again_us);
                    }
                    drop(state);
                    tracing::warn!(%book, %error, "a book could not be trimmed by its rules");
                }
            }
        }
        goes_on
    }

    async fn append_trim(&self, Trim { book, tag, below }: &Trim) -> Result<(), LogError> {
        let batch = BatchBuilder::trim(*book, tag.clone(), *below)?;
        self.append(Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Allowed }).await.map(|_| ())
    }

    fn with_retention<T>(&self, f: impl FnOnce(&mut retention::Retention) -> T) -> Option<T> {
        self.lock_state().machine.retention_mut().map(f)
    }
}

/// What the task does when there is nothing to do.
enum Sleep {
    /// Ends: the node stops.
    Stopping,
    /// Sleeps, to this time if to any.
    Until(Option<u64>),
}

fn entry_of(book: BookId) -> String {
    format!("{ENTRY}{}", book.0)
}
