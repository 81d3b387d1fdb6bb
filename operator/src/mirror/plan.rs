//! What has to be done so that the copies are as their sources. Pure: it knows only what it is shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    ResourceExt as _,
    core::{ObjectMeta, PartialObjectMeta},
};
use serde::Serialize;

use super::MANAGER;
use crate::names::{ADDITIONAL_PULL_SECRET, BACKEND_NAMESPACE, MANAGED_BY, WORKLOAD_INSTANCE_TYPE};

/// Kinds of secrets that may be listed. The kubelet takes the first two; `Opaque` is what people make of them by hand. The
/// others belong to one namespace, as tokens of service accounts do, and are not for copying.
const FIT: [&str; 3] = ["kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg", OPAQUE];
/// What a secret without a type is.
const OPAQUE: &str = "Opaque";

/// What is to be copied, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wanted {
    pub names: BTreeSet<String>,
    pub source: String,
    /// Besides [`BACKEND_NAMESPACE`] and the namespaces of workloads.
    pub target: String,
}

/// The cluster, as far as the mirror is concerned.
#[derive(Clone, Default)]
pub struct Seen {
    pub namespaces: Vec<Arc<PartialObjectMeta<Namespace>>>,
    /// Those of a wanted name, in any namespace.
    pub secrets: Vec<Arc<Secret>>,
    /// Those with a copy's labels, of any name.
    pub copies: Vec<Arc<PartialObjectMeta<Secret>>>,
}

/// A secret whose data never shows.
#[derive(Clone, PartialEq)]
pub struct Sealed(pub Arc<Secret>);

/// One object, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Create {
        source: Sealed,
        namespace: String,
    },
    /// Data or labels differ.
    Update {
        source: Sealed,
        copy: Sealed,
    },
    /// It differs in what cannot be changed.
    Replace {
        source: Sealed,
        copy: Version,
    },
    /// Its source is gone or listed no more, or its namespace is no target any more.
    Delete {
        copy: Version,
    },
}

/// What whoever runs the mirror should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Waited for.
    NoSource { name: String },
    /// Not copied.
    Unfit { name: String, kind: String },
    /// Waited for.
    NoNamespace { namespace: String },
    /// Left alone.
    Foreign { namespace: String, name: String },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub findings: BTreeSet<Finding>,
    /// Copies that are as they should be.
    pub settled: usize,
}

/// The way from what is seen to what is wanted.
pub fn plan(wanted: &Wanted, seen: &Seen) -> Plan {
    let mut plan = Plan::default();
    let targets = targets(wanted, seen, &mut plan.findings);
    let secrets: BTreeMap<_, _> = seen
        .secrets
        .iter()
        .map(|secret| (place(&secret.metadata), secret))
        .collect();
    let mut usable = BTreeSet::new();
    for name in &wanted.names {
        let name = name.as_str();
        let Some(source) = secrets.get(&(wanted.source.as_str(), name)) else {
            plan.findings.insert(Finding::NoSource { name: name.to_owned() });
            continue;
        };
        if !FIT.contains(&kind(source)) {
            let (name, kind) = (name.to_owned(), kind(source).to_owned());
            plan.findings.insert(Finding::Unfit { name, kind });
            continue;
        }
        usable.insert(name);
        for namespace in &targets {
            plan.copy(source, namespace, secrets.get(&(*namespace, name)).copied());
        }
    }
    let terminating: BTreeSet<_> = seen
        .namespaces
        .iter()
        .filter(|it| is_going(&it.metadata))
        .map(|it| it.name_any())
        .collect();
    for copy in &seen.copies {
        let (namespace, name) = place(&copy.metadata);
        let is_wanted = targets.contains(namespace) && usable.contains(name);
        // What is in a namespace that goes, goes with it.
        let is_left = namespace == wanted.source || is_going(&copy.metadata) || terminating.contains(namespace);
        if is_ours(&copy.metadata) && !is_wanted && !is_left {
            plan.actions.push(Action::Delete {
                copy: Version::of(&copy.metadata),
            });
        }
    }
    plan
}

/// Those that are there and stay. A fixed one that is not there is a finding.
fn targets<'a>(wanted: &'a Wanted, seen: &'a Seen, findings: &mut BTreeSet<Finding>) -> BTreeSet<&'a str> {
    let mut missing = BTreeSet::from([wanted.target.as_str(), BACKEND_NAMESPACE]);
    missing.remove(wanted.source.as_str());
    let mut targets = BTreeSet::new();
    for namespace in &seen.namespaces {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        if name == wanted.source || is_going(&namespace.metadata) {
            continue;
        }
        if missing.remove(name) || namespace.labels().contains_key(WORKLOAD_INSTANCE_TYPE) {
            targets.insert(name);
        }
    }
    findings.extend(missing.into_iter().map(|name| Finding::NoNamespace {
        namespace: name.to_owned(),
    }));
    targets
}

impl Plan {
    fn copy(&mut self, source: &Arc<Secret>, namespace: &str, present: Option<&Arc<Secret>>) {
        let sealed = || Sealed(Arc::clone(source));
        let Some(present) = present else {
            let namespace = namespace.to_owned();
            self.actions.push(Action::Create {
                source: sealed(),
                namespace,
            });
            return;
        };
        if !is_ours(&present.metadata) {
            let (namespace, name) = (namespace.to_owned(), present.name_any());
            self.findings.insert(Finding::Foreign { namespace, name });
            return;
        }
        // Its end will be seen, and then it is made anew.
        if is_going(&present.metadata) {
            return;
        }
        let same_data = is_same_data(source, present);
        let is_fixed = present.immutable == Some(true) && !same_data;
        if kind(source) != kind(present) || is_fixed {
            let copy = Version::of(&present.metadata);
            self.actions.push(Action::Replace { source: sealed(), copy });
        } else if same_data && is_labelled(&present.metadata) {
            self.settled += 1;
        } else {
            let copy = Sealed(Arc::clone(present));
            self.actions.push(Action::Update { source: sealed(), copy });
        }
    }
}

impl Action {
    /// Namespace and name of the copy.
    pub fn place(&self) -> (&str, &str) {
        match self {
            Self::Create { source, namespace } => (namespace, place(&source.0.metadata).1),
            Self::Update { copy, .. } => place(&copy.0.metadata),
            Self::Replace { copy, .. } | Self::Delete { copy } => (&copy.namespace, &copy.name),
        }
    }
}

impl Version {
    pub fn of(metadata: &ObjectMeta) -> Self {
        let (namespace, name) = place(metadata);
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = place(&self.0.metadata);
        write!(f, "Secret {namespace}/{name}")
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("namespaces", &self.namespaces.len())
            .field("secrets", &self.secrets.len())
            .field("copies", &self.copies.len())
            .finish()
    }
}

fn place(metadata: &ObjectMeta) -> (&str, &str) {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    (namespace, metadata.name.as_deref().unwrap_or_default())
}

fn kind(secret: &Secret) -> &str {
    secret.type_.as_deref().unwrap_or(OPAQUE)
}

fn is_same_data(one: &Secret, other: &Secret) -> bool {
    let none = BTreeMap::new();
    one.data.as_ref().unwrap_or(&none) == other.data.as_ref().unwrap_or(&none)
}

fn is_going(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

fn has(metadata: &ObjectMeta, label: &str, value: &str) -> bool {
    metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(label))
        .is_some_and(|it| it == value)
}

fn is_ours(metadata: &ObjectMeta) -> bool {
    has(metadata, MANAGED_BY, MANAGER)
}

fn is_labelled(metadata: &ObjectMeta) -> bool {
    is_ours(metadata) && has(metadata, ADDITIONAL_PULL_SECRET, "true")
}

#[cfg(test)]
mod tests;
