//! A loss system: pods of the trace arrive at random, stay as long as they did, and what does not fit is lost.
//!
//! Nobody published such an experiment on these traces; its protocol is our own. Arrivals are a Poisson process of pods
//! drawn from the trace with repetition; a pod stays for its lifetime in the trace, cut to between [`SHORTEST`] and
//! [`LONGEST`]; the rate makes the offered demand a given part of the cluster's GPUs.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Duration,
};

use berth_placement::{Engine, EngineConfig, NodeName, NodeState, Plan};

use crate::{
    arrivals::capacity,
    driver::{Driver, Latencies, now},
    random::Random,
    trace::Pod,
};

/// Seconds.
pub const SHORTEST: f64 = 60.0;
pub const LONGEST: f64 = 6.0 * 3600.0;
/// Seconds before measuring starts.
pub const WARM_UP: f64 = 12.0 * 3600.0;
/// Seconds of measuring.
pub const MEASURED: f64 = 24.0 * 3600.0;

/// What one run gave.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Mean over the measured time, in per cent of the cluster's GPUs.
    pub allocated: f64,
    /// Offered and lost demand in the measured time, in GPU seconds, by whole GPUs that a pod needs at once.
    pub lost: Vec<Loss>,
    pub latencies: Latencies,
    pub wall: Duration,
}

/// What became of the pods of one size.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loss {
    /// 0: less than one GPU.
    pub gpus: u64,
    pub offered: f64,
    pub lost: f64,
}

/// A pod that runs.
struct Running<'a> {
    until: f64,
    pod: &'a Pod,
    node: NodeName,
    plan: Plan,
}

/// One run at `load` times the cluster's GPUs.
pub fn run(nodes: &[NodeState], pods: &[Pod], config: EngineConfig, load: f64) -> anyhow::Result<Run> {
    let pods: Vec<(&Pod, f64)> = pods
        .iter()
        .filter_map(|pod| Some((pod, pod.lifetime?.clamp(SHORTEST, LONGEST))))
        .collect();
    anyhow::ensure!(
        !pods.is_empty(),
        "the pod list has no lifetimes (creation_time and deletion_time)"
    );
    let per_pod: f64 = pods.iter().map(|(pod, stay)| gpus(pod) * stay).sum::<f64>() / size(pods.len());
    anyhow::ensure!(per_pod > 0.0, "no pod of the list asks for a GPU");
    let all = size(usize::try_from(capacity(nodes))?) / 1000.0;
    let rate = load * all / per_pod;
    let mut random = Random::new(config.seed ^ 0x6465_7061_7274);
    let mut engine = Engine::new(config);
    for node in nodes {
        engine.upsert_node(node.clone());
    }
    let mut driver = Driver::new(engine)?;
    let mut running: BinaryHeap<Reverse<Running<'_>>> = BinaryHeap::new();
    let mut run = Run::default();
    let (mut held, mut area, mut clock) = (0.0, 0.0, 0.0);
    let start = now();
    let end = WARM_UP + MEASURED;
    let mut next = 0.0;
    loop {
        next += -(1.0 - random.unit()).ln() / rate;
        let until = next.min(end);
        while running.peek().is_some_and(|Reverse(gone)| gone.until <= until) {
            let Some(Reverse(gone)) = running.pop() else { break };
            area += held * overlap(clock, gone.until);
            clock = gone.until;
            held -= gpus(gone.pod);
            driver.remove(&gone.node, &gone.pod.shape, &gone.plan);
        }
        area += held * overlap(clock, until);
        clock = until;
        if next >= end {
            break;
        }
        let (pod, stay) = pods[random.below(pods.len())];
        let placed = driver.place(&pod.shape);
        if clock >= WARM_UP {
            run.count(pod, stay, placed.is_none());
        }
        if let Some((node, plan)) = placed {
            held += gpus(pod);
            let until = clock + stay;
            running.push(Reverse(Running { until, pod, node, plan }));
        }
    }
    run.wall = start.elapsed();
    run.allocated = 100.0 * area / (MEASURED * all);
    run.latencies = driver.latencies;
    Ok(run)
}

impl Run {
    fn count(&mut self, pod: &Pod, stay: f64, lost: bool) {
        let gpus_whole = pod.milli / 1000;
        let at = self
            .lost
            .iter()
            .position(|loss| loss.gpus == gpus_whole)
            .unwrap_or_else(|| {
                self.lost.push(Loss {
                    gpus: gpus_whole,
                    ..Loss::default()
                });
                self.lost.len() - 1
            });
        let demand = gpus(pod) * stay;
        self.lost[at].offered += demand;
        self.lost[at].lost += if lost { demand } else { 0.0 };
    }
}

/// The part of a span that is measured.
fn overlap(from: f64, to: f64) -> f64 {
    (to - from.max(WARM_UP)).max(0.0)
}

fn gpus(pod: &Pod) -> f64 {
    size(usize::try_from(pod.milli).unwrap_or(0)) / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn size(count: usize) -> f64 {
    count as f64
}

impl PartialEq for Running<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Running<'_> {}

impl PartialOrd for Running<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Running<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.until.total_cmp(&other.until)
    }
}
