//! The messages to agents, over NATS JetStream: streams made at the start, one message for each instance.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{
    ConnectOptions,
    connection::State as Connection,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::{
    message::Answer,
    state::{Asked, Row},
};
use crate::wire::{CREATION_STREAM, TERMINATION_STREAM};

/// The service gives up on a message after this.
const DEADLINE: Duration = Duration::from_secs(10);

/// Publishes to one NATS.
#[derive(Debug, Clone)]
pub struct Publisher {
    client: async_nats::Client,
    context: jetstream::Context,
}

/// There is no NATS to publish to.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("cannot connect to {url}")]
    Connect {
        url: String,
        #[source]
        source: async_nats::ConnectError,
    },
    #[error("cannot make the stream {name}")]
    Stream {
        name: &'static str,
        #[source]
        source: jetstream::context::CreateStreamError,
    },
}

/// A request on its way to its cluster.
pub(super) struct Order<'a> {
    pub(super) request_id: &'a str,
    pub(super) asked: &'a Asked,
    pub(super) cluster: &'a Row,
    pub(super) fields: &'a BTreeMap<String, String>,
}

impl Publisher {
    /// Connects and makes the streams that are missing.
    ///
    /// # Errors
    /// Nobody answers, or without JetStream.
    pub async fn connect(url: &str) -> Result<Self, NatsError> {
        let options = ConnectOptions::new()
            .connection_timeout(DEADLINE)
            .request_timeout(Some(DEADLINE));
        let client = options.connect(url).await.map_err(|source| NatsError::Connect {
            url: url.to_owned(),
            source,
        })?;
        let context = jetstream::new(client.clone());
        for (name, subjects) in [
            (CREATION_STREAM, "Create.NVCA.>"),
            (TERMINATION_STREAM, "Terminate.NVCA.>"),
        ] {
            let config = Config {
                name: name.to_owned(),
                subjects: vec![subjects.into()],
                retention: RetentionPolicy::WorkQueue,
                storage: StorageType::Memory,
                max_age: Duration::from_hours(96),
                max_messages: 1_000_000,
                discard: DiscardPolicy::Old,
                duplicate_window: Duration::from_mins(2),
                num_replicas: 1,
                ..Config::default()
            };
            let made = context.get_or_create_stream(config).await;
            made.map_err(|source| NatsError::Stream { name, source })?;
        }
        Ok(Self { client, context })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == Connection::Connected
    }

    async fn publish(&self, subject: String, body: &Value) -> Result<(), Answer> {
        let failed = || Answer::error(500, "Internal Server Error");
        let publish = async {
            let payload = serde_json::to_vec(body).map_err(|_| failed())?;
            let sent = self
                .context
                .publish(subject, payload.into())
                .await
                .map_err(|_| failed())?;
            sent.await.map(drop).map_err(|error| {
                warn!(error = &error as &dyn std::error::Error, "a message is not stored");
                failed()
            })
        };
        timeout(DEADLINE, publish).await.unwrap_or_else(|_| Err(failed()))
    }
}

/// One message for each instance.
pub(super) async fn publish_creation(publisher: Option<&Publisher>, order: &Order<'_>) -> Result<(), Answer> {
    let Some(publisher) = publisher else { return Ok(()) };
    let Order { asked, cluster, .. } = order;
    let kind = if asked.is_task { "Task" } else { "Function" };
    let value = asked.kind_value.replace('.', "|");
    for _ in 0..asked.count {
        let subject = format!("Create.NVCA.{kind}.{}.{}.{value}", cluster.cluster_id, asked.gpu);
        publisher.publish(subject, &creation(order)).await?;
    }
    Ok(())
}

fn creation(order: &Order<'_>) -> Value {
    let Order {
        request_id,
        asked,
        cluster,
        fields,
    } = order;
    let under = |prefix: &str| {
        let fields = fields.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(prefix)?;
            let mut letters = name.chars();
            let first = letters.next()?.to_ascii_lowercase();
            Some((format!("{first}{}", letters.as_str()), json!(value)))
        });
        fields.collect::<Map<String, Value>>()
    };
    let kinds = cluster
        .gpus
        .iter()
        .flat_map(|gpu| gpu["instanceTypes"].as_array().into_iter().flatten());
    let gpus = kinds
        .into_iter()
        .find(|kind| kind["name"] == json!(asked.kind_name))
        .map_or(0, |kind| kind["gpuCount"].as_i64().unwrap_or(0));
    let mut launch = under("LaunchSpecification.");
    for gone in ["ncaId", "backend", "gpu", "instanceType"] {
        launch.remove(gone);
    }
    launch.extend(
        json!({"cloudProvider": cluster.provider, "instanceTypeName": asked.kind_name,
        "instanceTypeValue": asked.kind_value, "instanceCount": 1, "gpuType": asked.gpu, "gpuName": asked.gpu,
        "requestedGPUCount": gpus})
        .as_object()
        .cloned()
        .unwrap_or_default(),
    );
    let action = if asked.is_task {
        "RequestSpotInstancesForTask"
    } else {
        "RequestSpotInstances"
    };
    let mut message = json!({"requestId": request_id, "ncaId": asked.nca_id, "action": action, "sub": "",
        "messageBatchId": Uuid::new_v4().to_string(), "traceParent": trace_parent(), "traceState": {},
        "launchSpecification": launch, "instanceCount": 1, "instanceType": asked.kind_value,
        "instanceTypeName": asked.kind_name, "instanceTypeValue": asked.kind_value, "requestedGPUCount": gpus});
    if asked.is_task {
        message["taskDetails"] = json!(under("TaskDetails."));
    } else {
        let details = under("FunctionDetails.");
        for name in ["functionId", "functionVersionId"] {
            if let Some(value) = details.get(name) {
                message[name] = value.clone();
            }
        }
        message["clusterGroup"] = json!(cluster.group_name);
        message["functionDetails"] = json!(details);
    }
    message
}

pub(super) async fn publish_termination(
    publisher: Option<&Publisher>,
    asked: &Asked,
    request: &str,
    instance: &str,
    cluster_name: Option<&str>,
) -> Result<(), Answer> {
    let Some(publisher) = publisher else { return Ok(()) };
    let body = json!({"requestId": request, "ncaId": asked.nca_id, "action": "TerminateInstances",
        "instanceIds": [instance], "availabilityZone": cluster_name, "traceParent": trace_parent(), "traceState": {}});
    publisher
        .publish(format!("Terminate.NVCA.{}", asked.cluster_id), &body)
        .await
}

fn trace_parent() -> String {
    let (trace, span) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    format!("00-{trace}-{}-01", &span[..16])
}
