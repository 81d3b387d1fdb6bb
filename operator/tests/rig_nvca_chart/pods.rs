//! On a kwok node no container runs: these are their programs as processes, with the arguments, variables, files and tokens that
//! the pod's own object says, and with the rights of its service account.

use std::{fs, path::PathBuf, time::Duration};

use berth_runtime::SystemClock;
use berth_testkit::{
    Process, Program, eventually,
    rig::bao::lay_out,
    vault_agent::{Agent, AgentConfig, below},
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON};

/// A pod that runs, and a folder that stands for its file system.
pub(crate) struct Place {
    pub(crate) pod: Value,
    pub(crate) root: PathBuf,
    kubeconfig: PathBuf,
}

const PROGRAMS: [&str; 6] = [
    "nvca-operator",
    "nvca-operator-cleanup",
    "nvca-mirror",
    "nvca-self-managed",
    "nvca",
    "webhook-server",
];
const SECRETS: &str = "/home/app/vault/secrets.json";

impl Cluster {
    /// The pod of these labels, once it runs.
    pub(crate) async fn running(&self, namespace: &str, labels: &str) -> Place {
        // As the kubelet gets it: bound to the pod.
        self.place(namespace, labels, "--bound-object-kind Pod --bound-object-name")
            .await
    }

    /// The same, for programs that outlive the pod.
    pub(crate) async fn lasting(&self, namespace: &str, labels: &str) -> Place {
        self.place(namespace, labels, "--duration 1h #").await
    }

    async fn place(&self, namespace: &str, labels: &str, bound_to: &str) -> Place {
        let command =
            format!("kubectl get pods -n {namespace} -l {labels} --field-selector status.phase=Running -o json");
        let text = self.until(&command, |text| text.contains("\"podIP\"")).await;
        let all: Value = serde_json::from_str(&text).unwrap();
        let pod = all["items"][0].clone();
        let name = pod["metadata"]["name"].as_str().unwrap();
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
        let root = self.dir.path().join(name);
        fs::create_dir_all(&root).unwrap();
        let token = self.tools.shell(&format!(
            "kubectl create token {account} -n {namespace} {bound_to} {name}"
        ));
        let config = fs::read_to_string(self.rig.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = root.join("kubeconfig");
        fs::write(&kubeconfig, config.to_string()).unwrap();
        Place { pod, root, kubeconfig }
    }

    /// What OpenBao's init container does, with the annotations of the pod: its files are there afterwards.
    pub(crate) async fn inject(&self, place: &Place) {
        let container = "vault-agent-init";
        let pod: Pod = serde_json::from_value(place.pod.clone()).unwrap();
        lay_out(&self.rig.client(), &pod, container, &place.root).await.unwrap();
        let config = AgentConfig::of_container(&place.pod, container).unwrap();
        let log = Box::new(|_: &str| {});
        let mut agent = Agent::new(config, place.root.clone(), None, SystemClock::shared(), log);
        eventually(SOON, async || Ok(agent.round().await?)).await.unwrap();
        let secrets = fs::read_to_string(below(&place.root, SECRETS)).unwrap();
        let secrets: Value = serde_json::from_str(&secrets).unwrap();
        assert!(
            secrets["kv"]["tokens"]["icms"]
                .as_str()
                .is_some_and(|token| token.len() > 20)
        );
    }

    /// A container's program, about to start.
    pub(crate) async fn program(&self, place: &Place, container: &str) -> Program {
        let pod: Pod = serde_json::from_value(place.pod.clone()).unwrap();
        lay_out(&self.rig.client(), &pod, container, &place.root).await.unwrap();
        let lists =
            ["initContainers", "containers"].map(|list| place.pod["spec"][list].as_array().into_iter().flatten());
        let mut all = lists.into_iter().flatten();
        let container = all.find(|one| one["name"] == container).unwrap();
        let command = container["command"][0]
            .as_str()
            .unwrap()
            .strip_prefix("/usr/bin/")
            .unwrap();
        let name = PROGRAMS.into_iter().find(|name| *name == command).unwrap();
        let secrets = below(&place.root, SECRETS).display().to_string();
        let args: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
        let config = below(&place.root, "/var/run/nvca/config.yaml");
        let moved = |arg: &String| arg.replace("/var/run/nvca/config.yaml", config.to_str().unwrap());
        let args: Vec<String> = args.iter().map(moved).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut program = Program::new(name, "berth-operator")
            .raw_args(&args)
            .arg("--kubeconfig", place.kubeconfig.to_str().unwrap());
        if name == "nvca-self-managed" {
            program = program.arg("--secrets-file", &secrets);
        }
        if config.exists() {
            let text = fs::read_to_string(&config).unwrap().replace(SECRETS, &secrets);
            fs::write(&config, text).unwrap();
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let value = match field {
                Some("metadata.namespace") => &place.pod["metadata"]["namespace"],
                None => &variable["value"],
                Some(other) => panic!("nobody here knows {other}"),
            };
            let value = value.as_str().unwrap_or_default();
            program = program.env(variable["name"].as_str().unwrap(), value);
        }
        program
    }

    /// The init container: to its end. Its log.
    pub(crate) async fn bootstrap(&self, place: &Place) -> String {
        self.inject(place).await;
        let program = self.program(place, "nvca-self-managed-bootstrap").await;
        let ended = program.run(Duration::from_mins(1)).await.unwrap();
        assert!(ended.status.success(), "{}", ended.stderr);
        is_allowed(&ended.stderr);
        ended.stderr
    }

    /// The container nvca-operator. Its ports are anybody's, since the agent has the same.
    pub(crate) async fn operator(&self, place: &Place) -> Process {
        let program = self.program(place, "nvca-operator").await;
        let program = program
            .arg("--admin", "127.0.0.1:0")
            .arg("--agent-health-url", "http://127.0.0.1:8000/healthz");
        program.start().await.unwrap()
    }
}

/// Nobody was denied anything.
pub(crate) fn is_allowed(log: &str) {
    assert!(!log.to_lowercase().contains("forbidden"), "{log}");
}
