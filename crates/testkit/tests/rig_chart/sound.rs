//! What helm makes of values, without a cluster.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kit::{Tools, args, object, read};

const DEFAULTS: &[&str] = &[];
const EVERYTHING: &[&str] = &[
    "kai.mode=hint",
    "kubeScheduler.enabled=true",
    "metrics.podMonitor.enabled=true",
    "scheduler.allow={cn:me}",
    "tls.nodeAddresses={10.1.2.3,fd00::1}",
];
const KAI_BINDS: &[&str] = &[
    "kai.mode=bind",
    "daemon.simulate=dgx-h100x4",
    "daemon.hostNetwork=true",
    "daemon.nodeHealth=cordon",
];
const OWN_SECRETS: &[&str] = &[
    "tls.source=existing",
    "tls.existing.daemon=a",
    "tls.existing.scheduler=b",
    "daemon.driver.libraryHostPath=/driver/lib/libnvidia-ml.so.1",
];
const OWN_FILES: &[&str] = &[
    "tls.source=existing",
    "tls.daemonHostPath=/etc/berth/tls",
    "tls.existing.scheduler=b",
    "tls.existing.kubeScheduler=c",
    "kubeScheduler.enabled=true",
    "fullnameOverride=another",
];
const DAEMONS_ONLY: &[&str] = &["scheduler.enabled=false", "daemon.nodeHealth=taint"];
const ALL: &[&[&str]] = &[DEFAULTS, EVERYTHING, KAI_BINDS, OWN_SECRETS, OWN_FILES, DAEMONS_ONLY];

/// The part of docs/cli.md that is about one program.
fn help_of(program: &str) -> String {
    let page = read("docs/cli.md");
    let rest = page.split_once(&format!("## {program}\n")).unwrap().1;
    rest.split("\n## ").next().unwrap().to_owned()
}

#[test]
fn rig_chart_is_sound_with_every_kind_of_values() {
    let tools = Tools::new(None);
    for set in ALL {
        let mut lint = vec!["--strict", "--kube-version", "1.34.0"];
        for value in *set {
            lint.extend(["--set", value]);
        }
        tools
            .helm("lint", &[], &lint)
            .unwrap_or_else(|told| panic!("{set:?}: {told}"));
        let objects = tools.template(set).unwrap_or_else(|told| panic!("{set:?}: {told}"));
        for object in &objects {
            check_rules(object);
            check_pods(object);
        }
        let mut ids: Vec<_> = objects
            .iter()
            .map(|object| (object["kind"].to_string(), object["metadata"].to_string()))
            .collect();
        ids.sort();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all, "{set:?}: the same object twice");
    }
}

/// No right to everything, and none that is as good as that.
fn check_rules(object: &Value) {
    for rule in object["rules"].as_array().into_iter().flatten() {
        let words =
            |field: &str| -> BTreeSet<String> { serde_json::from_value(rule[field].clone()).unwrap_or_default() };
        let (verbs, resources) = (words("verbs"), words("resources"));
        for word in ["*", "escalate", "bind", "impersonate", "delete", "deletecollection"] {
            assert!(!verbs.contains(word), "{rule}");
        }
        assert!(!resources.contains("*") && !words("apiGroups").contains("*"), "{rule}");
        // All secrets of a namespace are everybody's keys.
        if resources.contains("secrets") && rule.get("resourceNames").is_none() {
            assert_eq!(verbs, ["create".to_owned()].into(), "{rule}");
        }
    }
}

/// What a pod may do to its node.
fn check_pods(object: &Value) {
    let pod = &object["spec"]["template"]["spec"];
    let Some(containers) = pod["containers"].as_array() else {
        return;
    };
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let is_daemon = object["kind"] == "DaemonSet";
    assert_eq!(pod["securityContext"]["runAsUser"], if is_daemon { 0 } else { 65532 });
    assert_eq!(pod["securityContext"]["runAsNonRoot"] == true, !is_daemon);
    for container in containers {
        let expected = json!({
            "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        assert_eq!(container["securityContext"], expected);
        assert!(container["readinessProbe"].is_object() && container["livenessProbe"].is_object());
    }
    for volume in pod["volumes"].as_array().unwrap() {
        assert!(is_daemon || volume.get("hostPath").is_none(), "{volume}");
    }
}

#[test]
fn rig_chart_gives_programs_only_flags_that_they_have() {
    let tools = Tools::new(None);
    for set in ALL {
        let objects = tools.template(set).unwrap();
        for (kind, program) in [("DaemonSet", "berthd"), ("Deployment", "berth-scheduler")] {
            let help = help_of(program);
            let is_it = |object: &&Value| {
                object["kind"] == kind && object["spec"]["template"]["spec"]["containers"][0]["name"] == program
            };
            let Some(workload) = objects.iter().find(is_it) else {
                assert_eq!(*set, DAEMONS_ONLY);
                continue;
            };
            for arg in args(workload) {
                let flag = arg.split('=').next().unwrap();
                assert!(help.contains(&format!("  {flag} <")), "{program} has no {flag}");
            }
        }
    }
}

#[test]
fn rig_chart_refuses_values_that_make_no_sense_and_says_why() {
    let tools = Tools::new(None);
    for (set, tells) in [
        (
            &["daemon.Simulate=l40s"][..],
            "additional properties 'Simulate' not allowed",
        ),
        (&["daemon.simulate=a-gpu"], "/daemon/simulate"),
        (&["daemon.nodeHealth=drain"], "'label', 'taint', 'cordon'"),
        (&["kai.mode=hints"], "value must be one of '', 'hint', 'bind'"),
        (&["scheduler.replicas=0"], "/scheduler/replicas"),
        (&["scheduler.allow={loopback}"], "/scheduler/allow/0"),
        (&["scheduler.policy=best"], "'fragmentation', 'fgd'"),
        (&["tls.nodeAddresses={node-a}"], "/tls/nodeAddresses/0"),
        (
            &["tls.source=existing"],
            "name the scheduler's Secret in tls.existing.scheduler",
        ),
        (
            &["tls.source=existing", "tls.existing.scheduler=a"],
            "name the daemons' Secret in tls.existing.daemon",
        ),
        (&["tls.existing.daemon=a"], "set that too, or leave them empty"),
        (
            &["kubeScheduler.enabled=true", "scheduler.enabled=false"],
            "it would have nobody to ask",
        ),
        (&["kai.requireTop=3"], "kai.requireTop is for kai.mode `hint`"),
        (&["daemon.hostPaths.state=var/lib"], "/daemon/hostPaths/state"),
        (&["daemon.image.repository=berthd:latest"], "/daemon/image/repository"),
    ] {
        let told = tools.template(set).unwrap_err();
        assert!(told.contains(tells), "{set:?}: {told}");
    }
}

#[test]
fn rig_chart_configures_kube_scheduler_as_the_shipped_file_does() {
    let objects = Tools::new(None).template(EVERYTHING).unwrap();
    let map = object(&objects, "ConfigMap", "berth-kube-scheduler");
    let mut ours: Value = serde_saphyr::from_str(map["data"]["config.yaml"].as_str().unwrap()).unwrap();
    let shipped: Value = serde_saphyr::from_str(&read("deploy/scheduler/kube-scheduler-config.yaml")).unwrap();
    let extender = ours["extenders"][0].as_object_mut().unwrap();
    assert_eq!(extender.remove("enableHTTPS"), Some(json!(true)));
    assert!(extender.remove("tlsConfig").is_some());
    extender.insert("urlPrefix".to_owned(), shipped["extenders"][0]["urlPrefix"].clone());
    assert_eq!(ours["extenders"], shipped["extenders"]);
    for field in ["percentageOfNodesToScore", "apiVersion", "kind"] {
        assert_eq!(ours[field], shipped[field], "{field}");
    }
}
