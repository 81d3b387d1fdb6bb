//! Policies: how good it is to place a shape on a node that it fits.
//!
//! A policy sees numbers only ([`Cell`], [`Ask`]), never names, and has no state: equal nodes get equal scores.

mod baseline;
mod gradient;

use std::sync::Arc;

use crate::{
    NodeState, PolicyName,
    engine::{
        Class, Weights,
        catalog::{Ask, small},
        cell::Cell,
        totals::Totals,
    },
    tables::{Prices, Values},
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

impl Default for Scale {
    fn default() -> Self {
        Self { cpu: 1.0, gpu: 1.0 }
    }
}

impl Scale {
    /// Makes it as large as this node.
    pub(crate) fn widen(&mut self, node: &NodeState) {
        let cpu = node.cpu_total.or(node.cpu_free).map_or(0, |cpu| cpu.0);
        self.cpu = self.cpu.max(f64::from(u32::try_from(cpu).unwrap_or(u32::MAX)));
        self.gpu = self.gpu.max(1000.0 * f64::from(small(node.devices.len())));
    }
}

/// Names and parts of a score.
pub type Terms = Vec<(&'static str, f64)>;

/// What a policy thinks of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    /// The larger the better. In GPUs gained (negative: lost) for the gradient policies.
    pub(crate) total: f64,
    /// For one share of a GPU: the position of the level whose device it should take. Otherwise the node's own rule
    /// decides.
    pub(crate) level: Option<usize>,
}

/// A policy with all that it reckons with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Scorer {
    pub(crate) policy: PolicyName,
    pub(crate) weights: Weights,
    pub(crate) scale: Scale,
    pub(crate) values: Arc<Values>,
    pub(crate) prices: Arc<Prices>,
}

impl Scorer {
    /// What the node is worth as it is, to policies that compare before and after.
    pub(crate) fn worth(&self, cell: &Cell) -> f64 {
        if self.policy.is_gradient() {
            gradient::worth(self, cell)
        } else {
            0.0
        }
    }

    /// `None` where the shape does not fit. `worth` is [`Scorer::worth`] of the same cell.
    pub(crate) fn score(&self, cell: &Cell, worth: f64, ask: &Ask) -> Option<Score> {
        let offer = cell.offer(ask)?;
        let mut score = match self.policy {
            PolicyName::Fragmentation | PolicyName::Fgd => gradient::score(self, cell, worth, ask, offer),
            PolicyName::Binpack => baseline::fit(cell, ask, self.scale, -1.0),
            PolicyName::Spread => baseline::fit(cell, ask, self.scale, 1.0),
            PolicyName::Random => Score {
                total: 0.0,
                level: None,
            },
        };
        score.total += SUSPECT * f64::from(offer.suspects);
        Some(score)
    }

    /// What it costs to use a node of a class that others need more: to be taken off the score. It changes with every
    /// placement, and is the same for all nodes of the class.
    pub(crate) fn fee(&self, ask: &Ask, id: u32, class: &Class, totals: &Totals) -> f64 {
        if self.policy != PolicyName::Fragmentation {
            return 0.0;
        }
        self.weights.class_pressure * self.prices.class(id, totals) * gradient::size(ask, class.kinds.first().copied())
    }

    /// What the score is made of; empty where the shape does not fit.
    pub(crate) fn terms(&self, cell: &Cell, worth: f64, ask: &Ask) -> Terms {
        let (Some(score), Some(offer)) = (self.score(cell, worth, ask), cell.offer(ask)) else {
            return Terms::new();
        };
        let mut terms = if self.policy.is_gradient() {
            gradient::terms(self, cell, ask, offer)
        } else {
            vec![(self.policy.as_str(), score.total - SUSPECT * f64::from(offer.suspects))]
        };
        if offer.suspects > 0 {
            terms.push(("suspect", SUSPECT * f64::from(offer.suspects)));
        }
        terms
    }
}
