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
    fitting: u32,
}

impl Index {
    /// From all scores at once.
    pub(crate) fn of(scores: Vec<f64>) -> Self {
        let blocks: Vec<Best> = scores
            .chunks(BLOCK)
            .map(|block| best(block.iter().copied()))
            .collect();
        let unfit: usize = scores.iter().map(|score| usize::from(same(*score, UNFIT))).sum();
        let fitting = scores.len() - unfit;
        Self {
            scores,
            blocks,
            fitting: u32::try_from(fitting).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn score(&self, slot: u32) -> f64 {
        self.scores.get(slot as usize).copied().unwrap_or(UNFIT)
    }

    /// How many nodes the shape fits on.
    pub(crate) fn fitting(&self, enough: Enough<'_>) -> u32 {
        let short = (0..self.blocks.len()).filter(|block| !enough.everywhere(*block));
        let short = short.flat_map(|block| self.block(block));
        let lacking = short.filter(|(slot, score)| *score > UNFIT && !enough.at(*slot)).count();
        self.fitting - u32::try_from(lacking).unwrap_or(self.fitting)
    }

    /// A block's slots and scores.
    fn block(&self, block: usize) -> impl Iterator<Item = (u32, f64)> + '_ {
        let start = block * BLOCK;
        let scores = &self.scores[start..self.scores.len().min(start + BLOCK)];
        (u32::try_from(start).unwrap_or(u32::MAX)..).zip(scores.iter().copied())
    }

    /// By block, the best of the nodes that have the memory, less the fee.
    fn net<'a>(
        &'a self,
        fees: impl Iterator<Item = f64> + 'a,
        enough: Enough<'a>,
    ) -> impl Iterator<Item = (f64, Best)> + 'a {
        let blocks = self.blocks.iter().enumerate().zip(fees);
        blocks.map(move |((at, block), fee)| {
            let gross = if enough.everywhere(at) {
                *block
            } else {
                best(self.block(at).filter(|(slot, _)| enough.at(*slot)).map(|(_, score)| score))
            };
            (gross.score, gross.less(fee))
        })
    }

    pub(crate) fn set(&mut self, slot: u32, score: f64) {
        let at = slot as usize;
        if at >= self.scores.len() {
            self.scores.resize(at + 1, UNFIT);
            self.blocks.resize(self.scores.len().div_ceil(BLOCK), NONE);
        }
        let old = std::mem::replace(&mut self.scores[at], score);
        if same(old, score) {
            return;
        }
        self.fitting = self.fitting + u32::from(score > UNFIT) - u32::from(old > UNFIT);
        let block = &mut self.blocks[at / BLOCK];
        if score > block.score {
            *block = Best { score, ties: 1 };
            return;
        }
        block.ties += u32::from(score > UNFIT && same(score, block.score));
        block.ties -= u32::from(same(old, block.score) && old > UNFIT);
    }

    /// To be called after changes: finds the best of blocks that lost theirs.
    pub(crate) fn settle(&mut self) {
        for (block, scores) in self.blocks.iter_mut().zip(self.scores.chunks(BLOCK)) {
            if block.ties == 0 && block.score > UNFIT {
                *block = best(scores.iter().copied());
            }
        }
    }

    /// The best score less its block's fee, and how many nodes share it; `None` where the shape fits nowhere.
    pub(crate) fn best(&self, fees: impl Iterator<Item = f64>, enough: Enough<'_>) -> Option<(f64, u32)> {
        let best = self.net(fees, enough).fold(NONE, |best, (_, net)| best.join(net));
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
        for (at, (gross, net)) in self.net(fees, enough).enumerate() {
            if !same(net.score, score) {
                continue;
            }
            if nth >= net.ties {
                nth -= net.ties;
                continue;
            }
            let mut tied = self
                .block(at)
                .filter(|(slot, other)| same(*other, gross) && enough.at(*slot));
            return tied.nth(nth as usize).map(|(slot, _)| slot);
        }
        None
    }

    /// All nodes on which the shape fits, with their scores, in the order of slots.
    pub(crate) fn fits<'a>(&'a self, enough: Enough<'a>) -> impl Iterator<Item = (u32, f64)> + 'a {
        (0..)
            .zip(self.scores.iter().copied())
            .filter(move |(slot, score)| *score > UNFIT && enough.at(*slot))
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

fn best(scores: impl Iterator<Item = f64>) -> Best {
    let mut best = NONE;
    for score in scores {
        if score > best.score {
            best = Best { score, ties: 1 };
        } else if same(score, best.score) {
            best.ties += u32::from(score > UNFIT);
        }
    }
    best
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
                    .map(|slot| if enough.at(slot) { plain[slot as usize] } else { UNFIT })
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
