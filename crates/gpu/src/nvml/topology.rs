//! Which GPUs reach each other over NVLink.

use nvml_wrapper::enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus};
use nvml_wrapper_sys::bindings as sys;

use super::{Known, error::Asking};
use crate::{
    GpuError,
    inventory::{DeviceFacts, NvlinkPeer},
};

/// The active links of one GPU, by what is at the other end.
struct Links<'a, 'nvml> {
    known: &'a Known<'nvml>,
    /// By position of the peer; this GPU's own place stays at zero.
    direct: Vec<u32>,
    /// To NVSwitches, or to something that does not tell what it is.
    switched: u32,
}

/// Fills in peers and domains. `devices` and `facts` are in the same order.
pub(super) fn join(devices: &[Known<'_>], facts: &mut [DeviceFacts], ask: &Asking) -> Result<(), GpuError> {
    let links: Vec<_> = devices
        .iter()
        .map(|known| links_of(known, facts, ask))
        .collect::<Result<_, _>>()?;
    let row = |one| links.iter().map(|other| shared_links(one, other, ask)).collect();
    let counts: Vec<Vec<u32>> = links.iter().enumerate().map(row).collect::<Result<_, _>>()?;
    for ((facts, row), domain) in facts.iter_mut().zip(&counts).zip(domains(&counts)) {
        let peers = row.iter().zip(devices).filter(|(links, _)| **links > 0);
        let peer = |(links, known): (&u32, &Known<'_>)| NvlinkPeer {
            uuid: known.uuid.clone(),
            links: *links,
        };
        facts.nvlink_peers = peers.map(peer).collect();
        facts.nvlink_domain = domain;
    }
    Ok(())
}

fn links_of<'a, 'nvml>(
    known: &'a Known<'nvml>,
    facts: &[DeviceFacts],
    ask: &Asking,
) -> Result<Links<'a, 'nvml>, GpuError> {
    let mut links = Links {
        known,
        direct: vec![0; facts.len()],
        switched: 0,
    };
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
        match facts
            .iter()
            .position(|facts| facts.pci_bus_id.is_some() && facts.pci_bus_id == remote)
        {
            Some(peer) => links.direct[peer] += 1,
            None => links.switched += 1,
        }
    }
    Ok(links)
}

/// Links that can carry traffic between two GPUs: those between them, or all to the switches that join them.
fn shared_links((at, one): (usize, &Links<'_, '_>), other: &Links<'_, '_>, ask: &Asking) -> Result<u32, GpuError> {
    let direct = other.direct.get(at).copied().unwrap_or(0);
    let switched = one.switched.min(other.switched);
    if direct > 0 || switched == 0 || one.known.uuid == other.known.uuid {
        return Ok(direct);
    }
    let joined = || {
        one.known
            .device
            .p2p_status(&other.known.device, P2pCapabilitiesIndex::NvLink)
    };
    match ask.must(joined) {
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
