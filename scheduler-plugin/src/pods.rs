//! The pods that filter saw lately: bind names a pod only by its UID, and must know what it asks for.
//!
//! Bounded in number and in time. A pod that is forgotten too early costs one more round through filter.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use berth_placement::{NodeName, Plan, PodRef, PodUid, Shape};
use berth_runtime::SharedClock;
use parking_lot::Mutex;
use uuid::Uuid;

/// kube-scheduler has few pods between filter and bind at a time; this many is far away from normal.
pub(crate) const CAPACITY: usize = 16_384;
/// Longer than any bind waits for volumes (kube-scheduler's own limit is 10 minutes).
pub(crate) const TTL: Duration = Duration::from_mins(15);
/// A node that refused a pod is its last choice for so long: kube-scheduler comes again after 1 s, 2 s, 4 s and 8 s, and the best
/// node by the snapshot would be the same again.
const AVOIDED: Duration = Duration::from_secs(30);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Pods {
    clock: SharedClock,
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_uid: HashMap<PodUid, Entry>,
    /// By when they were last seen.
    order: BTreeMap<Seen, PodUid>,
    next: u64,
}

/// When, and a number to tell equal times apart.
type Seen = (Duration, u64);

#[derive(Debug)]
struct Entry {
    pod: Arc<SeenPod>,
    seen: Seen,
}

/// A pod on its way through this scheduler.
#[derive(Debug)]
pub(crate) struct SeenPod {
    pub(crate) pod: PodRef,
    ask: Mutex<Ask>,
    held: Mutex<Option<Held>>,
    /// Where it may be bound: nobody answered. What it holds there stays until it is known where the pod is.
    doubts: Mutex<BTreeSet<NodeName>>,
    /// Where it is for good.
    bound: Mutex<Option<NodeName>>,
    /// Why no node took it, as it was told last.
    refusal: Mutex<String>,
    /// Nodes whose daemons did not grant it what the snapshot promised, and until when it is sent elsewhere rather than there.
    refused_by: Mutex<BTreeMap<NodeName, Duration>>,
    /// One bind of a pod at a time. Held across the calls to daemons, hence tokio's.
    pub(crate) binding: Arc<tokio::sync::Mutex<()>>,
}

/// What the pod asks for, by its last filter request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) shape: Shape,
    /// Nil where nothing was decided: the pod asks for no GPU.
    pub(crate) decision: Uuid,
}

/// A grant that this scheduler got for the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) node: NodeName,
    pub(crate) shape: Shape,
    pub(crate) plan: Plan,
}

/// What nodes are ranked by besides the snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) held: Option<Held>,
    /// Ranked after all others.
    pub(crate) refused_by: BTreeSet<NodeName>,
}

impl Pods {
    pub(crate) fn new(clock: SharedClock, capacity: usize) -> Self {
        Self {
            clock,
            capacity,
            inner: Mutex::default(),
        }
    }

    /// Remembers what the pod asks for now. What it holds stays known. True where the pod was not known.
    pub(crate) fn remember(&self, pod: PodRef, ask: Ask) -> bool {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        let seen = (now, inner.next);
        inner.next += 1;
        let known = inner.take(&pod.uid).filter(|known| known.pod.pod == pod);
        let is_new = known.is_none();
        let pod = if let Some(known) = known {
            *known.pod.ask.lock() = ask;
            known.pod
        } else {
            Arc::new(SeenPod::new(pod, ask))
        };
        let uid = pod.pod.uid.clone();
        inner.order.insert(seen, uid.clone());
        inner.by_uid.insert(uid, Entry { pod, seen });
        inner.forget_older(now.saturating_sub(TTL), self.capacity);
        is_new
    }

    pub(crate) fn get(&self, uid: &PodUid) -> Option<Arc<SeenPod>> {
        let oldest = self.clock.monotonic().saturating_sub(TTL);
        let inner = self.inner.lock();
        let entry = inner.by_uid.get(uid).filter(|entry| entry.seen.0 >= oldest)?;
        Some(Arc::clone(&entry.pod))
    }

    pub(crate) fn known(&self, uid: &PodUid) -> Known {
        let known = |seen: Arc<SeenPod>| Known {
            held: seen.held(),
            refused_by: seen.refused_by(self.clock.monotonic()),
        };
        self.get(uid).map(known).unwrap_or_default()
    }

    /// What this scheduler got for the pod.
    pub(crate) fn held(&self, uid: &PodUid) -> Option<Held> {
        self.get(uid)?.held()
    }
}

impl Inner {
    fn take(&mut self, uid: &PodUid) -> Option<Entry> {
        let entry = self.by_uid.remove(uid)?;
        self.order.remove(&entry.seen);
        Some(entry)
    }

    fn forget_older(&mut self, oldest: Duration, capacity: usize) {
        while let Some(first) = self.order.first_entry() {
            if first.key().0 >= oldest && self.by_uid.len() <= capacity {
                return;
            }
            self.by_uid.remove(&first.remove());
        }
    }
}

impl SeenPod {
    fn new(pod: PodRef, ask: Ask) -> Self {
        Self {
            pod,
            ask: Mutex::new(ask),
            held: Mutex::default(),
            doubts: Mutex::default(),
            bound: Mutex::default(),
            refusal: Mutex::default(),
            refused_by: Mutex::default(),
            binding: Arc::default(),
        }
    }

    pub(crate) fn ask(&self) -> Ask {
        self.ask.lock().clone()
    }

    pub(crate) fn held(&self) -> Option<Held> {
        self.held.lock().clone()
    }

    /// Whether this refusal is another one than that told last. From then on it is the last one.
    pub(crate) fn is_news(&self, refusal: &str) -> bool {
        let mut told = self.refusal.lock();
        let is_news = *told != refusal;
        if is_news {
            refusal.clone_into(&mut told);
        }
        is_news
    }

    /// The node's daemon did not grant what the pod was sent there for.
    pub(crate) fn was_refused(&self, node: &NodeName, now: Duration) {
        self.refused_by.lock().insert(node.clone(), now + AVOIDED);
    }

    fn refused_by(&self, now: Duration) -> BTreeSet<NodeName> {
        let mut refused_by = self.refused_by.lock();
        refused_by.retain(|_, until| *until > now);
        refused_by.keys().cloned().collect()
    }

    /// Nobody answered when it was to be bound there.
    pub(crate) fn doubt(&self, node: &NodeName) {
        self.doubts.lock().insert(node.clone());
    }

    /// Or is.
    pub(crate) fn may_be_on(&self, node: &NodeName) -> bool {
        self.bound.lock().as_ref() == Some(node) || self.doubts.lock().contains(node)
    }

    /// No pod is ever taken off its node again: where it is for good, once this scheduler has heard of that.
    pub(crate) fn bound(&self) -> Option<NodeName> {
        self.bound.lock().clone()
    }

    pub(crate) fn stays_on(&self, node: &NodeName) {
        *self.bound.lock() = Some(node.clone());
    }

    /// It is not there.
    pub(crate) fn is_not_on(&self, node: &NodeName) {
        self.doubts.lock().remove(node);
    }

    /// It is bound to `node`; the others on which it might have been.
    pub(crate) fn bound_to(&self, node: &NodeName) -> BTreeSet<NodeName> {
        let mut doubts = std::mem::take(&mut *self.doubts.lock());
        doubts.remove(node);
        doubts
    }

    pub(crate) fn set_held(&self, held: Option<Held>) {
        *self.held.lock() = held;
    }
}

#[cfg(test)]
mod tests {
    use berth_placement::GpuShape;
    use berth_runtime::ManualClock;

    use super::*;

    fn pod(uid: &str) -> PodRef {
        PodRef::new("ns", "name", uid.parse().unwrap()).unwrap()
    }

    fn ask(count: u32) -> Ask {
        Ask {
            shape: Shape::gpu(GpuShape::whole(count).unwrap()),
            decision: Uuid::nil(),
        }
    }

    fn uid(text: &str) -> PodUid {
        text.parse().unwrap()
    }

    #[test]
    fn a_pod_is_known_by_its_uid_with_its_last_ask() {
        let pods = Pods::new(ManualClock::at_unix_ms(0).shared(), 10);
        assert!(pods.remember(pod("a"), ask(1)));
        let first = pods.get(&uid("a")).unwrap();
        let held = Held {
            node: "n".parse().unwrap(),
            shape: ask(1).shape,
            plan: Plan::default(),
        };
        first.set_held(Some(held.clone()));
        assert!(!pods.remember(pod("a"), ask(2)));
        assert_eq!(pods.get(&uid("a")).unwrap().ask(), ask(2));
        assert_eq!(
            pods.held(&uid("a")),
            Some(held),
            "what it holds is not forgotten by another filter"
        );
        assert!(pods.get(&uid("b")).is_none());
    }

    #[test]
    fn a_node_that_refused_a_pod_is_avoided_for_a_while_by_that_pod_alone() {
        let clock = ManualClock::at_unix_ms(0);
        let pods = Pods::new(clock.shared(), 10);
        for name in ["a", "b"] {
            pods.remember(pod(name), ask(1));
        }
        let node: NodeName = "n".parse().unwrap();
        let avoided = |name| pods.known(&uid(name)).refused_by;
        pods.get(&uid("a")).unwrap().was_refused(&node, Duration::ZERO);
        pods.remember(pod("a"), ask(1));
        assert_eq!(avoided("a"), [node].into());
        assert!(avoided("b").is_empty() && avoided("nobody").is_empty());
        clock.advance(AVOIDED);
        assert!(avoided("a").is_empty());
    }

    #[test]
    fn the_pods_unseen_for_longest_go_first() {
        let clock = ManualClock::at_unix_ms(0);
        let pods = Pods::new(clock.shared(), 2);
        for name in ["a", "b", "a", "c"] {
            pods.remember(pod(name), ask(1));
        }
        assert!(pods.get(&uid("b")).is_none());
        assert!(pods.get(&uid("a")).is_some() && pods.get(&uid("c")).is_some());
        clock.advance(TTL);
        pods.remember(pod("d"), ask(1));
        clock.advance(Duration::from_millis(1));
        assert!(pods.get(&uid("c")).is_none(), "too old, though still kept");
        pods.remember(pod("e"), ask(1));
        assert_eq!(pods.inner.lock().by_uid.len(), 2);
        assert_eq!(pods.inner.lock().order.len(), 2);
    }
}
