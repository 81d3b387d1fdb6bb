//! The actor: owns the ledger, takes what is queued in one turn, and gives every answer of the turn together.
//!
//! A turn: apply each command, keep all of it with one write, publish one view, answer. Keeping may block the thread, so
//! it shares one with those only who wait for its answers (see `app::serving`).

use std::{sync::Arc, time::Duration};

use berth_gpu::{Inventory, to_placement};
use berth_ledger::{Claim, Effect, Event, GpuProcess, Holder, Ledger, Reply, RequestRefused};
use berth_runtime::{Block, SharedClock};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Acquired, Answer, Book, BookError, Command, Lease, NodeView, QUEUE, Views,
    keeper::Keeper,
    leases::{Leases, Waiter},
};
use crate::{
    conditions::{ConditionType, Conditions, Finding},
    metrics::Metrics,
};

/// Commands in one turn, and so in one write of the journal: more than two busy schedulers have in flight.
const TURN: usize = 512;
/// What falls due may wait for this.
const SHORTEST_SLEEP: Duration = Duration::from_millis(5);
/// The longest sleep. Deadlines are by the wall clock, which may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// What an actor starts with.
#[derive(Debug)]
pub(crate) struct ActorOptions {
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    /// Ready when the book is reconciled.
    pub(crate) ready: Block,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Actor {
    clock: SharedClock,
    metrics: Metrics,
    ready: Block,
    commands: mpsc::Receiver<Command>,
    published: watch::Sender<Arc<NodeView>>,
    ledger: Ledger,
    keeper: Keeper,
    leases: Leases,
    inventory: Arc<Inventory>,
    conditions: Arc<Conditions>,
    /// The driver was heard at least once since the start.
    driver_seen: bool,
    kubelet_seen: bool,
    processes: Vec<GpuProcess>,
    turn: Turn,
}

/// What has to be done at the end of a turn.
#[derive(Debug, Default)]
struct Turn {
    effects: Vec<Effect>,
    answers: Vec<Pending>,
    /// The ledger's snapshot is another.
    changed: bool,
    /// Something else of the view is another.
    touched: bool,
}

/// An answer that waits until the turn is kept.
#[derive(Debug)]
enum Pending {
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
        reply: oneshot::Sender<(berth_placement::NodeVerdict, Arc<NodeView>)>,
        verdict: berth_placement::NodeVerdict,
    },
}

type Outcome = Result<Claim, BookError>;

impl Actor {
    /// `ledger` and `keeper` as they were restored.
    pub(super) fn new(options: ActorOptions, ledger: Ledger, keeper: Keeper) -> (Book, Self) {
        let now_ms = options.clock.now_unix_ms();
        let snapshot = ledger.snapshot();
        let leases = Leases::after_restart(&snapshot, now_ms);
        let inventory = Arc::new(Inventory::starting());
        let conditions = Arc::new(Conditions::starting(now_ms));
        let view = NodeView {
            book: snapshot,
            inventory: Arc::clone(&inventory),
            conditions: Arc::clone(&conditions),
        };
        let (published, views) = watch::channel(Arc::new(view));
        let (sender, commands) = mpsc::channel(QUEUE);
        let ActorOptions { clock, metrics, ready } = options;
        let actor = Self {
            clock,
            metrics,
            ready,
            commands,
            published,
            ledger,
            keeper,
            leases,
            inventory,
            conditions,
            driver_seen: false,
            kubelet_seen: false,
            processes: Vec::new(),
            turn: Turn {
                touched: true,
                ..Turn::default()
            },
        };
        (
            Book {
                commands: sender,
                views: Views(views),
            },
            actor,
        )
    }

    /// Until every [`Book`] is gone or `stop` says so; what is queued by then is still done.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(TURN);
        loop {
            self.turn(&mut batch);
            let sleep = self.sleep();
            let received = tokio::select! {
                // First: what is queued is done before the end.
                biased;
                received = timeout(sleep, self.commands.recv_many(&mut batch, TURN)) => received,
                () = stop.cancelled(), if !self.commands.is_closed() => {
                    // Takes no more; the next rounds do what is queued.
                    self.commands.close();
                    continue;
                }
            };
            if received == Ok(0) {
                return;
            }
        }
    }

    fn sleep(&self) -> Duration {
        // An answer found nobody to take it, and what it granted was given back: that is to be kept and published too.
        if self.turn.changed {
            return Duration::from_millis(1);
        }
        let due = [
            self.ledger.next_deadline(),
            self.keeper.next_due(),
            self.leases.next_due(),
        ];
        let now_ms = self.clock.now_unix_ms();
        let until_due = due
            .into_iter()
            .flatten()
            .min()
            .map(|due| Duration::from_millis(due.saturating_sub(now_ms)));
        // Never zero: a deadline that cannot be met now must not spin.
        until_due.map_or(LONGEST_SLEEP, |sleep| sleep.clamp(SHORTEST_SLEEP, LONGEST_SLEEP))
    }

    fn turn(&mut self, batch: &mut Vec<Command>) {
        let now_ms = self.clock.now_unix_ms();
        if self.keeper.next_due().is_some_and(|due| due <= now_ms) {
            self.keeper.catch_up(now_ms, &self.ledger);
        }
        if self.ledger.next_deadline().is_some_and(|due| due <= now_ms) {
            self.observe(now_ms, Event::Tick);
        }
        for holder in self.leases.take_expired(now_ms) {
            info!(%holder, "the lease of the daemon before this one ends");
            self.observe(now_ms, Event::Release { holder });
        }
        for command in batch.drain(..) {
            self.take(now_ms, command);
        }
        if self.leases.is_anybody_waiting() && (self.turn.changed || self.turn.touched) {
            self.serve_waiting(now_ms);
        }
        self.finish(now_ms);
    }

    fn take(&mut self, now_ms: u64, command: Command) {
        match command {
            Command::Request { event, reply } => {
                let undo = undo_of(&event, &self.ledger);
                let released = match &event {
                    Event::Release { holder } => Some(holder.clone()),
                    _ => None,
                };
                let outcome = self.request(now_ms, event);
                if let (Ok(Reply::Released { was_held: true }), Some(holder)) = (&outcome, released) {
                    self.leases.released(&holder);
                }
                self.turn.answers.push(Pending::Request { reply, outcome, undo });
            }
            Command::Acquire { event, wait, reply } => {
                let outcome = self.acquire(now_ms, event.clone());
                self.turn.answers.push(Pending::Acquire {
                    reply,
                    acquire: event,
                    wait,
                    outcome,
                });
            }
            Command::EndLease { holder } => {
                self.leases.released(&holder);
                self.observe(now_ms, Event::Release { holder });
            }
            Command::Explain { shape, reply } => {
                let verdict = self.ledger.explain(&shape);
                self.turn.answers.push(Pending::Explain { reply, verdict });
            }
            Command::Devices {
                inventory,
                processes,
                finding,
            } => {
                self.take_devices(now_ms, inventory, processes);
                self.note(now_ms, finding);
                self.note_reconciled(now_ms);
            }
            Command::Kubelet { assigned, finding } => {
                self.kubelet_seen = true;
                self.observe(now_ms, assigned.map_or(Event::NoKubelet, Event::Kubelet));
                self.note(now_ms, finding);
                self.note_reconciled(now_ms);
            }
            Command::Note(finding) => self.note(now_ms, finding),
            Command::SyncFailed { detail } => {
                self.keeper.sync_failed(&detail);
                self.keeper.catch_up(now_ms, &self.ledger);
            }
        }
    }

    /// A request: not even tried where nothing can be kept.
    fn request(&mut self, now_ms: u64, event: Event) -> Result<Reply, BookError> {
        self.keeper.catch_up(now_ms, &self.ledger);
        match self.keeper.failure() {
            Some(detail) => Err(BookError::JournalUnavailable { detail }),
            None => self.apply(now_ms, event).map_err(BookError::Refused),
        }
    }

    fn acquire(&mut self, now_ms: u64, event: Event) -> Outcome {
        match self.request(now_ms, event)? {
            Reply::Granted { claim, .. } => Ok(claim),
            Reply::Released { .. } | Reply::Done => Err(BookError::Refused(RequestRefused::NothingAsked)),
        }
    }

    /// A fact: it holds whether it can be kept or not.
    fn observe(&mut self, now_ms: u64, event: Event) {
        if let Err(refused) = self.apply(now_ms, event) {
            warn!(
                error = &refused as &dyn std::error::Error,
                "BUG: the ledger refuses a fact"
            );
        }
    }

    fn apply(&mut self, now_ms: u64, event: Event) -> Result<Reply, RequestRefused> {
        let mut effects = std::mem::take(&mut self.turn.effects);
        let reply = self.ledger.apply(now_ms, event, &mut effects);
        self.keeper.stage(&effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(_) => {}
                Effect::Changed => self.turn.changed = true,
                Effect::Revoked {
                    holder,
                    reason,
                    message,
                    ..
                } => {
                    info!(%holder, reason, message, "revoked");
                    self.metrics.revoked(reason);
                    self.leases.revoked(&holder, reason, &message);
                }
                Effect::DriftBegan(drift) => warn!(reason = drift.reason.as_str(), message = drift.message, "drift"),
                Effect::DriftEnded(drift) => {
                    info!(reason = drift.reason.as_str(), message = drift.message, "drift is over");
                }
            }
        }
        self.turn.effects = effects;
        reply
    }

    fn take_devices(&mut self, now_ms: u64, inventory: Arc<Inventory>, processes: Vec<GpuProcess>) {
        self.metrics.count_xids(&self.inventory, &inventory);
        let is_driver_ready = matches!(inventory.driver, berth_gpu::DriverState::Ready(_));
        self.driver_seen |= is_driver_ready;
        // What was never seen is not known to be absent: before the driver's first word the book stays closed.
        if self.driver_seen {
            self.observe(
                now_ms,
                Event::Devices(inventory.devices.iter().map(to_placement).collect()),
            );
            if self.processes != processes {
                self.processes.clone_from(&processes);
                self.observe(now_ms, Event::Processes(processes));
            }
        }
        self.turn.touched |= self.inventory.generation != inventory.generation;
        self.inventory = inventory;
    }

    fn note(&mut self, now_ms: u64, finding: Finding) {
        let before = self.conditions.get(finding.kind);
        if before.is_finding(&finding) {
            return;
        }
        let (kind, reason, message) = (finding.kind.as_str(), finding.reason, &finding.message);
        if before.status && !finding.status {
            warn!(condition = kind, reason, %message, "no longer holds");
        } else {
            info!(condition = kind, status = finding.status, reason, %message);
        }
        Arc::make_mut(&mut self.conditions).note(now_ms, finding);
        self.turn.touched = true;
    }

    fn note_reconciled(&mut self, now_ms: u64) {
        const KIND: ConditionType = ConditionType::LedgerReconciled;
        let finding = match (self.driver_seen, self.kubelet_seen) {
            (true, true) => {
                self.ready.ready();
                KIND.holds("Reconciled", "the book knows the devices and what the kubelet assigned")
            }
            (false, _) => KIND.fails(
                "WaitingForDriver",
                "nothing is granted before the driver has told its devices",
            ),
            (true, false) => KIND.fails(
                "WaitingForKubelet",
                "nothing is granted before the kubelet has told what it assigned",
            ),
        };
        if !finding.status {
            self.ready.not_ready(finding.message.clone());
        }
        self.note(now_ms, finding);
    }

    fn serve_waiting(&mut self, now_ms: u64) {
        for waiter in self.leases.take_waiting() {
            let outcome = self.acquire(now_ms, waiter.acquire.clone());
            self.turn.answers.push(Pending::Waiter { waiter, outcome });
        }
    }

    /// Keep, publish, answer.
    fn finish(&mut self, now_ms: u64) {
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
        for pending in &mut answers {
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
fn undo_of(event: &Event, ledger: &Ledger) -> Option<Event> {
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
