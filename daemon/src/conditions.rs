//! Facts about the daemon that a person should know: five conditions, always all of them.

use std::borrow::Cow;

use serde::Serialize;

/// The reason of what nothing is known of yet.
pub(crate) const STARTING: &str = "Starting";
/// The reason of a driver that hangs.
pub(crate) const NOT_ANSWERING: &str = "NotAnswering";

/// The conditions. The names are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum ConditionType {
    /// The driver answers.
    DriverReady,
    /// The book knows the devices and what the kubelet assigned: grants are possible.
    LedgerReconciled,
    /// The kubelet answers, or there is none to ask.
    KubeletReachable,
    /// What is granted can be kept, and nothing that was kept was lost.
    JournalHealthy,
    /// The certificates as they are on disk are in use, or TLS is off.
    TlsReady,
}

/// What somebody found out about one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: ConditionType,
    pub(crate) status: bool,
    /// Stable CamelCase, also where the status is true.
    pub(crate) reason: &'static str,
    /// For a person: what is wrong and what to do.
    pub(crate) message: Cow<'static, str>,
}

/// One condition as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Condition {
    pub(crate) kind: ConditionType,
    pub(crate) status: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: Cow<'static, str>,
    pub(crate) last_transition_unix_ms: u64,
}

/// All conditions, in the order of [`ConditionType::ALL`], which is also that of the type's discriminants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Conditions([Condition; ConditionType::ALL.len()]);

impl ConditionType {
    pub(crate) const ALL: [Self; 5] = [
        Self::DriverReady,
        Self::LedgerReconciled,
        Self::KubeletReachable,
        Self::JournalHealthy,
        Self::TlsReady,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::DriverReady => "DriverReady",
            Self::LedgerReconciled => "LedgerReconciled",
            Self::KubeletReachable => "KubeletReachable",
            Self::JournalHealthy => "JournalHealthy",
            Self::TlsReady => "TlsReady",
        }
    }

    /// It holds.
    pub(crate) fn holds(self, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Finding {
        Finding {
            kind: self,
            status: true,
            reason,
            message: message.into(),
        }
    }

    /// It does not hold.
    pub(crate) fn fails(self, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Finding {
        Finding {
            kind: self,
            status: false,
            reason,
            message: message.into(),
        }
    }
}

impl Conditions {
    /// Nothing is known yet.
    pub(crate) fn starting(now_unix_ms: u64) -> Self {
        Self(ConditionType::ALL.map(|kind| Condition {
            kind,
            status: false,
            reason: STARTING,
            message: "not known yet".into(),
            last_transition_unix_ms: now_unix_ms,
        }))
    }

    /// Takes over what was found. The time of the last transition moves with the status only.
    pub(crate) fn note(&mut self, now_unix_ms: u64, finding: Finding) {
        let condition = &mut self.0[finding.kind as usize];
        if condition.status != finding.status {
            condition.last_transition_unix_ms = now_unix_ms;
        }
        condition.status = finding.status;
        condition.reason = finding.reason;
        condition.message = finding.message;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    pub(crate) fn get(&self, kind: ConditionType) -> &Condition {
        &self.0[kind as usize]
    }
}

impl Condition {
    /// The same was found before.
    pub(crate) fn is_finding(&self, finding: &Finding) -> bool {
        self.status == finding.status && self.reason == finding.reason && self.message == finding.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_are_always_there() {
        let conditions = Conditions::starting(7);
        let kinds: Vec<_> = conditions.iter().map(|condition| condition.kind).collect();
        assert_eq!(kinds, ConditionType::ALL);
        assert!(
            conditions
                .iter()
                .all(|condition| !condition.status && condition.last_transition_unix_ms == 7)
        );
    }

    #[test]
    fn only_a_change_of_status_is_a_transition() {
        let mut conditions = Conditions::starting(1);
        let kubelet = ConditionType::KubeletReachable;
        let slow = kubelet.fails("KubeletTimeout", "slow");
        assert!(!conditions.get(kubelet).is_finding(&slow));
        conditions.note(2, slow.clone());
        assert!(conditions.get(kubelet).is_finding(&slow), "the same again is no news");
        assert_eq!(conditions.get(kubelet).last_transition_unix_ms, 1);
        conditions.note(4, kubelet.holds("Answering", ""));
        assert_eq!(conditions.get(kubelet).last_transition_unix_ms, 4);
    }
}
