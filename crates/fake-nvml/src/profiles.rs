//! Machines and products that exist, for scenarios to begin with.
//!
//! Names, memory, PCI device ids, SM counts, MIG profiles, NVLinks and the PCIe layout of the named systems are those of
//! the real products; serial numbers are made up; VBIOS, subsystem ids and memory reserved by the driver are typical.

mod catalogue;
mod layout;
mod migs;

use crate::scenario::{
    BusId, Clocks, ClocksEventReason, Ecc, EditError, EventLog, Fabric, Gpu, Mig, NvLinks, Place, Product, Scenario,
    hashed_uuid,
};

/// A machine to build a [`Scenario`] of.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    slots: Vec<Slot>,
    gpus: usize,
    mig: Vec<(Vec<usize>, Vec<String>)>,
}

/// A place for a GPU, with what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) product: &'static str,
    pub(crate) bus_id: BusId,
    pub(crate) place: Place,
    pub(crate) nvlink: NvLinks,
    pub(crate) fabric: Option<Fabric>,
    pub(crate) module_id: Option<u32>,
}

/// Names of the machines, each with a line about it.
pub fn machines() -> Vec<(&'static str, &'static str)> {
    layout::MACHINES
        .iter()
        .map(|(name, about, _)| (*name, *about))
        .collect()
}

/// The machine of this name. A number of GPUs may follow, `l40sx2`.
pub fn machine(name: &str) -> Result<Machine, EditError> {
    let find = |name: &str| layout::MACHINES.iter().find(|(known, ..)| *known == name);
    let counted = || {
        let (name, count) = name.rsplit_once('x')?;
        Some((find(name)?, count.parse::<usize>().ok()?))
    };
    let (found, gpus) = match find(name) {
        Some(found) => (found, None),
        None => counted()
            .map(|(found, count)| (found, Some(count)))
            .ok_or_else(|| EditError::Refused(unknown_machine(name)))?,
    };
    let slots = found.2();
    let machine = Machine {
        name: found.0.to_owned(),
        gpus: gpus.unwrap_or(slots.len()),
        slots,
        mig: layout::mig_of(found.0),
    };
    Ok(machine)
}

/// A product of the catalogue.
pub fn product(key: &str) -> Option<Product> {
    catalogue::PRODUCTS
        .iter()
        .find(|(known, _)| *known == key)
        .map(|(_, make)| make())
}

pub fn product_keys() -> Vec<&'static str> {
    catalogue::PRODUCTS.iter().map(|(key, _)| *key).collect()
}

pub(crate) fn unknown_product(key: &str) -> String {
    format!("no product {key:?}; the catalogue has {}", product_keys().join(", "))
}

fn unknown_machine(name: &str) -> String {
    let known: Vec<_> = machines().into_iter().map(|(name, _)| name).collect();
    format!(
        "no profile {name:?}; there are {}, each also as NAMExCOUNT",
        known.join(", ")
    )
}

impl Machine {
    /// Another number of GPUs than the real machine has. Beyond its slots the layout repeats in further PCI domains.
    #[must_use]
    pub fn gpus(mut self, count: usize) -> Self {
        self.gpus = count;
        self
    }

    /// Partitions all GPUs, or those at these positions, into MIG devices of these profiles.
    #[must_use]
    pub fn mig(mut self, at: Option<&[usize]>, profiles: &[&str]) -> Self {
        let at = at.map_or_else(|| (0..self.gpus).collect(), <[usize]>::to_vec);
        self.mig
            .push((at, profiles.iter().map(|&name| name.to_owned()).collect()));
        self
    }

    /// The scenario. `seed`, such as a node's name, tells the UUIDs of one machine from those of its like.
    pub fn build(self, seed: &str) -> Result<Scenario, EditError> {
        let mut scenario = Scenario::default();
        for index in 0..self.gpus {
            let (slot, round) = (&self.slots[index % self.slots.len()], index / self.slots.len());
            let gpu = self.gpu(
                slot,
                index,
                u32::try_from(round).unwrap_or(u32::MAX),
                seed,
                &mut scenario,
            )?;
            scenario.gpus.push(gpu);
        }
        scenario.gpus.sort_by_key(|gpu| gpu.bus_id);
        for (at, profiles) in self.mig.iter().filter(|(_, profiles)| !profiles.is_empty()) {
            for index in at.iter().map(usize::to_string) {
                scenario.mig_mode(&index, true)?;
                for profile in profiles {
                    scenario.create_mig_device(&index, profile, None)?;
                }
            }
        }
        scenario.events = EventLog::default();
        scenario.check().map_err(EditError::Refused)?;
        Ok(scenario)
    }

    fn gpu(&self, slot: &Slot, index: usize, round: u32, seed: &str, into: &mut Scenario) -> Result<Gpu, EditError> {
        let product = product(slot.product).ok_or_else(|| EditError::Refused(unknown_product(slot.product)))?;
        let moved = |bus_id: BusId| BusId {
            domain: bus_id.domain + round * layout::DOMAINS_PER_ROUND,
            ..bus_id
        };
        let mut gpu = idle_gpu(slot.product, &product, index);
        gpu.uuid = hashed_uuid("GPU", &[seed, &self.name, &index.to_string()]);
        gpu.bus_id = moved(slot.bus_id);
        gpu.birth = into.new_birth();
        gpu.module_id = slot.module_id;
        gpu.place = slot.place.clone();
        gpu.nvlink = slot.nvlink.clone();
        gpu.nvlink
            .peers
            .iter_mut()
            .for_each(|peer| peer.bus_id = peer.bus_id.map(moved));
        gpu.fabric.clone_from(&slot.fabric);
        if round > 0 {
            gpu.place.host_bridge = format!("{}.{round}", gpu.place.host_bridge);
            gpu.place
                .pcie_switches
                .iter_mut()
                .for_each(|switch| *switch = format!("{switch}.{round}"));
        }
        into.products.insert(slot.product.to_owned(), product);
        Ok(gpu)
    }
}

/// A healthy GPU that does nothing, in no particular place.
pub(crate) fn idle_gpu(key: &str, product: &Product, index: usize) -> Gpu {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    Gpu {
        product: key.to_owned(),
        minor: number,
        serial: if product.board_part_number.is_empty() {
            String::new()
        } else {
            format!("165{:010}", 3_123_000_000 + u64::from(number))
        },
        persistence: true,
        mig: Mig::default(),
        ecc: Ecc {
            enabled: product.ecc,
            pending: product.ecc,
            ..Ecc::default()
        },
        clocks_event_reasons: vec![ClocksEventReason::GpuIdle],
        clocks: Clocks {
            graphics: 345,
            sm: 345,
            memory: product.clocks_mhz.memory,
            video: 765,
        },
        temperature_c: 29 + number % 5,
        memory_temperature_c: 37 + number % 5,
        power_mw: product.power_mw.max / 10 + number % 5 * 500,
        ..Gpu::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::LinkPeerKind;

    #[test]
    fn every_machine_builds_also_with_many_gpus() {
        for (name, _) in machines() {
            let machine = machine(name).unwrap();
            assert!(machine.clone().build("a").is_ok(), "{name}");
            let many = machine.gpus(40).build("a").unwrap();
            assert_eq!(many.gpus.len(), 40, "{name}");
            for gpu in &many.gpus {
                let generation = many.product_of(gpu).map(|product| product.nvlink_generation);
                assert!(gpu.nvlink.count() == 0 || generation > Some(0), "{name}");
            }
        }
    }

    #[test]
    fn a_dgx_h100_is_as_delivered() {
        let scenario = machine("dgx-h100").unwrap().build("a").unwrap();
        assert_eq!(scenario.gpus.len(), 8);
        let gpu = &scenario.gpus[0];
        let product = scenario.product_of(gpu).unwrap();
        assert_eq!(
            (product.name.as_str(), product.memory_mib),
            ("NVIDIA H100 80GB HBM3", 81559)
        );
        assert_eq!(gpu.nvlink.count(), 18);
        assert!(gpu.nvlink.peers.iter().all(|peer| peer.kind == LinkPeerKind::Switch));
        assert!(gpu.nvlinked_to(&scenario.gpus[7]));
    }

    #[test]
    fn a_count_may_follow_the_name() {
        assert_eq!(machine("dgx-h100x2").unwrap().build("a").unwrap().gpus.len(), 2);
        assert_eq!(machine("l40sx12").unwrap().build("a").unwrap().gpus.len(), 12);
        assert!(machine("dgx-h1000").unwrap_err().to_string().contains("dgx-h100"));
    }

    #[test]
    fn seeds_tell_machines_apart() {
        let uuid = |seed| machine("l40s").unwrap().build(seed).unwrap().gpus[0].uuid.clone();
        assert_eq!(uuid("node-a"), uuid("node-a"));
        assert_ne!(uuid("node-a"), uuid("node-b"));
    }

    #[test]
    fn the_direct_links_of_a_dgx1_are_mutual() {
        let scenario = machine("dgx-1v").unwrap().build("a").unwrap();
        for a in &scenario.gpus {
            assert_eq!(a.nvlink.count(), 6);
            for b in &scenario.gpus {
                assert_eq!(a.nvlinked_to(b), b.nvlinked_to(a));
            }
        }
    }
}
