//! A customer's function on the cluster: asked of SIS, made by the agent, admitted by the webhook server through its Service.

use anyhow::{Context as _, ensure};
use berth_testkit::{
    authority::ISSUER,
    bao::BaoClient,
    eventually,
    rig::bao::{ADDRESS, ROOT_TOKEN},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::cluster::{Cluster, SOON};

/// What a function's pod needs, in base64: the images, none of which is ever fetched here, and a worker's token.
const ENVIRONMENT: &str = "SU5GRVJFTkNFX0NPTlRBSU5FUj1yZWdpc3RyeS5pbnZhbGlkL2Y6MQpVVElMU19DT05UQUlORVI9cmVnaXN0cnkuaW52\
                           YWxpZC91OjEKTlZDRl9XT1JLRVJfVE9LRU49dAo%3D";

/// Nothing routes addresses of Services in a rig: this one leads to this machine, where the webhook server listens.
pub(crate) async fn route_webhook(cluster: &Cluster) {
    let service = cluster.until_there("service nvca -n nvca-system").await;
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    cluster.tools.shell(&format!("ip address add {address}/32 dev lo"));
}

/// A pod with GPUs of its own, as the customer asked.
pub(crate) async fn function_runs(cluster: &Cluster) {
    let asked = async || Customer::new().await?.ask(cluster).await;
    eventually(SOON, asked).await.unwrap();
    let command = "kubectl get pods -n nvcf-backend -l icms-request-id,kai.scheduler/queue=default-queue -o json";
    let pods = cluster.until(command, |told| told.contains("icms-request-id")).await;
    assert!(pods.contains(r#""nvidia.com/gpu": "2""#), "{pods}");
}

/// Who asks SIS for instances, with OpenBao's word that this is a customer.
pub(crate) struct Customer {
    token: String,
}

impl Customer {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let root = BaoClient::new(ADDRESS).token(ROOT_TOKEN);
        let claims = json!({"sub": "nvcf-api", "aud": ["s:api"], "scopes": ["instance-request"]});
        let role = json!({"issuer": ISSUER, "claims": claims});
        root.write("services/sis-api/jwt/roles/nvcf-api", role).await?;
        let signed = root.read("services/sis-api/jwt/sign/nvcf-api").await?;
        let token = signed["data"]["token"].as_str().context("no token")?.to_owned();
        Ok(Self { token })
    }

    /// For one instance with two GPUs; the id of the request.
    pub(crate) async fn ask(&self, cluster: &Cluster) -> anyhow::Result<String> {
        let form = format!(
            "Action=RequestInstances&InstanceCount=1&LaunchSpecification.Gpu=H100\
             &LaunchSpecification.InstanceType=NCP.GPU.H100_2x&LaunchSpecification.NcaId=nvcf-default\
             &LaunchSpecification.Environment={ENVIRONMENT}&FunctionDetails.FunctionId=f-1\
             &FunctionDetails.FunctionVersionId=v-1"
        );
        let answer = self.say(cluster, "POST /v1/si", &form).await?;
        Ok(answer["requestId"].as_str().context("no request id")?.to_owned())
    }

    pub(crate) async fn end(&self, cluster: &Cluster, instance: &str) -> anyhow::Result<()> {
        let line = format!("DELETE /v1/si?Action=TerminateInstances&InstanceId={instance}");
        self.say(cluster, &line, "").await.map(drop)
    }

    async fn say(&self, cluster: &Cluster, line: &str, form: &str) -> anyhow::Result<Value> {
        let host = cluster.sis.address("http");
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            self.token,
            form.len()
        );
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(format!("{head}{form}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(
            ["HTTP/1.1 200", "HTTP/1.1 202"]
                .iter()
                .any(|good| answer.starts_with(good)),
            "{answer}"
        );
        let (start, end) = (
            answer.find('{').context("no body")?,
            answer.rfind('}').context("no body")?,
        );
        Ok(serde_json::from_str(&answer[start..=end])?)
    }
}
