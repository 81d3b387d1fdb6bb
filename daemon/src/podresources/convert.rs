//! From the kubelet's wire types to the ledger's assignments: the only file that knows both.
//!
//! What the kubelet tells is NVIDIA's device plugin's ids (GPU and MIG UUIDs, `UUID::n` for the replicas of time
//! slicing) and, for claims (DRA), the names that NVIDIA's DRA driver gives to devices.

use std::collections::BTreeSet;

use berth_ledger::Assignment;
use berth_placement::DeviceUuid;
use berth_proto::podresources::v1::{ClaimResource, ContainerDevices, ListPodResourcesResponse, PodResources};

const RESOURCE_PREFIX: &str = "nvidia.com/";
const DRA_DRIVER: &str = "gpu.nvidia.com";

/// All that the kubelet assigned of what is ours to count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    /// Every pod, also one without a device: that it runs confirms a share that is not the kubelet's to give.
    pub(super) pods: Vec<Assignment>,
    /// A claim names a GPU by an index that `device_at` does not know (yet).
    pub(super) lacks_index: bool,
    /// Ids that name no device that we could tell, for the log: `namespace/pod: resource id`.
    pub(super) unknown: BTreeSet<String>,
}

/// `device_at` finds a GPU by the driver's index.
pub(super) fn assigned(response: ListPodResourcesResponse, device_at: impl Fn(u32) -> Option<DeviceUuid>) -> Assigned {
    let mut all = Assigned::default();
    for pod in response.pod_resources {
        let assignment = assignment(pod, &device_at, &mut all);
        all.pods.push(assignment);
    }
    all
}

/// What it cannot tell is noted in `all`.
fn assignment(pod: PodResources, device_at: &impl Fn(u32) -> Option<DeviceUuid>, all: &mut Assigned) -> Assignment {
    let mut assignment = Assignment {
        namespace: pod.namespace,
        name: pod.name,
        devices: Vec::new(),
        shared: false,
    };
    for container in pod.containers {
        for (resource, id) in container.devices.iter().filter(|devices| is_gpu(devices)).flat_map(ids) {
            let (uuid, replica) = match id.split_once("::") {
                Some((uuid, _)) => (uuid, true),
                None => (id, false),
            };
            if let Ok(uuid) = uuid.parse() {
                assignment.devices.push(uuid);
                assignment.shared |= replica;
            } else {
                let unknown = format!("{}/{}: {resource} {id}", assignment.namespace, assignment.name);
                all.unknown.insert(unknown);
            }
        }
        let claimed = container
            .dynamic_resources
            .iter()
            .flat_map(|claim| &claim.claim_resources);
        for device in claimed.filter(|device| device.driver_name == DRA_DRIVER) {
            let named = claimed_device(device);
            let uuid = match &named {
                Some(Named::Uuid(uuid)) => Some(uuid.clone()),
                Some(Named::Index(index)) => device_at(*index),
                None => None,
            };
            match uuid {
                // Containers of one pod may share a claim: it is still one device.
                Some(uuid) if assignment.devices.contains(&uuid) => {}
                Some(uuid) => assignment.devices.push(uuid),
                None => {
                    let (namespace, name, device) = (&assignment.namespace, &assignment.name, &device.device_name);
                    all.unknown.insert(format!("{namespace}/{name}: {DRA_DRIVER} {device}"));
                    all.lacks_index |= named.is_some();
                }
            }
        }
    }
    assignment
}

fn is_gpu(devices: &ContainerDevices) -> bool {
    devices.resource_name.starts_with(RESOURCE_PREFIX)
}

fn ids(devices: &ContainerDevices) -> impl Iterator<Item = (&str, &str)> {
    devices
        .device_ids
        .iter()
        .map(|id| (devices.resource_name.as_str(), id.as_str()))
}

/// How a claim names its GPU.
enum Named {
    Index(u32),
    Uuid(DeviceUuid),
}

/// NVIDIA's DRA driver calls a GPU `gpu-INDEX`. Its MIG devices (`gpu-0-mig-…`) name a placement, which the driver's
/// UUIDs do not tell.
fn claimed_device(device: &ClaimResource) -> Option<Named> {
    let name = device.device_name.strip_prefix("gpu-")?;
    match name.parse() {
        Ok(index) => Some(Named::Index(index)),
        Err(_) if name.len() == 36 => format!("GPU-{name}").parse().ok().map(Named::Uuid),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::podresources::v1::{ContainerResources, DynamicResource};

    use super::*;

    fn pod(name: &str, containers: Vec<ContainerResources>) -> PodResources {
        PodResources {
            name: name.to_owned(),
            namespace: "sr-1".to_owned(),
            containers,
        }
    }

    fn plugin(resource: &str, ids: &[&str]) -> ContainerResources {
        let devices = ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: ids.iter().map(ToString::to_string).collect(),
        };
        ContainerResources {
            name: "c".to_owned(),
            devices: vec![devices],
            dynamic_resources: vec![],
        }
    }

    fn claim(driver: &str, device: &str) -> ContainerResources {
        let resource = ClaimResource {
            driver_name: driver.to_owned(),
            pool_name: "node".to_owned(),
            device_name: device.to_owned(),
        };
        let claim = DynamicResource {
            claim_resources: vec![resource],
            ..DynamicResource::default()
        };
        ContainerResources {
            name: "c".to_owned(),
            devices: vec![],
            dynamic_resources: vec![claim],
        }
    }

    fn read(pods: Vec<PodResources>) -> Assigned {
        let at = |index| (index < 2).then(|| format!("GPU-{index}").parse().unwrap());
        assigned(ListPodResourcesResponse { pod_resources: pods }, at)
    }

    fn devices(assigned: &Assigned) -> Vec<Vec<&str>> {
        assigned
            .pods
            .iter()
            .map(|pod| pod.devices.iter().map(DeviceUuid::as_str).collect())
            .collect()
    }

    #[test]
    fn whole_gpus_and_mig_instances_of_all_containers_are_one_assignment() {
        let found = read(vec![
            pod(
                "a",
                vec![
                    plugin("nvidia.com/gpu", &["GPU-0", "GPU-1"]),
                    plugin("nvidia.com/mig-1g.10gb", &["MIG-7"]),
                ],
            ),
            pod("cpu-only", vec![plugin("vendor.example/nic", &["eth1"])]),
        ]);
        assert_eq!(devices(&found), [vec!["GPU-0", "GPU-1", "MIG-7"], vec![]]);
        assert_eq!(found.pods[1].name, "cpu-only", "that it runs may confirm a share");
        assert!(!found.pods[0].shared);
        assert!(found.unknown.is_empty());
    }

    #[test]
    fn replicas_of_time_slicing_share_the_device_and_repeat_it() {
        let found = read(vec![pod(
            "a",
            vec![plugin("nvidia.com/gpu.shared", &["GPU-0::3", "GPU-0::4"])],
        )]);
        assert_eq!(devices(&found), [["GPU-0", "GPU-0"]]);
        assert!(found.pods[0].shared);
    }

    #[test]
    fn claims_of_nvidias_driver_are_devices_and_others_are_not_ours() {
        let found = read(vec![
            pod(
                "a",
                vec![
                    claim(DRA_DRIVER, "gpu-1"),
                    claim(DRA_DRIVER, "gpu-1"),
                    claim("nic.example", "gpu-0"),
                ],
            ),
            pod("b", vec![claim(DRA_DRIVER, "gpu-4c1f0f5e-5b5c-7a0e-2b6c-3d2f9c1a0b11")]),
        ]);
        assert_eq!(
            devices(&found),
            [["GPU-1"], ["GPU-4c1f0f5e-5b5c-7a0e-2b6c-3d2f9c1a0b11"]]
        );
    }

    #[test]
    fn what_no_index_would_tell_lacks_none() {
        let found = read(vec![pod(
            "a",
            vec![
                plugin("nvidia.com/gpu", &["tegra"]),
                claim(DRA_DRIVER, "gpu-0-mig-1g.10gb-0-1"),
                claim(DRA_DRIVER, "gpu-1"),
            ],
        )]);
        assert!(!found.lacks_index);
        assert_eq!(found.unknown.len(), 2);
    }

    #[test]
    fn what_names_no_device_is_told_and_the_rest_is_kept() {
        let found = read(vec![
            pod("a", vec![plugin("nvidia.com/gpu", &["tegra", "GPU-0"])]),
            pod(
                "b",
                vec![claim(DRA_DRIVER, "gpu-0-mig-1g.10gb-0-1"), claim(DRA_DRIVER, "gpu-9")],
            ),
        ]);
        assert_eq!(devices(&found), [vec!["GPU-0"], vec![]]);
        assert!(found.lacks_index, "gpu-9 may come");
        let unknown: Vec<_> = found.unknown.iter().map(String::as_str).collect();
        assert_eq!(
            unknown,
            [
                "sr-1/a: nvidia.com/gpu tegra",
                "sr-1/b: gpu.nvidia.com gpu-0-mig-1g.10gb-0-1",
                "sr-1/b: gpu.nvidia.com gpu-9"
            ]
        );
    }
}
