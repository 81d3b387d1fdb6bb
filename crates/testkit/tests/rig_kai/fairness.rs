//! Who may have how much, and who has to leave.

use berth_testkit::{kai, rig::in_rig};

use crate::harness::{KaiRig, gpus, pod};

#[test]
fn rig_kai_counts_pods_that_others_bound_and_leaves_the_non_preemptible_ones_alone() {
    let name = "fairness::rig_kai_counts_pods_that_others_bound_and_leaves_the_non_preemptible_ones_alone";
    in_rig(name, async || {
        let rig = KaiRig::up(1).await;
        rig.queue("small", "", 9.0, 9.0).await;
        rig.create(&pod("ours", gpus(8)).in_group("ours-group")).await;
        rig.bind("ours", "gpu-0000").await;
        rig.create_group("ours-group", 1, "small", "non-preemptible").await;
        rig.runs("ours").await;

        // Neither the node nor the queue has room for so many more, however important they are.
        rig.create(&pod("theirs", gpus(1)).priority("inference")).await;
        let told = rig.refused("theirs").await;
        assert!(told.message.contains("no nodes with enough resources"), "{told:?}");
        rig.create(&pod("queued", gpus(2)).queue("small")).await;
        let told = rig.refused("queued").await;
        assert_eq!(told.reasons[0].reason, "OverLimit", "{told:?}");
        rig.cycles(3).await;
        assert_eq!(rig.pod("ours").await.node(), Some("gpu-0000".to_owned()));
        assert!(!rig.pod("ours").await.leaves());
    });
}

#[test]
fn rig_kai_evicts_a_preemptible_pod_for_a_more_important_one() {
    in_rig(
        "fairness::rig_kai_evicts_a_preemptible_pod_for_a_more_important_one",
        async || {
            let rig = KaiRig::up(1).await;
            rig.create(&pod("victim", gpus(6))).await;
            rig.runs("victim").await;
            rig.create(&pod("stays", gpus(2)).non_preemptible()).await;
            rig.runs("stays").await;
            let stays = rig.pod("stays").await.uid();

            rig.create(&pod("important", gpus(6)).priority("inference")).await;
            assert_eq!(rig.node_of("important").await, "gpu-0000");
            rig.gone("victim").await;
            assert_eq!(rig.pod("stays").await.uid(), stays);
        },
    );
}

#[test]
fn rig_kai_never_evicts_a_non_preemptible_pod() {
    in_rig("fairness::rig_kai_never_evicts_a_non_preemptible_pod", async || {
        let rig = KaiRig::up(1).await;
        rig.create(&pod("stays", gpus(8)).non_preemptible()).await;
        rig.runs("stays").await;
        rig.create(&pod("important", gpus(1)).priority("inference")).await;
        rig.refused("important").await;
        rig.cycles(3).await;
        assert!(!rig.pod("stays").await.leaves());
        assert_eq!(rig.pod("important").await.node(), None);
    });
}

#[test]
fn rig_kai_moves_a_preemptible_pod_that_fits_elsewhere_and_no_other() {
    in_rig(
        "fairness::rig_kai_moves_a_preemptible_pod_that_fits_elsewhere_and_no_other",
        async || {
            let rig = KaiRig::up(2).await;
            // Of two empty nodes the first by name.
            rig.create(&pod("movable", gpus(8))).await;
            assert_eq!(rig.runs("movable").await, "gpu-0000");
            // No more important than the other, but bound to its node: "moved" means deleted, for a pod that nobody makes again.
            rig.create(&pod("pinned", gpus(8)).on("gpu-0000")).await;
            assert_eq!(rig.node_of("pinned").await, "gpu-0000");
            rig.gone("movable").await;

            rig.delete("pinned").await;
            rig.gone("pinned").await;
            rig.create(&pod("protected", gpus(8)).non_preemptible()).await;
            assert_eq!(rig.runs("protected").await, "gpu-0000");
            rig.create(&pod("pinned-too", gpus(8)).on("gpu-0000")).await;
            rig.refused("pinned-too").await;
            rig.cycles(3).await;
            assert!(!rig.pod("protected").await.leaves());
        },
    );
}

#[test]
fn rig_kai_leaves_a_pod_that_would_get_its_place_back() {
    in_rig(
        "fairness::rig_kai_leaves_a_pod_that_would_get_its_place_back",
        async || {
            let rig = KaiRig::up(2).await;
            rig.create(&pod("first", gpus(1))).await;
            assert_eq!(rig.runs("first").await, "gpu-0000");
            // Placed anew, the older pod would choose the same node before the younger gets it.
            rig.create(&pod("pinned", gpus(8)).on("gpu-0000")).await;
            rig.refused("pinned").await;
            rig.cycles(3).await;
            assert!(!rig.pod("first").await.leaves());
        },
    );
}

#[test]
fn rig_kai_keeps_to_the_limits_and_quotas_of_a_queue_and_its_parent() {
    in_rig(
        "fairness::rig_kai_keeps_to_the_limits_and_quotas_of_a_queue_and_its_parent",
        async || {
            let rig = KaiRig::up(2).await;
            rig.queue("parent", "", 4.0, 2.0).await;
            kai::queue(&rig.client, "child", "parent", kai::unlimited())
                .await
                .unwrap();
            kai::queue(&rig.client, "orphan", "nobody", kai::unlimited())
                .await
                .unwrap();

            rig.create(&pod("within", gpus(2)).queue("child").non_preemptible())
                .await;
            rig.node_of("within").await;
            rig.create(&pod("over-quota", gpus(1)).queue("child").non_preemptible())
                .await;
            assert_eq!(
                rig.refused("over-quota").await.reasons[0].reason,
                "NonPreemptibleOverQuota"
            );
            rig.create(&pod("over-limit", gpus(3)).queue("child")).await;
            assert_eq!(rig.refused("over-limit").await.reasons[0].reason, "OverLimit");
            rig.create(&pod("at-limit", gpus(2)).queue("child")).await;
            rig.node_of("at-limit").await;
            rig.create(&pod("lost", gpus(1)).queue("orphan")).await;
            assert_eq!(rig.refused("lost").await.reasons[0].reason, "QueueDoesNotExist");
        },
    );
}
