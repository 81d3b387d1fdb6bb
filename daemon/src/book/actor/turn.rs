//! The end of a turn: keep everything with one write, publish one view, answer; or take back what could not be kept.

use std::sync::Arc;

use berth_ledger::{Claim, Effect, Event, Holder, Ledger, Reply};
use berth_placement::NodeVerdict;
use tokio::sync::oneshot;
use tracing::debug;

use super::{
    super::{Acquired, Answer, BookError, Lease, NodeView, leases::Waiter},
    Actor,
};

/// What has to be done at the end of a turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) effects: Vec<Effect>,
    pub(super) answers: Vec<Pending>,
    /// The ledger's snapshot is another.
    pub(super) changed: bool,
    /// Something else of the view is another.
    pub(super) touched: bool,
}

/// An answer that waits until the turn is kept.
#[derive(Debug)]
pub(super) enum Pending {
    Request {
        reply: oneshot::Sender<Result<Answer, BookError>>,
        outcome: Result<Reply, BookError>,
        undo: Option<Event>,
    },
    Acquire {
        reply: oneshot::Sender<Result<Acquired, BookError>>,
        acquire: Event,
        wait: bool,
        outcome: Outcome,
    },
    Waiter {
        waiter: Waiter,
        outcome: Outcome,
    },
    Explain {
        reply: oneshot::Sender<(NodeVerdict, Arc<NodeView>)>,
        verdict: NodeVerdict,
    },
}

pub(super) type Outcome = Result<Claim, BookError>;

impl Actor {
    /// Keep, publish, answer.
    pub(super) fn finish(&mut self, now_ms: u64) {
        if self.turn.touched && !self.turn.changed {
            self.touch();
        }
        if let Err(detail) = self.keeper.commit() {
            self.take_back(now_ms, &detail);
        }
        self.keeper.compact(&self.ledger);
        let finding = self.keeper.finding(now_ms);
        let touched_before = std::mem::take(&mut self.turn.touched);
        self.note(now_ms, finding);
        if self.turn.touched {
            // Told with a number of its own, whether that could be kept or not.
            self.touch();
        }
        self.turn.touched |= touched_before;
        if self.turn.changed || self.turn.touched {
            self.publish();
        }
        self.turn.changed = false;
        self.turn.touched = false;
        for pending in std::mem::take(&mut self.turn.answers) {
            self.answer(now_ms, pending);
        }
    }

    /// Nothing of this turn was kept: what was granted in it goes out of the book again, and is refused. What was given
    /// back stays given back: that takes nothing from anybody.
    fn take_back(&mut self, now_ms: u64, detail: &Arc<str>) {
        let refused = || BookError::JournalUnavailable {
            detail: Arc::clone(detail),
        };
        let mut answers = std::mem::take(&mut self.turn.answers);
        // The last first: each undoes what it found.
        for pending in answers.iter_mut().rev() {
            match pending {
                Pending::Request { outcome, undo, .. } => {
                    let existed = matches!(outcome, Ok(Reply::Granted { existing: true, .. }));
                    if let (Ok(_), false, Some(event)) = (&outcome, existed, undo.take()) {
                        self.observe(now_ms, event);
                    }
                    if outcome.is_ok() {
                        *outcome = Err(refused());
                    }
                }
                Pending::Acquire { outcome, .. } | Pending::Waiter { outcome, .. } => {
                    if let Ok(claim) = outcome {
                        let holder = claim.holder.clone();
                        *outcome = Err(refused());
                        self.observe(now_ms, Event::Release { holder });
                    }
                }
                Pending::Explain { .. } => {}
            }
        }
        self.turn.answers = answers;
    }

    /// Something that readers see beside the book is another: that has a generation too.
    fn touch(&mut self) {
        self.ledger.touch(&mut self.turn.effects);
        self.keeper.stage(&self.turn.effects);
        self.turn.effects.clear();
    }

    fn publish(&mut self) {
        let book = self.ledger.snapshot();
        let view = NodeView {
            book,
            inventory: Arc::clone(&self.inventory),
            conditions: Arc::clone(&self.conditions),
        };
        self.published.send_replace(Arc::new(view));
    }

    fn answer(&mut self, now_ms: u64, pending: Pending) {
        match pending {
            Pending::Request { reply, outcome, .. } => {
                let view = Arc::clone(&self.published.borrow());
                // Err: the caller is gone. A pod's reservation stands until it is released or lapses.
                reply.send(outcome.map(|reply| Answer { reply, view })).ok();
            }
            Pending::Acquire {
                reply,
                acquire,
                wait,
                outcome,
            } => {
                let acquired = match outcome {
                    Ok(claim) => Ok(Acquired::Granted(self.open(claim))),
                    Err(refused) if wait && Waiter::is_worth_waiting(&refused) => Ok(Acquired::Waiting {
                        refused,
                        granted: self.leases.wait(acquire),
                    }),
                    Err(refused) => Err(refused),
                };
                if let Err(Ok(Acquired::Granted(lease))) = reply.send(acquired) {
                    self.orphaned(now_ms, lease.claim.holder);
                }
            }
            Pending::Waiter {
                waiter,
                outcome: Ok(claim),
            } => {
                let lease = self.open(claim);
                if let Err(lease) = waiter.granted.send(lease) {
                    self.orphaned(now_ms, lease.claim.holder);
                }
            }
            Pending::Waiter {
                waiter,
                outcome: Err(_),
            } => self.leases.keep_waiting(waiter),
            Pending::Explain { reply, verdict } => {
                let view = Arc::clone(&self.published.borrow());
                reply.send((verdict, view)).ok();
            }
        }
    }

    fn open(&mut self, claim: Claim) -> Lease {
        debug!(holder = %claim.holder, shape = %claim.shape, "leased");
        let revoked = self.leases.opened(claim.holder.clone());
        Lease { claim, revoked }
    }

    /// Granted, and nobody there to take it: given back in the next turn.
    fn orphaned(&mut self, now_ms: u64, holder: Holder) {
        self.leases.released(&holder);
        self.observe(now_ms, Event::Release { holder });
    }
}

/// What takes the event's effect back, if it could not be kept; asked before it is applied.
pub(super) fn undo_of(event: &Event, ledger: &Ledger) -> Option<Event> {
    match event {
        Event::Reserve { pod, .. } => Some(Event::Release {
            holder: Holder::Pod(pod.uid.clone()),
        }),
        Event::SetSchedulable { device, .. } => {
            let cordon = ledger.snapshot().cordons.get(device).cloned();
            Some(Event::SetSchedulable {
                device: device.clone(),
                schedulable: cordon.is_none(),
                message: cordon.unwrap_or_default(),
            })
        }
        _ => None,
    }
}
