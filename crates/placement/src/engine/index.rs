//! One shape's score on every node, and the best of them, kept while nodes change.
//!
//! Owns the arrangement in blocks and rows of blocks: a change touches one of each, and finding the best looks at one number
//! per row, at the blocks of rows that could have it, and at the scores of blocks that lost theirs.

use super::memory::Enough;

/// Score of a node on which the shape does not fit.
pub(crate) const UNFIT: f64 = f64::NEG_INFINITY;

/// Slots that are looked at as one. All nodes of a block are of one class.
pub(crate) const BLOCK: usize = 64;

/// Blocks of a row.
const ROW: usize = 16;

/// Scores that are read ahead of their change: the processor waits for all of them at once.
const AHEAD: usize = 16;

/// The best score of a block, or a score that none of its nodes exceeds or has (any longer).
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f64,
    /// How many nodes of the block have it. None: the best is yet to be found.
    ties: u32,
}

const NONE: Best = Best { score: UNFIT, ties: 0 };

/// By slot. Slots past the end are unfit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    scores: Vec<f32>,
    blocks: Vec<Best>,
    /// By row: a score that none of its nodes exceeds.
    bounds: Vec<f64>,
    /// By block, a bit for each of its slots: the shape fits there.
    fits: Vec<u64>,
    fitting: u32,
}

impl Index {
    /// From all scores at once.
    pub(crate) fn of(scores: impl Iterator<Item = f64>) -> Self {
        let scores: Vec<f32> = scores.map(rounded).collect();
        let blocks: Vec<Best> = scores.chunks(BLOCK).map(best).collect();
        let fits: Vec<u64> = scores.chunks(BLOCK).map(fits).collect();
        Self {
            bounds: blocks.chunks(ROW).map(bound).collect(),
            blocks,
            fitting: fits.iter().map(|fits| fits.count_ones()).sum(),
            fits,
            scores,
        }
    }

    pub(crate) fn score(&self, slot: u32) -> f64 {
        self.scores.get(slot as usize).copied().map_or(UNFIT, f64::from)
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
        let scores = bits(self.fits[block] & !lacking).map(|bit| f64::from(self.scores[block * BLOCK + bit]));
        scores.fold(NONE, |best, score| best.join(Best { score, ties: 1 }))
    }

    /// Takes the new scores of some slots, each named once.
    pub(crate) fn set_all(&mut self, fresh: &[(u32, f64)]) {
        if let Some(last) = fresh.iter().map(|(slot, _)| *slot as usize).max() {
            self.reach(last);
        }
        let mut old = [UNFIT; AHEAD];
        for fresh in fresh.chunks(AHEAD) {
            for (old, (slot, _)) in old.iter_mut().zip(fresh) {
                *old = f64::from(self.scores[*slot as usize]);
            }
            for (old, (slot, score)) in old.into_iter().zip(fresh) {
                self.replace(*slot as usize, old, *score);
            }
        }
    }

    fn reach(&mut self, slot: usize) {
        if slot >= self.scores.len() {
            self.scores.resize(slot + 1, f32::NEG_INFINITY);
            self.blocks.resize(self.scores.len().div_ceil(BLOCK), NONE);
            self.bounds.resize(self.blocks.len().div_ceil(ROW), UNFIT);
            self.fits.resize(self.blocks.len(), 0);
        }
    }

    fn replace(&mut self, at: usize, old: f64, score: f64) {
        let stored = rounded(score);
        let score = f64::from(stored);
        if same(old, score) {
            return;
        }
        self.scores[at] = stored;
        self.fitting = self.fitting + u32::from(score > UNFIT) - u32::from(old > UNFIT);
        let bit = 1 << (at % BLOCK);
        let fits = &mut self.fits[at / BLOCK];
        *fits = if score > UNFIT { *fits | bit } else { *fits & !bit };
        let block = &mut self.blocks[at / BLOCK];
        if score > block.score {
            *block = Best { score, ties: 1 };
            let bound = &mut self.bounds[at / BLOCK / ROW];
            *bound = bound.max(score);
            return;
        }
        block.ties += u32::from(score > UNFIT && same(score, block.score));
        block.ties -= u32::from(old > UNFIT && same(old, block.score));
    }

    /// The best score less its block's fee, and how many nodes share it; `None` where the shape fits nowhere. `least`: of the
    /// fees. Finds the best of blocks that lost theirs, where it matters.
    pub(crate) fn best(&mut self, fee: impl Fn(usize) -> f64, least: f64, enough: Enough<'_>) -> Option<(f64, u32)> {
        let mut best = NONE;
        // What the most promising row has rules out most of the others.
        let first = (0..self.bounds.len()).max_by(|one, other| self.bounds[*one].total_cmp(&self.bounds[*other]))?;
        for row in std::iter::once(first).chain((0..self.bounds.len()).filter(|row| *row != first)) {
            if self.bounds[row] - least >= best.score {
                best = self.best_of_row(row, best, &fee, enough);
            }
        }
        (best.ties > 0).then_some((best.score, best.ties))
    }

    fn best_of_row(&mut self, row: usize, mut best: Best, fee: impl Fn(usize) -> f64, enough: Enough<'_>) -> Best {
        let blocks = row * ROW..self.blocks.len().min((row + 1) * ROW);
        for at in blocks.clone() {
            // Nodes without the memory can only make it less.
            if self.blocks[at].less(fee(at)).score < best.score {
                continue;
            }
            self.settle(at);
            if self.blocks[at].ties > 0 && self.blocks[at].less(fee(at)).score >= best.score {
                best = best.join(self.gross(at, enough).less(fee(at)));
            }
        }
        self.bounds[row] = bound(&self.blocks[blocks]);
        best
    }

    /// Finds the best of a block that lost it.
    fn settle(&mut self, at: usize) {
        if self.blocks[at].ties == 0 {
            let start = at * BLOCK;
            let end = self.scores.len().min(start + BLOCK);
            self.blocks[at] = best(&self.scores[start..end]);
        }
    }

    /// The slot of the `nth` node (from 0, in the order of slots) with this score, which must be what [`Self::best`] said.
    pub(crate) fn nth_best(
        &self,
        fee: impl Fn(usize) -> f64,
        least: f64,
        enough: Enough<'_>,
        score: f64,
        mut nth: u32,
    ) -> Option<u32> {
        let rows = (0..self.bounds.len()).filter(|row| self.bounds[*row] - least >= score);
        for at in rows.flat_map(|row| row * ROW..self.blocks.len().min((row + 1) * ROW)) {
            let fee = fee(at);
            if self.blocks[at].less(fee).score < score {
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
            let mut tied = fitting.filter(|slot| same(f64::from(self.scores[*slot]), gross.score) && enough.at(*slot));
            return tied.nth(nth as usize).and_then(|slot| u32::try_from(slot).ok());
        }
        None
    }

    /// All nodes on which the shape fits, with their scores, in the order of slots.
    pub(crate) fn fits<'a>(&'a self, enough: Enough<'a>) -> impl Iterator<Item = (u32, f64)> + 'a {
        (0..)
            .zip(self.scores.iter().copied().map(f64::from))
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

fn best(scores: &[f32]) -> Best {
    let mut best = NONE;
    for score in scores.iter().copied().map(f64::from) {
        if score > best.score {
            best = Best { score, ties: 1 };
        } else if same(score, best.score) {
            best.ties += u32::from(score > UNFIT);
        }
    }
    best
}

/// None of a row's blocks exceeds it.
fn bound(blocks: &[Best]) -> f64 {
    blocks.iter().fold(UNFIT, |bound, block| bound.max(block.score))
}

/// A bit for each score that is one.
fn fits(scores: &[f32]) -> u64 {
    let bits = (0..)
        .zip(scores)
        .map(|(bit, score)| u64::from(*score > f32::NEG_INFINITY) << bit);
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

/// Half the bytes: scores of all shapes on a large cluster are what does not fit into the cache. A ten-millionth of a GPU is
/// nothing to choose by.
pub(crate) fn kept(score: f64) -> f64 {
    f64::from(rounded(score))
}

#[expect(clippy::cast_possible_truncation, reason = "rounded, on purpose")]
fn rounded(score: f64) -> f32 {
    score as f32
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

    /// Slots, in rows of blocks the last of which is not full.
    const SLOTS: u32 = 2500;

    fn fee(block: usize) -> f64 {
        [1.0, 0.0, 2.0, 1.0, 0.5][block % 5]
    }

    proptest! {
        #[test]
        fn the_best_is_what_a_full_scan_finds(
            rounds in prop::collection::vec(prop::collection::btree_map(0..SLOTS, (0_u8..5, 0_u8..5), 1..40), 1..20),
        ) {
            let mut memory = Memory::default();
            memory.resize(SLOTS as usize);
            let mut index = Index::default();
            let mut plain = vec![UNFIT; SLOTS as usize];
            for changes in rounds {
                let mut fresh = Vec::new();
                for (slot, (level, free)) in changes {
                    let score = if level == 0 { UNFIT } else { f64::from(level) };
                    fresh.push((slot, score));
                    memory.set(slot, u64::from(free));
                    plain[slot as usize] = score;
                }
                index.set_all(&fresh);
                let enough = memory.enough(2);
                let plain: Vec<f64> = (0..SLOTS as usize)
                    .map(|slot| if enough.at(slot) { plain[slot] - fee(slot / BLOCK) } else { UNFIT })
                    .collect();
                let top = plain.iter().copied().fold(UNFIT, f64::max);
                let ties: Vec<u32> = (0..SLOTS).filter(|slot| top > UNFIT && same(plain[*slot as usize], top)).collect();
                prop_assert_eq!(index.best(fee, 0.0, enough).map_or(0, |(_, ties)| ties as usize), ties.len());
                for (nth, slot) in (0..).zip(&ties) {
                    prop_assert_eq!(index.nth_best(fee, 0.0, enough, top, nth), Some(*slot));
                }
                prop_assert_eq!(index.fitting(enough) as usize, plain.iter().filter(|score| **score > UNFIT).count());
                prop_assert_eq!(index.fits(enough).count(), index.fitting(enough) as usize);
            }
        }
    }
}
