//! The cluster-level engine: which node, and which of its devices.
//!
//! Owns the nodes as they were told, and for each shape that was asked for a score on every node, kept while nodes
//! change. Must not know where nodes come from, what time it is, or who asks. Incremental: a decision looks at the
//! nodes that changed since the last one of its shape; the policy's tables are made elsewhere ([`RebuildJob`]).
//!
//! ```text
//! upsert_node ─► Cell (what is free) ─► change log ─┐
//! decide(Shape) ─► Ask ─► Index (score per node) ◄──┴─ Scorer (policy and its tables) ◄─ install ◄─ RebuildJob
//!                          └─► best node ─► fit::plan ─► Ranked
//! ```

pub(crate) mod catalog;
pub(crate) mod cell;
mod config;
mod index;
mod log;
mod assume;
mod nodes;
mod shapes;
mod totals;
#[cfg(test)]
mod tests;

pub use config::{EngineConfig, MixConfig, ParsePolicyError, PolicyName, Ties, Weights};

use self::{
    index::{Index, UNFIT, same},
    nodes::Nodes,
    shapes::{ShapeId, Shapes},
};
use crate::{
    DeviceUuid, NodeName, NodeState, Plan, Reason, Refusal, Shape,
    fit,
    policy::{Scale, Score, Scorer},
};

/// Which nodes may be chosen.
#[derive(Debug, Clone, Copy)]
pub enum Candidates<'a> {
    All,
    Names(&'a [NodeName]),
}

/// The answer for one shape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// Best first, at most as many as asked for. Empty: it fits nowhere.
    pub ranked: Vec<Ranked>,
    /// How many of the candidates it fits on.
    pub fitting: usize,
    /// Each named candidate that refuses, in the order of the names. Empty for [`Candidates::All`]: a cluster's worth of
    /// refusals is only made on demand, by [`Engine::refusals`].
    pub refused: Vec<(NodeName, Refusal)>,
}

/// A node that takes the shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    pub node: NodeName,
    /// Comparable within one decision only. The larger the better.
    pub score: f64,
    pub plan: Plan,
}

/// As [`Decision`], without plans: what a filter or a ranking over thousands of names needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranking {
    /// Position in the names that were given, and score. Best first.
    pub fits: Vec<(usize, f64)>,
    /// Position in the names that were given, and why not. In the order of the names.
    pub refused: Vec<(usize, Refusal)>,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Engine {
    config: EngineConfig,
    nodes: Nodes,
    shapes: Shapes,
    scorer: Scorer,
    /// Grows with every change of the scorer.
    version: u64,
    decisions: u64,
}

impl Engine {
    pub fn new(config: EngineConfig) -> Self {
        let scorer = Scorer {
            policy: config.policy,
            weights: config.weights.clone(),
            scale: Scale { cpu: 1.0, gpu: 1.0 },
        };
        Self {
            config,
            nodes: Nodes::default(),
            shapes: Shapes::default(),
            scorer,
            version: 1,
            decisions: 0,
        }
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Takes a node's state as it is now: a new node or a new state. Whatever was [taken](Engine::take) there and is not
    /// part of `state` is forgotten. Costs little where nothing changed that placement looks at.
    pub fn upsert_node(&mut self, state: NodeState) {
        let kinds = self.nodes.kinds();
        self.nodes.upsert(state, &self.scorer);
        if self.nodes.kinds() > kinds {
            self.shapes.learn(self.nodes.catalog());
        }
        self.rescale();
    }

    /// Forgets a node. Without effect where it is not known.
    pub fn remove_node(&mut self, name: &NodeName) {
        self.nodes.remove(name, &self.scorer);
    }

    pub fn node(&self, name: &NodeName) -> Option<&NodeState> {
        self.nodes.slot(name.as_str()).and_then(|slot| self.nodes.state(slot))
    }

    /// In the order in which they were first seen.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.states()
    }

    /// Takes a plan's devices, and the shape's CPU and memory, out of what is free on a node, until the node's next state
    /// comes. Changes nothing and answers `false` where they are not free or the node is not known.
    #[must_use]
    pub fn take(&mut self, node: &NodeName, shape: &Shape, plan: &Plan) -> bool {
        self.nodes.change(node, &self.scorer, |state| assume::take(state, shape, plan))
    }

    /// The inverse of [`Engine::take`]: a departure, or a reservation that failed. Changes nothing and answers `false`
    /// where more would be free than there is, or the node is not known.
    #[must_use]
    pub fn give_back(&mut self, node: &NodeName, shape: &Shape, plan: &Plan) -> bool {
        self.nodes.change(node, &self.scorer, |state| assume::give_back(state, shape, plan))
    }

    /// The best `top` nodes for a shape, with devices. Changes nothing but what is kept at hand for the next decision.
    pub fn decide(&mut self, shape: &Shape, candidates: Candidates<'_>, top: usize) -> Decision {
        let draw = self.draw();
        let id = self.synced(shape);
        match candidates {
            Candidates::All if top == 1 => self.decide_best(id, draw),
            Candidates::All => {
                let index = &self.shapes.entry(id).index;
                let fits: Vec<_> = index.fits().collect();
                let fitting = fits.len();
                Decision {
                    ranked: self.ranked(id, self.order(fits, draw), top),
                    fitting,
                    refused: Vec::new(),
                }
            }
            Candidates::Names(names) => {
                let (fits, refused) = self.split(id, names);
                let fits: Vec<_> = fits.into_iter().map(|(_, slot, score)| (slot, score)).collect();
                Decision {
                    fitting: fits.len(),
                    ranked: self.ranked(id, self.order(fits, draw), top),
                    refused: refused.into_iter().map(|(at, refusal)| (names[at].clone(), refusal)).collect(),
                }
            }
        }
    }

    /// Which of the named nodes it fits on, how good each one is, and why not the others: cheap, for thousands of names.
    pub fn rank(&mut self, shape: &Shape, names: &[NodeName]) -> Ranking {
        let draw = self.draw();
        let id = self.synced(shape);
        let (mut fits, refused) = self.split(id, names);
        fits.sort_unstable_by_key(|(_, slot, _)| *slot);
        let pivot = usize::try_from(draw % (fits.len().max(1) as u64)).unwrap_or(0);
        fits.rotate_left(pivot);
        fits.sort_by(|one, other| other.2.total_cmp(&one.2));
        Ranking {
            fits: fits.into_iter().map(|(at, _, score)| (at, score)).collect(),
            refused,
        }
    }

    /// Why each node that refuses the shape does so. Names that are not known are refused too.
    pub fn refusals(&self, shape: &Shape, candidates: Candidates<'_>) -> Vec<(NodeName, Refusal)> {
        let mut memo = fit::Refusals::new(shape);
        match candidates {
            Candidates::All => self
                .nodes
                .states()
                .filter_map(|state| memo.of(state).map(|refusal| (state.name.clone(), refusal)))
                .collect(),
            Candidates::Names(names) => names
                .iter()
                .filter_map(|name| {
                    let refusal = match self.node(name) {
                        Some(state) => memo.of(state),
                        None => Some(unknown()),
                    };
                    refusal.map(|refusal| (name.clone(), refusal))
                })
                .collect(),
        }
    }

    /// A number for this decision alone, from the seed.
    fn draw(&mut self) -> u64 {
        self.decisions += 1;
        mix(self.config.seed ^ mix(self.decisions))
    }

    /// The shape's place, with its scores up to date.
    fn synced(&mut self, shape: &Shape) -> ShapeId {
        let id = self.shapes.id(shape, self.nodes.catalog_mut(), self.config.cached_shapes);
        self.sync(id);
        id
    }

    fn sync(&mut self, id: ShapeId) {
        let entry = self.shapes.entry(id);
        let changed = self.nodes.log().since(entry.synced).filter(|_| entry.version == self.version);
        match changed {
            Some(changed) => {
                for slot in changed {
                    let (cell, worth) = self.nodes.cell(slot);
                    entry.index.set(slot, total(self.scorer.score(cell, worth, &entry.ask)));
                }
            }
            None => {
                let scores = self.nodes.cells().map(|(cell, worth)| total(self.scorer.score(cell, worth, &entry.ask)));
                entry.index = Index::of(scores.collect());
            }
        }
        entry.synced = self.nodes.log().end();
        entry.version = self.version;
    }

    fn decide_best(&mut self, id: ShapeId, draw: u64) -> Decision {
        let index = &self.shapes.entry(id).index;
        let fitting = index.fitting() as usize;
        let Some((score, ties)) = index.best() else {
            return Decision::default();
        };
        let nth = u32::try_from(draw % u64::from(ties)).unwrap_or(0);
        let slot = match self.config.ties {
            Ties::Random => index.nth_best(score, nth),
            Ties::Name => {
                let tied = index.fits().filter(|(_, other)| same(*other, score));
                tied.map(|(slot, _)| slot).min_by_key(|slot| self.nodes.state(*slot).map(|state| &state.name))
            }
        };
        let best: Vec<_> = slot.map(|slot| (slot, score)).into_iter().collect();
        Decision {
            ranked: self.ranked(id, best, 1),
            fitting,
            refused: Vec::new(),
        }
    }
}
