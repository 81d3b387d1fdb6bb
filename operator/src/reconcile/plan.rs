//! What is to be done, from what is there. Pure: [`Live`] and the time in, a [`Plan`] out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_kube_api::nvcf::backend::{NvcfBackend, NvcfBackendSpec};
use berth_runtime::authority::AuthorityError;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use super::{
    backend::{self, OverridesError},
    certificates::Certificates,
    live::{CUSTOM_POLICIES, Live, POD_ANNOTATIONS},
    manifest::{self, GpusError, Parts, PolicyError, is_custom_policy as is_custom},
    merge::{self, MergeError},
    object::{Key, holds},
    settings::Settings,
};
use crate::{
    cluster_dto::{ClusterDto, DtoError},
    names,
    registration::{Registration, record},
};

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The `NVCFBackend` that this cluster is to have, where it is known.
    pub backend: Option<Wanted>,
    /// Of [`Self::backend`], where it is as it should be.
    pub current: Option<Arc<NvcfBackend>>,
    /// Objects that are not there or not as they should be, in order.
    pub apply: Vec<(Key, Value)>,
    /// Objects that are not wanted any more.
    pub prune: Vec<Key>,
    /// Other `NVCFBackend`s: nothing is done for them.
    pub superfluous: Vec<Arc<NvcfBackend>>,
    /// Being deleted beside the one that this cluster has: they are let go, and nothing else goes.
    pub released: Vec<Arc<NvcfBackend>>,
    /// Being deleted: what it stood for has to go.
    pub deleting: Option<Arc<NvcfBackend>>,
    pub problems: Vec<Problem>,
    /// Of the webhook, to be given again next time.
    pub certificates: Option<Certificates>,
}

/// The `NVCFBackend` that this cluster is to have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub name: String,
    /// As the operator writes it.
    pub spec: NvcfBackendSpec,
    /// It is not there or not as it should be.
    pub is_stale: bool,
}

/// Why not everything can be done. Everything else is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("waiting for the ConfigMap {}: the chart makes it", names::CLUSTER_DTO)]
    NoCluster,
    #[error(transparent)]
    Dto(#[from] DtoError),
    #[error(
        "waiting for the registration: the ConfigMap {} has no ids yet; see the log of nvca-bootstrap-watch",
        names::REGISTRATION
    )]
    NotRegistered,
    #[error("the agent's version is empty: set selfManaged.nvcaVersion")]
    NoVersion,
    #[error("the agent's image is not known: set nvcaImage.repositoryOverride")]
    NoImage,
    #[error(transparent)]
    Overrides(#[from] OverridesError),
    #[error(transparent)]
    Gpus(#[from] GpusError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error("the ConfigMap {map} has what means nothing to this agent: {keys}", map = names::AGENT_CONFIG_MERGE)]
    Unused { keys: String },
    #[error("network policy {0} of the ConfigMap {CUSTOM_POLICIES}: the last good ones are kept")]
    Policy(#[from] PolicyError),
    #[error("there is no ConfigMap {CUSTOM_POLICIES}: the last good network policies are kept")]
    NoPolicies,
    #[error("the webhook has no certificate")]
    Certificates(#[from] AuthorityError),
    #[error("annotations of the ConfigMap {POD_ANNOTATIONS} are no JSON object of texts: they are left out")]
    Annotations,
    #[error("there is no ConfigMap {POD_ANNOTATIONS}: functions' pods get no annotations")]
    NoAnnotations,
    #[error("{others} is no backend of this cluster: {name} is")]
    Superfluous { others: String, name: String },
}

impl Problem {
    /// Stable, for conditions and events.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoCluster => "WaitingForCluster",
            Self::Dto(error) => error.reason(),
            Self::NotRegistered => "NotRegistered",
            Self::NoVersion => "VersionMissing",
            Self::NoImage => "ImageMissing",
            Self::Overrides(_) => "OverridesInvalid",
            Self::Gpus(_) => "GpusInvalid",
            Self::Merge(_) => "MergeConfigInvalid",
            Self::Unused { .. } => "MergeConfigUnused",
            Self::Policy(_) => "NetworkPolicyInvalid",
            Self::NoPolicies => "NetworkPoliciesMissing",
            Self::Certificates(_) => "CertificateFailed",
            Self::Annotations => "PodAnnotationsInvalid",
            Self::NoAnnotations => "PodAnnotationsMissing",
            Self::Superfluous { .. } => "SuperfluousBackend",
        }
    }

    /// The cluster works all the same.
    pub(super) const fn is_minor(&self) -> bool {
        matches!(
            self,
            Self::Unused { .. }
                | Self::Policy(_)
                | Self::NoPolicies
                | Self::Annotations
                | Self::NoAnnotations
                | Self::Superfluous { .. }
        )
    }
}

/// What earlier plans left behind.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// What the cluster was when its backend was deleted; until that changes, there is to be none.
    pub(super) retired: Option<Value>,
    pub(super) certificates: Option<Certificates>,
}

pub(super) fn plan(live: &Live, settings: &Settings, now_unix_ms: u64, before: &Before) -> Plan {
    let retired = before.retired.as_ref();
    let mut plan = Plan::default();
    let dto = match dto(live) {
        Ok(dto) => Some(dto),
        Err(problem) => {
            plan.problems.push(problem);
            None
        }
    };
    // Without the chart's word the one that is there is the one; rather one that stays.
    let is_deleted = |it: &NvcfBackend| it.metadata.deletion_timestamp.is_some();
    let first = live.backends.iter().min_by_key(|(_, it)| is_deleted(it));
    let name = match &dto {
        Some(dto) => Some(dto.cluster_name.clone()),
        None => first.map(|(name, _)| name.clone()),
    };
    let ours = name.as_ref().and_then(|name| live.backends.get(name));
    let ours_stays = ours.is_some_and(|it| !is_deleted(it));
    for (key, backend) in &live.backends {
        let is_ours = Some(key) == name.as_ref();
        let is_deleted = is_deleted(backend);
        let is_held = has_finalizer(backend);
        let backend = Arc::new(backend.clone());
        match (is_deleted, is_ours) {
            (true, _) if !is_held => {}
            (true, false) if ours_stays => plan.released.push(backend),
            (true, _) => plan.deleting = Some(backend),
            (false, true) => plan.current = Some(backend),
            (false, false) => plan.superfluous.push(backend),
        }
    }
    if let Some(name) = name.filter(|_| !plan.superfluous.is_empty()) {
        let others: Vec<_> = plan
            .superfluous
            .iter()
            .filter_map(|it| it.metadata.name.clone())
            .collect();
        let others = others.join(", ");
        plan.problems.push(Problem::Superfluous { others, name });
    }
    if plan.deleting.is_some() || retired.is_some() && retired == cluster_text(live).as_ref() {
        return plan;
    }
    let Some(dto) = dto else { return plan };
    let Some(registration) = registration(live, &dto) else {
        plan.problems.push(Problem::NotRegistered);
        return plan;
    };
    let spec = match backend::spec(&dto, &registration, settings) {
        Ok(spec) => spec,
        Err(error) => {
            plan.problems.push(error.into());
            return plan;
        }
    };
    plan.backend = Some(wanted(spec.clone(), plan.current.as_deref()));
    objects(&mut plan, spec, live, settings, now_unix_ms, before);
    plan
}

/// What the chart says of the cluster, to be compared.
pub(super) fn cluster_text(live: &Live) -> Option<Value> {
    let map = live.maps.get(names::CLUSTER_DTO)?;
    serde_json::to_value((&map.metadata.uid, &map.data)).ok()
}

fn dto(live: &Live) -> Result<ClusterDto, Problem> {
    let map = live.maps.get(names::CLUSTER_DTO).ok_or(Problem::NoCluster)?;
    Ok(ClusterDto::of(map)?)
}

/// The recorded one; else that of the chart's values, for a cluster that was registered by hand.
fn registration(live: &Live, dto: &ClusterDto) -> Option<Registration> {
    let recorded = live.maps.get(names::REGISTRATION).and_then(record::of);
    recorded.or_else(|| {
        Some(Registration {
            cluster_id: dto.cluster_id.parse().ok()?,
            cluster_group_id: dto.cluster_group_id.parse().ok()?,
        })
    })
}

fn has_finalizer(backend: &NvcfBackend) -> bool {
    let mut finalizers = backend.metadata.finalizers.iter().flatten();
    finalizers.any(|it| it == names::BACKEND_FINALIZER)
}

fn wanted(spec: NvcfBackendSpec, current: Option<&NvcfBackend>) -> Wanted {
    let json = |spec: &NvcfBackendSpec| serde_json::to_value(spec).unwrap_or_default();
    let is_stale = current.is_none_or(|it| !has_finalizer(it) || !holds(&json(&spec), &json(&it.spec)));
    Wanted {
        name: spec.cluster_config.cluster_name.clone(),
        spec,
        is_stale,
    }
}

fn objects(plan: &mut Plan, spec: NvcfBackendSpec, live: &Live, settings: &Settings, now: u64, before: &Before) {
    let current = plan.current.as_deref();
    let spec = NvcfBackendSpec {
        overrides: current.and_then(|it| it.spec.overrides.clone()),
        ..spec
    };
    let spec = match backend::effective(&spec) {
        Ok(spec) => spec,
        Err(error) => return plan.problems.push(error.into()),
    };
    if spec.version.trim().is_empty() {
        plan.problems.push(Problem::NoVersion);
    }
    if spec.nvca_image_config.repository.trim().is_empty() {
        plan.problems.push(Problem::NoImage);
    }
    if plan
        .problems
        .iter()
        .any(|it| matches!(it, Problem::NoVersion | Problem::NoImage))
    {
        return;
    }
    let config = match manifest::agent_config(&spec, settings) {
        Ok(config) => config,
        Err(error) => return plan.problems.push(error.into()),
    };
    let merged = merge::of(live.maps.get(names::AGENT_CONFIG_MERGE)).and_then(|given| merge::into(config, &given));
    let config = match merged {
        Ok((config, unused)) => {
            if !unused.is_empty() {
                let keys = unused.join(", ");
                plan.problems.push(Problem::Unused { keys });
            }
            config
        }
        Err(error) => return plan.problems.push(error.into()),
    };
    let secret = |name: &str| {
        let is_it = |key: &&Key| {
            let at = (key.kind.name, key.namespace.as_deref(), key.name.as_str());
            at == ("Secret", Some(names::SYSTEM_NAMESPACE), name)
        };
        let key = live.objects.keys().find(is_it)?;
        live.objects.get(key)
    };
    let certificates = Certificates::of(
        secret(names::WEBHOOK_CA),
        secret(names::WEBHOOK_CERTIFICATE),
        before.certificates.as_ref(),
        now,
    );
    let certificates = match certificates {
        Ok(certificates) => certificates,
        Err(error) => return plan.problems.push(error.into()),
    };
    let (policies, problems) = policies(live);
    // A policy that cannot be read may be any of those that are there: to drop one might let more through.
    let is_policy_unknown = !problems.is_empty();
    plan.problems.extend(problems);
    let pod_annotations = match pod_annotations(live) {
        Ok(text) => text,
        Err(problem) => {
            plan.problems.push(problem);
            "{}"
        }
    };
    let annotations = current.and_then(|it| it.metadata.annotations.as_ref());
    let rollout = annotations.and_then(|it| it.get(names::FORCED_ROLLOUT_AT));
    let wanted = manifest::all(Parts {
        spec: &spec,
        settings,
        config: &config,
        certificates: &certificates,
        policies: &policies,
        pod_annotations,
        rollout: rollout.map_or("", String::as_str),
    });
    let mut keys = BTreeSet::new();
    for object in wanted {
        let Some(key) = Key::of(&object) else { continue };
        keys.insert(key.clone());
        let is_there = live.objects.get(&key).is_some_and(|live| {
            let is_replaced = is_custom(live) && !is_custom(&object);
            holds(&object, live) || is_policy_unknown && is_replaced
        });
        if !is_there {
            plan.apply.push((key, object));
        }
    }
    let is_left = |(key, object): &(&Key, &Value)| {
        let is_kept = is_policy_unknown && key.kind.name == "NetworkPolicy";
        key.kind.is_pruned && !is_kept && !keys.contains(*key) && is_ours(key, object)
    };
    plan.prune = live
        .objects
        .iter()
        .filter(is_left)
        .map(|(key, _)| key.clone())
        .collect();
    plan.certificates = Some(certificates);
}

/// Made by this operator: a label alone is easily copied, and so is a backup of an object.
fn is_ours(key: &Key, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let is_labelled = labels[names::NAME] == names::AGENT && labels[names::INSTANCE] == names::AGENT;
    let is_here = match key.namespace.as_deref() {
        None => key.name == names::AGENT,
        Some(namespace) => [names::SYSTEM_NAMESPACE, names::BACKEND_NAMESPACE].contains(&namespace),
    };
    is_labelled && is_here
}

/// Those of the user, and why they are not all.
fn policies(live: &Live) -> (Vec<NetworkPolicy>, Vec<Problem>) {
    let Some(map) = live.maps.get(CUSTOM_POLICIES) else {
        return (Vec::new(), vec![Problem::NoPolicies]);
    };
    let (policies, errors) = manifest::custom_policies(&map.data.clone().unwrap_or_default());
    (policies, errors.into_iter().map(Problem::from).collect())
}

fn pod_annotations(live: &Live) -> Result<&str, Problem> {
    let map = live.maps.get(POD_ANNOTATIONS).ok_or(Problem::NoAnnotations)?;
    let text = map.data.as_ref().and_then(|data| data.get("annotations"));
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Ok("{}");
    };
    let parsed: Result<BTreeMap<String, String>, _> = serde_json::from_str(text);
    parsed.map(|_| text.as_str()).map_err(|_| Problem::Annotations)
}

#[cfg(test)]
mod tests;
