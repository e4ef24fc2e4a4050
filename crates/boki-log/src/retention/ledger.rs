//! How much lies where in the order: the records of one scope, summed up in **marks** of about a hundredth each, so that
//! memory does not grow with the records.

use std::collections::VecDeque;

use crate::ids::Seq;

use super::rule::{Keep, Slack};

/// The records from `first` up to the next mark's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) first: Seq,
    /// Time of its oldest and of its newest record, microseconds since 1970.
    pub(super) oldest_us: u64,
    pub(super) newest_us: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) marks: VecDeque<Mark>,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Behind the last record.
    pub(super) end: Seq,
    /// It is in the list of those that are to be looked at.
    pub(super) is_due: bool,
}

impl Ledger {
    /// A record came to exist.
    pub(super) fn note(&mut self, keep: &Keep, seq: Seq, time_us: u64, bytes: u64) {
        let slack = keep.slack();
        let open = self.marks.back_mut().filter(|mark| !is_full(mark, keep, &slack, time_us));
        if let Some(mark) = open {
            mark.newest_us = mark.newest_us.max(time_us);
            mark.records += 1;
            mark.bytes += bytes;
        } else {
            self.marks.push_back(Mark { first: seq, oldest_us: time_us, newest_us: time_us, records: 1, bytes });
        }
        self.records += 1;
        self.bytes += bytes;
        self.end = seq.next();
    }

    /// Whether the records or bytes are so many that a trim is worth it.
    pub(super) fn is_over(&self, keep: &Keep) -> bool {
        let slack = keep.slack();
        keep.records.is_some_and(|most| self.records >= most.saturating_add(slack.records))
            || keep.bytes.is_some_and(|most| self.bytes >= most.saturating_add(slack.bytes))
    }

    /// When the oldest are so old that a trim is worth it; `None`: never.
    pub(super) fn due_us(&self, keep: &Keep) -> Option<u64> {
        let age_us = keep.age_us?;
        let front = self.marks.front()?;
        Some(front.newest_us.saturating_add(age_us).saturating_add(keep.slack().age_us))
    }

    /// The first seq that is kept at `now_us`; [`Seq::NONE`]: all are.
    pub(super) fn below(&self, keep: &Keep, now_us: u64) -> Seq {
        let (mut records, mut bytes) = (self.records, self.bytes);
        let mut kept = self.marks.iter().skip_while(|mark| {
            let old = keep.age_us.is_some_and(|age_us| mark.newest_us.saturating_add(age_us) <= now_us);
            let many = keep.records.is_some_and(|most| records - mark.records >= most);
            let large = keep.bytes.is_some_and(|most| bytes - mark.bytes >= most);
            records -= mark.records;
            bytes -= mark.bytes;
            old || many || large
        });
        let below = kept.next().map_or(self.end, |mark| mark.first);
        if self.marks.front().is_some_and(|front| front.first < below) { below } else { Seq::NONE }
    }

    /// Nothing below `below` exists any more. A mark that reaches above it still counts as a whole: it can only be the first,
    /// and what is kept is counted from the last.
    pub(super) fn cut(&mut self, below: Seq) {
        while let Some(front) = self.marks.front() {
            if self.marks.get(1).map_or(self.end, |next| next.first) > below {
                break;
            }
            self.records -= front.records;
            self.bytes -= front.bytes;
            self.marks.pop_front();
        }
    }

    /// `count` records from `seq` on do not exist any more. Of their bytes it is only known how many their mark has.
    pub(super) fn gone(&mut self, seq: Seq, count: u64) {
        let (mut seq, end) = (seq.0, seq.0 + count);
        let mut at = self.marks.partition_point(|mark| mark.first.0 <= seq).saturating_sub(1);
        while seq < end {
            let upto = self.marks.get(at + 1).map_or(self.end, |next| next.first).0.min(end);
            let Some(mark) = self.marks.get_mut(at) else { return };
            if upto > mark.first.0.max(seq) && mark.records > 0 {
                let records = (upto - mark.first.0.max(seq)).min(mark.records);
                let bytes = mark.bytes / mark.records * records;
                let bytes = if records == mark.records { mark.bytes } else { bytes };
                mark.records -= records;
                mark.bytes -= bytes;
                self.records -= records;
                self.bytes -= bytes;
            }
            seq = upto.max(seq);
            at += 1;
        }
        while self.marks.front().is_some_and(|mark| mark.records == 0) {
            self.marks.pop_front();
        }
    }

    /// Puts `older`, whose records all come before, in front.
    pub(super) fn prepend(&mut self, mut older: Ledger) {
        self.records += older.records;
        self.bytes += older.bytes;
        self.end = self.end.max(older.end);
        older.marks.append(&mut self.marks);
        self.marks = older.marks;
    }
}

fn is_full(mark: &Mark, keep: &Keep, slack: &Slack, time_us: u64) -> bool {
    // Half of the slack each, so that a trim that is due never finds less than it is worth.
    keep.records.is_some() && mark.records >= slack.records / 2
        || keep.bytes.is_some() && mark.bytes >= slack.bytes / 2
        || keep.age_us.is_some() && time_us.saturating_sub(mark.oldest_us) >= slack.age_us / 2
}
