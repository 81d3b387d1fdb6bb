//! New tables for a policy, made off the path of decisions: a job takes a copy of what it needs, works anywhere, and
//! what it made is put in place in one step. It scores every shape at hand on every node, so that no decision pays for
//! new tables.

use std::{collections::HashMap, sync::Arc};

use super::{
    Class, Engine, Index, UNFIT, Weights,
    catalog::{Ask, Kind},
    cell::Cell,
    shapes::EntryId,
    total,
    totals::Totals,
};
use crate::{
    mix::Demand,
    policy::Scorer,
    tables::{Extent, Prices, Supply, Values},
};

/// Work to be done off the path of decisions. Pure: it may run on any thread.
#[derive(Debug)]
pub struct RebuildJob {
    /// `None`: the workload is what it was, only prices moved.
    demand: Option<Vec<Demand>>,
    coverage: f64,
    scorer: Scorer,
    supply: Arc<Supply>,
    known: Arc<Vec<Demand>>,
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
    pub(super) scorer: Scorer,
    pub(super) supply: Arc<Supply>,
    pub(super) demand: Arc<Vec<Demand>>,
    pub(super) worth: Vec<f64>,
    pub(super) indexes: Vec<(EntryId, Index)>,
    /// Changes before this position are in the indexes.
    pub(super) position: u64,
}

/// When to look again: what the engine keeps between jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    supply: Arc<Supply>,
    demand: Arc<Vec<Demand>>,
    /// On the clock of the mix.
    next_mix: f64,
    /// In decisions.
    next_prices: u64,
    /// Kinds that the tables know.
    kinds: usize,
    running: bool,
}

/// Decisions between two looks at the prices.
const LOOK: u64 = 128;
/// The mix is looked at again when it has grown by this factor, or by this part of its half-life.
const GROWTH: f64 = 1.5;
const OF_HALF_LIFE: f64 = 0.125;

impl Engine {
    /// A pod asks for a place for the first time: the mix learns from it. Call it once per pod.
    pub fn observe(&mut self, shape: &crate::Shape) {
        self.mix.arrived(shape);
    }

    /// A pod was placed, or is found running. Together with [`Engine::ended`] this tells how long shapes stay.
    pub fn started(&mut self, shape: &crate::Shape) {
        self.mix.started(shape);
    }

    /// A pod that [started](Engine::started) is gone.
    pub fn ended(&mut self, shape: &crate::Shape) {
        self.mix.ended(shape);
    }

    /// New tables are due: run the job, on another thread if there is one, and [install](Engine::install) what it makes.
    /// `None` while one is out, and where nothing is due. Cheap enough to be asked after each decision.
    pub fn pending_rebuild(&mut self) -> Option<RebuildJob> {
        if self.schedule.running || !self.scorer.policy.is_gradient() || self.nodes.kinds() == 0 {
            return None;
        }
        let mix_due = self.mix.clock() >= self.schedule.next_mix || self.schedule.kinds != self.nodes.kinds();
        let mix_due = mix_due && !self.mix.is_empty();
        if !mix_due && !self.prices_moved() {
            return None;
        }
        if mix_due {
            let clock = self.mix.clock();
            let soon = (clock * (GROWTH - 1.0)).min(self.config.mix.half_life * OF_HALF_LIFE);
            self.schedule.next_mix = clock + soon.max(1.0).floor();
            self.schedule.kinds = self.nodes.kinds();
        }
        self.schedule.next_prices = self.decisions + LOOK;
        self.schedule.running = true;
        Some(RebuildJob {
            demand: mix_due.then(|| self.mix.demand()),
            coverage: self.config.mix.coverage,
            scorer: self.scorer.clone(),
            supply: self.schedule.supply.clone(),
            known: self.schedule.demand.clone(),
            kinds: self.nodes.catalog().kinds().to_vec(),
            classes: self.nodes.classes().to_vec(),
            totals: self.nodes.totals().clone(),
            cells: self.nodes.cells().map(|(cell, _)| cell.clone()).collect(),
            asks: self.shapes.asks(),
            position: self.nodes.log().end(),
        })
    }

    fn prices_moved(&mut self) -> bool {
        if self.scorer.policy != crate::PolicyName::Fragmentation || self.decisions < self.schedule.next_prices {
            return false;
        }
        self.schedule.next_prices = self.decisions + LOOK;
        let now = self.schedule.supply.scarcity(self.nodes.totals());
        now.moved(self.scorer.prices.scarcity())
    }

    /// Puts new tables in place.
    pub fn install(&mut self, tables: Tables) {
        self.version += 1;
        let scale = self.scorer.scale;
        self.scorer = tables.scorer;
        self.schedule.supply = tables.supply;
        self.schedule.demand = tables.demand;
        self.schedule.running = false;
        if self.scorer.scale != scale {
            // A larger node came meanwhile: what the job reckoned is in another measure.
            self.scorer.scale = scale;
            self.nodes.revalue(&self.scorer);
            return;
        }
        self.nodes.install(tables.worth, tables.position, &self.scorer);
        for (id, index) in tables.indexes {
            self.shapes.install(id, index, tables.position, self.version);
        }
    }
}

impl RebuildJob {
    /// Milliseconds of work: not for the path of decisions.
    pub fn run(self) -> Tables {
        let mut scorer = self.scorer;
        let mut supply = self.supply;
        let known = match self.demand {
            Some(demand) => {
                let gradient = scorer.policy == crate::PolicyName::Fragmentation;
                let extent = Extent {
                    cpu: whole(scorer.scale.cpu),
                    gpus: whole(scorer.scale.gpu / 1000.0) as usize,
                    completion: gradient,
                };
                // FGD counts a remainder by the share of pods that fit it, as it is.
                let liquidity = if gradient { scorer.weights.liquidity } else { 1.0 };
                let weights = Weights {
                    liquidity,
                    ..scorer.weights.clone()
                };
                scorer.values = Arc::new(Values::new(&demand, self.coverage, &self.kinds, &weights, extent));
                supply = Arc::new(Supply::new(&demand, &self.classes, &self.kinds, &self.totals));
                Arc::new(demand)
            }
            None => self.known,
        };
        let scarcity = supply.scarcity(&self.totals);
        scorer.prices = Arc::new(Prices::new(&known, &self.kinds, &scorer.values, scarcity, &scorer.weights));
        let alike = Alike::new(&self.cells);
        let worth: Vec<f64> = alike.distinct.iter().map(|cell| scorer.worth(cell)).collect();
        let index = |ask: &Ask| {
            let scores: Vec<f64> = alike
                .distinct
                .iter()
                .zip(&worth)
                .map(|(cell, worth)| total(scorer.score(cell, *worth, ask)))
                .collect();
            Index::of(alike.spread(&scores))
        };
        Tables {
            indexes: self.asks.iter().map(|(id, ask)| (*id, index(ask))).collect(),
            worth: alike.spread(&worth),
            scorer,
            supply,
            demand: known,
            position: self.position,
        }
    }
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
        let mut places: HashMap<&Cell, usize> = HashMap::new();
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
        self.of.iter().map(|at| values.get(*at).copied().unwrap_or(UNFIT)).collect()
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
