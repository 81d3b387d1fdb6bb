//! How two GPUs reach each other.

use std::str::FromStr;

use super::{Gpu, LinkPeerKind, Product};

/// The common ancestor of two GPUs in the PCIe tree, as `nvidia-smi topo -m` names them (PIX, PXB, PHB, NODE, SYS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathLevel {
    /// The same board.
    Internal,
    /// One PCIe switch.
    Single,
    /// Several PCIe switches, no host bridge.
    Multiple,
    HostBridge,
    /// The CPU's interconnect within a NUMA node.
    Node,
    /// The interconnect between CPUs.
    System,
}

impl PathLevel {
    pub fn between(a: &Gpu, b: &Gpu) -> Self {
        let (a, b) = (&a.place, &b.place);
        let shared = a
            .pcie_switches
            .iter()
            .zip(&b.pcie_switches)
            .take_while(|(a, b)| a == b)
            .count();
        if !a.board.is_empty() && a.board == b.board {
            Self::Internal
        } else if shared > 0 && shared == a.pcie_switches.len() && shared == b.pcie_switches.len() {
            Self::Single
        } else if shared > 0 {
            Self::Multiple
        } else if !a.host_bridge.is_empty() && a.host_bridge == b.host_bridge {
            Self::HostBridge
        } else if a.numa_node.is_some() && a.numa_node == b.numa_node {
            Self::Node
        } else {
            Self::System
        }
    }
}

impl Gpu {
    /// Whether NVLink connects the two, directly or through switches.
    pub fn nvlinked_to(&self, other: &Self) -> bool {
        let switched = |gpu: &Self| gpu.nvlink.reachable().any(|peer| peer.kind == LinkPeerKind::Switch);
        let direct = self
            .nvlink
            .reachable()
            .any(|peer| peer.kind == LinkPeerKind::Gpu && peer.bus_id == Some(other.bus_id));
        self.uuid != other.uuid && (direct || switched(self) && switched(other))
    }

    /// Whether the two may read and write each other's memory over PCIe.
    pub fn pcie_peer_of(&self, other: &Self, product: &Product) -> bool {
        product.pcie_p2p
            && self.uuid != other.uuid
            && self.product == other.product
            && !self.mig.current
            && !other.mig.current
    }
}

/// CPUs in the kernel's list form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList(Vec<(u32, u32)>);

impl CpuList {
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    pub fn contains(&self, cpu: u32) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&cpu))
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some((first, last))
        };
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(range)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no CPU list; write it as 0-55,112-167"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Place;

    fn at(numa_node: u32, host_bridge: &str, switches: &[&str]) -> Gpu {
        Gpu {
            place: Place {
                numa_node: Some(numa_node),
                host_bridge: host_bridge.to_owned(),
                pcie_switches: switches.iter().map(|&switch| switch.to_owned()).collect(),
                ..Place::default()
            },
            ..Gpu::default()
        }
    }

    #[test]
    fn the_nearest_common_ancestor_counts() {
        let gpu = at(0, "pci0000:00", &["outer", "inner"]);
        let level = |other: Gpu| PathLevel::between(&gpu, &other);
        assert_eq!(level(at(0, "pci0000:00", &["outer", "inner"])), PathLevel::Single);
        assert_eq!(level(at(0, "pci0000:00", &["outer", "other"])), PathLevel::Multiple);
        assert_eq!(level(at(0, "pci0000:00", &["third"])), PathLevel::HostBridge);
        assert_eq!(level(at(0, "pci0000:40", &[])), PathLevel::Node);
        assert_eq!(level(at(1, "pci0000:80", &[])), PathLevel::System);
    }

    #[test]
    fn a_cpu_list_is_read_as_the_kernel_writes_it() {
        let list: CpuList = "0-2,8".parse().unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert!(list.contains(8) && !list.contains(3));
        assert_eq!("".parse(), Ok(CpuList::default()));
        assert!("2-0".parse::<CpuList>().is_err() && "x".parse::<CpuList>().is_err());
    }
}
