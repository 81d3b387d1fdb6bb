//! Where KAI puts pods.

use berth_testkit::{kai::names, rig::in_rig};
use serde_json::json;

use crate::harness::{KaiRig, gpu_node, gpus, pod};

#[test]
fn rig_kai_binds_a_pod_through_a_group_and_a_bind_request() {
    in_rig(
        "placement::rig_kai_binds_a_pod_through_a_group_and_a_bind_request",
        async || {
            let rig = KaiRig::up(2).await;
            rig.create(&pod("p", gpus(1))).await;
            let node = rig.node_of("p").await;
            assert!(node.starts_with("gpu-000"), "{node}");

            let bound = rig.pod("p").await;
            assert_eq!(bound.annotation("received-resource-type"), "Regular");
            let group = rig.group_of("p").await;
            let uid = bound.uid();
            assert_eq!(group.metadata.name.as_deref(), Some(format!("pg-p-{uid}").as_str()));
            assert_eq!(group.spec.queue, names::DEFAULT_QUEUE);
            assert_eq!(group.spec.priority_class_name, "train");
            assert_eq!(group.spec.min_member, 1);
            assert_eq!(group.metadata.owner_references.unwrap()[0].uid, uid);

            let request = rig.succeeded("p").await;
            assert_eq!(request.spec.pod_name, "p");
            assert_eq!(request.spec.selected_node, node);
            assert_eq!(request.spec.received_resource_type, "Regular");
            let received = request.spec.received_gpu.unwrap();
            assert_eq!((received.count, received.portion.as_str()), (1, "1.00"));
            assert_eq!(request.metadata.labels.unwrap()[names::SELECTED_NODE], node);
            let status = request.status.unwrap();
            assert_eq!((status.phase.as_str(), status.failed_attempts), ("Succeeded", 0));
            let owner = &request.metadata.owner_references.unwrap()[0];
            assert_eq!(
                (owner.kind.as_str(), owner.name.as_str(), &owner.uid),
                ("Pod", "p", &uid)
            );
        },
    );
}

#[test]
fn rig_kai_packs() {
    in_rig("placement::rig_kai_packs", async || {
        let rig = KaiRig::up(3).await;
        rig.create(&pod("first", gpus(3)).on("gpu-0001")).await;
        rig.node_of("first").await;
        for name in ["second", "third"] {
            rig.create(&pod(name, gpus(2))).await;
            assert_eq!(rig.node_of(name).await, "gpu-0001");
        }
        // One GPU is left there.
        rig.create(&pod("large", gpus(2))).await;
        assert_eq!(rig.node_of("large").await, "gpu-0000");
    });
}

#[test]
fn rig_kai_puts_a_gated_pod_where_it_was_nominated_when_the_gate_goes() {
    in_rig(
        "placement::rig_kai_puts_a_gated_pod_where_it_was_nominated_when_the_gate_goes",
        async || {
            let rig = KaiRig::up(3).await;
            // Packing alone would choose the node that is in use.
            rig.create(&pod("used", gpus(1)).on("gpu-0000")).await;
            rig.node_of("used").await;
            rig.create(&pod("hinted", gpus(1)).gated("test/gate")).await;
            // A gated pod is grouped at once, and not placed.
            rig.group_of("hinted").await;
            rig.cycles(2).await;
            assert_eq!(rig.pod("hinted").await.node(), None);

            rig.nominate("hinted", "gpu-0002").await;
            rig.ungate("hinted").await;
            assert_eq!(rig.node_of("hinted").await, "gpu-0002");

            // A hint to a node without room is no harm.
            rig.create(&pod("full", gpus(8)).on("gpu-0001")).await;
            rig.node_of("full").await;
            rig.create(&pod("late", gpus(1)).gated("test/gate")).await;
            rig.group_of("late").await;
            rig.nominate("late", "gpu-0001").await;
            rig.ungate("late").await;
            assert_ne!(rig.node_of("late").await, "gpu-0001");
        },
    );
}

#[test]
fn rig_kai_keeps_off_nodes_that_are_cordoned_tainted_or_of_unknown_health() {
    in_rig(
        "placement::rig_kai_keeps_off_nodes_that_are_cordoned_tainted_or_of_unknown_health",
        async || {
            let rig = KaiRig::up(1).await;
            rig.patch_node("gpu-0000", json!({"spec": {"unschedulable": true}}))
                .await;
            let mut sick = gpu_node("a-sick", 8);
            sick["status"]["conditions"] = json!([
            {"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "Unknown"}]);
            // Not kwok's: its conditions stay what they are.
            sick["metadata"]["labels"]["type"] = json!("none");
            rig.add_node(sick).await;
            let mut tainted = gpu_node("b-tainted", 8);
            tainted["spec"] = json!({"taints": [{"key": "health", "value": "bad", "effect": "NoSchedule"}]});
            rig.add_node(tainted).await;

            rig.create(&pod("p", gpus(1))).await;
            rig.refused("p").await;
            rig.create(&pod("tolerant", gpus(1)).tolerates("health")).await;
            assert_eq!(rig.node_of("tolerant").await, "b-tainted");
            rig.patch_node("gpu-0000", json!({"spec": {"unschedulable": null}}))
                .await;
            assert_eq!(rig.node_of("p").await, "gpu-0000");
        },
    );
}

#[test]
fn rig_kai_ignores_preferred_node_affinity_and_obeys_the_required() {
    in_rig(
        "placement::rig_kai_ignores_preferred_node_affinity_and_obeys_the_required",
        async || {
            let rig = KaiRig::up(3).await;
            let named =
                |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
            let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": {"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["gpu-0002"]}]}}]});
            rig.create(&pod("wishes", gpus(1)).affinity(&preferred)).await;
            assert_eq!(rig.node_of("wishes").await, "gpu-0000");
            let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [named("gpu-0002")]}});
            rig.create(&pod("needs", gpus(1)).affinity(&required)).await;
            assert_eq!(rig.node_of("needs").await, "gpu-0002");
        },
    );
}

#[test]
fn rig_kai_places_a_gang_together_or_not_at_all() {
    in_rig("placement::rig_kai_places_a_gang_together_or_not_at_all", async || {
        let rig = KaiRig::up(2).await;
        rig.create_group("gang", 3, names::DEFAULT_QUEUE, "preemptible").await;
        for name in ["g-0", "g-1", "g-2"] {
            rig.create(&pod(name, gpus(6)).in_group("gang")).await;
        }
        let told = rig.group_refused("gang").await;
        assert!(told.message.contains("gang"), "{told:?}");
        rig.cycles(2).await;
        for name in ["g-0", "g-1", "g-2"] {
            assert_eq!(rig.pod(name).await.node(), None);
        }
        rig.add_node(gpu_node("gpu-extra", 8)).await;
        for name in ["g-0", "g-1", "g-2"] {
            rig.node_of(name).await;
        }
    });
}

#[test]
fn rig_kai_places_pods_beyond_the_minimum_one_by_one() {
    in_rig(
        "placement::rig_kai_places_pods_beyond_the_minimum_one_by_one",
        async || {
            let rig = KaiRig::up(2).await;
            rig.create_group("elastic", 1, names::DEFAULT_QUEUE, "preemptible")
                .await;
            for name in ["e-0", "e-1", "e-2"] {
                rig.create(&pod(name, gpus(6)).in_group("elastic")).await;
            }
            rig.bound(&["e-0", "e-1", "e-2"], 2).await;
            rig.cycles(2).await;
            rig.bound(&["e-0", "e-1", "e-2"], 2).await;
        },
    );
}

#[test]
fn rig_kai_groups_by_what_made_the_pod() {
    in_rig("placement::rig_kai_groups_by_what_made_the_pod", async || {
        let rig = KaiRig::up(1).await;
        rig.create_owner("apps/v1", "Deployment", "deployed", &pod("d", gpus(1)))
            .await;
        for (name, uid) in rig.pods_of("deployed", 2).await {
            let group = rig.group_of(&name).await;
            assert_eq!(
                group.metadata.name,
                Some(format!("pg-{name}-{uid}")),
                "one group for each pod"
            );
            assert_eq!(group.spec.priority_class_name, "inference");
        }
        rig.create_owner(
            "apps/v1",
            "StatefulSet",
            "stateful",
            &pod("s", gpus(1)).queue("default-queue"),
        )
        .await;
        let pods = rig.pods_of("stateful", 2).await;
        let groups = [rig.group_of(&pods[0].0).await, rig.group_of(&pods[1].0).await];
        assert_eq!(groups[0].metadata.name, groups[1].metadata.name, "one group for all");
        assert_eq!(groups[0].spec.priority_class_name, "train");
        let owner = &groups[0].metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("StatefulSet", "stateful"));
        for (name, _) in pods {
            rig.node_of(&name).await;
        }
    });
}

#[test]
fn rig_kai_lets_a_hinted_pod_wait_for_a_node_that_is_being_emptied() {
    in_rig(
        "placement::rig_kai_lets_a_hinted_pod_wait_for_a_node_that_is_being_emptied",
        async || {
            let mut rig = KaiRig::up(2).await;
            // Its finalizer keeps it, and so its GPUs, until the test lets it go: kwok would take it away.
            rig.create(&pod("leaving", gpus(8)).finalizer("test/stay").on("gpu-0001"))
                .await;
            rig.runs("leaving").await;
            rig.rig.part("kwok").unwrap().pause();
            rig.delete("leaving").await;
            rig.create(&pod("hinted", gpus(8)).gated("test/gate")).await;
            rig.group_of("hinted").await;
            rig.nominate("hinted", "gpu-0001").await;
            rig.ungate("hinted").await;
            rig.event("hinted", "Pipelined").await;
            assert_eq!(rig.pod("hinted").await.node(), None, "gpu-0000 is free, and not taken");
            rig.drop_finalizers("leaving").await;
            assert_eq!(rig.node_of("hinted").await, "gpu-0001");
        },
    );
}
