//! AcquireLease: devices held for exactly as long as a client's stream is open.
//!
//! The producer task owns the lease and is never dropped half way, so a lease can not be forgotten: it ends when the
//! client is gone (cancelled, died, connection broken), or is taken away. Only where the daemon itself ends does the
//! lease stay in the book: the next daemon keeps it for a while, so that a restart does not hand a running job's GPU to
//! somebody else (see `book::leases`).

use std::{sync::Arc, time::Duration};

use berth_gpu::Inventory;
use berth_ledger::{Claim, Event, Holder};
use berth_placement::{Grant, Health, LeaseId, Shape};
use berth_proto::node::v1::{AcquireLeaseResponse, acquire_lease_response::Event as LeaseEvent};
use berth_runtime::grpc::{Closed, Sink};
use tokio::{sync::oneshot, time::timeout};

use super::{convert, status::ApiError, watch::PacedViews};
use crate::book::{Acquired, Book, Lease, NodeView};

/// What the client asked.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) lease: LeaseId,
    pub(super) shape: Shape,
    pub(super) client: String,
    /// Zero: be refused rather than wait.
    pub(super) wait: Duration,
}

/// Told once it is known whether there will be a stream; a refusal before the first message is the call's own status.
pub(super) type Started = oneshot::Sender<Result<(), ApiError>>;

pub(super) async fn run(sink: Sink<AcquireLeaseResponse>, book: Book, request: Request, started: Started) {
    let holder = Holder::Lease(request.lease.clone());
    let acquire = Event::Acquire {
        lease: request.lease,
        shape: request.shape,
        client: request.client,
    };
    let lease = match book.acquire(acquire, !request.wait.is_zero()).await {
        Err(error) => {
            // Not received: the client is gone, and nothing is held.
            started.send(Err(error.into())).ok();
            return;
        }
        Ok(Acquired::Granted(lease)) => {
            started.send(Ok(())).ok();
            lease
        }
        Ok(Acquired::Waiting { refused, granted }) => {
            started.send(Ok(())).ok();
            let waiting = AcquireLeaseResponse {
                event: LeaseEvent::Waiting.into(),
                allocation: None,
                reason: refused.reason().to_owned(),
                message: refused.to_string(),
            };
            if sink.send(waiting).await.is_err() {
                return;
            }
            match wait(&sink, granted, request.wait).await {
                Waited::Granted(lease) => lease,
                Waited::ClientGone => return,
                Waited::InVain => return sink.fail(ApiError::from(refused)).await,
            }
        }
    };
    if let Closed::ClientGone = hold(&sink, &book, lease).await {
        book.end_lease(holder).await;
    }
}

#[expect(clippy::large_enum_variant, reason = "one at a time, and taken apart at once")]
enum Waited {
    Granted(Lease),
    ClientGone,
    InVain,
}

async fn wait(sink: &Sink<AcquireLeaseResponse>, mut granted: oneshot::Receiver<Lease>, at_most: Duration) -> Waited {
    let waited = tokio::select! {
        waited = timeout(at_most, &mut granted) => match waited {
            Ok(Ok(lease)) => return Waited::Granted(lease),
            // The book is closed.
            Ok(Err(_)) => return Waited::InVain,
            Err(_) => Waited::InVain,
        },
        _ = sink.closed() => Waited::ClientGone,
    };
    // It may have been granted in this very moment: then it is ours, and with the client gone `hold` returns at once.
    granted.close();
    granted.try_recv().map_or(waited, Waited::Granted)
}

/// Until the client is gone, the daemon ends, or the lease is over by other means (then as if the daemon ended: there is
/// nothing to give back).
async fn hold(sink: &Sink<AcquireLeaseResponse>, book: &Book, lease: Lease) -> Closed {
    let Lease { claim, mut revoked } = lease;
    let mut views = PacedViews::new(book.views().subscribe());
    let mut told = Told::of(&claim, &views.current());
    if let Err(closed) = sink.send(told.message(LeaseEvent::Granted, None)).await {
        return closed;
    }
    loop {
        let view = tokio::select! {
            closed = sink.closed() => return closed,
            revocation = &mut revoked => {
                let (reason, message) = match revocation {
                    Ok(revocation) => (revocation.reason, revocation.message),
                    Err(_) => ("Released", "somebody released this lease".to_owned()),
                };
                let last = AcquireLeaseResponse {
                    event: LeaseEvent::Revoked.into(),
                    allocation: None,
                    reason: reason.to_owned(),
                    message,
                };
                sink.send(last).await.ok();
                return Closed::Shutdown;
            }
            view = views.next() => match view {
                Some(view) => view,
                None => return Closed::Shutdown,
            },
        };
        // Not in the book any more: `revoked` tells in the next turn.
        let Some(claim) = view.book.claim(&claim.holder) else {
            continue;
        };
        let now = Told::of(claim, &view);
        if now != told {
            if let Err(closed) = sink.send(now.message(LeaseEvent::Changed, Some(&told))).await {
                return closed;
            }
            told = now;
        }
    }
}

/// What the client knows of its lease.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    allocation: berth_proto::node::v1::Allocation,
    /// What is wrong with its devices, in words.
    trouble: Vec<String>,
}

impl Told {
    fn of(claim: &Claim, view: &NodeView) -> Self {
        Self {
            allocation: convert::allocation(claim, &view.book),
            trouble: claim
                .grants
                .iter()
                .filter_map(|grant| trouble(grant, &view.inventory))
                .collect(),
        }
    }

    fn message(&self, event: LeaseEvent, before: Option<&Self>) -> AcquireLeaseResponse {
        let reason = match before {
            None => "Granted",
            Some(before) if self.allocation != before.allocation => "DevicesChanged",
            Some(_) if self.trouble.is_empty() => "DevicesHealthy",
            Some(_) => "DevicesUnwell",
        };
        AcquireLeaseResponse {
            event: event.into(),
            allocation: Some(self.allocation.clone()),
            reason: reason.to_owned(),
            message: self.trouble.join("; "),
        }
    }
}

fn trouble(grant: &Grant, inventory: &Arc<Inventory>) -> Option<String> {
    let Some(device) = inventory.device(&grant.device) else {
        return Some(format!("{} is no longer found", grant.device));
    };
    let health = &device.health;
    if health.state == Health::Healthy {
        return None;
    }
    let reasons: Vec<_> = health.reasons.iter().map(|reason| reason.message.as_str()).collect();
    Some(format!(
        "{} is {}: {}",
        grant.device,
        health.state.as_str(),
        reasons.join(", ")
    ))
}
