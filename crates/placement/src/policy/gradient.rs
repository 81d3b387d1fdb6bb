//! The gradient policies: what a node is worth before and after a placement.
//!
//! `fgd`: worth = Σ v·fit(c,v) + f·fit_several(c,f): by Weng et al. (USENIX ATC'23) the GPUs that a random next pod could
//! use; its gradient is theirs, without their rounding to whole numbers.
//!
//! `fragmentation` (completion-value gradient): worth = Σ v·fit(c,v)^liquidity + completion(c, Σ holds(v)) + blocks(c,f):
//! what the node can still become. Both take off a small best-fit term, and `fragmentation` the price of the class.

use super::{Score, Scorer, Terms};
use crate::{
    PolicyName,
    engine::{
        catalog::{Ask, Form, KindId, UNKNOWN_CPU},
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
    /// Of the first level's kind: what a node is completed with, and its blocks. Nodes of several kinds are rare.
    view: View<'a>,
    kind: KindId,
    cpu: u32,
    rank: usize,
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
        let kind = cell.levels.first()?.kind;
        let mut rest = Self {
            scorer,
            view: scorer.values.view(kind)?,
            kind,
            cpu,
            rank: scorer.values.rank(cpu),
            liquid: 0.0,
            holds: 0.0,
            wholes: cell.wholes,
        };
        let row = rest.view.liquid(rest.rank);
        for level in &cell.levels {
            let (view, row) = if level.kind == kind {
                (rest.view, row)
            } else {
                let view = rest.view_of(level);
                (view, view.liquid(rest.rank))
            };
            let (count, slot) = (f64::from(level.count), slot(level));
            rest.liquid += count * f64::from(row[slot]);
            rest.holds += count * holds(view, slot, level.whole);
        }
        Some(rest)
    }

    fn view_of(&self, level: &Level) -> View<'a> {
        if level.kind == self.kind {
            return self.view;
        }
        self.scorer.values.view(level.kind).unwrap_or(self.view)
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

    /// A share of one device of a level goes.
    fn take_share(&mut self, level: &Level, ask: &Ask) {
        let view = self.view_of(level);
        let left = usize::from(level.effective).saturating_sub(ask.need(level.kind).effective as usize);
        let (before, after) = (slot(level), left / 10);
        let row = view.liquid(self.rank);
        self.liquid += f64::from(row[after]) - f64::from(row[before]);
        self.holds += holds(view, after, false) - holds(view, before, level.whole);
        self.wholes -= u32::from(level.whole);
    }

    /// Whole devices of a level go.
    fn take_wholes(&mut self, level: &Level, count: u32) {
        let (view, gone) = (self.view_of(level), f64::from(count));
        self.liquid -= gone * f64::from(view.liquid(self.rank)[slot(level)]);
        self.holds -= gone * view.holds(SLOTS - 1);
        self.wholes = self.wholes.saturating_sub(count);
    }

    /// Several devices go, as the node itself would choose: healthy ones first, the fullest first.
    fn take_several(&mut self, cell: &Cell, ask: &Ask) {
        let mut missing = ask.count;
        for suspect in [false, true] {
            for level in cell
                .levels
                .iter()
                .filter(|level| level.suspect == suspect && level.takes(ask))
            {
                let count = missing.min(u32::from(level.count));
                missing -= count;
                if ask.form == Form::Whole {
                    self.take_wholes(level, count);
                } else {
                    (0..count).for_each(|_| self.take_share(level, ask));
                }
            }
        }
    }
}

pub(super) fn worth(scorer: &Scorer, cell: &Cell) -> f64 {
    Rest::new(scorer, cell, cell.cpu).map_or(0.0, |rest| rest.worth().total())
}

pub(super) fn score(scorer: &Scorer, cell: &Cell, worth: f64, ask: &Ask, offer: Offer) -> Score {
    let (after, level) = best_after(scorer, cell, ask, offer);
    Score {
        total: after.total() - worth - pack(scorer, cell, ask),
        level,
    }
}

/// The parts of [`score`], for people.
pub(super) fn terms(scorer: &Scorer, cell: &Cell, ask: &Ask, offer: Offer) -> Terms {
    let before = Rest::new(scorer, cell, cell.cpu).map_or_else(Worth::default, |rest| rest.worth());
    let (after, _) = best_after(scorer, cell, ask, offer);
    let mut terms = vec![
        ("liquidity", after.liquid - before.liquid),
        ("blocks", after.blocks - before.blocks),
        ("pack", -pack(scorer, cell, ask)),
    ];
    if scorer.policy == PolicyName::Fragmentation {
        terms.push(("completion", after.completion - before.completion));
    }
    terms
}

/// The node with the shape on it, and the level of the device: the best, where the policy may choose.
fn best_after(scorer: &Scorer, cell: &Cell, ask: &Ask, offer: Offer) -> (Worth, Option<usize>) {
    let cpu = if cell.cpu == UNKNOWN_CPU {
        UNKNOWN_CPU
    } else {
        cell.cpu - ask.cpu
    };
    let Some(mut rest) = Rest::new(scorer, cell, cpu) else {
        return (Worth::default(), None);
    };
    match ask.form {
        Form::None | Form::Mig(_) => (rest.worth(), None),
        Form::Share if ask.count == 1 => {
            let untouched = (rest.liquid, rest.holds, rest.wholes);
            let (mut most, mut best, mut chosen) = (f64::NEG_INFINITY, Worth::default(), None);
            for (at, level) in cell.levels.iter().enumerate() {
                if level.suspect != (offer.suspects > 0) || !level.takes(ask) {
                    continue;
                }
                (rest.liquid, rest.holds, rest.wholes) = untouched;
                rest.take_share(level, ask);
                let worth = rest.worth();
                if worth.total() > most {
                    (most, best, chosen) = (worth.total(), worth, Some(at));
                }
            }
            (best, chosen)
        }
        Form::Whole | Form::Share => {
            rest.take_several(cell, ask);
            (rest.worth(), None)
        }
    }
}

/// Small, and only to tell equals apart: the fuller node.
fn pack(scorer: &Scorer, cell: &Cell, ask: &Ask) -> f64 {
    let cpu = if cell.cpu == UNKNOWN_CPU {
        0.0
    } else {
        f64::from(cell.cpu - ask.cpu)
    };
    scorer.weights.pack * (0.5 * cpu / scorer.scale.cpu + 0.5 * f64::from(cell.free) / scorer.scale.gpu)
}

/// What the shape takes of a node of a kind, in GPUs: CPU counts half.
pub(super) fn size(ask: &Ask, kind: Option<KindId>) -> f64 {
    let milli = kind.map_or(0, |kind| ask.need(kind).effective.min(1000));
    f64::from(milli * ask.count) / 1000.0 + 0.5 * f64::from(ask.cpu) / CPU_PER_GPU
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        Candidates, CpuMilli, Engine, EngineConfig, GpuShape, MilliGpu, MixConfig, NodeState, PolicyName, Room, Shape,
        Weights, testing,
    };

    fn pod(cpu: u64, gpu: GpuShape) -> Shape {
        Shape {
            cpu: CpuMilli(cpu * 1000),
            ..Shape::gpu(gpu)
        }
    }

    fn share(milli: u32) -> GpuShape {
        GpuShape::share(Some(MilliGpu::new(milli)), None, 1).unwrap()
    }

    /// FGD's F in GPUs, as the paper defines it: free GPUs of the node that a random pod cannot use.
    fn fragmentation(node: &NodeState, mix: &[(Shape, f64)]) -> f64 {
        let all: f64 = mix.iter().map(|(_, weight)| weight).sum();
        let free = |least: u32| -> Vec<f64> {
            let free = node.devices.iter().map(|device| device.free.milli.get());
            free.filter(|milli| *milli >= least)
                .map(|milli| f64::from(milli) / 1000.0)
                .collect()
        };
        let total: f64 = free(0).iter().sum();
        mix.iter()
            .map(|(shape, weight)| {
                let usable = match &shape.gpu {
                    _ if node.cpu_free.unwrap() < shape.cpu => Vec::new(),
                    GpuShape::Whole { count } if free(1000).len() >= *count as usize => free(1000),
                    GpuShape::Share { size, .. } => free(size.on(node.devices[0].memory).0.get()),
                    _ => Vec::new(),
                };
                weight / all * (total - usable.iter().sum::<f64>())
            })
            .sum()
    }

    proptest! {
        #[test]
        fn the_fgd_score_is_the_gradient_of_the_papers_fragmentation(
            free in prop::collection::vec(0_u32..=100, 1..5),
            cores in 0_u64..40,
            asked in 0_usize..6,
        ) {
            let mix = [
                (pod(8, share(470)), 3.0),
                (pod(4, share(200)), 2.0),
                (pod(12, GpuShape::whole(1).unwrap()), 4.0),
                (pod(24, GpuShape::whole(2).unwrap()), 1.0),
                (pod(10, GpuShape::None), 2.0),
                (pod(2, share(810)), 0.5),
            ];
            let mut node = testing::node("a", u32::try_from(free.len()).unwrap());
            node.cpu_free = Some(CpuMilli(cores * 1000));
            for (device, hundredths) in node.devices.iter_mut().zip(&free) {
                let milli = MilliGpu::new(hundredths * 10);
                device.free = Room { milli, memory: milli.memory_of(device.memory) };
            }
            let mut engine = Engine::new(EngineConfig {
                policy: PolicyName::Fgd,
                weights: Weights { pack: 0.0, ..Weights::default() },
                mix: MixConfig { known: mix.to_vec(), learn: false, coverage: 1.0, ..MixConfig::default() },
                ..EngineConfig::default()
            });
            engine.upsert_node(node.clone());
            engine.install(engine.clone().pending_rebuild().unwrap().run());
            let shape = &mix[asked].0;
            let Some(best) = engine.decide(shape, Candidates::All, 1).ranked.into_iter().next() else { return Ok(()) };
            let mut after = node.clone();
            prop_assert!(after.take(&best.plan));
            after.cpu_free = Some(CpuMilli(node.cpu_free.unwrap().0 - shape.cpu.0));
            let taken: f64 = best.plan.grants.iter().map(|grant| f64::from(grant.room(node.devices[0].memory).milli.get()) / 1000.0).sum();
            let gradient = fragmentation(&node, &mix) - fragmentation(&after, &mix);
            prop_assert!((best.score + taken - gradient).abs() < 1e-4, "{} {taken} {gradient}", best.score);
        }
    }
}
