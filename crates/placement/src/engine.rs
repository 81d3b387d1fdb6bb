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

mod assume;
pub(crate) mod catalog;
pub(crate) mod cell;
mod config;
mod decide;
mod explain;
pub(crate) mod hash;
mod index;
mod log;
mod memory;
mod nodes;
mod rebuild;
mod shapes;
#[cfg(test)]
mod tests;
pub(crate) mod totals;

use std::sync::Arc;

pub(crate) use self::nodes::Class;
use self::{
    cell::Cell,
    index::{Index, UNFIT},
    nodes::Nodes,
    rebuild::Schedule,
    shapes::{Entry, ShapeId, Shapes},
};
pub use self::{
    config::{EngineConfig, MixConfig, ParsePolicyError, PolicyName, Ties, Weights},
    decide::{Candidates, Decision, Ranked, Ranking},
    explain::{NodeExplanation, Simulation},
    rebuild::{RebuildJob, Tables},
};
use crate::{
    NodeName, NodeState, Plan, Shape,
    mix::Mix,
    policy::{Scale, Score, Scorer},
};

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Engine {
    config: EngineConfig,
    nodes: Nodes,
    shapes: Shapes,
    scorer: Scorer,
    mix: Mix,
    schedule: Schedule,
    /// Grows with every change of the scorer.
    version: u64,
    decisions: u64,
    /// Room for the scores of nodes that changed.
    fresh: Vec<(u32, f64)>,
}

impl Engine {
    pub fn new(config: EngineConfig) -> Self {
        let scorer = Scorer {
            policy: config.policy,
            weights: config.weights.clone(),
            scale: Scale::default(),
            values: Arc::default(),
            prices: Arc::default(),
        };
        Self {
            mix: Mix::new(&config.mix),
            schedule: Schedule::default(),
            config,
            nodes: Nodes::default(),
            shapes: Shapes::default(),
            scorer,
            version: 1,
            decisions: 0,
            fresh: Vec::new(),
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

    /// Nodes that were bought alike follow each other.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.states()
    }

    /// Takes a plan's devices, and the shape's CPU and memory, out of what is free on a node, until the node's next state
    /// comes. Changes nothing and answers `false` where they are not free or the node is not known.
    #[must_use]
    pub fn take(&mut self, node: &NodeName, shape: &Shape, plan: &Plan) -> bool {
        self.nodes
            .change(node, &self.scorer, |state| assume::take(state, shape, plan))
    }

    /// The inverse of [`Engine::take`]: a departure, or a reservation that failed. Changes nothing and answers `false`
    /// where more would be free than there is, or the node is not known.
    #[must_use]
    pub fn give_back(&mut self, node: &NodeName, shape: &Shape, plan: &Plan) -> bool {
        self.nodes
            .change(node, &self.scorer, |state| assume::give_back(state, shape, plan))
    }

    /// A number for this decision alone, from the seed.
    fn draw(&mut self) -> u64 {
        self.decisions += 1;
        scramble(self.config.seed ^ scramble(self.decisions))
    }

    /// The shape's place, with its scores up to date.
    fn synced(&mut self, shape: &Shape) -> ShapeId {
        self.look_at_prices();
        let id = self
            .shapes
            .id(shape, self.nodes.catalog_mut(), self.config.cached_shapes);
        let behind = self.nodes.log().end() - self.shapes.entries()[id as usize].synced;
        self.sync(id);
        if behind <= FAR && self.nodes.cells().len() > SMALL {
            self.catch_up();
        }
        id
    }

    /// One shape at a time, in turn, that was not asked for in a long while: so that no decision pays for all that
    /// happened since.
    fn catch_up(&mut self) {
        let end = self.nodes.log().end();
        let version = self.version;
        let far = |entry: &Entry| entry.version == version && end - entry.synced > FAR;
        if let Some(id) = self
            .shapes
            .next_turn()
            .filter(|id| far(&self.shapes.entries()[*id as usize]))
        {
            self.sync(id);
        }
    }

    /// Brings a shape's scores up to date.
    fn sync(&mut self, id: ShapeId) {
        let entry = self.shapes.entry(id);
        let changed = self
            .nodes
            .log()
            .since(entry.synced)
            .filter(|_| entry.version == self.version);
        if let Some(changed) = changed {
            // First what is in the cache (cells that changed just now), then what is not (this shape's old scores).
            let score = |slot| {
                let (cell, worth) = self.nodes.cell(slot);
                (slot, total(self.scorer.score(cell, worth, &entry.ask)))
            };
            self.fresh.clear();
            self.fresh.extend(changed.map(score));
            entry.index.set_all(&self.fresh);
        } else {
            let mut recent = Recent::default();
            let ask = &entry.ask;
            let score = |(cell, worth)| recent.score(cell, || total(self.scorer.score(cell, worth, ask)));
            entry.index = Index::of(self.nodes.cells().map(score));
        }
        entry.synced = self.nodes.log().end();
        entry.version = self.version;
    }

    /// Larger nodes than ever seen change what "much is left" means.
    fn rescale(&mut self) {
        let scale = self.nodes.scale();
        if scale != self.scorer.scale {
            self.scorer.scale = scale;
            self.nodes.revalue(&self.scorer);
            self.version += 1;
        }
    }
}

/// Changes after which a shape is brought up to date although nobody asks for it: by a decision that has less to do itself.
const FAR: u64 = 280;

/// In a cluster of so many nodes a look at all of them costs no more than a decision may take.
const SMALL: usize = 2048;

/// Scores of cells met a moment ago: many nodes of a cluster are alike.
#[derive(Debug, Default)]
struct Recent<'a>([Option<(&'a Cell, f64)>; 16]);

impl<'a> Recent<'a> {
    fn score(&mut self, cell: &'a Cell, reckon: impl FnOnce() -> f64) -> f64 {
        let at = (cell.cpu ^ (cell.cpu >> 5) ^ cell.free ^ cell.class) as usize % self.0.len();
        match self.0[at] {
            Some((known, score)) if known == cell => score,
            _ => {
                let score = reckon();
                self.0[at] = Some((cell, score));
                score
            }
        }
    }
}

fn total(score: Option<Score>) -> f64 {
    score.map_or(UNFIT, |score| score.total)
}

/// SplitMix64's output function (Steele, Lea, Flood 2014).
fn scramble(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
