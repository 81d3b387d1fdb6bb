//! The answer of filter and prioritize, from the engine's.

use std::collections::BTreeSet;

use berth_placement::{Candidates, NodeName, Plan, Refusal, Shape};

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
    /// `avoided` come last.
    pub(super) fn rank(
        &mut self,
        shape: &Shape,
        names: &[&str],
        (held, avoided): (Option<&Held>, &BTreeSet<NodeName>),
        top: usize,
    ) -> Ranking {
        let mut ranking = self.engine.rank_top(shape, names, top.saturating_add(avoided.len()));
        if !avoided.is_empty() {
            let is_avoided = |at: usize| avoided.contains(names[at]);
            let (last, mut fits): (Vec<_>, Vec<_>) = ranking.fits.into_iter().partition(|(at, _)| is_avoided(*at));
            fits.extend(last);
            ranking.fits = fits;
        }
        let position = |held: &Held| names.iter().position(|name| *name == held.node.as_str());
        let best_held = held.and_then(|held| Some((held, position(held)?)));
        if let Some((_, held_at)) = best_held {
            let is_other = |at: usize| at != held_at;
            let score = ranking.fits.first().map_or(0.0, |(_, score)| *score);
            ranking.fits.retain(|(at, _)| is_other(*at));
            ranking.refused.retain(|(at, _)| is_other(*at));
            ranking.fits.insert(0, (held_at, score));
        }
        let refused = ranking.refused.into_iter().map(|(at, refusal)| {
            let node = self
                .by_name
                .get_key_value(names[at])
                .and_then(|(name, _)| self.engine.node(name));
            let eviction_helps = node.is_some_and(|node| eviction::could_help(node, shape));
            Refused {
                at,
                refusal,
                eviction_helps,
            }
        });
        let refused = refused.collect();
        let first = ranking
            .fits
            .first()
            .and_then(|(at, _)| self.by_name.get_key_value(names[*at]));
        let best = match (best_held, first.map(|(name, _)| name.clone())) {
            (Some((held, _)), _) => Some((held.node.clone(), held.plan.clone())),
            (None, Some(name)) => {
                let decision = self
                    .engine
                    .decide(shape, Candidates::Names(std::slice::from_ref(&name)), 1);
                decision
                    .ranked
                    .into_iter()
                    .next()
                    .map(|ranked| (ranked.node, ranked.plan))
            }
            (None, None) => None,
        };
        Ranking {
            fits: ranking.fits.into_iter().map(|(at, _)| at).collect(),
            refused,
            best,
        }
    }
}
