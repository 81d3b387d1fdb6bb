//! The cluster as this scheduler knows it: what each daemon reported last, what was reserved since, and the engine on top.
//!
//! Owns which state counts (reports, reachability, assumptions). Knows no gRPC and no HTTP; every method is short and
//! holds one lock.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth_placement::{
    Candidates, CpuMilli, Decision, Engine, EngineConfig, Health, MemoryBytes, NodeName, NodeState, Plan, PodUid,
    PolicyName, Ranked, Reason, RebuildJob, Refusal, Shape, Tables,
};
use berth_runtime::{SharedClock, dial::Target};
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;

mod broken;
mod preempt;
mod rank;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use rank::Ranking;
pub(crate) use view::Summary;

use crate::{
    convert::{Granted, NodeReport},
    pods::{Held, Known},
};

/// An assumption that no report confirms is dropped after this: a daemon reports within milliseconds.
const ASSUMED_FOR: Duration = Duration::from_secs(30);

/// A node's place here, for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MemberId(pub(crate) usize);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Cluster {
    clock: SharedClock,
    /// A daemon that cannot be reached for this long takes no more pods.
    grace: Duration,
    policy: PolicyName,
    /// What there is was told. Until then a node that is not known may well be there.
    known: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    members: Vec<Member>,
    by_name: HashMap<NodeName, MemberId>,
    assumed: HashMap<PodUid, Assumption>,
}

#[derive(Debug)]
struct Member {
    origin: Origin,
    contact: Contact,
    report: Option<Arc<NodeReport>>,
    reported_at: Duration,
}

/// How it stands with a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Contact {
    /// Not one attempt has ended yet.
    Starting,
    Up,
    Down {
        since: Duration,
        problem: Problem,
    },
}

/// Why a daemon's word is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Devices that this scheduler reserves, or has reserved, and that no report has yet.
#[derive(Debug, Clone)]
struct Assumption {
    node: NodeName,
    shape: Shape,
    plan: Plan,
    /// The first state of the node that has it; `None` as long as the daemon has not answered.
    reported_from: Option<u64>,
    until: Duration,
}

/// What bind may ask the daemon for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assumed {
    pub(crate) member: MemberId,
    pub(crate) plan: Plan,
    pub(crate) arbiter: Arbiter,
}

/// Who has the last word on a node's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arbiter {
    Daemon,
    /// No daemon is there: the pods that are bound are all there is to know.
    Nobody,
    /// The node is invented, and its book is here.
    Here,
}

/// What a node here stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A machine; `None`: no daemon vouches for it, or none that can be reached.
    Machine(Option<Target>),
    Invented,
}

/// A report that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{other} already reports a node called {name}: give each daemon a --node-name of its own")]
pub(crate) struct NameTaken {
    name: NodeName,
    /// The other daemon.
    other: String,
}

impl Cluster {
    pub(crate) fn new(engine: EngineConfig, grace: Duration, clock: SharedClock) -> Self {
        Self {
            clock,
            grace,
            policy: engine.policy,
            known: AtomicBool::new(true),
            inner: Mutex::new(Inner {
                engine: Engine::new(engine),
                members: Vec::new(),
                by_name: HashMap::new(),
                assumed: HashMap::new(),
            }),
        }
    }

    /// Whether every node that is there was told. A cluster of which nobody says otherwise is known.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub(crate) fn set_known(&self, known: bool) {
        self.known.store(known, Ordering::Release);
    }

    pub(crate) fn policy(&self) -> PolicyName {
        self.policy
    }

    /// A place for one more node, of which nothing is known yet.
    pub(crate) fn join(&self, origin: Origin) -> MemberId {
        let mut inner = self.inner.lock();
        inner.members.push(Member {
            origin,
            contact: Contact::Starting,
            report: None,
            reported_at: Duration::ZERO,
        });
        MemberId(inner.members.len() - 1)
    }

    /// The node's daemon is reached there from now on, or there is none.
    pub(crate) fn moved(&self, id: MemberId, target: Option<Target>) {
        if let Some(member) = self.inner.lock().members.get_mut(id.0) {
            member.origin = Origin::Machine(target);
        }
    }

    /// The node is no longer part of the cluster. Its place is kept for its return.
    pub(crate) fn leave(&self, id: MemberId) {
        let mut inner = self.inner.lock();
        let name = inner.members.get_mut(id.0).and_then(|member| {
            member.contact = Contact::Starting;
            member.report.take().map(|report| report.state.name.clone())
        });
        if let Some(name) = name {
            inner.by_name.remove(&name);
            inner.engine.remove_node(&name);
        }
    }

    /// Daemons that cannot be reached.
    pub(crate) fn down(&self) -> Vec<MemberId> {
        let inner = self.inner.lock();
        let is_down =
            |(at, member): (usize, &Member)| matches!(member.contact, Contact::Down { .. }).then_some(MemberId(at));
        inner.members.iter().enumerate().filter_map(is_down).collect()
    }

    /// The daemon answers again, and what it told last still stands.
    pub(crate) fn found(&self, id: MemberId) {
        let mut inner = self.inner.lock();
        if let Some(member) = inner.members.get_mut(id.0) {
            member.contact = Contact::Up;
        }
        self.refresh(&mut inner, id);
    }

    /// Takes what a daemon tells of its node. An older state of the same daemon changes nothing but the contact.
    pub(crate) fn report(&self, id: MemberId, report: NodeReport) -> Result<(), NameTaken> {
        self.take(id, report, true)
    }

    /// The same by way of others, who may tell it again without having heard of the daemon: one that could not be reached has to
    /// answer itself before its node takes pods again.
    pub(crate) fn hearsay(&self, id: MemberId, report: NodeReport) -> Result<(), NameTaken> {
        self.take(id, report, false)
    }

    fn take(&self, id: MemberId, report: NodeReport, is_own_word: bool) -> Result<(), NameTaken> {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        let name = report.state.name.clone();
        inner.claim_name(id, &name)?;
        let Some(member) = inner.members.get_mut(id.0) else {
            return Ok(());
        };
        if is_own_word || member.contact == Contact::Starting {
            member.contact = Contact::Up;
        }
        member.reported_at = now;
        let before = member.report.as_deref();
        let restarted = before.is_some_and(|before| before.instance != report.instance);
        let is_old = before.is_some_and(|before| !restarted && before.state.generation > report.state.generation);
        if !is_old {
            let generation = report.state.generation;
            let report = Arc::new(report);
            member.report = Some(Arc::clone(&report));
            // A daemon that started anew has everything it ever granted in its first state. Without a daemon the pods that
            // are bound are all there is to know.
            let is_confirmed = |uid: &PodUid, it: &Assumption| match it.reported_from {
                _ if !report.state.verified => report.bound.contains_key(uid),
                Some(from) => from <= generation || restarted,
                None => false,
            };
            inner
                .assumed
                .retain(|uid, it| it.node != name || !is_confirmed(uid, it));
        }
        self.refresh(&mut inner, id);
        Ok(())
    }

    /// The daemon cannot be reached. After the grace its node takes no more pods.
    pub(crate) fn lost(&self, id: MemberId, problem: Problem) {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        if let Some(member) = inner.members.get_mut(id.0) {
            let since = match member.contact {
                Contact::Down { since, .. } => since,
                Contact::Starting | Contact::Up => now,
            };
            member.contact = Contact::Down { since, problem };
        }
        self.refresh(&mut inner, id);
    }

    /// What only time changes: graces that end, assumptions that nobody confirmed.
    pub(crate) fn sweep(&self) {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        let mut changed: Vec<_> = inner
            .assumed
            .extract_if(|_, it| it.until <= now)
            .map(|(_, it)| it.node)
            .collect();
        for member in &inner.members {
            let Some(report) = &member.report else { continue };
            let shown = inner.engine.node(&report.state.name).is_some_and(|node| node.reachable);
            if shown != self.is_usable(member, report, now) {
                changed.push(report.state.name.clone());
            }
        }
        for id in changed
            .iter()
            .filter_map(|name| inner.by_name.get(name).copied())
            .collect::<Vec<_>>()
        {
            self.refresh(&mut inner, id);
        }
    }

    /// Which of the named nodes take the shape, best first, and why not the others. A node on which the pod `held`s a grant
    /// that is still good comes first, whatever is free there.
    pub(crate) fn rank(&self, shape: &Shape, names: &[&str], pod: &Known) -> Ranking {
        self.rank_top(shape, names, pod, usize::MAX)
    }

    /// As [`Self::rank`], but only the first `top` are in order.
    pub(crate) fn rank_top(&self, shape: &Shape, names: &[&str], pod: &Known, top: usize) -> Ranking {
        let mut inner = self.inner.lock();
        let held = pod.held.as_ref();
        let held = held.filter(|held| held.shape == *shape && inner.still_good(held));
        inner.rank(shape, names, (held, &pod.refused_by), top)
    }

    /// The best `top` nodes for the shape with devices, and why not the others: of all nodes, or of the named ones. As
    /// [`Self::rank`], for those who ask once and want to know everything.
    pub(crate) fn decide(
        &self,
        shape: &Shape,
        names: Option<&[NodeName]>,
        held: Option<&Held>,
        top: usize,
    ) -> (usize, Decision) {
        let mut inner = self.inner.lock();
        let candidates = names.map_or(Candidates::All, Candidates::Names);
        let count = names.map_or_else(|| inner.engine.nodes().count(), <[_]>::len);
        let mut decision = inner.engine.decide(shape, candidates, top);
        if names.is_none() {
            decision.refused = inner.engine.refusals(shape, candidates);
        }
        let held = held.filter(|held| held.shape == *shape && inner.still_good(held));
        if let Some(held) = held.filter(|held| names.is_none_or(|names| names.contains(&held.node))) {
            let listed = decision.refused.len();
            decision.refused.retain(|(name, _)| *name != held.node);
            decision.fitting += listed - decision.refused.len();
            decision.ranked.retain(|ranked| ranked.node != held.node);
            let score = decision.ranked.first().map_or(0.0, |ranked| ranked.score);
            let (node, plan) = (held.node.clone(), held.plan.clone());
            decision.ranked.insert(0, Ranked { node, score, plan });
            decision.ranked.truncate(top);
        }
        (count, decision)
    }

    /// The engine as it is now, to work on without holding anybody up.
    pub(crate) fn snapshot(&self) -> Engine {
        self.inner.lock().engine.clone()
    }

    /// A pod asks for a place for the first time: policies learn from it what is asked for.
    pub(crate) fn observe(&self, shape: &Shape) {
        self.inner.lock().engine.observe(shape);
    }

    /// The policy's tables are out of date: run the job off the path of decisions, and [`Self::install`] what it makes.
    pub(crate) fn pending_rebuild(&self) -> Option<RebuildJob> {
        self.inner.lock().engine.pending_rebuild()
    }

    pub(crate) fn install(&self, tables: Tables) {
        self.inner.lock().engine.install(tables);
    }

    /// Plans the shape on this node and keeps the devices from everybody else, until [`Self::settle`], [`Self::forget`] or
    /// a report that has them.
    pub(crate) fn assume(&self, uid: &PodUid, node: &NodeName, shape: &Shape) -> Result<Assumed, Refusal> {
        let until = self.clock.monotonic() + ASSUMED_FOR;
        let mut inner = self.inner.lock();
        let member = inner.by_name.get(node).copied();
        let member =
            member.ok_or_else(|| Refusal::new(Reason::UnknownNode, "no daemon reports a node of that name"))?;
        let mut decision = inner
            .engine
            .decide(shape, Candidates::Names(std::slice::from_ref(node)), 1);
        let Some(best) = decision.ranked.pop() else {
            let refusal = decision.refused.pop().map(|(_, refusal)| refusal);
            return Err(refusal.unwrap_or_else(|| Refusal::new(Reason::UnknownNode, "the node is gone")));
        };
        let taken = inner.engine.take(node, shape, &best.plan);
        debug_assert!(taken, "BUG: the engine planned devices that are not free");
        let assumption = Assumption {
            node: node.clone(),
            shape: shape.clone(),
            plan: best.plan.clone(),
            reported_from: None,
            until,
        };
        inner.assumed.insert(uid.clone(), assumption);
        Ok(Assumed {
            member,
            plan: best.plan,
            arbiter: inner.arbiter(member),
        })
    }

    /// The daemon granted: from now on its devices are assumed, until a report of this generation has them.
    pub(crate) fn settle(&self, uid: &PodUid, granted: &Granted) {
        let mut inner = self.inner.lock();
        let Some(assumption) = inner.assumed.get_mut(uid) else {
            return;
        };
        assumption.plan = granted.plan.clone();
        assumption.reported_from = Some(granted.generation);
        let Some(id) = inner
            .assumed
            .get(uid)
            .and_then(|it| inner.by_name.get(&it.node).copied())
        else {
            return;
        };
        let report = inner.members.get(id.0).and_then(|member| member.report.as_deref());
        if report.is_some_and(|report| report.state.generation >= granted.generation) {
            inner.assumed.remove(uid);
        }
        self.refresh(&mut inner, id);
    }

    /// What was assumed on an invented node is so.
    pub(crate) fn commit(&self, uid: &PodUid) {
        let mut inner = self.inner.lock();
        let Some(it) = inner.assumed.remove(uid) else { return };
        let Some(id) = inner.by_name.get(&it.node).copied() else {
            return;
        };
        if let Some(report) = inner.members.get_mut(id.0).and_then(|member| member.report.as_mut()) {
            let state = &mut Arc::make_mut(report).state;
            let taken = state.take(&it.plan);
            debug_assert!(taken, "BUG: what was assumed was not free");
            state.cpu_free = state
                .cpu_free
                .map(|free| CpuMilli(free.0.saturating_sub(it.shape.cpu.0)));
            state.memory_free = state.memory_free.map(|free| free.saturating_sub(it.shape.memory));
        }
        self.refresh(&mut inner, id);
    }

    /// The reservation failed or was released.
    pub(crate) fn forget(&self, uid: &PodUid) {
        let mut inner = self.inner.lock();
        let node = inner.assumed.remove(uid).map(|it| it.node);
        if let Some(id) = node.and_then(|node| inner.by_name.get(&node).copied()) {
            self.refresh(&mut inner, id);
        }
    }

    pub(crate) fn member_of(&self, node: &NodeName) -> Option<MemberId> {
        self.inner.lock().by_name.get(node).copied()
    }

    /// How many pods are on each node, or about to be.
    pub(crate) fn pods_on_nodes(&self) -> HashMap<NodeName, usize> {
        let inner = self.inner.lock();
        let reports = inner.members.iter().filter_map(|member| member.report.as_deref());
        let mut pods: HashMap<NodeName, usize> =
            reports.map(|report| (report.state.name.clone(), report.pods)).collect();
        for (uid, it) in &inner.assumed {
            let member = inner.by_name.get(&it.node).and_then(|id| inner.members.get(id.0));
            let report = member.and_then(|member| member.report.as_deref());
            if report.is_some_and(|report| !report.bound.contains_key(uid)) {
                *pods.entry(it.node.clone()).or_default() += 1;
            }
        }
        pods
    }

    /// The node's place, and who has the last word there.
    pub(crate) fn arbiter_of(&self, node: &NodeName) -> Option<(MemberId, Arbiter)> {
        let inner = self.inner.lock();
        let id = inner.by_name.get(node).copied()?;
        Some((id, inner.arbiter(id)))
    }

    /// Gives the engine the node as it is by all that is known.
    fn refresh(&self, inner: &mut Inner, id: MemberId) {
        let now = self.clock.monotonic();
        let Some(member) = inner.members.get(id.0) else {
            return;
        };
        let Some(report) = &member.report else { return };
        let mut state = report.state.clone();
        state.reachable = self.is_usable(member, report, now);
        let name = state.name.clone();
        inner.engine.upsert_node(state);
        for (uid, it) in inner.assumed.iter().filter(|(_, it)| it.node == name) {
            // CPU and memory of a pod that is bound are in the report already.
            let shape = if report.bound.contains_key(uid) {
                &Shape {
                    cpu: CpuMilli(0),
                    memory: MemoryBytes::ZERO,
                    ..it.shape.clone()
                }
            } else {
                &it.shape
            };
            // Not free means that the report has it already, though its reservation is not answered yet.
            let _ = inner.engine.take(&name, shape, &it.plan);
        }
    }

    fn is_usable(&self, member: &Member, report: &NodeReport, now: Duration) -> bool {
        let in_contact = match &member.contact {
            Contact::Up | Contact::Starting => true,
            Contact::Down { since, .. } => now.saturating_sub(*since) < self.grace,
        };
        in_contact && report.reconciled
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(Some(target)) => target.fmt(f),
            Self::Machine(None) => f.write_str("a machine without a daemon"),
            Self::Invented => f.write_str("the simulation"),
        }
    }
}

impl Inner {
    /// The node's name belongs to this daemon from now on, unless another one is in contact under it.
    fn claim_name(&mut self, id: MemberId, name: &NodeName) -> Result<(), NameTaken> {
        let owner = self.by_name.get(name).copied().filter(|owner| *owner != id);
        if let Some(owner) = owner.and_then(|owner| self.members.get_mut(owner.0)) {
            if owner.contact == Contact::Up {
                return Err(NameTaken {
                    name: name.clone(),
                    other: owner.origin.to_string(),
                });
            }
            owner.report = None;
        }
        let old = self.members.get_mut(id.0).and_then(|member| {
            let old = member.report.as_ref()?.state.name.clone();
            (old != *name).then(|| member.report = None)?;
            Some(old)
        });
        if let Some(old) = old {
            self.by_name.remove(&old);
            self.engine.remove_node(&old);
        }
        self.by_name.insert(name.clone(), id);
        Ok(())
    }

    fn arbiter(&self, id: MemberId) -> Arbiter {
        match self.members.get(id.0) {
            Some(member) if member.origin == Origin::Invented => Arbiter::Here,
            Some(member) if member.report.as_ref().is_some_and(|report| !report.state.verified) => Arbiter::Nobody,
            _ => Arbiter::Daemon,
        }
    }

    /// The pod can run on what it holds: the node is there and no device of it fell ill.
    fn still_good(&self, held: &Held) -> bool {
        let node: Option<&NodeState> = self.engine.node(&held.node).filter(|node| node.reachable);
        node.is_some_and(|node| {
            held.plan.grants.iter().all(|grant| {
                let device = node.device(&grant.device);
                device.is_some_and(|device| matches!(device.health, Health::Healthy | Health::Suspect))
            })
        })
    }
}
