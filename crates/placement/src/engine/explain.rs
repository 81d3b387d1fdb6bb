//! For people: what each node says to a shape and what the policy thought; and what a set of shapes would do.

use super::{Candidates, Engine, UNFIT, catalog::Ask, index::kept};
use crate::{NodeName, NodeVerdict, Shape, engine::Ranked, fit, policy::Terms};

/// What one node says to a shape.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeExplanation {
    pub node: NodeName,
    /// 1 is the best; `None` where the shape does not fit. Equals share a rank.
    pub rank: Option<usize>,
    /// The policy's number; `None` where the shape does not fit.
    pub score: Option<f64>,
    /// What the number is made of, with the names that the policy gives: they add up to it.
    pub terms: Terms,
    /// The plan, and each device's verdict.
    pub verdict: NodeVerdict,
}

/// What became of the shapes, in their order: `None` fits nowhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Simulation {
    pub placed: Vec<Option<Ranked>>,
}

impl Engine {
    /// Every node's answer, best first, those that refuse last and by name. Looks at every device: for people, not for
    /// the path of a decision.
    pub fn explain(&self, shape: &Shape) -> Vec<NodeExplanation> {
        let ask = self.ask(shape);
        let mut nodes: Vec<NodeExplanation> = self
            .nodes
            .slots()
            .map(|(slot, state)| {
                let (cell, worth) = self.nodes.cell(slot);
                let score = self.scorer.score(cell, worth, &ask);
                let fee = self.nodes.classes().get(cell.class as usize).map_or(0.0, |class| {
                    self.scorer.fee(&ask, cell.class, class, self.nodes.totals())
                });
                let mut terms = self.scorer.terms(cell, worth, &ask);
                if score.is_some() && fee > 0.0 {
                    terms.push(("class", -fee));
                }
                let preferred = score.and_then(|score| score.level);
                let preferred = preferred.and_then(|level| self.nodes.device_of(slot, cell.levels.get(level)?));
                let mut verdict = fit::explain(state, shape);
                if let (Some(preferred), true) = (preferred, verdict.plan.is_ok()) {
                    verdict.plan = fit::plan_preferring(state, shape, std::slice::from_ref(preferred));
                }
                NodeExplanation {
                    node: state.name.clone(),
                    rank: None,
                    score: score.map(|score| kept(score.total) - fee),
                    terms,
                    verdict,
                }
            })
            .collect();
        nodes.sort_by(|one, other| {
            let by_score = other.score.unwrap_or(UNFIT).total_cmp(&one.score.unwrap_or(UNFIT));
            by_score.then_with(|| one.node.cmp(&other.node))
        });
        let mut last = (0, UNFIT);
        for (place, node) in (1..).zip(&mut nodes) {
            if let Some(score) = node.score {
                if score < last.1 || place == 1 {
                    last = (place, score);
                }
                node.rank = Some(last.0);
            }
        }
        nodes
    }

    /// Places the shapes one after the other on a copy. The engine itself stays as it is.
    pub fn simulate(&self, shapes: &[Shape]) -> Simulation {
        let mut copy = self.clone();
        let place = |shape: &Shape| {
            let best = copy.decide(shape, Candidates::All, 1).ranked.into_iter().next()?;
            copy.take(&best.node, shape, &best.plan).then_some(best)
        };
        Simulation {
            placed: shapes.iter().map(place).collect(),
        }
    }

    /// The shape as policies see it, without keeping it.
    fn ask(&self, shape: &Shape) -> Ask {
        self.nodes.catalog().clone().ask(shape)
    }
}
