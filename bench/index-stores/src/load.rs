//! The load: which posting has which tag.

use std::collections::HashMap;

/// A tag and a seq.
pub type Posting = (u64, u64);

const RUN: u64 = 1_000_000;

/// Numbers that jump about, the same at every start.
pub fn scatter(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub struct Load {
    pub postings: u64,
    pub tags: u64,
}

impl Load {
    pub fn new(postings: u64) -> Load {
        Load { postings, tags: (postings / 10).max(1) }
    }

    /// An even number: odd ones are tags that there are not, and lie between them.
    pub fn tag_of(&self, seq: u64) -> u64 {
        scatter(seq) % self.tags * 2
    }

    pub fn runs(&self) -> u64 {
        self.postings.div_ceil(RUN)
    }

    /// The postings of a run, by tag and seq.
    pub fn run(&self, run: u64) -> Vec<Posting> {
        let seqs = run * RUN..((run + 1) * RUN).min(self.postings);
        let mut postings: Vec<Posting> = seqs.map(|seq| (self.tag_of(seq), seq)).collect();
        postings.sort_unstable();
        postings
    }

    /// The last seq of each of `tags` that has one.
    pub fn tails(&self, tags: impl Iterator<Item = u64>) -> HashMap<u64, u64> {
        let mut tails: HashMap<u64, Option<u64>> = tags.map(|tag| (tag, None)).collect();
        for seq in 0..self.postings {
            if let Some(tail) = tails.get_mut(&self.tag_of(seq)) {
                *tail = Some(seq);
            }
        }
        tails.into_iter().filter_map(|(tag, tail)| Some((tag, tail?))).collect()
    }
}
