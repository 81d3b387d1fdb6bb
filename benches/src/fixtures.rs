//! Made-up clusters and workloads of any size, for benches and tests.

use berth_placement::{CpuMilli, Engine, GpuShape, MemoryBytes, MilliGpu, NodeName, NodeState, Plan, Shape};

use crate::{driver::Driver, random::Random, trace::device};

/// `count` nodes of eight H100, 224 cores and 2 TiB.
pub fn dgx(count: usize) -> anyhow::Result<Vec<NodeState>> {
    (0..count).map(|at| node(&format!("dgx-{at:05}"))).collect()
}

fn node(name: &str) -> anyhow::Result<NodeState> {
    let name: NodeName = name.parse()?;
    let model = "H100".parse()?;
    let devices = (0..8).map(|index| device(&name, index, &model));
    let devices = devices.collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::msg)?;
    let cpu = Some(CpuMilli(224_000));
    Ok(NodeState {
        cpu_free: cpu,
        cpu_total: cpu,
        memory_free: Some(MemoryBytes::from_gib(2048)),
        ..NodeState::of_devices(name, 1, devices)
    })
}

/// Function pods of many sizes: shares, whole GPUs, few of several GPUs. Each with its share of all pods.
pub fn shapes() -> anyhow::Result<Vec<(Shape, f64)>> {
    let mut shapes = Vec::new();
    let mut add = |gpu: GpuShape, cpu: u64, weight: f64| {
        let shape = Shape {
            cpu: CpuMilli(cpu),
            ..Shape::gpu(gpu)
        };
        shapes.push((shape, weight));
    };
    for cpu in [4_000, 8_000, 12_000, 16_000] {
        for milli in [100, 125, 200, 250, 330, 400, 500, 600, 750, 810] {
            add(GpuShape::share(Some(MilliGpu::new(milli)), None, 1)?, cpu, 1.0);
        }
        add(GpuShape::whole(1)?, cpu, 10.0);
        add(GpuShape::whole(2)?, 2 * cpu, 2.0);
        add(GpuShape::whole(4)?, 4 * cpu, 1.0);
        add(GpuShape::None, cpu, 3.0);
    }
    add(GpuShape::whole(8)?, 96_000, 1.0);
    Ok(shapes)
}

/// One of these shapes.
pub fn draw<'a>(shapes: &'a [(Shape, f64)], random: &mut Random) -> &'a Shape {
    let all: f64 = shapes.iter().map(|(_, weight)| weight).sum();
    let mut left = random.unit() * all;
    let found = shapes.iter().find(|(_, weight)| {
        left -= weight;
        left < 0.0
    });
    &found.unwrap_or(&shapes[shapes.len() - 1]).0
}

/// A cluster in use: pods come and go at a level of about nine tenths.
#[derive(Debug)]
pub struct Busy {
    pub driver: Driver,
    pub shapes: Vec<(Shape, f64)>,
    pub random: Random,
    running: Vec<(NodeName, Shape, Plan)>,
}

impl Busy {
    /// Fills an engine up to nine tenths of its GPUs.
    pub fn new(mut engine: Engine, nodes: Vec<NodeState>, seed: u64) -> anyhow::Result<Self> {
        let gpus: usize = nodes.iter().map(|node| node.devices.len()).sum();
        for node in nodes {
            engine.upsert_node(node);
        }
        let mut busy = Self {
            driver: Driver::new(engine)?,
            shapes: shapes()?,
            random: Random::new(seed),
            running: Vec::new(),
        };
        let mut milli = 0;
        while milli < gpus * 900 {
            let shape = draw(&busy.shapes, &mut busy.random).clone();
            let Some((node, plan)) = busy.driver.place(&shape) else {
                break;
            };
            milli += demand(&shape);
            busy.running.push((node, shape, plan));
        }
        Ok(busy)
    }

    /// One pod leaves and another one comes: the decision is in the driver's latencies.
    pub fn step(&mut self) {
        if !self.running.is_empty() {
            let gone = self.random.below(self.running.len());
            let (node, shape, plan) = self.running.swap_remove(gone);
            self.driver.remove(&node, &shape, &plan);
        }
        let shape = draw(&self.shapes, &mut self.random).clone();
        if let Some((node, plan)) = self.driver.place(&shape) {
            self.running.push((node, shape, plan));
        }
    }
}

/// Thousandths of GPUs.
fn demand(shape: &Shape) -> usize {
    match &shape.gpu {
        GpuShape::Whole { count } => 1000 * *count as usize,
        GpuShape::Share { size, count } => *count as usize * size.on(MemoryBytes::from_gib(32)).0.get() as usize,
        GpuShape::None | GpuShape::Mig { .. } => 0,
    }
}
