//! The cluster for people: `/debug/cluster` and the metrics.

use berth_placement::{NodeName, NodeState};
use serde::Serialize;

use super::{Cluster, Contact, Member, Problem};
use crate::{convert::NodeFacts, decisions::device_names};

/// Everything that is known.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterView {
    policy: &'static str,
    nodes: Vec<MemberView>,
}

/// One node in a few words.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) target: String,
    pub(crate) contact: &'static str,
    pub(crate) problem: Option<Problem>,
    /// As placement sees it; `None` where nothing was told yet.
    pub(crate) state: Option<NodeState>,
}

impl Summary {
    pub(crate) fn name(&self) -> Option<&NodeName> {
        self.state.as_ref().map(|state| &state.name)
    }
}

#[derive(Debug, Serialize)]
struct MemberView {
    /// The daemon, or what there is in its place.
    target: String,
    /// `Starting`, `Up` or `Down`.
    contact: &'static str,
    /// Since when it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    down_for_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
    #[serde(flatten)]
    reported: Option<Reported>,
}

/// What a daemon told, once it has told something.
#[derive(Debug, Serialize)]
struct Reported {
    /// As placement sees it: assumptions are taken out of what is free.
    #[serde(flatten)]
    state: NodeState,
    #[serde(flatten)]
    facts: NodeFacts,
    instance: String,
    age_ms: u128,
    assumed: Vec<AssumedView>,
}

#[derive(Debug, Serialize)]
struct AssumedView {
    pod_uid: String,
    devices: Vec<String>,
    /// The daemon has granted it, and its next report will have it.
    granted: bool,
}

impl Contact {
    const fn name(&self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Up => "Up",
            Self::Down { .. } => "Down",
        }
    }
}

impl Cluster {
    pub(crate) fn view(&self) -> ClusterView {
        let now = self.clock.monotonic();
        let inner = self.inner.lock();
        let reported = |member: &Member| {
            let report = member.report.as_deref()?;
            let name = &report.state.name;
            let assumed = inner.assumed.iter().filter(|(_, it)| it.node == *name);
            Some(Reported {
                state: inner.engine.node(name)?.clone(),
                facts: report.facts.clone(),
                instance: report.instance.clone(),
                age_ms: now.saturating_sub(member.reported_at).as_millis(),
                assumed: assumed
                    .map(|(uid, it)| AssumedView {
                        pod_uid: uid.to_string(),
                        devices: device_names(&it.plan),
                        granted: it.reported_from.is_some(),
                    })
                    .collect(),
            })
        };
        let member = |member: &Member| {
            let down = match &member.contact {
                Contact::Starting | Contact::Up => None,
                Contact::Down { since, problem } => Some((now.saturating_sub(*since).as_millis(), problem.clone())),
            };
            let (down_for_ms, problem) = down.unzip();
            MemberView {
                target: member.origin.to_string(),
                contact: member.contact.name(),
                down_for_ms,
                problem,
                reported: reported(member),
            }
        };
        ClusterView {
            policy: self.policy.as_str(),
            nodes: inner.members.iter().map(member).collect(),
        }
    }

    /// Every node in a few words, those that have told their name by name.
    pub(crate) fn summary(&self) -> Vec<Summary> {
        let inner = self.inner.lock();
        let summary = |member: &Member| {
            let name = member.report.as_deref().map(|report| report.state.name.clone());
            Summary {
                target: member.origin.to_string(),
                contact: member.contact.name(),
                problem: match &member.contact {
                    Contact::Down { problem, .. } => Some(problem.clone()),
                    Contact::Starting | Contact::Up => None,
                },
                state: name.and_then(|name| inner.engine.node(&name).cloned()),
            }
        };
        let mut all: Vec<Summary> = inner.members.iter().map(summary).collect();
        all.sort_by(|one, other| {
            one.name()
                .cmp(&other.name())
                .then_with(|| one.target.cmp(&other.target))
        });
        all
    }

    /// How many daemons are in which contact.
    pub(crate) fn contacts(&self) -> [(&'static str, usize); 3] {
        let inner = self.inner.lock();
        ["Starting", "Up", "Down"].map(|name| {
            let count = inner
                .members
                .iter()
                .filter(|member| member.contact.name() == name)
                .count();
            (name, count)
        })
    }
}
