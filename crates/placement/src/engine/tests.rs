use super::*;
use crate::{GpuShape, testing};

fn engine(policy: PolicyName) -> Engine {
    Engine::new(EngineConfig {
        policy,
        ..EngineConfig::default()
    })
}

#[test]
fn binpack_takes_the_fullest_node_that_fits_and_spread_the_emptiest() {
    for (policy, expected) in [(PolicyName::Binpack, "b"), (PolicyName::Spread, "c")] {
        let mut engine = engine(policy);
        for (name, gpus) in [("a", 4), ("b", 2), ("c", 8)] {
            engine.upsert_node(testing::node(name, gpus));
        }
        let shape = Shape::gpu(GpuShape::whole(2).unwrap());
        let decision = engine.decide(&shape, Candidates::All, 1);
        assert_eq!(decision.ranked[0].node.as_str(), expected);
        assert_eq!((decision.fitting, decision.ranked[0].plan.grants.len()), (3, 2));
    }
}

#[test]
fn named_candidates_are_answered_each() {
    let mut engine = engine(PolicyName::Binpack);
    engine.upsert_node(testing::node("a", 1));
    engine.upsert_node(testing::node("b", 4));
    let names: Vec<NodeName> = ["b", "x", "a"].iter().map(|name| name.parse().unwrap()).collect();
    let shape = Shape::gpu(GpuShape::whole(2).unwrap());
    let decision = engine.decide(&shape, Candidates::Names(&names), usize::MAX);
    assert_eq!(decision.ranked.len(), 1);
    let refused: Vec<_> = decision.refused.iter().map(|(node, refusal)| (node.as_str(), refusal.reason)).collect();
    assert_eq!(refused, [("x", Reason::UnknownNode), ("a", Reason::InsufficientDevices)]);
    let ranking = engine.rank(&shape, &names);
    assert_eq!((ranking.fits[0].0, ranking.refused.len()), (0, 2));
}
