//! A real Kubernetes control plane on one machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok
//! nodes with GPUs, in a network namespace of its own without a route out.
//!
//! Owns the life of the parts. Must not know what a test does with them. Recipe and traps: the project's rig notes;
//! every flag that is not obvious says why it is there.
//!
//! ```text
//! test ──inside()──► the same test again, in new net and pid namespaces ──► Rig::up ──► parts (children)
//! ```
//! When the inner test ends, however it ends, its pid namespace ends, and with it every part.

mod audit;
pub mod bao;
mod control_plane;
mod error;
pub mod kai;
pub mod kwok;
pub mod namespace;
pub mod part;
mod pki;
pub mod tools;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub use audit::Requests;
pub use error::RigError;
pub use kai::Kai;
pub use kwok::NodeProfile;
pub use namespace::{in_rig, inside};
pub use part::{Part, PartState};

/// What a rig shall have.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each part is there or not, whatever the others are"
)]
pub struct RigConfig {
    /// kwok nodes with GPUs.
    pub nodes: usize,
    pub profile: NodeProfile,
    /// A `KubeSchedulerConfiguration` without `clientConnection`, as JSON; `None`: kube-scheduler's defaults.
    pub scheduler: Option<serde_json::Value>,
    /// NATS, for the agent's queues.
    pub nats: bool,
    /// KAI Scheduler: the real one where its variables are set, else the stand-in.
    pub kai: bool,
    /// OpenBao and the vault-agent injector: the real ones where their variables are set, else the stand-ins.
    pub bao: bool,
    /// The API server writes a line for each request: [`Rig::audit_log`].
    pub audit: bool,
    /// Where state and logs go; `None`: a temporary folder that goes with the rig.
    pub dir: Option<PathBuf>,
}

/// A running control plane. Ends with every part when it is dropped.
pub struct Rig {
    parts: BTreeMap<&'static str, Part>,
    dir: PathBuf,
    /// Keeps the temporary folder, where it is one.
    _temporary: Option<tempfile::TempDir>,
    client: kube::Client,
    tools: PathBuf,
}

impl Default for RigConfig {
    fn default() -> Self {
        Self {
            nodes: 20,
            profile: NodeProfile::dgx_h100(),
            scheduler: None,
            nats: false,
            kai: false,
            bao: false,
            audit: false,
            dir: None,
        }
    }
}

/// The longest that a part may take until it answers.
const READY: Duration = Duration::from_mins(1);

impl Rig {
    /// Starts everything and returns when the nodes are Ready and pods are accepted.
    ///
    /// Must run in a network namespace of its own ([`inside`]): the API server sends webhook calls for cluster addresses to
    /// the default route, which must not exist.
    pub async fn up(config: RigConfig) -> Result<Self, RigError> {
        namespace::require_isolation()?;
        control_plane::require_free_ports()?;
        let tools = tools::folder()?;
        let (dir, temporary) = if let Some(dir) = config.dir {
            (dir, None)
        } else {
            let temporary = tempfile::tempdir().map_err(|error| RigError::io("a temporary folder", error))?;
            (temporary.path().to_owned(), Some(temporary))
        };
        fs::create_dir_all(dir.join("logs")).map_err(|error| RigError::io(&dir, error))?;
        pki::write(&dir)?;
        let mut parts = BTreeMap::new();
        let mut start = |name: &'static str, args: Vec<String>| -> Result<(), RigError> {
            parts.insert(name, Part::start(name, &tools.join(name), args, &dir)?);
            Ok(())
        };
        start("etcd", control_plane::etcd(&dir))?;
        start("kube-apiserver", control_plane::apiserver(&dir, config.audit)?)?;
        if config.nats {
            start("nats-server", control_plane::nats(&dir))?;
        }
        control_plane::write_kubeconfig(&dir)?;
        let client = control_plane::client(&dir).await?;
        control_plane::wait_ready(&client, &mut parts, READY).await?;

        // They would only log errors before the API server answers.
        let scheduler = control_plane::scheduler(&dir, config.scheduler.as_ref())?;
        let kwok = kwok::args(&dir)?;
        for (name, args) in [
            ("kube-controller-manager", control_plane::controller_manager(&dir)),
            ("kube-scheduler", scheduler),
            ("kwok", kwok),
        ] {
            parts.insert(name, Part::start(name, &tools.join(name), args, &dir)?);
        }
        let mut rig = Self {
            parts,
            dir,
            _temporary: temporary,
            client,
            tools,
        };
        kwok::create_nodes(&rig.client, config.nodes, &config.profile).await?;
        control_plane::wait_accepts_pods(&rig.client, &mut rig.parts, READY).await?;
        kwok::wait_ready(&rig.client, &mut rig.parts, config.nodes, READY).await?;
        if config.kai {
            let kai = Kai::chosen()?;
            report(&kai);
            kai::start(&kai, &rig.client, &mut rig.parts, &rig.tools, &rig.dir).await?;
        }
        if config.bao {
            let choice = bao::Choice::chosen();
            report(&choice);
            bao::start(&choice, &rig.client, &mut rig.parts, &rig.dir).await?;
        }
        Ok(rig)
    }

    /// A client with every right.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// For `kubectl`, `helm` and everything else that takes a file.
    pub fn kubeconfig(&self) -> PathBuf {
        control_plane::kubeconfig(&self.dir)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A JSON line for each request to the API server, written when it comes in.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join(control_plane::AUDIT_LOG)
    }

    /// Folder with `kubectl`, `helm`, `grpcurl` and the parts' programs.
    pub fn tools(&self) -> &Path {
        &self.tools
    }

    /// The names of the parts that run or did run.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, PartState)> {
        self.parts.iter().map(|(name, part)| (*name, part.state()))
    }

    /// One part: to pause, kill or restart it.
    pub fn part(&mut self, name: &str) -> Result<&mut Part, RigError> {
        let known: Vec<_> = self.parts.keys().copied().collect();
        self.parts.get_mut(name).ok_or_else(|| RigError::UnknownPart {
            name: name.to_owned(),
            known,
        })
    }

    /// Starts one more program inside the rig, e.g. ours or a stand-in: `name` is its name here and of its log.
    pub fn start(&mut self, name: &'static str, program: &Path, args: Vec<String>) -> Result<&mut Part, RigError> {
        let part = Part::start(name, program, args, &self.dir)?;
        self.parts.insert(name, part);
        self.part(name)
    }

    /// Waits until the API server answers again, for after it was stopped on purpose.
    pub async fn wait_ready(&mut self) -> Result<(), RigError> {
        control_plane::wait_ready(&self.client, &mut self.parts, READY).await
    }
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rig")
            .field("dir", &self.dir)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Clients before servers, so that no part logs the death of another.
        for name in [
            "vault-agent-injector",
            "openbao",
            "kai-scheduler",
            "kai-binder",
            "kai-podgrouper",
            "kai-gpu-names",
            "kwok",
            "kube-scheduler",
            "kube-controller-manager",
            "kube-apiserver",
            "etcd",
        ] {
            if let Some(part) = self.parts.get_mut(name) {
                part.kill();
            }
        }
    }
}

/// A test's reader must know what was proven.
#[expect(clippy::print_stderr, reason = "a line of the test's report")]
fn report(which: &impl std::fmt::Display) {
    eprintln!("{which}");
}
