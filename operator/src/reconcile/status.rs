//! What the `NVCFBackend` says of itself. Pure: what is known in, a status out.
//!
//! `Ready` sums the others up. `agentStatus` stays as scripts read it.

use berth_kube_api::nvcf::backend::NvcfBackendStatus;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::health::{AgentStatus, Health};

/// What a condition is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub kind: &'static str,
    /// `None`: not known.
    pub holds: Option<bool>,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    pub(super) fn new(kind: &'static str, holds: Option<bool>, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// The status as it is to be, the one before given.
pub(super) fn status(
    before: Option<&NvcfBackendStatus>,
    version: &str,
    health: &Health,
    verdicts: &[Verdict],
    generation: Option<i64>,
    now: Timestamp,
) -> NvcfBackendStatus {
    let empty = NvcfBackendStatus::default();
    let before = before.unwrap_or(&empty);
    let agent_status = health.status.as_str();
    let since = if before.agent_status == agent_status && !before.last_updated_agent_status.is_empty() {
        before.last_updated_agent_status.clone()
    } else {
        Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
    };
    // What an agent that is silent for a moment said before is still the best that is known.
    let is_silent = health.status == AgentStatus::Unknown;
    NvcfBackendStatus {
        version: version.to_owned(),
        agent_status: agent_status.to_owned(),
        gpu_usage: if is_silent {
            before.gpu_usage.clone()
        } else {
            health.gpu_usage.clone()
        },
        kubernetes_version: if health.kubernetes_version.is_empty() {
            before.kubernetes_version.clone()
        } else {
            health.kubernetes_version.clone()
        },
        last_updated_agent_status: since,
        conditions: verdicts
            .iter()
            .map(|it| condition(&before.conditions, it, generation, now))
            .collect(),
    }
}

/// Whether everything holds.
pub(super) fn summary(verdicts: &[Verdict]) -> Verdict {
    let first = verdicts.iter().find(|it| it.holds != Some(true));
    match first {
        None => Verdict::new("Ready", Some(true), "AsExpected", "the cluster takes functions"),
        Some(verdict) => Verdict::new("Ready", Some(false), &verdict.reason, verdict.message.clone()),
    }
}

fn condition(before: &[Condition], verdict: &Verdict, generation: Option<i64>, now: Timestamp) -> Condition {
    let status = match verdict.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let same = before.iter().find(|it| it.type_ == verdict.kind && it.status == status);
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        last_transition_time: same.map_or(Time(now), |it| it.last_transition_time.clone()),
        message: verdict.message.clone(),
        observed_generation: generation,
        reason: verdict.reason.clone(),
        status: status.to_owned(),
        type_: verdict.kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn times_change_with_what_they_are_the_time_of_and_with_nothing_else() {
        let good = [Verdict::new("Applied", Some(true), "AsExpected", "")];
        let healthy = Health {
            status: AgentStatus::Healthy,
            ..Health::default()
        };
        let first = status(None, "1", &healthy, &good, Some(1), at(10));
        let second = status(Some(&first), "1", &healthy, &good, Some(1), at(20));
        assert_eq!(first, second);
        let bad = [Verdict::new("Applied", Some(false), "ApiForbidden", "no")];
        let third = status(Some(&second), "1", &Health::default(), &bad, Some(1), at(30));
        assert_eq!(third.conditions[0].last_transition_time.0, at(30));
        assert_eq!(third.agent_status, "Unknown");
        assert_ne!(third.last_updated_agent_status, first.last_updated_agent_status);
    }

    #[test]
    fn ready_tells_the_first_reason_why_not() {
        let verdicts = [
            Verdict::new("Registered", Some(true), "AsExpected", ""),
            Verdict::new("AgentHealthy", None, "AgentUnknown", "nobody answers"),
        ];
        let ready = summary(&verdicts);
        assert_eq!((ready.holds, ready.reason.as_str()), (Some(false), "AgentUnknown"));
        assert_eq!(summary(&verdicts[..1]).holds, Some(true));
    }
}
