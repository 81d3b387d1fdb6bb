//! What the gradient policies look up, made from the workload: pure functions of it, made off the path of decisions.
//!
//! Kinds of devices on which the same shapes may run share one [`Group`]. CPU is ranked by the thresholds at which
//! another shape fits; GPU remainders are in hundredths.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "indexes are small, and tables are in single precision on purpose: twice as many fit the cache"
)]

mod completion;
mod prices;
mod sliver;

pub(crate) use self::prices::{Pressure, Prices, Supply};
use crate::{
    GpuShape, MilliGpu, Shape, ShareSize,
    engine::{
        Weights,
        catalog::{Kind, KindId, UNKNOWN_CPU, small},
    },
    mix::Demand,
};

/// Remainders of a GPU: 0, 10, … 1000 thousandths.
pub(crate) const SLOTS: usize = 101;

/// A shape of the workload on devices of one group.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Typical {
    popularity: f64,
    /// Thousandths of a core.
    cpu: u32,
    /// Devices; 0: needs none.
    count: u32,
    /// Thousandths of each device.
    milli: u32,
    whole: bool,
}

/// All tables that do not depend on what is free at the moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values {
    /// Sorted.
    thresholds: Vec<u32>,
    /// By CPU in steps of 2^[`RANK_STEP`]: how many thresholds the step's start reaches.
    ranks: Vec<u32>,
    groups: Vec<Group>,
    by_kind: Vec<u32>,
}

/// For the kinds of devices on which the same shapes may run.
#[derive(Debug, Clone)]
struct Group {
    /// [rank of CPU][hundredth]: the remainder times the share of pods that can use it, to a power. In GPUs.
    liquid: Vec<Liquid>,
    /// [rank of CPU][whole GPUs]: share of pods that want several GPUs and could have them.
    multi: Vec<f32>,
    /// By hundredth: what a remainder will hold in the end. In GPUs.
    holds: [f32; SLOTS],
    completion: completion::Completion,
}

/// By hundredth.
pub(crate) type Liquid = [f32; SLOTS];

/// A step of about half a core: few thresholds fall into one.
const RANK_STEP: u32 = 9;
/// Steps at most: the few nodes with more CPU than that are searched for.
const RANK_STEPS: u32 = 1024;

/// The most GPUs of one node that tables tell apart.
const MOST_GPUS: usize = 16;

/// What decides how much of the tables is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    /// The largest node's CPU, in thousandths of a core.
    pub(crate) cpu: u32,
    /// The largest node's GPUs.
    pub(crate) gpus: usize,
    /// Whether completion is wanted at all.
    pub(crate) completion: bool,
}

impl Values {
    pub(crate) fn new(demand: &[Demand], coverage: f64, kinds: &[Kind], weights: &Weights, extent: Extent) -> Self {
        let typical = typical(demand, coverage);
        // Rare shapes of several GPUs have their prices too, so their thresholds and models tell nodes apart.
        let rare = demand.iter().skip(typical.len()).map(|demand| (&demand.shape, 0.0));
        let shapes: Vec<_> = typical
            .into_iter()
            .chain(rare.filter(|(shape, _)| block(shape).is_some()))
            .collect();
        let mut thresholds: Vec<u32> = shapes.iter().map(|(shape, _)| cpu(shape)).collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        let mut values = Self {
            ranks: ranks(&thresholds),
            thresholds,
            ..Self::default()
        };
        let mut members: Vec<Vec<Typical>> = Vec::new();
        for kind in kinds {
            let on_kind: Vec<Typical> = shapes
                .iter()
                .filter_map(|(shape, share)| on(shape, *share, kind))
                .collect();
            let group = members.iter().position(|other| *other == on_kind).unwrap_or_else(|| {
                values
                    .groups
                    .push(Group::new(&on_kind, &values.thresholds, weights, extent));
                members.push(on_kind);
                members.len() - 1
            });
            values.by_kind.push(small(group));
        }
        values
    }

    /// How many thresholds this much CPU reaches.
    pub(crate) fn rank(&self, cpu: u32) -> usize {
        let step = (cpu >> RANK_STEP) as usize;
        let Some(&start) = self.ranks.get(step) else {
            return self.thresholds.partition_point(|threshold| *threshold <= cpu);
        };
        let rest = self.thresholds.get(start as usize..).unwrap_or_default();
        start as usize + rest.iter().take_while(|threshold| **threshold <= cpu).count()
    }

    /// `None` for a kind that came after the tables.
    pub(crate) fn view(&self, kind: KindId) -> Option<View<'_>> {
        let id = *self.by_kind.get(kind as usize)?;
        self.groups.get(id as usize).map(|group| View { group, id })
    }
}

/// The tables for one kind of devices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    group: &'a Group,
    /// For [`Prices::block`].
    pub(crate) id: u32,
}

impl<'a> View<'a> {
    /// By hundredth: the remainder times the share of pods that can use it, to a power. In GPUs.
    pub(crate) fn liquid(self, rank: usize) -> &'a Liquid {
        &self.group.liquid[rank]
    }

    /// Share of pods that want several GPUs and could have them of `wholes` whole ones.
    pub(crate) fn multi(self, rank: usize, wholes: u32) -> f64 {
        f64::from(self.group.multi[rank * (MOST_GPUS + 1) + (wholes as usize).min(MOST_GPUS)])
    }

    /// What a remainder of this many hundredths will hold in the end, in GPUs.
    pub(crate) fn holds(self, slot: usize) -> f64 {
        f64::from(self.group.holds[slot])
    }

    /// GPUs that a node with this much CPU and this many GPUs will host in the end.
    pub(crate) fn completion(self, cpu: u32, gpus: f64) -> f64 {
        self.group.completion.at(cpu, gpus)
    }
}

/// For [`Values::rank`].
fn ranks(thresholds: &[u32]) -> Vec<u32> {
    let steps = thresholds
        .last()
        .map_or(0, |last| (last >> RANK_STEP) + 2)
        .min(RANK_STEPS);
    let reached =
        |step: u32| thresholds.partition_point(|threshold| u64::from(*threshold) < u64::from(step) << RANK_STEP);
    (0..steps).map(|step| small(reached(step))).collect()
}

/// The commonest shapes that make up `coverage` of all pods, with their shares of these.
fn typical(demand: &[Demand], coverage: f64) -> Vec<(&Shape, f64)> {
    let mut sum = 0.0;
    let common: Vec<&Demand> = demand
        .iter()
        .take_while(|demand| {
            let wanted = sum < coverage;
            sum += demand.popularity;
            wanted
        })
        .collect();
    let covered: f64 = common.iter().map(|demand| demand.popularity).sum();
    common
        .into_iter()
        .map(|demand| (&demand.shape, demand.popularity / covered))
        .collect()
}

fn cpu(shape: &Shape) -> u32 {
    u32::try_from(shape.cpu.0)
        .unwrap_or(UNKNOWN_CPU - 1)
        .min(UNKNOWN_CPU - 1)
}

/// How many whole GPUs a shape wants on one node, where that is more than one.
fn block(shape: &Shape) -> Option<usize> {
    match shape.gpu {
        GpuShape::Whole { count } if count > 1 => Some(count as usize),
        _ => None,
    }
}

/// `None` where the shape does not run on devices of this kind.
fn on(shape: &Shape, popularity: f64, kind: &Kind) -> Option<Typical> {
    if shape.gpu != GpuShape::None && !shape.accepts(&kind.model) {
        return None;
    }
    let (count, milli, whole) = match &shape.gpu {
        GpuShape::None => (0, 0, false),
        GpuShape::Whole { count } => (*count, 1000, true),
        GpuShape::Share { size, count } => (*count, share(*size, kind)?, false),
        GpuShape::Mig { .. } => return None,
    };
    Some(Typical {
        popularity,
        cpu: cpu(shape),
        count,
        milli,
        whole,
    })
}

/// In thousandths, both dimensions; `None` where it is more than the device.
fn share(size: ShareSize, kind: &Kind) -> Option<u32> {
    let (milli, memory) = size.on(kind.memory);
    let larger = milli.max(memory.milli_of(kind.memory));
    (larger <= MilliGpu::WHOLE).then_some(larger.get())
}

impl Typical {
    /// Needs several whole GPUs: a matter of blocks, not of remainders.
    fn several(&self) -> bool {
        self.whole && self.count > 1
    }

    /// Takes a part of one GPU, or one GPU, at a time.
    fn single(&self) -> bool {
        self.count > 0 && !self.several()
    }
}

impl Group {
    fn new(typical: &[Typical], thresholds: &[u32], weights: &Weights, extent: Extent) -> Self {
        let rank = |shape: &Typical| thresholds.partition_point(|threshold| *threshold < shape.cpu) + 1;
        let ranks = thresholds.len() + 1;
        // Counts at the least CPU and the least remainder that will do; sums over both give the tables.
        let mut single = vec![0.0; ranks * SLOTS];
        let mut several = vec![0.0; ranks * (MOST_GPUS + 1)];
        for shape in typical {
            let row = rank(shape).min(ranks - 1);
            if shape.several() {
                if shape.count as usize <= MOST_GPUS {
                    several[row * (MOST_GPUS + 1) + shape.count as usize] += shape.popularity;
                }
            } else if shape.single() {
                single[row * SLOTS + slot_up(shape.milli)] += shape.popularity;
            }
        }
        accumulate(&mut single, SLOTS);
        accumulate(&mut several, MOST_GPUS + 1);
        let liquid = |row: &[f64]| -> Liquid {
            std::array::from_fn(|at| (at as f64 / 100.0 * row[at].powf(weights.liquidity)) as f32)
        };
        Self {
            liquid: single.chunks(SLOTS).map(liquid).collect(),
            multi: several.iter().map(|share| *share as f32).collect(),
            holds: sliver::holds(typical, weights.sliver),
            completion: completion::Completion::new(typical, weights.temper, extent),
        }
    }
}

/// The smallest remainder of the tables that holds this many thousandths.
fn slot_up(milli: u32) -> usize {
    (milli as usize).div_ceil(10).min(SLOTS - 1)
}

/// Prefix sums along both dimensions.
fn accumulate(table: &mut [f64], columns: usize) {
    for row in table.chunks_mut(columns) {
        for at in 1..columns {
            row[at] += row[at - 1];
        }
    }
    for at in columns..table.len() {
        table[at] += table[at - columns];
    }
}
