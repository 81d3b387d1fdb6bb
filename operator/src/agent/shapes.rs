//! Instance types: the shapes in which GPUs are offered, named and cut as the real agent does, with true numbers. Pure.
//!
//! Of a node with 8 GPUs: 1, 2, 4 and 8 of them (`NCP.GPU.H100_2x`), and several whole nodes (`NCP.GPU.H100_8x.x2`). CPU,
//! memory and storage go with the GPUs; where nodes differ, the least is promised. The smallest is the default.

use std::collections::{BTreeMap, BTreeSet};

use berth_sis::wire::{CloudProvider, Gpu, InstanceType, NodeType};

use super::inventory::{Host, Inventory};

/// The provider in names where the configuration has none that SIS knows.
const PROVIDER: CloudProvider = CloudProvider::Ncp;

/// What a name of an instance type tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName {
    /// `NCP.GPU.H100`.
    pub base: String,
    /// `H100`.
    pub gpu: String,
    /// On each node.
    pub gpus: u32,
    pub nodes: u32,
}

/// Resources of one instance.
#[derive(Debug, Clone, Copy)]
struct Share {
    cpu_milli: u64,
    memory: u64,
    storage: u64,
    gpu_memory_mib: u64,
}

/// The name of all shapes of a kind of GPU, also the value of the node label.
pub fn base_name(provider: &str, gpu: &str) -> String {
    let provider: CloudProvider = provider.parse().unwrap_or(PROVIDER);
    format!("{provider}.GPU.{gpu}")
}

/// Every kind and its shapes. `multi`: also such of several nodes.
pub fn gpus(inventory: &Inventory, provider: &str, multi: bool) -> Vec<Gpu> {
    let mut kinds: BTreeMap<&str, Vec<&Host>> = BTreeMap::new();
    for host in inventory.hosts.values().filter(|host| host.units > 0) {
        kinds.entry(&host.gpu).or_default().push(host);
    }
    let gpu = |(name, hosts): (&str, Vec<&Host>)| {
        let base = base_name(provider, name);
        let mut types = singles(&base, &hosts);
        if multi {
            types.extend(multis(&base, &hosts));
        }
        Gpu {
            name: name.to_owned(),
            capacity: None,
            instance_types: with_default(types),
        }
    };
    kinds.into_iter().map(gpu).collect()
}

/// Sorted by size, the first one being the default, which SIS demands to be exactly one.
pub fn with_default(mut types: Vec<InstanceType>) -> Vec<InstanceType> {
    types.sort_by_key(|it| (it.node_type == Some(NodeType::Multi), it.gpu_count, it.name.clone()));
    for (index, it) in types.iter_mut().enumerate() {
        it.default = index == 0;
    }
    types
}

/// Powers of two below the number, and the number.
fn sizes(units: u32) -> impl Iterator<Item = u32> {
    let powers = (0..u32::BITS).map(|exponent| 1 << exponent);
    powers.take_while(move |size| *size < units).chain([units])
}

fn singles(base: &str, hosts: &[&Host]) -> Vec<InstanceType> {
    let all: BTreeSet<u32> = hosts.iter().flat_map(|host| sizes(host.units)).collect();
    let single = |size: u32| {
        let able: Vec<&Host> = hosts.iter().copied().filter(|host| host.units >= size).collect();
        let max: u32 = able.iter().map(|host| host.usable / size).sum();
        let ever: u32 = able.iter().map(|host| host.units / size).sum();
        let shares = able.iter().map(|host| Share::of(host, size));
        let (share, host) = (shares.reduce(Share::least)?, able.first()?);
        Some(InstanceType {
            name: format!("{base}_{size}x"),
            description: description(host),
            node_type: Some(NodeType::Single),
            ..instance_type(base, host, share, size, (max, ever))
        })
    };
    all.into_iter().filter_map(single).collect()
}

fn multis(base: &str, hosts: &[&Host]) -> Vec<InstanceType> {
    let mut alike: BTreeMap<u32, Vec<&Host>> = BTreeMap::new();
    for host in hosts {
        alike.entry(host.units).or_default().push(host);
    }
    let mut types = Vec::new();
    for (units, hosts) in alike {
        let whole = count(hosts.iter().filter(|host| host.usable == units).count());
        let shares = hosts.iter().map(|host| Share::of(host, units));
        let (Some(share), Some(host)) = (shares.reduce(Share::least), hosts.first()) else {
            continue;
        };
        for nodes in 2..=count(hosts.len()) {
            let capacity = (whole / nodes, count(hosts.len()) / nodes);
            types.push(InstanceType {
                name: format!("{base}_{units}x.x{nodes}"),
                description: format!("{}, {nodes} nodes", description(host)),
                node_type: Some(NodeType::Multi),
                ..instance_type(base, host, share.times(nodes), units * nodes, capacity)
            });
        }
    }
    types
}

fn instance_type(base: &str, host: &Host, share: Share, gpus: u32, (max, ever): (u32, u32)) -> InstanceType {
    InstanceType {
        value: base.to_owned(),
        cpu: cores(share.cpu_milli),
        cpu_cores: i64::try_from(share.cpu_milli / 1000).unwrap_or(i64::MAX),
        system_memory: bytes(share.memory),
        storage: bytes(share.storage),
        gpu_memory: format!("{}Gi", share.gpu_memory_mib / 1024),
        gpu_count: gpus.into(),
        cpu_arch: host.arch.clone(),
        os: host.os.clone(),
        driver_version: host.driver.clone(),
        max_instances: Some(max.into()),
        unschedulable_capacity: Some(ever.saturating_sub(max).into()),
        ..InstanceType::default()
    }
}

fn description(host: &Host) -> String {
    format!(
        "{} ({} family) on a {} machine",
        host.product, host.family, host.machine
    )
}

impl Share {
    fn of(host: &Host, gpus: u32) -> Self {
        let part = |whole: u64| {
            let part = u128::from(whole) * u128::from(gpus) / u128::from(host.units.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        Self {
            cpu_milli: part(host.cpu_milli),
            memory: part(host.memory_bytes),
            storage: part(host.storage_bytes),
            gpu_memory_mib: host.memory_mib.saturating_mul(gpus.into()),
        }
    }

    fn least(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.min(other.cpu_milli),
            memory: self.memory.min(other.memory),
            storage: self.storage.min(other.storage),
            gpu_memory_mib: self.gpu_memory_mib.min(other.gpu_memory_mib),
        }
    }

    fn times(self, nodes: u32) -> Self {
        let times = |one: u64| one.saturating_mul(nodes.into());
        Self {
            cpu_milli: times(self.cpu_milli),
            memory: times(self.memory),
            storage: times(self.storage),
            gpu_memory_mib: times(self.gpu_memory_mib),
        }
    }
}

impl TypeName {
    /// `None`: no name that this agent gives.
    pub fn parse(name: &str) -> Option<Self> {
        let (base, shape) = name.rsplit_once('_')?;
        let (gpus, nodes) = match shape.split_once("x.x") {
            Some((gpus, nodes)) => (gpus, nodes.parse().ok()?),
            None => (shape.strip_suffix('x')?, 1),
        };
        let (_, gpu) = base.split_once(".GPU.")?;
        Some(Self {
            base: base.to_owned(),
            gpu: gpu.to_owned(),
            gpus: gpus.parse().ok()?,
            nodes,
        })
    }
}

/// As Kubernetes writes CPU: `24`, `11500m`.
fn cores(milli: u64) -> String {
    if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    }
}

/// As Kubernetes writes memory: with the largest suffix that leaves a whole number.
fn bytes(amount: u64) -> String {
    let mut rest = amount;
    let mut suffix = "";
    for larger in ["Ki", "Mi", "Gi", "Ti", "Pi"] {
        if rest == 0 || !rest.is_multiple_of(1024) {
            break;
        }
        rest /= 1024;
        suffix = larger;
    }
    format!("{rest}{suffix}")
}

fn count(many: usize) -> u32 {
    u32::try_from(many).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
