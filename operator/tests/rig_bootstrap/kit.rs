//! A real API server with fake-sis beside it; the chart's objects in as many namespaces as a test wants clusters.

use std::{cell::RefCell, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use berth_testkit::{
    Ended, FakeSis, Process, Program, eventually,
    rig::{Rig, RigConfig, inside},
};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};

pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const LIST: &str = "GET /v1/accounts/nvcf-default/clusters";
pub(crate) const CREATE: &str = "POST /v1/accounts/nvcf-default/clusters";
pub(crate) const DONE: &str = "Bootstrap completed successfully";

pub(crate) struct Scene {
    pub(crate) rig: Rig,
    pub(crate) sis: FakeSis,
}

/// The chart in a namespace of its own.
pub(crate) struct Install {
    namespace: String,
    maps: Api<ConfigMap>,
    kubeconfig: PathBuf,
    secrets: PathBuf,
    /// Everything that must not be logged.
    tokens: RefCell<Vec<String>>,
}

pub(crate) fn in_rig(test: &str, body: impl AsyncFnOnce(&mut Scene)) {
    inside(test, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let config = RigConfig {
                nodes: 0,
                ..RigConfig::default()
            };
            let mut scene = Scene {
                rig: Rig::up(config).await.unwrap(),
                sis: FakeSis::start_at("127.0.0.1:18080").await.unwrap(),
            };
            body(&mut scene).await;
        });
    });
}

impl Scene {
    /// A namespace with nothing of the chart's in it yet, and a good token.
    pub(crate) async fn namespace(&self, name: &str) -> Install {
        let client: Client = self.rig.client();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(namespace).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let dir = self.sis.dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let install = Install {
            namespace: name.to_owned(),
            maps: Api::namespaced(client, name),
            kubeconfig: self.rig.kubeconfig(),
            secrets: dir.join("secrets.json"),
            tokens: RefCell::default(),
        };
        self.give_token(&install, |_| {});
        install
    }

    /// The chart with a cluster of the namespace's name.
    pub(crate) async fn install(&self, name: &str) -> Install {
        let install = self.namespace(name).await;
        install.chart(self.dto(name)).await;
        install
    }

    /// What the chart writes for a cluster of this name, with a client id of its own.
    pub(crate) fn dto(&self, name: &str) -> Value {
        json!({"clusterName": name, "clusterGroupName": "nvcf-default", "nvcaVersion": "2.52.1", "oAuthClientId": name,
            "capabilities": ["DynamicGPUDiscovery", "SelfHosted"], "icmsConfig": {"icmsServiceURL": self.sis.url()}})
    }

    pub(crate) fn give_token(&self, install: &Install, change: impl FnOnce(&mut Value)) {
        install.give(&self.sis.authority.token(change));
    }

    pub(crate) async fn asked(&self, line: &str) -> usize {
        self.sis.asked(line).await.unwrap()
    }
}

impl Install {
    pub(crate) async fn chart(&self, dto: Value) {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nvcfbackend-self-managed"},
            "data": {"cluster-dto.yaml": dto.to_string()}});
        self.apply(map).await;
    }

    pub(crate) async fn apply(&self, map: Value) {
        let name = map["metadata"]["name"].as_str().unwrap().to_owned();
        let as_chart = PatchParams::apply("helm").force();
        self.maps.patch(&name, &as_chart, &Patch::Apply(map)).await.unwrap();
    }

    /// As OpenBao's agent renders it: at once and whole.
    pub(crate) fn give(&self, token: &str) {
        let text = json!({"kv": {"tokens": {"icms": token}}}).to_string();
        let unfinished = self.secrets.with_extension("new");
        fs::write(&unfinished, text).unwrap();
        fs::rename(&unfinished, &self.secrets).unwrap();
        self.tokens.borrow_mut().push(token.to_owned());
    }

    pub(crate) fn take_token(&self) {
        fs::remove_file(&self.secrets).unwrap();
    }

    /// Of a program with the arguments of the chart.
    pub(crate) fn program(&self, command: &str) -> Program {
        Program::new("nvca-self-managed", "berth-operator")
            .raw_args(&[command])
            .arg("--system-namespace", &self.namespace)
            .arg("--kubeconfig", self.kubeconfig.to_str().unwrap())
            .arg("--secrets-file", self.secrets.to_str().unwrap())
    }

    /// A kubeconfig of the service account `nobody` of this namespace.
    pub(crate) fn as_service_account(&self) -> String {
        let mut config = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let user = config.auth_infos[0].auth_info.as_mut().unwrap();
        user.impersonate = Some(format!("system:serviceaccount:{}:nobody", self.namespace));
        let path = self.secrets.with_extension("kubeconfig");
        fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What the chart has to allow, and no more.
    pub(crate) async fn allow(&self, client: &Client) {
        let maps = [
            "nvcfbackend-self-managed",
            "nvca-cluster-registration",
            "nvcfbackend-cluster-bootstrap-registration",
        ];
        let role = json!({"metadata": {"name": "few"}, "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": maps, "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [maps[1]], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["nvca-self-managed"],
                "verbs": ["get", "update"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        ]});
        let binding = json!({"metadata": {"name": "few"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "few"},
            "subjects": [{"kind": "ServiceAccount", "name": "nobody", "namespace": self.namespace}]});
        let roles: Api<Role> = Api::namespaced(client.clone(), &self.namespace);
        let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), &self.namespace);
        let new = PostParams::default();
        roles
            .create(&new, &serde_json::from_value(role).unwrap())
            .await
            .unwrap();
        bindings
            .create(&new, &serde_json::from_value(binding).unwrap())
            .await
            .unwrap();
    }

    pub(crate) fn start_bootstrap(&self) -> Process {
        self.program("bootstrap").arg("--timeout", "1m").spawn().unwrap()
    }

    /// To its end.
    pub(crate) async fn bootstrap(&self) -> Ended {
        self.ends(self.start_bootstrap()).await
    }

    pub(crate) async fn ends(&self, mut process: Process) -> Ended {
        let status = process.wait(Duration::from_mins(2)).await.unwrap();
        let (stdout, stderr) = (process.stdout(), process.stderr());
        self.says_no_token(&stderr);
        Ended { status, stdout, stderr }
    }

    /// The registration, both ids, once the run succeeded.
    pub(crate) async fn registers(&self, how: &str) -> (String, String) {
        let ended = self.bootstrap().await;
        assert!(ended.status.success(), "{}", ended.stderr);
        self.is_done(&ended.stderr, how).await
    }

    /// The log tells the ids that are recorded.
    pub(crate) async fn is_done(&self, log: &str, how: &str) -> (String, String) {
        let (cluster, group) = self.record().await.unwrap();
        let line = log.lines().find(|line| line.contains(DONE)).ok_or(log).unwrap();
        for field in [
            ("cluster_id", cluster.as_str()),
            ("cluster_group_id", &group),
            ("how", how),
        ] {
            let (name, value) = field;
            assert!(line.contains(&format!("\"{name}\":\"{value}\"")), "{field:?}: {line}");
        }
        (cluster, group)
    }

    /// The log of a run that must fail.
    pub(crate) async fn fails(&self) -> String {
        let ended = self.bootstrap().await;
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(!ended.stderr.contains(DONE), "{}", ended.stderr);
        assert!(self.map().await.unwrap().is_none(), "something was recorded");
        ended.stderr
    }

    pub(crate) fn says_no_token(&self, log: &str) {
        for token in self.tokens.borrow().iter() {
            let signature = token.rsplit('.').next().unwrap();
            assert!(!log.contains(signature), "a token is in the log:\n{log}");
        }
    }

    pub(crate) async fn map(&self) -> anyhow::Result<Option<ConfigMap>> {
        Ok(self.maps.get_opt("nvca-cluster-registration").await?)
    }

    /// Both ids, as the operator and the documentation read them.
    pub(crate) async fn record(&self) -> anyhow::Result<(String, String)> {
        let map = self.map().await?.context("there is no registration")?;
        let kept = map.metadata.annotations.unwrap_or_default();
        ensure!(
            kept.get("helm.sh/resource-policy")
                .is_some_and(|policy| policy == "keep"),
            "{kept:?}"
        );
        let data = map.data.unwrap_or_default();
        let id = |key: &str| data.get(key).filter(|id| !id.is_empty()).cloned();
        let ids = id("clusterId").zip(id("clusterGroupId"));
        ensure!(data.len() == 2, "{data:?}");
        ids.with_context(|| format!("an id is empty: {data:?}"))
    }

    pub(crate) async fn forget(&self) {
        let now = DeleteParams::default();
        drop(self.maps.delete("nvca-cluster-registration", &now).await.unwrap());
    }

    /// Waits for the log to hold this.
    pub(crate) async fn says(&self, process: &Process, words: &str) {
        let said = eventually(SOON, async || {
            let log = process.stderr();
            ensure!(log.contains(words), "no {words:?} in\n{log}");
            Ok(())
        });
        said.await.unwrap();
        self.says_no_token(&process.stderr());
    }
}
