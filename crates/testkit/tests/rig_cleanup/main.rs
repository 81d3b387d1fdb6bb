//! The force-cleanup script on a real control plane, with everything stuck that can be.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod litter;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::ensure;
use berth_testkit::{
    eventually,
    rig::{Rig, RigConfig, inside, tools},
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::json;
use tempfile::TempDir;

use litter::Resource;

const SOON: Duration = Duration::from_secs(30);

/// How the script ended, and both its outputs.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    text: String,
}

/// The script, with the rig's kubectl.
struct Script {
    home: TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Script {
    fn new(kubeconfig: Option<PathBuf>) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { home, kubeconfig }
    }

    fn run(&self, args: &[&str]) -> Ended {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/scripts/force-cleanup-nvcf.sh");
        let mut path = std::env::var("PATH").unwrap_or_default();
        if self.kubeconfig.is_some() {
            path = format!("{}:{path}", tools::folder().unwrap().display());
        }
        let nowhere = self.home.path().join("none");
        let output = Command::new("bash")
            .arg(script)
            .args(args)
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&nowhere))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        Ended {
            code: output.status.code(),
            text: String::from_utf8(text).unwrap(),
        }
    }
}

struct Cluster {
    rig: Rig,
    script: Script,
}

impl Cluster {
    async fn up() -> Self {
        let config = RigConfig {
            nodes: 1,
            ..RigConfig::default()
        };
        let rig = Rig::up(config).await.unwrap();
        let script = Script::new(Some(rig.kubeconfig()));
        let cluster = Self { rig, script };
        litter::scatter(&cluster.rig.client()).await;
        cluster
    }

    fn api(&self, kind: &Resource) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
        Api::all_with(self.rig.client(), &ApiResource::from_gvk_with_plural(&gvk, kind.plural))
    }

    /// `kind namespace/name version`, of everything that could be touched.
    async fn objects(&self) -> Vec<String> {
        let mut all = Vec::new();
        for kind in litter::KINDS {
            // Where the definition is gone, there is nothing.
            let Ok(list) = self.api(kind).list(&ListParams::default()).await else {
                continue;
            };
            for object in list {
                let metadata = object.metadata;
                // Controllers write down how a namespace's end goes.
                let version = metadata.resource_version.filter(|_| kind.kind != "Namespace");
                let namespace = metadata.namespace.unwrap_or_default();
                let (name, uid) = (metadata.name.unwrap(), metadata.uid.unwrap());
                all.push(format!(
                    "{} {namespace}/{name} {uid} {} {}",
                    kind.kind,
                    version.unwrap_or_default(),
                    metadata.deletion_timestamp.is_some()
                ));
            }
        }
        all.sort();
        all
    }

    async fn labels(&self) -> Vec<String> {
        let nodes = self.api(&litter::NODE).list(&ListParams::default()).await.unwrap();
        let labels = nodes.items.into_iter().filter_map(|node| node.metadata.labels);
        labels.flat_map(BTreeMap::into_keys).collect()
    }

    /// The names of NVCF's objects that are there.
    async fn nvcfs(&self) -> Vec<String> {
        let all = self.objects().await;
        all.into_iter().filter(|object| litter::is_nvcfs(object)).collect()
    }

    async fn others(&self) -> Vec<String> {
        let all = self.objects().await;
        all.into_iter().filter(|object| object.contains("foreign")).collect()
    }
}

fn in_rig(test: &str, body: impl AsyncFnOnce()) {
    inside(test, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
}

#[test]
fn rig_every_trace_goes_however_stuck_and_nothing_else_is_touched() {
    in_rig(
        "rig_every_trace_goes_however_stuck_and_nothing_else_is_touched",
        async || {
            let cluster = Cluster::up().await;
            let (before, others) = (cluster.objects().await, cluster.others().await);
            assert_eq!(others.len(), litter::FOREIGN, "{others:#?}");

            // A dry run names everything and changes nothing.
            let dry = cluster.script.run(&["--dry-run"]);
            assert_eq!(dry.code, Some(0), "{}", dry.text);
            assert_eq!(cluster.objects().await, before);
            for object in cluster.nvcfs().await {
                let name = object.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
                assert!(dry.text.contains(&name), "{name} is not told in\n{}", dry.text);
            }
            assert!(!dry.text.contains("foreign"), "{}", dry.text);
            let labels = cluster.labels().await;
            assert!(labels.iter().any(|label| label == "nvca.nvcf.nvidia.io/schedule"));

            let done = cluster.script.run(&[]);
            assert_eq!(done.code, Some(0), "{}", done.text);
            assert_eq!(cluster.nvcfs().await, [""; 0], "{}", done.text);
            assert_eq!(cluster.others().await, others, "{}", done.text);
            let labels = cluster.labels().await;
            assert!(!labels.iter().any(|label| label.starts_with("nvca.nvcf.nvidia.io/")));
            assert!(labels.iter().any(|label| label == "foreign.example/label"));

            let again = cluster.script.run(&[]);
            assert_eq!(again.code, Some(0), "{}", again.text);
            assert!(again.text.contains("Nothing to do"), "{}", again.text);
        },
    );
}

#[test]
fn rig_the_registration_stays_where_it_is_to_and_with_it_what_people_put_beside_it() {
    in_rig(
        "rig_the_registration_stays_where_it_is_to_and_with_it_what_people_put_beside_it",
        async || {
            let cluster = Cluster::up().await;
            let done = cluster.script.run(&["--keep-registration"]);
            assert_eq!(done.code, Some(0), "{}", done.text);
            let left: Vec<_> = cluster.nvcfs().await;
            let left: Vec<_> = left
                .iter()
                .map(|object| object.split(' ').take(2).collect::<Vec<_>>().join(" "))
                .collect();
            let expected = [
                "ConfigMap nvca-operator/kube-root-ca.crt",
                "ConfigMap nvca-operator/nvca-cluster-registration",
                "Namespace /nvca-operator",
                "Secret nvca-operator/nvcr-pull-secret",
            ];
            assert_eq!(left, expected, "{}", done.text);
            let again = cluster.script.run(&["--keep-registration"]);
            assert_eq!(again.code, Some(0), "{}", again.text);
            assert!(again.text.contains("Nothing to do"), "{}", again.text);

            let namespaces = cluster.api(&litter::NAMESPACE);
            let stuck = Patch::Merge(json!({"metadata": {"finalizers": ["foreign.example/stuck"]}}));
            namespaces
                .patch("nvca-operator", &PatchParams::default(), &stuck)
                .await
                .unwrap();
            namespaces
                .delete("nvca-operator", &kube::api::DeleteParams::default())
                .await
                .unwrap();
            let late = cluster.script.run(&["--keep-registration"]);
            assert_eq!(late.code, Some(1), "{}", late.text);
            assert!(late.text.contains("is being deleted already"), "{}", late.text);
            let rest = cluster.script.run(&[]);
            assert_eq!(rest.code, Some(0), "{}", rest.text);
            assert_eq!(cluster.nvcfs().await, [""; 0], "{}", rest.text);
        },
    );
}

#[test]
fn rig_namespaces_go_with_all_they_hold_also_when_no_controller_is_there_to_empty_them() {
    in_rig(
        "rig_namespaces_go_with_all_they_hold_also_when_no_controller_is_there_to_empty_them",
        async || {
            let mut cluster = Cluster::up().await;
            cluster.rig.part("kube-controller-manager").unwrap().kill();
            let done = cluster.script.run(&["--timeout", "240"]);
            assert_eq!(done.code, Some(0), "{}", done.text);
            // Nothing is left behind in a namespace that is not there.
            assert_eq!(cluster.nvcfs().await, [""; 0], "{}", done.text);
        },
    );
}

#[test]
fn rig_what_cannot_be_removed_is_told_with_the_reason_and_the_end_is_1() {
    in_rig(
        "rig_what_cannot_be_removed_is_told_with_the_reason_and_the_end_is_1",
        async || {
            let cluster = Cluster::up().await;
            litter::forbid_deletion(&cluster.rig.client()).await;
            let blocked = eventually(SOON, async || {
                let ended = cluster.script.run(&["--timeout", "1"]);
                ensure!(
                    ended.text.contains("denied") || ended.text.contains("failed calling webhook"),
                    "{ended:?}"
                );
                Ok(ended)
            });
            let blocked = blocked.await.unwrap();
            assert_eq!(blocked.code, Some(1), "{}", blocked.text);
            let (_, left) = blocked.text.split_once("Not removed within 1 s:").unwrap();
            assert!(left.contains("ClusterRole nvca\n"), "{left}");
        },
    );
}

#[test]
fn rig_without_a_cluster_it_says_so_and_the_end_is_1() {
    let home = tempfile::tempdir().unwrap();
    let ended = Script::new(Some(home.path().join("none"))).run(&[]);
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("no cluster can be reached: "), "{}", ended.text);
}

#[test]
fn wrong_usage_ends_with_2_and_points_to_the_help() {
    let script = Script::new(None);
    for args in [
        &["--wrong"][..],
        &["--timeout"],
        &["--timeout", "soon"],
        &["--timeout=0"],
        &["now"],
    ] {
        let ended = script.run(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.text);
        assert!(ended.text.contains("try --help"), "{}", ended.text);
    }
    let help = script.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for flag in ["--dry-run", "--keep-registration", "--timeout SECONDS"] {
        assert!(help.text.contains(flag), "{}", help.text);
    }
}
