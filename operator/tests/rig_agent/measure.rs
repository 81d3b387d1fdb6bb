//! A measurement, not a test: what the operator, the agent and its webhook take and ask for on a real control plane, and how
//! soon they do what they are for. The command and figures are in `benches/README.md`.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use berth_kube_api::nvcf::NvcfBackend;
use berth_sis::ClusterId;
use berth_testkit::{
    Process, Program, cpu_time, eventually, http,
    rig::{Requests, Rig, RigConfig},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Namespace},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::kit::{Cluster, in_rig, install_gpu_nodes};

const NODES: usize = 4;
const SOON: Duration = Duration::from_mins(1);
const NAMESPACE: &str = "nvca-operator";
const BACKEND: &str = "nvcf-default";
/// Fixed: a rig has a network of its own. The agent's is where the operator asks for its health.
const OPERATOR: &str = "127.0.0.1:9000";
const WEBHOOK: &str = "127.0.0.1:9002";
const AGENT: &str = "127.0.0.1:8000";
/// After the start, until nothing moves any more.
const SETTLE: Duration = Duration::from_secs(30);
/// As long as the real programs were watched.
const IDLE: Duration = Duration::from_secs(90);
const TIMES: usize = 3;
/// Whoever breaks the same object again within this time waits for longer and longer.
const APART: Duration = Duration::from_secs(31);

#[test]
fn nvca() {
    in_rig("measure::nvca", async || {
        let config = RigConfig {
            nodes: NODES,
            nats: true,
            audit: true,
            ..RigConfig::default()
        };
        let others = std::cell::OnceCell::new();
        let cluster = Cluster::with(config, async |rig, agent| {
            let (operator, webhook, agent) = start(rig, agent).await;
            others.set((operator, webhook)).unwrap();
            agent
        })
        .await;
        let (operator, webhook) = others.get().unwrap();
        let programs = [
            ("nvca-operator", operator),
            ("nvca", &cluster.agent),
            ("webhook-server", webhook),
        ];
        memory("at start", &programs);
        idle(&cluster.rig, &programs).await;
        repairs(&cluster.rig.client()).await;
        rollouts(&cluster.rig.client()).await;
        memory("at the end", &programs);
    });
}

#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn tell(figures: &Value) {
    println!("{figures}");
}

/// All three, one after the other, on a cluster with GPUs where nobody has been before.
async fn start(rig: &Rig, agent: Program) -> (Process, Process, Process) {
    let client = rig.client();
    let kubeconfig = rig.kubeconfig().display().to_string();
    install_gpu_nodes(&client, NODES).await;
    chart(&client).await;

    let began = now();
    let operator = Program::new("nvca-operator", "berth-operator")
        .arg("--kubeconfig", &kubeconfig)
        .arg("--admin", OPERATOR)
        .arg("--nvca-image-repo", "registry.invalid/nvca")
        .arg("--agent-health-url", format!("http://{AGENT}/healthz"))
        .spawn()
        .unwrap();
    answers(OPERATOR, "/healthz").await;
    let listens = began.elapsed();
    let backends: Api<NvcfBackend> = Api::namespaced(client.clone(), NAMESPACE);
    let applied = eventually(SOON, async || {
        let status = backends.get(BACKEND).await?.status.unwrap_or_default();
        let is_applied = |it: &_| json!(it)["type"] == "Applied" && json!(it)["status"] == "True";
        ensure!(status.conditions.iter().any(is_applied), "{status:?}");
        Ok(())
    });
    applied.await.with_context(|| operator.stderr()).unwrap();
    let all = began.elapsed();
    tell(&json!({"nvca-operator": {"listens_ms": ms(listens), "all_objects_ms": ms(all)}}));

    let config = agent.dir().join("config.yaml");
    let began = now();
    let webhook = Program::new("webhook-server", "berth-operator")
        .arg("--kubeconfig", &kubeconfig)
        .arg("--config", config.display().to_string())
        .arg("--tls-dir", "{dir}/certs")
        .arg("--listen", "127.0.0.1:9443")
        .arg("--admin", WEBHOOK)
        .spawn()
        .unwrap();
    answers(WEBHOOK, "/healthz").await;
    tell(&json!({"webhook-server": {"healthy_ms": ms(began.elapsed())}}));

    let mut settings: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    settings["agent"]["svcAddress"] = json!(AGENT);
    fs::write(&config, settings.to_string()).unwrap();
    let began = now();
    let agent = agent.spawn().unwrap();
    answers(AGENT, "/healthz").await;
    let healthy = began.elapsed();
    let page = http::get(&format!("http://{AGENT}/healthz")).await.unwrap().body;
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["GPUUsage"]["H100"]["capacity"], 8 * NODES, "{page}");
    tell(&json!({"nvca": {"healthy_ms": ms(healthy)}}));
    (operator, webhook, agent)
}

/// As Helm and the bootstrap leave it.
async fn chart(client: &Client) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(&Api::<Namespace>::all(client.clone()), NAMESPACE, namespace).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    apply(&definitions, NvcfBackend::crd_name(), json!(NvcfBackend::crd())).await;
    map(client, "nvca-namespace-pod-annotations", json!({"annotations": "{}"})).await;
    dto(client, "2.52.1").await;
    let ids =
        json!({"clusterId": ClusterId::of_client("nvca"), "clusterGroupId": "11111111-0000-4000-8000-000000000000"});
    map(client, "nvca-cluster-registration", ids).await;
    let served = eventually(SOON, async || {
        let backends: Api<NvcfBackend> = Api::namespaced(client.clone(), NAMESPACE);
        Ok(backends.list(&kube::api::ListParams::default()).await?)
    });
    served.await.unwrap();
}

async fn apply<K>(api: &Api<K>, name: &str, object: Value)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let helm = PatchParams::apply("helm").force();
    api.patch(name, &helm, &Patch::Apply(object)).await.unwrap();
}

async fn map(client: &Client, name: &str, data: Value) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    apply(&maps, name, map).await;
}

async fn dto(client: &Client, version: &str) {
    let dto = format!(
        "clusterName: {BACKEND}\nnvcaVersion: {version}\ncapabilities: [DynamicGPUDiscovery, SelfHosted, KAIScheduler]\n"
    );
    map(client, "nvcfbackend-self-managed", json!({"cluster-dto.yaml": dto})).await;
}

/// Until the page's status is 200.
async fn answers(address: &str, path: &str) {
    let url = format!("http://{address}{path}");
    let answer = async {
        loop {
            match http::get(&url).await {
                Ok(answer) if answer.status == 200 => return,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(SOON, answer).await.context(url.clone()).unwrap();
}

/// Resident memory, and what of it is the program's own; size of the file.
fn memory(when: &str, programs: &[(&str, &Process)]) {
    let all: BTreeMap<_, _> = programs
        .iter()
        .map(|(name, process)| {
            let status = fs::read_to_string(proc(process, "status")).unwrap();
            let mib = |field: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
                let kib: u32 = line.split_whitespace().next().unwrap().parse().unwrap();
                tenths(f64::from(kib) / 1024.0)
            };
            let file = fs::metadata(proc(process, "exe")).unwrap().len() >> 20;
            let figures = json!({"resident_mib": mib("VmRSS:"), "anonymous_mib": mib("RssAnon:"),
                "threads": status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim(), "file_mib": file});
            (*name, figures)
        })
        .collect();
    tell(&json!({"memory": when, "of": all}));
}

/// What they ask the API server for when nothing happens, and the time that they run.
async fn idle(rig: &Rig, programs: &[(&str, &Process)]) {
    tokio::time::sleep(SETTLE).await;
    let requests = |from| Requests::since(&rig.audit_log(), from).unwrap();
    let (asked, before) = (requests(0), ran(programs));
    memory("idle", programs);
    tokio::time::sleep(IDLE).await;
    let later = requests(asked.lines);
    let after = ran(programs);
    for (at, (name, _)) in programs.iter().enumerate() {
        let idle = later.of(name);
        let count: u32 = idle.values().sum();
        // Each is opened anew every 290 s, whether that falls into this time or not.
        let began = asked.of(name);
        let watches: u32 = began
            .iter()
            .filter(|(what, _)| what.starts_with("watch "))
            .map(|(_, count)| count)
            .sum();
        let took = after[at].saturating_sub(before[at]);
        tell(
            &json!({"idle_s": IDLE.as_secs(), "of": name, "requests": count, "what": idle, "watches": watches,
            "since_start": began.values().sum::<u32>(), "cpu_ms": took.as_millis()}),
        );
    }
    memory("after idling", programs);
}

/// CPU time of each so far.
fn ran(programs: &[(&str, &Process)]) -> Vec<Duration> {
    let times = programs.iter().map(|(_, process)| cpu_time(process.pid()).unwrap());
    times.collect()
}

/// Somebody deletes the agent's Deployment.
async fn repairs(client: &Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "nvca-system");
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let before = deployments.get("nvca").await.unwrap().uid();
        let began = now();
        let delete = DeleteParams::background();
        deployments.delete("nvca", &delete).await.map(drop).unwrap();
        let back = eventually(SOON, async || {
            ensure!(deployments.get("nvca").await?.uid() != before, "it is the old one");
            Ok(())
        });
        back.await.unwrap();
        took.push(ms(began.elapsed()));
        tokio::time::sleep(APART).await;
    }
    tell(&json!({"deleted Deployment is back, ms": took}));
}

/// The chart gets another version of the agent.
async fn rollouts(client: &Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "nvca-system");
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "nvca-system");
    let mut took = Vec::new();
    for at in 0..TIMES {
        let config = configs.get("agent-config").await.unwrap().data;
        let version = format!("2.53.{at}");
        let began = now();
        dto(client, &version).await;
        let rolled = eventually(SOON, async || {
            let template = json!(deployments.get("nvca").await?.spec.context("no spec")?.template);
            let image = template["spec"]["containers"][0]["image"].to_string();
            ensure!(image.contains(&version), "{image}");
            ensure!(
                configs.get("agent-config").await?.data != config,
                "the old configuration"
            );
            Ok(())
        });
        rolled.await.unwrap();
        took.push(ms(began.elapsed()));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tell(&json!({"changed ConfigMap is rolled out, ms": took}));
}

fn proc(process: &Process, file: &str) -> String {
    format!("/proc/{}/{file}", process.pid())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the real clock")]
fn now() -> Instant {
    Instant::now()
}
