//! What of a request outlives this process: the status of its `ICMSRequest`, written and read. Pure.

use berth_kube_api::nvcf::icms_request::{ICMSRequest, ICMSRequestSpec, ICMSRequestStatus, InstanceStatus};
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;

use super::{
    super::{
        cause::{Cause, Told},
        message::{MessageError, Wish},
    },
    Instance, Letter, Moment, Request, Stage,
    instance::Phase,
};
use crate::names;

impl Request {
    /// From an `ICMSRequest` that an earlier process made. `refused` as in [`Self::new`].
    ///
    /// # Errors
    /// The message in it is none.
    pub(crate) fn kept(
        object: &ICMSRequest,
        refused: impl Fn(&Wish) -> Option<String>,
        now: Moment,
    ) -> Result<Self, MessageError> {
        let mut wish = Wish::of(object.spec.creation_msg_info.clone())?;
        // Objects of an agent that made other names are still its objects.
        if let Some(name) = &object.metadata.name {
            wish.name.clone_from(name);
        }
        let status = object.status.clone().unwrap_or_default();
        let mut request = Self::new(wish, None, 0, now);
        let refused = refused(&request.wish);
        request.letter = if status.message_settled {
            Letter::Settled
        } else {
            Letter::Open {
                ticket: None,
                since: now.steady,
            }
        };
        request.stage = Stage::Stored;
        request.acknowledged = millis(&status.last_ack_timestamp);
        for (name, instance) in &mut request.instances {
            let end = |kept: &InstanceStatus| Cause::of(&kept.termination_cause, &kept.termination_message);
            *instance = match status.instances.get(name) {
                Some(kept) if !kept.status.is_empty() => {
                    let phase = if kept.status == "terminated" {
                        Phase::Gone
                    } else {
                        Phase::Made
                    };
                    Instance::kept(phase, end(kept), told(kept))
                }
                kept => Instance::new(kept.and_then(end).or_else(|| refused.clone().map(Cause::Refused))),
            };
        }
        request.saved = status;
        Ok(request)
    }

    pub(crate) fn status(&self) -> ICMSRequestStatus {
        let instances = self
            .instances
            .iter()
            .map(|(name, instance)| (name.clone(), instance_status(name, instance)));
        ICMSRequestStatus {
            request_status: self.word().to_owned(),
            last_ack_timestamp: self.acknowledged.map(text).unwrap_or_default(),
            message_settled: self.letter == Letter::Settled,
            instances: instances.collect(),
        }
    }

    fn word(&self) -> &'static str {
        let all = |is: fn(&Instance) -> bool| self.instances.values().all(is);
        if self.unwanted || all(|instance| instance.phase == Phase::Gone) {
            return if all(|instance| matches!(instance.end, Some(Cause::User | Cause::Succeeded | Cause::Deleted))) {
                "RequestCompletionAcknowledged"
            } else {
                "RequestFailed"
            };
        }
        if self.acknowledged.is_none() {
            "RequestPending"
        } else if self.instances.values().any(|instance| instance.phase == Phase::Wanted) {
            "RequestInProgress"
        } else if all(|instance| matches!(instance.state(), Some(Told::Running(_)))) {
            "RequestCompleted"
        } else {
            "RequestInstancesInProgress"
        }
    }

    /// The object that this request is kept in.
    pub(crate) fn object(&self, namespace: &str, receipt: &str) -> ICMSRequest {
        let Wish {
            message,
            gpu,
            name,
            message_id,
            ..
        } = &self.wish;
        let details = message.function_details.clone().unwrap_or_default();
        let function = message.function_id.clone().or(details.function_id).unwrap_or_default();
        let version = message
            .function_version_id
            .clone()
            .or(details.function_version_id)
            .unwrap_or_default();
        let labels = [
            ("SQSMessageID", message_id.clone()),
            ("gpu-name", gpu.clone()),
            ("icms-request-id", message.request_id.clone()),
            ("nca-id", format!("nca-{}-nca", message.nca_id)),
            ("nvcf.nvidia.io/message-batch-id", message.message_batch_id.clone()),
            ("nvca.nvcf.nvidia.io/function-id", function.clone()),
            ("nvca.nvcf.nvidia.io/function-version-id", version.clone()),
        ];
        let labels = labels
            .into_iter()
            .filter(|(_, value)| !value.is_empty() && value.len() <= 63);
        ICMSRequest {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.to_owned()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).collect()),
                finalizers: Some(vec![names::REQUEST_FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: ICMSRequestSpec {
                action: message.action.clone(),
                request_id: message.request_id.clone(),
                message_batch_id: message.message_batch_id.clone(),
                nca_id: message.nca_id.clone(),
                function_id: function,
                function_version_id: version,
                sqs_message_receipt: receipt.to_owned(),
                creation_msg_info: self.wish.raw.clone(),
            },
            status: None,
        }
    }
}

fn instance_status(name: &str, instance: &Instance) -> InstanceStatus {
    let status = match (instance.phase, instance.state()) {
        (Phase::Wanted, _) => "",
        // On its way out.
        (_, None) => "shutting-down",
        (_, Some(told)) => told.word(),
    };
    let told = instance.told.as_ref();
    let cause = instance.end.as_ref();
    InstanceStatus {
        id: name.to_owned(),
        instance_type: "Pod".to_owned(),
        status: status.to_owned(),
        last_reported_status: told.map(|(told, _)| told.word().to_owned()).unwrap_or_default(),
        last_reported_timestamp: told.map(|(_, at)| text(*at)).unwrap_or_default(),
        termination_cause: cause.map(|cause| cause.word().to_owned()).unwrap_or_default(),
        termination_message: cause.map(|cause| cause.message().to_owned()).unwrap_or_default(),
    }
}

/// Addresses are not kept: a running instance is told again after a start.
fn told(kept: &InstanceStatus) -> Option<(Told, u64)> {
    let told = match kept.last_reported_status.as_str() {
        "starting" => Told::Starting,
        "running" => Told::Running(Default::default()),
        "terminated" => Told::Terminated(Cause::of(&kept.termination_cause, &kept.termination_message)?),
        _ => return None,
    };
    Some((told, millis(&kept.last_reported_timestamp).unwrap_or_default()))
}

fn text(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.unwrap_or_default().to_string()
}

fn millis(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}
