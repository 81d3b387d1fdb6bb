//! The release on a real control plane: installed, at work, upgraded, gone.

use anyhow::{Context as _, ensure};
use berth_testkit::{eventually, rig::in_rig};
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingAdmissionPolicy},
    core::v1::{Node, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::{
    access,
    cluster::{Cluster, SOON, WAIT},
    kit::{NAMESPACE, RELEASE},
    programs::{Pods, names},
};

#[test]
fn rig_chart_runs_our_programs_with_its_certificates_and_no_right_too_few() {
    in_rig(
        "install::rig_chart_runs_our_programs_with_its_certificates_and_no_right_too_few",
        async || {
            let mut cluster = Cluster::up(2, false).await;
            let set = [
                "kubeScheduler.enabled=true",
                "daemon.simulate=dgx-h100",
                "scheduler.replicas=1",
            ];
            let more = [&["--create-namespace"], WAIT].concat();
            let notes = cluster.helm("install", &set, &more);
            assert!(
                notes.contains("10.7.0.0, 10.7.0.1") && notes.contains("INVENTED"),
                "{notes}"
            );

            let pods = cluster.pods();
            let daemon_pod = cluster.pod("daemon", Some("gpu-0000")).await;
            let as_daemon = pods.kubeconfig("berth-daemon", &daemon_pod);
            let _daemon = pods.daemon("gpu-0000", &as_daemon).await;
            let scheduler_pod = cluster.pod("scheduler", None).await;
            let as_scheduler = pods.kubeconfig("berth-scheduler", &scheduler_pod);
            let _scheduler = pods.scheduler(&as_scheduler).await;
            let kube_pod = cluster.pod("kube-scheduler", None).await;
            let as_kube = pods.kubeconfig("berth-kube-scheduler", &kube_pod);
            let args = pods.kube_scheduler(&as_kube).await;

            // berthd tells of its node, and of no other.
            let gpu_node = || {
                cluster
                    .tools
                    .run("kubectl", &["get", "gpunode", "gpu-0000", "-o", "json"])
            };
            let told = eventually(SOON, async || {
                let told: Value = serde_json::from_str(&gpu_node().map_err(anyhow::Error::msg)?)?;
                ensure!(told["status"]["summary"]["gpus"] == 8, "{told}");
                Ok(told)
            });
            assert!(told.await.unwrap().to_string().contains("https://127.0.0.1:9440"));
            let nodes: Api<Node> = Api::all(cluster.rig.client());
            eventually(SOON, async || {
                let node = nodes.get("gpu-0000").await?;
                ensure!(node.labels().contains_key("gpu.berth.dev/health"), "no label");
                Ok(())
            })
            .await
            .unwrap();
            only_its_own_node(&pods.client(&as_daemon).await).await;
            policy_is_well_typed(&cluster).await;

            who_gets_in(&cluster, &pods).await;

            // kube-scheduler asks the scheduler, which reserves on the daemon and binds.
            let program = cluster.rig.tools().join("kube-scheduler");
            cluster.rig.start("kube-scheduler-of-berth", &program, args).unwrap();
            cluster.until_usable(1).await;
            let spec = json!({
                "schedulerName": "berth", "nodeSelector": {"kubernetes.io/hostname": "gpu-0000"},
                "containers": [{"name": "c", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "2"}}}],
            });
            cluster.create(json!({"metadata": {"name": "p"}, "spec": spec})).await;
            assert_eq!(cluster.placed("p").await["node"], "gpu-0000");
            // And says so.
            eventually(SOON, async || {
                let events = cluster.tools.kubectl(&["get", "events", "-o", "json"]);
                ensure!(events.contains("BerthPlaced"), "{events}");
                Ok(())
            })
            .await
            .unwrap();
        },
    );
}

/// A key from a node opens no door: neither another node's daemon nor a scheduler takes it for a client.
async fn who_gets_in(cluster: &Cluster, pods: &Pods<'_>) {
    let [daemon, scheduler, kube] = [
        pods.mount("berth-daemon-tls").await,
        pods.mount("berth-scheduler-tls").await,
        pods.mount("berth-kube-scheduler-tls").await,
    ];
    let service = ["-authority", "berth-scheduler.gpu.svc"];
    for (at, name, authority, client, gets_in) in [
        (
            "127.0.0.1:9440",
            &[][..],
            scheduler.join("node-ca.crt"),
            &scheduler,
            true,
        ),
        ("127.0.0.1:9440", &[], scheduler.join("node-ca.crt"), &daemon, false),
        ("127.0.0.1:9451", &service, kube.join("ca.crt"), &kube, true),
        ("127.0.0.1:9451", &service, kube.join("ca.crt"), &daemon, false),
        // Who trusts clients' authority takes no daemon for a server, and so on.
        ("127.0.0.1:9440", &[], scheduler.join("ca.crt"), &scheduler, false),
    ] {
        let files = [authority, client.join("tls.crt"), client.join("tls.key")];
        let [authority, cert, key] = files.each_ref().map(|path| path.to_str().unwrap());
        let tls = ["-max-time", "5", "-cacert", authority, "-cert", cert, "-key", key];
        let told = cluster.tools.run("grpcurl", &[&tls[..], name, &[at, "list"]].concat());
        assert_eq!(told.is_ok(), gets_in, "{} at {at}: {told:?}", client.display());
    }
}

/// What RBAC cannot say: a daemon writes to its own node, and there only its labels.
async fn only_its_own_node(daemon: &kube::Client) {
    let nodes: Api<Node> = Api::all(daemon.clone());
    let change = async |node: &str, patch: Value| {
        let patch = Patch::Merge(patch);
        nodes.patch(node, &PatchParams::default(), &patch).await
    };
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    change("gpu-0000", label("gpu.berth.dev/test")).await.unwrap();
    for (node, patch, tells) in [
        ("gpu-0001", label("gpu.berth.dev/test"), "its own node only"),
        ("gpu-0000", label("nvidia.com/gpu.count"), "only labels of its node"),
        (
            "gpu-0000",
            json!({"metadata": {"labels": {"nvidia.com/gpu.count": null}}}),
            "only labels of its node",
        ),
        (
            "gpu-0000",
            json!({"spec": {"unschedulable": true}}),
            "undo no cordon but its own",
        ),
        (
            "gpu-0000",
            json!({"spec": {"taints": [{"key": "gpu.berth.dev/unhealthy", "effect": "NoSchedule"}]}}),
            "may change no taint",
        ),
        ("gpu-0000", json!({"spec": {"providerID": "x"}}), "but its own marks"),
    ] {
        let refused = change(node, patch).await.unwrap_err().to_string();
        assert!(refused.contains(tells), "{refused}");
    }
    let kind = GroupVersionKind::gvk("gpu.berth.dev", "v1alpha1", "GpuNode");
    let gpu_nodes: Api<DynamicObject> = Api::all_with(daemon.clone(), &ApiResource::from_gvk(&kind));
    let lie = json!({"apiVersion": "gpu.berth.dev/v1alpha1", "kind": "GpuNode", "metadata": {"name": "gpu-0001"}, "spec": {}});
    let params = PatchParams::apply("berthd").force();
    let refused = gpu_nodes.patch("gpu-0001", &params, &Patch::Apply(lie)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("its own node only"), "{refused}");
}

/// The API server looks at the expressions with the types of what they are for.
async fn policy_is_well_typed(cluster: &Cluster) {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(cluster.rig.client());
    let checked = eventually(SOON, async || {
        let policy = policies.get("berth-daemon-own-node").await?;
        let status = policy.status.context("nobody looked at it yet")?;
        status.type_checking.context("its types are not checked yet")
    });
    let warnings = checked.await.unwrap().expression_warnings.unwrap_or_default();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn rig_chart_installs_upgrades_and_goes_with_everything_it_brought() {
    in_rig(
        "install::rig_chart_installs_upgrades_and_goes_with_everything_it_brought",
        async || {
            let cluster = Cluster::up(2, false).await;
            let client = cluster.rig.client();
            cluster.helm("install", &[], &[&["--create-namespace"], WAIT].concat());
            access::check(
                &client,
                "berth-daemon",
                &[access::DAEMON],
                &[access::DANGEROUS, access::OF_SCHEDULERS],
            )
            .await;
            let denied = [access::DANGEROUS, access::OF_DAEMONS, access::KAI_ONLY, access::BIND];
            access::check(&client, "berth-scheduler", &[access::SCHEDULER], &denied).await;

            // What is made once stays; a node that joined is in the daemons' certificate; the scheduler's is what it was.
            let kept = ["berth-node-authority", "berth-client-authority", "berth-scheduler-tls"];
            let mut before = Vec::new();
            for name in kept {
                before.push(cluster.secret(name, "tls.key").await);
            }
            let daemons = cluster.secret("berth-daemon-tls", "tls.crt").await;
            cluster.helm("upgrade", &["kai.mode=hint"], WAIT);
            assert_eq!(cluster.secret("berth-daemon-tls", "tls.crt").await, daemons);
            cluster.address("gpu-0001", "10.7.0.99").await;
            cluster.helm("upgrade", &["kai.mode=hint"], WAIT);
            for (name, key) in kept.into_iter().zip(before) {
                assert_eq!(cluster.secret(name, "tls.key").await, key, "{name} is another one");
            }
            let daemons = names(&cluster.secret("berth-daemon-tls", "tls.crt").await);
            assert!(
                daemons.contains("[10, 7, 0, 0]") && daemons.contains("[10, 7, 0, 99]"),
                "{daemons}"
            );
            renewal(&cluster).await;
            let needed = [access::SCHEDULER, access::KAI];
            let denied = [access::DANGEROUS, access::OF_DAEMONS, access::BIND];
            access::check(&client, "berth-scheduler", &needed, &denied).await;

            webhook(&cluster).await;
            cluster.helm("upgrade", &["kai.mode=bind"], WAIT);
            let hooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
            let hook = hooks.get("berth-placement").await.unwrap();
            assert_eq!(
                hook.webhooks.map(|hooks| hooks.len()),
                Some(1),
                "an upgrade emptied the webhook"
            );
            let needed = [access::SCHEDULER, access::KAI, access::BIND];
            let denied = [access::DANGEROUS, access::OF_DAEMONS];
            access::check(&client, "berth-scheduler", &needed, &denied).await;

            cluster.helm("uninstall", &[], WAIT);
            let kinds = cluster.tools.kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
            let kinds = kinds.split_whitespace().collect::<Vec<_>>().join(",");
            let label = format!("app.kubernetes.io/instance={RELEASE}");
            eventually(SOON, async || {
                let left = cluster
                    .tools
                    .kubectl(&["get", &kinds, "-A", "-l", &label, "-o", "name"]);
                ensure!(left.is_empty(), "left: {left}");
                Ok(())
            })
            .await
            .unwrap();
        },
    );
}

/// A certificate that is old, or whose authority was replaced, is made anew; the others stay.
async fn renewal(cluster: &Cluster) {
    let keys = async || {
        let mut keys = Vec::new();
        for name in ["berth-daemon-tls", "berth-scheduler-tls"] {
            keys.push(cluster.secret(name, "tls.key").await);
        }
        keys
    };
    let secrets: Api<Secret> = Api::namespaced(cluster.rig.client(), NAMESPACE);
    let first = keys().await;
    let old = json!({"metadata": {"annotations": {"gpu.berth.dev/certificate-made": "1"}}});
    let params = PatchParams::default();
    secrets
        .patch("berth-scheduler-tls", &params, &Patch::Merge(old))
        .await
        .unwrap();
    cluster.helm("upgrade", &["kai.mode=hint"], WAIT);
    let second = keys().await;
    assert!(
        second[0] == first[0] && second[1] != first[1],
        "not just the old one is new"
    );
    secrets
        .delete("berth-node-authority", &DeleteParams::default())
        .await
        .unwrap();
    cluster.helm("upgrade", &["kai.mode=hint"], WAIT);
    let third = keys().await;
    assert!(
        third[0] != second[0] && third[1] == second[1],
        "not just the new authority's is new"
    );
    let trusted = cluster.secret("berth-scheduler-tls", "node-ca.crt").await;
    assert_eq!(trusted, cluster.secret("berth-node-authority", "tls.crt").await);
}

/// As berth-scheduler fills it in: with its own rights, by server-side apply, also where somebody deleted it.
async fn webhook(cluster: &Cluster) {
    let pods = cluster.pods();
    let pod = cluster.pod("scheduler", None).await;
    let client = pods.client(&pods.kubeconfig("berth-scheduler", &pod)).await;
    let hooks: Api<MutatingWebhookConfiguration> = Api::all(client);
    let apply = async |name: &str| {
        let hook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": name},
            "webhooks": [{
                "name": "placement.gpu.berth.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Ignore", "timeoutSeconds": 1,
                "clientConfig": {"service": {"namespace": NAMESPACE, "name": "berth-webhook", "path": "/mutate"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "matchConditions": [{"name": "kai", "expression": "object.spec.schedulerName == 'kai-scheduler'"}],
            }],
        });
        let params = PatchParams::apply("berth-scheduler").force();
        hooks.patch(name, &params, &Patch::Apply(hook)).await
    };
    apply("berth-placement").await.unwrap();
    let admin: Api<MutatingWebhookConfiguration> = Api::all(cluster.rig.client());
    admin.delete("berth-placement", &DeleteParams::default()).await.unwrap();
    apply("berth-placement").await.unwrap();
    assert!(apply("another").await.is_err(), "it may make any webhook");
}
