//! One shape's score on every node, and the best of them, kept while nodes change.
//!
//! Owns the arrangement in blocks: a change touches one block, and finding the best looks at one number per block.

use super::memory::Enough;

/// Score of a node on which the shape does not fit.
pub(crate) const UNFIT: f64 = f64::NEG_INFINITY;

/// Slots that are looked at as one. All nodes of a block are of one class.
pub(crate) const BLOCK: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Best {
    score: f64,
    /// How many nodes of the block have it.
    ties: u32,
}

const NONE: Best = Best { score: UNFIT, ties: 0 };

/// By slot. Slots past the end are unfit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    scores: Vec<f64>,
    blocks: Vec<Best>,
    /// By block, a bit for each of its slots: the shape fits there.
    fits: Vec<u64>,
    fitting: u32,
    /// Blocks that lost their best since the last [`settle`](Index::settle).
    stale: Vec<usize>,
}

impl Index {
    /// From all scores at once.
    pub(crate) fn of(scores: Vec<f64>) -> Self {
        let blocks = scores.chunks(BLOCK).map(best).collect();
        let fits: Vec<u64> = scores.chunks(BLOCK).map(fits).collect();
        Self {
            blocks,
            fitting: fits.iter().map(|fits| fits.count_ones()).sum(),
            fits,
            scores,
            stale: Vec::new(),
        }
    }

    pub(crate) fn score(&self, slot: u32) -> f64 {
        self.scores.get(slot as usize).copied().unwrap_or(UNFIT)
    }

    /// How many nodes the shape fits on.
    pub(crate) fn fitting(&self, enough: Enough<'_>) -> u32 {
        if enough.anywhere() {
            return self.fitting;
        }
        let lacking = (0..self.blocks.len()).map(|block| self.lacking(block, enough).count_ones());
        self.fitting - lacking.sum::<u32>()
    }

    /// A bit for each node of a block that has not the memory, of those on which the shape fits.
    fn lacking(&self, block: usize, enough: Enough<'_>) -> u64 {
        if enough.everywhere(block) {
            return 0;
        }
        let lacking = bits(self.fits[block]).filter(|bit| !enough.at(block * BLOCK + bit));
        lacking.fold(0, |lacking, bit| lacking | 1 << bit)
    }

    /// The best of a block's nodes that have the memory.
    fn gross(&self, block: usize, enough: Enough<'_>) -> Best {
        let lacking = self.lacking(block, enough);
        if lacking == 0 {
            return self.blocks[block];
        }
        let scores = bits(self.fits[block] & !lacking).map(|bit| self.scores[block * BLOCK + bit]);
        scores.fold(NONE, |best, score| best.join(Best { score, ties: 1 }))
    }

    pub(crate) fn set(&mut self, slot: u32, score: f64) {
        let at = slot as usize;
        if at >= self.scores.len() {
            self.scores.resize(at + 1, UNFIT);
            self.blocks.resize(self.scores.len().div_ceil(BLOCK), NONE);
            self.fits.resize(self.blocks.len(), 0);
        }
        let old = std::mem::replace(&mut self.scores[at], score);
        if same(old, score) {
            return;
        }
        self.fitting = self.fitting + u32::from(score > UNFIT) - u32::from(old > UNFIT);
        let bit = 1 << (at % BLOCK);
        let fits = &mut self.fits[at / BLOCK];
        *fits = if score > UNFIT { *fits | bit } else { *fits & !bit };
        let block = &mut self.blocks[at / BLOCK];
        if score > block.score {
            *block = Best { score, ties: 1 };
            return;
        }
        block.ties += u32::from(score > UNFIT && same(score, block.score));
        if old > UNFIT && same(old, block.score) {
            block.ties -= 1;
            if block.ties == 0 {
                self.stale.push(at / BLOCK);
            }
        }
    }

    /// To be called after changes: finds the best of blocks that lost theirs.
    pub(crate) fn settle(&mut self) {
        for at in self.stale.drain(..) {
            if self.blocks[at].ties == 0 {
                let start = at * BLOCK;
                let end = self.scores.len().min(start + BLOCK);
                self.blocks[at] = best(&self.scores[start..end]);
            }
        }
    }

    /// The best score less its block's fee, and how many nodes share it; `None` where the shape fits nowhere.
    pub(crate) fn best(&self, fees: impl Iterator<Item = f64>, enough: Enough<'_>) -> Option<(f64, u32)> {
        let mut best = NONE;
        for (at, (block, fee)) in self.blocks.iter().zip(fees).enumerate() {
            // Nodes without the memory can only make it less.
            if block.ties > 0 && block.less(fee).score >= best.score {
                best = best.join(self.gross(at, enough).less(fee));
            }
        }
        (best.ties > 0).then_some((best.score, best.ties))
    }

    /// The slot of the `nth` node (from 0, in the order of slots) with this score, which must be the best one.
    pub(crate) fn nth_best(
        &self,
        fees: impl Iterator<Item = f64>,
        enough: Enough<'_>,
        score: f64,
        mut nth: u32,
    ) -> Option<u32> {
        for (at, (block, fee)) in self.blocks.iter().zip(fees).enumerate() {
            if block.less(fee).score < score {
                continue;
            }
            let gross = self.gross(at, enough);
            if !same(gross.less(fee).score, score) {
                continue;
            }
            if nth >= gross.ties {
                nth -= gross.ties;
                continue;
            }
            let fitting = bits(self.fits[at]).map(|bit| at * BLOCK + bit);
            let mut tied = fitting.filter(|slot| same(self.scores[*slot], gross.score) && enough.at(*slot));
            return tied.nth(nth as usize).and_then(|slot| u32::try_from(slot).ok());
        }
        None
    }

    /// All nodes on which the shape fits, with their scores, in the order of slots.
    pub(crate) fn fits<'a>(&'a self, enough: Enough<'a>) -> impl Iterator<Item = (u32, f64)> + 'a {
        (0..)
            .zip(self.scores.iter().copied())
            .filter(move |(slot, score)| *score > UNFIT && enough.at(*slot as usize))
    }
}

impl Best {
    fn less(self, fee: f64) -> Self {
        Self {
            score: self.score - fee,
            ..self
        }
    }

    fn join(self, other: Self) -> Self {
        if other.score > self.score {
            other
        } else if same(other.score, self.score) {
            Self {
                score: self.score,
                ties: self.ties + other.ties,
            }
        } else {
            self
        }
    }
}

fn best(scores: &[f64]) -> Best {
    let mut best = NONE;
    for &score in scores {
        if score > best.score {
            best = Best { score, ties: 1 };
        } else if same(score, best.score) {
            best.ties += u32::from(score > UNFIT);
        }
    }
    best
}

/// A bit for each score that is one.
fn fits(scores: &[f64]) -> u64 {
    let bits = (0..).zip(scores).map(|(bit, score)| u64::from(*score > UNFIT) << bit);
    bits.fold(0, |fits, bit: u64| fits | bit)
}

/// The places of the bits that are set, from the lowest.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then_some(set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}

/// Equal nodes get equal scores to the last bit, so a tie is equality.
#[expect(clippy::float_cmp, reason = "a tie is exact equality, on purpose")]
pub(crate) fn same(one: f64, other: f64) -> bool {
    one == other
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::memory::Memory;

    /// One fee per block.
    fn fees() -> impl Iterator<Item = f64> {
        [1.0, 0.0, 2.0, 1.0, 0.5].into_iter()
    }

    proptest! {
        #[test]
        fn the_best_is_what_a_full_scan_finds(changes in prop::collection::vec((0_u32..300, 0_u8..5, 0_u8..5), 1..400)) {
            let mut memory = Memory::default();
            memory.resize(300);
            let mut index = Index::default();
            let mut plain = vec![UNFIT; 300];
            for (slot, level, free) in changes {
                let score = if level == 0 { UNFIT } else { f64::from(level) };
                index.set(slot, score);
                index.settle();
                memory.set(slot, u64::from(free));
                plain[slot as usize] = score;
                let enough = memory.enough(2);
                let plain: Vec<f64> = (0..300_u32)
                    .map(|slot| if enough.at(slot as usize) { plain[slot as usize] } else { UNFIT })
                    .zip((0..300).map(|at| fees().nth(at / BLOCK).unwrap()))
                    .map(|(score, fee)| score - fee)
                    .collect();
                let top = plain.iter().copied().fold(UNFIT, f64::max);
                let ties: Vec<u32> = (0..300).filter(|slot| top > UNFIT && same(plain[*slot as usize], top)).collect();
                prop_assert_eq!(index.best(fees(), enough).map_or(0, |(_, ties)| ties as usize), ties.len());
                for (nth, slot) in (0..).zip(&ties) {
                    prop_assert_eq!(index.nth_best(fees(), enough, top, nth), Some(*slot));
                }
                prop_assert_eq!(index.fitting(enough) as usize, plain.iter().filter(|score| **score > UNFIT).count());
                prop_assert_eq!(index.fits(enough).count(), index.fitting(enough) as usize);
            }
        }
    }
}
