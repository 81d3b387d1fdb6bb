//! `--cluster simulated:1000xdgx-h100`: a cluster that is not there, to try things and to measure. What is bound is kept
//! here, for as long as the process lives.

use std::{collections::BTreeMap, fmt, str::FromStr};

use berth_placement::{ComputeMode, CpuMilli, DeviceState, Health, MemoryBytes, NodeState, ParseIdError, Room};
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::{
    cluster::{Cluster, Origin},
    convert::{NodeFacts, NodeReport},
};

/// More nodes than any cluster has.
const MOST_NODES: usize = 100_000;

/// Groups of equal nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulated(Vec<(usize, &'static Profile)>);

/// A node of a kind.
#[derive(Debug, PartialEq, Eq)]
struct Profile {
    name: &'static str,
    model: &'static str,
    gpus: u32,
    /// Of each GPU.
    gpu_gib: u64,
    cores: u64,
    memory_gib: u64,
}

const fn profile(
    name: &'static str,
    model: &'static str,
    gpus: u32,
    gpu_gib: u64,
    cores: u64,
    memory_gib: u64,
) -> Profile {
    Profile {
        name,
        model,
        gpus,
        gpu_gib,
        cores,
        memory_gib,
    }
}

/// As berthd's `--simulate` has them.
static PROFILES: [Profile; 5] = [
    profile("dgx-h100", "H100", 8, 80, 224, 2048),
    profile("dgx-a100", "A100", 8, 80, 256, 2048),
    profile("l40s", "L40S", 8, 48, 128, 1024),
    profile("h200", "H200", 8, 141, 224, 2048),
    profile("gb200", "GB200", 4, 186, 144, 960),
];

/// The text names no cluster that can be simulated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no simulated cluster: write simulated:COUNTxPROFILE[,COUNTxPROFILE…] with dgx-h100, dgx-a100, l40s, h200 or \
     gb200, at most 100000 nodes in all, e.g. simulated:1000xdgx-h100"
)]
pub struct ParseSimulatedError(String);

impl FromStr for Simulated {
    type Err = ParseSimulatedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let groups = text.strip_prefix("simulated:")?.split(',');
            let group = |group: &str| {
                let (count, name) = group.split_once('x')?;
                let count = count.parse().ok().filter(|count| (1..=MOST_NODES).contains(count))?;
                Some((count, PROFILES.iter().find(|profile| profile.name == name)?))
            };
            let groups: Vec<(usize, &Profile)> = groups.map(group).collect::<Option<_>>()?;
            let all: usize = groups.iter().map(|(count, _)| count).sum();
            (all <= MOST_NODES).then_some(Self(groups))
        };
        parse().ok_or_else(|| ParseSimulatedError(text.to_owned()))
    }
}

impl fmt::Display for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> = self
            .0
            .iter()
            .map(|(count, profile)| format!("{count}x{}", profile.name))
            .collect();
        write!(f, "simulated:{}", groups.join(","))
    }
}

impl Serialize for Simulated {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Simulated {
    /// Every node, free.
    pub(crate) fn fill(&self, cluster: &Cluster) {
        for (count, profile) in &self.0 {
            for at in 0..*count {
                // Names and numbers are ours: they always parse.
                if let Ok(report) = profile.node(&format!("{}-{at:05}", profile.name)) {
                    let joined = cluster.report(cluster.join(Origin::Invented), report);
                    debug_assert!(joined.is_ok(), "BUG: two invented nodes of one name");
                }
            }
        }
    }
}

impl Profile {
    fn node(&self, name: &str) -> Result<NodeReport, ParseIdError> {
        let memory = MemoryBytes::from_gib(self.gpu_gib);
        let device = |index: u32| {
            Ok(DeviceState {
                uuid: format!("GPU-{name}-{index}").parse()?,
                index,
                model: self.model.parse()?,
                memory,
                compute_mode: ComputeMode::Default,
                numa_node: Some(2 * index / self.gpus),
                nvlink_domain: (self.model != "L40S").then_some(0),
                health: Health::Healthy,
                schedulable: true,
                out_of_band: false,
                mig: None,
                free: Room::whole(memory),
            })
        };
        let cpu = Some(CpuMilli(1000 * self.cores));
        Ok(NodeReport {
            state: NodeState {
                cpu_free: cpu,
                cpu_total: cpu,
                memory_free: Some(MemoryBytes::from_gib(self.memory_gib)),
                ..NodeState::of_devices(
                    name.parse()?,
                    1,
                    (0..self.gpus).map(device).collect::<Result<_, ParseIdError>>()?,
                )
            },
            instance: "simulated".to_owned(),
            facts: NodeFacts {
                simulated: true,
                ..NodeFacts::default()
            },
            reconciled: true,
            bound: BTreeMap::new(),
            pods: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_written_as_its_groups() {
        let text = "simulated:2xdgx-h100,3xgb200";
        let simulated: Simulated = text.parse().unwrap();
        assert_eq!(simulated.to_string(), text);
        for bad in [
            "",
            "simulated:",
            "simulated:dgx-h100",
            "simulated:0xl40s",
            "simulated:1xtoaster",
            "simulated:99999xl40s,2xl40s",
            "real:1xl40s",
        ] {
            let error = bad.parse::<Simulated>().unwrap_err().to_string();
            assert!(error.contains("simulated:1000xdgx-h100"), "{error}");
        }
    }
}
