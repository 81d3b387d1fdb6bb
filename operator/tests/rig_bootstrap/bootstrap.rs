//! The init container: registers or says why not.

use anyhow::Context as _;
use berth_testkit::eventually;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};

use crate::kit::{CREATE, DONE, Install, LIST, SOON, in_rig};

#[test]
fn rig_a_cluster_is_registered_once_and_is_the_same_one_ever_after() {
    in_rig(
        "bootstrap::rig_a_cluster_is_registered_once_and_is_the_same_one_ever_after",
        async |scene| {
            // As the documentation has it: defaults, a fresh control plane.
            let fresh = scene.namespace("nvca-operator").await;
            let sis = json!({"icmsServiceURL": scene.sis.url()});
            let dto = json!({"nvcaVersion": "2.52.0-rc.5", "capabilities": ["DynamicGPUDiscovery", "SelfHosted", "KAIScheduler"],
            "clusterId": "", "attributes": null, "gpusB64": "", "icmsConfig": sis});
            fresh.chart(dto).await;
            let ids = fresh.registers("created").await;
            assert_eq!(
                ids.0, "56f71ab9-94a3-320a-9fd9-457477edeea2",
                "the id of the client id nvca"
            );
            assert_eq!(
                (scene.asked(LIST).await, scene.asked(CREATE).await),
                (2, 1),
                "looked, then under the Lease once more"
            );

            // Again: found, nothing made, nothing written.
            let before = fresh.map().await.unwrap().unwrap().metadata.resource_version;
            assert_eq!(fresh.registers("confirmed").await, ids);
            assert_eq!((scene.asked(LIST).await, scene.asked(CREATE).await), (3, 1));
            assert_eq!(fresh.map().await.unwrap().unwrap().metadata.resource_version, before);

            // The record is lost, or holds half of it: the same cluster.
            fresh.forget().await;
            let half = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nvca-cluster-registration"},
            "data": {"clusterId": "", "clusterGroupId": ""}});
            fresh.apply(half).await;
            assert_eq!(fresh.registers("adopted").await, ids);
            assert_eq!(scene.asked(CREATE).await, 1);

            // An older release recorded it under another name.
            let older = scene.install("older").await;
            let (cluster, group) = older.registers("created").await;
            older.forget().await;
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "nvcfbackend-cluster-bootstrap-registration"},
            "data": {"clusterId": cluster, "clusterGroupId": group}});
            older.apply(map).await;
            assert_eq!(older.registers("confirmed").await, (cluster, group));
        },
    );
}

#[test]
fn rig_two_that_start_together_make_one_cluster_and_a_lost_answer_makes_no_second() {
    in_rig(
        "bootstrap::rig_two_that_start_together_make_one_cluster_and_a_lost_answer_makes_no_second",
        async |scene| {
            let together = scene.install("together").await;
            let (one, two) = (together.start_bootstrap(), together.start_bootstrap());
            let (one, two) = (together.ends(one).await, together.ends(two).await);
            assert!(
                one.status.success() && two.status.success(),
                "{}\n{}",
                one.stderr,
                two.stderr
            );
            assert!(one.stderr.contains(DONE) && two.stderr.contains(DONE));
            assert_eq!(scene.asked(CREATE).await, 1);

            let lost = scene.install("lost").await;
            scene
                .sis
                .faults(json!([{"on": CREATE, "lose": true, "times": 1}]))
                .await;
            lost.registers("adopted").await;
            assert_eq!(scene.asked(CREATE).await, 2, "one more");

            // Somebody else is faster between the look and the creation: both lists miss it.
            let late = scene.install("late").await;
            let first = late.registers("created").await;
            late.forget().await;
            scene
                .sis
                .faults(json!([{"on": LIST, "status": 200, "body": [], "times": 2}]))
                .await;
            assert_eq!(late.registers("adopted").await, first);
            assert_eq!(scene.asked(CREATE).await, 4, "one that made it, one that was refused");
        },
    );
}

#[test]
fn rig_one_that_is_killed_while_it_registers_keeps_the_next_one_waiting_for_seconds_only() {
    in_rig(
        "bootstrap::rig_one_that_is_killed_while_it_registers_keeps_the_next_one_waiting_for_seconds_only",
        async |scene| {
            let install = scene.install("killed").await;
            scene
                .sis
                .faults(json!([{"on": CREATE, "hang": true, "times": 1}]))
                .await;
            let mut killed = install.start_bootstrap();
            let leases: Api<Lease> = Api::namespaced(scene.rig.client(), "killed");
            let holder = async || {
                let lease = leases.get_opt("nvca-self-managed").await?;
                let spec = lease.and_then(|lease| lease.spec).context("no Lease")?;
                spec.holder_identity.context("nobody holds it")
            };
            eventually(SOON, async || holder().await).await.unwrap();
            killed.kill();
            let ended = install.bootstrap().await;
            install.is_done(&ended.stderr, "created").await;
            assert!(
                ended.stderr.contains("it is another process's turn"),
                "{}",
                ended.stderr
            );
            assert!(holder().await.is_err(), "it is given up in the end");
        },
    );
}

#[test]
fn rig_without_a_right_it_says_which_and_with_these_few_it_works() {
    in_rig(
        "bootstrap::rig_without_a_right_it_says_which_and_with_these_few_it_works",
        async |scene| {
            let install = scene.install("rights").await;
            let kubeconfig = install.as_service_account();
            let run = |install: &Install| {
                install
                    .program("bootstrap")
                    .arg("--kubeconfig", &kubeconfig)
                    .spawn()
                    .unwrap()
            };
            let ended = install.ends(run(&install)).await;
            assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
            for words in [
                "cannot read the ConfigMap nvcfbackend-self-managed",
                "the chart's Role must allow it",
                "nobody",
            ] {
                assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
            }
            install.allow(&scene.rig.client()).await;
            let ended = install.ends(run(&install)).await;
            assert!(ended.status.success(), "{}", ended.stderr);
            install.is_done(&ended.stderr, "created").await;
            let watch = install
                .program("watch")
                .arg("--admin", "127.0.0.1:0")
                .arg("--kubeconfig", &kubeconfig);
            let watch = watch.start().await.unwrap();
            install.says(&watch, "the cluster is registered").await;
            install.forget().await;
            eventually(SOON, async || install.record().await).await.unwrap();
            assert!(!watch.stderr().contains("a watch broke"), "{}", watch.stderr());
        },
    );
}

#[test]
fn rig_what_a_person_must_change_is_told_in_plain_words_and_ends_it_at_once() {
    in_rig(
        "bootstrap::rig_what_a_person_must_change_is_told_in_plain_words_and_ends_it_at_once",
        async |scene| {
            let first = scene.install("first").await;
            first.registers("created").await;
            let (lists, creates) = (scene.asked(LIST).await, scene.asked(CREATE).await);

            // Mistakes in the chart's values: told before anything is asked.
            let bad = scene.namespace("bad").await;
            let with = |changes: Value| {
                let mut dto = scene.dto("bad");
                dto.as_object_mut()
                    .unwrap()
                    .extend(changes.as_object().unwrap().clone());
                dto
            };
            for (dto, words) in [
                (
                    with(json!({"clusterName": "a".repeat(33)})),
                    "33 characters, and at most 32",
                ),
                (with(json!({"clusterName": "my.cluster"})), "no dots"),
                (with(json!({"clusterName": "EDGE"})), "lower-case"),
                (with(json!({"region": "mars-1"})), "region `mars-1` is unknown"),
                (with(json!({"region": "us_west_1"})), "near to it: us-west-1"),
                (with(json!({"cloudProvider": "ncp"})), "in capitals"),
                (with(json!({"capabilities": []})), "gpus must be listed"),
                (with(json!({"capabilities": [], "gpusB64": "%"})), "gpusB64"),
                (
                    with(json!({"capabilities": "all"})),
                    "cluster-dto.yaml of the ConfigMap nvcfbackend-self-managed",
                ),
                (
                    with(json!({"icmsConfig": {"icmsServiceURL": "sis"}})),
                    "`sis` is no address of SIS",
                ),
            ] {
                bad.chart(dto).await;
                let log = bad.fails().await;
                assert!(log.contains(words), "{words}: {log}");
            }
            let empty =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nvcfbackend-self-managed"}});
            bad.apply(empty).await;
            assert!(bad.fails().await.contains("the chart is not in self-managed mode"));
            assert_eq!((scene.asked(LIST).await, scene.asked(CREATE).await), (lists, creates));

            // What only SIS can know: one creation, no more.
            let mut provider = scene.dto("provider");
            provider["cloudProvider"] = json!("AWS");
            bad.chart(provider).await;
            let log = bad.fails().await;
            assert!(log.contains("cloudProvider AWS is different"), "{log}");
            assert_eq!(scene.asked(CREATE).await, creates + 1);
            let mut renamed = scene.dto("renamed");
            renamed["oAuthClientId"] = json!("first");
            bad.chart(renamed).await;
            let log = bad.fails().await;
            assert!(log.contains("set clusterName to first"), "{log}");
            assert_eq!(scene.asked(CREATE).await, creates + 2);

            // The longest name that will do; and a cluster that was registered with another client id.
            let longest = "a".repeat(32);
            let mut dto = scene.dto(&longest);
            dto["oAuthClientId"] = json!("someone");
            bad.chart(dto.clone()).await;
            let ids = bad.registers("created").await;
            dto["oAuthClientId"] = json!("nvca");
            dto["clusterId"] = json!("not-this-one");
            bad.chart(dto).await;
            let ended = bad.bootstrap().await;
            assert_eq!(bad.is_done(&ended.stderr, "confirmed").await, ids);
            assert!(
                ended
                    .stderr
                    .contains("SIS will refuse the agent's token, whose subject is `nvca`"),
                "{}",
                ended.stderr
            );
            assert!(ended.stderr.contains("`not-this-one` is wanted"), "{}", ended.stderr);
        },
    );
}

#[test]
fn rig_a_token_that_is_late_or_wrong_is_waited_for_and_never_told() {
    in_rig(
        "bootstrap::rig_a_token_that_is_late_or_wrong_is_waited_for_and_never_told",
        async |scene| {
            // Nothing is there yet: neither the token nor the ConfigMap.
            let late = scene.namespace("late").await;
            late.take_token();
            let run = late.start_bootstrap();
            late.says(&run, "is the chart installed there").await;
            late.chart(scene.dto("late")).await;
            late.says(&run, "OpenBao's agent has not written it").await;
            assert!(late.map().await.unwrap().is_none());
            scene.give_token(&late, |_| {});
            let ended = late.ends(run).await;
            late.is_done(&ended.stderr, "created").await;

            let wrong = scene.install("wrong").await;
            let asked = scene.asked(LIST).await;
            scene.give_token(&wrong, |claims| claims["exp"] = json!(1000));
            let run = wrong.start_bootstrap();
            wrong.says(&run, "OpenBao's agent has not renewed it").await;
            scene.give_token(&wrong, |claims| claims["scopes"] = json!(["nvca-cluster"]));
            wrong.says(&run, "needs \\\"cluster-management\\\"").await;
            scene.give_token(&wrong, |claims| claims["iss"] = json!("http://elsewhere"));
            wrong.says(&run, "another signing role made it").await;
            assert_eq!(scene.asked(LIST).await, asked, "no such token is sent");
            // Signed by somebody else: only SIS can know.
            let stranger = berth_testkit::Authority::start().await;
            wrong.give(&stranger.token(|_| {}));
            wrong.says(&run, "SIS refused the token").await;
            // For another audience: SIS takes it, and it is told.
            scene.give_token(&wrong, |claims| claims["aud"] = json!(["somebody"]));
            let ended = wrong.ends(run).await;
            wrong.is_done(&ended.stderr, "created").await;
            assert!(ended.stderr.contains("the service takes it today"), "{}", ended.stderr);

            // It does not come in time.
            let never = scene.install("never").await;
            never.take_token();
            let ended = never
                .ends(never.program("bootstrap").arg("--timeout", "1s").spawn().unwrap())
                .await;
            assert_eq!(ended.status.code(), Some(1));
            assert!(
                ended.stderr.contains("was not registered within 1s") && ended.stderr.contains("TokenMissing"),
                "{}",
                ended.stderr
            );
            assert!(never.map().await.unwrap().is_none());
            // Asked to end, it ends.
            let mut run = never.start_bootstrap();
            never.says(&run, "OpenBao's agent has not written it").await;
            run.terminate().unwrap();
            let status = run.wait(SOON).await.unwrap();
            assert_eq!(status.code(), Some(1), "{}", run.stderr());
        },
    );
}

#[test]
fn rig_an_outage_of_sis_is_waited_out_and_keeps_no_known_cluster_from_starting() {
    in_rig(
        "bootstrap::rig_an_outage_of_sis_is_waited_out_and_keeps_no_known_cluster_from_starting",
        async |scene| {
            let known = scene.install("known").await;
            let ids = known.registers("created").await;

            // Failures of the service, and a wait that it asks for, which a new token does not shorten.
            let patient = scene.install("patient").await;
            let before = scene.asked(LIST).await;
            let faults = json!([{"on": LIST, "status": 500, "times": 1}, {"on": LIST, "status": 429, "retry_after": 4, "times": 1}]);
            scene.sis.faults(faults).await;
            let run = patient.start_bootstrap();
            patient.says(&run, "SisTooManyRequests").await;
            scene.give_token(&patient, |_| {});
            let ended = patient.ends(run).await;
            patient.is_done(&ended.stderr, "created").await;
            assert!(ended.stderr.contains("SIS failed (500)"), "{}", ended.stderr);
            let times = scene.sis.asked_at(LIST).await.unwrap().split_off(before);
            assert!(times.len() == 4 && times[2] - times[1] >= 4000, "{times:?}");

            // A gateway while SIS is being rolled out, and what SIS would refuse for good: who is known goes on.
            for status in [404, 405, 408, 425, 412] {
                scene
                    .sis
                    .faults(json!([{"on": LIST, "status": status, "times": 1}]))
                    .await;
                let ended = known.bootstrap().await;
                assert!(ended.status.success(), "{status}: {}", ended.stderr);
                assert_eq!(known.is_done(&ended.stderr, "unconfirmed").await, ids);
            }

            // Away: who is known goes on, who is not waits.
            let address = scene.sis.process.address("http").to_owned();
            scene.sis.process.kill();
            let ended = known.bootstrap().await;
            assert!(ended.status.success(), "{}", ended.stderr);
            assert_eq!(known.is_done(&ended.stderr, "unconfirmed").await, ids);
            known.take_token();
            assert_eq!(known.registers("unconfirmed").await, ids);
            let waiting = scene.install("waiting").await;
            let run = waiting.start_bootstrap();
            waiting.says(&run, "SIS cannot be reached").await;
            assert!(waiting.map().await.unwrap().is_none());
            scene.sis.restart().await.unwrap();
            assert_eq!(scene.sis.process.address("http"), address);
            let ended = waiting.ends(run).await;
            waiting.is_done(&ended.stderr, "created").await;
        },
    );
}
