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
mod explain;
mod index;
mod log;
mod nodes;
mod rebuild;
mod shapes;
#[cfg(test)]
mod tests;
pub(crate) mod totals;

use std::sync::Arc;

use smallvec::SmallVec;

pub(crate) use self::nodes::Class;
pub use self::{
    config::{EngineConfig, MixConfig, ParsePolicyError, PolicyName, Ties, Weights},
    explain::{NodeExplanation, Simulation},
    rebuild::{RebuildJob, Tables},
};
use self::{
    index::{Index, UNFIT, same},
    nodes::Nodes,
    rebuild::Schedule,
    shapes::{Entry, ShapeId, Shapes},
};
use crate::{
    NodeName, NodeState, Plan, Reason, Refusal, Shape, fit,
    mix::Mix,
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
    mix: Mix,
    schedule: Schedule,
    /// Grows with every change of the scorer.
    version: u64,
    decisions: u64,
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

    /// The best `top` nodes for a shape, with devices. Changes nothing but what is kept at hand for the next decision.
    pub fn decide(&mut self, shape: &Shape, candidates: Candidates<'_>, top: usize) -> Decision {
        let draw = self.draw();
        let id = self.synced(shape);
        match candidates {
            Candidates::All if top == 1 => self.decide_best(id, draw),
            Candidates::All => {
                let fees = self.fees(id);
                let fits = self.shapes.entries()[id as usize]
                    .index
                    .fits()
                    .map(|(slot, score)| Fit {
                        at: 0,
                        slot,
                        score: score - fees[self.nodes.cell(slot).0.class as usize],
                    });
                let mut fits: Vec<Fit> = fits.collect();
                self.order(&mut fits, draw);
                Decision {
                    fitting: fits.len(),
                    ranked: self.ranked(id, &fits, top),
                    refused: Vec::new(),
                }
            }
            Candidates::Names(names) => {
                let (mut fits, refused) = self.split(id, names);
                self.order(&mut fits, draw);
                Decision {
                    fitting: fits.len(),
                    ranked: self.ranked(id, &fits, top),
                    refused: refused
                        .into_iter()
                        .map(|(at, refusal)| (names[at].clone(), refusal))
                        .collect(),
                }
            }
        }
    }

    /// Which of the named nodes it fits on, how good each one is, and why not the others: cheap, for thousands of names.
    pub fn rank(&mut self, shape: &Shape, names: &[NodeName]) -> Ranking {
        let draw = self.draw();
        let id = self.synced(shape);
        let (mut fits, refused) = self.split(id, names);
        self.order(&mut fits, draw);
        Ranking {
            fits: fits.into_iter().map(|fit| (fit.at, fit.score)).collect(),
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
        scramble(self.config.seed ^ scramble(self.decisions))
    }

    /// The shape's place, with its scores up to date.
    fn synced(&mut self, shape: &Shape) -> ShapeId {
        self.look_at_prices();
        let id = self
            .shapes
            .id(shape, self.nodes.catalog_mut(), self.config.cached_shapes);
        self.sync(id);
        self.catch_up();
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

    fn sync(&mut self, id: ShapeId) {
        let entry = self.shapes.entry(id);
        let changed = self
            .nodes
            .log()
            .since(entry.synced)
            .filter(|_| entry.version == self.version);
        if let Some(changed) = changed {
            for slot in changed {
                let (cell, worth) = self.nodes.cell(slot);
                entry.index.set(slot, total(self.scorer.score(cell, worth, &entry.ask)));
            }
        } else {
            let cells = self.nodes.cells();
            entry.index = Index::of(
                cells
                    .map(|(cell, worth)| total(self.scorer.score(cell, worth, &entry.ask)))
                    .collect(),
            );
        }
        entry.synced = self.nodes.log().end();
        entry.version = self.version;
    }

    fn decide_best(&mut self, id: ShapeId, draw: u64) -> Decision {
        let index = &self.shapes.entries()[id as usize].index;
        let fitting = index.fitting() as usize;
        let fees = self.fees(id);
        let by_block = || self.nodes.class_of_block().iter().map(|class| fees[*class as usize]);
        let Some((score, ties)) = index.best(by_block()) else {
            return Decision::default();
        };
        let nth = u32::try_from(draw % u64::from(ties)).unwrap_or(0);
        let slot = match self.config.ties {
            Ties::Random => index.nth_best(by_block(), score, nth),
            Ties::Name => {
                let net = |slot: u32, score: f64| score - fees[self.nodes.cell(slot).0.class as usize];
                let tied = index.fits().filter(|(slot, other)| same(net(*slot, *other), score));
                tied.map(|(slot, _)| slot)
                    .min_by_key(|slot| self.nodes.state(*slot).map(|state| &state.name))
            }
        };
        let best = slot.map(|slot| Fit { at: 0, slot, score });
        Decision {
            ranked: self.ranked(id, best.as_slice(), 1),
            fitting,
            refused: Vec::new(),
        }
    }

    /// By class, what the shape pays for using it.
    fn fees(&self, id: ShapeId) -> SmallVec<[f64; 32]> {
        let ask = &self.shapes.entries()[id as usize].ask;
        let classes = (0..).zip(self.nodes.classes());
        classes
            .map(|(id, class)| self.scorer.fee(ask, id, class, self.nodes.totals()))
            .collect()
    }

    /// The named nodes: those that fit, and the others with the reason. By position in `names`.
    fn split(&self, id: ShapeId, names: &[NodeName]) -> (Vec<Fit>, Vec<(usize, Refusal)>) {
        let entry = &self.shapes.entries()[id as usize];
        let mut memo = fit::Refusals::new(&entry.shape);
        let fees = self.fees(id);
        let (mut fits, mut refused) = (Vec::new(), Vec::new());
        for (at, name) in names.iter().enumerate() {
            let slot = self.nodes.slot(name.as_str());
            let Some((slot, state)) = slot.and_then(|slot| Some((slot, self.nodes.state(slot)?))) else {
                refused.push((at, unknown()));
                continue;
            };
            let score = entry.index.score(slot);
            if score > UNFIT {
                let score = score - fees[self.nodes.cell(slot).0.class as usize];
                fits.push(Fit { at, slot, score });
            } else if let Some(refusal) = memo.of(state) {
                refused.push((at, refusal));
            }
        }
        (fits, refused)
    }

    /// Best first; equals by the rule for ties, so that the first is the one that [`Engine::decide_best`] finds.
    fn order(&self, fits: &mut [Fit], draw: u64) {
        fits.sort_unstable_by(|one, other| other.score.total_cmp(&one.score).then(one.slot.cmp(&other.slot)));
        for equals in fits.chunk_by_mut(|one, other| same(one.score, other.score)) {
            match self.config.ties {
                Ties::Random => equals.rotate_left(usize::try_from(draw % equals.len() as u64).unwrap_or(0)),
                Ties::Name => equals.sort_by_key(|fit| self.nodes.state(fit.slot).map(|state| &state.name)),
            }
        }
    }

    /// Plans for the first `top` of these.
    fn ranked(&self, id: ShapeId, fits: &[Fit], top: usize) -> Vec<Ranked> {
        let entry = &self.shapes.entries()[id as usize];
        let ranked = |fit: &Fit| {
            let (cell, worth) = self.nodes.cell(fit.slot);
            let level = self.scorer.score(cell, worth, &entry.ask)?.level;
            let preferred = level.and_then(|level| self.nodes.device_of(fit.slot, &level));
            let state = self.nodes.state(fit.slot)?;
            let plan = fit::plan_preferring(state, &entry.shape, preferred.map_or(&[], std::slice::from_ref));
            debug_assert!(
                plan.is_ok(),
                "BUG: {} was said to take {}: {plan:?}",
                state.name,
                entry.shape
            );
            Some(Ranked {
                node: state.name.clone(),
                score: fit.score,
                plan: plan.ok()?,
            })
        };
        fits.iter().filter_map(ranked).take(top).collect()
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

/// Changes after which a shape is brought up to date although nobody asks for it.
const FAR: u64 = 2048;

/// A candidate that takes the shape.
#[derive(Debug, Clone, Copy)]
struct Fit {
    /// Position in the names that were given.
    at: usize,
    slot: u32,
    score: f64,
}

fn total(score: Option<Score>) -> f64 {
    score.map_or(UNFIT, |score| score.total)
}

fn unknown() -> Refusal {
    Refusal::new(Reason::UnknownNode, "no node of that name is known")
}

/// SplitMix64's output function (Steele, Lea, Flood 2014).
fn scramble(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
