//! Bind: from a pod and a node to a grant by the node's daemon, and a binding.
//!
//! Every step can fail, be late, or be repeated; the pod's lock makes them one after another. What this scheduler knows
//! that the pod holds is in [`SeenPod`]; what it only fears (an answer that got lost) is released before the next attempt.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use berth_kube_api::placement::{PlacedDevice, Placement};
use berth_placement::{GpuShape, NodeName, ParseIdError, Plan, PodRef, PodUid, Reason, Refusal};
use berth_runtime::{SharedClock, Tasks};
use thiserror::Error;
use tokio::{
    sync::{OwnedMutexGuard, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info, warn};

use crate::{
    binder::{BOUND_ELSEWHERE, BindFailed, Binder, Binding},
    cluster::{Arbiter, Assumed, Cluster, MemberId},
    convert::CallError,
    daemons::Daemons,
    decisions::{Decisions, Outcome, device_names},
    metrics::Metrics,
    pods::{Ask, Held, Pods, SeenPod},
};

/// For one Reserve or Release. A daemon answers within milliseconds.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// For the binder.
const BIND_DEADLINE: Duration = Duration::from_secs(2);

/// Reserves and binds.
#[derive(Debug, Clone)]
pub(crate) struct Reserver {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) daemons: Daemons,
    pub(crate) pods: Arc<Pods>,
    pub(crate) decisions: Arc<Decisions>,
    pub(crate) metrics: Metrics,
    pub(crate) binder: Arc<dyn Binder>,
    pub(crate) clock: SharedClock,
    pub(crate) tasks: Tasks,
    /// Cancelled when no new work is taken.
    pub(crate) refuse: CancellationToken,
    /// For a whole bind. Shorter than kube-scheduler's own, so that it hears why.
    pub(crate) deadline: Duration,
}

/// What bind asks for, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindRequest {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
}

/// What a pod holds from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) node: NodeName,
    pub(crate) plan: Plan,
    /// It held it already.
    pub(crate) existing: bool,
    /// 0: it does not lapse by itself.
    pub(crate) deadline_unix_ms: u64,
    pub(crate) arbiter: Arbiter,
}

/// It holds nothing, or, on the daemon of `fear`, nobody knows.
#[derive(Debug)]
struct Failed {
    error: BindError,
    fear: Option<MemberId>,
}

/// The pod was not bound.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum BindError {
    #[error(transparent)]
    Id(#[from] ParseIdError),
    #[error(
        "no filter request was seen for this pod lately, so nobody knows what it asks for: configure filterVerb, prioritizeVerb \
         and bindVerb on the same extender"
    )]
    UnknownPod,
    #[error("filter saw this UID as {seen}")]
    OtherPod { seen: String },
    #[error("another bind of this pod has not ended after {0:?}")]
    InProgress(Duration),
    #[error("{message}", message = .0.message)]
    NoRoom(Refusal),
    #[error("{0}")]
    Daemon(CallError),
    #[error(transparent)]
    Binder(#[from] BindFailed),
    #[error("the binding was not posted within {0:?}")]
    BinderLate(Duration),
    #[error("not done after {0:?}; it goes on, and the next attempt finds what came of it")]
    Late(Duration),
    #[error("the scheduler is shutting down")]
    Draining,
    #[error("the bind ended without an answer; see the scheduler's log")]
    Lost,
}

impl BindError {
    /// Whether the pod may be bound all the same.
    fn outcome_unknown(&self) -> bool {
        match self {
            Self::Binder(failed) => failed.outcome_unknown,
            Self::BinderLate(_) => true,
            _ => false,
        }
    }

    fn is_bound_elsewhere(&self) -> bool {
        matches!(self, Self::Binder(failed) if failed.reason == BOUND_ELSEWHERE)
    }

    /// Stable CamelCase name; the daemon's own where it refused.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Id(_) => "InvalidName",
            Self::UnknownPod => "UnknownPod",
            Self::OtherPod { .. } => "OtherPod",
            Self::InProgress(_) => "BindInProgress",
            Self::NoRoom(refusal) => refusal.reason.as_str(),
            Self::Daemon(error) => &error.reason,
            Self::Binder(failed) => &failed.reason,
            Self::BinderLate(_) => "BinderTimeout",
            Self::Late(_) => "BindTimeout",
            Self::Draining => "Draining",
            Self::Lost => "BindLost",
        }
    }
}

impl From<BindError> for Failed {
    fn from(error: BindError) -> Self {
        Self { error, fear: None }
    }
}

impl Reserver {
    /// Binds the pod to the node. Goes on where the asker hangs up: half a bind helps nobody.
    pub(crate) async fn bind(&self, request: BindRequest) -> Result<(), BindError> {
        let (seen, node) = self.understand(&request)?;
        let ask = seen.ask();
        let result = self.bind_seen(seen, node, ask.clone()).await;
        if let Err(error) = &result {
            self.refused(&ask, &request.node, error);
        }
        result
    }

    fn understand(&self, request: &BindRequest) -> Result<(Arc<SeenPod>, NodeName), BindError> {
        if self.refuse.is_cancelled() {
            return Err(BindError::Draining);
        }
        let uid: PodUid = request.uid.parse()?;
        let node: NodeName = request.node.parse()?;
        let seen = self.pods.get(&uid).ok_or(BindError::UnknownPod)?;
        if (seen.pod.namespace.as_str(), seen.pod.name.as_str()) != (request.namespace.as_str(), request.name.as_str())
        {
            return Err(BindError::OtherPod {
                seen: seen.pod.to_string(),
            });
        }
        Ok((seen, node))
    }

    async fn bind_seen(&self, seen: Arc<SeenPod>, node: NodeName, ask: Ask) -> Result<(), BindError> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        let work = async move {
            let lock = timeout(this.deadline, Arc::clone(&seen.binding).lock_owned()).await;
            let Ok(lock) = lock else {
                drop(answer.send(Err(BindError::InProgress(this.deadline))));
                return;
            };
            let (result, to_release) = this.bind_locked(&seen, &node, &ask).await;
            // An error means that nobody waits any more.
            drop(answer.send(result));
            if let Some(member) = to_release {
                this.undo(&seen, member, lock).await;
            }
        };
        drop(self.tasks.spawn("bind", work.instrument(Span::current())));
        match timeout(self.deadline, answered).await {
            Ok(answer) => answer.unwrap_or(Err(BindError::Lost)),
            Err(_) => Err(BindError::Late(self.deadline)),
        }
    }

    /// The answer, and the daemon on which the pod may now hold what it must not.
    async fn bind_locked(
        &self,
        seen: &SeenPod,
        node: &NodeName,
        ask: &Ask,
    ) -> (Result<(), BindError>, Option<MemberId>) {
        // A request that comes late or again must not touch what the pod has.
        if let Some(there) = seen.bound() {
            let is_there = there == *node;
            let elsewhere = || BindFailed::elsewhere(there.as_str()).into();
            return (is_there.then_some(()).ok_or_else(elsewhere), None);
        }
        if ask.shape.gpu == GpuShape::None {
            return (self.post(seen, node, None).await, None);
        }
        let (reserved, member) = match self.reserve_locked(seen, node, ask).await {
            Ok(reserved) => reserved,
            Err(Failed { error, fear }) => return (Err(error), fear),
        };
        let verified = reserved.arbiter != Arbiter::Nobody;
        if let Err(error) = self.post(seen, node, Some((ask, &reserved.plan, verified))).await {
            // The pod may be bound: what it holds there must stay. The next attempt finds out.
            if error.outcome_unknown() {
                seen.doubt(node);
            }
            if error.is_bound_elsewhere() {
                seen.is_not_on(node);
            }
            if seen.may_be_on(node) {
                return (Err(error), None);
            }
            if reserved.arbiter == Arbiter::Daemon {
                return (Err(error), Some(member));
            }
            seen.set_held(None);
            self.cluster.forget(&seen.pod.uid);
            return (Err(error), None);
        }
        self.reserved(seen, ask, &reserved);
        self.bound(seen, node);
        (Ok(()), None)
    }

    /// The pod is there: what it might have needed elsewhere goes back.
    pub(crate) fn bound(&self, seen: &SeenPod, node: &NodeName) {
        if self.binder.is_for_good() {
            seen.stays_on(node);
        }
        for other in seen.bound_to(node) {
            self.release(seen.pod.clone(), &other, "bound to another node");
        }
    }

    /// Gets the devices on that node. Where no daemon has a say the snapshot decides: of two schedulers that race there the
    /// API server takes both, and what comes of it shows when both pods are seen.
    async fn reserve_locked(&self, seen: &SeenPod, node: &NodeName, ask: &Ask) -> Result<(Reserved, MemberId), Failed> {
        let uid = &seen.pod.uid;
        let held = seen.held();
        let same = held
            .as_ref()
            .filter(|held| held.node == *node && held.shape == ask.shape);
        let is_known = same.is_some();
        let Assumed { member, plan, arbiter } = if let Some((assumed, held)) = self.cluster.arbiter_of(node).zip(same) {
            let (member, arbiter) = assumed;
            let plan = held.plan.clone();
            Assumed { member, plan, arbiter }
        } else {
            self.leave(seen, held.as_ref()).await;
            self.cluster.assume(uid, node, &ask.shape).map_err(BindError::NoRoom)?
        };
        let mut reserved = Reserved {
            node: node.clone(),
            plan,
            existing: is_known,
            deadline_unix_ms: 0,
            arbiter,
        };
        if arbiter == Arbiter::Daemon {
            let wanted = (&seen.pod, &ask.shape, &reserved.plan);
            match self.daemons.reserve(member, wanted, ask.decision, CALL_DEADLINE).await {
                Ok(granted) => {
                    self.cluster.settle(uid, &granted);
                    reserved.plan = granted.plan;
                    reserved.existing = granted.existing;
                    reserved.deadline_unix_ms = granted.deadline_unix_ms;
                }
                Err(error) => {
                    // No verdict on the pod: the node is of no use to others either, until it is heard of again.
                    if matches!(error.reason.as_str(), "DaemonUnavailable" | "DaemonTimeout") {
                        self.cluster.lost(member, error.clone().into());
                    }
                    seen.was_refused(node, self.clock.monotonic());
                    seen.set_held(None);
                    let fear = error.outcome_unknown.then_some(member);
                    if fear.is_none() {
                        self.cluster.forget(uid);
                    }
                    let error = BindError::Daemon(error);
                    return Err(Failed { error, fear });
                }
            }
        }
        seen.set_held(Some(Held {
            node: node.clone(),
            shape: ask.shape.clone(),
            plan: reserved.plan.clone(),
        }));
        Ok((reserved, member))
    }

    /// On the trail, and for good.
    fn reserved(&self, seen: &SeenPod, ask: &Ask, reserved: &Reserved) {
        if reserved.arbiter == Arbiter::Here {
            self.cluster.commit(&seen.pod.uid);
        }
        let devices = device_names(&reserved.plan);
        let (pod, node, decision) = (&seen.pod, &reserved.node, ask.decision);
        let Reserved { existing, arbiter, .. } = reserved;
        info!(%pod, %node, ?devices, %decision, existing, ?arbiter, "reserved");
        let outcome = Outcome::Reserved {
            at_unix_ms: self.clock.now_unix_ms(),
            node: node.clone(),
            devices,
            existing: *existing,
            deadline_unix_ms: reserved.deadline_unix_ms,
        };
        self.conclude(ask, outcome);
    }

    /// Reserves on the first of the nodes that grants it, and binds nothing: that is for who asked. Goes on where the asker
    /// hangs up.
    pub(crate) async fn reserve(
        &self,
        seen: Arc<SeenPod>,
        nodes: Vec<NodeName>,
        ask: Ask,
    ) -> Result<Reserved, BindError> {
        if self.refuse.is_cancelled() {
            return Err(BindError::Draining);
        }
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        let work = async move {
            let lock = timeout(this.deadline, Arc::clone(&seen.binding).lock_owned()).await;
            let Ok(lock) = lock else {
                drop(answer.send(Err(BindError::InProgress(this.deadline))));
                return;
            };
            let mut failed = Failed::from(BindError::NoRoom(Refusal::new(
                Reason::UnknownNode,
                "no node was named",
            )));
            for node in nodes {
                match this.reserve_locked(&seen, &node, &ask).await {
                    Ok((reserved, _)) => {
                        this.reserved(&seen, &ask, &reserved);
                        drop(answer.send(Ok(reserved)));
                        return;
                    }
                    Err(error) => {
                        this.refused(&ask, node.as_str(), &error.error);
                        failed = error;
                        // What may be held there must be given back before anything else is tried.
                        if failed.fear.is_some() {
                            break;
                        }
                    }
                }
            }
            drop(answer.send(Err(failed.error)));
            if let Some(member) = failed.fear {
                this.undo(&seen, member, lock).await;
            }
        };
        drop(self.tasks.spawn("reserve", work.instrument(Span::current())));
        match timeout(self.deadline, answered).await {
            Ok(answer) => answer.unwrap_or(Err(BindError::Lost)),
            Err(_) => Err(BindError::Late(self.deadline)),
        }
    }

    fn refused(&self, ask: &Ask, node: &str, error: &BindError) {
        self.metrics.bind_refused(error.reason());
        let outcome = Outcome::Refused {
            at_unix_ms: self.clock.now_unix_ms(),
            node: node.to_owned(),
            reason: error.reason().to_owned(),
            message: error.to_string(),
        };
        self.conclude(ask, outcome);
    }

    /// `placed`: the decision, its devices, and whether somebody vouches for them.
    async fn post(
        &self,
        seen: &SeenPod,
        node: &NodeName,
        placed: Option<(&Ask, &Plan, bool)>,
    ) -> Result<(), BindError> {
        let placement = placed.map(|(ask, plan, verified)| Placement {
            node: node.to_string(),
            devices: plan.grants.iter().map(PlacedDevice::of).collect(),
            policy: self.cluster.policy().as_str().to_owned(),
            decision: ask.decision.to_string(),
            verified,
        });
        let why = placed.and_then(|(ask, ..)| self.decisions.why(ask.decision));
        let binding = Binding {
            pod: seen.pod.clone(),
            node: node.clone(),
            placement,
            why: why.unwrap_or_default(),
            annotations: BTreeMap::new(),
        };
        let bound = timeout(BIND_DEADLINE, self.binder.bind(&binding)).await;
        bound
            .map_err(|_| BindError::BinderLate(BIND_DEADLINE))?
            .map_err(BindError::from)
    }

    /// Gives up what the pod holds elsewhere, or in another shape. Where that daemon cannot be reached its reservation
    /// lapses by itself: the pod does not run there. Where the pod may be bound it stays.
    async fn leave(&self, seen: &SeenPod, held: Option<&Held>) {
        let Some(held) = held else { return };
        self.cluster.forget(&seen.pod.uid);
        seen.set_held(None);
        if seen.may_be_on(&held.node) {
            return;
        }
        let Some(member) = self.cluster.member_of(&held.node) else {
            return;
        };
        if let Err(error) = self.daemons.release(member, &seen.pod, CALL_DEADLINE).await {
            let (pod, node) = (&seen.pod, &held.node);
            warn!(%pod, %node, reason = error.reason, "the pod moves on; its old reservation is left to lapse");
        }
    }

    /// After a failure. The lock is held until it is over, so that it cannot undo the next attempt.
    async fn undo(&self, seen: &SeenPod, member: MemberId, lock: OwnedMutexGuard<()>) {
        let released = self.daemons.release(member, &seen.pod, CALL_DEADLINE).await;
        seen.set_held(None);
        self.cluster.forget(&seen.pod.uid);
        match released {
            Ok(released) => info!(pod = %seen.pod, released, "released after a failed bind"),
            Err(error) => warn!(pod = %seen.pod, reason = error.reason, "not released; it lapses at its deadline"),
        }
        drop(lock);
    }

    /// Nothing is to be held for the pod there any more, by whichever scheduler. The kubelet says so too of pods that are
    /// gone, but not where there is none, and not before its next turn.
    pub(crate) fn release(&self, pod: PodRef, node: &NodeName, why: &'static str) {
        if let Some(seen) = self.pods.get(&pod.uid)
            && seen.held().is_some_and(|held| held.node == *node)
        {
            seen.set_held(None);
        }
        let Some((member, Arbiter::Daemon)) = self.cluster.arbiter_of(node) else {
            return;
        };
        let this = self.clone();
        let node = node.clone();
        let work = async move {
            match this.daemons.release(member, &pod, CALL_DEADLINE).await {
                Ok(true) => info!(%pod, %node, why, "released"),
                Ok(false) => {}
                Err(error) => warn!(%pod, %node, why, reason = error.reason, "not released: left to the node"),
            }
        };
        drop(self.tasks.spawn("release", work));
    }

    fn conclude(&self, ask: &Ask, outcome: Outcome) {
        self.metrics.decided(self.cluster.policy().as_str(), outcome.label());
        self.decisions
            .update(ask.decision, |decision| decision.outcome = outcome);
    }
}
