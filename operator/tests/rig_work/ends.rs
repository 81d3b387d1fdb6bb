//! How instances end that nobody asked to end: pods that do not come up, maintenance, a queue that is away.

use berth_operator::agent::seam::Orders;
use berth_runtime::{Clock as _, ManualClock, SystemClock};
use berth_sis::wire::{CREATION_STREAM, TERMINATION_STREAM};
use berth_testkit::eventually;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::kit::{Bench, SOON, in_rig};

/// So many seconds ago.
fn ago(seconds: i64) -> Value {
    json!((Timestamp::now() - SignedDuration::from_secs(seconds)).to_string())
}

fn condition(kind: &str, status: &str, seconds: i64) -> Value {
    json!({"type": kind, "status": status, "lastTransitionTime": ago(seconds), "message": "0/2 nodes are available"})
}

fn container(restarts: u32, reason: &str) -> Value {
    json!([{"name": "inference", "image": "f", "imageID": "", "ready": false, "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": "the kubelet's words"}}}])
}

/// A request with one instance, whose pod runs.
async fn running(bench: &Bench) -> (String, String) {
    let (request, instance) = starting(bench).await;
    bench.bind(&instance).await;
    bench.until_told(&request, &["running"]).await;
    (request, instance)
}

async fn starting(bench: &Bench) -> (String, String) {
    let request = bench.ask("1x", 1, &[]).await;
    let instances = bench.until_told(&request, &["starting"]).await;
    (request, instances.into_iter().next().unwrap())
}

async fn no_pods(bench: &Bench) {
    let pods = bench.pods().list(&ListParams::default()).await.unwrap();
    assert_eq!(pods.items.len(), 0);
}

#[test]
fn rig_pods_that_do_not_come_up_end_in_time_with_words_for_it_also_across_a_restart() {
    in_rig(
        "ends::rig_pods_that_do_not_come_up_end_in_time_with_words_for_it_also_across_a_restart",
        async || {
            let mut bench = Bench::up(16).await;
            bench.start_work();
            let placed = [
                condition("PodScheduled", "True", 900),
                condition("Initialized", "True", 900),
            ];
            let unready = [
                condition("ContainersReady", "False", 1900),
                condition("Ready", "False", 1900),
            ];
            let unready = placed.iter().chain(&unready).cloned().collect::<Vec<_>>();
            let of_node = |seconds: i64, phase: &str, conditions: &[Value], containers: Value| json!({"phase": phase, "startTime": ago(seconds), "conditions": conditions, "containerStatuses": containers});
            let pulling = of_node(900, "Pending", &placed, container(0, "ImagePullBackOff"));
            let degraded = of_node(9000, "Running", &unready, container(0, "Sleeping"));
            let making = of_node(5, "Pending", &placed, container(0, "CreateContainerConfigError"));
            for (status, word, text) in [
                (
                    pulling,
                    "image-pull-issues",
                    "container inference: ImagePullBackOff: the kubelet's words",
                ),
                (degraded, "degraded-worker", "container inference: Sleeping"),
                (making, "create-container-error", "CreateContainerConfigError"),
            ] {
                let (request, instance) = running(&bench).await;
                bench.say(&instance, status).await;
                bench.until_told(&request, &["terminated"]).await;
                let end = bench.end_of(&request, &instance).await;
                assert_eq!(end["terminationCause"], word);
                let told = end["healthInfo"]["errorLog"].as_str().unwrap();
                assert!(told.contains(text), "{told}");
            }

            let (lonely, waits) = starting(&bench).await;
            let nowhere = json!({"conditions": [condition("PodScheduled", "False", 601)]});
            bench.say(&waits, nowhere).await;
            bench.until_told(&lonely, &["terminated"]).await;
            let end = bench.end_of(&lonely, &waits).await;
            assert_eq!(end["terminationCause"], "instance-terminated-no-capacity");
            assert!(
                end["healthInfo"].to_string().contains("0/2 nodes are available"),
                "{end}"
            );

            // The pod's own time counts, and not that of the agent, which starts anew shortly before.
            let (request, instance) = running(&bench).await;
            let looping = of_node(595, "Running", &unready[..2], container(3, "CrashLoopBackOff"));
            bench.say(&instance, looping).await;
            bench.until_told(&request, &["starting"]).await;
            bench.stop_work().await;
            bench.start_work();
            bench.until_told(&request, &["terminated"]).await;
            let end = bench.end_of(&request, &instance).await;
            assert_eq!(end["terminationCause"], "container-restart-loop");
            assert!(end["healthInfo"].to_string().contains("restarted 3 times"), "{end}");
            bench.until_requests(0).await;
            no_pods(&bench).await;
        },
    );
}

#[test]
fn rig_maintenance_drains_what_runs_and_afterwards_there_is_work_again() {
    in_rig(
        "ends::rig_maintenance_drains_what_runs_and_afterwards_there_is_work_again",
        async || {
            let mut bench = Bench::up(4).await;
            bench.start_work();
            let (runs, first) = running(&bench).await;
            let (starts, second) = starting(&bench).await;
            // What comes now has no room: the rest of the agent says so.
            bench.set_room(0);
            bench.set_flags(&["KAIScheduler", "CordonAndDrainMaintenance"]);
            for (request, instance) in [(&runs, &first), (&starts, &second)] {
                bench.until_told(request, &["terminated"]).await;
                let end = bench.end_of(request, instance).await;
                assert_eq!(end["terminationCause"], "instance-terminated-service-maintenance");
                assert_eq!(end["healthInfo"], json!({}), "nothing failed");
            }
            bench.until_requests(0).await;
            no_pods(&bench).await;
            let late = bench.ask("1x", 1, &[]).await;
            bench.set_flags(&["KAIScheduler"]);
            bench.set_room(4);
            let started = bench.until_told(&late, &["starting"]).await;

            // The same where SIS answers SELF_DESTRUCT.
            bench.set_room(0);
            bench.order(Orders::Leave);
            bench.until_told(&late, &["terminated"]).await;
            let end = bench.end_of(&late, &started[0]).await;
            assert_eq!(end["terminationCause"], "instance-terminated-service-maintenance");
            no_pods(&bench).await;
        },
    );
}

#[test]
fn rig_a_message_that_comes_again_when_its_request_is_over_makes_nothing_again() {
    in_rig(
        "ends::rig_a_message_that_comes_again_when_its_request_is_over_makes_nothing_again",
        async || {
            let mut bench = Bench::up(4).await;
            bench.make_streams().await;
            bench.faults(json!([{"on": "PUT /v1/sirs", "status": 503}])).await;
            bench.start_work();
            let request = bench.ask("1x", 1, &[]).await;
            bench.until_requests(1).await;
            // SIS is back when the queue has gone: the message cannot be settled.
            bench.nats().kill();
            bench.faults(json!([])).await;
            let instances = bench.until_told(&request, &["starting"]).await;
            let instance = &instances[0];
            bench.bind(instance).await;
            bench.until_told(&request, &["running"]).await;
            bench
                .say(instance, json!({"phase": "Failed", "reason": "Evicted"}))
                .await;
            bench.until_told(&request, &["terminated"]).await;
            let reports = bench.reports(instance).await;

            // Neither does the next process know whether it was.
            bench.stop_work().await;
            bench.start_work();
            assert_eq!(bench.requests().await.len(), 1, "it waits for its message");
            bench.nats().restart().unwrap();
            bench.deliver_again().await;
            bench.until_empty(CREATION_STREAM).await;
            bench.until_requests(0).await;
            no_pods(&bench).await;
            assert_eq!(bench.reports(instance).await, reports, "nothing more was told");
        },
    );
}

#[test]
fn rig_an_instance_ends_also_where_its_node_does_not_answer() {
    in_rig(
        "ends::rig_an_instance_ends_also_where_its_node_does_not_answer",
        async || {
            let mut bench = Bench::up(4).await;
            bench.start_work();
            let (request, instance) = starting(&bench).await;
            bench.bind_to_nobody(&instance).await;
            bench.end(&instance).await;
            let deleted = eventually(SOON, async || {
                let pod = bench.pods().get(&instance).await?;
                anyhow::ensure!(pod.metadata.deletion_timestamp.is_some());
                Ok(())
            });
            deleted.await.unwrap();
            bench.until_empty(TERMINATION_STREAM).await;
            bench.stop_work().await;
            let told = bench.told(&request).await.unwrap();
            assert_eq!(told[&instance], "shutting-down");

            // Its two minutes are over, and five more.
            let later = SystemClock::new().now_unix_ms() + 430_000;
            bench.start_work_by(ManualClock::at_unix_ms(later).shared());
            bench.until_told(&request, &["terminated"]).await;
            bench.until_requests(0).await;
            no_pods(&bench).await;
        },
    );
}
