//! New tables for a policy, made off the path of decisions: a job takes a copy of what it needs, works anywhere, and
//! what it made is put in place in one step. It scores every shape at hand on every node, so that no decision pays for
//! new tables.

use std::sync::Arc;

use super::{
    Class, Engine, Index, UNFIT, Weights,
    catalog::{Ask, Kind},
    cell::Cell,
    hash::QuickMap,
    shapes::EntryId,
    total,
    totals::Totals,
};
use crate::{
    PolicyName, Shape,
    mix::Demand,
    policy::Scorer,
    tables::{Extent, Pressure, Prices, Supply, Values},
};

/// Work to be done off the path of decisions. Pure: it may run on any thread.
#[derive(Debug)]
pub struct RebuildJob {
    demand: Vec<Demand>,
    churn: f64,
    coverage: f64,
    scorer: Scorer,
    kinds: Vec<Kind>,
    classes: Vec<Class>,
    totals: Totals,
    cells: Vec<Cell>,
    asks: Vec<(EntryId, Arc<Ask>)>,
    position: u64,
}

/// What a [`RebuildJob`] made.
#[derive(Debug)]
pub struct Tables {
    scorer: Scorer,
    worth: Vec<f64>,
    indexes: Vec<(EntryId, Index)>,
    /// Changes before this position are in the indexes.
    position: u64,
}

/// When to look again.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    /// On the clock of the mix.
    next_mix: f64,
    /// In decisions.
    next_prices: u64,
    /// Kinds that the tables know.
    kinds: usize,
    running: bool,
}

/// The tables reach at least up to here, in thousandths of a core.
const LEAST_CPU: u32 = 128_000;
/// Decisions between two looks at the prices.
const LOOK: u64 = 128;
/// The mix is looked at again when it has grown by this factor, or by this part of its half-life.
const GROWTH: f64 = 1.5;
const OF_HALF_LIFE: f64 = 0.125;

impl Engine {
    /// A pod asks for a place for the first time: the mix learns from it. Call it once per pod.
    pub fn observe(&mut self, shape: &Shape) {
        self.mix.arrived(shape);
    }

    /// A pod was placed, or is found running. Together with [`Engine::ended`] this tells how long shapes stay.
    pub fn started(&mut self, shape: &Shape) {
        self.mix.started(shape);
    }

    /// A pod that [started](Engine::started) is gone.
    pub fn ended(&mut self, shape: &Shape) {
        self.mix.ended(shape);
    }

    /// New tables are due: run the job, on another thread if there is one, and [install](Engine::install) what it makes.
    /// `None` while one is out, and where nothing is due. Cheap enough to be asked after each decision.
    pub fn pending_rebuild(&mut self) -> Option<RebuildJob> {
        let due = self.mix.clock() >= self.schedule.next_mix || self.schedule.kinds != self.nodes.kinds();
        if !due || self.schedule.running || !self.config.policy.is_gradient() {
            return None;
        }
        if self.nodes.kinds() == 0 || self.mix.is_empty() {
            return None;
        }
        let clock = self.mix.clock();
        let soon = (clock * (GROWTH - 1.0)).min(self.config.mix.half_life * OF_HALF_LIFE);
        self.schedule.next_mix = clock + soon.max(1.0).floor();
        self.schedule.kinds = self.nodes.kinds();
        self.schedule.running = true;
        Some(RebuildJob {
            demand: self.mix.demand(),
            churn: self.mix.churn(),
            coverage: self.config.mix.coverage,
            scorer: self.scorer.clone(),
            kinds: self.nodes.catalog().kinds().to_vec(),
            classes: self.nodes.classes().to_vec(),
            totals: self.nodes.totals().clone(),
            cells: self.nodes.cells().map(|(cell, _)| cell.without_memory()).collect(),
            asks: self.shapes.asks(),
            position: self.nodes.log().end(),
        })
    }

    /// Puts new tables in place.
    pub fn install(&mut self, tables: Tables) {
        self.version += 1;
        let scale = self.scorer.scale;
        self.scorer = tables.scorer;
        self.schedule.running = false;
        if self.scorer.scale != scale {
            // A larger node came meanwhile: what the job reckoned is in another measure.
            self.scorer.scale = scale;
            self.nodes.revalue(&self.scorer);
            return;
        }
        self.nodes.install(&tables.worth, tables.position, &self.scorer);
        for (id, index) in tables.indexes {
            self.shapes.install(id, index, tables.position, self.version);
        }
        self.reprice();
    }

    /// The job that is out will never come back: another one may be made.
    pub fn forget_rebuild(&mut self) {
        self.schedule.running = false;
        self.schedule.next_mix = self.mix.clock();
    }

    /// Looks from time to time whether blocks of GPUs became scarcer or less scarce. That concerns few nodes: those that
    /// have such blocks.
    pub(super) fn look_at_prices(&mut self) {
        if self.decisions >= self.schedule.next_prices && self.config.policy == PolicyName::Fragmentation {
            self.schedule.next_prices = self.decisions + LOOK;
            self.reprice();
        }
    }

    fn reprice(&mut self) {
        let Scorer { prices, values, .. } = &self.scorer;
        let renewed = prices.renewed(self.nodes.catalog().kinds(), values, self.nodes.totals());
        if let Some(prices) = renewed {
            self.scorer.prices = Arc::new(prices);
            self.nodes.touch_blocks(&self.scorer);
        }
    }
}

impl RebuildJob {
    /// Milliseconds of work: not for the path of decisions.
    pub fn run(self) -> Tables {
        let mut scorer = self.scorer.clone();
        scorer.values = Arc::new(self.values());
        let supply = Arc::new(Supply::new(self.demand, &self.classes, &self.kinds, &self.totals));
        let Weights {
            block_pressure,
            block_pressure_churn,
            block_exponent,
            ..
        } = scorer.weights;
        let pressure = Pressure {
            price: between(block_pressure, block_pressure_churn, self.churn),
            exponent: block_exponent,
        };
        let prices = Prices::new(supply, &self.kinds, &scorer.values, &self.totals, pressure);
        scorer.prices = Arc::new(prices);
        let alike = Alike::new(&self.cells);
        let worth: Vec<f64> = alike.distinct.iter().map(|cell| scorer.worth(cell)).collect();
        let index = |ask: &Ask| {
            let cells = alike.distinct.iter().zip(&worth);
            let scores: Vec<f64> = cells
                .map(|(cell, worth)| total(scorer.score(cell, *worth, ask)))
                .collect();
            Index::of(alike.spread(&scores).into_iter())
        };
        Tables {
            indexes: self.asks.iter().map(|(id, ask)| (*id, index(ask))).collect(),
            worth: alike.spread(&worth),
            scorer,
            position: self.position,
        }
    }

    fn values(&self) -> Values {
        let Scorer {
            policy, weights, scale, ..
        } = &self.scorer;
        let gradient = *policy == PolicyName::Fragmentation;
        let extent = Extent {
            // Where no node tells its CPU, a large one: CPU then limits nothing.
            cpu: whole(scale.cpu).max(LEAST_CPU),
            gpus: whole(scale.gpu / 1000.0) as usize,
            completion: gradient,
        };
        let weights = Weights {
            // FGD counts a remainder by the share of pods that fit it, as it is.
            liquidity: if gradient { weights.liquidity } else { 1.0 },
            sliver: between(weights.sliver, weights.sliver_churn, self.churn),
            ..weights.clone()
        };
        Values::new(&self.demand, self.coverage, &self.kinds, &weights, extent)
    }
}

fn between(still: f64, churning: f64, churn: f64) -> f64 {
    still + churn * (churning - still)
}

/// Nodes that are the same to a policy are reckoned once.
#[derive(Debug)]
struct Alike<'a> {
    distinct: Vec<&'a Cell>,
    /// By slot, the position in `distinct`.
    of: Vec<usize>,
}

impl<'a> Alike<'a> {
    fn new(cells: &'a [Cell]) -> Self {
        let mut places: QuickMap<&Cell, usize> = QuickMap::default();
        let mut distinct = Vec::new();
        let mut place = |cell: &'a Cell| {
            *places.entry(cell).or_insert_with(|| {
                distinct.push(cell);
                distinct.len() - 1
            })
        };
        let of = cells.iter().map(&mut place).collect();
        Self { distinct, of }
    }

    fn spread(&self, values: &[f64]) -> Vec<f64> {
        self.of
            .iter()
            .map(|at| values.get(*at).copied().unwrap_or(UNFIT))
            .collect()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a scale is a whole number that came from a u32"
)]
fn whole(value: f64) -> u32 {
    value as u32
}
