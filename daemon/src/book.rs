//! The book: the single writer of the ledger, and how everybody else talks to it.
//!
//! ```text
//!  gRPC, kubelet, driver ──► Book (bounded queue) ──► actor: apply, persist once, publish once, answer
//!                                                       │ journal                │ watch<Arc<NodeView>>
//! ```
//! The order within a turn is what the promises rest on: nothing is answered or published before it is kept, and whoever
//! has an answer finds it in the view.

mod actor;
mod keeper;
mod leases;
mod restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use berth_gpu::Inventory;
use berth_ledger::{Assignment, Claim, Event, GpuProcess, Holder, Reply, RequestRefused, Snapshot};
use berth_placement::{ComputeMode, DeviceState, Health, NodeVerdict, Room, Shape};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use actor::{Actor, ActorOptions};
pub(crate) use restore::restore;

use crate::conditions::{Conditions, Finding};

/// Requests that wait for the actor. Above the streams of two busy schedulers (256 calls in flight each); whoever finds
/// it full waits for its turn under its call's deadline.
const QUEUE: usize = 1024;

/// The way to the book. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    commands: mpsc::Sender<Command>,
    views: Views,
}

/// What was published last, and what will be.
#[derive(Debug, Clone)]
pub(crate) struct Views(watch::Receiver<Arc<NodeView>>);

/// The node at one instant: book, devices and conditions, immutable.
#[derive(Debug)]
pub(crate) struct NodeView {
    pub(crate) book: Snapshot,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) conditions: Arc<Conditions>,
}

/// Why the book did not do what it was asked. It is as it was before.
#[derive(Debug, Clone, Error)]
pub(crate) enum BookError {
    #[error(transparent)]
    Refused(RequestRefused),
    #[error("nothing is granted that cannot be kept, and the journal cannot be written: {detail}")]
    JournalUnavailable { detail: Arc<str> },
    #[error("the daemon is shutting down")]
    Closed,
}

/// The answer to a request, after it was persisted and published.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// The view of this generation has it.
    pub(crate) view: Arc<NodeView>,
}

/// The answer to a client that wants a lease.
#[derive(Debug)]
pub(crate) enum Acquired {
    Granted(Lease),
    /// No room. It is granted as soon as there is, in the order of asking among those that fit.
    Waiting {
        refused: BookError,
        granted: oneshot::Receiver<Lease>,
    },
}

/// A lease that is held. Its holder must call [`Book::end_lease`].
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) claim: Claim,
    /// Told when it is over without its holder's doing; closed without a word where somebody released it by its id.
    pub(crate) revoked: oneshot::Receiver<Revocation>,
}

/// Why a lease is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What goes through the queue.
#[derive(Debug)]
enum Command {
    Request {
        event: Event,
        reply: oneshot::Sender<Result<Answer, BookError>>,
    },
    Acquire {
        event: Event,
        wait: bool,
        reply: oneshot::Sender<Result<Acquired, BookError>>,
    },
    EndLease {
        holder: Holder,
    },
    Explain {
        shape: Shape,
        reply: oneshot::Sender<(NodeVerdict, Arc<NodeView>)>,
    },
    Devices {
        inventory: Arc<Inventory>,
        processes: Vec<GpuProcess>,
        finding: Finding,
    },
    Kubelet {
        assigned: Option<Vec<Assignment>>,
        finding: Finding,
    },
    Note(Finding),
    SyncFailed {
        detail: String,
    },
}

// === impl Book ===

impl Book {
    /// For Reserve, Release and SetSchedulable.
    pub(crate) async fn request(&self, event: Event) -> Result<Answer, BookError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Request { event, reply }).await?;
        answer.await.map_err(|_| BookError::Closed)?
    }

    /// For Acquire. `wait`: rather than be refused for want of room.
    pub(crate) async fn acquire(&self, event: Event, wait: bool) -> Result<Acquired, BookError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Acquire { event, wait, reply }).await?;
        answer.await.map_err(|_| BookError::Closed)?
    }

    /// The stream that a lease lived by is over. Unlike a release this cannot be refused: where the journal cannot be
    /// written it takes effect now and is written later.
    pub(crate) async fn end_lease(&self, holder: Holder) {
        // Closed: it stays in the journal, and the next daemon ends it after its grace.
        self.send(Command::EndLease { holder }).await.ok();
    }

    /// Whether the shape fits, and the view that says so.
    pub(crate) async fn explain(&self, shape: Shape) -> Result<(NodeVerdict, Arc<NodeView>), BookError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Explain { shape, reply }).await?;
        answer.await.map_err(|_| BookError::Closed)
    }

    /// What the driver tells, whole.
    pub(crate) async fn observe_devices(
        &self,
        inventory: Arc<Inventory>,
        processes: Vec<GpuProcess>,
        finding: Finding,
    ) {
        self.send(Command::Devices {
            inventory,
            processes,
            finding,
        })
        .await
        .ok();
    }

    /// What the kubelet assigned, whole.
    pub(crate) async fn observe_kubelet(&self, assigned: Vec<Assignment>, finding: Finding) {
        self.send(Command::Kubelet {
            assigned: Some(assigned),
            finding,
        })
        .await
        .ok();
    }

    /// There is no kubelet.
    pub(crate) async fn observe_no_kubelet(&self, finding: Finding) {
        self.send(Command::Kubelet {
            assigned: None,
            finding,
        })
        .await
        .ok();
    }

    pub(crate) async fn note(&self, finding: Finding) {
        self.send(Command::Note(finding)).await.ok();
    }

    pub(crate) fn views(&self) -> &Views {
        &self.views
    }

    async fn send(&self, command: Command) -> Result<(), BookError> {
        self.commands.send(command).await.map_err(|_| BookError::Closed)
    }
}

// === impl Views ===

impl Views {
    pub(crate) fn current(&self) -> Arc<NodeView> {
        Arc::clone(&self.0.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<NodeView>> {
        self.0.clone()
    }
}

impl NodeView {
    pub(crate) fn generation(&self) -> u64 {
        self.book.generation()
    }

    /// The same with the readings of this moment (temperature, power, utilisation): they change all the time and go
    /// through no queue. An inventory of another generation is not taken: the parts of a view must go together.
    pub(crate) fn with_readings(&self, latest: &Arc<Inventory>) -> Self {
        let inventory = if latest.generation == self.inventory.generation {
            latest
        } else {
            &self.inventory
        };
        Self {
            book: self.book.clone(),
            inventory: Arc::clone(inventory),
            conditions: Arc::clone(&self.conditions),
        }
    }
}

/// What a new request can get of a device: nothing where it must be avoided.
pub(crate) fn obtainable(device: &DeviceState) -> Room {
    let usable = matches!(device.health, Health::Healthy | Health::Suspect)
        && device.schedulable
        && !device.out_of_band
        && device.compute_mode != ComputeMode::Prohibited
        && device.mig.is_none();
    if usable { device.free } else { Room::default() }
}

impl BookError {
    /// Stable CamelCase name.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.reason(),
            Self::JournalUnavailable { .. } => "JournalUnavailable",
            Self::Closed => "Draining",
        }
    }
}
