//! Messages of the control plane, parsed: what is wished for and under which name it is done here. Pure.
//!
//! A name is made from what the message says, so that the same message makes the same objects however often it comes.

use std::time::Duration;

use aws_lc_rs::digest;
use berth_runtime::Misread;
use berth_sis::wire::{CreationMessage, TerminationMessage};
use k8s_openapi::jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use uuid::Builder;

/// More instances in one message are a mistake.
const MOST_INSTANCES: i64 = 1000;
/// More GPUs in one instance are a mistake.
const MOST_GPUS: i64 = 1024;
/// Kubernetes' longest label.
const LABEL: usize = 63;

/// A creation message that can be acted on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    /// Of the `ICMSRequest`: `sr-<uuid>`.
    pub(crate) name: String,
    /// Of the message; a label.
    pub(crate) message_id: String,
    pub(crate) message: CreationMessage,
    /// As it came.
    pub(crate) raw: Value,
    /// `H100`.
    pub(crate) gpu: String,
    /// Of each instance; at least one.
    pub(crate) gpus: u32,
    pub(crate) instances: u32,
    pub(crate) is_task: bool,
}

/// A message that nobody can act on: sending it again makes it no better.
#[derive(Debug, Error)]
pub(crate) enum MessageError {
    #[error("the message is no JSON of the expected form")]
    Json(#[source] Misread),
    #[error("the message has no usable {field}: {value:?}")]
    Field { field: &'static str, value: String },
}

impl MessageError {
    /// Stable name of the error.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) => "MessageMalformed",
            Self::Field { .. } => "MessageIncomplete",
        }
    }
}

impl Wish {
    /// # Errors
    /// It is no creation message, or lacks what every one needs.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        let raw = read(payload)?;
        Self::made(read(payload)?, raw)
    }

    /// The same from a message that was kept.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn of(raw: Value) -> Result<Self, MessageError> {
        let message = serde_json::from_value(raw.clone()).map_err(|error| MessageError::Json(error.into()))?;
        Self::made(message, raw)
    }

    fn made(message: CreationMessage, raw: Value) -> Result<Self, MessageError> {
        let wrong = |field, value: &str| MessageError::Field {
            field,
            value: value.chars().take(80).collect(),
        };
        let is_task = match message.action.as_str() {
            "RequestSpotInstances" | "RequestICMSInstances" => false,
            "RequestSpotInstancesForTask" | "RequestICMSInstancesForTask" => true,
            other => return Err(wrong("action", other)),
        };
        if !is_id(&message.request_id) {
            return Err(wrong("requestId", &message.request_id));
        }
        if !message.message_batch_id.is_empty() && !is_id(&message.message_batch_id) {
            return Err(wrong("messageBatchId", &message.message_batch_id));
        }
        // Older messages leave both numbers out where they mean one.
        let number = |field, value: i64, most| match value {
            0 => Ok(1),
            value if value > most => Err(wrong(field, &value.to_string())),
            value => u32::try_from(value).map_err(|_| wrong(field, &value.to_string())),
        };
        let instances = number("instanceCount", message.instance_count, MOST_INSTANCES)?;
        let gpus = number("requestedGPUCount", message.requested_gpu_count, MOST_GPUS)?;
        let launch = &message.launch_specification;
        let third = message.instance_type.split('.').nth(2).map(str::to_owned);
        let gpu = [launch.gpu_name.clone(), launch.gpu_type.clone(), third]
            .into_iter()
            .flatten();
        let gpu = gpu.into_iter().find(|name| !name.is_empty());
        let gpu = gpu.ok_or_else(|| wrong("launchSpecification.gpuName", ""))?;
        let identity = format!("{}/{}", message.request_id, message.message_batch_id);
        let (name, message_id) = names(&identity);
        Ok(Self {
            name,
            message_id,
            message,
            raw,
            gpu,
            gpus,
            instances,
            is_task,
        })
    }

    /// The name of an instance's pod, which is also the instance's id.
    pub(crate) fn instance(&self, index: u32) -> String {
        let suffix = if self.is_task { "-task" } else { "" };
        format!("{index}-{}{suffix}", self.name)
    }

    /// How the message asked, as reports repeat it.
    pub(crate) const fn action(&self) -> &'static str {
        if self.is_task {
            "RequestSpotInstancesForTask"
        } else {
            "RequestSpotInstances"
        }
    }

    /// How long a task's pod may be without a node, if it says so.
    pub(crate) fn longest_queued(&self) -> Option<Duration> {
        self.duration("maxQueuedDuration")
    }

    /// How long a task may run, if it says so.
    pub(crate) fn longest_run(&self) -> Option<Duration> {
        self.duration("maxRuntimeDuration")
    }

    /// Of a task's launch specification.
    fn duration(&self, key: &str) -> Option<Duration> {
        let said = self.message.launch_specification.other.get(key);
        let said: SignedDuration = said?.as_str()?.parse().ok()?;
        let said = Duration::try_from(said).ok()?;
        (self.is_task && !said.is_zero()).then_some(said)
    }

    /// The instance type without its number of GPUs.
    pub(crate) fn type_value(&self) -> &str {
        let message = &self.message;
        if message.instance_type_value.is_empty() {
            &message.instance_type
        } else {
            &message.instance_type_value
        }
    }
}

/// # Errors
/// It is no termination message.
pub(crate) fn termination(payload: &[u8]) -> Result<TerminationMessage, MessageError> {
    let message: TerminationMessage = read(payload)?;
    let ids = message.instance_ids.iter().map(|id| ("instanceIds", id));
    for (field, id) in ids.chain([("requestId", &message.request_id)]) {
        if !is_id(id) {
            return Err(MessageError::Field {
                field,
                value: id.chars().take(80).collect(),
            });
        }
    }
    Ok(message)
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, MessageError> {
    serde_json::from_slice(payload).map_err(|error| MessageError::Json(error.into()))
}

/// Can be a label and a part of a path.
fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    let inner = |byte: u8| is_plain(byte) || matches!(byte, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    bytes.len() <= LABEL
        && bytes.first().copied().is_some_and(is_plain)
        && bytes.last().copied().is_some_and(is_plain)
        && bytes.iter().copied().all(inner)
        && !text.contains("..")
}

fn names(identity: &str) -> (String, String) {
    let sum = digest::digest(&digest::SHA256, identity.as_bytes());
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    let digits = sum
        .as_ref()
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
    let hex = digits.take(LABEL).collect();
    let mut id = [0_u8; 16];
    for (to, from) in id.iter_mut().zip(sum.as_ref()) {
        *to = *from;
    }
    let uuid = Builder::from_custom_bytes(id).into_uuid();
    (format!("sr-{uuid}"), hex)
}

#[cfg(test)]
mod tests {
    use berth_runtime::telemetry::with_causes;
    use serde_json::json;

    use super::*;

    type Edit = fn(&mut Value);

    fn message() -> Value {
        json!({"requestId": "r-1", "messageBatchId": "b-1", "ncaId": "n", "action": "RequestSpotInstances",
            "instanceCount": 2, "requestedGPUCount": 4, "instanceType": "NCP.GPU.H100",
            "instanceTypeName": "NCP.GPU.H100_4x", "instanceTypeValue": "NCP.GPU.H100",
            "launchSpecification": {"gpuName": "H100", "containerImage": "i"}})
    }

    fn with(edit: impl FnOnce(&mut Value)) -> Result<Wish, MessageError> {
        let mut message = message();
        edit(&mut message);
        Wish::of(message)
    }

    #[test]
    fn the_same_message_has_the_same_names_and_another_one_has_others() {
        let wish = with(|_| {}).unwrap();
        assert_eq!(wish, with(|_| {}).unwrap());
        assert_eq!((wish.gpu.as_str(), wish.gpus, wish.instances), ("H100", 4, 2));
        assert_eq!((wish.name.len(), wish.message_id.len()), (39, 63));
        assert!(wish.instance(10).len() <= LABEL && wish.instance(0).starts_with("0-sr-"));
        let other = with(|message| message["messageBatchId"] = json!("b-2")).unwrap();
        assert_ne!((wish.name, wish.message_id), (other.name, other.message_id));
    }

    #[test]
    fn older_messages_mean_one_and_name_the_gpu_in_the_instance_type() {
        let wish = with(|message| {
            let message = message.as_object_mut().unwrap();
            for field in ["instanceCount", "requestedGPUCount", "messageBatchId"] {
                message.remove(field);
            }
            message["action"] = json!("RequestICMSInstancesForTask");
            message["launchSpecification"] = json!({});
        });
        let wish = wish.unwrap();
        assert_eq!(
            (wish.gpu.as_str(), wish.gpus, wish.instances, wish.is_task),
            ("H100", 1, 1, true)
        );
        assert!(wish.instance(0).ends_with("-task"));
    }

    #[test]
    fn what_nobody_can_act_on_is_told() {
        assert_eq!(Wish::parse(b"{").unwrap_err().reason(), "MessageMalformed");
        let edits: [(&str, Edit); 6] = [
            ("action", |message| message["action"] = json!("Dance")),
            ("requestId", |message| message["requestId"] = json!("../x")),
            ("messageBatchId", |message| message["messageBatchId"] = json!("a b")),
            ("instanceCount", |message| message["instanceCount"] = json!(-1)),
            ("requestedGPUCount", |message| {
                message["requestedGPUCount"] = json!(100_000);
            }),
            ("gpuName", |message| {
                message["launchSpecification"] = json!({});
                message["instanceType"] = json!("NCP");
            }),
        ];
        for (field, edit) in edits {
            let error = with(edit).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn what_is_in_a_message_that_cannot_be_read_is_not_told() {
        let told = |error: MessageError| with_causes(&error);
        let mut message = message();
        message["instanceCount"] = json!("s3cret");
        let text = message.to_string();
        assert!(
            serde_json::from_str::<CreationMessage>(&text)
                .unwrap_err()
                .to_string()
                .contains("s3cret"),
            "the parser quotes"
        );
        for error in [
            Wish::parse(text.as_bytes()).unwrap_err(),
            Wish::of(message).unwrap_err(),
            termination(br#"{"requestId": "r", "instanceIds": "s3cret"}"#).unwrap_err(),
        ] {
            assert_eq!(error.reason(), "MessageMalformed");
            let text = told(error);
            assert!(text.contains("another form") && !text.contains("s3cret"), "{text}");
        }
        assert!(told(Wish::parse(text.as_bytes()).unwrap_err()).contains("line 1, column"));
    }

    #[test]
    fn a_termination_names_instances_that_can_be_names() {
        let message =
            json!({"requestId": "r", "ncaId": "n", "action": "TerminateInstances", "instanceIds": ["0-sr-1"]});
        assert_eq!(
            termination(message.to_string().as_bytes()).unwrap().instance_ids,
            ["0-sr-1"]
        );
        let bad = json!({"requestId": "r", "instanceIds": ["a/b"]});
        assert_eq!(
            termination(bad.to_string().as_bytes()).unwrap_err().reason(),
            "MessageIncomplete"
        );
        assert!(termination(b"").is_err());
    }
}
