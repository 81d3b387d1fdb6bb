//! Decisions: the nodes that take a shape, best first, with their devices; and why the others do not.
//!
//! Reads the scores that the engine keeps; must not know how they are reckoned.

use smallvec::SmallVec;

use super::{
    Engine, Ties,
    index::{UNFIT, same},
    memory::Enough,
    shapes::ShapeId,
};
use crate::{NodeName, Plan, Reason, Refusal, Shape, fit};

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

/// A candidate that takes the shape.
#[derive(Debug, Clone, Copy)]
struct Fit {
    /// Position in the names that were given.
    at: usize,
    slot: u32,
    score: f64,
}

impl Engine {
    /// The best `top` nodes for a shape, with devices. Changes nothing but what is kept at hand for the next decision.
    pub fn decide(&mut self, shape: &Shape, candidates: Candidates<'_>, top: usize) -> Decision {
        let draw = self.draw();
        let id = self.synced(shape);
        match candidates {
            Candidates::All if top == 1 => self.decide_best(id, shape, draw),
            Candidates::All => {
                let fees = self.fees(id);
                let fits = self.shapes.entries()[id as usize]
                    .index
                    .fits(self.enough(shape))
                    .map(|(slot, score)| Fit {
                        at: 0,
                        slot,
                        score: score - fees[self.nodes.cell(slot).0.class as usize],
                    });
                let mut fits: Vec<Fit> = fits.collect();
                self.order(&mut fits, draw);
                Decision {
                    fitting: fits.len(),
                    ranked: self.ranked(id, shape, &fits, top),
                    refused: Vec::new(),
                }
            }
            Candidates::Names(names) => {
                let (mut fits, refused) = self.split(id, shape, names);
                self.order(&mut fits, draw);
                Decision {
                    fitting: fits.len(),
                    ranked: self.ranked(id, shape, &fits, top),
                    refused: refused
                        .into_iter()
                        .map(|(at, refusal)| (names[at].clone(), refusal))
                        .collect(),
                }
            }
        }
    }

    /// Which of the named nodes it fits on, how good each one is, and why not the others: cheap, for thousands of names.
    pub fn rank<N: AsRef<str>>(&mut self, shape: &Shape, names: &[N]) -> Ranking {
        self.rank_top(shape, names, usize::MAX)
    }

    /// As [`Engine::rank`], but only the first `top` are in order; whoever asks just which nodes fit saves the sorting.
    pub fn rank_top<N: AsRef<str>>(&mut self, shape: &Shape, names: &[N], top: usize) -> Ranking {
        let draw = self.draw();
        let id = self.synced(shape);
        let (mut fits, refused) = self.split(id, shape, names);
        let ordered = if top < fits.len() {
            let (.., last, _) = fits.select_nth_unstable_by(top, |one, other| other.score.total_cmp(&one.score));
            let least = last.score;
            // Equals belong together: which of them is first is drawn.
            let is_above = |fit: &Fit| fit.score > least || same(fit.score, least);
            fits.sort_by_key(|fit| !is_above(fit));
            fits.iter().take_while(|fit| is_above(fit)).count()
        } else {
            fits.len()
        };
        self.order(&mut fits[..ordered], draw);
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

    fn decide_best(&mut self, id: ShapeId, shape: &Shape, draw: u64) -> Decision {
        let fees = self.fees(id);
        let least = fees.iter().copied().fold(f64::INFINITY, f64::min);
        let classes = self.nodes.class_of_block();
        let fee = |block: usize| fees[classes[block] as usize];
        let enough = self.nodes.memory().enough(shape.memory.get());
        let index = &mut self.shapes.entry(id).index;
        let fitting = index.fitting(enough) as usize;
        let Some((score, ties)) = index.best(fee, least, enough) else {
            return Decision::default();
        };
        let nth = u32::try_from(draw % u64::from(ties)).unwrap_or(0);
        let slot = match self.config.ties {
            Ties::Random => index.nth_best(fee, least, enough, score, nth),
            Ties::Name => {
                let net = |slot: u32, score: f64| score - fees[self.nodes.cell(slot).0.class as usize];
                let tied = index
                    .fits(enough)
                    .filter(|(slot, other)| same(net(*slot, *other), score));
                tied.map(|(slot, _)| slot)
                    .min_by_key(|slot| self.nodes.state(*slot).map(|state| &state.name))
            }
        };
        let best = slot.map(|slot| Fit { at: 0, slot, score });
        Decision {
            ranked: self.ranked(id, shape, best.as_slice(), 1),
            fitting,
            refused: Vec::new(),
        }
    }

    fn enough(&self, shape: &Shape) -> Enough<'_> {
        self.nodes.memory().enough(shape.memory.get())
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
    fn split<N: AsRef<str>>(&self, id: ShapeId, shape: &Shape, names: &[N]) -> (Vec<Fit>, Vec<(usize, Refusal)>) {
        let entry = &self.shapes.entries()[id as usize];
        let mut memo = fit::Refusals::new(shape);
        let enough = self.enough(shape);
        let fees = self.fees(id);
        let (mut fits, mut refused) = (Vec::new(), Vec::new());
        for (at, name) in names.iter().enumerate() {
            let slot = self.nodes.slot(name.as_ref());
            let Some((slot, state)) = slot.and_then(|slot| Some((slot, self.nodes.state(slot)?))) else {
                refused.push((at, unknown()));
                continue;
            };
            let score = entry.index.score(slot);
            if score > UNFIT && enough.at(slot as usize) {
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
    fn ranked(&self, id: ShapeId, shape: &Shape, fits: &[Fit], top: usize) -> Vec<Ranked> {
        let entry = &self.shapes.entries()[id as usize];
        let ranked = |fit: &Fit| {
            let (cell, worth) = self.nodes.cell(fit.slot);
            let level = self.scorer.score(cell, worth, &entry.ask)?.level;
            let preferred = level.and_then(|level| self.nodes.device_of(fit.slot, cell.levels.get(level)?));
            let state = self.nodes.state(fit.slot)?;
            let plan = fit::plan_preferring(state, shape, preferred.map_or(&[], std::slice::from_ref));
            debug_assert!(plan.is_ok(), "BUG: {} was said to take {}: {plan:?}", state.name, shape);
            Some(Ranked {
                node: state.name.clone(),
                score: fit.score,
                plan: plan.ok()?,
            })
        };
        fits.iter().filter_map(ranked).take(top).collect()
    }
}

fn unknown() -> Refusal {
    Refusal::new(Reason::UnknownNode, "no node of that name is known")
}
