//! What the binder makes of a `BindRequest`.

use berth_testkit::{kai::names, rig::in_rig};
use serde_json::json;

use crate::harness::{KaiRig, gpus, pod};

#[test]
fn rig_kai_executes_a_bind_request_of_somebody_else() {
    in_rig(
        "binding::rig_kai_executes_a_bind_request_of_somebody_else",
        async || {
            let rig = KaiRig::up(2).await;
            // A group that does not exist yet: podgrouper and scheduler leave the pod alone.
            rig.create(&pod("mine", gpus(8)).in_group("mine-group")).await;
            rig.request_bind("mine", "gpu-0001").await;
            assert_eq!(rig.node_of("mine").await, "gpu-0001");
            rig.succeeded("mine").await;
            assert_eq!(rig.pod("mine").await.annotation("received-resource-type"), "Regular");
            rig.create_group("mine-group", 1, names::DEFAULT_QUEUE, "non-preemptible")
                .await;

            // It holds its node.
            rig.create(&pod("theirs", gpus(1))).await;
            assert_eq!(rig.node_of("theirs").await, "gpu-0000");
        },
    );
}

#[test]
fn rig_kai_succeeds_a_bind_request_whose_pod_is_bound_already() {
    in_rig(
        "binding::rig_kai_succeeds_a_bind_request_whose_pod_is_bound_already",
        async || {
            let rig = KaiRig::up(2).await;
            rig.create(&pod("p", gpus(1)).in_group("none")).await;
            rig.bind("p", "gpu-0000").await;
            rig.request_bind("p", "gpu-0001").await;
            rig.succeeded("p").await;
            assert_eq!(rig.pod("p").await.node(), Some("gpu-0000".to_owned()));
        },
    );
}

#[test]
fn rig_kai_fails_a_bind_request_for_a_node_or_pod_that_is_not_there() {
    in_rig(
        "binding::rig_kai_fails_a_bind_request_for_a_node_or_pod_that_is_not_there",
        async || {
            let mut rig = KaiRig::up(1).await;
            // The scheduler would delete them before anyone looked.
            rig.rig.part("kai-scheduler").unwrap().stop();
            rig.create(&pod("p", gpus(1)).in_group("later")).await;
            rig.request_bind("p", "no-such-node").await;
            let status = rig.failed("p").await;
            assert!(status.reason.contains("no-such-node"), "{status:?}");
            assert_eq!(status.failed_attempts, 0);
            rig.request_bind("no-such-pod", "gpu-0000").await;
            assert!(rig.failed("no-such-pod").await.reason.contains("no-such-pod"));

            // The scheduler deletes what failed; the pod's group makes it KAI's to place.
            rig.create_group("later", 1, names::DEFAULT_QUEUE, "preemptible").await;
            rig.rig.part("kai-scheduler").unwrap().restart().unwrap();
            assert_eq!(rig.node_of("p").await, "gpu-0000");
            rig.no_request("no-such-pod").await;
        },
    );
}

#[test]
fn rig_kai_refuses_to_bind_a_gated_pod() {
    in_rig("binding::rig_kai_refuses_to_bind_a_gated_pod", async || {
        let mut rig = KaiRig::up(1).await;
        rig.rig.part("kai-scheduler").unwrap().stop();
        rig.create(&pod("p", gpus(1)).in_group("none").gated("test/gate")).await;
        rig.request_bind("p", "gpu-0000").await;
        rig.failed("p").await;
        assert_eq!(rig.pod("p").await.node(), None);
    });
}

#[test]
fn rig_kai_binds_without_a_look_at_capacity_taints_or_cordon() {
    in_rig(
        "binding::rig_kai_binds_without_a_look_at_capacity_taints_or_cordon",
        async || {
            let rig = KaiRig::up(1).await;
            let taint = json!([{"key": "health", "value": "bad", "effect": "NoSchedule"}]);
            rig.patch_node("gpu-0000", json!({"spec": {"unschedulable": true, "taints": taint}}))
                .await;
            rig.create(&pod("p", gpus(100)).in_group("none")).await;
            rig.request_bind("p", "gpu-0000").await;
            assert_eq!(rig.node_of("p").await, "gpu-0000");
            rig.succeeded("p").await;
        },
    );
}

#[test]
fn rig_kai_deletes_a_bind_request_for_a_node_of_another_shard() {
    in_rig(
        "binding::rig_kai_deletes_a_bind_request_for_a_node_of_another_shard",
        async || {
            let mut rig = KaiRig::up(1).await;
            rig.rig.part("kai-binder").unwrap().stop();
            rig.patch_node("gpu-0000", json!({"metadata": {"labels": {names::NODE_POOL: "other"}}}))
                .await;
            rig.create(&pod("p", gpus(1)).in_group("none")).await;
            rig.request_bind("p", "gpu-0000").await;
            rig.no_request("p").await;
        },
    );
}

#[test]
fn rig_kai_lets_a_leftover_bind_request_freeze_a_new_pod_of_the_same_name() {
    in_rig(
        "binding::rig_kai_lets_a_leftover_bind_request_freeze_a_new_pod_of_the_same_name",
        async || {
            let rig = KaiRig::up(1).await;
            rig.create(&pod("p", gpus(1)).in_group("none")).await;
            rig.request_bind("p", "gpu-0000").await;
            rig.succeeded("p").await;
            // Without an owner nobody collects it.
            rig.disown("p").await;
            rig.delete("p").await;
            rig.gone("p").await;
            rig.create(&pod("p", gpus(1))).await;
            rig.group_of("p").await;
            rig.cycles(3).await;
            assert_eq!(rig.pod("p").await.node(), None);
            rig.delete_request("p").await;
            assert_eq!(rig.node_of("p").await, "gpu-0000");
        },
    );
}

#[test]
fn rig_kai_keeps_a_failed_bind_request_that_may_be_tried_again() {
    in_rig(
        "binding::rig_kai_keeps_a_failed_bind_request_that_may_be_tried_again",
        async || {
            let rig = KaiRig::up(1).await;
            rig.create(&pod("p", gpus(1)).in_group("none").gated("test/gate")).await;
            rig.request_bind_with_backoff("p", "gpu-0000", 3).await;
            let status = rig.failed("p").await;
            assert_eq!(status.failed_attempts, 1);
            rig.cycles(2).await;
            assert_eq!(
                rig.failed("p").await.failed_attempts,
                1,
                "only a change of phase is written"
            );
            rig.ungate("p").await;
            rig.succeeded("p").await;
            assert_eq!(rig.node_of("p").await, "gpu-0000");
        },
    );
}
