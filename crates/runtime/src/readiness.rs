//! What the process still waits for before it may be sent work, by name and with a reason.
//!
//! A part registers itself, says when it is ready, and may lose that again ("kubelet is down"). `/readyz`, the gRPC
//! health service and the log all tell from here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::SharedClock;

/// The process's readiness: ready when no part says otherwise. Clones share one state.
#[derive(Debug, Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: SharedClock,
    state: Mutex<State>,
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// By start order.
    parts: BTreeMap<u64, Part>,
    shutting_down: bool,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    /// Why it is not ready; `None` when it is.
    pending: Option<Cow<'static, str>>,
    since: Duration,
}

/// One part's say in the process's readiness. It starts as not ready.
///
/// Dropping it withdraws a part that was ready. A part that was not stays pending for good: its owner ended (an early
/// return, a panic) before it could do its work, and that must be seen.
#[derive(Debug)]
#[must_use = "dropping it before `ready()` leaves the process not ready"]
pub struct Block {
    id: u64,
    readiness: Readiness,
}

/// A part that is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub name: &'static str,
    pub reason: Cow<'static, str>,
    /// How long it has been so.
    pub since: Duration,
}

// === impl Readiness ===

impl Readiness {
    /// Ready, until a part registers.
    pub fn new(clock: SharedClock) -> Self {
        let (ready, _) = watch::channel(true);
        Self {
            shared: Arc::new(Shared {
                clock,
                state: Mutex::default(),
                ready,
            }),
        }
    }

    /// Adds a part that is not ready yet.
    pub fn register(&self, name: &'static str) -> Block {
        let since = self.shared.clock.monotonic();
        let mut state = self.shared.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.parts.insert(
            id,
            Part {
                name,
                pending: Some("starting".into()),
                since,
            },
        );
        self.publish(&state);
        Block {
            id,
            readiness: self.clone(),
        }
    }

    /// Not ready from now on, whatever the parts say: the first phase of a shutdown.
    pub fn shut_down(&self) {
        let mut state = self.shared.state.lock();
        state.shutting_down = true;
        self.publish(&state);
    }

    pub fn is_ready(&self) -> bool {
        *self.shared.ready.borrow()
    }

    /// Follows [`Self::is_ready`], for the gRPC health service.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }

    /// The parts that are not ready, in the order they registered.
    pub fn pending(&self) -> Vec<Pending> {
        let now = self.shared.clock.monotonic();
        let state = self.shared.state.lock();
        let shutdown = state.shutting_down.then(|| Pending {
            name: "shutdown",
            reason: "the process is shutting down".into(),
            since: Duration::ZERO,
        });
        let parts = state.parts.values().filter_map(|part| {
            let reason = part.pending.clone()?;
            Some(Pending {
                name: part.name,
                reason,
                since: now.saturating_sub(part.since),
            })
        });
        shutdown.into_iter().chain(parts).collect()
    }

    fn publish(&self, state: &State) {
        let ready = !state.shutting_down && state.parts.values().all(|part| part.pending.is_none());
        self.shared
            .ready
            .send_if_modified(|current| std::mem::replace(current, ready) != ready);
    }

    fn set(&self, id: u64, pending: Option<Cow<'static, str>>) {
        let now = self.shared.clock.monotonic();
        let mut state = self.shared.state.lock();
        let Some(part) = state.parts.get_mut(&id) else { return };
        if part.pending == pending {
            return;
        }
        let name = part.name;
        let took = now.saturating_sub(part.since);
        if part.pending.is_none() || pending.is_none() {
            part.since = now;
        }
        part.pending.clone_from(&pending);
        let left: Vec<_> = state
            .parts
            .values()
            .filter(|p| p.pending.is_some())
            .map(|p| p.name)
            .collect();
        self.publish(&state);
        drop(state);
        match pending {
            None => info!(part = name, ?took, ?left, "ready"),
            Some(reason) => warn!(part = name, %reason, "not ready"),
        }
    }

    fn withdraw(&self, id: u64) {
        let mut state = self.shared.state.lock();
        let was_ready = state.parts.get(&id).is_some_and(|part| part.pending.is_none());
        if state.shutting_down || (was_ready && !thread::panicking()) {
            state.parts.remove(&id);
            return;
        }
        drop(state);
        self.set(id, Some("ended before it was ready".into()));
    }
}

// === impl Block ===

impl Block {
    /// This part is ready. Logs how long it took and which parts are left.
    pub fn ready(&self) {
        self.readiness.set(self.id, None);
    }

    /// This part is not ready (any more), and why: plain words for whoever reads `/readyz`.
    pub fn not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        self.readiness.set(self.id, Some(reason.into()));
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.readiness.withdraw(self.id);
    }
}

#[cfg(test)]
mod tests;
