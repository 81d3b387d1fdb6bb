//! A cluster as the page wants it - a control plane with OpenBao, its injector, NATS and SIS - and the release's life on it.

use std::time::Duration;

use anyhow::ensure;
use berth_testkit::{
    Process, Program,
    authority::ISSUER,
    bao::{BaoClient, nvcf},
    eventually,
    rig::{
        Rig, RigConfig,
        bao::{ADDRESS, Choice, ROOT_TOKEN},
        inside,
    },
};
use serde_json::{Value, json};

use crate::kit::{Tools, VALUES};

pub(crate) const SOON: Duration = Duration::from_mins(1);
const NATS: &str = "nats://127.0.0.1:4222";
/// Of the tokens for OpenBao: the chart's default.
const AUDIENCE: &str = "http://openbao-server.vault-system.svc.cluster.local:8200";

pub(crate) struct Cluster {
    pub(crate) rig: Rig,
    pub(crate) tools: Tools,
    pub(crate) sis: Process,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn in_rig(test: &str, body: impl AsyncFnOnce(&mut Cluster)) {
    inside(test, || {
        if !Choice::chosen().signs_tokens() {
            println!("skipped: real OpenBao has no services/NAME/jwt/sign, which is NVCF's plugin");
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { body(&mut Cluster::up().await).await });
    });
}

/// With its state on disk, and where no client is given the address while it is away.
fn sis() -> Program {
    Program::new("fake-sis", "berth-sis")
        .arg("--listen", "127.0.0.1:18080")
        .arg("--admin", "127.0.0.1:0")
        .arg("--state", "{dir}/state")
        .arg("--nats", NATS)
        .arg("--issuer", format!("{ISSUER}={ADDRESS}/v1/services/sis-api/jwt/jwks"))
}

impl Cluster {
    async fn up() -> Self {
        let config = RigConfig {
            nodes: 1,
            nats: true,
            bao: true,
            ..RigConfig::default()
        };
        let rig = Rig::up(config).await.unwrap();
        let root = BaoClient::new(ADDRESS).token(ROOT_TOKEN);
        nvcf::seed(&root, AUDIENCE).await.unwrap();
        nvcf::seed_signing(&root).await.unwrap();
        let user = nkeys::KeyPair::new_user();
        let creds = json!({"data": {"public_key": user.public_key(), "key": user.seed().unwrap()}});
        root.write(nvcf::NATS_CREDS, creds).await.unwrap();
        let sis = sis().start().await.unwrap();
        let tools = Tools::new(Some(rig.kubeconfig()));
        Self {
            rig,
            tools,
            sis,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Where it was, with the state that it left. It counts anew what it was asked.
    pub(crate) async fn start_sis_again(&mut self) {
        let address = self.sis.address("http").to_owned();
        let again = sis().arg("--listen", address).in_dir_of(&self.sis);
        self.sis = again.start().await.unwrap();
    }

    /// Neither the operator nor, with its webhook, the agent.
    pub(crate) fn nobody_comes_back(&self) {
        for deployment in ["nvca-operator -n nvca-operator", "nvca -n nvca-system"] {
            let scale = format!("kubectl scale deployment {deployment} --replicas=0");
            self.tools.shell(&scale);
        }
    }

    /// The page's command. What is set besides is where things are: in a rig there is no cluster DNS.
    pub(crate) fn install_command(&self, more: &str) -> String {
        let sis = self.sis.address("http");
        format!(
            "helm upgrade --install nvca-operator \
               CHART \
               --namespace nvca-operator --create-namespace \
               --wait --timeout 10m \
               -f {VALUES} \
               --set selfManaged.icmsServiceURL=http://{sis},selfManaged.natsURL={NATS} {more}"
        )
    }

    pub(crate) fn install(&self, more: &str) -> String {
        self.tools.shell(&self.install_command(more))
    }

    /// Until what a command prints is right.
    pub(crate) async fn until(&self, command: &str, is_right: impl Fn(&str) -> bool) -> String {
        let right = eventually(SOON, async || {
            let told = self.tools.try_shell(command).map_err(anyhow::Error::msg)?;
            ensure!(is_right(&told), "{command}: {told}");
            Ok(told)
        });
        right.await.unwrap()
    }

    /// Until there is an object.
    pub(crate) async fn until_there(&self, what: &str) -> Value {
        let text = self.until(&format!("kubectl get {what} -o json"), |_| true).await;
        serde_json::from_str(&text).unwrap()
    }

    /// The page's command; both ids.
    pub(crate) async fn registration(&self) -> (String, String) {
        let command = "kubectl get cm nvca-cluster-registration -n nvca-operator \
                       -o jsonpath='{.data}'";
        let text = self.until(command, |text| text.contains("clusterId")).await;
        let data: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(data.as_object().unwrap().len(), 2, "{data}");
        let id = |key: &str| data[key].as_str().filter(|id| !id.is_empty()).unwrap().to_owned();
        (id("clusterId"), id("clusterGroupId"))
    }

    /// How often the API server has denied somebody something.
    pub(crate) fn denials(&self) -> Vec<String> {
        let metrics = self.tools.shell("kubectl get --raw /metrics");
        let is_one = |line: &&str| line.starts_with("apiserver_request_total") && line.contains(r#"code="403""#);
        metrics.lines().filter(is_one).map(str::to_owned).collect()
    }

    /// What it holds, by its own account.
    pub(crate) async fn asked(&self, line: &str) -> usize {
        let page = format!("{}/debug/exchanges", self.sis.admin());
        let page = berth_testkit::http::get(&page).await.unwrap();
        let exchanges: Vec<Value> = serde_json::from_str(&page.body).unwrap();
        let is_one = |it: &&Value| it["request"].as_str().unwrap().starts_with(line);
        exchanges.iter().filter(is_one).count()
    }
}
