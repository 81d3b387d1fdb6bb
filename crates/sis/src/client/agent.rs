//! The agent's calls. Each needs a token of the cluster that it names.

use reqwest::Method;

use super::{Call, SisClient};
use crate::{
    ClusterId, SisError,
    wire::{
        Acknowledge, Credentials, Heartbeat, HeartbeatAction, HeartbeatAnswer, Instance, InstanceList, InstanceUpdate,
        JwksUpdate, RegisterAnswer, RegisterRequest,
    },
};

impl SisClient {
    /// Tells what the cluster offers. Repeating it changes nothing. Refused as a whole while an instance runs of a type
    /// that is no longer there.
    pub async fn register(&self, cluster: &ClusterId, request: &RegisterRequest) -> Result<RegisterAnswer, SisError> {
        let path = ["v1", "nvca", "clusters", cluster.as_str(), "register"];
        self.ask(Call::new(Method::PUT, &path).of(cluster).json(request)).await
    }

    /// Where the cluster's work comes from. Refused (400) before the first registration.
    pub async fn credentials(&self, cluster: &ClusterId) -> Result<Credentials, SisError> {
        let path = ["v1", "nvca", "clusters", cluster.as_str(), "credentials"];
        self.ask(Call::new(Method::GET, &path).of(cluster)).await
    }

    /// Without one for 600 s the cluster gets no work.
    pub async fn heartbeat(&self, cluster: &ClusterId, beat: &Heartbeat) -> Result<HeartbeatAction, SisError> {
        let path = ["v1", "nvca", "clusters", cluster.as_str(), "heartbeat"];
        let answer: HeartbeatAnswer = self.ask(Call::new(Method::POST, &path).of(cluster).json(beat)).await?;
        Ok(answer.action)
    }

    /// Publishes the keys by which the service knows the cluster's own tokens.
    pub async fn update_jwks(&self, cluster: &ClusterId, update: &JwksUpdate) -> Result<(), SisError> {
        let path = ["v1", "nvca", "clusters", cluster.as_str(), "jwks"];
        self.tell(Call::new(Method::PUT, &path).of(cluster).json(update)).await
    }

    /// The instances that the service believes to be there; terminated ones drop out.
    pub async fn instances(&self, cluster: &ClusterId) -> Result<Vec<Instance>, SisError> {
        let path = ["v1", "si", "clusters", cluster.as_str(), "instances"];
        let list: InstanceList = self.ask(Call::new(Method::GET, &path).of(cluster)).await?;
        Ok(list.instances)
    }

    /// Takes a request on. Repeating it is no error. 412 when the request is over.
    pub async fn acknowledge(
        &self,
        cluster: &ClusterId,
        request_id: &str,
        acknowledge: &Acknowledge,
    ) -> Result<(), SisError> {
        let request_id = safe(request_id)?;
        let path = ["v1", "sirs", request_id];
        self.tell(Call::new(Method::PUT, &path).of(cluster).json(acknowledge))
            .await
    }

    /// Tells how an instance is. Repeating it is no error. 412 when the service does not want it.
    pub async fn report_instance(
        &self,
        cluster: &ClusterId,
        request_id: &str,
        instance_id: &str,
        update: &InstanceUpdate,
    ) -> Result<(), SisError> {
        let path = ["v1", "sirs", safe(request_id)?, safe(instance_id)?];
        self.tell(Call::new(Method::POST, &path).of(cluster).json(update)).await
    }
}

/// An id that came in a message, as part of a path.
fn safe(id: &str) -> Result<&str, SisError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !id.is_empty() && !id.contains("..") && id.chars().all(allowed) {
        return Ok(id);
    }
    Err(SisError::Refused {
        status: 400,
        text: "the id of the request or instance cannot be part of a path".to_owned(),
    })
}
