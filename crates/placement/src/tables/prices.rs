//! Scarcity: what it costs to break up blocks of whole GPUs, and to use nodes that only few can use.

use std::sync::Arc;

use super::{MOST_GPUS, Values, block, cpu};
use crate::{
    GpuShape, MemoryBytes, MilliGpu, Shape,
    engine::{
        Class,
        catalog::{Kind, small},
        totals::Totals,
    },
    mix::Demand,
};

/// Scarcity of a block counts at most this much.
const MOST_BLOCK: f64 = 10.0;
/// Scarcity of a class counts at most this much.
const MOST_CLASS: f64 = 5.0;
/// A factor that moved by more than this is worth new tables.
const MOVED: f64 = 0.15;

/// What demand there is, to be compared with what is free.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supply {
    /// By number of GPUs: the share of the demand that needs at least so many on one node.
    needing: [f64; MOST_GPUS + 1],
    /// By class: the demand that depends on it.
    reserve: Vec<f64>,
    demand: Vec<Demand>,
}

/// By number of GPUs, how scarce blocks of so many are.
type Scarcity = [f64; MOST_GPUS + 1];

/// What the policy looks up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prices {
    supply: Arc<Supply>,
    /// [group][rank of CPU][whole GPUs]: what so many whole GPUs on one node are worth more, in GPUs.
    blocks: Vec<Vec<f32>>,
    scarcity: Scarcity,
    pressure: Pressure,
}

/// How much scarcity of blocks counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pressure {
    pub(crate) price: f64,
    pub(crate) exponent: f64,
}

/// Demand in GPUs of one shape, as a share of all.
#[derive(Debug, Clone)]
struct Part<'a> {
    shape: &'a Shape,
    share: f64,
}

/// How shares by memory are compared before a kind is known.
const TYPICAL_MEMORY: MemoryBytes = MemoryBytes::from_gib(40);

fn parts(demand: &[Demand]) -> Vec<Part<'_>> {
    let gpus = |demand: &Demand| demand.popularity * demand.stay * demand.gpus(TYPICAL_MEMORY);
    let all: f64 = demand.iter().map(gpus).sum();
    demand
        .iter()
        .filter(|demand| all > 0.0 && gpus(demand) > 0.0)
        .map(|demand| Part {
            shape: &demand.shape,
            share: gpus(demand) / all,
        })
        .collect()
}

impl Supply {
    pub(crate) fn new(demand: Vec<Demand>, classes: &[Class], kinds: &[Kind], totals: &Totals) -> Self {
        let parts = parts(&demand);
        let mut needing = [0.0; MOST_GPUS + 1];
        for part in &parts {
            let count = block(part.shape).unwrap_or(1);
            for share in needing.iter_mut().take(count.min(MOST_GPUS) + 1) {
                *share += part.share;
            }
        }
        let capacity: Vec<f64> = (0..).zip(classes).map(|(id, _)| totals.capacity_of(id)).collect();
        let all: f64 = capacity.iter().sum();
        let mut reserve = vec![0.0; classes.len()];
        for part in &parts {
            let takes: Vec<bool> = classes
                .iter()
                .map(|class| fits_empty(part.shape, class, kinds))
                .collect();
            let taking = || {
                capacity
                    .iter()
                    .zip(&takes)
                    .filter(|(_, takes)| **takes)
                    .map(|(gpus, _)| gpus)
            };
            let within: f64 = taking().sum();
            if within <= 0.0 {
                continue;
            }
            let rare = 1.0 - within / all;
            for ((reserve, gpus), _) in reserve
                .iter_mut()
                .zip(&capacity)
                .zip(&takes)
                .filter(|(_, takes)| **takes)
            {
                *reserve += part.share * rare * gpus / within;
            }
        }
        Self {
            needing,
            reserve,
            demand,
        }
    }

    fn scarcity(&self, totals: &Totals) -> Scarcity {
        let mut blocks = [0.0; MOST_GPUS + 1];
        for (least, scarcity) in blocks.iter_mut().enumerate().skip(2) {
            *scarcity = ratio(
                self.needing[least],
                totals.free(),
                totals.in_blocks_of(least),
                MOST_BLOCK,
            );
        }
        blocks
    }
}

/// How many times over what is free for it a demand is, compared with all demand and all that is free.
fn ratio(demand: f64, free: f64, free_for_it: f64, most: f64) -> f64 {
    if demand <= 0.0 {
        0.0
    } else if free_for_it <= 0.0 {
        most
    } else {
        (demand * free / free_for_it).min(most)
    }
}

impl Prices {
    pub(crate) fn new(
        supply: Arc<Supply>,
        kinds: &[Kind],
        values: &Values,
        totals: &Totals,
        pressure: Pressure,
    ) -> Self {
        let scarcity = supply.scarcity(totals);
        let parts = parts(&supply.demand);
        let mut of_count = [0.0; MOST_GPUS + 1];
        for part in &parts {
            if let Some(count) = block(part.shape).filter(|count| *count <= MOST_GPUS) {
                of_count[count] += part.share;
            }
        }
        let mut blocks: Vec<Vec<f32>> = Vec::new();
        for (kind, group) in kinds.iter().zip(&values.by_kind) {
            if (*group as usize) < blocks.len() {
                continue;
            }
            let columns = MOST_GPUS + 1;
            let mut table = vec![0.0; (values.thresholds.len() + 1) * columns];
            for part in parts.iter().filter(|part| part.shape.accepts(&kind.model)) {
                let Some(count) = block(part.shape).filter(|count| *count <= MOST_GPUS) else {
                    continue;
                };
                let row = values
                    .thresholds
                    .partition_point(|threshold| *threshold < cpu(part.shape))
                    + 1;
                if row <= values.thresholds.len() {
                    let scarce = scarcity[count].powf(pressure.exponent);
                    table[row * columns + count] += part.share / of_count[count] * pressure.price * scarce;
                }
            }
            super::accumulate(&mut table, columns);
            let worth = table
                .iter()
                .enumerate()
                .map(|(at, price)| ((at % columns) as f64 * price) as f32);
            blocks.push(worth.collect());
        }
        Self {
            supply,
            blocks,
            scarcity,
            pressure,
        }
    }

    /// New prices where some scarcity is no longer what these were made for.
    pub(crate) fn renewed(&self, kinds: &[Kind], values: &Values, totals: &Totals) -> Option<Self> {
        let now = self.supply.scarcity(totals);
        let far = |(new, old): (&f64, &f64)| (new - old).abs() > MOVED * old.abs().max(0.01);
        now.iter()
            .zip(&self.scarcity)
            .any(far)
            .then(|| Self::new(self.supply.clone(), kinds, values, totals, self.pressure))
    }

    /// What so many whole GPUs on one node are worth more together, in GPUs.
    pub(crate) fn block(&self, group: u32, rank: usize, wholes: u32) -> f64 {
        let table = self.blocks.get(group as usize);
        let at = rank * (MOST_GPUS + 1) + (wholes as usize).min(MOST_GPUS);
        table
            .and_then(|table| table.get(at))
            .map_or(0.0, |worth| f64::from(*worth))
    }

    /// How scarce a class is at the moment, compared with the demand that depends on it.
    pub(crate) fn class(&self, class: u32, totals: &Totals) -> f64 {
        let reserve = self.supply.reserve.get(class as usize).copied().unwrap_or(0.0);
        ratio(reserve, totals.free(), totals.free_of(class), MOST_CLASS)
    }
}

/// Whether an empty node of this class takes the shape.
fn fits_empty(shape: &Shape, class: &Class, kinds: &[Kind]) -> bool {
    // The class rounds CPU to fours of cores: half of that may be missing.
    if class.cpu.is_some_and(|fours| fours * 4000 + 2000 < shape.cpu.0) {
        return false;
    }
    let accepted = class.kinds.iter().filter_map(|kind| kinds.get(*kind as usize));
    let accepted = accepted
        .filter(|kind| shape.accepts(&kind.model))
        .filter(|kind| match &shape.gpu {
            GpuShape::Share { size, .. } => {
                let (milli, memory) = size.on(kind.memory);
                milli <= MilliGpu::WHOLE && memory <= kind.memory
            }
            _ => true,
        });
    small(accepted.count()) >= shape.gpu.count()
}
