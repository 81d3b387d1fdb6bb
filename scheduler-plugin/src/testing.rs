//! Small nodes, and an extender without sockets, for this crate's tests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use berth_placement::{
    ComputeMode, DeviceState, EngineConfig, GpuShape, Health, MemoryBytes, NodeState, PodRef, PolicyName, Room, Shape,
};
use berth_runtime::{ManualClock, Shutdown, Tasks};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    binder::ReserveOnly,
    cluster::{Cluster, MemberId, Origin},
    convert::{NodeFacts, NodeReport},
    daemons::Daemons,
    decide::Decider,
    decisions::Decisions,
    extender::{Extender, Limits},
    metrics::Metrics,
    pods::{CAPACITY, Pods},
    random::Ids,
    reserve::Reserver,
};

pub(crate) mod api_double;

pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// A free H100.
pub(crate) fn gpu(node: &str, index: u32) -> DeviceState {
    let memory = MemoryBytes::from_gib(80);
    DeviceState {
        uuid: format!("GPU-{node}-{index}").parse().unwrap(),
        index,
        model: "H100".parse().unwrap(),
        memory,
        compute_mode: ComputeMode::Default,
        numa_node: None,
        nvlink_domain: Some(0),
        health: Health::Healthy,
        schedulable: true,
        out_of_band: false,
        mig: None,
        free: Room::whole(memory),
    }
}

/// The first report of a node with 8 GPUs, of which the first `held` are held.
pub(crate) fn report(name: &str, held: u32) -> NodeReport {
    let mut devices: Vec<_> = (0..8).map(|index| gpu(name, index)).collect();
    devices
        .iter_mut()
        .take(held as usize)
        .for_each(|device| device.free = Room::default());
    NodeReport {
        state: NodeState::of_devices(name.parse().unwrap(), 1, devices),
        instance: "first".to_owned(),
        facts: NodeFacts::default(),
        reconciled: true,
        bound: BTreeMap::new(),
        pods: 0,
    }
}

/// The same node later.
pub(crate) fn later(mut report: NodeReport, generation: u64) -> NodeReport {
    report.state.generation = generation;
    report
}

pub(crate) fn whole(count: u32) -> Shape {
    Shape::gpu(GpuShape::whole(count).unwrap())
}

pub(crate) fn pod(uid: &str) -> PodRef {
    PodRef::new("ns", "pod", uid.parse().unwrap()).unwrap()
}

/// A cluster of as many daemons as there are reports.
pub(crate) fn cluster(clock: &ManualClock, reports: impl IntoIterator<Item = NodeReport>) -> Cluster {
    let engine = EngineConfig {
        policy: PolicyName::Binpack,
        ..EngineConfig::default()
    };
    let cluster = Cluster::new(engine, GRACE, clock.shared());
    for (at, report) in reports.into_iter().enumerate() {
        let target = format!("http://127.0.0.1:{}", at + 1).parse().unwrap();
        assert_eq!(cluster.join(Origin::Machine(Some(target))), MemberId(at));
        cluster.report(MemberId(at), report).unwrap();
    }
    cluster
}

/// An extender over a cluster whose daemons nobody can reach.
pub(crate) fn extender(cluster: Cluster, clock: &ManualClock, limits: Limits) -> Arc<Extender> {
    let cluster = Arc::new(cluster);
    let metrics = Metrics::register(&mut Registry::default(), Arc::clone(&cluster));
    let pods = Arc::new(Pods::new(clock.shared(), CAPACITY));
    let decisions = Arc::<Decisions>::default();
    let reserver = Reserver {
        cluster: Arc::clone(&cluster),
        daemons: Daemons::new(None),
        pods: Arc::clone(&pods),
        decisions: Arc::clone(&decisions),
        metrics: metrics.clone(),
        binder: Arc::new(ReserveOnly),
        clock: clock.shared(),
        tasks: Tasks::new(Shutdown::new()),
        refuse: CancellationToken::new(),
        deadline: Duration::from_secs(5),
    };
    let decider = Arc::new(Decider {
        cluster: Arc::clone(&cluster),
        decisions: Arc::clone(&decisions),
        metrics: metrics.clone(),
        ids: Ids::new(clock.shared(), 1),
        clock: clock.shared(),
    });
    Arc::new(Extender {
        cluster,
        pods,
        decisions,
        reserver,
        decider,
        metrics,
        clock: clock.shared(),
        limits,
    })
}
