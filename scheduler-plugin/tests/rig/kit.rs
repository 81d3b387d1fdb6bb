//! A cluster with a daemon on every node and berth-scheduler beside kube-scheduler; pods, and what became of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::Write as _,
};

use anyhow::{Context as _, ensure};
use berth_kube_api::{GpuNode, gpu_node::GpuNodeStatus, placement::Placement};
#[cfg(feature = "measure")]
use berth_testkit::rig::PartState;
use berth_testkit::{
    Process, Program, eventually, http,
    rig::{Rig, RigConfig},
};
use futures_util::{StreamExt as _, stream};
use k8s_openapi::{
    api::{
        core::v1::{Event, Pod},
        scheduling::v1::PriorityClass,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResourceExt as _, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::wait::{await_condition, conditions},
};
use serde_json::{Value, json};

use super::{SOON, by_id};

/// Where the shipped configuration of kube-scheduler finds the extender.
const EXTENDER: &str = "127.0.0.1:9450";
const SHIPPED: &str = include_str!("../../../deploy/scheduler/kube-scheduler-config.yaml");

/// A function pod that asks for so many GPUs.
pub(crate) fn pod(name: &str, gpus: u32) -> Value {
    let mut resources = json!({"requests": {"cpu": "4", "memory": "16Gi"}});
    if gpus > 0 {
        resources["limits"] = json!({"nvidia.com/gpu": gpus.to_string()});
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"function-version-id": "v1"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "none", "resources": resources}],
        },
    })
}

/// The same of KAI's.
pub(crate) fn kai_pod(name: &str, gpus: u32) -> Value {
    let mut pod = pod(name, gpus);
    pod["spec"]["schedulerName"] = json!("kai-scheduler");
    pod
}

/// Through whom pods get their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    KubeScheduler,
    /// The same, where Berth leaves it all nodes that fit, and the scores decide.
    Scored,
    /// KAI, fed in this mode.
    Kai(&'static str),
    /// kube-scheduler as it is, without Berth.
    #[cfg(feature = "measure")]
    Alone,
    /// KAI as it is, without Berth.
    #[cfg(feature = "measure")]
    KaiAlone,
}

impl Way {
    fn is_kai(self) -> bool {
        match self {
            Self::KubeScheduler | Self::Scored => false,
            Self::Kai(_) => true,
            #[cfg(feature = "measure")]
            Self::Alone => false,
            #[cfg(feature = "measure")]
            Self::KaiAlone => true,
        }
    }

    /// kube-scheduler's configuration, which asks Berth; `None`: its defaults.
    fn configuration(self) -> Option<Value> {
        let shipped = match self {
            Self::KubeScheduler => SHIPPED.to_owned(),
            Self::Scored => SHIPPED.replace("filter?top=1", "filter?top=0"),
            Self::Kai(_) => return None,
            #[cfg(feature = "measure")]
            Self::Alone | Self::KaiAlone => return None,
        };
        Some(serde_saphyr::from_str(&shipped).unwrap())
    }
}

pub(crate) struct Cluster {
    pub(crate) rig: Rig,
    way: Way,
    daemons: BTreeMap<String, Process>,
    pub(crate) scheduler: Process,
    /// More of it, which know nothing of each other.
    pub(crate) others: Vec<Process>,
}

/// A pod as it is.
pub(crate) struct Seen(Pod);

impl Seen {
    /// Empty: nowhere.
    pub(crate) fn node(&self) -> &str {
        let spec = self.0.spec.as_ref();
        spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
    }

    /// What is said of a pod that is nowhere.
    pub(crate) fn why_not(&self) -> Option<&str> {
        let conditions = self.0.status.as_ref()?.conditions.as_ref()?;
        let scheduled = conditions
            .iter()
            .find(|it| it.type_ == "PodScheduled" && it.status == "False")?;
        scheduled.message.as_deref().filter(|message| !message.is_empty())
    }

    /// Empty where there is none.
    pub(crate) fn annotation(&self, name: &str) -> &str {
        self.0.annotations().get(name).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn placement(&self) -> anyhow::Result<Placement> {
        let annotation = self.0.annotations().get("gpu.berth.dev/placement");
        let annotation = annotation.with_context(|| format!("{} has no annotation", self.0.name_any()))?;
        Placement::from_annotation(annotation).context("not an annotation of ours")
    }

    pub(crate) fn devices(&self) -> BTreeSet<String> {
        let placement = self.placement().unwrap();
        placement.devices.into_iter().map(|device| device.uuid).collect()
    }
}

fn node_name(at: usize) -> String {
    format!("gpu-{at:04}")
}

fn daemon(rig: &Rig, node: &str) -> Program {
    Program::berthd()
        .arg("--node-name", node)
        .arg("--simulate", "dgx-h100")
        .arg("--simulate-control", "{dir}/orders")
        .arg("--kubelet-socket", "none")
        .arg("--allow", "loopback")
        .arg("--kubeconfig", rig.kubeconfig().to_str().unwrap())
        .arg("--advertise-host", "127.0.0.1")
}

async fn start_scheduler(rig: &Rig, way: Way, listen: &str) -> Process {
    let program = Program::scheduler()
        .arg("--listen", listen)
        .arg("--kubeconfig", rig.kubeconfig().to_str().unwrap());
    let program = match way {
        Way::KubeScheduler | Way::Scored => program,
        #[cfg(feature = "measure")]
        Way::Alone | Way::KaiAlone => program,
        Way::Kai(mode) => program
            .arg("--kai", mode)
            // A program with debug assertions on a machine that does other things, too.
            .arg("--kai-deadline", "10s")
            .arg("--webhook", "127.0.0.1:0")
            .arg("--webhook-certs", "{dir}/webhook"),
    };
    program.start().await.unwrap()
}

impl Cluster {
    /// So many nodes, each with a daemon that has told of itself.
    pub(crate) async fn up(nodes: usize) -> Self {
        Self::up_as(nodes, Way::KubeScheduler).await
    }

    pub(crate) async fn up_as(nodes: usize, way: Way) -> Self {
        Self::start(nodes, nodes, way).await
    }

    /// Nodes that are known by their labels.
    #[cfg(feature = "measure")]
    pub(crate) async fn without_daemons(nodes: usize, way: Way) -> Self {
        Self::start(nodes, 0, way).await
    }

    async fn start(nodes: usize, daemons: usize, way: Way) -> Self {
        let is_kai = way.is_kai();
        let config = RigConfig {
            nodes,
            kai: is_kai,
            scheduler: way.configuration(),
            audit: cfg!(feature = "measure") && std::env::var_os("BERTH_AUDIT").is_some(),
            ..RigConfig::default()
        };
        let rig = Rig::up(config).await.unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(rig.client());
        definitions
            .create(&PostParams::default(), &GpuNode::crd())
            .await
            .unwrap();
        let served = await_condition(definitions, GpuNode::crd_name(), conditions::is_crd_established());
        tokio::time::timeout(SOON, served).await.unwrap().unwrap();
        let with_daemons = || (0..daemons).map(node_name);
        let mut daemons = BTreeMap::new();
        for node in with_daemons() {
            let process = daemon(&rig, &node).start().await.unwrap();
            daemons.insert(node, process);
        }
        let scheduler = start_scheduler(&rig, way, EXTENDER).await;
        let cluster = Self {
            rig,
            way,
            daemons,
            scheduler,
            others: Vec::new(),
        };
        for node in with_daemons() {
            cluster.health(&node, "Healthy").await;
        }
        cluster.until_known(nodes).await;
        if matches!(way, Way::Kai(_)) {
            cluster.until_reviewed().await;
        }
        cluster
    }

    /// Until the scheduler knows the nodes, by their daemons' word where they have one.
    async fn until_known(&self, nodes: usize) {
        let daemons = self.daemons.len();
        let page = format!("{}/debug/cluster", self.scheduler.admin());
        let known = eventually(SOON, async || {
            let view: Value = serde_json::from_str(&http::get(&page).await?.body)?;
            let nodes_known = view["nodes"].as_array().context("no nodes")?;
            let are = |what: &str| nodes_known.iter().filter(|node| node[what] == true).count();
            // A daemon that has not heard all yet takes no pods, and kube-scheduler does not ask again when it does.
            ensure!(
                are("reachable") == nodes && are("verified") == daemons,
                "{} of {nodes} take pods",
                are("reachable")
            );
            Ok(())
        });
        known.await.unwrap();
    }

    /// Until the API server asks the webhook.
    async fn until_reviewed(&self) {
        let asked = eventually(SOON, async || {
            let pod = serde_json::from_value(kai_pod("probe", 1)).unwrap();
            let dry = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            let pod = self.pods().create(&dry, &pod).await?;
            let is_marked = pod.annotations().contains_key("gpu.berth.dev/kai-bind");
            let is_gated = pod.spec.is_some_and(|spec| spec.scheduling_gates.is_some());
            ensure!(is_marked || is_gated, "a pod goes by unseen");
            Ok(())
        });
        asked.await.unwrap();
    }

    /// Of all that takes part.
    #[cfg(feature = "measure")]
    pub(crate) fn pids(&self) -> BTreeMap<&'static str, u32> {
        let running = |(name, state)| match state {
            PartState::Running { pid } => Some((name, pid)),
            PartState::Paused { .. } | PartState::Stopped => None,
        };
        let mut pids: BTreeMap<_, _> = self.rig.parts().filter_map(running).collect();
        pids.insert("berth-scheduler", self.scheduler.pid());
        pids
    }

    /// Where requests are to be counted: that costs the API server something.
    #[cfg(feature = "measure")]
    pub(crate) fn audit_log(&self) -> Option<std::path::PathBuf> {
        std::env::var_os("BERTH_AUDIT").map(|_| self.rig.audit_log())
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.rig.client()
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.rig.client())
    }

    pub(crate) async fn create_all(&self, pods: impl IntoIterator<Item = Value>) {
        let api = self.pods();
        let create = async |pod: Value| {
            let pod = serde_json::from_value(pod).unwrap();
            api.create(&PostParams::default(), &pod).await.unwrap();
        };
        stream::iter(pods).for_each_concurrent(8, create).await;
    }

    pub(crate) async fn pod(&self, name: &str) -> anyhow::Result<Seen> {
        Ok(Seen(self.pods().get(name).await?))
    }

    /// What the schedulers logged of the pod.
    pub(crate) fn log_of(&self, name: &str) -> String {
        let logs = std::iter::once(&self.scheduler)
            .chain(&self.others)
            .map(Process::stderr);
        let is_its = |line: &&str| line.contains(&format!("default/{name}\""));
        let lines = |log: String| log.lines().filter(is_its).collect::<Vec<_>>().join("\n");
        logs.map(lines).collect::<Vec<_>>().join("\n--\n")
    }

    pub(crate) async fn names(&self) -> Vec<String> {
        let list = self.pods().list(&ListParams::default()).await.unwrap();
        list.iter().map(ResourceExt::name_any).collect()
    }

    pub(crate) async fn delete_all(&self) {
        let all = (DeleteParams::default(), ListParams::default());
        self.pods().delete_collection(&all.0, &all.1).await.unwrap();
    }

    #[expect(clippy::print_stderr, reason = "a failing test tells what was logged")]
    pub(crate) async fn bound(&self, name: &str) -> anyhow::Result<()> {
        let found = eventually(SOON, async || {
            let pod = self.pod(name).await?;
            ensure!(
                !pod.node().is_empty(),
                "{:?}",
                pod.0.status.and_then(|status| status.conditions)
            );
            Ok(())
        });
        match found.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let log = std::fs::read_to_string(self.rig.dir().join("logs/kube-scheduler.log")).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                eprintln!("{}", lines[lines.len().saturating_sub(20)..].join("\n"));
                let log = self.scheduler.stderr();
                let lines: Vec<_> = log.lines().collect();
                eprintln!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
                Err(error.context(format!("{name} is not bound")))
            }
        }
    }

    /// The message of the pod's event of this reason.
    pub(crate) async fn event(&self, pod: &str, reason: &str) -> anyhow::Result<String> {
        let events: Api<Event> = Api::default_namespaced(self.rig.client());
        eventually(SOON, async || {
            let all = events.list(&ListParams::default()).await?;
            let found = all.into_iter().find(|event| {
                event.involved_object.name.as_deref() == Some(pod) && event.reason.as_deref() == Some(reason)
            });
            found.and_then(|event| event.message).context("no such event")
        })
        .await
    }

    pub(crate) async fn decisions(&self) -> BTreeMap<String, Value> {
        let page = http::get(&format!("{}/debug/decisions", self.scheduler.admin())).await;
        by_id(&serde_json::from_str(&page.unwrap().body).unwrap())
    }

    async fn statuses(&self) -> Vec<(String, GpuNodeStatus)> {
        let nodes: Api<GpuNode> = Api::all(self.rig.client());
        let list = nodes.list(&ListParams::default()).await.unwrap();
        list.into_iter()
            .map(|node| (node.name_any(), node.status.unwrap_or_default()))
            .collect()
    }

    /// Device to whoever holds a part of it, as the daemons tell the API server.
    /// Who holds what by the daemons' own word, once `count` GPUs are held: their mirror follows within a second.
    pub(crate) async fn holders(&self, count: usize) -> BTreeMap<String, BTreeSet<String>> {
        let held = eventually(SOON, async || {
            let devices = self.statuses().await.into_iter().flat_map(|(_, status)| status.devices);
            let held: BTreeMap<String, BTreeSet<String>> = devices
                .filter(|device| !device.holders.is_empty())
                .map(|device| (device.uuid, device.holders.into_iter().collect()))
                .collect();
            ensure!(held.len() == count, "{} GPUs are held instead of {count}", held.len());
            Ok(held)
        });
        held.await.unwrap()
    }

    /// Until just these GPUs are held by the daemons' own word. Each tells it at its own pace, so that a number alone may be right
    /// by chance.
    pub(crate) async fn hold_just(&self, taken: &BTreeMap<String, String>) {
        let held = eventually(SOON, async || {
            let devices = self.statuses().await.into_iter().flat_map(|(_, status)| status.devices);
            let held = devices.filter(|device| !device.holders.is_empty());
            let held: BTreeMap<String, Vec<String>> = held.map(|device| (device.uuid, device.holders)).collect();
            let too_many: Vec<_> = held.iter().filter(|(uuid, _)| !taken.contains_key(*uuid)).collect();
            let too_few: Vec<_> = taken.iter().filter(|(uuid, _)| !held.contains_key(*uuid)).collect();
            ensure!(
                too_many.is_empty() && too_few.is_empty(),
                "held by nobody who is bound: {too_many:?}, not held: {too_few:?}"
            );
            Ok(())
        });
        held.await.unwrap();
    }

    /// Asserts that each of the pods is where its annotation says, and that no GPU is held by two of them. GPU to node.
    pub(crate) async fn each_gpu_once(&self, pods: impl IntoIterator<Item = &String>) -> BTreeMap<String, String> {
        let mut taken = BTreeMap::new();
        for name in pods {
            let pod = self.pod(name).await.unwrap();
            let placement = pod.placement().with_context(|| self.log_of(name)).unwrap();
            assert_eq!(placement.node, pod.node(), "{name}");
            for device in placement.devices {
                let holder = taken.insert(device.uuid.clone(), placement.node.clone());
                assert_eq!(holder, None, "{name}: {} is held twice", device.uuid);
            }
        }
        taken
    }

    /// Asserts that each pod has as many GPUs as it asked for, on the node that the engine ranked first, by the daemon's word.
    pub(crate) async fn follows_its_decisions(&self, pods: impl IntoIterator<Item = &(String, u32)>) {
        let decisions = self.decisions().await;
        for (name, gpus) in pods {
            let placement = self.pod(name).await.unwrap().placement().unwrap();
            assert!(placement.verified, "{name}");
            assert_eq!(placement.devices.len(), *gpus as usize, "{name}");
            let best = &decisions[placement.decision.as_str()]["ranked"][0];
            assert_eq!(*best, placement.node, "{name}: not where the engine wanted it");
        }
    }

    /// The UUID of a node's GPU.
    pub(crate) async fn device(&self, node: &str, index: usize) -> String {
        let statuses = self.statuses().await;
        let (_, status) = statuses.into_iter().find(|(name, _)| name == node).unwrap();
        status.devices[index].uuid.clone()
    }

    pub(crate) async fn health(&self, node: &str, health: &str) {
        let told = eventually(SOON, async || {
            let statuses = self.statuses().await;
            let status = statuses.iter().find(|(name, _)| name == node).context("no GpuNode")?;
            ensure!(status.1.summary.health == health, "{:?}", status.1.summary);
            Ok(())
        });
        told.await.with_context(|| format!("{node} is not {health}")).unwrap();
    }

    /// An order to the node's simulated machine.
    pub(crate) fn order(&self, node: &str, json: &str) {
        let path = self.daemons[node].dir().join("orders");
        let file = OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.unwrap(), "{json}").unwrap();
    }

    /// A broken GPU is reset, and an operator says so.
    pub(crate) async fn mend(&self, node: &str, gpu: u32) {
        self.order(node, &format!(r#"{{"restore":{{"gpu":{gpu}}}}}"#));
        let address = format!("unix:{}", self.daemons[node].socket().display());
        let told = eventually(SOON, async || {
            let berthctl = Program::berthctl().raw_args(&["--address", &address, "ack", &gpu.to_string()]);
            let ended = berthctl.run(SOON).await?;
            ensure!(ended.status.success(), "{ended:?}");
            Ok(())
        });
        told.await.unwrap();
    }

    pub(crate) async fn priority(&self, name: &str, value: i32) {
        let classes: Api<PriorityClass> = Api::all(self.rig.client());
        let class = serde_json::from_value(json!({"metadata": {"name": name}, "value": value})).unwrap();
        classes.create(&PostParams::default(), &class).await.unwrap();
    }

    pub(crate) fn kill_daemon(&mut self, node: &str) {
        self.daemons.get_mut(node).unwrap().kill();
    }

    /// With the state that it left.
    pub(crate) async fn start_daemon(&mut self, node: &str) {
        let program = daemon(&self.rig, node).in_dir_of(&self.daemons[node]);
        let process = program.start().await.unwrap();
        self.daemons.insert(node.to_owned(), process);
    }

    /// So many more schedulers, which see the same pods.
    pub(crate) async fn more_schedulers(&mut self, count: usize) {
        for _ in 0..count {
            let other = start_scheduler(&self.rig, self.way, "127.0.0.1:0").await;
            let ready = format!("{}/readyz", other.admin());
            let is_ready = eventually(SOON, async || {
                let answer = http::get(&ready).await?;
                ensure!(answer.status == 200, "{}", answer.body);
                Ok(())
            });
            is_ready.await.unwrap();
            self.others.push(other);
        }
        if matches!(self.way, Way::Kai(_)) {
            self.until_reviewed().await;
        }
    }

    pub(crate) fn kill_scheduler(&mut self) {
        self.scheduler.kill();
    }

    /// By SIGKILL.
    pub(crate) async fn restart_scheduler(&mut self) {
        self.scheduler.kill();
        self.scheduler = start_scheduler(&self.rig, self.way, EXTENDER).await;
    }
}
