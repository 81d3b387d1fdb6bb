//! Joins what the Node and the GpuNode of one name tell to a [`Host`].

use std::collections::BTreeMap;

use berth_sis::check;

use super::{
    GpuFacts, Host, Inventory, NodeFacts, Unit,
    product::{gpu_name, mig_profile, mig_suffix},
};

const UNKNOWN: &str = "unknown";

/// What was heard of, by node.
#[derive(Debug, Clone, Default)]
pub struct Join {
    nodes: BTreeMap<String, NodeFacts>,
    gpus: BTreeMap<String, GpuFacts>,
    /// The most units of a kind that a node (by its UID) ever had: a GPU that fell off the bus makes no other node of it.
    most: BTreeMap<String, (String, String, u32)>,
}

/// The units of one node that are offered.
struct Units {
    gpu: String,
    product: Option<String>,
    driver: Option<String>,
    memory_mib: u64,
    all: u32,
    usable: u32,
    free: u32,
    ours: u32,
}

impl Join {
    /// `None`: the node is gone.
    pub fn node(&mut self, name: String, facts: Option<NodeFacts>) {
        put(&mut self.nodes, name, facts);
    }

    /// `None`: nobody tells of its GPUs.
    pub fn gpus(&mut self, name: String, facts: Option<GpuFacts>) {
        put(&mut self.gpus, name, facts);
    }

    /// Names of the nodes that are known.
    pub fn nodes(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    /// Names of the nodes of whose GPUs somebody tells.
    pub fn gpu_nodes(&self) -> impl Iterator<Item = &String> {
        self.gpus.keys()
    }

    pub fn inventory(&mut self) -> Inventory {
        let Self { nodes, gpus, most } = self;
        most.retain(|name, (uid, ..)| nodes.get(name).is_some_and(|node| node.uid == *uid));
        let mut inventory = Inventory::default();
        for (name, node) in nodes {
            if let Some(value) = &node.instance_type {
                inventory.labelled.insert(name.clone(), value.clone());
            }
            match units(node, gpus.get(name)) {
                Ok(None) => {}
                Ok(Some(mut units)) => {
                    let known = most.entry(name.clone()).or_default();
                    if known.1 == units.gpu {
                        units.all = units.all.max(known.2);
                    }
                    *known = (node.uid.clone(), units.gpu.clone(), units.all);
                    inventory.hosts.insert(name.clone(), host(node, units));
                }
                Err(why) => {
                    inventory.unclassified.insert(name.clone(), why);
                }
            }
        }
        inventory
    }
}

fn put<T>(map: &mut BTreeMap<String, T>, name: String, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(name, value)),
        None => drop(map.remove(&name)),
    }
}

/// `Ok(None)`: a node without GPUs.
fn units(node: &NodeFacts, gpus: Option<&GpuFacts>) -> Result<Option<Units>, String> {
    let mut units = match gpus {
        Some(facts) if !facts.devices.is_empty() => by_driver(node, facts)?,
        Some(_) | None => match by_labels(node)? {
            // The daemon finds no GPU: what labels say of it is of the past.
            Some(units) => Units {
                usable: if gpus.is_some() { 0 } else { units.usable },
                free: if gpus.is_some() { 0 } else { units.free },
                ..units
            },
            None => return Ok(None),
        },
    };
    if let Some(name) = &node.name {
        units.gpu.clone_from(name);
    }
    check::gpu_name(&units.gpu).map_err(|problem| problem.to_string())?;
    units.all = units.all.max(node.capacity);
    let limit = if node.ready { node.allocatable } else { 0 };
    units.usable = units.usable.min(limit);
    units.free = units.free.min(units.usable);
    Ok(Some(units))
}

fn by_driver(node: &NodeFacts, facts: &GpuFacts) -> Result<Units, String> {
    // With the strategy "mixed" a MIG instance is none of `nvidia.com/gpu`.
    let offered = facts
        .devices
        .iter()
        .filter(|unit| !(node.mixed_mig && unit.profile.is_some()));
    let offered: Vec<&Unit> = offered.collect();
    let mut kinds: BTreeMap<String, Vec<&Unit>> = BTreeMap::new();
    for unit in &offered {
        kinds.entry(name_of(unit)).or_default().push(unit);
    }
    // A pod cannot choose among the GPUs of a node: what is there most is what the node is.
    let most = kinds.into_iter().max_by_key(|(_, units)| units.len());
    let Some((gpu, units)) = most else {
        return Err(
            "its MIG instances have resources of their own (strategy \"mixed\"), which are not offered".to_owned(),
        );
    };
    let sum = |is: fn(&Unit) -> bool| count(units.iter().filter(|unit| is(unit)).count());
    Ok(Units {
        gpu,
        product: units.first().map(|unit| unit.product.clone()),
        driver: Some(facts.driver.clone()).filter(|driver| !driver.is_empty()),
        memory_mib: units.iter().map(|unit| unit.memory_mib).min().unwrap_or_default(),
        all: count(units.len()),
        usable: sum(|unit| unit.usable),
        free: sum(|unit| unit.free),
        ours: sum(|unit| unit.ours),
    })
}

fn by_labels(node: &NodeFacts) -> Result<Option<Units>, String> {
    let all = node.capacity.max(node.allocatable);
    let product = node.product.as_deref().unwrap_or_default();
    if all == 0 {
        return if node.present {
            Err("no device plugin gives its GPUs out, and no berthd tells of them".to_owned())
        } else {
            Ok(None)
        };
    }
    if product.to_ascii_uppercase().ends_with("-SHARED") {
        return Err("its GPUs are shared by time slices, which are not offered".to_owned());
    }
    let gpu = gpu_name(product).or_else(|| node.name.clone());
    let gpu = gpu.ok_or("it has no label that names its GPUs, and no berthd tells of them")?;
    Ok(Some(Units {
        gpu,
        product: None,
        driver: None,
        memory_mib: node.memory_mib,
        all,
        usable: node.allocatable,
        free: node.allocatable,
        ours: 0,
    }))
}

fn name_of(unit: &Unit) -> String {
    let model = Some(unit.model.clone()).filter(|model| !model.is_empty());
    let model = model.or_else(|| gpu_name(&unit.product)).unwrap_or_default();
    let profile = unit.profile.as_deref().and_then(mig_suffix).unwrap_or_default();
    format!("{model}{profile}")
}

fn host(node: &NodeFacts, units: Units) -> Host {
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.to_owned());
    // A label's product is right only as far as it tells the same MIG profile as the units.
    let labelled = node.product.clone();
    let is_mig = units.gpu.contains("-MIG-");
    let labelled = labelled.filter(|product| mig_profile(product).is_some() == is_mig);
    Host {
        product: labelled.or(units.product).unwrap_or_else(|| units.gpu.clone()),
        family: or_unknown(&node.family),
        machine: or_unknown(&node.machine),
        driver: or_unknown(&node.driver.clone().or(units.driver)),
        arch: node.arch.clone(),
        os: node.os.clone(),
        memory_mib: units.memory_mib,
        cpu_milli: node.cpu_milli,
        memory_bytes: node.memory_bytes,
        storage_bytes: node.storage_bytes,
        units: units.all,
        usable: units.usable,
        free: units.free,
        ours: units.ours,
        ready: node.ready,
        gpu: units.gpu,
    }
}

fn count(many: usize) -> u32 {
    u32::try_from(many).unwrap_or(u32::MAX)
}
