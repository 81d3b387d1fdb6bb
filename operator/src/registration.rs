//! The registration of the cluster with SIS: looked up first, then created, and adopted where somebody was faster. Knows no
//! Kubernetes but in `record`, which keeps the outcome.
//!
//! SIS looks and then inserts, without a lock: two creations at once can make two clusters of one name. So whoever calls
//! [`register`] holds a lease, and a creation whose answer is lost is looked for before it is asked for again. A cluster that is
//! there is never changed: an update of SIS resets what it is not told, such as the accounts that may use the cluster.

use std::fmt;

use berth_sis::{
    ClusterGroupId, ClusterId, NcaId, SisClient, SisError,
    check::DYNAMIC_DISCOVERY,
    wire::{Cluster, CreateCluster, Gpu},
};
use thiserror::Error;
use tracing::{debug, warn};

pub mod record;

#[cfg(test)]
mod tests;

/// Who the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub cluster_id: ClusterId,
    pub cluster_group_id: ClusterGroupId,
}

/// How it came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was recorded, and SIS says the same.
    Confirmed,
    Created,
    /// SIS had it already.
    Adopted,
    /// It was recorded, and SIS could not be asked.
    Unconfirmed,
}

/// What the cluster shall be, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub account: NcaId,
    pub cluster: CreateCluster,
}

/// The cluster as SIS has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub registration: Registration,
    pub how: How,
    /// What SIS has otherwise than it is wanted.
    pub differences: Vec<Difference>,
}

/// SIS keeps what it was told first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub field: &'static str,
    pub wanted: String,
    pub found: String,
}

/// Field of a [`Difference`]: who is adopted is served by an agent already, and it may not be this cluster's.
const SERVED: &str = "clusterName";

/// There is no registration.
#[derive(Debug, Error)]
pub enum RegisterError {
    #[error(transparent)]
    Sis(#[from] SisError),
    #[error(
        "the client id {client_id} belongs to the cluster {other} of this account already, and SIS has one cluster per client \
         id: {way_out}",
        way_out = way_out(other, *is_ready)
    )]
    ClientIdTaken {
        client_id: String,
        other: String,
        /// An agent serves it.
        is_ready: bool,
    },
    #[error("SIS says that a cluster named {name} exists, and does not list it")]
    NotListed { name: String },
}

/// The cluster of the wanted name, as SIS has it. Changes nothing.
///
/// # Errors
/// SIS could not be asked, or does not answer this.
pub async fn find(
    sis: &SisClient,
    wanted: &Wanted,
    known: Option<&Registration>,
) -> Result<Option<Found>, RegisterError> {
    let found = sis.find_cluster(&wanted.account, &wanted.cluster.cluster_name).await?;
    Ok(found.map(|cluster| Found::of(&cluster, wanted, known)))
}

/// The registration of the cluster, made if there is none. Hold the lease.
///
/// # Errors
/// SIS could not be asked, or refuses the cluster.
pub async fn register(sis: &SisClient, wanted: &Wanted, known: Option<&Registration>) -> Result<Found, RegisterError> {
    if let Some(found) = find(sis, wanted, known).await? {
        return Ok(found);
    }
    let error = match sis.create_cluster(&wanted.account, &wanted.cluster).await {
        Ok(created) => {
            let registration = Registration {
                cluster_id: created.cluster_id,
                cluster_group_id: created.cluster_group_id,
            };
            return Ok(Found {
                registration,
                how: How::Created,
                differences: Vec::new(),
            });
        }
        Err(error) => error,
    };
    match error {
        SisError::NameExists => {
            debug!("somebody was faster: adopting the cluster");
            let name = || wanted.cluster.cluster_name.clone();
            let found = find(sis, wanted, known).await?;
            found.ok_or_else(|| RegisterError::NotListed { name: name() })
        }
        SisError::ClientIdTaken => Err(client_id_taken(sis, wanted, error).await),
        error if error.is_outcome_unknown() => {
            warn!(
                error = &error as &dyn std::error::Error,
                "it is not known whether the cluster was created: looking"
            );
            match find(sis, wanted, known).await {
                Ok(Some(found)) => Ok(found),
                Ok(None) | Err(_) => Err(error.into()),
            }
        }
        error => Err(error.into()),
    }
}

/// With the name of whoever has the client id, where this account may know it.
async fn client_id_taken(sis: &SisClient, wanted: &Wanted, error: SisError) -> RegisterError {
    let client_id = &wanted.cluster.oauth_client_id;
    let clusters = sis.list_clusters(&wanted.account).await.unwrap_or_default();
    let holder = clusters
        .into_iter()
        .find(|cluster| cluster.oauth_client_id.as_ref() == Some(client_id));
    holder.map_or(RegisterError::Sis(error), |holder| RegisterError::ClientIdTaken {
        client_id: client_id.clone(),
        is_ready: is_ready(&holder),
        other: holder.cluster_name,
    })
}

/// Two Kubernetes clusters must not be one of SIS: they would take each other's work.
fn way_out(other: &str, is_ready: bool) -> String {
    if is_ready {
        format!(
            "{other} is READY, so an agent serves it: give this one another oAuthClientId, or delete {other} in SIS once nothing \
             of it runs"
        )
    } else {
        format!("set clusterName to {other} to adopt it, or delete it in SIS")
    }
}

/// An agent was healthy within the last ten minutes: SIS calls no other cluster so.
fn is_ready(cluster: &Cluster) -> bool {
    cluster.status.as_deref() == Some("READY")
}

// === impl Found ===

impl Found {
    fn of(cluster: &Cluster, wanted: &Wanted, known: Option<&Registration>) -> Self {
        let registration = Registration {
            cluster_id: cluster.cluster_id.clone(),
            cluster_group_id: cluster.cluster_group_id.clone(),
        };
        let how = if known == Some(&registration) {
            How::Confirmed
        } else {
            How::Adopted
        };
        let mut differences = differences(&wanted.cluster, cluster);
        // Where something is recorded, the agent that serves it is likely this cluster's.
        if known.is_none() && is_ready(cluster) {
            let connected = cluster.nvca_last_connected.as_deref().unwrap_or("an unknown time");
            differences.push(Difference {
                field: SERVED,
                wanted: wanted.cluster.cluster_name.clone(),
                found: format!("READY, connected at {connected}"),
            });
        }
        Self {
            registration,
            how,
            differences,
        }
    }
}

fn differences(wanted: &CreateCluster, found: &Cluster) -> Vec<Difference> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let found_gpus = gpus(found.capabilities.as_deref(), found.gpus.as_deref());
    let compared = [
        (
            "clusterGroupName",
            wanted.cluster_group_name.clone(),
            found.cluster_group_name.clone(),
        ),
        (
            "cloudProvider",
            wanted.cloud_provider.to_string(),
            text(&found.cloud_provider),
        ),
        ("region", wanted.region.clone(), text(&found.region)),
        (
            "oAuthClientId",
            wanted.oauth_client_id.clone(),
            text(&found.oauth_client_id),
        ),
        ("gpus", gpus(Some(&wanted.capabilities), Some(&wanted.gpus)), found_gpus),
    ];
    let differs = |(_, wanted, found): &(_, String, String)| !wanted.eq_ignore_ascii_case(found);
    let compared = compared.into_iter().filter(differs);
    let difference = |(field, wanted, found)| Difference { field, wanted, found };
    compared.map(difference).collect()
}

/// How a cluster's GPUs come to be known: by its agent, or by a list.
fn gpus(capabilities: Option<&[String]>, listed: Option<&[Gpu]>) -> String {
    if capabilities.is_some_and(|capabilities| capabilities.iter().any(|it| it == DYNAMIC_DISCOVERY)) {
        return format!("{DYNAMIC_DISCOVERY} by the agent");
    }
    let mut names: Vec<&str> = listed.into_iter().flatten().map(|gpu| gpu.name.as_str()).collect();
    names.sort_unstable();
    format!("list: {}", names.join(", "))
}

// === impl Difference ===

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, wanted, found } = self;
        if *field == SERVED {
            return write!(
                f,
                "SIS has a cluster named `{wanted}`, and an agent serves it ({found}); nothing is recorded here, so it is adopted. If \
                 that is another Kubernetes cluster, both are one for SIS now, and take each other's work: set another clusterName"
            );
        }
        write!(
            f,
            "the registered cluster has the {field} `{found}`, and `{wanted}` is wanted: "
        )?;
        if *field == "oAuthClientId" {
            return write!(
                f,
                "SIS will refuse the agent's token, whose subject is `{wanted}`; delete the cluster in SIS, and it is registered anew"
            );
        }
        f.write_str(
            "SIS keeps what it has; change the chart's values, or delete the cluster in SIS, and it is registered anew",
        )
    }
}

// === impl How ===

impl How {
    /// In a log line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Created => "created",
            Self::Adopted => "adopted",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

// === impl RegisterError ===

impl RegisterError {
    /// Stable, for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Sis(error) => error.reason(),
            Self::ClientIdTaken { .. } => "ClientIdTaken",
            Self::NotListed { .. } => "ClusterNotListed",
        }
    }
}
