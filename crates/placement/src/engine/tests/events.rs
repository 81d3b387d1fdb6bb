//! Whatever happens in whatever order: an incremental decision is what a full evaluation says, and none takes what is
//! not free or not allowed.

use proptest::prelude::*;

use super::*;
use crate::engine::index::kept;
use crate::{
    ComputeMode, MemoryBytes, MigSlot, Room,
    engine::{catalog::Catalog, cell::Cell},
    fit,
};

#[derive(Debug, Clone)]
enum Event {
    /// A node in a new state.
    Upsert {
        name: u8,
        devices: Vec<Device>,
        cores: Option<u8>,
    },
    Remove {
        name: u8,
    },
    /// A pod comes: is decided on, checked, and stays.
    Pod {
        shape: usize,
    },
    /// One of the pods goes.
    Gone {
        which: usize,
    },
    /// New tables are asked for, and come a while later.
    Rebuild,
    Install,
}

#[derive(Debug, Clone)]
struct Device {
    model: u8,
    state: u8,
    used: u8,
}

fn device() -> impl Strategy<Value = Device> {
    (0_u8..2, 0_u8..12, 0_u8..4).prop_map(|(model, state, used)| Device { model, state, used })
}

fn shape() -> impl Strategy<Value = Shape> {
    let milli = prop::sample::select(vec![100_u32, 250, 333, 470, 500, 810]);
    let gpu = prop_oneof![
        1 => Just(GpuShape::None),
        4 => (1_u32..5).prop_map(|count| GpuShape::whole(count).unwrap()),
        6 => (milli, 1_u32..3).prop_map(|(milli, count)| GpuShape::share(Some(MilliGpu::new(milli)), None, count).unwrap()),
        2 => (1_u64..70).prop_map(|gib| GpuShape::share(None, Some(MemoryBytes::from_gib(gib)), 1).unwrap()),
        2 => (1_u32..4).prop_map(|count| GpuShape::mig("1g.10gb".parse().unwrap(), count).unwrap()),
    ];
    (gpu, 0_u64..5, prop::option::weighted(0.3, 0_u8..2)).prop_map(|(gpu, cores, model)| {
        let shape = Shape {
            cpu: CpuMilli(cores * 4000),
            memory: MemoryBytes::from_gib(cores * 8),
            ..Shape::gpu(gpu)
        };
        shape.with_models(model.map(|model| MODELS[usize::from(model)].parse().unwrap()))
    })
}

fn event() -> impl Strategy<Value = Event> {
    let upsert = (
        0_u8..8,
        prop::collection::vec(device(), 0..5),
        prop::option::of(1_u8..20),
    );
    prop_oneof![
        3 => upsert.prop_map(|(name, devices, cores)| Event::Upsert { name, devices, cores }),
        1 => (0_u8..8).prop_map(|name| Event::Remove { name }),
        24 => any::<usize>().prop_map(|shape| Event::Pod { shape }),
        8 => any::<usize>().prop_map(|which| Event::Gone { which }),
        2 => Just(Event::Rebuild),
        2 => Just(Event::Install),
    ]
}

const MODELS: [&str; 2] = ["H100", "L40S"];

fn node(name: u8, devices: &[Device], cores: Option<u8>) -> NodeState {
    let name = format!("n{name}");
    let devices = (0..)
        .zip(devices)
        .map(|(index, device)| gpu(&name, index, device))
        .collect();
    let cpu = cores.map(|cores| CpuMilli(u64::from(cores) * 4000));
    NodeState {
        cpu_free: cpu,
        cpu_total: cpu,
        memory_free: cores.map(|cores| MemoryBytes::from_gib(u64::from(cores) * 10)),
        ..NodeState::of_devices(name.parse().unwrap(), 1, devices)
    }
}

fn gpu(node: &str, index: u32, device: &Device) -> crate::DeviceState {
    let mut gpu = testing::device(node, index, &MODELS[usize::from(device.model)].parse().unwrap());
    match device.state {
        0 => gpu.health = Health::Unhealthy,
        1 => gpu.health = Health::Recovering,
        2 | 3 => gpu.health = Health::Suspect,
        4 => gpu.schedulable = false,
        5 => gpu.out_of_band = true,
        6 => gpu.compute_mode = ComputeMode::ExclusiveProcess,
        7 => {
            let slot = |at: u8| MigSlot {
                uuid: format!("MIG-{node}-{index}-{at}").parse().unwrap(),
                profile: "1g.10gb".parse().unwrap(),
                memory: MemoryBytes::from_gib(10),
                free: at >= device.used,
            };
            gpu.mig = Some((0..4).map(slot).collect());
        }
        _ => {
            let milli = MilliGpu::new(1000 - 250 * u32::from(device.used));
            gpu.free = Room {
                milli,
                memory: milli.memory_of(gpu.memory),
            };
        }
    }
    gpu
}

/// Every node's score from its state alone, in the order of the engine's nodes.
fn in_full(engine: &Engine, shape: &Shape) -> Vec<(NodeName, Option<f64>)> {
    let mut catalog: Catalog = engine.nodes.catalog().clone();
    let ask = catalog.ask(shape);
    engine
        .nodes
        .slots()
        .map(|(slot, state)| {
            let class = engine.nodes.cell(slot).0.class;
            let kinds: Vec<_> = state.devices.iter().map(|device| catalog.kind(device)).collect();
            let cell = Cell::of(state, class, &kinds, &mut catalog);
            let score = engine.scorer.score(&cell, engine.scorer.worth(&cell), &ask);
            let fee = engine.scorer.fee(
                &ask,
                class,
                &engine.nodes.classes()[class as usize],
                engine.nodes.totals(),
            );
            assert_eq!(score.is_some(), fit::plan(state, shape).is_ok(), "{shape} on {state:?}");
            (state.name.clone(), score.map(|score| kept(score.total) - fee))
        })
        .collect()
}

/// The best node is one of the best of a full evaluation, and the whole ranking has its scores.
fn check(engine: &mut Engine, shape: &Shape) -> Option<Ranked> {
    let decision = engine.decide(shape, Candidates::All, 1);
    let full = in_full(engine, shape);
    let top = full
        .iter()
        .filter_map(|(_, score)| *score)
        .fold(f64::NEG_INFINITY, f64::max);
    let fitting = full.iter().filter(|(_, score)| score.is_some()).count();
    assert_eq!(decision.fitting, fitting);
    let ranked = engine.decide(shape, Candidates::All, usize::MAX).ranked;
    assert_eq!(ranked.len(), fitting);
    // From time to time a decision begins with new prices.
    let full = in_full(engine, shape);
    for one in &ranked {
        let expected = full
            .iter()
            .find(|(name, _)| *name == one.node)
            .and_then(|(_, score)| *score);
        assert_eq!(
            expected.map(f64::to_bits),
            Some(one.score.to_bits()),
            "{shape} on {}",
            one.node
        );
    }
    assert!(ranked.windows(2).all(|pair| pair[0].score >= pair[1].score));
    let names: Vec<NodeName> = full.iter().map(|(name, _)| name.clone()).collect();
    let named = engine.rank(shape, &names);
    assert_eq!(
        (named.fits.len(), named.refused.len()),
        (fitting, names.len() - fitting)
    );
    let best = decision.ranked.into_iter().next()?;
    assert_eq!(best.score.to_bits(), top.to_bits());
    Some(best)
}

/// Each device that a plan takes could take its part, and all of it together is free.
fn allowed(state: &NodeState, shape: &Shape, plan: &Plan) {
    assert_eq!(plan.grants.len(), shape.gpu.count() as usize);
    for grant in &plan.grants {
        assert_eq!(fit::device_verdict(state.device(&grant.device).unwrap(), shape), Ok(()));
    }
    assert!(state.clone().take(plan));
    assert!(state.cpu_free.is_none_or(|free| free >= shape.cpu));
    assert!(state.memory_free.is_none_or(|free| free >= shape.memory));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_incremental_decision_is_what_a_full_evaluation_says(
        policy in prop::sample::select(PolicyName::ALL.to_vec()),
        seed in any::<u64>(),
        cached_shapes in 1_usize..12,
        shapes in prop::collection::vec(shape(), 1..8),
        events in prop::collection::vec(event(), 1..200),
    ) {
        let mut engine = Engine::new(EngineConfig { policy, seed, cached_shapes, ..EngineConfig::default() });
        let mut pods: Vec<(NodeName, Shape, Plan)> = Vec::new();
        let mut tables = None;
        for event in events {
            match event {
                Event::Upsert { name, devices, cores } => {
                    let state = node(name, &devices, cores);
                    pods.retain(|(node, ..)| *node != state.name);
                    engine.upsert_node(state);
                }
                Event::Remove { name } => {
                    let name: NodeName = format!("n{name}").parse().unwrap();
                    pods.retain(|(node, ..)| *node != name);
                    engine.remove_node(&name);
                }
                Event::Pod { shape } => {
                    let shape = shapes[shape % shapes.len()].clone();
                    engine.observe(&shape);
                    if let Some(best) = check(&mut engine, &shape) {
                        allowed(engine.node(&best.node).unwrap(), &shape, &best.plan);
                        prop_assert!(engine.take(&best.node, &shape, &best.plan));
                        engine.started(&shape);
                        pods.push((best.node, shape, best.plan));
                    }
                }
                Event::Gone { which } if !pods.is_empty() => {
                    let (node, shape, plan) = pods.swap_remove(which % pods.len());
                    prop_assert!(engine.give_back(&node, &shape, &plan));
                    engine.ended(&shape);
                }
                Event::Gone { .. } => {}
                Event::Rebuild => {
                    if let Some(job) = engine.pending_rebuild() {
                        tables = Some(job.run());
                    }
                }
                Event::Install => {
                    if let Some(tables) = tables.take() {
                        engine.install(tables);
                    }
                }
            }
        }
    }
}
