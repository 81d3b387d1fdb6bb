//! Our programs as the chart would start them: its arguments, its certificates, its service accounts; only paths and names of
//! hosts are those of this machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use berth_testkit::{Process, Program, rig::Rig};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::kit::{NAMESPACE, Tools, args};

/// A folder that stands for the file systems of the pods.
pub(crate) struct Pods<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) tools: &'a Tools,
    pub(crate) dir: &'a Path,
}

impl Pods<'_> {
    /// The token of a pod, as the kubelet would get it: it names the pod and its node.
    pub(crate) fn kubeconfig(&self, account: &str, pod: &str) -> PathBuf {
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod];
        let token = ["create", "token", account, "--namespace", NAMESPACE];
        let token = self.tools.kubectl(&[&token[..], &bound[..]].concat());
        let mut config: Value = serde_json::from_str(&fs::read_to_string(self.rig.kubeconfig()).unwrap()).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let path = self.dir.join(format!("{pod}.kubeconfig"));
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub(crate) async fn client(&self, kubeconfig: &Path) -> Client {
        let file = Kubeconfig::read_from(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    /// The files of a Secret, as its volume has them.
    pub(crate) async fn mount(&self, secret: &str) -> PathBuf {
        let secrets: Api<Secret> = Api::namespaced(self.rig.client(), NAMESPACE);
        let data = secrets.get(secret).await.unwrap().data.unwrap();
        let dir = self.dir.join(secret);
        fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in data {
            fs::write(dir.join(name), bytes.0).unwrap();
        }
        dir
    }

    fn workload(&self, kind: &str, name: &str) -> Value {
        let text = self
            .tools
            .kubectl(&["get", kind, name, "--namespace", NAMESPACE, "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn daemon(&self, node: &str, kubeconfig: &Path) -> Process {
        let tls = self.mount("berth-daemon-tls").await;
        let change = |arg: String| {
            let dir = self.dir.display();
            let arg = arg.replace("$(NODE_NAME)", node).replace("$(HOST_IP)", "127.0.0.1");
            let arg = arg.replace("/etc/berth/tls", tls.to_str().unwrap());
            if arg.starts_with("--kubelet-socket=") {
                return "--kubelet-socket=none".to_owned();
            }
            arg.replace("=/run/berth", &format!("={dir}"))
                .replace("=/var/lib/berth", &format!("={dir}/state"))
        };
        let args = args(&self.workload("daemonset", "berth-daemon"));
        self.start(
            Program::new("berthd", "berth-daemon"),
            args.into_iter().map(change),
            kubeconfig,
        )
        .await
    }

    pub(crate) async fn scheduler(&self, kubeconfig: &Path) -> Process {
        let tls = self.mount("berth-scheduler-tls").await;
        let args = args(&self.workload("deployment", "berth-scheduler"));
        // Nothing leads from the API server to a Service here: it is told the address itself.
        let webhook = format!("={}/webhook", self.dir.display());
        let args = args.into_iter().map(|arg| {
            arg.replace("/etc/berth/tls", tls.to_str().unwrap())
                .replace("--webhook=0.0.0.0:", "--webhook=127.0.0.1:")
                .replace("--webhook-service=gpu/berth-webhook", "--webhook-namespace=gpu")
                .replace("=/run/berth/webhook", &webhook)
        });
        self.start(Program::new("berth-scheduler", "berth-scheduler"), args, kubeconfig)
            .await
    }

    async fn start(&self, program: Program, args: impl Iterator<Item = String>, kubeconfig: &Path) -> Process {
        let args: Vec<_> = args.collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let program = program.raw_args(&args);
        program
            .raw_args(&["--kubeconfig", kubeconfig.to_str().unwrap()])
            .start()
            .await
            .unwrap()
    }

    /// The arguments of a kube-scheduler with the configuration of the ConfigMap. Names of Services mean nothing here: the
    /// certificate is held against the name all the same.
    pub(crate) async fn kube_scheduler(&self, kubeconfig: &Path) -> Vec<String> {
        let tls = self.mount("berth-kube-scheduler-tls").await;
        let map = self.workload("configmap", "berth-kube-scheduler");
        let text = map["data"]["config.yaml"].as_str().unwrap();
        let text = text.replace("/etc/berth/tls", tls.to_str().unwrap());
        let mut config: Value = serde_saphyr::from_str(&text).unwrap();
        config["clientConnection"] = json!({"kubeconfig": kubeconfig});
        let extender = &mut config["extenders"][0];
        let url = extender["urlPrefix"].as_str().unwrap().to_owned();
        let host = url.trim_start_matches("https://").trim_end_matches(":9450");
        extender["tlsConfig"]["serverName"] = json!(host);
        extender["urlPrefix"] = json!("https://127.0.0.1:9450");
        let path = self.dir.join("kube-scheduler.json");
        fs::write(&path, config.to_string()).unwrap();
        let args = args(&self.workload("deployment", "berth-kube-scheduler"));
        let change = |arg: String| arg.replace("/etc/kube-scheduler/config.yaml", path.to_str().unwrap());
        args.into_iter().map(change).collect()
    }
}

/// The subject alternative names of a certificate, in words.
pub(crate) fn names(pem: &[u8]) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = certificate.subject_alternative_name().unwrap();
    names.map_or_else(String::new, |names| format!("{:?}", names.value.general_names))
}
