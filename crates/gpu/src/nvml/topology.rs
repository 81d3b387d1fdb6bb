//! Which GPUs reach each other over NVLink.

use nvml_wrapper::{
    enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus},
};
use nvml_wrapper_sys::bindings as sys;

use super::{Known, error::Asking};
use crate::{
    GpuError,
    inventory::{DeviceFacts, NvlinkPeer},
};

/// The active links of one GPU, by what is at the other end.
struct Links {
    /// By position of the peer.
    direct: Vec<u32>,
    /// To NVSwitches, or to something that does not tell what it is.
    switched: u32,
}

/// Fills in peers and domains. `devices` and `facts` are in the same order.
pub(super) fn join(devices: &[Known<'_>], facts: &mut [DeviceFacts], ask: &Asking) -> Result<(), GpuError> {
    let mut links = Vec::new();
    for known in devices {
        links.push(links_of(known, facts, ask)?);
    }
    let mut counts = vec![vec![0; devices.len()]; devices.len()];
    for one in 0..devices.len() {
        for other in one + 1..devices.len() {
            let shared = shared_links(devices, &links, one, other, ask)?;
            counts[one][other] = shared;
            counts[other][one] = shared;
        }
    }
    let uuids: Vec<_> = devices.iter().map(|known| known.uuid.clone()).collect();
    let domains = domains(&counts);
    for (at, facts) in facts.iter_mut().enumerate() {
        let peers = counts[at].iter().zip(&uuids).filter(|(links, _)| **links > 0);
        facts.nvlink_peers = peers.map(|(links, uuid)| NvlinkPeer { uuid: uuid.clone(), links: *links }).collect();
        facts.nvlink_domain = domains[at];
    }
    Ok(())
}

fn links_of(known: &Known<'_>, facts: &[DeviceFacts], ask: &Asking) -> Result<Links, GpuError> {
    let mut links = Links { direct: vec![0; facts.len()], switched: 0 };
    for number in 0..sys::NVML_NVLINK_MAX_LINKS {
        let link = known.device.link_wrapper_for(number);
        match ask.may(|| link.is_active()) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => continue,
            // No link of this number: none of a higher one either.
            Ok(None) => break,
            // A GPU that is lost while it is looked at has no peers; the sweep tells of the loss.
            Err(error) if !error.ends_session() => break,
            Err(error) => return Err(error),
        }
        let remote = ask.may(|| link.remote_pci_info()).unwrap_or(None);
        let remote = remote.and_then(|pci| pci.bus_id.parse().ok());
        match facts.iter().position(|facts| facts.pci_bus_id.is_some() && facts.pci_bus_id == remote) {
            Some(peer) => links.direct[peer] += 1,
            None => links.switched += 1,
        }
    }
    Ok(links)
}

/// Links that can carry traffic between two GPUs: those between them, or all to the switches that join them.
fn shared_links(devices: &[Known<'_>], links: &[Links], one: usize, other: usize, ask: &Asking) -> Result<u32, GpuError> {
    let direct = links[one].direct[other].max(links[other].direct[one]);
    let switched = links[one].switched.min(links[other].switched);
    if direct > 0 || switched == 0 {
        return Ok(direct);
    }
    let asked = || devices[one].device.p2p_status(&devices[other].device, P2pCapabilitiesIndex::NvLink);
    match ask.must(asked) {
        // Links to switches that the fabric manager has not joined carry nothing. A driver that cannot say is trusted.
        Ok(P2pStatus::Ok) | Err(GpuError::Unsupported) => Ok(switched),
        Err(error) if error.ends_session() => Err(error),
        Ok(_) | Err(_) => Ok(0),
    }
}

/// Numbers the groups of GPUs that reach each other, from zero in the order of the GPUs.
fn domains(counts: &[Vec<u32>]) -> Vec<Option<u32>> {
    let mut domains = vec![None; counts.len()];
    let mut next = 0;
    for start in 0..counts.len() {
        if domains[start].is_some() || counts[start].iter().all(|links| *links == 0) {
            continue;
        }
        let mut reached = vec![start];
        while let Some(at) = reached.pop() {
            if domains[at].is_none() {
                domains[at] = Some(next);
                reached.extend((0..counts.len()).filter(|peer| counts[at][*peer] > 0));
            }
        }
        next += 1;
    }
    domains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_what_hangs_together() {
        assert_eq!(domains(&[]), []);
        assert_eq!(domains(&[vec![0, 0], vec![0, 0]]), [None, None]);
        let bridged = [vec![0, 0, 4, 0], vec![0, 0, 0, 0], vec![4, 0, 0, 0], vec![0, 0, 0, 0]];
        assert_eq!(domains(&bridged), [Some(0), None, Some(0), None]);
        let chain = [vec![0, 1, 0], vec![1, 0, 1], vec![0, 1, 0]];
        assert_eq!(domains(&chain), [Some(0), Some(0), Some(0)]);
    }
}
