//! Calls on record that wait for their turn: of each only where its record lies. Plain data; nothing here waits or reads.
//!
//! A **lane** is what belongs in one order: the calls of one function in one book, of the same level, priority and limit key.
//! Its calls take their turns in the order of their records. The lanes of a function at one priority are a **group**.
//!
//! A call whose turn has come is **out**: its input is in memory, and it waits in the dispatcher for a place in a worker,
//! until it is told to have [started](Backlog::started). How many are out is bounded for each lane and each group, and in
//! bytes over all, where a group of which nothing is out may still have one. So what cannot run (no worker offers it, a limit
//! holds it back) never keeps another function or a higher priority from running, and memory does not grow with the backlog.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use boki_log::{BookId, Seq};
use slotmap::{SlotMap, new_key_type};

new_key_type! {
    /// A lane with calls in it.
    pub(super) struct LaneKey;
    struct GroupKey;
}

/// Most calls of a lane that are out.
pub(super) const LANE_OUT: usize = 32;
/// With so many or fewer of a lane out, the next ones are fetched, several at a time.
const LANE_LOW: usize = LANE_OUT / 2;
/// Most calls of a group that are out.
const GROUP_OUT: usize = 1024;
/// While inputs of calls that are out take so many bytes, only groups of which nothing is out get further ones.
const OUT_BYTES: usize = 64 << 20;

/// What belongs in one order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneName {
    pub(super) book: BookId,
    pub(super) function: Arc<str>,
    pub(super) level: u8,
    pub(super) priority: u8,
    pub(super) limit_key: Option<Arc<str>>,
}

#[derive(Debug)]
struct Lane {
    name: LaneName,
    group: GroupKey,
    /// In ascending order.
    waiting: VecDeque<Seq>,
    /// How many are out.
    out: usize,
    /// How many [`LaneKey`]s are held: as long as there are any, the lane stays.
    held: usize,
    /// Its next calls are being fetched. Further ones wait for that, or they would overtake.
    fetching: bool,
    /// It is among its group's hungry lanes.
    hungry: bool,
}

#[derive(Debug)]
struct Group {
    name: (Arc<str>, u8),
    lanes: usize,
    waiting: usize,
    out: usize,
    /// Lanes that may have more out and have more to give, each once.
    hungry: VecDeque<LaneKey>,
    queued: Queued,
}

/// Where a group with hungry lanes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    Nowhere,
    Ready,
    /// It gets nothing because inputs take too many bytes.
    Starved,
}

/// Calls whose turn it is: to be fetched from the log in this order, then [`Backlog::fetched`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    pub(super) lane: LaneKey,
    pub(super) book: BookId,
    pub(super) seqs: Vec<Seq>,
}

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    lanes: SlotMap<LaneKey, Lane>,
    lane_of: HashMap<LaneName, LaneKey>,
    groups: SlotMap<GroupKey, Group>,
    group_of: HashMap<(Arc<str>, u8), GroupKey>,
    ready: VecDeque<GroupKey>,
    starved: Vec<GroupKey>,
    /// The first waiting call of each lane, by book.
    fronts: HashMap<BookId, BTreeSet<(Seq, LaneKey)>>,
    waiting: usize,
    out_bytes: usize,
}

impl Backlog {
    /// A call was accepted at `seq`; its input has so many bytes. `Some`: its turn is now, and it is out. `None`: it waits.
    pub(super) fn arrive(&mut self, name: &LaneName, seq: Seq, bytes: usize) -> Option<LaneKey> {
        let key = self.lane(name);
        let lane = &self.lanes[key];
        let group = &self.groups[lane.group];
        let has_bytes = self.out_bytes < OUT_BYTES || group.out == 0;
        if lane.waiting.is_empty() && !lane.fetching && lane.out < LANE_OUT && group.out < GROUP_OUT && has_bytes {
            self.hold(key, bytes);
            return Some(key);
        }
        self.wait(name, seq);
        None
    }

    /// A call that is on record waits for its turn.
    pub(super) fn wait(&mut self, name: &LaneName, seq: Seq) {
        let key = self.lane(name);
        let lane = &mut self.lanes[key];
        let front = lane.waiting.front().copied();
        // Most often it is the last; records of one lane may become known in another order than theirs.
        let at = lane.waiting.iter().rposition(|other| *other < seq).map_or(0, |before| before + 1);
        lane.waiting.insert(at, seq);
        self.groups[lane.group].waiting += 1;
        self.waiting += 1;
        self.front_moved(key, front);
        self.note_hunger(key);
    }

    /// The next calls to be fetched; `None`: no lane may have more out, or none has more.
    pub(super) fn next_fetch(&mut self) -> Option<Fetch> {
        while let Some(group_key) = self.ready.pop_front() {
            let Some(group) = self.groups.get_mut(group_key) else { continue };
            group.queued = Queued::Nowhere;
            if self.out_bytes >= OUT_BYTES && group.out > 0 {
                group.queued = Queued::Starved;
                self.starved.push(group_key);
                continue;
            }
            let room = GROUP_OUT.saturating_sub(group.out);
            if room == 0 {
                continue;
            }
            let Some(key) = group.hungry.pop_front() else { continue };
            let Some(lane) = self.lanes.get_mut(key) else { continue };
            lane.hungry = false;
            let count = LANE_OUT.saturating_sub(lane.out).min(room).min(lane.waiting.len());
            if count > 0 {
                let front = lane.waiting.front().copied();
                let seqs: Vec<Seq> = lane.waiting.drain(..count).collect();
                shrink(&mut lane.waiting);
                let book = lane.name.book;
                lane.fetching = true;
                lane.out += count;
                lane.held += count + 1;
                group.out += count;
                group.waiting -= count;
                self.waiting -= count;
                self.front_moved(key, front);
                self.queue(group_key);
                return Some(Fetch { lane: key, book, seqs });
            }
            self.queue(group_key);
        }
        None
    }

    /// Whether a further call of a fetch may be loaded, `loaded` of it being out already; else the rest is to be given back.
    pub(super) fn may_load(&self, loaded: usize) -> bool {
        loaded == 0 || self.out_bytes < OUT_BYTES
    }

    /// The input of a call that is being fetched is in memory: so many bytes.
    pub(super) fn loaded(&mut self, bytes: usize) {
        self.out_bytes += bytes;
    }

    /// A fetch is over. These, its last ones, are given back: they wait on.
    pub(super) fn fetched(&mut self, key: LaneKey, given_back: &[Seq]) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let front = lane.waiting.front().copied();
        for seq in given_back.iter().rev() {
            lane.waiting.push_front(*seq);
        }
        lane.fetching = false;
        let count = given_back.len();
        lane.out -= count;
        lane.held -= count;
        self.waiting += count;
        if let Some(group) = self.groups.get_mut(lane.group) {
            group.out -= count;
            group.waiting += count;
        }
        self.front_moved(key, front);
        self.note_hunger(key);
        self.let_go(key);
    }

    /// A call that was out runs, or will not run: its place is another's.
    pub(super) fn started(&mut self, key: LaneKey, bytes: usize) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.out -= 1;
        let group_key = lane.group;
        self.out_bytes -= bytes;
        if let Some(group) = self.groups.get_mut(group_key) {
            group.out -= 1;
            if group.out == 0 && group.queued == Queued::Starved {
                group.queued = Queued::Nowhere;
                self.starved.retain(|starved| *starved != group_key);
            }
        }
        if self.out_bytes < OUT_BYTES {
            for starved in std::mem::take(&mut self.starved) {
                if let Some(group) = self.groups.get_mut(starved) {
                    group.queued = Queued::Nowhere;
                }
                self.queue(starved);
            }
        }
        self.queue(group_key);
        self.note_hunger(key);
    }

    /// A call that ran waits again, for a further attempt.
    pub(super) fn waits_again(&mut self, key: LaneKey, bytes: usize) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.out += 1;
        if let Some(group) = self.groups.get_mut(lane.group) {
            group.out += 1;
        }
        self.out_bytes += bytes;
    }

    /// One who holds a [`LaneKey`] needs it no more.
    pub(super) fn let_go(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.held -= 1;
        if lane.held > 0 || !lane.waiting.is_empty() {
            return;
        }
        let group_key = lane.group;
        self.lane_of.remove(&lane.name);
        self.lanes.remove(key);
        let Some(group) = self.groups.get_mut(group_key) else { return };
        group.lanes -= 1;
        if group.lanes == 0 {
            self.group_of.remove(&group.name);
            self.groups.remove(group_key);
        }
    }

    /// The first of the calls that wait in a book.
    pub(super) fn front(&self, book: BookId) -> Option<Seq> {
        self.fronts.get(&book)?.first().map(|(seq, _)| *seq)
    }

    /// How many calls wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many calls of each function wait; a function may come several times.
    pub(super) fn by_function(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.groups.values().map(|group| (&group.name.0, group.waiting))
    }

    fn lane(&mut self, name: &LaneName) -> LaneKey {
        if let Some(key) = self.lane_of.get(name) {
            return *key;
        }
        let group_name = (Arc::clone(&name.function), name.priority);
        let group = match self.group_of.get(&group_name) {
            Some(group) => *group,
            None => {
                let group = self.groups.insert(Group {
                    name: group_name.clone(),
                    lanes: 0,
                    waiting: 0,
                    out: 0,
                    hungry: VecDeque::new(),
                    queued: Queued::Nowhere,
                });
                self.group_of.insert(group_name, group);
                group
            }
        };
        self.groups[group].lanes += 1;
        let waiting = VecDeque::new();
        let lane = Lane { name: name.clone(), group, waiting, out: 0, held: 0, fetching: false, hungry: false };
        let key = self.lanes.insert(lane);
        self.lane_of.insert(name.clone(), key);
        key
    }

    fn hold(&mut self, key: LaneKey, bytes: usize) {
        self.lanes[key].held += 1;
        self.waits_again(key, bytes);
    }

    /// The first waiting call of a lane may be another than `before`.
    fn front_moved(&mut self, key: LaneKey, before: Option<Seq>) {
        let Some(lane) = self.lanes.get(key) else { return };
        let (book, now) = (lane.name.book, lane.waiting.front().copied());
        if before == now {
            return;
        }
        let fronts = self.fronts.entry(book).or_default();
        if let Some(before) = before {
            fronts.remove(&(before, key));
        }
        if let Some(now) = now {
            fronts.insert((now, key));
        }
        if fronts.is_empty() {
            self.fronts.remove(&book);
        }
    }

    /// Puts a lane among its group's hungry ones, if it is.
    fn note_hunger(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.hungry || lane.fetching || lane.waiting.is_empty() || lane.out > LANE_LOW {
            return;
        }
        lane.hungry = true;
        let group = lane.group;
        self.groups[group].hungry.push_back(key);
        self.queue(group);
    }

    /// Puts a group among the ready ones, if it has hungry lanes.
    fn queue(&mut self, key: GroupKey) {
        let Some(group) = self.groups.get_mut(key) else { return };
        if group.queued == Queued::Nowhere && !group.hungry.is_empty() {
            group.queued = Queued::Ready;
            self.ready.push_back(key);
        }
    }
}

/// Gives memory back once most of it is not needed any more.
fn shrink(waiting: &mut VecDeque<Seq>) {
    if waiting.capacity() > 1024 && waiting.len() < waiting.capacity() / 4 {
        waiting.shrink_to(waiting.capacity() / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: BookId = BookId(1);

    fn name(function: &str, limit_key: Option<&str>) -> LaneName {
        let (function, limit_key) = (function.into(), limit_key.map(Arc::from));
        LaneName { book: BOOK, function, level: 0, priority: 5, limit_key }
    }

    /// Everything that may be out now, fetched without a failure; inputs have `bytes` each.
    fn fetch_all(backlog: &mut Backlog, bytes: usize) -> Vec<(LaneKey, Seq)> {
        let mut out = Vec::new();
        while let Some(fetch) = backlog.next_fetch() {
            for (at, seq) in fetch.seqs.iter().enumerate() {
                if !backlog.may_load(at) {
                    backlog.fetched(fetch.lane, &fetch.seqs[at..]);
                    return out;
                }
                backlog.loaded(bytes);
                out.push((fetch.lane, *seq));
            }
            backlog.fetched(fetch.lane, &[]);
        }
        out
    }

    fn is_blank(backlog: &Backlog) -> bool {
        backlog.lanes.is_empty()
            && backlog.lane_of.is_empty()
            && backlog.groups.is_empty()
            && backlog.group_of.is_empty()
            && backlog.fronts.is_empty()
            && (backlog.waiting, backlog.out_bytes) == (0, 0)
    }

    #[test]
    fn a_lane_is_first_in_first_out_and_its_window_bounded() {
        let mut backlog = Backlog::default();
        let mut out = VecDeque::new();
        for seq in 1..=1000 {
            if let Some(lane) = backlog.arrive(&name("f", None), Seq(seq), 10) {
                out.push_back((lane, Seq(seq)));
            }
        }
        assert_eq!((out.len(), backlog.waiting()), (LANE_OUT, 1000 - LANE_OUT));
        let mut order = Vec::new();
        while let Some((lane, seq)) = out.pop_front() {
            order.push(seq.0);
            let before = backlog.waiting();
            backlog.started(lane, 10);
            out.extend(fetch_all(&mut backlog, 10));
            assert!(out.len() <= LANE_OUT);
            let fetched = before - backlog.waiting();
            assert!(fetched == 0 || fetched >= LANE_OUT - LANE_LOW || backlog.waiting() == 0, "one by one: {fetched}");
            assert_eq!(backlog.front(BOOK), (backlog.waiting() > 0).then(|| Seq(1001 - backlog.waiting() as u64)));
            backlog.let_go(lane);
        }
        assert_eq!(order, (1..=1000).collect::<Vec<_>>());
        assert!(is_blank(&backlog));
    }

    #[test]
    fn what_becomes_known_late_takes_its_place() {
        let mut backlog = Backlog::default();
        for seq in [5, 3, 9, 1, 7] {
            backlog.wait(&name("f", None), Seq(seq));
        }
        let order: Vec<u64> = fetch_all(&mut backlog, 0).iter().map(|(_, seq)| seq.0).collect();
        assert_eq!(order, [1, 3, 5, 7, 9]);
    }

    #[test]
    fn what_comes_while_the_next_are_fetched_does_not_overtake_them() {
        let mut backlog = Backlog::default();
        backlog.wait(&name("f", None), Seq(1));
        let fetch = backlog.next_fetch().unwrap();
        assert_eq!(backlog.arrive(&name("f", None), Seq(2), 0), None);
        assert_eq!(backlog.next_fetch(), None);
        backlog.fetched(fetch.lane, &[]);
        assert_eq!(backlog.next_fetch().unwrap().seqs, [Seq(2)]);
    }

    #[test]
    fn what_is_given_back_comes_first() {
        let mut backlog = Backlog::default();
        for seq in 1..=3 {
            backlog.wait(&name("f", None), Seq(seq));
        }
        let fetch = backlog.next_fetch().unwrap();
        assert_eq!((fetch.seqs.len(), backlog.front(BOOK)), (3, None));
        backlog.fetched(fetch.lane, &fetch.seqs[1..]);
        assert_eq!((backlog.waiting(), backlog.front(BOOK)), (2, Some(Seq(2))));
        assert_eq!(backlog.next_fetch().unwrap().seqs, [Seq(2), Seq(3)]);
    }

    #[test]
    fn a_function_that_stands_still_keeps_no_other_from_running() {
        let mut backlog = Backlog::default();
        let mut seq = 0;
        let mut arrive = |backlog: &mut Backlog, name: &LaneName, bytes: usize| {
            seq += 1;
            backlog.arrive(name, Seq(seq), bytes)
        };
        // Very many keys of a function that nobody runs.
        for key in 0..5000 {
            arrive(&mut backlog, &name("dead", Some(&key.to_string())), 1 << 20);
        }
        assert!(backlog.out_bytes <= OUT_BYTES);
        let out: usize = backlog.lanes.values().map(|lane| lane.out).sum();
        assert_eq!(out, OUT_BYTES >> 20);
        // Another one gets one out at a time at least, whatever the bytes.
        let first = arrive(&mut backlog, &name("live", None), 1 << 20).unwrap();
        assert_eq!(arrive(&mut backlog, &name("live", None), 1 << 20), None);
        assert_eq!(backlog.next_fetch(), None);
        backlog.started(first, 1 << 20);
        let next = fetch_all(&mut backlog, 1 << 20);
        assert_eq!(next.len(), 1, "{next:?}");
    }

    #[test]
    fn groups_that_got_nothing_get_something_when_there_are_bytes_again() {
        let mut backlog = Backlog::default();
        let big = backlog.arrive(&name("big", None), Seq(1), OUT_BYTES).unwrap();
        let small = backlog.arrive(&name("small", None), Seq(2), 1).unwrap();
        assert_eq!(backlog.arrive(&name("small", None), Seq(3), 1), None);
        assert_eq!(fetch_all(&mut backlog, 1), []);
        backlog.started(big, OUT_BYTES);
        assert_eq!(fetch_all(&mut backlog, 1), [(small, Seq(3))]);
    }

    #[test]
    fn large_inputs_come_out_one_after_the_other() {
        let mut backlog = Backlog::default();
        for seq in 1..=10 {
            backlog.wait(&name("f", None), Seq(seq));
        }
        let mut order = Vec::new();
        let mut out: VecDeque<_> = fetch_all(&mut backlog, OUT_BYTES / 2).into();
        assert_eq!(out.len(), 2);
        while let Some((lane, seq)) = out.pop_front() {
            order.push(seq.0);
            backlog.started(lane, OUT_BYTES / 2);
            out.extend(fetch_all(&mut backlog, OUT_BYTES / 2));
            assert!(out.len() <= 2);
            backlog.let_go(lane);
        }
        assert_eq!(order, (1..=10).collect::<Vec<_>>());
        assert!(is_blank(&backlog));
    }

    #[test]
    fn very_many_lanes_of_a_function_take_turns() {
        let mut backlog = Backlog::default();
        let mut out = VecDeque::new();
        let lanes = 3 * GROUP_OUT as u64;
        for seq in 0..2 * lanes {
            let key = (seq % lanes).to_string();
            out.extend(backlog.arrive(&name("f", Some(&key)), Seq(seq + 1), 1));
        }
        assert_eq!(out.len(), GROUP_OUT);
        let mut ran = 0;
        while let Some(lane) = out.pop_front() {
            ran += 1;
            backlog.started(lane, 1);
            out.extend(fetch_all(&mut backlog, 1).into_iter().map(|(lane, _)| lane));
            assert!(out.len() <= GROUP_OUT);
            backlog.let_go(lane);
        }
        assert_eq!(ran, 2 * lanes);
        assert!(is_blank(&backlog));
    }

    #[test]
    fn a_call_that_waits_for_a_further_attempt_counts_as_one_that_is_out() {
        let mut backlog = Backlog::default();
        let lanes: Vec<LaneKey> =
            (1..=LANE_OUT as u64).filter_map(|seq| backlog.arrive(&name("f", None), Seq(seq), 1)).collect();
        for lane in &lanes {
            backlog.started(*lane, 1);
        }
        for lane in &lanes {
            backlog.waits_again(*lane, 1);
        }
        assert_eq!(backlog.arrive(&name("f", None), Seq(100), 1), None);
        assert_eq!(fetch_all(&mut backlog, 1), []);
    }
}
