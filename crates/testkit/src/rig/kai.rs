//! KAI Scheduler in a rig: the real parts where their folder is named, else the stand-in.
//!
//! The stand-in's parts have the real ones' names, so a test that stops or kills one need not know which it is.

use std::{
    collections::BTreeMap,
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Part, RigError, control_plane};
use crate::kai::install;

/// Folder with KAI's `scheduler`, `binder` and `podgrouper`.
pub const PROGRAMS: &str = "BERTH_KAI_BIN";
/// Folder with the definitions of KAI's resources.
pub const DEFINITIONS: &str = "BERTH_KAI_CRDS";

/// Which KAI a rig has. Shown as the line that a test report starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kai {
    Real { programs: PathBuf, definitions: PathBuf },
    StandIn,
}

impl Kai {
    /// By the environment; both variables or none.
    pub fn chosen() -> Result<Self, RigError> {
        match (env::var_os(PROGRAMS), env::var_os(DEFINITIONS)) {
            (Some(programs), Some(definitions)) => Ok(Self::Real {
                programs: programs.into(),
                definitions: definitions.into(),
            }),
            (None, None) => Ok(Self::StandIn),
            _ => Err(RigError::Kai(format!(
                "of {PROGRAMS} and {DEFINITIONS} one is set and one is not"
            ))),
        }
    }
}

impl fmt::Display for Kai {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real { .. } => "KAI: real",
            Self::StandIn => "KAI: stand-in",
        })
    }
}

/// Installs what KAI needs, then starts its parts. Real KAI ends where a kind is not served yet.
pub(super) async fn start(
    kai: &Kai,
    client: &kube::Client,
    parts: &mut BTreeMap<&'static str, Part>,
    tools: &Path,
    dir: &Path,
) -> Result<(), RigError> {
    let failed = |error: anyhow::Error| RigError::Kai(format!("{error:#}"));
    match kai {
        Kai::Real { definitions, .. } => apply(definitions, tools, dir)?,
        Kai::StandIn => install::definitions(client).await.map_err(failed)?,
    }
    install::wait_established(client).await.map_err(failed)?;
    install::defaults(client).await.map_err(failed)?;
    let ours = standin()?;
    let place = control_plane::kubeconfig(dir);
    let parts_with_arguments = [
        ("kai-podgrouper", no_listeners(kai)),
        ("kai-binder", binder(kai)),
        ("kai-scheduler", scheduler(kai)),
    ];
    for (name, mut arguments) in parts_with_arguments {
        let role = name.trim_start_matches("kai-");
        let part = match kai {
            Kai::Real { programs, .. } => {
                if name != "kai-scheduler" {
                    arguments.push(kubeconfig(&place));
                }
                // The scheduler reads its place from there and from nowhere else.
                let place = ("KUBECONFIG".to_owned(), place.display().to_string());
                Part::start_with(name, &programs.join(role), arguments, vec![place], dir)?
            }
            Kai::StandIn => {
                arguments.splice(0..0, [role.to_owned(), kubeconfig(&place)]);
                Part::start(name, &ours, arguments, dir)?
            }
        };
        parts.insert(name, part);
    }
    // Reservation pods run on nodes without GPUs here: somebody has to name theirs.
    let name = "kai-gpu-names";
    let arguments = vec!["gpu-names".to_owned(), kubeconfig(&place)];
    parts.insert(name, Part::start(name, &ours, arguments, dir)?);
    Ok(())
}

fn kubeconfig(path: &Path) -> String {
    format!("--kubeconfig={}", path.display())
}

fn binder(kai: &Kai) -> Vec<String> {
    let mut arguments = no_listeners(kai);
    arguments.push("--resource-reservation-allocation-timeout=5".to_owned());
    arguments
}

fn scheduler(kai: &Kai) -> Vec<String> {
    match kai {
        Kai::StandIn => Vec::new(),
        Kai::Real { .. } => [
            "--schedule-period=1s",
            "--leader-elect=false",
            "--listen-address=127.0.0.1:9101",
            "--plugin-server-port=9102",
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}

/// The stand-in has none to switch off.
fn no_listeners(kai: &Kai) -> Vec<String> {
    match kai {
        Kai::StandIn => Vec::new(),
        Kai::Real { .. } => ["--metrics-bind-address=0", "--health-probe-bind-address=0"]
            .map(str::to_owned)
            .to_vec(),
    }
}

fn apply(definitions: &Path, tools: &Path, dir: &Path) -> Result<(), RigError> {
    let kubectl = tools.join("kubectl");
    let output = Command::new(kubectl)
        .arg(kubeconfig(&control_plane::kubeconfig(dir)))
        .args(["create", "--filename"])
        .arg(definitions)
        .output()
        .map_err(|error| RigError::start("kubectl", error))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(RigError::Kai(format!("kubectl create: {}", told.trim())))
}

/// Our program lies where the tests and programs of this workspace are built.
fn standin() -> Result<PathBuf, RigError> {
    let here = env::current_exe().map_err(|error| RigError::start("kai-standin", error))?;
    let found = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("kai-standin"))
        .find(|path| path.exists());
    found.ok_or_else(|| {
        RigError::Kai("no kai-standin; `cargo build -p berth-testkit --features rig` builds it".to_owned())
    })
}
