//! The answer of filter and prioritize, from the engine's.

use berth_placement::{Candidates, NodeName, Plan, Reason, Refusal, Shape};

use super::Inner;
use crate::{eviction, pods::Held};

/// All named nodes, once each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ranking {
    /// Positions among the names. Best first.
    pub(crate) fits: Vec<usize>,
    /// In the order of the names.
    pub(crate) refused: Vec<Refused>,
    /// The best node, and what the pod would get there.
    pub(crate) best: Option<(NodeName, Plan)>,
}

/// A node that does not take the shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Position among the names.
    pub(crate) at: usize,
    pub(crate) refusal: Refusal,
    /// Evicting pods could make room.
    pub(crate) eviction_helps: bool,
}

impl Inner {
    pub(super) fn rank(&mut self, shape: &Shape, names: &[&str], held: Option<&Held>) -> Ranking {
        let mut known: Vec<NodeName> = Vec::with_capacity(names.len());
        let mut positions = Vec::with_capacity(names.len());
        let mut refused = Vec::new();
        for (at, name) in names.iter().enumerate() {
            if let Some((name, _)) = self.by_name.get_key_value(*name) {
                known.push(name.clone());
                positions.push(at);
            } else {
                let refusal = Refusal::new(Reason::UnknownNode, "no daemon reports a node of that name");
                refused.push(Refused {
                    at,
                    refusal,
                    eviction_helps: false,
                });
            }
        }
        let mut ranking = self.engine.rank(shape, &known);
        let best_held = held.filter(|held| known.contains(&held.node));
        if let Some(held) = best_held {
            let is_other = |at: usize| known.get(at) != Some(&held.node);
            let score = ranking.fits.first().map_or(0.0, |(_, score)| *score);
            ranking.fits.retain(|(at, _)| is_other(*at));
            ranking.refused.retain(|(at, _)| is_other(*at));
            let at = known.iter().position(|name| *name == held.node);
            ranking.fits.splice(0..0, at.map(|at| (at, score)));
        }
        for (at, refusal) in ranking.refused {
            let node = known.get(at).and_then(|name| self.engine.node(name));
            refused.push(Refused {
                at: positions[at],
                refusal,
                eviction_helps: node.is_some_and(|node| eviction::could_help(node, shape)),
            });
        }
        refused.sort_by_key(|it| it.at);
        let best = match (best_held, ranking.fits.first()) {
            (Some(held), _) => Some((held.node.clone(), held.plan.clone())),
            (None, Some((at, _))) => {
                let decision = self.engine.decide(shape, Candidates::Names(&known[*at..=*at]), 1);
                decision
                    .ranked
                    .into_iter()
                    .next()
                    .map(|ranked| (ranked.node, ranked.plan))
            }
            (None, None) => None,
        };
        Ranking {
            fits: ranking.fits.into_iter().map(|(at, _)| positions[at]).collect(),
            refused,
            best,
        }
    }
}
