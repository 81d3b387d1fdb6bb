//! Why an instance ends: the words that the control plane knows, and how one is reported. Pure.

use berth_sis::wire::{HealthInfo, InstanceUpdate};

use super::trouble::Trouble;

/// The reason of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The control plane said so.
    User,
    /// Its pod did not run in time; in plain words.
    Trouble(Trouble, String),
    /// Its pod went away and nobody here asked for that.
    NotFound,
    /// The node refused its pod.
    Admission(String),
    /// Its pod failed.
    Failed(String),
    /// It cannot be made here; in plain words.
    Refused(String),
    /// The control plane does not want it any more.
    Unwanted,
    /// Its `ICMSRequest` was deleted.
    Deleted,
    /// The cluster is emptied.
    Maintenance,
    /// A task came to its end.
    Succeeded,
    /// A task did not come to its end in time; what it was told to be then, and in plain words.
    Overran(Alive, String),
}

/// What an instance is told to be while it is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alive {
    Starting,
    Running,
}

/// What a pod's state is to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Starting,
    /// With the addresses of its node and pod.
    Running([String; 2]),
    Terminated(Cause),
}

impl Alive {
    const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
        }
    }
}

impl Cause {
    /// As the control plane spells it.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::User => "instance-terminated-by-user",
            Self::Trouble(trouble, _) => trouble.word(),
            Self::NotFound => "instance-not-found",
            Self::Admission(_) => "instance-terminated-admission-error",
            Self::Failed(_) => "failed",
            Self::Refused(_) => "instance-terminated-terminal-error",
            Self::Unwanted => "instance-terminated-precondition-failure",
            Self::Deleted => "instance-terminated-sync-action",
            Self::Maintenance => "instance-terminated-service-maintenance",
            Self::Succeeded => "succeeded",
            // The real agent's word for it: the state in which it was ended.
            Self::Overran(alive, _) => alive.word(),
        }
    }

    /// For people; empty: the word says it all.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Admission(text)
            | Self::Failed(text)
            | Self::Refused(text)
            | Self::Trouble(_, text)
            | Self::Overran(_, text) => text,
            Self::User | Self::NotFound | Self::Unwanted | Self::Deleted | Self::Maintenance | Self::Succeeded => "",
        }
    }

    /// From what was kept; what is not known counts as a failure.
    pub(crate) fn of(word: &str, message: &str) -> Option<Self> {
        let message = message.to_owned();
        Some(match word {
            "" => return None,
            "instance-terminated-by-user" => Self::User,
            "instance-not-found" => Self::NotFound,
            "instance-terminated-admission-error" => Self::Admission(message),
            "instance-terminated-precondition-failure" => Self::Unwanted,
            "instance-terminated-sync-action" => Self::Deleted,
            "instance-terminated-service-maintenance" => Self::Maintenance,
            "instance-terminated-terminal-error" => Self::Refused(message),
            "succeeded" => Self::Succeeded,
            "starting" => Self::Overran(Alive::Starting, message),
            "running" => Self::Overran(Alive::Running, message),
            word => match Trouble::of(word) {
                Some(trouble) => Self::Trouble(trouble, message),
                None => Self::Failed(message),
            },
        })
    }
}

impl Told {
    /// As `ICMSRequest` and control plane spell it.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Starting => Alive::Starting.word(),
            Self::Running(_) => Alive::Running.word(),
            Self::Terminated(_) => "terminated",
        }
    }

    /// The body of a report. `action`: how the instance was asked for.
    pub(crate) fn update(&self, action: &str) -> InstanceUpdate {
        let alive = |ips: [String; 2]| InstanceUpdate {
            status: "fulfilled".to_owned(),
            instance_state: self.word().to_owned(),
            request_state: "active".to_owned(),
            action: action.to_owned(),
            instance_ips: ips.to_vec(),
            ..InstanceUpdate::default()
        };
        let cause = match self {
            Self::Starting => return alive([String::new(), String::new()]),
            Self::Running(ips) => return alive(ips.clone()),
            Self::Terminated(cause) => cause,
        };
        let over = InstanceUpdate {
            instance_state: self.word().to_owned(),
            request_state: "closed".to_owned(),
            action: "TerminateInstances".to_owned(),
            ..InstanceUpdate::default()
        };
        if *cause == Cause::User {
            let status = cause.word().to_owned();
            return InstanceUpdate { status, ..over };
        }
        let word = cause.word();
        let by_service = InstanceUpdate {
            status: "instance-terminated-by-service".to_owned(),
            termination_cause: word.to_owned(),
            ..over
        };
        // Nothing failed.
        if *cause == Cause::Maintenance {
            return by_service;
        }
        let error_log = match (cause, cause.message()) {
            (_, "") => format!("pod terminated due to state {word}\n---\n"),
            (Cause::Trouble(..) | Cause::Failed(_) | Cause::Admission(_) | Cause::Overran(..), message) => {
                format!("pod terminated due to state {word}: {message}\n---\n")
            }
            (_, message) => message.to_owned(),
        };
        InstanceUpdate {
            health_info: HealthInfo {
                error_log,
                error_source: error_source(action).to_owned(),
            },
            system_failure: word.to_owned(),
            ..by_service
        }
    }
}

/// Only tasks name one.
fn error_source(action: &str) -> &'static str {
    if action.ends_with("ForTask") {
        "task_container"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(told: &Told) -> serde_json::Value {
        serde_json::to_value(told.update("RequestSpotInstances")).unwrap()
    }

    #[test]
    fn reports_are_those_of_the_real_agent() {
        let ips = ["127.0.0.1".to_owned(), "10.244.0.9".to_owned()];
        assert_eq!(
            body(&Told::Running(ips)),
            json!({"status": "fulfilled", "instanceState": "running", "requestState": "active",
                "action": "RequestSpotInstances", "healthInfo": {}, "instanceIps": ["127.0.0.1", "10.244.0.9"]})
        );
        assert_eq!(body(&Told::Starting)["instanceIps"], json!(["", ""]));
        assert_eq!(
            body(&Told::Terminated(Cause::User)),
            json!({"status": "instance-terminated-by-user", "instanceState": "terminated", "requestState": "closed",
                "action": "TerminateInstances", "healthInfo": {}})
        );
        assert_eq!(
            body(&Told::Terminated(Cause::Trouble(Trouble::NoNode, String::new()))),
            json!({"status": "instance-terminated-by-service", "instanceState": "terminated", "requestState": "closed",
                "action": "TerminateInstances", "terminationCause": "instance-terminated-no-capacity",
                "healthInfo": {"errorLog": "pod terminated due to state instance-terminated-no-capacity\n---\n"},
                "systemFailure": "instance-terminated-no-capacity"})
        );
    }

    #[test]
    fn maintenance_is_no_failure() {
        assert_eq!(
            body(&Told::Terminated(Cause::Maintenance)),
            json!({"status": "instance-terminated-by-service", "instanceState": "terminated", "requestState": "closed",
                "action": "TerminateInstances", "terminationCause": "instance-terminated-service-maintenance",
                "healthInfo": {}})
        );
    }

    #[test]
    fn trouble_is_told_in_the_words_of_the_real_agent_and_in_plain_ones() {
        let text = "container inference: ImagePullBackOff: no such image".to_owned();
        let told = Told::Terminated(Cause::Trouble(Trouble::ImagePull, text));
        let body = body(&told);
        assert_eq!(body["terminationCause"], "image-pull-issues");
        assert_eq!(
            body["healthInfo"],
            json!({"errorLog": "pod terminated due to state image-pull-issues: container inference: ImagePullBackOff: no such \
                image\n---\n"})
        );
        let body = serde_json::to_value(told.update("RequestSpotInstancesForTask")).unwrap();
        assert_eq!(body["healthInfo"]["errorSource"], "task_container");
    }

    #[test]
    fn a_task_that_overran_is_told_with_the_state_it_was_in_as_the_real_agent_does() {
        let told = Told::Terminated(Cause::Overran(Alive::Running, "too long".to_owned()));
        assert_eq!(
            serde_json::to_value(told.update("RequestSpotInstancesForTask")).unwrap(),
            json!({"status": "instance-terminated-by-service", "instanceState": "terminated", "requestState": "closed",
                "action": "TerminateInstances", "terminationCause": "running", "systemFailure": "running",
                "healthInfo": {"errorLog": "pod terminated due to state running: too long\n---\n",
                    "errorSource": "task_container"}})
        );
    }

    #[test]
    fn a_cause_is_kept_and_read_again() {
        let text = || "because".to_owned();
        for cause in [
            Cause::User,
            Cause::Trouble(Trouble::NoNode, String::new()),
            Cause::Trouble(Trouble::ImagePull, text()),
            Cause::Trouble(Trouble::CreateContainer, text()),
            Cause::Trouble(Trouble::InitStuck, text()),
            Cause::Trouble(Trouble::InitRestarts, text()),
            Cause::Trouble(Trouble::Restarts, text()),
            Cause::Trouble(Trouble::Degraded, text()),
            Cause::NotFound,
            Cause::Admission(text()),
            Cause::Failed(text()),
            Cause::Refused(text()),
            Cause::Unwanted,
            Cause::Deleted,
            Cause::Maintenance,
            Cause::Succeeded,
            Cause::Overran(Alive::Starting, text()),
            Cause::Overran(Alive::Running, text()),
        ] {
            assert_eq!(Cause::of(cause.word(), cause.message()), Some(cause));
        }
        assert_eq!(Cause::of("a newer agent's", "because"), Some(Cause::Failed(text())));
        assert_eq!(Cause::of("", ""), None);
    }
}
