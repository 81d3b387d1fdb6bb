//! The actor: owns the ledger, takes what is queued in one turn, and gives every answer of the turn together.
//!
//! A turn: apply each command, keep all of it with one write, publish one view, answer. Keeping may block the thread, so
//! it shares one with those only who wait for its answers (see `app::serving`).

mod facts;
mod turn;

use std::{sync::Arc, time::Duration};

use berth_gpu::Inventory;
use berth_ledger::{Effect, Event, GpuProcess, Ledger, Reply, RequestRefused};
use berth_runtime::{Block, SharedClock};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::turn::{Outcome, Pending, Turn, undo_of};
use super::{Book, BookError, Command, NodeView, QUEUE, Views, keeper::Keeper, leases::Leases};
use crate::{conditions::Conditions, metrics::Metrics};

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
        // Whoever waits already comes before whoever asks for a lease now.
        let asking: Vec<_> = batch
            .extract_if(.., |command| matches!(command, Command::Acquire { .. }))
            .collect();
        for command in batch.drain(..) {
            self.take(now_ms, command);
        }
        if self.leases.is_anybody_waiting() && (self.turn.changed || self.turn.touched) {
            self.serve_waiting(now_ms);
        }
        for command in asking {
            self.take(now_ms, command);
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

    fn serve_waiting(&mut self, now_ms: u64) {
        for waiter in self.leases.take_waiting() {
            let outcome = self.acquire(now_ms, waiter.acquire.clone());
            self.turn.answers.push(Pending::Waiter { waiter, outcome });
        }
    }
}
