//! The steps for one pod, or for one gang: decide, reserve, tell the API server. Each can fail; then the pod is KAI's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use berth_kube_api::{
    names::kai,
    placement::{PlacedDevice, Placement},
};
use berth_placement::{GrantSize, NodeName, Refusal};
use berth_runtime::kubernetes::{ApiError, within};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    filter::NodeFacts,
    hand_over,
    narrowing::Narrowing,
    objects,
    pod::KaiPod,
    shared_group::{self, Stood},
    state,
};
use crate::{
    binder::{BOUND_ELSEWHERE, Binder as _, Binding, ClientBox, KubernetesBinder},
    cluster::Arbiter,
    decide::{Decider, Verdict},
    pods::{Ask, Pods},
    reserve::{BindError, Reserved, Reserver},
};

#[cfg(test)]
mod tests;

/// For one request to the API server.
pub(super) const REQUEST: Duration = Duration::from_secs(2);
/// A group that is there is believed to stay for this long.
const GROUP_STANDS: Duration = Duration::from_secs(10);
/// No node takes the pod.
const NO_FIT: &str = "NoFit";
/// None does whose GPUs are well.
const BROKEN_ONLY: &str = "OnlyBrokenGpus";
/// Nodes that are asked in turn.
const ATTEMPTS: usize = 3;

/// What the steps are done with; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Jobs {
    pub(super) client: ClientBox,
    pub(super) decider: Arc<Decider>,
    pub(super) pods: Arc<Pods>,
    pub(super) reserver: Reserver,
    pub(super) binder: KubernetesBinder,
    /// From sight of a pod to the end of its decision, with the reservation.
    pub(super) deadline: Duration,
    /// Hold hinted pods to that many of the best nodes; 0: to none.
    pub(super) require_top: usize,
    /// Groups that are there, and when that was found.
    pub(super) groups_made: Arc<Mutex<BTreeMap<String, Instant>>>,
}

/// Pods that are placed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gang {
    /// All or nothing, up to so many.
    pub(super) min_member: usize,
    /// Somebody said that KAI may evict it: then it is KAI's.
    pub(super) is_preemptible: bool,
}

/// A place that is reserved.
#[derive(Debug)]
struct Place {
    reserved: Reserved,
    decision: Uuid,
    /// The best nodes, the reserved one first.
    top: Vec<NodeName>,
}

/// Why Berth does not place the pod: KAI may.
#[derive(Debug)]
struct NotPlaced {
    reason: String,
    message: String,
    /// The API server did not answer, and may have done what it was asked.
    outcome_unknown: bool,
}

/// What became of a pod's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// KAI was told this node.
    Hinted(NodeName),
    /// KAI was told that the node it was told is none any more.
    Unhinted,
    /// It is bound, or KAI's binder is at it.
    Bound,
    /// It is KAI's.
    HandedOver,
    /// Something did not reach the API server: its turn comes again.
    Again,
}

impl NotPlaced {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            outcome_unknown: false,
        }
    }
}

impl From<BindError> for NotPlaced {
    fn from(error: BindError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

impl From<Refusal> for NotPlaced {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.reason.as_str(), refusal.message)
    }
}

/// A pod, and the nodes that it may be on.
pub(super) type Candidacy = (KaiPod, Vec<Arc<NodeFacts>>);

fn names(nodes: &[Arc<NodeFacts>]) -> Vec<NodeName> {
    nodes.iter().map(|facts| facts.name.clone()).collect()
}

impl Jobs {
    /// Tells KAI the node, and which ones not to take. Whatever happens, the gate goes.
    pub(super) async fn hint(&self, pod: KaiPod, nodes: Vec<Arc<NodeFacts>>, seen: Instant) -> Ended {
        let placed = timeout_at(seen + self.deadline, self.place(&pod, &names(&nodes))).await;
        let placed = placed.unwrap_or_else(|_| Err(NotPlaced::new("DecisionLate", "no decision was made in time")));
        let off_broken = match &placed {
            Ok(place) => self.may_go_astray(&pod, &nodes, &place.reserved.node),
            Err(not) => not.reason == NO_FIT,
        };
        let place = match placed {
            Ok(place) => self.nominate(&pod, place).await,
            Err(not) => {
                self.tell_not_placed(&pod, &not);
                None
            }
        };
        let top = place.as_ref().map(|place| place.top.as_slice()).unwrap_or_default();
        let top = &top[..self.require_top.min(top.len())];
        let narrowing = Narrowing::new(top, &nodes, off_broken);
        let placement = place.as_ref().map(|place| self.placement(place));
        let release = async |narrowing: &Narrowing| {
            let patch = objects::release(&pod, placement.as_ref(), narrowing);
            self.patch(&pod, Patch::Strategic(patch), None).await
        };
        let mut released = release(&narrowing).await;
        if let Err(error) = &released
            && narrowing != Narrowing::default()
            && !(error.outcome_unknown() || error.is_not_found() || error.is_conflict())
        {
            warn!(pod = %pod.pod, error = error as &dyn std::error::Error, "it is held to no nodes");
            released = release(&Narrowing::default()).await;
        }
        match released {
            Ok(()) => place.map_or(Ended::HandedOver, |place| Ended::Hinted(place.reserved.node)),
            Err(error) if error.is_not_found() || error.is_conflict() => Ended::HandedOver,
            Err(error) => {
                warn!(pod = %pod.pod, error = &error as &dyn std::error::Error, "the gate is not gone yet: trying on");
                Ended::Again
            }
        }
    }

    /// `None` where KAI could not be told.
    async fn nominate(&self, pod: &KaiPod, place: Place) -> Option<Place> {
        let patch = objects::nomination(Some(&place.reserved.node));
        match self.patch(pod, Patch::Merge(patch), Some("status")).await {
            Ok(()) => Some(place),
            Err(error) => {
                warn!(pod = %pod.pod, error = &error as &dyn std::error::Error, "KAI is told no node");
                self.give_up(pod, &place.reserved.node);
                None
            }
        }
    }

    /// KAI did not place the pod yet: the hint is made anew if it is not good any more, or cleared. `hinted`: the node that KAI
    /// was told last, if any.
    pub(super) async fn refresh(&self, pod: KaiPod, hinted: Option<NodeName>, candidates: Vec<NodeName>) -> Ended {
        let held = self.pods.held(&pod.pod.uid).map(|held| held.node);
        let place = match self.place(&pod, &candidates).await {
            Ok(place) => Some(place),
            Err(not) => {
                self.tell_not_placed(&pod, &not);
                None
            }
        };
        let node = place.as_ref().map(|place| place.reserved.node.clone());
        let ended = |node: Option<NodeName>| node.map_or(Ended::Unhinted, Ended::Hinted);
        // The reservation is prolonged by that, too. Where it was elsewhere meanwhile, so may be what the pod was told.
        if node == hinted && (held == hinted || node.is_none()) {
            return ended(node);
        }
        info!(
            pod = %pod.pod, was = hinted.as_ref().map(NodeName::as_str), now = node.as_ref().map(NodeName::as_str),
            "the hint is changed"
        );
        if self.rehint(&pod, place.as_ref()).await.is_err() {
            // Tried again at the next turn.
            return ended(hinted);
        }
        if let (Some(hinted), None) = (&hinted, &node) {
            self.give_up(&pod, hinted);
        }
        ended(node)
    }

    /// The annotation first: whoever sees the pod go to the node finds the devices that it was given there.
    async fn rehint(&self, pod: &KaiPod, place: Option<&Place>) -> Result<(), ApiError> {
        let placement = place.map(|place| self.placement(place));
        let annotation = Patch::Merge(objects::rehinted(pod, placement.as_ref()));
        self.patch(pod, annotation, None).await?;
        let nomination = Patch::Merge(objects::nomination(place.map(|place| &place.reserved.node)));
        self.patch(pod, nomination, Some("status")).await
    }

    /// Where KAI put it is where it was told.
    pub(super) fn hint_taken(&self, pod: &KaiPod) {
        let Some(held) = self.pods.held(&pod.pod.uid) else {
            return;
        };
        let devices: Vec<_> = held.plan.grants.iter().map(|grant| grant.device.to_string()).collect();
        let why = self
            .pods
            .get(&pod.pod.uid)
            .and_then(|seen| self.decider.decisions.why(seen.ask().decision));
        let message = format!(
            "on {}: {}; {}; through KAI",
            held.node,
            devices.join(", "),
            why.unwrap_or_default()
        );
        self.binder.tell(&pod.pod, true, "BerthPlaced", &message);
    }

    /// KAI knew better: what is held elsewhere is given back, and the annotation goes.
    pub(super) async fn hint_missed(&self, pod: KaiPod, hinted: NodeName) {
        self.give_up(&pod, &hinted);
        let node = pod.node.as_ref().map(NodeName::as_str).unwrap_or_default();
        self.binder.tell(
            &pod.pod,
            true,
            "BerthHintMissed",
            &format!("KAI chose {node} instead of {hinted}"),
        );
        let cleared = self
            .patch(&pod, Patch::Merge(objects::rehinted(&pod, None)), None)
            .await;
        if let Err(error) = cleared.filter_gone() {
            debug!(pod = %pod.pod, error = &error as &dyn std::error::Error, "its annotation still speaks of another node");
        }
    }

    /// Binds the pods, all or none of them.
    pub(super) async fn bind(&self, pods: Vec<Candidacy>, seen: Instant) -> BTreeMap<String, Ended> {
        let mut places = Vec::with_capacity(pods.len());
        for (pod, candidates) in &pods {
            let names = names(candidates);
            let placed = timeout_at(
                seen + self.deadline * u32::try_from(pods.len()).unwrap_or(1),
                self.place_to_bind(pod, &names),
            );
            match placed
                .await
                .unwrap_or_else(|_| Err(NotPlaced::new("DecisionLate", "no decision was made in time")))
            {
                Ok(place) => places.push(place),
                Err(not) if not.reason == NO_FIT && self.is_kept(pod, candidates, &not) => {
                    return self.keep_all(pods, &places);
                }
                Err(not) => {
                    self.tell_not_placed(pod, &not);
                    break;
                }
            }
        }
        let is_whole = places.len() == pods.len();
        let mut ended = BTreeMap::new();
        let mut places = places.into_iter();
        for (pod, _) in pods {
            let outcome = match places.next() {
                Some(place) if is_whole => self.bind_there(&pod, place).await,
                place => self.leave_to_kai(&pod, place).await,
            };
            ended.insert(pod.pod.uid.to_string(), outcome);
        }
        ended
    }

    /// Where KAI, which counts GPUs, would put the pod on one that is broken.
    fn looks_free(&self, pod: &KaiPod, nodes: &[Arc<NodeFacts>]) -> Option<NodeName> {
        let offers = nodes.iter().map(|facts| (&facts.name, facts.gpus));
        self.decider.cluster.looks_free(&pod.shape, offers)
    }

    /// Whether KAI could put the pod on a broken GPU where it does not follow the hint, and the hinted node is none of those from
    /// which the pod would be kept. (The others with a broken GPU it loses, too, also where they have room: KAI cannot tell them
    /// apart.)
    fn may_go_astray(&self, pod: &KaiPod, nodes: &[Arc<NodeFacts>], hinted: &NodeName) -> bool {
        let says_broken = |facts: &Arc<NodeFacts>| facts.name == *hinted && facts.says_broken();
        let is_kept_off = self.decider.cluster.has_broken(hinted) || nodes.iter().any(says_broken);
        !is_kept_off && self.looks_free(pod, nodes).is_some()
    }

    /// Whether the pod, which fits nowhere, is kept from KAI.
    fn is_kept(&self, pod: &KaiPod, candidates: &[Arc<NodeFacts>], not: &NotPlaced) -> bool {
        let Some(node) = self.looks_free(pod, candidates) else {
            return false;
        };
        let message = &not.message;
        let text = format!(
            "{BROKEN_ONLY}: {message}; a GPU of {node} that is broken looks free: kept from KAI until one is well"
        );
        self.tell_no_place(pod, &text);
        true
    }

    /// None of them is placed, and none is KAI's: their turn comes again.
    fn keep_all(&self, pods: Vec<Candidacy>, places: &[Place]) -> BTreeMap<String, Ended> {
        for ((pod, _), place) in pods.iter().zip(places) {
            self.give_back(pod, place);
        }
        let uids = pods.into_iter().map(|(pod, _)| pod.pod.uid.to_string());
        uids.map(|uid| (uid, Ended::Again)).collect()
    }

    async fn bind_there(&self, pod: &KaiPod, place: Place) -> Ended {
        let seen = self.pods.get(&pod.pod.uid);
        match self.try_bind(pod, &place).await {
            Ok(()) => {
                if let Some(seen) = seen {
                    self.reserver.bound(&seen, &place.reserved.node);
                }
                Ended::Bound
            }
            // What it holds there must stay: it may be bound.
            Err(not) if not.outcome_unknown => {
                if let Some(seen) = seen {
                    seen.doubt(&place.reserved.node);
                }
                let NotPlaced { reason, message, .. } = not;
                warn!(pod = %pod.pod, reason, message, "not known to be bound: trying on");
                Ended::Again
            }
            // Another scheduler was quicker: the pod is its, with what it carries.
            Err(not) if not.reason == BOUND_ELSEWHERE => {
                info!(pod = %pod.pod, not.message, "bound by another scheduler");
                if let Some(seen) = seen {
                    seen.is_not_on(&place.reserved.node);
                }
                self.give_up(pod, &place.reserved.node);
                Ended::Bound
            }
            Err(not) => {
                self.tell_not_placed(pod, &not);
                self.leave_to_kai(pod, Some(place)).await
            }
        }
    }

    /// With what was reserved for it, unless it turns out to be bound.
    async fn leave_to_kai(&self, pod: &KaiPod, place: Option<Place>) -> Ended {
        let ended = self.hand_over(pod).await;
        if let (Ended::HandedOver, Some(place)) = (&ended, place) {
            self.give_back(pod, &place);
        }
        ended
    }

    /// Where it may be bound already, or KAI's binder is at it, it keeps what it holds.
    fn give_back(&self, pod: &KaiPod, place: &Place) {
        let node = &place.reserved.node;
        let may_be_there = self.pods.get(&pod.pod.uid).is_some_and(|seen| seen.may_be_on(node));
        if !may_be_there {
            self.give_up(pod, node);
        }
    }

    async fn try_bind(&self, pod: &KaiPod, place: &Place) -> Result<(), NotPlaced> {
        let group = match pod.bind.as_deref() {
            Some(group) if !group.is_empty() => group.to_owned(),
            _ => self.group(pod).await?,
        };
        let placement = self.placement(place);
        if state::is_plain(pod) {
            let binding = Binding {
                pod: pod.pod.clone(),
                node: place.reserved.node.clone(),
                why: self.decider.decisions.why(place.decision).unwrap_or_default(),
                placement: Some(placement),
                annotations: [(kai::POD_GROUP.to_owned(), group)].into(),
            };
            let bound = self.binder.bind(&binding).await;
            return bound.map_err(|failed| NotPlaced {
                outcome_unknown: failed.outcome_unknown,
                ..NotPlaced::new(&failed.reason, failed.message)
            });
        }
        let groups = self.gpu_groups(place).await?;
        self.ask_binder(pod, &place.reserved.node, &groups).await?;
        // KAI looks at the pod from here on, and finds it being bound.
        let patch = Patch::Merge(objects::placed(pod, &placement, &group));
        self.patch(pod, patch, None).await.map_err(|error| api(&error))?;
        self.binder.tell(
            &pod.pod,
            true,
            "BerthPlaced",
            &format!("on {}, bound by KAI's binder", place.reserved.node),
        );
        Ok(())
    }

    /// The group of pods that came without one, made where it was not seen for a while: somebody may have deleted it.
    async fn group(&self, pod: &KaiPod) -> Result<String, NotPlaced> {
        let name = objects::group_name(pod);
        let now = Instant::now();
        let stands = |made: &Instant| now.duration_since(*made) < GROUP_STANDS;
        if !self.groups_made.lock().get(&name).is_some_and(stands) {
            let stood = shared_group::ensure(&self.groups(&pod.pod.namespace), pod).await;
            let stood = stood.map_err(|error| api(&error))?;
            if stood == Stood::Changed {
                self.tell_put_right(pod, stood);
            }
            let mut made = self.groups_made.lock();
            made.retain(|_, at| stands(at));
            made.insert(name.clone(), now);
        }
        Ok(name)
    }

    /// Makes the pod's group again what it was.
    pub(super) async fn put_group_right(&self, pod: KaiPod) {
        match shared_group::ensure(&self.groups(&pod.pod.namespace), &pod).await {
            Ok(Stood::AsMade) => {}
            Ok(stood) => self.tell_put_right(&pod, stood),
            Err(error) => warn!(
                group = objects::group_name(&pod),
                error = &error as &dyn std::error::Error,
                "the group of pods that Berth bound is not put right yet: trying on"
            ),
        }
    }

    fn tell_put_right(&self, pod: &KaiPod, stood: Stood) {
        let (namespace, group) = (&pod.pod.namespace, objects::group_name(pod));
        let what = if stood == Stood::Missing { "deleted" } else { "changed" };
        warn!(
            namespace,
            group, what, "the group of pods that Berth bound is put right"
        );
        let message = format!("its PodGroup {group} was {what}: put right, or KAI might evict the pods that are in it");
        self.binder.tell(&pod.pod, false, "BerthGroupPutRight", &message);
        self.reserver.metrics.group_put_right(what);
    }

    /// Asks KAI's binder for the node. A request that is there already will do if it is for this pod and for that node.
    async fn ask_binder(&self, pod: &KaiPod, node: &NodeName, groups: &[String]) -> Result<(), NotPlaced> {
        let request = objects::bind_request(pod, node, groups);
        if self.create(pod, &objects::bind_requests(), request).await? {
            return Ok(());
        }
        // There is one by now, and it may be ours.
        let asked = self.asked_of_binder(pod).await.map_err(|not| NotPlaced {
            outcome_unknown: true,
            ..not
        })?;
        match asked {
            Some(asked) if asked == *node => Ok(()),
            Some(asked) => Err(NotPlaced::new(
                BOUND_ELSEWHERE,
                format!("KAI's binder is at binding it to {asked}"),
            )),
            // Of an older pod of that name, which goes with it, or gone by now.
            None => Err(NotPlaced {
                outcome_unknown: true,
                ..NotPlaced::new("OtherBindRequest", "the BindRequest of this name is of another pod")
            }),
        }
    }

    /// The node to which KAI's binder was asked to bind the pod, by whomever.
    async fn asked_of_binder(&self, pod: &KaiPod) -> Result<Option<NodeName>, NotPlaced> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.0.clone(), &pod.pod.namespace, &objects::bind_requests());
        let found = within(REQUEST, api.get_opt(&pod.pod.name)).await;
        let found = found.map_err(|error| self::api(&error))?;
        Ok(found.and_then(|request| objects::selected_node(&request, pod)))
    }

    /// The group of each planned GPU: the one that shares it already, or a new one.
    async fn gpu_groups(&self, place: &Place) -> Result<Vec<String>, NotPlaced> {
        let holders: Api<Pod> = Api::namespaced(self.client.0.clone(), kai::RESERVATION_NAMESPACE);
        let holders = within(REQUEST, holders.list(&ListParams::default().labels(kai::GPU_GROUP)))
            .await
            .map_err(|error| api(&error))?;
        let known: BTreeMap<&str, &str> = holders
            .iter()
            .filter_map(|pod| {
                let uuid = pod.annotations().get(kai::RESERVED_GPU)?;
                Some((uuid.as_str(), pod.labels().get(kai::GPU_GROUP)?.as_str()))
            })
            .collect();
        let group = |uuid: &str| {
            known
                .get(uuid)
                .map_or_else(|| Uuid::new_v4().to_string(), |group| (*group).to_owned())
        };
        let shares = place
            .reserved
            .plan
            .grants
            .iter()
            .filter(|grant| matches!(grant.size, GrantSize::Share(_)));
        Ok(shares.map(|grant| group(grant.device.as_str())).collect())
    }

    /// As if Berth were not there.
    pub(super) async fn hand_over(&self, pod: &KaiPod) -> Ended {
        let pods: Api<Pod> = Api::namespaced(self.client.0.clone(), &pod.pod.namespace);
        hand_over::hand_over(&pods, pod).await.unwrap_or_else(|error| {
            warn!(pod = %pod.pod, error = &error as &dyn std::error::Error, "not handed over to KAI yet: trying on");
            Ended::Again
        })
    }

    pub(super) fn tell_over_queue(&self, pod: &KaiPod, over: &super::queue::OverQueue) {
        self.tell_not_placed(pod, &NotPlaced::new(over.reason, over.message.clone()));
    }

    /// What a PodGroup that somebody else made asks for; `None`: there is no such group.
    pub(super) async fn gang(&self, namespace: &str, group: &str) -> Option<Gang> {
        let api = self.groups(namespace);
        let found = within(REQUEST, api.get(group)).await.ok()?;
        let spec = &found.data["spec"];
        Some(Gang {
            min_member: spec["minMember"]
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(1),
            is_preemptible: spec["preemptibility"] == "preemptible",
        })
    }

    /// KAI judges pods by their group: what Berth binds it must not evict.
    pub(super) async fn keep(&self, namespace: &str, group: &str) -> Result<(), ApiError> {
        let patch = Patch::Merge(serde_json::json!({"spec": {"preemptibility": "non-preemptible"}}));
        within(
            REQUEST,
            self.groups(namespace).patch(group, &PatchParams::default(), &patch),
        )
        .await
        .map(drop)
    }

    fn groups(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.0.clone(), namespace, &objects::pod_groups())
    }

    /// What KAI's binder is at already is not decided anew: the pod will be there.
    async fn place_to_bind(&self, pod: &KaiPod, candidates: &[NodeName]) -> Result<Place, NotPlaced> {
        let asked = if state::is_plain(pod) {
            None
        } else {
            self.asked_of_binder(pod).await?
        };
        self.place(pod, asked.as_ref().map_or(candidates, std::slice::from_ref))
            .await
    }

    /// On the best node. Where somebody was quicker it is decided anew; a node whose daemon refused is not asked again.
    async fn place(&self, pod: &KaiPod, candidates: &[NodeName]) -> Result<Place, NotPlaced> {
        let mut candidates = candidates.to_vec();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (decision, top) = self.decide(pod, &candidates)?;
            let seen = self.pods.get(&pod.pod.uid).ok_or(BindError::UnknownPod)?;
            let (best, ask) = (top[0].clone(), seen.ask());
            match self.reserver.reserve(seen, vec![best.clone()], ask).await {
                Ok(reserved) => {
                    return Ok(Place {
                        reserved,
                        decision,
                        top,
                    });
                }
                Err(error @ (BindError::NoRoom(_) | BindError::Daemon(_))) if attempts < ATTEMPTS => {
                    debug!(pod = %pod.pod, node = %best, reason = error.reason(), "refused: deciding anew");
                    if matches!(error, BindError::Daemon(_)) {
                        candidates.retain(|node| *node != best);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The decision's number, and the best nodes: at least one.
    fn decide(&self, pod: &KaiPod, candidates: &[NodeName]) -> Result<(Uuid, Vec<NodeName>), NotPlaced> {
        let cluster = &self.decider.cluster;
        let held = self.pods.held(&pod.pod.uid);
        let (count, decision) = cluster.decide(&pod.shape, Some(candidates), held.as_ref(), self.require_top.max(1));
        let best = decision.ranked.first().map(|ranked| (&ranked.node, &ranked.plan));
        let verdict = Verdict {
            candidates: count,
            fitting: decision.fitting,
            ranked: decision.ranked.iter().map(|ranked| ranked.node.to_string()).collect(),
            best,
            refused: decision
                .refused
                .iter()
                .map(|(node, why)| (node.as_str(), why))
                .collect(),
        };
        let id = self.decider.decided(&pod.pod, &pod.shape, verdict);
        let ask = Ask {
            shape: pod.shape.clone(),
            decision: id,
        };
        if self.pods.remember(pod.pod.clone(), ask) {
            cluster.observe(&pod.shape);
        }
        if decision.ranked.is_empty() {
            let why = self.decider.decisions.why(id).unwrap_or_default();
            return Err(NotPlaced::new(NO_FIT, why));
        }
        Ok((id, decision.ranked.into_iter().map(|ranked| ranked.node).collect()))
    }

    fn placement(&self, place: &Place) -> Placement {
        let Reserved {
            node, plan, arbiter, ..
        } = &place.reserved;
        Placement {
            node: node.to_string(),
            devices: plan.grants.iter().map(PlacedDevice::of).collect(),
            policy: self.decider.cluster.policy().as_str().to_owned(),
            decision: place.decision.to_string(),
            verified: *arbiter != Arbiter::Nobody,
        }
    }

    fn give_up(&self, pod: &KaiPod, node: &NodeName) {
        self.decider.cluster.forget(&pod.pod.uid);
        self.reserver
            .release(pod.pod.clone(), node, "Berth does not place the pod there");
    }

    /// Once per reason, not once per attempt.
    fn tell_not_placed(&self, pod: &KaiPod, not: &NotPlaced) {
        let NotPlaced { reason, message, .. } = not;
        self.tell_no_place(pod, &format!("{reason}: {message}; left to KAI"));
    }

    fn tell_no_place(&self, pod: &KaiPod, text: &str) {
        if self.pods.get(&pod.pod.uid).is_none_or(|seen| seen.is_news(text)) {
            info!(pod = %pod.pod, text, "no place");
            self.binder.tell(&pod.pod, false, "BerthNoPlace", text);
        }
    }

    async fn patch(&self, pod: &KaiPod, patch: Patch<Value>, subresource: Option<&str>) -> Result<(), ApiError> {
        let pods: Api<Pod> = Api::namespaced(self.client.0.clone(), &pod.pod.namespace);
        let (name, params) = (&pod.pod.name, PatchParams::default());
        match subresource {
            Some(_) => within(REQUEST, pods.patch_status(name, &params, &patch)).await,
            None => within(REQUEST, pods.patch(name, &params, &patch)).await,
        }
        .map(drop)
    }

    /// False: something of that name is there already, and stays.
    async fn create(&self, pod: &KaiPod, resource: &ApiResource, object: Value) -> Result<bool, NotPlaced> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.0.clone(), &pod.pod.namespace, resource);
        let object: DynamicObject =
            serde_json::from_value(object).map_err(|error| NotPlaced::new("BadObject", error.to_string()))?;
        match within(REQUEST, api.create(&PostParams::default(), &object)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(self::api(&error)),
        }
    }
}

fn api(error: &ApiError) -> NotPlaced {
    NotPlaced {
        outcome_unknown: error.outcome_unknown(),
        ..NotPlaced::new(error.reason(), error.to_string())
    }
}

/// A pod that is gone, or another one by now, needs nothing any more.
trait FilterGone {
    fn filter_gone(self) -> Result<(), ApiError>;
}

impl FilterGone for Result<(), ApiError> {
    fn filter_gone(self) -> Result<(), ApiError> {
        match self {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other,
        }
    }
}
