//! Parts of a GPU.

use berth_testkit::{kai::names, rig::in_rig};
use serde_json::json;

use crate::harness::{KaiRig, gpu_node, gpus, pod};

#[test]
fn rig_kai_shares_one_gpu_between_fractions_and_gives_it_back() {
    in_rig(
        "sharing::rig_kai_shares_one_gpu_between_fractions_and_gives_it_back",
        async || {
            let rig = KaiRig::up(2).await;
            rig.create(&pod("a", json!({})).fraction("0.5")).await;
            let node = rig.node_of("a").await;
            let request = rig.succeeded("a").await;
            assert_eq!(request.spec.received_resource_type, "Fraction");
            assert_eq!(request.spec.received_gpu.unwrap().portion, "0.50");
            let group = request.spec.selected_gpu_groups;
            assert_eq!(group.len(), 1);
            assert_eq!(rig.pod("a").await.label(names::GPU_GROUP), group[0]);
            assert_eq!(rig.pod("a").await.annotation("received-resource-type"), "Fraction");
            let visible = rig.config_map("a-gpu-0-evar").await["NVIDIA_VISIBLE_DEVICES"].clone();
            assert!(visible.starts_with("GPU-"), "{visible}");

            // The second joins the first, the third does not fit and opens another.
            rig.create(&pod("b", json!({})).fraction("0.4")).await;
            assert_eq!(rig.node_of("b").await, node);
            assert_eq!(rig.succeeded("b").await.spec.selected_gpu_groups, group);
            rig.create(&pod("c", json!({})).fraction("0.3")).await;
            rig.node_of("c").await;
            assert_ne!(rig.succeeded("c").await.spec.selected_gpu_groups, group);
            assert_eq!(rig.reservations().await.len(), 2);
            // Two of eight GPUs are shared: six are left.
            rig.create(&pod("whole", gpus(7))).await;
            assert_ne!(rig.node_of("whole").await, node);
            rig.create(&pod("fits", gpus(6)).on(&node)).await;
            rig.node_of("fits").await;

            for name in ["a", "b", "c"] {
                rig.delete(name).await;
            }
            rig.no_reservations().await;
        },
    );
}

#[test]
fn rig_kai_executes_a_fraction_of_somebody_else_on_the_group_that_it_names() {
    in_rig(
        "sharing::rig_kai_executes_a_fraction_of_somebody_else_on_the_group_that_it_names",
        async || {
            let rig = KaiRig::up(2).await;
            let group = "11111111-2222-4333-8444-555555555555";
            rig.create(&pod("mine", json!({})).fraction("0.5").in_group("mine-group"))
                .await;
            rig.request_share("mine", "gpu-0001", group).await;
            assert_eq!(rig.node_of("mine").await, "gpu-0001");
            rig.create_group("mine-group", 1, names::DEFAULT_QUEUE, "non-preemptible")
                .await;
            assert_eq!(rig.pod("mine").await.label(names::GPU_GROUP), group);
            // KAI joins it.
            rig.create(&pod("theirs", json!({})).fraction("0.5")).await;
            assert_eq!(rig.node_of("theirs").await, "gpu-0001");
            assert_eq!(rig.succeeded("theirs").await.spec.selected_gpu_groups, [group]);
        },
    );
}

#[test]
fn rig_kai_fails_a_fraction_whose_gpu_nobody_names() {
    in_rig("sharing::rig_kai_fails_a_fraction_whose_gpu_nobody_names", async || {
        let mut rig = KaiRig::up(1).await;
        rig.rig.part("kai-gpu-names").unwrap().stop();
        rig.rig.part("kai-scheduler").unwrap().stop();
        rig.create(&pod("p", json!({})).fraction("0.5").in_group("none")).await;
        rig.request_share("p", "gpu-0000", "11111111-2222-4333-8444-555555555555")
            .await;
        let status = rig.failed("p").await;
        assert!(status.reason.contains("reserv"), "{status:?}");
        assert_eq!(rig.pod("p").await.label(names::GPU_GROUP), "");
        rig.no_reservations().await;
    });
}

#[test]
fn rig_kai_spreads_one_pod_over_parts_of_several_gpus() {
    in_rig(
        "sharing::rig_kai_spreads_one_pod_over_parts_of_several_gpus",
        async || {
            let rig = KaiRig::up(1).await;
            rig.create(&pod("two", json!({})).fraction("0.25").on_devices(2)).await;
            rig.node_of("two").await;
            let request = rig.succeeded("two").await;
            let groups = request.spec.selected_gpu_groups;
            assert_eq!(groups.len(), 2);
            assert_eq!(request.spec.received_gpu.unwrap().count, 2);
            for group in &groups {
                assert_eq!(
                    &rig.pod("two")
                        .await
                        .label(&format!("{}{group}", names::GPU_GROUP_PREFIX)),
                    group
                );
            }
            // 20000 MiB of 81500 are 0.25, rounded up; and they fit next to the others.
            rig.create(&pod("by-size", json!({})).mebibytes(20_000)).await;
            rig.node_of("by-size").await;
            let request = rig.succeeded("by-size").await;
            assert_eq!(request.spec.received_gpu.unwrap().portion, "0.25");
            assert!(groups.contains(&request.spec.selected_gpu_groups[0]));
        },
    );
}

#[test]
fn rig_kai_wants_two_slots_for_a_fraction() {
    in_rig("sharing::rig_kai_wants_two_slots_for_a_fraction", async || {
        let rig = KaiRig::up(0).await;
        let mut node = gpu_node("narrow", 8);
        node["status"]["allocatable"]["pods"] = json!("1");
        rig.add_node(node).await;
        rig.create(&pod("part", json!({})).fraction("0.5")).await;
        rig.refused("part").await;
        rig.create(&pod("whole", gpus(1))).await;
        rig.node_of("whole").await;
    });
}

#[test]
fn rig_kai_fails_a_fraction_that_admission_did_not_see() {
    in_rig(
        "sharing::rig_kai_fails_a_fraction_that_admission_did_not_see",
        async || {
            let mut rig = KaiRig::up(1).await;
            rig.rig.part("kai-scheduler").unwrap().stop();
            rig.create(
                &pod("p", json!({}))
                    .fraction("0.5")
                    .unseen_by_admission()
                    .in_group("none"),
            )
            .await;
            rig.request_share("p", "gpu-0000", "11111111-2222-4333-8444-555555555555")
                .await;
            let status = rig.failed("p").await;
            assert!(status.reason.contains("configmap name"), "{status:?}");
            assert_eq!(rig.pod("p").await.label(names::GPU_GROUP), "");
            rig.no_reservations().await;
        },
    );
}
