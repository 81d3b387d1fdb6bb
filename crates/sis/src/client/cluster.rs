//! Cluster management: the operator's calls.

use reqwest::Method;
use serde_json::Value;

use super::{Call, SisClient};
use crate::{
    ClusterId, NcaId, SisError,
    wire::{Cluster, ClusterCreated, CreateCluster, UpdateCluster},
};

impl SisClient {
    /// The account's clusters. Entries without a usable id are passed over.
    pub async fn list_clusters(&self, account: &NcaId) -> Result<Vec<Cluster>, SisError> {
        let path = ["v1", "accounts", account.as_str(), "clusters"];
        let entries: Vec<Value> = self.ask(Call::new(Method::GET, &path)).await?;
        Ok(entries.into_iter().filter_map(Cluster::from_entry).collect())
    }

    /// The account's cluster of this name.
    pub async fn find_cluster(&self, account: &NcaId, name: &str) -> Result<Option<Cluster>, SisError> {
        let clusters = self.list_clusters(account).await?;
        Ok(clusters.into_iter().find(|cluster| cluster.cluster_name == name))
    }

    /// Registers a cluster. **Not idempotent, and sent once**: on [`SisError::NameExists`], or where
    /// [`SisError::is_outcome_unknown`], look it up before asking again. Two callers at once can make two clusters of one
    /// name: hold a lease.
    pub async fn create_cluster(&self, account: &NcaId, cluster: &CreateCluster) -> Result<ClusterCreated, SisError> {
        let path = ["v1", "accounts", account.as_str(), "clusters"];
        self.ask(Call::new(Method::POST, &path).json(cluster).never_twice())
            .await
    }

    pub async fn get_cluster(&self, account: &NcaId, cluster: &ClusterId) -> Result<Cluster, SisError> {
        let path = ["v1", "accounts", account.as_str(), "clusters", cluster.as_str()];
        self.ask(Call::new(Method::GET, &path)).await
    }

    /// Changes a cluster. Moving it into another group makes the service forget its GPUs and key set.
    pub async fn update_cluster(
        &self,
        account: &NcaId,
        cluster: &ClusterId,
        update: &UpdateCluster,
    ) -> Result<(), SisError> {
        let path = ["v1", "accounts", account.as_str(), "clusters", cluster.as_str()];
        self.tell(Call::new(Method::PUT, &path).json(update)).await
    }

    /// Unregisters a cluster. [`SisError::NotFound`] when it is gone already; refused with 409 while instances run.
    pub async fn delete_cluster(&self, account: &NcaId, cluster: &ClusterId) -> Result<(), SisError> {
        let path = ["v1", "accounts", account.as_str(), "clusters", cluster.as_str()];
        self.tell(Call::new(Method::DELETE, &path)).await
    }
}
