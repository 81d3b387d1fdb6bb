//! How the agent is, asked of itself. Owns the probing and what its answers mean; knows no Kubernetes.
//!
//! Both an answer of 200 and one of 503 carry the reasons; keys are taken in any case, as the real programs differ in it.

use std::{collections::BTreeMap, time::Duration};

use berth_kube_api::nvcf::backend::GpuUsage;
use berth_runtime::telemetry::with_causes;
use serde_json::{Map, Value};
use tokio::sync::watch;

/// While it is not healthy, and while it is.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_BYTES: usize = 1 << 20;

/// What the agent said last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Health {
    pub status: AgentStatus,
    pub gpu_usage: BTreeMap<String, GpuUsage>,
    pub kubernetes_version: String,
    /// Why it is not healthy.
    pub message: String,
}

/// As `status.agentStatus` spells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum AgentStatus {
    Healthy,
    Unhealthy,
    /// Nobody answers, or nothing that is understood.
    #[default]
    Unknown,
}

impl AgentStatus {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "Unknown",
        }
    }
}

/// Asks `url` for ever, and tells what changed.
pub(super) async fn follow(url: String, to: watch::Sender<Health>) {
    let client = reqwest::Client::builder().timeout(DEADLINE).build();
    let mut last = Health::default();
    loop {
        let health = match &client {
            Ok(client) => ask(client, &url).await,
            Err(error) => unknown(error.to_string()),
        };
        let wait = if health.status == AgentStatus::Healthy {
            LATER
        } else {
            SOON
        };
        let is_new = health != last;
        last.clone_from(&health);
        if is_new && to.send(health).is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

async fn ask(client: &reqwest::Client, url: &str) -> Health {
    let answer = async {
        let mut response = client.get(url).send().await?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok::<_, reqwest::Error>((status, body))
    };
    match answer.await {
        Ok((status, body)) => read(status.as_u16(), &body),
        Err(error) => unknown(with_causes(&error.without_url())),
    }
}

/// What an answer means.
fn read(status: u16, body: &[u8]) -> Health {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
        return unknown(format!("the agent answered {status} {text}"));
    };
    let is_healthy = field(&fields, "status")
        .and_then(Value::as_str)
        .is_some_and(|it| it.eq_ignore_ascii_case("healthy"));
    let usage = field(&fields, "gpuUsage").and_then(Value::as_object);
    let number = |gpu: &Value, name: &str| {
        let value = gpu.as_object().and_then(|gpu| field(gpu, name)).and_then(Value::as_u64);
        u32::try_from(value.unwrap_or(0)).unwrap_or(u32::MAX)
    };
    let usage = usage.into_iter().flatten().map(|(name, gpu)| {
        let usage = GpuUsage {
            capacity: number(gpu, "capacity"),
            allocated: number(gpu, "allocated"),
            available: number(gpu, "available"),
        };
        (name.clone(), usage)
    });
    let version = field(&fields, "k8sVersion").and_then(Value::as_str).unwrap_or_default();
    Health {
        gpu_usage: usage.collect(),
        kubernetes_version: version.to_owned(),
        status: if is_healthy && status == 200 {
            AgentStatus::Healthy
        } else {
            AgentStatus::Unhealthy
        },
        message: reasons(&fields),
    }
}

/// Of the components that are not healthy.
fn reasons(fields: &Map<String, Value>) -> String {
    let components = field(fields, "components").and_then(Value::as_object);
    let bad = components.into_iter().flatten().filter_map(|(name, component)| {
        let component = component.as_object()?;
        let status = field(component, "status").and_then(Value::as_str)?;
        if status.eq_ignore_ascii_case("healthy") {
            return None;
        }
        let errors = field(component, "errors").and_then(Value::as_array);
        let errors: Vec<&str> = errors.into_iter().flatten().filter_map(Value::as_str).collect();
        Some(format!("{name}: {}", errors.join("; ")))
    });
    bad.collect::<Vec<_>>().join("\n")
}

fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn unknown(message: String) -> Health {
    Health {
        message,
        ..Health::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_understood_in_any_case_and_reasons_of_a_503_are_kept() {
        for body in [
            r#"{"Status":"healthy","GPUUsage":{"H100":{"available":30,"capacity":32}}}"#,
            r#"{"status":"Healthy","gpuUsage":{"H100":{"available":30,"capacity":32,"allocated":0}}}"#,
        ] {
            let health = read(200, body.as_bytes());
            assert_eq!(health.status, AgentStatus::Healthy, "{body}");
            let usage = GpuUsage {
                capacity: 32,
                allocated: 0,
                available: 30,
            };
            assert_eq!(health.gpu_usage["H100"], usage);
        }
        let body = r#"{"Status":"unhealthy","Components":{
            "gpu":{"Status":"healthy","Errors":null},"sis":{"Status":"unhealthy","Errors":["no token","late"]}}}"#;
        let health = read(503, body.as_bytes());
        assert_eq!(
            (health.status, health.message.as_str()),
            (AgentStatus::Unhealthy, "sis: no token; late")
        );
    }

    #[test]
    fn what_is_not_understood_is_unknown() {
        for (status, body) in [(503, "not ready\n"), (200, ""), (200, "[]")] {
            let health = read(status, body.as_bytes());
            assert_eq!(health.status, AgentStatus::Unknown, "{body}");
            assert!(health.message.contains(&status.to_string()));
        }
        assert_eq!(read(200, b"{}").status, AgentStatus::Unhealthy);
    }
}
