//! The demo's cluster: four `berthd`, one `berth-scheduler`, and what a kube-scheduler and an operator do with them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::pods::Ask;
use crate::{
    process::{Program, wait_for},
    workspace,
};

/// The node that goes the NVML path.
pub(super) const FAKE_NODE: &str = "h200-nvml";

const SIMULATED: &[(&str, &str)] = &[("h100-sim", "dgx-h100"), ("a100-sim", "dgx-a100"), ("l40s-sim", "l40s")];

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(super) daemons: Vec<Program>,
    pub(super) scheduler: Program,
    scenario: PathBuf,
}

/// Where a pod ended up, and why there.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) pod: String,
    pub(super) node: String,
    /// UUIDs.
    pub(super) devices: Vec<String>,
    pub(super) why: String,
}

/// What `/filter` answered.
#[derive(Debug)]
pub(super) struct Filtered(Value);

impl Filtered {
    /// Why this node was refused.
    pub(super) fn refusal(&self, node: &str) -> Option<String> {
        ["FailedNodes", "FailedAndUnresolvableNodes"]
            .iter()
            .find_map(|list| self.0[list][node].as_str().map(str::to_owned))
    }
}

impl Cluster {
    /// Starts all of it on free ports, with its state in `dir`.
    pub(super) fn start(dir: &Path) -> anyhow::Result<Self> {
        let programs = workspace::target_debug();
        let scenario = dir.join("h200.json");
        let mut init = Command::new(programs.join("fake-nvml-ctl"));
        init.args(["init"]).arg(&scenario).args(["--profile", "h200"]);
        workspace::check(init.stdout(std::process::Stdio::null()))?;

        let mut daemons = Vec::new();
        for (name, profile) in SIMULATED {
            daemons.push(berthd(dir, name, &["--simulate", profile], None)?);
        }
        let library = programs.join("libberth_fake_nvml.so");
        let library = library.to_str().context("the target folder's path is not UTF-8")?;
        daemons.push(berthd(dir, FAKE_NODE, &["--nvml-library", library], Some(&scenario))?);

        let urls: Vec<String> = daemons
            .iter()
            .map(|daemon| Ok(format!("http://{}", daemon.address("grpc")?)))
            .collect::<anyhow::Result<_>>()?;
        let mut scheduler = Command::new(programs.join("berth-scheduler"));
        scheduler.args(["--nodes", &urls.join(","), "--policy", "binpack"]);
        scheduler.args([
            "--listen",
            "127.0.0.1:0",
            "--grpc",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        let scheduler = Program::start("berth-scheduler", dir, &mut scheduler)?;
        let cluster = Self {
            daemons,
            scheduler,
            scenario,
        };
        wait_for(Duration::from_secs(30), || {
            Ok((ureq::get(cluster.admin("readyz")?).call().is_ok()).then_some(()))
        })
        .context("the scheduler does not become ready")?;
        Ok(cluster)
    }

    pub(super) fn names() -> Vec<&'static str> {
        SIMULATED.iter().map(|(name, _)| *name).chain([FAKE_NODE]).collect()
    }

    fn admin(&self, page: &str) -> anyhow::Result<String> {
        Ok(format!("http://{}/{page}", self.scheduler.address("admin")?))
    }

    /// What a person could look at.
    pub(super) fn addresses(&self) -> anyhow::Result<String> {
        let nodes: Vec<_> = self
            .daemons
            .iter()
            .map(|daemon| daemon.address("grpc"))
            .collect::<Result<_, _>>()?;
        Ok(format!(
            "extender {}, nodes {}",
            self.scheduler.address("extender")?,
            nodes.join(" ")
        ))
    }

    fn post(&self, verb: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("http://{}/{verb}", self.scheduler.address("extender")?);
        let mut answer = ureq::post(&url)
            .send_json(body)
            .with_context(|| format!("{verb} failed"))?;
        Ok(answer.body_mut().read_json()?)
    }

    pub(super) fn filter(&self, ask: &Ask) -> anyhow::Result<Filtered> {
        Ok(Filtered(self.post("filter", &ask.extender_args(&Self::names())?)?))
    }

    /// What kube-scheduler does with one pod: filter, prioritize, take the best, bind.
    pub(super) fn place(&self, ask: &Ask) -> anyhow::Result<Seat> {
        let filtered = self.filter(ask)?;
        let feasible: Vec<&str> = filtered.0["NodeNames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        ensure!(!feasible.is_empty(), "no node is feasible: {}", filtered.0);
        let scores = self.post("prioritize", &ask.extender_args(&feasible)?)?;
        let best = scores
            .as_array()
            .into_iter()
            .flatten()
            .max_by_key(|entry| entry["Score"].as_i64())
            .and_then(|entry| entry["Host"].as_str())
            .with_context(|| format!("prioritize ranked nothing: {scores}"))?;
        self.bind(ask, best)?;
        let seats = self.seats_on(best)?;
        let devices = seats
            .into_iter()
            .find(|(pod, _)| pod == ask.name)
            .map(|(_, devices)| devices)
            .with_context(|| format!("{best}'s book does not know the pod"))?;
        Ok(Seat {
            pod: ask.name.to_owned(),
            node: best.to_owned(),
            devices,
            why: self.why(ask)?,
        })
    }

    /// What kube-scheduler posts when it has chosen.
    pub(super) fn bind(&self, ask: &Ask, node: &str) -> anyhow::Result<()> {
        let args = json!({"PodName": ask.name, "PodNamespace": "nvcf-backend", "PodUID": ask.uid(), "Node": node});
        let bound = self.post("bind", &args)?;
        let error = bound["Error"].as_str().unwrap_or_default();
        ensure!(error.is_empty(), "bind to {node} failed: {error}");
        Ok(())
    }

    /// Our programs by kind.
    pub(crate) fn programs(&self) -> [(&'static str, &[Program]); 2] {
        [
            ("berthd", &self.daemons),
            ("berth-scheduler", std::slice::from_ref(&self.scheduler)),
        ]
    }

    /// The scheduler's reason for its decision, from its own trail.
    fn why(&self, ask: &Ask) -> anyhow::Result<String> {
        let decisions: Value = ureq::get(self.admin("debug/decisions")?)
            .call()?
            .body_mut()
            .read_json()?;
        let entry = decisions
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["pod"]["uid"].as_str() == Some(&ask.uid()))
            .with_context(|| format!("no decision for {} in {decisions}", ask.name))?;
        Ok(entry["why"].as_str().unwrap_or_default().to_owned())
    }

    fn berthctl(&self, node: &str, args: &[&str]) -> anyhow::Result<Value> {
        let daemon = self
            .daemons
            .iter()
            .find(|daemon| daemon.name == node)
            .context("no such node")?;
        let output = Command::new(workspace::target_debug().join("berthctl"))
            .args([
                "--address",
                &format!("http://{}", daemon.address("grpc")?),
                "-o",
                "json",
            ])
            .args(args)
            .output()?;
        if !output.status.success() {
            bail!(
                "berthctl {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        serde_json::from_slice(&output.stdout).context("berthctl's answer is no JSON")
    }

    /// The node's devices as `berthctl devices -o json` tells them.
    pub(super) fn devices(&self, node: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.berthctl(node, &["devices"])?;
        Ok(answer["devices"].as_array().cloned().unwrap_or_default())
    }

    /// A device's number on its node.
    pub(super) fn index(&self, node: &str, uuid: &str) -> anyhow::Result<u64> {
        let devices = self.devices(node)?;
        let device = devices.iter().find(|device| device["uuid"].as_str() == Some(uuid));
        device
            .and_then(|device| device["index"].as_u64())
            .with_context(|| format!("{node} does not know {uuid}"))
    }

    /// Who holds what on a node: pod and devices.
    pub(super) fn seats_on(&self, node: &str) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let answer = self.berthctl(node, &["allocations"])?;
        let texts = |list: &Value| -> Vec<String> {
            let grants = list.as_array().into_iter().flatten();
            grants
                .filter_map(|grant| grant["deviceUuid"].as_str().map(str::to_owned))
                .collect()
        };
        let allocations = answer["allocations"].as_array().into_iter().flatten();
        Ok(allocations
            .map(|entry| {
                (
                    entry["pod"]["name"].as_str().unwrap_or_default().to_owned(),
                    texts(&entry["grants"]),
                )
            })
            .collect())
    }

    /// The devices that the node with the fake driver would give to this pod now.
    pub(super) fn plan(&self, ask: &Ask) -> anyhow::Result<Option<Vec<String>>> {
        let count = ask.whole().context("whole GPUs only")?.to_string();
        let answer = self.berthctl(FAKE_NODE, &["explain", "--gpus", &count])?;
        let plan = answer["plan"].as_array().into_iter().flatten();
        let devices: Vec<_> = plan
            .filter_map(|grant| grant["deviceUuid"].as_str().map(str::to_owned))
            .collect();
        Ok((!devices.is_empty()).then_some(devices))
    }

    /// Breaks a GPU of the node with the fake driver.
    pub(super) fn xid(&self, uuid: &str, code: u32) -> anyhow::Result<()> {
        let index = self.index(FAKE_NODE, uuid)?;
        let mut command = Command::new(workspace::target_debug().join("fake-nvml-ctl"));
        command
            .arg("--file")
            .arg(&self.scenario)
            .args(["xid", &index.to_string(), &code.to_string()]);
        workspace::check(command.stdout(std::process::Stdio::null()))
    }

    fn health(&self, uuid: &str) -> anyhow::Result<(String, String)> {
        let devices = self.devices(FAKE_NODE)?;
        let device = devices
            .iter()
            .find(|device| device["uuid"].as_str() == Some(uuid))
            .context("the device is gone")?;
        let health = &device["health"];
        let reasons: Vec<_> = health["reasons"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|reason| reason["message"].as_str())
            .collect();
        Ok((
            health["state"].as_str().unwrap_or_default().to_owned(),
            reasons.join("; "),
        ))
    }

    /// Waits until the scheduler's own view calls the device unusable; answers why.
    pub(super) fn wait_until_avoided(&self, uuid: &str, longest: Duration) -> anyhow::Result<String> {
        wait_for(longest, || {
            let cluster: Value = ureq::get(self.admin("debug/cluster")?).call()?.body_mut().read_json()?;
            let nodes = cluster["nodes"].as_array().into_iter().flatten();
            let mut devices = nodes.flat_map(|node| node["devices"].as_array().into_iter().flatten());
            let avoided = devices
                .any(|device| device["uuid"].as_str() == Some(uuid) && device["health"].as_str() == Some("Unhealthy"));
            Ok(avoided.then_some(()))
        })
        .context("the scheduler does not avoid the broken GPU")?;
        let (state, reasons) = self.health(uuid)?;
        Ok(format!("{state}: {reasons}"))
    }

    pub(super) fn acknowledge(&self, uuid: &str) -> anyhow::Result<()> {
        self.berthctl(FAKE_NODE, &["ack", uuid, "--message", "reseated the board"])
            .map(drop)
    }

    /// Waits until the device is healthy for its node and for the scheduler.
    pub(super) fn wait_until_healthy(&self, uuid: &str, longest: Duration) -> anyhow::Result<()> {
        wait_for(longest, || {
            let cluster: Value = ureq::get(self.admin("debug/cluster")?).call()?.body_mut().read_json()?;
            let nodes = cluster["nodes"].as_array().into_iter().flatten();
            let mut devices = nodes.flat_map(|node| node["devices"].as_array().into_iter().flatten());
            Ok(devices
                .any(|device| device["uuid"].as_str() == Some(uuid) && device["health"].as_str() == Some("Healthy"))
                .then_some(()))
        })
        .context("the acknowledged GPU does not become healthy")
    }
}

fn berthd(dir: &Path, name: &str, args: &[&str], scenario: Option<&Path>) -> anyhow::Result<Program> {
    let mut command = Command::new(workspace::target_debug().join("berthd"));
    command
        .args(["--node-name", name, "--kubelet-socket", "none", "--allow", "loopback"])
        .args(args);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.arg("--socket").arg(dir.join(format!("{name}.sock")));
    command.arg("--state-dir").arg(dir.join(format!("{name}.state")));
    if let Some(scenario) = scenario {
        command.env("BERTH_FAKE_NVML", scenario);
    }
    Program::start(name, dir, &mut command)
}
