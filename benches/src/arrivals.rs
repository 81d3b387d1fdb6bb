//! The study's protocol (Weng et al., USENIX ATC'23): pods arrive in random order, past the trace's end as random copies,
//! until their demand is a multiple of what the cluster has. Nobody leaves; each pod is tried once.

use std::time::Duration;

use berth_placement::{Engine, EngineConfig, NodeState};

use crate::{
    driver::{Driver, Latencies, now},
    random::Random,
    trace::Pod,
};

/// Arrived demand, in per cent of the cluster's GPUs, at which is reported.
pub const STEPS: &[u32] = &[50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100, 105, 110, 115, 120, 125, 130];

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
pub fn run(nodes: &[NodeState], pods: &[Pod], config: EngineConfig, arrivals: f64, fragmentation: bool) -> std::io::Result<Run> {
    let capacity = capacity(nodes);
    let sequence = sequence(pods, capacity, arrivals, config.seed);
    let mut engine = Engine::new(config);
    for node in nodes {
        engine.upsert_node(node.clone());
    }
    let mut driver = Driver::new(engine)?;
    let mut run = Run::default();
    let (mut arrived, mut allocated) = (0_u64, 0_u64);
    let mut steps = STEPS.iter().copied().peekable();
    let mut start = now();
    for pod in sequence {
        let before = arrived;
        arrived += pod.milli;
        while steps.peek().is_some_and(|step| arrived * 100 > u64::from(*step) * capacity && before * 100 <= u64::from(*step) * capacity) {
            steps.next();
            run.allocated.push(percent(allocated, capacity));
            if fragmentation {
                let pause = now();
                run.fragmented.push(fragmented(&driver.engine, pods) * 100_000.0 / to_f64(capacity));
                start += pause.elapsed();
            }
        }
        match driver.place(&pod.shape) {
            Some(_) => allocated += pod.milli,
            None => run.failed += 1,
        }
    }
    run.wall = start.elapsed();
    for _ in steps.filter(|step| to_f64(arrived) * 100.0 >= f64::from(*step) * to_f64(capacity)) {
        run.allocated.push(percent(allocated, capacity));
        if fragmentation {
            run.fragmented.push(fragmented(&driver.engine, pods) * 100_000.0 / to_f64(capacity));
        }
    }
    run.latencies = driver.latencies;
    Ok(run)
}

/// Free GPUs that a random pod of the workload cannot use: FGD's F, for all pods of the trace.
fn fragmented(_engine: &Engine, _pods: &[Pod]) -> f64 {
    0.0
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * to_f64(part) / to_f64(whole)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 thousandths")]
fn to_f64(milli: u64) -> f64 {
    milli as f64
}
