//! The ConfigMap `nvca-cluster-registration`: who the cluster is, for the operator, the agent and people. It outlives the
//! chart, so that a cluster that is installed again is the same one.
//!
//! It holds both ids or is not written; what holds only one, or an empty one, counts as not there.

use std::collections::BTreeMap;

use berth_runtime::kubernetes::{ApiError, DEADLINE, apply, within};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::ObjectMeta};

use super::Registration;
use crate::names;

/// Owner of the fields that are applied.
const MANAGER: &str = "nvca-self-managed";
/// What earlier releases of the real chart called it.
const OLDER: &str = "nvcfbackend-cluster-bootstrap-registration";

/// Reads and writes the record. Owns nothing of the rest of the namespace.
#[derive(Clone)]
pub struct Record {
    maps: Api<ConfigMap>,
}

impl Record {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            maps: Api::namespaced(client, namespace),
        }
    }

    /// The registration as it is recorded, also under the older name.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn read(&self) -> Result<Option<Registration>, ApiError> {
        for name in [names::REGISTRATION, OLDER] {
            let map = within(DEADLINE, self.maps.get_opt(name)).await?;
            if let Some(registration) = map.as_ref().and_then(of) {
                return Ok(Some(registration));
            }
        }
        Ok(None)
    }

    /// Records it. Repeating it changes nothing.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn write(&self, registration: &Registration) -> Result<(), ApiError> {
        apply(&self.maps, &map(registration), MANAGER).await.map(drop)
    }
}

// The client has no `Debug`.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").finish_non_exhaustive()
    }
}

/// The registration that a ConfigMap holds: both ids and well formed, or none.
pub fn of(map: &ConfigMap) -> Option<Registration> {
    let data = map.data.as_ref()?;
    Some(Registration {
        cluster_id: data.get(names::CLUSTER_ID_KEY)?.parse().ok()?,
        cluster_group_id: data.get(names::CLUSTER_GROUP_ID_KEY)?.parse().ok()?,
    })
}

fn map(registration: &Registration) -> ConfigMap {
    let owned = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::REGISTRATION.to_owned()),
            annotations: Some(BTreeMap::from([owned(names::HELM_RESOURCE_POLICY, "keep")])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            owned(names::CLUSTER_ID_KEY, registration.cluster_id.as_str()),
            owned(names::CLUSTER_GROUP_ID_KEY, registration.cluster_group_id.as_str()),
        ])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let registration = Registration {
            cluster_id: "56f71ab9-94a3-320a-9fd9-457477edeea2".parse().unwrap(),
            cluster_group_id: "2f0c".parse().unwrap(),
        };
        let map = map(&registration);
        assert_eq!(of(&map), Some(registration));
        assert_eq!(map.metadata.annotations.unwrap()["helm.sh/resource-policy"], "keep");
    }

    #[test]
    fn half_a_record_is_none() {
        for data in [
            &[][..],
            &[("clusterId", "a")],
            &[("clusterGroupId", "g")],
            &[("clusterId", ""), ("clusterGroupId", "g")],
            &[("clusterId", "a"), ("clusterGroupId", " ")],
            &[("clusterId", "a/b"), ("clusterGroupId", "g")],
        ] {
            let pairs = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let map = ConfigMap {
                data: Some(pairs.collect()),
                ..ConfigMap::default()
            };
            assert_eq!(of(&map), None, "{data:?}");
        }
    }
}
