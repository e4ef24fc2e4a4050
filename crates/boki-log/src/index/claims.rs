//! Claims: under how many tags each record can still be found; a record without tags has one claim, its book's. At 0 it
//! is gone, or its batch was void, or its seq is not given yet.
//!
//! They are kept by seq in pages, all in memory: half a byte a record at most, and next to nothing where all records of a
//! page are alike or gone. A page is shared with a checkpoint that is being written until it changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::Seq;

use super::table::TableError;

/// Seqs of a page. Tests meet the ends of pages more often.
pub(super) const PAGE: u64 = if cfg!(test) { 32 } else { 4096 };
const LEN: usize = PAGE as usize;

const UNIFORM: u8 = 0;
const NIBBLES: u8 = 1;
const WIDE: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Data {
    /// Every seq has the same.
    Uniform(Claim),
    /// Two seqs to a byte.
    Nibbles(Box<[u8]>),
    Wide(Box<[Claim]>),
}

/// How many claims a record has, and whether it has reserved tags, so that a trim of its book spares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim(u16);

impl Claim {
    const RESERVED: u16 = 1 << 15;

    pub(super) fn new(count: u16, reserved: bool) -> Claim {
        Claim(count.min(!Claim::RESERVED) | if reserved { Claim::RESERVED } else { 0 })
    }

    pub(super) fn count(self) -> u16 {
        self.0 & !Claim::RESERVED
    }

    pub(super) fn is_reserved(self) -> bool {
        self.0 & Claim::RESERVED != 0
    }

    pub(super) fn is_alive(self) -> bool {
        self.count() > 0
    }

    /// With one claim less; without any it is nothing.
    #[must_use]
    pub(super) fn less(self) -> Claim {
        if self.count() > 1 { Claim(self.0 - 1) } else { Claim::default() }
    }

    /// In half a byte, if it fits.
    fn nibble(self) -> Option<u8> {
        (self.count() < 8).then(|| self.count() as u8 | if self.is_reserved() { 8 } else { 0 })
    }

    fn of_nibble(nibble: u8) -> Claim {
        Claim::new(u16::from(nibble & 7), nibble & 8 != 0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    data: Data,
    /// How many seqs have any.
    living: u16,
}

impl Page {
    fn empty() -> Page {
        Page { data: Data::Nibbles(vec![0; LEN / 2].into_boxed_slice()), living: 0 }
    }

    pub(super) fn get(&self, at: usize) -> Claim {
        match &self.data {
            Data::Uniform(claim) => *claim,
            Data::Nibbles(nibbles) => {
                nibbles.get(at / 2).map_or(Claim::default(), |two| Claim::of_nibble(two >> (4 * (at % 2)) & 0xf))
            }
            Data::Wide(claims) => claims.get(at).copied().unwrap_or_default(),
        }
    }

    fn set(&mut self, at: usize, claim: Claim) {
        let old = self.get(at);
        if old == claim {
            return;
        }
        self.living = self.living + u16::from(!old.is_alive()) - u16::from(!claim.is_alive());
        if let Data::Uniform(all) = self.data {
            self.data = match all.nibble() {
                Some(nibble) => Data::Nibbles(vec![nibble << 4 | nibble; LEN / 2].into_boxed_slice()),
                None => Data::Wide(vec![all; LEN].into_boxed_slice()),
            };
        }
        if let (None, Data::Nibbles(_)) = (claim.nibble(), &self.data) {
            self.data = Data::Wide((0..LEN).map(|at| self.get(at)).collect());
        }
        match &mut self.data {
            Data::Uniform(_) => {}
            Data::Nibbles(nibbles) => {
                if let (Some(two), Some(nibble)) = (nibbles.get_mut(at / 2), claim.nibble()) {
                    let shift = 4 * (at % 2);
                    *two = *two & !(0xf << shift) | nibble << shift;
                }
            }
            Data::Wide(claims) => {
                if let Some(slot) = claims.get_mut(at) {
                    *slot = claim;
                }
            }
        }
    }

    /// The page in as little memory as it needs.
    fn shrink(&mut self) {
        let first = self.get(0);
        let uniform = match (&self.data, first.nibble()) {
            (Data::Nibbles(nibbles), Some(nibble)) => nibbles.iter().all(|two| *two == nibble << 4 | nibble),
            (Data::Wide(claims), _) => claims.iter().all(|claim| *claim == first),
            _ => return,
        };
        if uniform {
            self.data = Data::Uniform(first);
        }
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Page>()
            + match &self.data {
                Data::Uniform(_) => 0,
                Data::Nibbles(nibbles) => nibbles.len(),
                Data::Wide(claims) => 2 * claims.len(),
            }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match &self.data {
            Data::Uniform(claim) => [&[UNIFORM][..], &claim.0.to_le_bytes()].concat(),
            Data::Nibbles(nibbles) => [&[NIBBLES][..], nibbles].concat(),
            Data::Wide(claims) => {
                let mut out = Vec::with_capacity(2 * LEN + 1);
                out.push(WIDE);
                out.extend(claims.iter().flat_map(|claim| claim.0.to_le_bytes()));
                out
            }
        }
    }

    pub(super) fn decode(value: &Bytes) -> Result<Page, TableError> {
        let claim = |two: &[u8]| Claim(u16::from_le_bytes([two[0], two[1]]));
        let data = match value.split_first() {
            Some((&UNIFORM, bytes)) if bytes.len() == 2 => Data::Uniform(claim(bytes)),
            Some((&NIBBLES, bytes)) if bytes.len() == LEN / 2 => Data::Nibbles(bytes.into()),
            Some((&WIDE, bytes)) if bytes.len() == 2 * LEN => Data::Wide(bytes.chunks_exact(2).map(claim).collect()),
            _ => return Err(TableError::damaged("a page of claims does not parse")),
        };
        let mut page = Page { data, living: 0 };
        page.living = (0..LEN).filter(|at| page.get(*at).is_alive()).count() as u16;
        Ok(page)
    }
}

/// A page in which nothing is alive, as a value.
pub(super) fn empty_page() -> Vec<u8> {
    vec![UNIFORM, 0, 0]
}

/// Pages by number, as they were at one moment; `None`: nothing in it is alive.
pub(super) type Pages = BTreeMap<u64, Option<Arc<Page>>>;

/// Whether anything at `seq` is alive by `pages`; what they do not have is taken to be.
pub(super) fn lives_in(pages: &Pages, seq: Seq) -> bool {
    match pages.get(&(seq.0 / PAGE)) {
        None => true,
        Some(page) => page.as_ref().is_some_and(|page| page.get((seq.0 % PAGE) as usize).is_alive()),
    }
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Number of the first of `pages`.
    first: u64,
    /// `None`: nothing in it is alive.
    pages: VecDeque<Option<Arc<Page>>>,
    /// Changed since the last checkpoint.
    dirty: BTreeSet<u64>,
    /// The page that was changed last: most changes are to it.
    last_dirty: Option<u64>,
    living: u64,
}

impl Claims {
    /// How many records exist.
    pub(super) fn living(&self) -> u64 {
        self.living
    }

    pub(super) fn is_alive(&self, seq: Seq) -> bool {
        self.get(seq).is_alive()
    }

    pub(super) fn get(&self, seq: Seq) -> Claim {
        self.page(seq.0 / PAGE).map_or(Claim::default(), |page| page.get((seq.0 % PAGE) as usize))
    }

    fn page(&self, number: u64) -> Option<&Arc<Page>> {
        self.pages.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?.as_ref()
    }

    pub(super) fn set(&mut self, seq: Seq, claim: Claim) {
        let number = seq.0 / PAGE;
        if self.last_dirty != Some(number) {
            self.dirty.insert(number);
            self.last_dirty = Some(number);
        }
        let slot = self.slot(number);
        if slot.is_none() && !claim.is_alive() {
            return;
        }
        let page = Arc::make_mut(slot.get_or_insert_with(|| Arc::new(Page::empty())));
        let before = page.living;
        page.set((seq.0 % PAGE) as usize, claim);
        let after = page.living;
        if after == 0 {
            *slot = None;
        }
        self.living = self.living + u64::from(after) - u64::from(before);
        while let Some(None) = self.pages.front() {
            self.pages.pop_front();
            self.first += 1;
        }
    }

    /// The place of a page, made if it is not there.
    fn slot(&mut self, number: u64) -> &mut Option<Arc<Page>> {
        if self.pages.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.pages.push_front(None);
            self.first -= 1;
        }
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        if at >= self.pages.len() {
            self.pages.resize(at + 1, None);
        }
        &mut self.pages[at]
    }

    /// Takes back a page that a checkpoint has.
    pub(super) fn restore(&mut self, number: u64, page: Page) {
        if page.living > 0 {
            self.living += u64::from(page.living);
            *self.slot(number) = Some(Arc::new(page));
        }
    }

    /// The first seq from `from` on in whose page anything is alive: what is between is gone.
    pub(super) fn skip_up(&self, from: Seq) -> Seq {
        let mut number = from.0 / PAGE;
        if self.page(number).is_some() {
            return from;
        }
        let end = self.first + self.pages.len() as u64;
        number = number.max(self.first);
        while number < end && self.page(number).is_none() {
            number += 1;
        }
        if number >= end { Seq::MAX } else { from.max(Seq(number * PAGE)) }
    }

    /// The first seq from `from` down in whose page anything is alive; `None` if there is none.
    pub(super) fn skip_down(&self, from: Seq) -> Option<Seq> {
        let end = (self.first + self.pages.len() as u64).checked_sub(1)?;
        let mut number = from.0 / PAGE;
        if self.page(number).is_some() {
            return Some(from);
        }
        number = number.min(end);
        while number >= self.first {
            if self.page(number).is_some() {
                return Some(from.min(Seq(number * PAGE + PAGE - 1)));
            }
            number = number.checked_sub(1)?;
        }
        None
    }

    /// Every seq that is alive, rising.
    pub(super) fn iter(&self) -> impl Iterator<Item = Seq> {
        (self.first..).zip(&self.pages).flat_map(|(number, page)| {
            page.iter().flat_map(move |page| {
                (0..LEN).filter(|at| page.get(*at).is_alive()).map(move |at| Seq(number * PAGE + at as u64))
            })
        })
    }

    /// The first seq that is alive.
    pub(super) fn oldest(&self) -> Option<Seq> {
        self.iter().next()
    }

    /// The pages that have changed since this was last asked.
    pub(super) fn take_dirty(&mut self) -> Pages {
        self.last_dirty = None;
        let mut pages = Pages::new();
        for number in std::mem::take(&mut self.dirty) {
            let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
            let page = at.and_then(|at| self.pages.get_mut(at)).and_then(Option::as_mut);
            pages.insert(
                number,
                page.map(|page| {
                    Arc::make_mut(page).shrink();
                    Arc::clone(page)
                }),
            );
        }
        pages
    }

    /// The pages from that of `from` to that of `to`, as they are now.
    pub(super) fn between(&self, from: Seq, to: Seq) -> Pages {
        (from.0 / PAGE..=to.0 / PAGE).map(|number| (number, self.page(number).cloned())).collect()
    }

    /// How many records exist from `from` on, below `to`.
    pub(super) fn living_between(&self, from: Seq, to: Seq) -> u64 {
        let mut living = 0;
        let mut at = self.skip_up(from);
        while at < to {
            let number = at.0 / PAGE;
            let end = Seq((number + 1) * PAGE);
            if let Some(page) = self.page(number) {
                living += if at.0.is_multiple_of(PAGE) && end <= to {
                    u64::from(page.living)
                } else {
                    (at.0..end.min(to).0).filter(|seq| page.get((seq % PAGE) as usize).is_alive()).count() as u64
                };
            }
            at = self.skip_up(end);
        }
        living
    }

    /// Memory they take, in bytes, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let pages: usize = self.pages.iter().flatten().map(|page| page.memory_bytes()).sum();
        pages + self.pages.len() * 8 + self.dirty.len() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Claim = Claim(1);

    #[test]
    fn claims_are_as_they_were_set_whatever_a_page_is_kept_as() {
        let mut claims = Claims::default();
        let mut model = BTreeMap::new();
        let seqs = [1, 2, 3, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 10 * PAGE, 25 * PAGE + 9];
        for (step, count) in [1, 7, 8, 255, 0, 1, 200, 7, 0].into_iter().enumerate() {
            for seq in &seqs[step % 3..] {
                let claim = Claim::new(count, seq % 2 == 0 && count > 0);
                claims.set(Seq(*seq), claim);
                model.insert(*seq, claim);
            }
            let living: Vec<_> = model.iter().filter(|(_, claim)| claim.is_alive()).map(|(seq, _)| Seq(*seq)).collect();
            assert_eq!(claims.iter().collect::<Vec<_>>(), living);
            assert_eq!((claims.living(), claims.oldest()), (living.len() as u64, living.first().copied()));
            let mut restored = Claims::default();
            for (number, page) in claims.clone().take_dirty() {
                let page = page.map(|page| Page::decode(&page.encode().into()).unwrap());
                if let Some(page) = page {
                    restored.restore(number, page);
                }
            }
            for (seq, count) in &model {
                assert_eq!((claims.get(Seq(*seq)), restored.get(Seq(*seq))), (*count, *count));
            }
            assert_eq!(restored.living(), claims.living());
        }
    }

    #[test]
    fn a_page_that_is_all_alike_takes_no_room_and_a_change_to_it_is_its_own() {
        let mut claims = Claims::default();
        (PAGE..2 * PAGE).for_each(|seq| claims.set(Seq(seq), ONE));
        let pages = claims.take_dirty();
        assert_eq!(pages[&1].as_ref().unwrap().encode(), [UNIFORM, 1, 0]);
        assert_eq!(claims.take_dirty().len(), 0);
        claims.set(Seq(PAGE + 5), ONE.less());
        assert!(lives_in(&pages, Seq(PAGE + 5)) && !claims.is_alive(Seq(PAGE + 5)) && claims.get(Seq(PAGE + 6)) == ONE);
        assert_eq!(claims.take_dirty().len(), 1);
    }

    #[test]
    fn what_is_gone_is_passed_over() {
        let mut claims = Claims::default();
        claims.set(Seq(PAGE + 9), ONE);
        claims.set(Seq(12 * PAGE + 7), ONE);
        assert_eq!(claims.skip_up(Seq(1)), Seq(PAGE));
        assert_eq!(claims.skip_up(Seq(PAGE + 1)), Seq(PAGE + 1));
        assert_eq!(claims.skip_up(Seq(3 * PAGE + 3)), Seq(12 * PAGE));
        assert_eq!(claims.skip_up(Seq(14 * PAGE)), Seq::MAX);
        assert_eq!(claims.skip_down(Seq::MAX), Some(Seq(13 * PAGE - 1)));
        assert_eq!(claims.skip_down(Seq(12 * PAGE - 1)), Some(Seq(2 * PAGE - 1)));
        assert_eq!(claims.skip_down(Seq(PAGE - 1)), None);
        assert_eq!(Claims::default().skip_down(Seq::MAX), None);
    }
}
