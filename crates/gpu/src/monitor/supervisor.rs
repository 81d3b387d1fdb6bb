//! The supervisor: publishes what is known, answers the handle, and replaces a worker that hangs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use berth_placement::DeviceUuid;
use tokio::sync::{oneshot, watch};

use super::{
    AcknowledgeError, Acknowledged, MonitorClock, MonitorConfig,
    state::{Report, State},
    worker::{Lease, Worker},
};
use crate::{
    GpuBackend, GpuError,
    health::HealthMemory,
    inventory::{DriverState, Inventory},
};

/// How long a stop waits for the worker before it leaves it behind.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// A hang is `hang_after` without progress, seen in so many looks: a machine that was suspended is no driver that hangs.
const LOOKS: u32 = 4;

pub(super) enum Message {
    Report {
        worker: u64,
        report: Report,
    },
    /// The worker's thread is about to end.
    Exited,
    Acknowledge {
        device: DeviceUuid,
        message: String,
        answer: oneshot::Sender<Result<Acknowledged, AcknowledgeError>>,
    },
    /// Look at the flags.
    Wake,
}

pub(super) struct Wiring {
    pub(super) backend: Box<dyn FnMut() -> Box<dyn GpuBackend> + Send>,
    pub(super) inventory: watch::Sender<Arc<Inventory>>,
    pub(super) memory: watch::Sender<Arc<HealthMemory>>,
    pub(super) messages: SyncSender<Message>,
    pub(super) inbox: Receiver<Message>,
    pub(super) stopping: Arc<AtomicBool>,
}

pub(super) struct Supervisor {
    config: MonitorConfig,
    clock: MonitorClock,
    state: State,
    wiring: Wiring,
    worker: Option<Running>,
    /// Workers that hang in the driver.
    abandoned: Vec<JoinHandle<()>>,
    /// Number of the worker to come; reports of others are stale.
    next_worker: u64,
    /// Not before this may a worker be started.
    start_after: Duration,
    last_look: Duration,
}

struct Running {
    number: u64,
    thread: JoinHandle<()>,
    lease: Arc<Lease>,
    progress: u64,
    stalled: u32,
}

/// Tells the supervisor that a worker ended, also by a panic.
struct ExitNotice(SyncSender<Message>);

impl Drop for ExitNotice {
    fn drop(&mut self) {
        // Full means that the supervisor is awake: it looks at its threads.
        drop(self.0.try_send(Message::Exited));
    }
}

impl Supervisor {
    pub(super) fn new(config: MonitorConfig, clock: MonitorClock, memory: HealthMemory, wiring: Wiring) -> Self {
        let state = State::new(config.health.clone(), config.boot_id.clone(), memory);
        let start = (clock.monotonic)();
        Self {
            config,
            clock,
            state,
            wiring,
            worker: None,
            abandoned: Vec::new(),
            next_worker: 0,
            start_after: start,
            last_look: start,
        }
    }

    pub(super) fn run(mut self) {
        let look = self.config.hang_after / LOOKS;
        while !self.wiring.stopping.load(Ordering::Acquire) {
            self.look_after_worker(look);
            self.publish();
            match self.wiring.inbox.recv_timeout(look) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(message) = self.wiring.inbox.try_recv() {
                self.take(message);
            }
        }
        self.stop();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Report { worker, report } => {
                if self.worker.as_ref().is_some_and(|running| running.number == worker) {
                    self.state.apply(self.clock.now(), report);
                }
            }
            Message::Acknowledge {
                device,
                message,
                answer,
            } => {
                let outcome = self.state.acknowledge(self.clock.now(), &device, &message);
                // Published before it is answered: who was answered finds it in the inventory.
                self.publish();
                drop(answer.send(outcome));
            }
            Message::Exited | Message::Wake => {}
        }
    }

    fn look_after_worker(&mut self, look: Duration) {
        let now = self.clock.now();
        self.abandoned.retain(|thread| !thread.is_finished());
        if self.worker.as_ref().is_some_and(|running| running.thread.is_finished()) {
            self.worker = None;
            self.start_after = now.monotonic + self.config.retry_max;
            let detail = "the thread that calls the driver ended unexpectedly".to_owned();
            tracing::error!("{detail}");
            self.state
                .apply(now, Report::ConnectFailed(GpuError::Transient { detail }));
        }
        if now.monotonic.saturating_sub(self.last_look) >= look {
            self.last_look = now.monotonic;
            self.watch_progress();
        }
        if self.worker.is_none() && now.monotonic >= self.start_after {
            self.start_worker();
        }
    }

    fn watch_progress(&mut self) {
        let now = self.clock.now();
        let Some(running) = &mut self.worker else {
            self.state.silence(now, self.abandoned.len());
            return;
        };
        let progress = running.lease.progress.count();
        if progress == running.progress {
            running.stalled += 1;
        } else {
            (running.progress, running.stalled) = (progress, 0);
        }
        if running.stalled >= LOOKS
            && let Some(running) = self.worker.take()
        {
            tracing::error!(after = ?self.config.hang_after, "a driver call hangs; its thread is left behind");
            running.lease.end();
            self.abandoned.push(running.thread);
            self.start_after = now.monotonic + self.config.retry_min;
            self.state.silence(now, self.abandoned.len());
        }
    }

    fn start_worker(&mut self) {
        if self.abandoned.len() >= self.config.max_abandoned {
            return;
        }
        let number = self.next_worker;
        self.next_worker += 1;
        let lease = Arc::new(Lease::default());
        let messages = self.wiring.messages.clone();
        let worker = Worker {
            config: self.config.clone(),
            clock: self.clock.clone(),
            lease: Arc::clone(&lease),
            report: Box::new(move |report| messages.send(Message::Report { worker: number, report }).is_ok()),
        };
        let backend = (self.wiring.backend)();
        let notice = ExitNotice(self.wiring.messages.clone());
        let body = move || {
            let _notice = notice;
            worker.run(backend);
        };
        match thread::Builder::new().name("gpu-driver".to_owned()).spawn(body) {
            Ok(thread) => {
                self.worker = Some(Running {
                    number,
                    thread,
                    lease,
                    progress: 0,
                    stalled: 0,
                });
            }
            Err(error) => {
                tracing::error!(%error, "no thread for the driver can be started");
                self.start_after = (self.clock.monotonic)() + self.config.retry_max;
            }
        }
    }

    fn publish(&self) {
        let inventory = &self.wiring.inventory;
        inventory.send_if_modified(|published| {
            let mut next = self.state.inventory();
            if next.driver == DriverState::Starting
                || next
                    == (Inventory {
                        generation: next.generation,
                        ..Inventory::clone(published)
                    })
            {
                return false;
            }
            next.generation = published.generation + u64::from(next.differs_materially(published));
            *published = Arc::new(next);
            true
        });
        self.wiring.memory.send_if_modified(|published| {
            let next = self.state.memory();
            let changed = next != **published;
            if changed {
                *published = Arc::new(next);
            }
            changed
        });
    }

    /// Ends the worker, or leaves it behind if it does not come back in time.
    fn stop(mut self) {
        let Some(running) = self.worker.take() else { return };
        running.lease.end();
        let deadline = (self.clock.monotonic)() + STOP_GRACE;
        while !running.thread.is_finished() {
            let left = deadline.saturating_sub((self.clock.monotonic)());
            if left.is_zero() {
                tracing::warn!("a driver call hangs; its thread is left behind");
                return;
            }
            // Whatever comes is a reason to look: the worker's notice that it exits, or a last report that must make room.
            drop(self.wiring.inbox.recv_timeout(left.min(STOP_GRACE / 20)));
        }
    }
}
