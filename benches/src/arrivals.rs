//! The study's protocol (Weng et al., USENIX ATC'23): pods arrive in random order, past the trace's end as random copies,
//! until their demand is a multiple of what the cluster has. Nobody leaves; each pod is tried once.

use std::time::Duration;

use berth_placement::{Engine, EngineConfig, NodeState};

use crate::{
    driver::{Driver, Latencies, now},
    fragmentation::Typical,
    random::Random,
    trace::Pod,
};

/// Arrived demand, in per cent of the cluster's GPUs, at which is reported.
pub const STEPS: &[u32] = &[
    50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100, 105, 110, 115, 120, 125, 130,
];

/// What one run gave.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// At each of [`STEPS`] that was reached: allocated GPUs in per cent of the cluster's.
    pub allocated: Vec<f64>,
    /// At each of these: free GPUs that a random pod of the trace could not use, in per cent of the cluster's.
    pub fragmented: Vec<f64>,
    pub latencies: Latencies,
    /// From the first pod to the last, waiting for tables included.
    pub wall: Duration,
    pub failed: usize,
}

/// The pods of one run, in order.
pub fn sequence(pods: &[Pod], capacity_milli: u64, arrivals: f64, seed: u64) -> Vec<&Pod> {
    let mut random = Random::new(seed);
    let mut sequence: Vec<&Pod> = pods.iter().collect();
    random.shuffle(&mut sequence);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 thousandths")]
    let wanted = arrivals * capacity_milli as f64;
    let mut milli: u64 = 0;
    let mut end = 0;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 thousandths")]
    while (milli as f64) < wanted {
        if end == sequence.len() {
            sequence.push(&pods[random.below(pods.len())]);
        }
        milli += sequence[end].milli;
        end += 1;
        if milli == 0 && end > 2 * pods.len() {
            break;
        }
    }
    sequence.truncate(end);
    sequence
}

pub fn capacity(nodes: &[NodeState]) -> u64 {
    nodes.iter().map(|node| 1000 * node.devices.len() as u64).sum()
}

/// One run of the protocol.
pub fn run(nodes: &[NodeState], pods: &[Pod], config: EngineConfig, arrivals: f64) -> std::io::Result<Run> {
    let capacity = capacity(nodes);
    let typical = Typical::of(pods);
    let sequence = sequence(pods, capacity, arrivals, config.seed);
    let mut engine = Engine::new(config);
    for node in nodes {
        engine.upsert_node(node.clone());
    }
    let mut driver = Driver::new(engine)?;
    let mut run = Run::default();
    let (mut arrived, mut allocated) = (0, 0);
    let mut steps = STEPS.iter().copied().peekable();
    let start = now();
    let mut pauses = Duration::ZERO;
    for pod in sequence {
        // A step shows the cluster as it is with the last pod that it still includes.
        while steps
            .next_if(|step| (arrived + pod.milli) * 100 > u64::from(*step) * capacity)
            .is_some()
        {
            let pause = now();
            run.step(&driver.engine, &typical, allocated, capacity);
            pauses += pause.elapsed();
        }
        arrived += pod.milli;
        match driver.place(&pod.shape) {
            Some(_) => allocated += pod.milli,
            None => run.failed += 1,
        }
    }
    run.wall = start.elapsed().saturating_sub(pauses);
    while steps
        .next_if(|step| arrived * 100 >= u64::from(*step) * capacity)
        .is_some()
    {
        run.step(&driver.engine, &typical, allocated, capacity);
    }
    run.latencies = driver.latencies;
    Ok(run)
}

impl Run {
    fn step(&mut self, engine: &Engine, typical: &Typical, allocated: u64, capacity: u64) {
        self.allocated.push(percent(allocated, capacity));
        let unusable = typical.unusable(engine.nodes());
        self.fragmented.push(100_000.0 * unusable / to_f64(capacity));
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * to_f64(part) / to_f64(whole)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 thousandths")]
fn to_f64(milli: u64) -> f64 {
    milli as f64
}
