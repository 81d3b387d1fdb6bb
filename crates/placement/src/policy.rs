//! Policies: how good it is to place a shape on a node that it fits.
//!
//! A policy sees numbers only ([`Cell`], [`Ask`]), never names, and has no state: equal nodes get equal scores.

mod baseline;

use crate::{
    PolicyName,
    engine::{Weights, catalog::{Ask, Form}, cell::{Cell, Level}},
};

/// Added for each Suspect device that a placement needs: more than any policy can make good.
const SUSPECT: f64 = -1000.0;

/// How large nodes are, to compare CPU with GPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// The largest node's CPU, in thousandths of a core.
    pub(crate) cpu: f64,
    /// The largest node's GPUs, in thousandths.
    pub(crate) gpu: f64,
}

/// What a policy thinks of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    /// The larger the better. In GPUs gained (negative: lost) for the gradient policies.
    pub(crate) total: f64,
    /// For one share of a GPU: the level whose device it should take. Otherwise the node's own rule decides.
    pub(crate) level: Option<Level>,
}

/// A policy with all that it reckons with.
#[derive(Debug, Clone)]
pub(crate) struct Scorer {
    pub(crate) policy: PolicyName,
    pub(crate) weights: Weights,
    pub(crate) scale: Scale,
}

impl Scorer {
    /// What the node is worth as it is, to policies that compare before and after.
    pub(crate) fn worth(&self, _cell: &Cell) -> f64 {
        0.0
    }

    /// `None` where the shape does not fit. `worth` is [`Scorer::worth`] of the same cell.
    pub(crate) fn score(&self, cell: &Cell, _worth: f64, ask: &Ask) -> Option<Score> {
        let offer = cell.offer(ask)?;
        let mut score = match self.policy {
            PolicyName::Random => Score { total: 0.0, level: None },
            PolicyName::Spread => baseline::fit(cell, ask, self.scale, 1.0),
            _ => baseline::fit(cell, ask, self.scale, -1.0),
        };
        score.total += SUSPECT * f64::from(offer.suspects);
        Some(score)
    }
}

/// The levels of which the policy may pick one: for one share of a GPU, healthy ones if there are any.
pub(crate) fn choices<'a>(cell: &'a Cell, ask: &'a Ask, suspects: u32) -> impl Iterator<Item = &'a Level> {
    let single = ask.form == Form::Share && ask.count == 1;
    cell.levels
        .iter()
        .filter(move |level| single && level.suspect == (suspects > 0) && level.takes(ask))
}
