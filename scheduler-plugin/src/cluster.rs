//! The cluster as this scheduler knows it: what each daemon reported last, what was reserved since, and the engine on top.
//!
//! Owns which state counts (reports, reachability, assumptions). Knows no gRPC and no HTTP; every method is short and
//! holds one lock.

use std::{collections::HashMap, sync::Arc, time::Duration};

use berth_placement::{
    Candidates, Engine, EngineConfig, Health, NodeName, NodeState, Plan, PodUid, PolicyName, Reason, RebuildJob,
    Refusal, Shape, Tables,
};
use berth_runtime::{SharedClock, dial::Target};
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;

mod rank;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use rank::Ranking;

use crate::{
    convert::{Granted, NodeReport},
    pods::Held,
};

/// An assumption that no report confirms is dropped after this: a daemon reports within milliseconds.
const ASSUMED_FOR: Duration = Duration::from_secs(30);

/// A configured daemon: its place in `--nodes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MemberId(pub(crate) usize);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Cluster {
    clock: SharedClock,
    /// A daemon that cannot be reached for this long takes no more pods.
    grace: Duration,
    policy: PolicyName,
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
    target: Target,
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
}

/// A report that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{target} already reports a node called {name}: give each daemon a --node-name of its own")]
pub(crate) struct NameTaken {
    name: NodeName,
    target: Target,
}

impl Cluster {
    pub(crate) fn new(
        engine: EngineConfig,
        targets: impl IntoIterator<Item = Target>,
        grace: Duration,
        clock: SharedClock,
    ) -> Self {
        let member = |target| Member {
            target,
            contact: Contact::Starting,
            report: None,
            reported_at: Duration::ZERO,
        };
        Self {
            clock,
            grace,
            policy: engine.policy,
            inner: Mutex::new(Inner {
                engine: Engine::new(engine),
                members: targets.into_iter().map(member).collect(),
                by_name: HashMap::new(),
                assumed: HashMap::new(),
            }),
        }
    }

    pub(crate) fn policy(&self) -> PolicyName {
        self.policy
    }

    /// Takes what a daemon tells of its node. An older state of the same daemon changes nothing but the contact.
    pub(crate) fn report(&self, id: MemberId, report: NodeReport) -> Result<(), NameTaken> {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        let name = report.state.name.clone();
        inner.claim_name(id, &name)?;
        let Some(member) = inner.members.get_mut(id.0) else {
            return Ok(());
        };
        member.contact = Contact::Up;
        member.reported_at = now;
        let before = member.report.as_deref();
        let restarted = before.is_some_and(|before| before.instance != report.instance);
        let is_old = before.is_some_and(|before| !restarted && before.state.generation > report.state.generation);
        if !is_old {
            let generation = report.state.generation;
            member.report = Some(Arc::new(report));
            // A daemon that started anew has everything it ever granted in its first state.
            inner
                .assumed
                .retain(|_, it| it.node != name || it.reported_from.is_none_or(|from| from > generation && !restarted));
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
    pub(crate) fn rank(&self, shape: &Shape, names: &[&str], held: Option<&Held>) -> Ranking {
        let mut inner = self.inner.lock();
        let held = held.filter(|held| held.shape == *shape && inner.still_good(held));
        inner.rank(shape, names, held)
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
        for it in inner.assumed.values().filter(|it| it.node == name) {
            // Not free means that the report has it already, though its reservation is not answered yet.
            let _ = inner.engine.take(&name, &it.shape, &it.plan);
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

impl Inner {
    /// The node's name belongs to this daemon from now on, unless another one is in contact under it.
    fn claim_name(&mut self, id: MemberId, name: &NodeName) -> Result<(), NameTaken> {
        let owner = self.by_name.get(name).copied().filter(|owner| *owner != id);
        if let Some(owner) = owner.and_then(|owner| self.members.get_mut(owner.0)) {
            if owner.contact == Contact::Up {
                return Err(NameTaken {
                    name: name.clone(),
                    target: owner.target.clone(),
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
