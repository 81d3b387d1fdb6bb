//! What the control plane asks for, done: `fake-sis` and NATS on one side, a real API server on the other.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

mod ends;
mod kit;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use berth_sis::wire::{CREATION_STREAM, TERMINATION_STREAM};
use berth_testkit::eventually;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use nkeys::KeyPair;
use serde_json::{Value, json};

use kit::{Bench, SOON, in_rig};

#[test]
fn rig_a_function_becomes_a_pod_runs_and_ends_with_one_report_while_its_sibling_runs_on() {
    in_rig(
        "rig_a_function_becomes_a_pod_runs_and_ends_with_one_report_while_its_sibling_runs_on",
        async || {
            let mut bench = Bench::up(16).await;
            bench.start_work();
            let request = bench.ask("2x", 2, &[]).await;
            let instances = bench.until_told(&request, &["starting", "starting"]).await;
            bench.until_empty(CREATION_STREAM).await;
            assert_eq!(bench.held()["H100"], 4);
            let [first, second] = &instances[..] else {
                panic!("{instances:?}")
            };
            let pod = bench.pod(first).await;
            assert_eq!(pod.labels()["kai.scheduler/queue"], "default-queue");
            assert_eq!(
                pod.annotations()["nvcf.nvidia.io/instance-type-name"],
                "NCP.GPU.H100_2x"
            );
            assert_eq!(pod.owner_references()[0].kind, "ICMSRequest");
            let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
            assert_eq!(spec["schedulerName"], "kai-scheduler");
            let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
            let values = &required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"];
            assert_eq!(*values, json!(["NCP.GPU.H100"]));
            assert_eq!(spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "2");
            let kept = bench.requests().await;
            assert_eq!(kept.len(), 2);
            assert_eq!(kept[0].finalizers(), ["nvca.finalizers.nvidia.io"]);

            for instance in [first, second] {
                bench.bind(instance).await;
            }
            bench.until_told(&request, &["running", "running"]).await;
            let before = bench.reports(first).await;
            bench.end(first).await;
            bench.until_requests(1).await;
            bench.until_empty(TERMINATION_STREAM).await;
            let states: Vec<_> = bench.told(&request).await.unwrap().into_iter().collect();
            assert_eq!(
                states,
                [
                    (first.clone(), "terminated".to_owned()),
                    (second.clone(), "running".to_owned())
                ]
            );
            assert_eq!(bench.reports(first).await, before + 1, "its end was told once");
            assert!(bench.pods().get_opt(first).await.unwrap().is_none());
            assert_eq!(bench.held()["H100"], 2);

            // The other goes on under the next process, and somebody deletes its request.
            bench.stop_work().await;
            bench.start_work();
            let kept = &bench.requests().await[0];
            let spec: Value = serde_json::to_value(&kept.status).unwrap();
            assert_eq!(spec["instances"][second.as_str()]["status"], "running");
            let pods = bench.pods().list(&ListParams::default()).await.unwrap();
            assert_eq!(pods.items.len(), 1, "nothing was made twice");
            bench.end(second).await;
            bench.until_told(&request, &["terminated", "terminated"]).await;
            bench.until_requests(0).await;
            assert_eq!(bench.held().get("H100"), None);
        },
    );
}

#[test]
fn rig_a_function_with_secrets_of_its_own_has_them_fetched_into_its_pod() {
    in_rig(
        "rig_a_function_with_secrets_of_its_own_has_them_fetched_into_its_pod",
        async || {
            let mut bench = Bench::up(4).await;
            bench.start_work();
            let environment = "INFERENCE_CONTAINER=registry.invalid/f:1\nUTILS_CONTAINER=registry.invalid/u:1\n\
                INIT_CONTAINER=registry.invalid/i:1\nESS_AGENT_CONTAINER=registry.invalid/e:1\n\
                FUNCTION_SECRETS_PRESENT=true\nSECRETS_ASSERTION_TOKEN=hush\n";
            let environment = BASE64_STANDARD.encode(environment);
            let request = bench
                .ask("1x", 1, &[("LaunchSpecification.Environment", &environment)])
                .await;
            let instances = bench.until_told(&request, &["starting"]).await;
            let pod = serde_json::to_value(bench.pod(&instances[0]).await).unwrap();
            let names = |kind: &str| -> Vec<String> {
                let containers = pod["spec"][kind].as_array().unwrap().iter();
                containers.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(names("containers"), ["ess", "inference", "utils"]);
            assert_eq!(names("initContainers"), ["init", "ess-init"]);
            assert!(!pod.to_string().contains("hush"), "the token is in a Secret");
            bench.bind(&instances[0]).await;
            bench.until_told(&request, &["running"]).await;
        },
    );
}

#[test]
fn rig_what_does_not_fit_waits_what_is_not_supported_is_refused_and_garbage_is_dropped() {
    in_rig(
        "rig_what_does_not_fit_waits_what_is_not_supported_is_refused_and_garbage_is_dropped",
        async || {
            let mut bench = Bench::up(4).await;
            bench.start_work();
            let subject = format!("Create.NVCA.Function.{}.H100.NCP|GPU|H100", bench.cluster());
            bench.publish(&subject, "{no json").await;
            bench
                .publish(&format!("Terminate.NVCA.{}", bench.cluster()), "[]")
                .await;
            bench.until_empty(CREATION_STREAM).await;
            bench.until_empty(TERMINATION_STREAM).await;

            let big = bench.ask("8x", 1, &[]).await;
            let small = bench.ask("2x", 1, &[]).await;
            bench.until_told(&small, &["starting"]).await;
            assert_eq!(bench.told(&big).await.unwrap().len(), 0, "there is no room for it");
            assert_eq!(bench.requests().await.len(), 1);
            bench.set_room(16);
            bench.until_told(&big, &["starting"]).await;

            let chart = [("LaunchSpecification.HelmChart", "oci://registry.invalid/chart")];
            let helm = bench.ask("1x", 1, &chart).await;
            bench.until_told(&helm, &["terminated"]).await;
            bench.until_requests(2).await;

            // SIS is away for a while: the wish is taken on when it is back, once.
            bench.faults(json!([{"on": "PUT /v1/sirs", "status": 503}])).await;
            let late = bench.ask("1x", 1, &[]).await;
            bench.until_requests(3).await;
            bench.faults(json!([])).await;
            let instances = bench.until_told(&late, &["starting"]).await;
            bench.until_empty(CREATION_STREAM).await;

            // Its pod goes away, and nobody here asked for that.
            bench.bind(&instances[0]).await;
            bench.until_told(&late, &["running"]).await;
            let before = bench.reports(&instances[0]).await;
            bench
                .pods()
                .delete(&instances[0], &DeleteParams::default())
                .await
                .unwrap();
            bench.until_told(&late, &["terminated"]).await;
            bench.until_requests(2).await;
            assert_eq!(bench.reports(&instances[0]).await, before + 1);
            let gone = eventually(SOON, async || {
                anyhow::ensure!(bench.held()["H100"] == 10, "{:?}", bench.held());
                Ok(())
            });
            gone.await.unwrap();
        },
    );
}

#[test]
fn rig_what_a_quota_keeps_out_ends_with_one_report_and_what_it_lets_in_runs() {
    in_rig(
        "rig_what_a_quota_keeps_out_ends_with_one_report_and_what_it_lets_in_runs",
        async || {
            let mut bench = Bench::up(16).await;
            bench.quota(2).await;
            bench.start_work();
            let inside = bench.ask("2x", 1, &[]).await;
            let instances = bench.until_told(&inside, &["starting"]).await;
            let outside = bench.ask("2x", 1, &[]).await;
            let kept_out = bench.until_told(&outside, &["terminated"]).await;
            bench.until_requests(1).await;
            assert_eq!(bench.reports(&kept_out[0]).await, 1, "its end is told once");
            assert!(bench.pods().get_opt(&kept_out[0]).await.unwrap().is_none());
            bench.bind(&instances[0]).await;
            bench.until_told(&inside, &["running"]).await;
            assert_eq!(bench.held()["H100"], 2, "what is not here holds nothing");

            // When there is room again, a new wish is done.
            bench.end(&instances[0]).await;
            bench.until_requests(0).await;
            let later = bench.ask("2x", 1, &[]).await;
            bench.until_told(&later, &["starting"]).await;
        },
    );
}

#[test]
fn rig_the_agent_shows_nats_its_key_and_comes_with_the_next_one_when_the_server_wants_that() {
    in_rig(
        "rig_the_agent_shows_nats_its_key_and_comes_with_the_next_one_when_the_server_wants_that",
        async || {
            let mut bench = Bench::up(4).await;
            let (first, second) = (KeyPair::new_user(), KeyPair::new_user());
            bench.lock_nats(&first);
            bench.make_streams().await;
            // The key comes after the agent.
            bench.start_work();
            bench.give_key(&first);
            let subject = format!("Terminate.NVCA.{}", bench.cluster());
            bench.publish(&subject, "garbage").await;
            bench.until_empty(TERMINATION_STREAM).await;
            // OpenBao is ahead of the server.
            bench.give_key(&second);
            bench.lock_nats(&second);
            bench.publish(&subject, "garbage").await;
            bench.until_empty(TERMINATION_STREAM).await;
        },
    );
}
