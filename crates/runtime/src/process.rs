//! A process from its arguments to its exit code: what each `main` and the end of each program have in common. It does
//! not know what the program serves.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus_client::registry::Registry;
use tokio::runtime::Builder;
use tracing::info;
use uuid::Uuid;

use crate::admin::{Admin, AdminState};
use crate::announce::{Addresses, write_addresses};
use crate::args::TelemetryArgs;
use crate::telemetry::{LogLevel, Telemetry, TelemetryError};
use crate::tls::install_crypto_provider;
use crate::{BuildInfo, Drain, Outcome, Readiness, SharedClock, Shutdown, SystemClock, Tasks};

/// For traces that are left at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// What a program takes from outside. Clones share one process.
#[derive(Debug, Clone)]
pub struct Context {
    pub build: BuildInfo,
    pub clock: SharedClock,
    pub shutdown: Shutdown,
    pub tasks: Tasks,
    pub log_level: LogLevel,
    /// Of names, ties and jitter: another one in each process.
    pub seed: u64,
}

/// Who runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The main thread: enough for a program that waits for others nearly always.
    Main,
    Workers(usize),
}

/// What the admin endpoint of a program shows.
#[derive(Debug)]
pub struct Pages {
    pub registry: Arc<Registry>,
    pub readiness: Readiness,
    /// See [`config_page`](crate::admin::config_page).
    pub config: serde_json::Value,
    /// Pages of its own.
    pub more: Router,
}

/// A process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the operating system refuses threads")]
    Threads(#[source] io::Error),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error("cannot tell the addresses")]
    Addresses(#[source] io::Error),
}

/// Runs `program` in a runtime of its own, with logs, traces and signals, and sends what is left of the traces.
///
/// # Errors
/// The process cannot start, or what `program` says.
pub fn run<E: From<StartError>>(
    build: BuildInfo,
    telemetry: &TelemetryArgs,
    threads: Threads,
    program: impl AsyncFnOnce(Context) -> Result<ExitCode, E>,
) -> Result<ExitCode, E> {
    install_crypto_provider();
    let mut runtime = match threads {
        Threads::Main => Builder::new_current_thread(),
        Threads::Workers(workers) => {
            let mut runtime = Builder::new_multi_thread();
            runtime.worker_threads(workers);
            runtime
        }
    };
    let runtime = runtime.thread_name(build.name).enable_all().build();
    runtime.map_err(StartError::Threads)?.block_on(async {
        let telemetry = Telemetry::start(telemetry, build).map_err(StartError::from)?;
        let context = Context::new(build, telemetry.log_level());
        let listens = context.shutdown.listen_for_signals(&context.tasks);
        listens.map_err(StartError::Signals)?;
        let ended = program(context).await;
        telemetry.flush(FLUSH).await;
        ended
    })
}

impl Context {
    /// Of a process that hears no signal: [`run`] makes those that do.
    pub fn new(build: BuildInfo, log_level: LogLevel) -> Self {
        let shutdown = Shutdown::new();
        Self {
            build,
            clock: SystemClock::shared(),
            tasks: Tasks::new(shutdown.clone()),
            shutdown,
            log_level,
            seed: Uuid::new_v4().as_u64_pair().0,
        }
    }

    /// Says in the log, and to whoever asked for port 0, what is served where. Call it when everything is bound.
    ///
    /// # Errors
    /// The parent's file cannot be written.
    pub fn announce(&self, addresses: &Addresses) -> Result<(), StartError> {
        info!(
            grpc = addresses.grpc,
            extender = addresses.extender,
            http = addresses.http,
            webhook = addresses.webhook,
            admin = addresses.admin,
            socket = addresses.socket,
            "serving"
        );
        write_addresses(addresses).map_err(StartError::Addresses)
    }

    /// The phases of the end, `deadline` for all of them; the first says that nothing new is wanted.
    pub fn drain(&self, readiness: &Readiness, deadline: Duration) -> Drain {
        let mut drain = Drain::new(self.shutdown.clone(), self.clock.clone(), deadline);
        let off = readiness.clone();
        drain.phase("readiness off", async move { off.shut_down() });
        drain
    }

    /// Serves until the shutdown, and to its end. The admin endpoint answers until the phases of `drain` are over, and then
    /// every task is waited for.
    pub async fn serve(self, mut drain: Drain, admin: Admin, pages: Pages) -> Outcome {
        let Pages {
            registry,
            readiness,
            config,
            more,
        } = pages;
        let state = AdminState {
            registry,
            readiness,
            tasks: self.tasks.clone(),
            log_level: self.log_level,
            config,
        };
        admin.serve(state, more, &drain.token("admin off"));
        let tasks = self.tasks;
        drain.phase("tasks", async move { tasks.join().await });
        drain.run().await
    }
}
