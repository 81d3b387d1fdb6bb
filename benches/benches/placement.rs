//! The placement engine in clusters of several sizes that are in use.
#![expect(clippy::expect_used, reason = "the fixtures are made here and are valid")]

use std::hint::black_box;

use berth_benches::fixtures::{Busy, dgx};
use berth_placement::{Candidates, Engine, EngineConfig, GpuShape, MilliGpu, NodeName, PolicyName, Shape};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn busy(nodes: usize, policy: PolicyName) -> Busy {
    let engine = Engine::new(EngineConfig {
        policy,
        ..EngineConfig::default()
    });
    Busy::new(engine, dgx(nodes).expect("valid names"), 0).expect("a thread")
}

fn share() -> Shape {
    Shape::gpu(GpuShape::share(Some(MilliGpu::new(250)), None, 1).expect("valid"))
}

/// One pod leaves, one comes: by size of the cluster.
fn by_size(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision/nodes");
    for nodes in [10, 100, 1_000, 10_000] {
        let mut busy = busy(nodes, PolicyName::Fragmentation);
        group.bench_function(BenchmarkId::from_parameter(nodes), |bencher| {
            bencher.iter(|| busy.step());
        });
    }
}

fn by_policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision/policy");
    for policy in PolicyName::ALL {
        let mut busy = busy(1_000, *policy);
        group.bench_function(policy.as_str(), |bencher| bencher.iter(|| busy.step()));
    }
}

/// The same shape again and again, nothing changes: what a look costs.
fn by_shape(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision/shape");
    let whole = |count| Shape::gpu(GpuShape::whole(count).expect("valid"));
    let mut busy = busy(1_000, PolicyName::Fragmentation);
    for (name, shape) in [
        ("share", share()),
        ("one", whole(1)),
        ("eight", whole(8)),
        ("none", Shape::default()),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(busy.driver.engine.decide(&shape, Candidates::All, 1)));
        });
    }
}

/// What an extender asks: 5000 names, most of them full.
fn by_names(criterion: &mut Criterion) {
    let mut busy = busy(5_000, PolicyName::Fragmentation);
    let names: Vec<NodeName> = busy.driver.engine.nodes().map(|node| node.name.clone()).collect();
    let shape = Shape::gpu(GpuShape::whole(8).expect("valid"));
    criterion.bench_function("rank/5000 names", |bencher| {
        bencher.iter(|| black_box(busy.driver.engine.rank(&shape, &names)));
    });
}

fn state(criterion: &mut Criterion) {
    let mut busy = busy(1_000, PolicyName::Fragmentation);
    let node = busy.driver.engine.nodes().next().expect("a node").clone();
    let empty = dgx(1).expect("valid names").remove(0);
    let mut group = criterion.benchmark_group("state");
    group.bench_function("update, nothing changed", |bencher| {
        bencher.iter(|| busy.driver.engine.upsert_node(node.clone()));
    });
    let mut flip = false;
    group.bench_function("update, devices changed", |bencher| {
        bencher.iter(|| {
            flip = !flip;
            busy.driver
                .engine
                .upsert_node(if flip { empty.clone() } else { node.clone() });
        });
    });
    group.bench_function("explain, 1000 nodes", |bencher| {
        bencher.iter(|| black_box(busy.driver.engine.explain(&share())));
    });
    group.bench_function("snapshot, 1000 nodes", |bencher| {
        bencher.iter(|| black_box(busy.driver.engine.clone()));
    });
}

criterion_group!(benches, by_size, by_policy, by_shape, by_names, state);
criterion_main!(benches);
