use berth_placement::Health;
use berth_runtime::ManualClock;

use super::*;
use crate::{
    convert::Granted,
    testing::{GRACE, cluster, later, pod, report, whole},
};

fn clock() -> ManualClock {
    ManualClock::at_unix_ms(0)
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn problem() -> Problem {
    Problem {
        reason: "DaemonUnavailable".to_owned(),
        message: "connection refused".to_owned(),
    }
}

fn granted(plan: Plan, generation: u64) -> Granted {
    Granted {
        plan,
        existing: false,
        generation,
        deadline_unix_ms: 0,
    }
}

/// How many whole GPUs are free on `a`, found out by asking.
fn free_gpus(cluster: &Cluster) -> u32 {
    (1..=8)
        .rev()
        .find(|count| !cluster.rank(&whole(*count), &["a"], &Known::default()).fits.is_empty())
        .unwrap_or(0)
}

#[test]
fn nodes_are_ranked_by_the_policy_and_refused_with_a_reason() {
    let cluster = cluster(&clock(), [report("a", 0), report("b", 6), report("c", 8)]);
    let ranking = cluster.rank(&whole(2), &["a", "b", "c", "d"], &Known::default());
    assert_eq!(ranking.fits, [1, 0], "binpack prefers the fuller node");
    let (best, plan) = ranking.best.unwrap();
    assert_eq!((best, plan.grants.len()), (node("b"), 2));
    let refused: Vec<_> = ranking
        .refused
        .iter()
        .map(|it| (it.at, it.refusal.reason, it.eviction_helps))
        .collect();
    assert_eq!(
        refused,
        [(2, Reason::DeviceHeld, true), (3, Reason::UnknownNode, false)]
    );
}

#[test]
fn a_report_replaces_the_one_before_and_an_older_one_does_not() {
    let cluster = cluster(&clock(), [later(report("a", 0), 5)]);
    cluster.report(MemberId(0), later(report("a", 4), 6)).unwrap();
    assert_eq!(free_gpus(&cluster), 4);
    cluster.report(MemberId(0), later(report("a", 0), 5)).unwrap();
    assert_eq!(free_gpus(&cluster), 4, "generation 5 is older than 6");
    let mut restarted = later(report("a", 2), 1);
    restarted.instance = "second".to_owned();
    cluster.report(MemberId(0), restarted).unwrap();
    assert_eq!(free_gpus(&cluster), 6, "a daemon that lost its state counts anew");
}

#[test]
fn a_lost_daemon_takes_pods_until_the_grace_is_over_and_again_when_it_is_back() {
    let clock = clock();
    let cluster = cluster(&clock, [report("a", 0)]);
    cluster.lost(MemberId(0), problem());
    assert_eq!(free_gpus(&cluster), 8);
    clock.advance(GRACE / 2);
    cluster.lost(MemberId(0), problem());
    clock.advance(GRACE / 2);
    assert_eq!(free_gpus(&cluster), 8, "only the sweep knows that time has passed");
    cluster.sweep();
    let ranking = cluster.rank(&whole(1), &["a"], &Known::default());
    assert_eq!(ranking.refused[0].refusal.reason, Reason::NodeUnreachable);
    assert!(!ranking.refused[0].eviction_helps);
    cluster.report(MemberId(0), report("a", 0)).unwrap();
    assert_eq!(free_gpus(&cluster), 8);
}

#[test]
fn a_daemon_that_is_not_reconciled_takes_no_pods() {
    let cluster = cluster(&clock(), [report("a", 0)]);
    let mut starting = later(report("a", 0), 2);
    starting.reconciled = false;
    cluster.report(MemberId(0), starting).unwrap();
    assert_eq!(free_gpus(&cluster), 0);
    cluster.report(MemberId(0), later(report("a", 0), 3)).unwrap();
    assert_eq!(free_gpus(&cluster), 8);
}

#[test]
fn what_is_assumed_is_not_given_out_twice() {
    let cluster = cluster(&clock(), [report("a", 6)]);
    let first = cluster.assume(&pod("1").uid, &node("a"), &whole(1)).unwrap();
    let second = cluster.assume(&pod("2").uid, &node("a"), &whole(1)).unwrap();
    assert_ne!(first.plan, second.plan);
    let refusal = cluster.assume(&pod("3").uid, &node("a"), &whole(1)).unwrap_err();
    assert_eq!(refusal.reason, Reason::DeviceHeld);
    cluster.forget(&pod("1").uid);
    cluster.forget(&pod("1").uid);
    assert_eq!(free_gpus(&cluster), 1);
    let unknown = cluster.assume(&pod("4").uid, &node("x"), &whole(1)).unwrap_err();
    assert_eq!(unknown.reason, Reason::UnknownNode);
}

#[test]
fn an_assumption_lasts_until_the_report_that_has_it() {
    let cluster = cluster(&clock(), [report("a", 0)]);
    let assumed = cluster.assume(&pod("1").uid, &node("a"), &whole(2)).unwrap();
    cluster.settle(&pod("1").uid, &granted(assumed.plan.clone(), 4));
    assert_eq!(free_gpus(&cluster), 6);
    // A change that came in between and does not have it yet.
    cluster.report(MemberId(0), later(report("a", 0), 3)).unwrap();
    assert_eq!(free_gpus(&cluster), 6);
    let mut with_it = later(report("a", 0), 4);
    for grant in &assumed.plan.grants {
        let device = with_it
            .state
            .devices
            .iter_mut()
            .find(|device| device.uuid == grant.device)
            .unwrap();
        device.free = berth_placement::Room::default();
    }
    cluster.report(MemberId(0), with_it).unwrap();
    assert_eq!(free_gpus(&cluster), 6, "counted once, not twice");
    assert!(cluster.inner.lock().assumed.is_empty());
}

#[test]
fn a_report_that_is_faster_than_the_answer_counts_once() {
    let cluster = cluster(&clock(), [report("a", 0)]);
    let assumed = cluster.assume(&pod("1").uid, &node("a"), &whole(2)).unwrap();
    cluster.report(MemberId(0), later(report("a", 2), 4)).unwrap();
    cluster.settle(&pod("1").uid, &granted(assumed.plan, 4));
    assert_eq!(free_gpus(&cluster), 6);
    assert!(cluster.inner.lock().assumed.is_empty());
}

#[test]
fn an_assumption_that_nobody_confirms_ends() {
    let clock = clock();
    let cluster = cluster(&clock, [report("a", 0)]);
    cluster.assume(&pod("1").uid, &node("a"), &whole(8)).unwrap();
    clock.advance(ASSUMED_FOR);
    cluster.sweep();
    assert_eq!(free_gpus(&cluster), 8);
}

#[test]
fn what_a_restarted_daemon_reports_has_all_that_it_granted() {
    let cluster = cluster(&clock(), [report("a", 0)]);
    let settled = cluster.assume(&pod("1").uid, &node("a"), &whole(1)).unwrap();
    cluster.settle(&pod("1").uid, &granted(settled.plan, 100));
    cluster.assume(&pod("2").uid, &node("a"), &whole(1)).unwrap();
    let mut restarted = later(report("a", 0), 2);
    restarted.instance = "second".to_owned();
    cluster.report(MemberId(0), restarted).unwrap();
    assert_eq!(
        free_gpus(&cluster),
        7,
        "the one that is being asked for is still assumed"
    );
}

#[test]
fn two_daemons_with_one_name_are_told_apart() {
    let clock = clock();
    let cluster = cluster(&clock, [report("a", 0), report("b", 0)]);
    let taken = cluster.report(MemberId(1), report("a", 8)).unwrap_err();
    assert!(taken.to_string().contains("--node-name"), "{taken}");
    assert_eq!(free_gpus(&cluster), 8, "the first one's word stands");
    cluster.lost(MemberId(0), problem());
    cluster.report(MemberId(1), report("a", 8)).unwrap();
    assert_eq!(
        free_gpus(&cluster),
        0,
        "the second one takes over when the first is gone"
    );
    assert_eq!(
        cluster.rank(&whole(1), &["b"], &Known::default()).refused[0]
            .refusal
            .reason,
        Reason::UnknownNode
    );
}

#[test]
fn a_pod_finds_what_it_holds_even_on_a_full_node() {
    let cluster = cluster(&clock(), [report("a", 8), report("b", 7)]);
    let plan = Plan {
        grants: vec![berth_placement::Grant {
            device: "GPU-a-3".parse().unwrap(),
            size: berth_placement::GrantSize::Whole,
        }],
    };
    let held = Held {
        node: node("a"),
        shape: whole(1),
        plan: plan.clone(),
    };
    let known = Known {
        held: Some(held),
        ..Known::default()
    };
    let ranking = cluster.rank(&whole(1), &["b", "a"], &known);
    assert_eq!((ranking.fits, ranking.best), (vec![1, 0], Some((node("a"), plan))));
    assert!(ranking.refused.is_empty());
    let other_shape = cluster.rank(&whole(2), &["a"], &known);
    assert!(other_shape.fits.is_empty());
    let mut broken = later(report("a", 8), 2);
    broken.state.devices[3].health = Health::Unhealthy;
    cluster.report(MemberId(0), broken).unwrap();
    assert_eq!(
        cluster.rank(&whole(1), &["b", "a"], &known).fits,
        [0],
        "what it holds fell ill"
    );
}

#[test]
fn the_view_tells_what_is_known_of_every_daemon() {
    let clock = clock();
    let cluster = cluster(&clock, [report("a", 6), report("b", 0)]);
    cluster.assume(&pod("1").uid, &node("a"), &whole(1)).unwrap();
    cluster.lost(MemberId(1), problem());
    clock.advance(Duration::from_millis(1500));
    let view = serde_json::to_value(cluster.view()).unwrap();
    assert_eq!(view["nodes"][0]["contact"], "Up");
    assert_eq!(view["nodes"][0]["assumed"][0]["pod_uid"], "1");
    assert_eq!(view["nodes"][0]["devices"].as_array().unwrap().len(), 8);
    assert_eq!(view["nodes"][1]["contact"], "Down");
    assert_eq!(view["nodes"][1]["down_for_ms"], 1500);
    assert_eq!(view["nodes"][1]["problem"]["reason"], "DaemonUnavailable");
    assert_eq!(cluster.contacts(), [("Starting", 0), ("Up", 1), ("Down", 1)]);
}

#[test]
fn a_node_that_refused_the_pod_is_its_last_choice() {
    let cluster = cluster(&clock(), [report("a", 4), report("b", 0), report("c", 2)]);
    let rank = |refused_by: &[&str]| {
        let refused_by = refused_by.iter().map(|name| node(name)).collect();
        let known = Known {
            refused_by,
            ..Known::default()
        };
        let ranking = cluster.rank_top(&whole(4), &["a", "b", "c"], &known, 1);
        (ranking.fits, ranking.best.unwrap().0)
    };
    assert_eq!((rank(&[]).0[0], rank(&[]).1), (0, node("a")), "the fullest");
    let (fits, best) = rank(&["a"]);
    assert_eq!((fits.len(), *fits.last().unwrap(), best), (3, 0, node("c")));
    assert_eq!(rank(&["a", "b", "c"]).0.len(), 3, "still better than nowhere");
}

#[test]
fn what_others_tell_of_a_daemon_that_cannot_be_reached_does_not_make_it_reachable() {
    let clock = clock();
    let cluster = cluster(&clock, [report("a", 0)]);
    let takes_pods = || !cluster.rank(&whole(1), &["a"], &Known::default()).fits.is_empty();
    cluster.lost(MemberId(0), problem());
    clock.advance(GRACE);
    cluster.hearsay(MemberId(0), later(report("a", 1), 2)).unwrap();
    assert!(!takes_pods());
    cluster.found(MemberId(0));
    assert!(takes_pods());
    cluster.lost(MemberId(0), problem());
    clock.advance(GRACE);
    cluster.report(MemberId(0), later(report("a", 1), 2)).unwrap();
    assert!(takes_pods(), "its own word");
}
