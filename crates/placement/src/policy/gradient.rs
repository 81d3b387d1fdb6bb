//! The gradient policies: what a node is worth before and after a placement.
//!
//! `fgd`: worth = Σ v·fit(c,v) + f·fit_several(c,f): by Weng et al. (USENIX ATC'23) the GPUs that a random next pod could
//! use; its gradient is theirs, without their rounding to whole numbers.
//!
//! `fragmentation` (completion-value gradient): worth = Σ v·fit(c,v)^liquidity + completion(c, Σ holds(v)) + blocks(c,f):
//! what the node can still become. Both take off a small best-fit term, and `fragmentation` the price of the class.

use super::{Scorer, Score, Terms, choices};
use crate::{
    PolicyName,
    engine::{
        catalog::{Ask, Form, UNKNOWN_CPU},
        cell::{Cell, Level, Offer},
    },
    tables::{SLOTS, View},
};

/// CPU that goes with one GPU where the price of a class is concerned, in thousandths of a core.
const CPU_PER_GPU: f64 = 12_000.0;

/// The parts of what a node is worth, in GPUs.
#[derive(Debug, Clone, Copy, Default)]
struct Worth {
    liquid: f64,
    completion: f64,
    blocks: f64,
}

impl Worth {
    fn total(self) -> f64 {
        self.liquid + self.completion + self.blocks
    }
}

/// A node with some CPU and some devices gone: sums over its levels.
#[derive(Debug, Clone, Copy)]
struct Rest<'a> {
    scorer: &'a Scorer,
    view: View<'a>,
    cpu: u32,
    rank: usize,
    row: &'a [f32],
    liquid: f64,
    holds: f64,
    wholes: u32,
}

/// Grid point of a remainder.
fn slot(level: &Level) -> usize {
    usize::from(level.effective / 10).min(SLOTS - 1)
}

/// Only an untouched device counts as a whole one.
fn holds(view: View<'_>, slot: usize, whole: bool) -> f64 {
    view.holds(if slot == SLOTS - 1 && !whole { SLOTS - 2 } else { slot })
}

impl<'a> Rest<'a> {
    /// `None` where nothing is left, or the tables do not know the devices.
    fn new(scorer: &'a Scorer, cell: &Cell, cpu: u32) -> Option<Self> {
        let first = scorer.values.view(cell.levels.first()?.kind)?;
        let rank = scorer.values.rank(cpu);
        let mut rest = Self {
            scorer,
            view: first,
            cpu,
            rank,
            row: first.liquid(rank),
            liquid: 0.0,
            holds: 0.0,
            wholes: 0,
        };
        for level in &cell.levels {
            let count = f64::from(level.count);
            rest.liquid += count * f64::from(rest.row[slot(level)]);
            rest.holds += count * holds(first, slot(level), level.whole);
            rest.wholes += if level.whole { u32::from(level.count) } else { 0 };
        }
        Some(rest)
    }

    fn worth(&self) -> Worth {
        if self.scorer.policy == PolicyName::Fgd {
            return Worth {
                liquid: self.liquid,
                completion: 0.0,
                blocks: f64::from(self.wholes) * self.view.multi(self.rank, self.wholes),
            };
        }
        Worth {
            liquid: self.liquid,
            completion: self.view.completion(self.cpu, self.holds),
            blocks: self.scorer.prices.block(self.view.id, self.rank, self.wholes),
        }
    }

    /// With a share of one device of a level gone.
    fn less_share(mut self, level: &Level, milli: u32) -> Self {
        let (before, after) = (slot(level), usize::from(level.effective).saturating_sub(milli as usize) / 10);
        self.liquid += f64::from(self.row[after]) - f64::from(self.row[before]);
        self.holds += holds(self.view, after, false) - holds(self.view, before, level.whole);
        self.wholes -= u32::from(level.whole);
        self
    }

    /// With this many whole devices gone.
    fn less_wholes(mut self, count: u32) -> Self {
        let gone = f64::from(count.min(self.wholes));
        self.liquid -= gone * f64::from(self.row[SLOTS - 1]);
        self.holds -= gone * self.view.holds(SLOTS - 1);
        self.wholes = self.wholes.saturating_sub(count);
        self
    }
}

pub(super) fn worth(scorer: &Scorer, cell: &Cell) -> f64 {
    Rest::new(scorer, cell, cell.cpu).map_or(0.0, |rest| rest.worth().total())
}

pub(super) fn score(scorer: &Scorer, cell: &Cell, worth: f64, ask: &Ask, offer: Offer) -> Score {
    let (after, level) = after(scorer, cell, ask, offer);
    Score {
        total: after.total() - worth + gpus(cell, ask, offer) * scale_of(scorer) - pack(scorer, cell, ask) - class(scorer, cell, ask, offer),
        level,
    }
}
