//! The workload as it is seen: which shapes are asked for, how often, and how long they stay.
//!
//! Its clock is the number of pods seen. Host memory is left out: it does not tell shapes apart here.

use crate::{
    GpuShape, MemoryBytes, Shape,
    engine::{MixConfig, hash::QuickMap},
};

/// At most this many shapes are remembered; past it the half with the least weight is forgotten.
const MOST: usize = 8192;
/// Weights are scaled down before they grow past this.
const LARGE: f64 = 1e12;
/// How many departures must speak before a shape's own lifetime counts more than the average one.
const PRIOR: f64 = 4.0;

/// What is known of one shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) shape: Shape,
    /// Decayed number of pods that asked for it.
    weight: f64,
    /// Pods of it that run.
    running: f64,
    /// Pods running, summed over the clock up to `since`, decayed.
    exposure: f64,
    since: f64,
    /// Decayed number of pods that ended.
    ended: f64,
}

/// One shape's part in the workload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Demand {
    pub(crate) shape: Shape,
    /// Share of all pods.
    pub(crate) popularity: f64,
    /// How long it stays, in the average pod's.
    pub(crate) stay: f64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Mix {
    seen: Vec<Seen>,
    ids: QuickMap<Shape, usize>,
    /// What one more pod weighs: grows, so that what came before shrinks.
    unit: f64,
    growth: f64,
    clock: f64,
    learn: bool,
    /// Decayed numbers of pods that were placed, and of those that left.
    started: f64,
    ended: f64,
}

impl Mix {
    pub(crate) fn new(config: &MixConfig) -> Self {
        let mut mix = Self {
            unit: 1.0,
            growth: (0.5_f64).powf(-1.0 / config.half_life.max(1.0)),
            learn: config.learn,
            ..Self::default()
        };
        for (shape, pods) in config.known.iter().filter(|(_, pods)| *pods > 0.0 && pods.is_finite()) {
            let id = mix.id(shape);
            mix.seen[id].weight += pods;
        }
        mix
    }

    /// How many pods were observed.
    pub(crate) fn clock(&self) -> f64 {
        self.clock
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// A pod asks for a place, for the first time.
    pub(crate) fn arrived(&mut self, shape: &Shape) {
        if !self.learn {
            return;
        }
        self.clock += 1.0;
        self.unit *= self.growth;
        let unit = self.unit;
        let id = self.id(shape);
        self.seen[id].weight += unit;
        if self.unit > LARGE {
            self.rescale();
        }
        if self.seen.len() > MOST {
            self.forget();
        }
    }

    /// A pod was placed.
    pub(crate) fn started(&mut self, shape: &Shape) {
        self.run(shape, 1.0);
    }

    /// A pod that was placed is gone.
    pub(crate) fn ended(&mut self, shape: &Shape) {
        self.run(shape, -1.0);
    }

    fn run(&mut self, shape: &Shape, pods: f64) {
        if !self.learn {
            return;
        }
        let (id, clock, unit) = (self.id(shape), self.clock, self.unit);
        let seen = &mut self.seen[id];
        seen.exposure += seen.running * (clock - seen.since) * unit;
        seen.since = clock;
        seen.running = (seen.running + pods).max(0.0);
        if pods < 0.0 {
            seen.ended += unit;
            self.ended += unit;
        } else {
            self.started += unit;
        }
    }

    /// How many pods leave for each one that is placed, at most one: 0 while the cluster only fills.
    pub(crate) fn churn(&self) -> f64 {
        if self.started > 0.0 {
            (self.ended / self.started).min(1.0)
        } else {
            0.0
        }
    }

    /// All shapes, the commonest first, with shares that add up to one.
    pub(crate) fn demand(&self) -> Vec<Demand> {
        let total: f64 = self.seen.iter().map(|seen| seen.weight).sum();
        let exposure = |seen: &Seen| seen.exposure + seen.running * (self.clock - seen.since) * self.unit;
        let ended: f64 = self.seen.iter().map(|seen| seen.ended).sum();
        let exposed: f64 = self.seen.iter().map(exposure).sum();
        // Departures per pod and tick. While nobody leaves all stay equally long.
        let rate = if exposed > 0.0 { ended / exposed } else { 0.0 };
        let prior = PRIOR * self.unit;
        let mut demand: Vec<Demand> = self
            .seen
            .iter()
            .filter(|seen| seen.weight > 0.0)
            .map(|seen| Demand {
                shape: seen.shape.clone(),
                popularity: seen.weight / total,
                stay: (exposure(seen) * rate + prior) / (seen.ended + prior),
            })
            .collect();
        demand.sort_by(|one, other| {
            let by_share = other.popularity.total_cmp(&one.popularity);
            by_share.then_with(|| one.shape.cmp(&other.shape))
        });
        demand
    }

    fn id(&mut self, shape: &Shape) -> usize {
        if let Some(id) = self.ids.get(shape) {
            return *id;
        }
        let plain = Shape {
            memory: MemoryBytes::ZERO,
            ..shape.clone()
        };
        let id = self.ids.get(&plain).copied().unwrap_or(self.seen.len());
        if id == self.seen.len() {
            self.seen.push(Seen {
                shape: plain.clone(),
                weight: 0.0,
                running: 0.0,
                exposure: 0.0,
                since: self.clock,
                ended: 0.0,
            });
            self.ids.insert(plain, id);
        }
        // The shape as it is asked for finds its place without a copy next time.
        self.ids.insert(shape.clone(), id);
        id
    }

    fn rescale(&mut self) {
        let unit = std::mem::replace(&mut self.unit, 1.0);
        self.started /= unit;
        self.ended /= unit;
        for seen in &mut self.seen {
            seen.weight /= unit;
            seen.exposure /= unit;
            seen.ended /= unit;
        }
    }

    fn forget(&mut self) {
        self.seen.sort_by(|one, other| {
            let by_use = other.running.total_cmp(&one.running);
            other.weight.total_cmp(&one.weight).then(by_use)
        });
        self.seen.truncate(MOST / 2);
        self.ids = self
            .seen
            .iter()
            .enumerate()
            .map(|(at, seen)| (seen.shape.clone(), at))
            .collect();
    }
}

impl Demand {
    /// GPUs that a pod of this shape takes, where a share by memory is reckoned at `whole` bytes per GPU.
    pub(crate) fn gpus(&self, whole: MemoryBytes) -> f64 {
        let count = f64::from(self.shape.gpu.count());
        match &self.shape.gpu {
            GpuShape::None | GpuShape::Mig { .. } => 0.0,
            GpuShape::Whole { .. } => count,
            GpuShape::Share { size, .. } => count * f64::from(size.on(whole).0.get().min(1000)) / 1000.0,
        }
    }
}
