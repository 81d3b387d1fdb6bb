//! One shape's score on every node, and the best of them, kept while nodes change.
//!
//! Owns the arrangement in blocks: a change touches one block, and finding the best looks at one number per block.

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
        let blocks = scores.chunks(BLOCK).map(best).collect();
        let fitting = scores.iter().filter(|score| **score > UNFIT).count();
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
    pub(crate) fn fitting(&self) -> u32 {
        self.fitting
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
        if score > UNFIT && same(score, block.score) {
            block.ties += 1;
        }
        if same(old, block.score) && old > UNFIT {
            block.ties -= 1;
            if block.ties == 0 {
                let start = at / BLOCK * BLOCK;
                let end = self.scores.len().min(start + BLOCK);
                self.blocks[at / BLOCK] = best(&self.scores[start..end]);
            }
        }
    }

    /// The best score less its block's fee, and how many nodes share it; `None` where the shape fits nowhere.
    pub(crate) fn best(&self, fees: impl Iterator<Item = f64>) -> Option<(f64, u32)> {
        let net = self.blocks.iter().zip(fees).map(|(block, fee)| block.less(fee));
        let best = net.fold(NONE, Best::join);
        (best.ties > 0).then_some((best.score, best.ties))
    }

    /// The slot of the `nth` node (from 0, in the order of slots) with this score, which must be the best one.
    pub(crate) fn nth_best(&self, fees: impl Iterator<Item = f64>, score: f64, mut nth: u32) -> Option<u32> {
        for (at, (block, fee)) in self.blocks.iter().zip(fees).enumerate() {
            if !same(block.less(fee).score, score) {
                continue;
            }
            if nth >= block.ties {
                nth -= block.ties;
                continue;
            }
            let slots = (at * BLOCK..).zip(self.scores.iter().skip(at * BLOCK).take(BLOCK));
            let found = slots.filter(|(_, other)| same(**other, block.score)).nth(nth as usize);
            return found.and_then(|(slot, _)| u32::try_from(slot).ok());
        }
        None
    }

    /// All nodes on which the shape fits, with their scores, in the order of slots.
    pub(crate) fn fits(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        (0..)
            .zip(self.scores.iter().copied())
            .filter(|(_, score)| *score > UNFIT)
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
    let score = scores.iter().copied().fold(UNFIT, f64::max);
    if score > UNFIT {
        let ties = scores.iter().filter(|other| same(**other, score)).count();
        Best {
            score,
            ties: u32::try_from(ties).unwrap_or(u32::MAX),
        }
    } else {
        NONE
    }
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

    /// One fee per block.
    fn fees() -> impl Iterator<Item = f64> {
        [1.0, 0.0, 2.0, 1.0, 0.5].into_iter()
    }

    proptest! {
        #[test]
        fn the_best_is_what_a_full_scan_finds(changes in prop::collection::vec((0_u32..300, 0_u8..5), 1..400)) {
            let mut index = Index::default();
            let mut plain = vec![UNFIT; 300];
            for (slot, level) in changes {
                let score = if level == 0 { UNFIT } else { f64::from(level) };
                index.set(slot, score);
                plain[slot as usize] = score;
                let plain: Vec<f64> = (0..300).map(|at: usize| plain[at] - fees().nth(at / BLOCK).unwrap()).collect();
                let top = plain.iter().copied().fold(UNFIT, f64::max);
                let ties: Vec<u32> = (0..300).filter(|slot| top > UNFIT && same(plain[*slot as usize], top)).collect();
                prop_assert_eq!(index.best(fees()).map_or(0, |(_, ties)| ties as usize), ties.len());
                for (nth, slot) in (0..).zip(&ties) {
                    prop_assert_eq!(index.nth_best(fees(), top, nth), Some(*slot));
                }
                prop_assert_eq!(index.fitting() as usize, plain.iter().filter(|score| **score > UNFIT).count());
                prop_assert_eq!(index.fits().count(), index.fitting() as usize);
            }
        }
    }
}
