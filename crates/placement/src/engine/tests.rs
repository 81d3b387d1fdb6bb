mod events;

use super::*;
use crate::{CpuMilli, GpuShape, Health, MilliGpu, Reason, fit, testing};

fn engine(policy: PolicyName) -> Engine {
    Engine::new(EngineConfig {
        policy,
        ..EngineConfig::default()
    })
}

fn whole(count: u32) -> Shape {
    Shape::gpu(GpuShape::whole(count).unwrap())
}

fn share(milli: u32) -> Shape {
    Shape::gpu(GpuShape::share(Some(MilliGpu::new(milli)), None, 1).unwrap())
}

fn names(names: &[&str]) -> Vec<NodeName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn best(engine: &mut Engine, shape: &Shape) -> Ranked {
    engine.decide(shape, Candidates::All, 1).ranked.remove(0)
}

#[test]
fn binpack_takes_the_fullest_node_that_fits_and_spread_the_emptiest() {
    for (policy, expected) in [(PolicyName::Binpack, "b"), (PolicyName::Spread, "c")] {
        let mut engine = engine(policy);
        for (name, gpus) in [("a", 4), ("b", 2), ("c", 8)] {
            engine.upsert_node(testing::node(name, gpus));
        }
        let decision = engine.decide(&whole(2), Candidates::All, 1);
        assert_eq!(decision.ranked[0].node.as_str(), expected);
        assert_eq!((decision.fitting, decision.ranked[0].plan.grants.len()), (3, 2));
    }
}

#[test]
fn named_candidates_are_answered_each() {
    let mut engine = engine(PolicyName::Binpack);
    engine.upsert_node(testing::node("a", 1));
    engine.upsert_node(testing::node("b", 4));
    let names = names(&["b", "x", "a"]);
    let decision = engine.decide(&whole(2), Candidates::Names(&names), usize::MAX);
    assert_eq!(decision.ranked.len(), 1);
    let refused: Vec<_> = decision
        .refused
        .iter()
        .map(|(node, refusal)| (node.as_str(), refusal.reason))
        .collect();
    assert_eq!(
        refused,
        [("x", Reason::UnknownNode), ("a", Reason::InsufficientDevices)]
    );
    assert_eq!(engine.refusals(&whole(2), Candidates::Names(&names)), decision.refused);
    let ranking = engine.rank(&whole(2), &names);
    assert_eq!((ranking.fits[0].0, ranking.refused.len()), (0, 2));
}

#[test]
fn the_head_of_a_ranking_is_that_of_the_whole_one() {
    for policy in [PolicyName::Fragmentation, PolicyName::Binpack, PolicyName::Spread] {
        let mut engine = Engine::new(EngineConfig {
            policy,
            ties: Ties::Name,
            ..EngineConfig::default()
        });
        let all: Vec<NodeName> = (0..40).map(|at| format!("n{at}").parse().unwrap()).collect();
        for (at, name) in all.iter().enumerate() {
            let mut node = testing::node(name.as_str(), 8);
            // Several of each kind, so that equals are at the border.
            for _ in 0..at % 5 {
                assert!(node.take(&fit::plan(&node, &whole(1)).unwrap()));
            }
            engine.upsert_node(node);
        }
        let whole_one = engine.rank(&whole(2), &all);
        for top in [0, 1, 5, 8, 39, 40, 100] {
            let head = engine.rank_top(&whole(2), &all, top);
            let ordered = top.min(whole_one.fits.len());
            assert_eq!(head.fits[..ordered], whole_one.fits[..ordered], "{policy}, {top}");
            let sorted = |ranking: &Ranking| {
                let mut at: Vec<usize> = ranking.fits.iter().map(|(at, _)| *at).collect();
                at.sort_unstable();
                at
            };
            assert_eq!((sorted(&head), &head.refused), (sorted(&whole_one), &whole_one.refused));
        }
    }
}

#[test]
fn a_refusal_has_the_words_of_the_node_itself() {
    let mut engine = engine(PolicyName::Binpack);
    let mut held = testing::node("a", 4);
    assert!(held.take(&fit::plan(&held, &whole(3)).unwrap()));
    engine.upsert_node(held.clone());
    let mut greedy = whole(2);
    greedy.cpu = CpuMilli(1_000_000);
    for shape in [whole(2), greedy] {
        let refused = engine.refusals(&shape, Candidates::All);
        assert_eq!(refused[0].1, fit::plan(&held, &shape).unwrap_err());
    }
}

#[test]
fn what_is_taken_is_not_given_twice_until_it_is_given_back() {
    let mut engine = engine(PolicyName::Fragmentation);
    engine.upsert_node(testing::node("a", 1));
    let first = best(&mut engine, &share(600));
    assert!(engine.take(&first.node, &share(600), &first.plan));
    assert!(engine.decide(&share(600), Candidates::All, 1).ranked.is_empty());
    assert!(engine.give_back(&first.node, &share(600), &first.plan));
    assert_eq!(best(&mut engine, &share(600)).plan, first.plan);
    assert!(!engine.give_back(&first.node, &share(600), &first.plan));
}

#[test]
fn a_new_state_replaces_what_was_assumed_and_a_removed_node_is_gone() {
    let mut engine = engine(PolicyName::Binpack);
    engine.upsert_node(testing::node("a", 1));
    let first = best(&mut engine, &whole(1));
    assert!(engine.take(&first.node, &whole(1), &first.plan));
    engine.upsert_node(testing::node("a", 1));
    assert_eq!(engine.decide(&whole(1), Candidates::All, 1).fitting, 1);
    engine.remove_node(&first.node);
    assert_eq!(engine.decide(&whole(1), Candidates::All, 1), Decision::default());
    assert!(engine.node(&first.node).is_none());
}

#[test]
fn suspect_devices_are_the_last_resort_of_the_whole_cluster() {
    for policy in PolicyName::ALL {
        let mut engine = engine(*policy);
        let mut suspect = testing::node("a", 2);
        for device in &mut suspect.devices {
            device.health = Health::Suspect;
        }
        engine.upsert_node(suspect);
        engine.upsert_node(testing::node("b", 8));
        let ranked = engine.decide(&share(500), Candidates::All, 2).ranked;
        let order: Vec<_> = ranked.iter().map(|ranked| ranked.node.as_str()).collect();
        assert_eq!(order, ["b", "a"], "{policy}");
    }
}

#[test]
fn equals_are_drawn_by_the_seed_or_taken_by_name() {
    let pick = |ties, seed| {
        let mut engine = Engine::new(EngineConfig {
            ties,
            seed,
            policy: PolicyName::Fragmentation,
            ..EngineConfig::default()
        });
        for at in [3, 1, 2, 0, 4] {
            engine.upsert_node(testing::node(&format!("n{at}"), 8));
        }
        let all = engine.decide(&whole(1), Candidates::All, usize::MAX).ranked;
        assert_eq!(all.len(), 5);
        best(&mut engine, &whole(1)).node.to_string()
    };
    assert_eq!(pick(Ties::Name, 7), "n0");
    assert_eq!(pick(Ties::Random, 7), pick(Ties::Random, 7));
    let drawn: std::collections::BTreeSet<String> = (0..64).map(|seed| pick(Ties::Random, seed)).collect();
    assert_eq!(drawn.len(), 5, "every node has its chance: {drawn:?}");
}

#[test]
fn a_gpu_without_cpu_to_feed_it_is_avoided_by_those_that_need_little_cpu() {
    let mut engine = engine(PolicyName::Fragmentation);
    let mut starved = testing::node("starved", 4);
    starved.cpu_free = Some(CpuMilli(4_000));
    engine.upsert_node(starved);
    engine.upsert_node(testing::node("fed", 4));
    let mut hungry = whole(1);
    hungry.cpu = CpuMilli(12_000);
    let mut modest = share(200);
    modest.cpu = CpuMilli(1_000);
    for _ in 0..50 {
        engine.observe(&hungry);
        engine.observe(&modest);
    }
    let job = engine.pending_rebuild().unwrap();
    assert!(engine.pending_rebuild().is_none(), "one at a time");
    engine.install(job.run());
    // Where nobody else can run anything, nothing is lost.
    assert_eq!(best(&mut engine, &modest).node.as_str(), "starved");
}

#[test]
fn an_explanation_has_every_node_and_its_terms_add_up() {
    for policy in PolicyName::ALL {
        let mut engine = engine(*policy);
        engine.upsert_node(testing::node("a", 4));
        engine.upsert_node(testing::node("b", 8));
        engine.upsert_node(testing::node_of("c", 8, "L40S"));
        for _ in 0..20 {
            engine.observe(&whole(2));
            engine.observe(&share(300).with_models(["H100".parse().unwrap()]));
        }
        if let Some(job) = engine.pending_rebuild() {
            engine.install(job.run());
        }
        let shape = whole(1).with_models(["H100".parse().unwrap()]);
        let explained = engine.explain(&shape);
        let decided = best(&mut engine, &shape);
        assert_eq!((explained[0].node.clone(), explained[0].rank), (decided.node, Some(1)));
        assert!((explained[0].score.unwrap() - decided.score).abs() < 1e-12);
        for node in &explained {
            let sum: f64 = node.terms.iter().map(|(_, term)| term).sum();
            assert!((node.score.unwrap_or(0.0) - sum).abs() < 1e-5, "{policy}: {node:?}");
        }
        assert_eq!(explained[2].node.as_str(), "c");
        assert_eq!(
            explained[2].verdict.plan.as_ref().unwrap_err().reason,
            Reason::ModelMismatch
        );
        assert_eq!(explained[2].verdict.devices.len(), 8);
    }
}

#[test]
fn a_simulation_changes_nothing() {
    let mut engine = engine(PolicyName::Binpack);
    engine.upsert_node(testing::node("a", 2));
    let simulated = engine.simulate(&[whole(1), whole(2), whole(1)]);
    let placed: Vec<_> = simulated.placed.iter().map(Option::is_some).collect();
    assert_eq!(placed, [true, false, true]);
    assert_eq!(engine.decide(&whole(2), Candidates::All, 1).fitting, 1);
}

#[test]
fn a_shape_that_lost_its_place_is_reckoned_anew() {
    let mut engine = Engine::new(EngineConfig {
        policy: PolicyName::Binpack,
        cached_shapes: 2,
        ..EngineConfig::default()
    });
    engine.upsert_node(testing::node("a", 2));
    for milli in [100, 200, 300, 100] {
        assert_eq!(engine.decide(&share(milli), Candidates::All, 1).fitting, 1);
    }
    engine.remove_node(&"a".parse().unwrap());
    assert_eq!(engine.decide(&share(200), Candidates::All, 1).fitting, 0);
}
