//! The whole release at work: each program a process that must not end, OpenBao's agents beside it, functions on its node; and what a
//! minute without a part costs.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use berth_runtime::{Clock as _, SystemClock};
use berth_testkit::{
    Process, eventually, http,
    rig::bao::lay_out,
    spawn, throughout,
    vault_agent::{Agent, AgentConfig},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, SOON},
    pods::Place,
    work::Customer,
};

/// Longer than any program waits for anything.
pub(crate) const OUTAGE: Duration = Duration::from_mins(1);
/// Of the agent: the longest wait between two tries, and what the next one takes.
pub(crate) const RECOVERY: Duration = Duration::from_mins(2);

/// Programs that run.
pub(crate) struct System {
    programs: BTreeMap<&'static str, Process>,
    stop: CancellationToken,
    clock: SystemClock,
}

/// A function with one instance.
pub(crate) struct Function {
    pub(crate) request: String,
    pub(crate) instance: String,
}

impl System {
    pub(crate) fn new() -> Self {
        Self {
            programs: BTreeMap::new(),
            stop: CancellationToken::new(),
            clock: SystemClock::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &'static str, process: Process) {
        self.programs.insert(name, process);
    }

    fn log(&self, name: &str) -> String {
        self.programs[name].stderr()
    }

    pub(crate) fn kill(&mut self, name: &str) {
        drop(self.programs.remove(name));
    }

    /// How often the agent told SIS the end of an instance, and was heard.
    pub(crate) fn ends_told(&self, function: &Function) -> usize {
        let log = self.log("agent");
        let of_it = log
            .lines()
            .filter(|line| line.contains(&function.instance) && line.contains("told SIS"));
        of_it.filter(|line| line.contains(r#""state":"terminated""#)).count()
    }

    /// OpenBao's agent beside a pod's containers, from now on.
    pub(crate) async fn renew_secrets(&self, cluster: &Cluster, place: &Place) {
        let container = "vault-agent";
        let pod: Pod = serde_json::from_value(place.pod.clone()).unwrap();
        lay_out(&cluster.rig.client(), &pod, container, &place.root)
            .await
            .unwrap();
        let config = AgentConfig::of_container(&place.pod, container).unwrap();
        let log = Box::new(|_: &str| {});
        let agent = Agent::new(config, place.root.clone(), None, SystemClock::shared(), log);
        drop(spawn(agent.run(self.stop.clone())));
    }

    /// The operator's pod at work, but for its init container.
    pub(crate) async fn start_operator(&mut self, cluster: &Cluster, place: &Place) {
        self.add("operator", cluster.operator(place).await);
        for (name, container) in [("mirror", "nvca-mirror"), ("watch", "nvca-bootstrap-watch")] {
            let program = cluster.program(place, container).await;
            self.add(name, program.start().await.unwrap());
        }
    }

    /// The agent's pod at work.
    pub(crate) async fn start_agent(&mut self, cluster: &Cluster, place: &Place) {
        let agent = cluster.program(place, "agent").await;
        self.add("agent", agent.start().await.unwrap());
        let webhook = cluster.program(place, "webhook").await.arg("--tls-dir", "{dir}/certs");
        self.add("webhook", webhook.start().await.unwrap());
    }

    /// Every program is the one that was started, and answers.
    async fn lives(&self) -> anyhow::Result<()> {
        for (name, process) in &self.programs {
            let answer = http::get(&format!("{}/livez", process.admin())).await;
            let answer = answer.with_context(|| format!("{name} does not answer:\n{}", process.stderr()))?;
            ensure!(answer.status == 200, "{name}: {}", answer.body);
        }
        Ok(())
    }

    /// Lets the outage last; no program may end or hang meanwhile.
    pub(crate) async fn outlives(&self) {
        throughout(OUTAGE, async || self.lives().await).await.unwrap();
    }

    /// Waits for it, and tells how long it took.
    #[expect(clippy::print_stdout, reason = "a measurement")]
    pub(crate) async fn recovers<T>(&self, what: &str, probe: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
        let start = self.clock.monotonic();
        let recovered = eventually(RECOVERY, probe).await;
        let took = self.clock.monotonic().saturating_sub(start).as_secs_f32();
        let recovered = recovered.unwrap_or_else(|error| {
            let logs: Vec<_> = self
                .programs
                .iter()
                .map(|(name, it)| format!("== {name}\n{}", tail(&it.stderr())))
                .collect();
            panic!("{what}: {error:#}\n{}", logs.join("\n"))
        });
        println!("  {what}: {took:.1} s");
        self.lives().await.unwrap();
        recovered
    }

    /// How a program says that it is: status and text of the page for probes.
    pub(crate) async fn says(&self, name: &str) -> anyhow::Result<(u16, String)> {
        let process = &self.programs[name];
        let page = if name == "agent" {
            format!("http://{}/healthz", process.address("http"))
        } else {
            format!("{}/readyz", process.admin())
        };
        let answer = http::get(&page).await?;
        Ok((answer.status, answer.body))
    }

    /// Until it tells of trouble in these words.
    pub(crate) async fn tells(&self, name: &str, words: &str) {
        let told = eventually(SOON, async || {
            let (status, text) = self.says(name).await?;
            ensure!(status == 503 && text.contains(words), "{status} {text}");
            Ok(())
        });
        told.await
            .unwrap_or_else(|error| panic!("{name}: {error:#}\n{}", self.log(name)));
    }

    /// All of them are ready.
    pub(crate) async fn is_well(&self) {
        self.recovers("every program is ready", async || {
            for name in self.programs.keys() {
                let (status, text) = self.says(name).await?;
                ensure!(status == 200, "{name}: {status} {text}");
            }
            Ok(())
        })
        .await;
    }

    /// Until its log holds these words.
    pub(crate) async fn logs(&self, name: &str, words: &str) {
        let logged = eventually(SOON, async || {
            let log = self.log(name);
            ensure!(log.contains(words), "{}", tail(&log));
            Ok(())
        });
        logged
            .await
            .unwrap_or_else(|error| panic!("{name} does not say {words:?}: {error:#}"));
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

impl Cluster {
    pub(crate) async fn sis_state(&self) -> anyhow::Result<Value> {
        let page = http::get(&format!("{}/debug/state", self.sis.admin())).await?;
        Ok(serde_json::from_str(&page.body)?)
    }

    /// What SIS believes of a request's only instance, and its name.
    pub(crate) async fn told(&self, request: &str) -> anyhow::Result<(String, String)> {
        let state = self.sis_state().await?;
        let instances: BTreeMap<String, String> =
            serde_json::from_value(state["requests"][request]["instances"].clone())?;
        ensure!(instances.len() <= 1, "one was asked for: {instances:?}");
        instances.into_iter().next().context("SIS was told of no instance")
    }

    pub(crate) async fn is_told(&self, function: &Function, wanted: &str) -> anyhow::Result<()> {
        let (_, state) = self.told(&function.request).await?;
        ensure!(state == wanted, "{} is {state}, not {wanted}", function.instance);
        Ok(())
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.rig.client(), "nvcf-backend")
    }

    /// As the scheduler does; kwok lets it run.
    pub(crate) async fn bind(&self, function: &Function) -> anyhow::Result<()> {
        let name = &function.instance;
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "gpu-0000"}});
        let params = PostParams::default();
        let pods = self.pods();
        let bound = pods.create_subresource::<Value, Value>("binding", name, &params, &binding);
        bound.await.map(drop).or_else(|error| match error {
            // It is bound already.
            kube::Error::Api(status) if status.code == 409 => Ok(()),
            error => Err(error.into()),
        })
    }

    /// Starting, once SIS was told so.
    pub(crate) async fn starts(&self, request: String) -> anyhow::Result<Function> {
        let (instance, state) = self.told(&request).await?;
        ensure!(state == "starting", "{instance} is {state}");
        Ok(Function { request, instance })
    }

    /// A function that runs, and the id of its pod.
    pub(crate) async fn runs(&self, customer: &Customer) -> (Function, String) {
        let request = eventually(SOON, async || customer.ask(self).await).await.unwrap();
        let started = eventually(SOON, async || self.starts(request.clone()).await);
        let function = started.await.unwrap();
        let running = eventually(SOON, async || {
            self.bind(&function).await?;
            self.is_told(&function, "running").await
        });
        running.await.unwrap();
        let pod = self.pods().get(&function.instance).await.unwrap();
        (function, pod.metadata.uid.unwrap())
    }

    /// The pods of functions by name, each with its id.
    pub(crate) async fn function_pods(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let pods = self
            .pods()
            .list(&kube::api::ListParams::default().labels("icms-request-id"))
            .await?;
        let named = pods
            .items
            .into_iter()
            .map(|pod| pod.metadata.name.zip(pod.metadata.uid));
        Ok(named.flatten().collect())
    }
}
