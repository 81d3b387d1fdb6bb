//! How berthd is put together: [`build`] binds and opens everything or says what is in the way, [`Bound::run`] serves
//! until the shutdown has gone through its phases.
//!
//! | thread or task | owns |
//! |---|---|
//! | tokio workers | gRPC, streams, the kubelet's poller, the devices' feed, admin |
//! | `book` | the ledger and the journal: the only one that may wait for the disk |
//! | `journal-flush` | the group commit |
//! | monitor's threads | the driver: may hang there |

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use axum::{Json, Router, routing::get};
use berth_gpu::{
    GpuBackend, Monitor, MonitorClock, MonitorConfig, MonitorHandle, NvmlBackend, SimBackend, monitor::boot_id,
};
use berth_ledger::LedgerConfig;
use berth_runtime::{
    BuildInfo, Drain, Outcome, Readiness, SharedClock, Shutdown, Tasks,
    admin::{Admin, AdminState, config_page},
    announce::Addresses,
    listen::{Listen, ListenError},
    metrics,
    telemetry::LogLevel,
    tls::{ServerTls, TlsProblem, TlsStatus},
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{error, warn};
use uuid::Uuid;

use crate::{
    book::{self, Actor, ActorOptions, Book, Views},
    conditions::{ConditionType, Finding},
    config::{Config, DeviceSource},
    grpc,
    health_store::HealthStore,
    inventory::Feed,
    journal::{JournalError, JournalOptions},
    metrics::Metrics,
    podresources,
};

/// Of `terminationGracePeriodSeconds` (30 by default) the most that a shutdown takes; it takes a fraction of a second.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);

/// This program.
pub const BUILD: BuildInfo = BuildInfo::of("berthd");

/// What a process gives to its parts.
#[derive(Debug, Clone)]
pub struct Process {
    pub clock: SharedClock,
    pub shutdown: Shutdown,
    pub tasks: Tasks,
    pub log_level: LogLevel,
}

/// Why berthd cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("TLS cannot be served: {0}")]
    Tls(String),
    #[error("the operating system refuses a thread")]
    Thread(#[source] io::Error),
    #[error("gRPC cannot be served")]
    Grpc(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// berthd with everything bound and opened, not yet serving.
pub struct Bound {
    config: Config,
    process: Process,
    addresses: Addresses,
    listen: Listen,
    admin: Admin,
    admin_state: AdminState,
    routes: Routes,
    tls: Option<ServerTls>,
    book: Book,
    actor: Actor,
    metrics: Metrics,
    monitor: Arc<MonitorHandle>,
    store: HealthStore,
    readiness: Readiness,
    phases: Phases,
}

/// Cancelled one after the other when berthd ends.
#[derive(Debug)]
struct Phases {
    refuse: CancellationToken,
    end_streams: CancellationToken,
}

/// Call it inside the tokio runtime.
pub fn build(config: Config, process: Process) -> Result<Bound, StartError> {
    let clock = SharedClock::clone(&process.clock);
    let tls = config
        .tls
        .clone()
        .map(|files| ServerTls::new(files, SharedClock::clone(&clock)));
    if let Some(tls) = &tls {
        check_tls(&tls.status().borrow())?;
    }
    let admin = Admin::bind(config.admin)?;
    let mut listen = Listen::new();
    let grpc_addr = listen.tcp(config.listen, tls.clone())?;
    listen.unix(&config.socket)?;

    let readiness = Readiness::new(SharedClock::clone(&clock));
    let mut registry = metrics::registry(BUILD);
    let metrics = Metrics::register(&mut registry, SharedClock::clone(&clock));
    if let Some(tls) = &tls {
        tls.register_metrics(&mut registry);
    }
    let (book, actor) = restore_book(&config, &clock, &metrics, &readiness)?;
    Metrics::register_levels(&mut registry, book.views().clone());

    let store = HealthStore::new(&config.state_dir);
    let monitor = Arc::new(start_monitor(&config, &clock, &store).map_err(StartError::Thread)?);
    let phases = Phases {
        refuse: CancellationToken::new(),
        end_streams: CancellationToken::new(),
    };
    let routes = grpc::routes(grpc::Parts {
        book: book.clone(),
        monitor: Arc::clone(&monitor),
        may_change: config.may_change.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        tasks: process.tasks.clone(),
        identity: grpc::Identity {
            instance_id: Uuid::new_v4().to_string(),
            version: BUILD.version,
            simulated: matches!(config.devices, DeviceSource::Simulated { .. }),
        },
        refuse: phases.refuse.clone(),
        end_streams: phases.end_streams.clone(),
    })
    .map_err(|error| StartError::Grpc(error.into()))?;

    let addresses = Addresses {
        grpc: Some(grpc_addr.to_string()),
        admin: Some(admin.bound_addr().to_string()),
        socket: Some(config.socket.display().to_string()),
        ..Addresses::default()
    };
    let admin_state = AdminState {
        registry: Arc::new(registry),
        readiness: readiness.clone(),
        tasks: process.tasks.clone(),
        log_level: process.log_level.clone(),
        config: config_page(&config),
    };
    Ok(Bound {
        config,
        process,
        addresses,
        listen,
        admin,
        admin_state,
        routes,
        tls,
        book,
        actor,
        metrics,
        monitor,
        store,
        readiness,
        phases,
    })
}

/// Certificates that were never good are a mistake to tell at once; what happens to good ones later is a condition.
fn check_tls(status: &TlsStatus) -> Result<(), StartError> {
    match (&status.serving_until_unix_ms, &status.problem) {
        (None, Some(TlsProblem { message, .. })) => Err(StartError::Tls(message.clone())),
        _ => Ok(()),
    }
}

fn restore_book(
    config: &Config,
    clock: &SharedClock,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Result<(Book, Actor), JournalError> {
    let journal = JournalOptions {
        dir: config.state_dir.clone(),
        node: config.node.clone(),
        sync: config.journal_sync,
        clock: SharedClock::clone(clock),
        write_latency: metrics.journal_write.clone(),
        sync_latency: metrics.journal_sync.clone(),
    };
    let ledger = LedgerConfig {
        default_ttl_ms: config.default_ttl_ms,
        ..LedgerConfig::default()
    };
    let options = ActorOptions {
        clock: SharedClock::clone(clock),
        metrics: metrics.clone(),
        ready: readiness.register("book"),
    };
    book::restore(config.node.clone(), ledger, journal, options)
}

fn start_monitor(config: &Config, clock: &SharedClock, store: &HealthStore) -> io::Result<MonitorHandle> {
    let (wall, steady) = (SharedClock::clone(clock), SharedClock::clone(clock));
    let clock = MonitorClock {
        unix_ms: Arc::new(move || wall.now_unix_ms()),
        monotonic: Arc::new(move || steady.monotonic()),
    };
    let monitor = MonitorConfig {
        boot_id: boot_id(),
        ..MonitorConfig::default()
    };
    match &config.devices {
        DeviceSource::Simulated { profile, control } => {
            if PathBuf::from("/proc/driver/nvidia/version").exists() {
                warn!(%profile, "--simulate is given on a machine with an NVIDIA driver: its GPUs are ignored");
            }
            warn!(%profile, "the GPUs are simulated");
            let backend = match control {
                Some(file) => SimBackend::with_control_file(profile, &config.node, file.clone()),
                None => SimBackend::new(profile, &config.node),
            };
            Monitor::spawn(monitor, clock, store.load(), move || {
                Box::new(backend.clone()) as Box<dyn GpuBackend>
            })
        }
        DeviceSource::Nvml { library } => {
            let library = library.clone();
            let backend = move || Box::new(NvmlBackend::new(library.clone())) as Box<dyn GpuBackend>;
            Monitor::spawn(monitor, clock, store.load(), backend)
        }
    }
}

impl Bound {
    /// What was bound, with the real ports.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until the process's shutdown, and goes through its phases.
    pub async fn run(self) -> Outcome {
        let Self {
            config,
            process,
            addresses,
            listen,
            admin,
            admin_state,
            routes,
            tls,
            book,
            actor,
            metrics,
            monitor,
            store,
            readiness,
            phases,
        } = self;
        let Process {
            clock, shutdown, tasks, ..
        } = process;

        let mut drain = Drain::new(shutdown.clone(), clock, DRAIN_DEADLINE);
        drain.phase("readiness off", async move { readiness.shut_down() });
        drain.phase("refuse new grants", async move { phases.refuse.cancel() });
        drain.phase("end streams", async move { phases.end_streams.cancel() });
        let stop_accepting = drain.token("stop accepting");

        let incoming = listen.start(&tasks, &stop_accepting);
        let serving = grpc::serve(routes, incoming, stop_accepting);
        let server = tasks.spawn("grpc", async move {
            if let Err(error) = serving.await {
                error!(
                    error = &error as &dyn std::error::Error,
                    "the gRPC server ended by an error"
                );
            }
        });
        drain.phase("finish calls", async move { drop(server.await) });

        let stop_workers = drain.token("stop workers");
        spawn_workers(
            &tasks,
            &stop_workers,
            Workers {
                config,
                tls,
                book: &book,
                metrics,
                addresses: &addresses,
                monitor: &monitor,
                store,
            },
        );
        drain.phase("stop the monitor", async move {
            monitor.stop();
            monitor.stopped().await;
        });
        let close_book = drain.token("close the book");
        if let Err(error) = spawn_book(&tasks, actor, close_book) {
            shutdown.fail(format!("the operating system refuses a thread: {error}"));
        }
        let stop_admin = drain.token("admin off");
        admin.serve(admin_state, debug_pages(book.views().clone()), &stop_admin);
        // The journal is flushed when the book's thread ends.
        drain.phase("tasks", async move { tasks.join().await });
        drain.run().await
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

struct Workers<'a> {
    config: Config,
    tls: Option<ServerTls>,
    book: &'a Book,
    metrics: Metrics,
    addresses: &'a Addresses,
    monitor: &'a MonitorHandle,
    store: HealthStore,
}

fn spawn_workers(tasks: &Tasks, stop: &CancellationToken, workers: Workers<'_>) {
    let Workers {
        config,
        tls,
        book,
        metrics,
        addresses,
        monitor,
        store,
    } = workers;
    let text = |address: &Option<String>| address.clone().unwrap_or_default();
    let feed = Feed {
        inventory: monitor.inventory.clone(),
        memory: monitor.memory.clone(),
        store,
        book: book.clone(),
        proc_dir: "/proc".into(),
        reachable_at: format!(
            "unix://{} and {} (gRPC), {} (admin)",
            text(&addresses.socket),
            text(&addresses.grpc),
            text(&addresses.admin)
        ),
    };
    drop(tasks.spawn("inventory", feed.run(stop.clone())));
    drop(tasks.spawn("conditions-tls", follow_tls(tls.clone(), book.clone(), stop.clone())));
    if let Some(tls) = tls {
        drop(tasks.spawn("tls", tls.follow(stop.clone())));
    }
    let kubelet = podresources::follow(config.kubelet, book.clone(), metrics, stop.clone());
    drop(tasks.spawn("kubelet", async move {
        if let Err(error) = kubelet.await {
            error!(error = &error as &dyn std::error::Error, "the kubelet cannot be asked");
        }
    }));
}

/// The book may wait for the disk, so it has a thread, with the smallest runtime that has a timer.
fn spawn_book(tasks: &Tasks, actor: Actor, close: CancellationToken) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    tasks.spawn_thread("book", move || runtime.block_on(actor.run(close)))?;
    Ok(())
}

async fn follow_tls(tls: Option<ServerTls>, book: Book, stop: CancellationToken) {
    const KIND: ConditionType = ConditionType::TlsReady;
    let Some(tls) = tls else {
        return book
            .note(KIND.holds("TlsOff", "TCP is served on loopback only, without TLS"))
            .await;
    };
    let mut status = tls.status();
    loop {
        let finding = tls_finding(&status.borrow_and_update());
        book.note(finding).await;
        if !matches!(stop.run_until_cancelled(status.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

fn tls_finding(status: &TlsStatus) -> Finding {
    const KIND: ConditionType = ConditionType::TlsReady;
    match &status.problem {
        None => KIND.holds("CertificateInUse", "the certificate on disk is in use"),
        Some(TlsProblem { reason, message }) => KIND.fails(
            reason,
            format!("{message}; the certificate that was good last stays in use"),
        ),
    }
}

fn debug_pages(views: Views) -> Router {
    Router::new().route(
        "/debug/ledger",
        get(async move || {
            let view = views.current();
            Json(serde_json::json!({
                "generation": view.generation(),
                "reconciled": view.book.reconciled,
                "conditions": view.conditions,
                "devices": view.book.node.devices,
                "missing": *view.book.missing,
                "cordons": *view.book.cordons,
                "claims": *view.book.claims,
                "out_of_band": *view.book.out_of_band,
                "drifts": *view.book.drifts,
            }))
        }),
    )
}
