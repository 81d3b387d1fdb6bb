//! The actor: watches KAI's pods, all nodes and KAI's queues; starts work, and hears how it ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use berth_placement::{NodeName, PodUid};
use berth_runtime::kubernetes::{
    lease::{Contender, Pace, Turn},
    watch::{Resync, watch},
};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, ResourceExt as _, api::DynamicObject, runtime::watcher};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::{
    Mode,
    filter::NodeFacts,
    groups::{GroupKey, Groups},
    jobs::{Ended, Jobs},
    objects,
    pod::{Gates, KaiPod},
    queue::QueueSpec,
    state::{Settled, State, Work},
};
use crate::{
    binder::{ClientBox, KubernetesBinder},
    decide::Decider,
    pods::Pods,
    reserve::Reserver,
};

/// How often what failed is tried again, and what waits is looked at.
const TICK: Duration = Duration::from_secs(1);
/// KAI takes a hint within a cycle or two, and its binder a request; later it is looked at again.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// A gang whose members do not come is KAI's after this.
const GANG_PATIENCE: Duration = Duration::from_secs(10);
/// Whose turn it is to feed KAI. Two feeders at once would book nothing twice, only stand in each other's way.
const LEASE: &str = "berth-scheduler-kai";
/// Ends of work that wait to be heard.
const ENDS: usize = 1024;

/// What the task needs.
#[derive(Debug)]
pub(crate) struct KaiFeed {
    pub(crate) mode: Mode,
    /// Of the Lease that says whose turn it is.
    pub(crate) namespace: String,
    pub(crate) deadline: Duration,
    pub(crate) require_top: usize,
    pub(crate) decider: Arc<Decider>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) reserver: Reserver,
    pub(crate) binder: KubernetesBinder,
}

enum Seen {
    Pod(Box<watcher::Event<Pod>>),
    Node(Box<watcher::Event<Node>>),
    Queue(Box<watcher::Event<DynamicObject>>),
    Group(Box<watcher::Event<DynamicObject>>),
}

/// How a turn ended.
#[derive(Debug)]
struct End {
    uid: PodUid,
    ended: Ended,
}

struct Actor {
    mode: Mode,
    jobs: Jobs,
    state: State,
    pods: Resync<PodUid>,
    nodes: Resync<NodeName>,
    queues: Resync<String>,
    groups_seen: Resync<GroupKey>,
    groups: Groups,
    ends: mpsc::Sender<End>,
    /// Since when a hint stands.
    hinted_at: BTreeMap<PodUid, Instant>,
    /// Since when a gang waits for its members, by namespace and group.
    gangs: BTreeMap<(String, String), Instant>,
}

impl KaiFeed {
    /// Until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Some(client) = stop.run_until_cancelled(self.binder.connected()).await else {
            return;
        };
        let clock = self.decider.clock.clone();
        let contender = Contender {
            namespace: self.namespace.clone(),
            name: LEASE,
            identity: Uuid::new_v4().to_string(),
            pace: Pace::default(),
        };
        let turn = Turn::new(client.clone(), contender, clock);
        let turns = async {
            loop {
                turn.come().await;
                info!("this scheduler feeds KAI");
                tokio::select! {
                    () = self.follow(client.clone()) => {}
                    () = turn.pass() => {}
                }
            }
        };
        let _never: Option<()> = stop.run_until_cancelled(turns).await;
        turn.leave().await;
    }

    async fn follow(&self, client: Client) {
        let (ends, mut heard) = mpsc::channel(ENDS);
        let mut seen = watches(&client, self.mode);
        let mut actor = Actor {
            mode: self.mode,
            jobs: Jobs {
                client: ClientBox(client),
                decider: Arc::clone(&self.decider),
                pods: Arc::clone(&self.pods),
                reserver: self.reserver.clone(),
                binder: self.binder.clone(),
                deadline: self.deadline,
                require_top: self.require_top,
                groups_made: Arc::default(),
            },
            state: State::default(),
            pods: Resync::new(),
            nodes: Resync::new(),
            queues: Resync::new(),
            groups_seen: Resync::new(),
            groups: Groups::default(),
            ends,
            hinted_at: BTreeMap::new(),
            gangs: BTreeMap::new(),
        };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_ready = false;
        loop {
            tokio::select! {
                event = seen.next() => {
                    let Some(event) = event else { return };
                    actor.take(event);
                }
                Some(end) = heard.recv() => actor.ended(end),
                _ = tick.tick() => actor.tick(),
            }
            if !was_ready && actor.is_ready() {
                was_ready = true;
                info!(mode = ?self.mode, "KAI is fed");
                actor.tick();
            }
        }
    }
}

impl Actor {
    /// Before all is known nothing is decided: what is not known is not refused either.
    fn is_ready(&self) -> bool {
        let queues_known = self.mode == Mode::Hint || self.queues.is_complete();
        self.pods.is_complete() && self.nodes.is_complete() && queues_known && self.jobs.decider.cluster.is_known()
    }

    fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Pod(event) => {
                let uid = |pod: &Pod| pod.uid().and_then(|uid| uid.parse().ok());
                let (object, gone) = self.pods.step(*event, uid, || self.state.pods());
                for uid in gone {
                    self.state.pod(&uid, None);
                }
                if let Some((uid, pod)) = object {
                    let pod = KaiPod::of(&pod);
                    let group = pod.as_ref().and_then(KaiPod::shared_group);
                    let work = self.state.pod(&uid, pod);
                    self.work(work);
                    if let Some(group) = group.filter(|_| self.groups_seen.is_complete()) {
                        self.groups.needed(group);
                        self.put_groups_right();
                    }
                }
            }
            Seen::Node(event) => {
                let name = |node: &Node| node.name_any().parse().ok();
                let (object, gone) = self.nodes.step(*event, name, || self.state.nodes());
                for name in gone {
                    self.state.node(name, None);
                }
                if let Some((name, node)) = object {
                    self.state.node(name.clone(), Some(NodeFacts::of(name, &node)));
                }
            }
            Seen::Queue(event) => {
                let name = |queue: &DynamicObject| Some(queue.name_any());
                let (object, gone) = self.queues.step(*event, name, || self.state.queues());
                for name in gone {
                    self.state.queue(&name, None);
                }
                if let Some((name, queue)) = object {
                    let spec: QueueSpec = serde_json::from_value(queue.data["spec"].clone()).unwrap_or_default();
                    self.state.queue(&name, Some(spec));
                }
            }
            Seen::Group(event) => self.take_group(*event),
        }
    }

    fn take_group(&mut self, event: watcher::Event<DynamicObject>) {
        let key = |group: &DynamicObject| Some((group.namespace()?, group.name_any()));
        let is_end = matches!(event, watcher::Event::InitDone);
        let (object, gone) = self.groups_seen.step(event, key, || self.groups.known());
        let now = object.map(|(key, group)| (key, objects::is_as_made(&group)));
        for (key, is_sound) in gone.into_iter().map(|key| (key, false)).chain(now) {
            if !is_sound {
                self.jobs.groups_made.lock().remove(&key.1);
            }
            let is_needed = !is_sound && self.state.in_shared(&key).is_some();
            self.groups.seen(key.clone(), is_sound);
            if is_needed {
                self.groups.needed(key);
            }
        }
        if is_end {
            for key in self.state.shared_groups() {
                self.groups.needed(key);
            }
        }
        self.put_groups_right();
    }

    fn put_groups_right(&mut self) {
        for key in self.groups.due(Instant::now()) {
            let Some(pod) = self.state.in_shared(&key).cloned() else {
                self.groups.not_needed(&key);
                continue;
            };
            let jobs = self.jobs.clone();
            let work = async move { jobs.put_group_right(pod).await };
            drop(self.jobs.reserver.tasks.spawn("put-group-right", work));
        }
    }

    fn work(&mut self, work: Option<Work>) {
        match work {
            Some(Work::Place(uid)) if self.is_ready() => self.place(&uid),
            Some(Work::HintTaken(pod)) => self.jobs.hint_taken(&pod),
            Some(Work::HintMissed(pod, hinted)) => {
                let jobs = self.jobs.clone();
                let missed = async move { jobs.hint_missed(pod, hinted).await };
                drop(self.jobs.reserver.tasks.spawn("hint-missed", missed));
            }
            Some(Work::Place(_)) | None => {}
        }
    }

    fn place(&mut self, uid: &PodUid) {
        let Some(pod) = self.state.get(uid).cloned() else {
            return;
        };
        match &pod.bind {
            _ if pod.gates == Gates::Ours => self.hint(pod),
            Some(group) if !group.is_empty() => {
                let key = (pod.pod.namespace.clone(), group.clone());
                self.gang(&key);
            }
            Some(_) => self.bind(vec![pod]),
            None => {}
        }
    }

    fn candidates(&self, pod: &KaiPod) -> Vec<Arc<NodeFacts>> {
        self.state.candidates(pod, &self.jobs.decider.cluster.pods_on_nodes())
    }

    fn names(&self, pod: &KaiPod) -> Vec<NodeName> {
        let candidates = self.candidates(pod);
        candidates.iter().map(|facts| facts.name.clone()).collect()
    }

    fn hint(&mut self, pod: KaiPod) {
        let (jobs, ends, seen) = (self.jobs.clone(), self.ends.clone(), Instant::now());
        let candidates = self.candidates(&pod);
        let uid = pod.pod.uid.clone();
        self.state.start(std::slice::from_ref(&uid));
        let work = async move {
            let ended = jobs.hint(pod, candidates, seen).await;
            // Nobody listens any more: the process ends.
            drop(ends.send(End { uid, ended }).await);
        };
        drop(self.jobs.reserver.tasks.spawn("hint", work));
    }

    fn bind(&mut self, pods: Vec<KaiPod>) {
        let why = pods.iter().find_map(|pod| pod.needs_kai);
        let over = pods
            .iter()
            .find_map(|pod| self.state.admit(pod).err().map(|over| (pod, over)));
        if let Some((pod, over)) = &over {
            self.jobs.tell_over_queue(pod, over);
        }
        if let (Some(why), Some(pod)) = (why, pods.first()) {
            debug!(pod = %pod.pod, why, "left to KAI");
        }
        let is_kais = why.is_some() || over.is_some();
        let uids: Vec<PodUid> = pods.iter().map(|pod| pod.pod.uid.clone()).collect();
        self.state.start(&uids);
        let (jobs, ends, seen) = (self.jobs.clone(), self.ends.clone(), Instant::now());
        let with_candidates: Vec<_> = pods
            .into_iter()
            .map(|pod| {
                let candidates = self.candidates(&pod);
                (pod, candidates)
            })
            .collect();
        let work = async move {
            let mut ended = BTreeMap::new();
            if is_kais {
                for (pod, _) in &with_candidates {
                    ended.insert(pod.pod.uid.to_string(), jobs.hand_over(pod).await);
                }
            } else {
                ended = jobs.bind(with_candidates, seen).await;
            }
            for uid in uids {
                let ended = ended.get(uid.as_str()).cloned().unwrap_or(Ended::Again);
                drop(ends.send(End { uid, ended }).await);
            }
        };
        drop(self.jobs.reserver.tasks.spawn("kai-bind", work));
    }

    /// Binds a gang once enough of it is there.
    fn gang(&mut self, key: &(String, String)) {
        let members = self.state.gang(&key.0, &key.1);
        let Some(first) = members.first().cloned() else { return };
        let since = *self.gangs.entry(key.clone()).or_insert_with(Instant::now);
        let placed = self.state.placed_of(&key.0, &key.1);
        // The rest of it may be getting its places just now.
        let patience_over = since.elapsed() > GANG_PATIENCE && !self.state.is_working_on(&key.0, &key.1);
        // The size is asked of the API server: while the answer is under way the gang is as it is.
        let uids: Vec<PodUid> = members.iter().map(|pod| pod.pod.uid.clone()).collect();
        self.state.start(&uids);
        let (jobs, ends, seen) = (self.jobs.clone(), self.ends.clone(), Instant::now());
        let mut admitted = Ok(());
        for member in &members {
            admitted = admitted.and_then(|()| self.state.admit(member));
        }
        if let Err(over) = &admitted {
            self.jobs.tell_over_queue(&first, over);
        }
        let needs_kai = members.iter().find_map(|pod| pod.needs_kai);
        let with_candidates: Vec<_> = members
            .into_iter()
            .map(|pod| {
                let candidates = self.candidates(&pod);
                (pod, candidates)
            })
            .collect();
        let group = key.clone();
        let work = async move {
            let gang = jobs.gang(&group.0, &group.1).await;
            let is_there = gang.is_some_and(|gang| placed + with_candidates.len() >= gang.min_member);
            let mut is_kais = admitted.is_err()
                || needs_kai.is_some()
                || gang.is_some_and(|gang| gang.is_preemptible)
                || (!is_there && patience_over);
            if is_there && !is_kais {
                is_kais = jobs.keep(&group.0, &group.1).await.is_err();
            }
            let mut ended = BTreeMap::new();
            if is_kais {
                for (pod, _) in &with_candidates {
                    ended.insert(pod.pod.uid.to_string(), jobs.hand_over(pod).await);
                }
            } else if is_there {
                ended = jobs.bind(with_candidates, seen).await;
            }
            for uid in uids {
                let ended = ended.get(uid.as_str()).cloned().unwrap_or(Ended::Again);
                drop(ends.send(End { uid, ended }).await);
            }
        };
        drop(self.jobs.reserver.tasks.spawn("kai-gang", work));
    }

    fn ended(&mut self, End { uid, ended }: End) {
        let hint = match &ended {
            Ended::Hinted(node) => Some(Some(node.clone())),
            Ended::Unhinted => Some(None),
            Ended::Bound | Ended::HandedOver | Ended::Again => None,
        };
        if ended != Ended::Bound {
            let is_bound = self.state.get(&uid).is_some_and(|pod| pod.node.is_some());
            if !is_bound {
                self.state.discharge(&uid);
            }
        }
        let settled = (ended != Ended::Again).then(|| Settled {
            until: Instant::now() + STALE_AFTER,
            has_place: ended == Ended::Bound,
        });
        self.state.end(&uid, settled);
        let Some(hint) = hint else { return };
        self.hinted_at.insert(uid.clone(), Instant::now());
        self.state.hint(&uid, hint);
        // It may have been placed before we heard that it was told where.
        let placed = self.state.get(&uid).filter(|pod| pod.node.is_some()).cloned();
        if let Some(pod) = placed {
            let work = self.state.pod(&uid, Some(pod));
            self.work(work);
        }
    }

    fn tick(&mut self) {
        if !self.is_ready() {
            return;
        }
        for uid in self.state.waiting(Instant::now()) {
            // A gang's turn takes all of it.
            if self.state.get(&uid).is_some() {
                self.place(&uid);
            }
        }
        let waiting: Vec<_> = self.gangs.keys().cloned().collect();
        for key in waiting {
            let is_there = self.state.has_gang(&key.0, &key.1);
            if !is_there {
                self.gangs.remove(&key);
            }
        }
        self.put_groups_right();
        self.hinted_at.retain(|uid, _| self.state.is_hinted(uid));
        for (pod, hinted) in self.state.hinted() {
            let uid = pod.pod.uid.clone();
            let since = self.hinted_at.entry(uid.clone()).or_insert_with(Instant::now);
            if since.elapsed() < STALE_AFTER {
                continue;
            }
            let candidates = self.names(&pod);
            let (jobs, ends) = (self.jobs.clone(), self.ends.clone());
            self.state.start(std::slice::from_ref(&uid));
            let work = async move {
                let ended = jobs.refresh(pod, hinted, candidates).await;
                drop(ends.send(End { uid, ended }).await);
            };
            drop(self.jobs.reserver.tasks.spawn("refresh-hint", work));
        }
    }
}

fn watches(client: &Client, mode: Mode) -> BoxStream<'static, Seen> {
    let pods: Api<Pod> = Api::all(client.clone());
    let nodes: Api<Node> = Api::all(client.clone());
    let queues: Api<DynamicObject> = Api::all_with(client.clone(), &objects::queues());
    let groups: Api<DynamicObject> = Api::all_with(client.clone(), &objects::pod_groups());
    let of_kai = watcher::Config::default().fields("spec.schedulerName=kai-scheduler");
    let of_ours = watcher::Config::default().labels(&objects::of_ours());
    let groups = (mode == Mode::Bind).then(|| watch(groups, of_ours).map(|event| Seen::Group(Box::new(event))).boxed());
    let all = [
        watch(pods, of_kai).map(|event| Seen::Pod(Box::new(event))).boxed(),
        watch(nodes, watcher::Config::default())
            .map(|event| Seen::Node(Box::new(event)))
            .boxed(),
        watch(queues, watcher::Config::default())
            .map(|event| Seen::Queue(Box::new(event)))
            .boxed(),
    ];
    stream::select_all(all.into_iter().chain(groups)).boxed()
}
