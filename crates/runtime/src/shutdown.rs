//! How a process ends: one request to stop, one to stop *now*, and named phases in between with one deadline.
//!
//! ```text
//! SIGTERM, SIGINT, trigger(), fail()  ->  started   ->  phase 1, phase 2, ... (Drain::run)  ->  Outcome -> exit code
//! a second signal, the deadline       ->  forced    ->  phases that still wait are abandoned, tokens are cancelled
//! ```
//! This file knows nothing of what the phases do.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{SharedClock, Tasks};

/// The wish to end the process. Clones share one wish.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    started: CancellationToken,
    forced: CancellationToken,
    failure: Mutex<Option<String>>,
}

/// The ordered list of what to do between the wish to end and the end.
///
/// The order of a daemon: readiness off, refuse new work, end streams, stop workers, flush, and last the admin
/// endpoint, so that `/readyz` answers all the while.
pub struct Drain {
    shutdown: Shutdown,
    clock: SharedClock,
    deadline: Duration,
    phases: Vec<Phase>,
}

struct Phase {
    name: &'static str,
    work: Work,
}

enum Work {
    Cancel(CancellationToken),
    Wait(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// How the drain went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it holds the process's exit code"]
pub struct Outcome {
    /// Why the process ended, if it was by a fault of its own.
    pub failure: Option<String>,
    /// Phases that were abandoned: out of time, or forced.
    pub unfinished: Vec<&'static str>,
    pub took: Duration,
}

// === impl Shutdown ===

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the shutdown. Later calls change nothing.
    pub fn trigger(&self, reason: &str) {
        if !self.shared.started.is_cancelled() {
            info!(reason, "shutting down");
            self.shared.started.cancel();
        }
    }

    /// Starts the shutdown because something is broken that only a restart repairs; the exit code will not be 0.
    /// The first failure is the one that is reported.
    pub fn fail(&self, failure: impl Into<String>) {
        let failure = failure.into();
        error!(failure, "shutting down: the process cannot go on");
        self.shared.failure.lock().get_or_insert(failure);
        self.shared.started.cancel();
    }

    /// Starts the shutdown if need be, and abandons every phase that still waits.
    pub fn force(&self) {
        self.shared.started.cancel();
        self.shared.forced.cancel();
    }

    /// Cancelled when the shutdown starts.
    pub fn started(&self) -> &CancellationToken {
        &self.shared.started
    }

    /// Cancelled when there is no time left.
    pub fn forced(&self) -> &CancellationToken {
        &self.shared.forced
    }

    /// What [`Self::fail`] was told first.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().clone()
    }

    /// From now on the first SIGTERM or SIGINT starts the shutdown and the second forces it.
    ///
    /// # Errors
    /// The operating system refuses the handler.
    pub fn listen_for_signals(&self, tasks: &Tasks) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        // Ends with the runtime: it must be there for the second signal while the tasks are being joined.
        drop(tasks.spawn_detached("signals", async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if shutdown.started().is_cancelled() {
                    warn!(signal = name, "signal during shutdown: not waiting any longer");
                    shutdown.force();
                } else {
                    shutdown.trigger(name);
                }
            }
        }));
        Ok(())
    }
}

// === impl Drain ===

impl Drain {
    /// `deadline` is for all phases together, counted from the start of the shutdown. In Kubernetes it must be a few
    /// seconds less than `terminationGracePeriodSeconds`.
    pub fn new(shutdown: Shutdown, clock: SharedClock, deadline: Duration) -> Self {
        Self {
            shutdown,
            clock,
            deadline,
            phases: Vec::new(),
        }
    }

    /// Adds a phase that lasts as long as `work`. `work` is dropped unfinished when time is up.
    pub fn phase(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.phases.push(Phase {
            name,
            work: Work::Wait(Box::pin(work)),
        });
    }

    /// Adds a phase that cancels the returned token and waits for nothing.
    pub fn token(&mut self, name: &'static str) -> CancellationToken {
        let token = CancellationToken::new();
        self.phases.push(Phase {
            name,
            work: Work::Cancel(token.clone()),
        });
        token
    }

    /// Waits for the shutdown to start, then goes through the phases in order. Out of time, tokens are still cancelled
    /// and a phase whose work is done already still counts as done.
    pub async fn run(self) -> Outcome {
        let Self {
            shutdown,
            clock,
            deadline,
            phases,
        } = self;
        shutdown.started().cancelled().await;
        let start = clock.monotonic();
        let mut out_of_time = pin!(async {
            tokio::select! {
                () = shutdown.forced().cancelled() => {}
                () = tokio::time::sleep(deadline) => warn!(?deadline, "the shutdown takes longer than its deadline"),
            }
            shutdown.force();
        });
        let mut unfinished = Vec::new();
        for Phase { name, work } in phases {
            let phase_start = clock.monotonic();
            match work {
                Work::Cancel(token) => token.cancel(),
                // Biased, so that work that is done already counts even when there is no time left.
                Work::Wait(work) => tokio::select! {
                    biased;
                    () = work => {}
                    () = shutdown.forced().cancelled() => unfinished.push(name),
                    () = &mut out_of_time, if !shutdown.forced().is_cancelled() => unfinished.push(name),
                },
            }
            info!(phase = name, took = ?(clock.monotonic().saturating_sub(phase_start)), "shutdown phase");
        }
        let took = clock.monotonic().saturating_sub(start);
        Outcome {
            failure: shutdown.failure(),
            unfinished,
            took,
        }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases: Vec<_> = self.phases.iter().map(|phase| phase.name).collect();
        f.debug_struct("Drain")
            .field("deadline", &self.deadline)
            .field("phases", &phases)
            .finish_non_exhaustive()
    }
}

// === impl Outcome ===

impl Outcome {
    /// Nothing failed and every phase ran to its end.
    pub fn is_clean(&self) -> bool {
        self.failure.is_none() && self.unfinished.is_empty()
    }

    /// Logs the outcome: the process's last line. 0 when clean, else 1.
    pub fn exit_code(&self) -> ExitCode {
        if self.is_clean() {
            info!(took = ?self.took, "stopped");
            return ExitCode::SUCCESS;
        }
        error!(failure = self.failure, unfinished = ?self.unfinished, took = ?self.took, "stopped, not cleanly");
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests;
