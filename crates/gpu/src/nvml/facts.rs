//! Which GPUs there are, and what each is.

use berth_placement::{ComputeMode, MemoryBytes};
use nvml_wrapper::{Device, Nvml, enum_wrappers::device as nvml_enums, enums::device::DeviceArchitecture};
use nvml_wrapper_sys::bindings as sys;

use super::{error::Asking, mig, raw};
use crate::{
    GpuError,
    inventory::{DeviceFacts, Fabric, Unidentified},
    model,
};

/// Machine words of a NUMA node mask: 1024 nodes.
const NODE_MASK_WORDS: usize = 16;

pub(super) struct Found<'nvml> {
    /// GPUs by the driver's count.
    pub(super) count: u32,
    pub(super) devices: Vec<(DeviceFacts, Device<'nvml>)>,
    pub(super) unidentified: Vec<Unidentified>,
}

/// Attaches to every GPU. One that does not answer does not hide the others.
pub(super) fn discover<'nvml>(nvml: &'nvml Nvml, ask: &Asking) -> Result<Found<'nvml>, GpuError> {
    let count = ask.must(|| nvml.device_count())?;
    let mut found = Found {
        count,
        devices: Vec::new(),
        unidentified: Vec::new(),
    };
    for index in 0..count {
        match identify(nvml, index, ask) {
            Ok(device) => found.devices.push(device),
            Err(error) if error.ends_session() => return Err(error),
            Err(error) => {
                found.unidentified.push(Unidentified {
                    index,
                    reason: error.reason(),
                    message: error.to_string(),
                });
            }
        }
    }
    Ok(found)
}

fn identify<'nvml>(nvml: &'nvml Nvml, index: u32, ask: &Asking) -> Result<(DeviceFacts, Device<'nvml>), GpuError> {
    let device = ask.must(|| nvml.device_by_index(index))?;
    let facts = describe(&device, index, ask)?;
    Ok((facts, device))
}

/// All facts but those about peers.
fn describe(device: &Device<'_>, index: u32, ask: &Asking) -> Result<DeviceFacts, GpuError> {
    let uuid = ask.must(|| device.uuid())?;
    let uuid = uuid.parse().map_err(|error| GpuError::Transient {
        detail: format!("{error}"),
    })?;
    let product = ask.may(|| device.name())?.unwrap_or_default();
    let pci_bus_id = ask.may(|| device.pci_info())?.map(|pci| pci.bus_id);
    let capability = ask.may(|| device.cuda_compute_capability())?;
    Ok(DeviceFacts {
        uuid,
        index,
        numa_node: numa_node(device, pci_bus_id.as_deref(), ask)?,
        pci_bus_id: pci_bus_id.and_then(|text| text.parse().ok()),
        model: model::short_name(&product),
        product,
        architecture: ask.may(|| device.architecture())?.as_ref().and_then(architecture),
        memory: memory(device, ask)?.map(|(total, _)| total).unwrap_or_default(),
        serial: ask.may(|| device.serial())?.filter(|serial| !serial.is_empty()),
        compute_capability: capability.map(|version| format!("{}.{}", version.major, version.minor)),
        compute_mode: compute_mode(device, ask)?,
        nvlink_peers: Vec::new(),
        nvlink_domain: None,
        fabric: fabric(device, ask)?,
        mig: mig::report(device, ask)?,
    })
}

pub(super) fn compute_mode(device: &Device<'_>, ask: &Asking) -> Result<ComputeMode, GpuError> {
    Ok(match ask.may(|| device.compute_mode())? {
        Some(nvml_enums::ComputeMode::ExclusiveProcess | nvml_enums::ComputeMode::ExclusiveThread) => {
            ComputeMode::ExclusiveProcess
        }
        Some(nvml_enums::ComputeMode::Prohibited) => ComputeMode::Prohibited,
        Some(nvml_enums::ComputeMode::Default) | None => ComputeMode::Default,
    })
}

/// Total and used.
pub(super) fn memory(device: &Device<'_>, ask: &Asking) -> Result<Option<(MemoryBytes, MemoryBytes)>, GpuError> {
    let pair = |total, used| (MemoryBytes::new(total), MemoryBytes::new(used));
    if let Some(memory) = ask.may(|| device.memory_info())? {
        return Ok(Some(pair(memory.total, memory.used)));
    }
    Ok(ask
        .may(|| raw::memory_v1(device))?
        .map(|memory| pair(memory.total, memory.used)))
}

/// The host's node that is nearest. (`nvmlDeviceGetNumaNodeId` is another thing: the node that a GPU's own memory is.)
fn numa_node(device: &Device<'_>, pci_bus_id: Option<&str>, ask: &Asking) -> Result<Option<u32>, GpuError> {
    let mask = ask.may(|| device.memory_affinity(NODE_MASK_WORDS, sys::NVML_AFFINITY_SCOPE_NODE))?;
    let by_driver = mask.and_then(|words| first_bit(&words));
    Ok(by_driver.or_else(|| pci_bus_id.and_then(numa_node_of_kernel)))
}

fn first_bit(words: &[u64]) -> Option<u32> {
    let (at, word) = words.iter().enumerate().find(|(_, word)| **word != 0)?;
    Some(u32::try_from(at).ok()? * u64::BITS + word.trailing_zeros())
}

/// What the kernel says of the PCI device; it says -1 on machines with one node.
fn numa_node_of_kernel(pci_bus_id: &str) -> Option<u32> {
    // NVML writes the domain with eight digits, the kernel with four.
    let (domain, rest) = pci_bus_id.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    let path = format!(
        "/sys/bus/pci/devices/{domain:04x}:{}/numa_node",
        rest.to_ascii_lowercase()
    );
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn fabric(device: &Device<'_>, ask: &Asking) -> Result<Option<Fabric>, GpuError> {
    let info = ask.may(|| raw::fabric(device))?;
    // A machine with NVSwitches but no fabric beyond itself registers with a cluster of zeros.
    let info = info.filter(|info| info.ready && info.cluster != [0; 16]);
    Ok(info.map(|info| Fabric {
        cluster_uuid: uuid_text(info.cluster),
        clique: info.clique,
    }))
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    let groups = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ];
    groups.join("-")
}

fn architecture(architecture: &DeviceArchitecture) -> Option<String> {
    let name = match architecture {
        DeviceArchitecture::Kepler => "Kepler",
        DeviceArchitecture::Maxwell => "Maxwell",
        DeviceArchitecture::Pascal => "Pascal",
        DeviceArchitecture::Volta => "Volta",
        DeviceArchitecture::Turing => "Turing",
        DeviceArchitecture::Ampere => "Ampere",
        DeviceArchitecture::Ada => "Ada",
        DeviceArchitecture::Hopper => "Hopper",
        DeviceArchitecture::Blackwell => "Blackwell",
        DeviceArchitecture::Unknown => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_of_a_mask_counts_across_words() {
        assert_eq!(first_bit(&[0, 0]), None);
        assert_eq!(first_bit(&[0b100, 1]), Some(2));
        assert_eq!(first_bit(&[0, 1]), Some(64));
    }

    #[test]
    fn a_cluster_is_written_as_a_uuid() {
        let bytes = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(uuid_text(bytes), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
