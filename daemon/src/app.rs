//! How berthd is put together: [`build`] binds and opens everything or says what is in the way, [`Bound::run`] serves
//! until the shutdown has gone through its phases.
//!
//! | thread | runs |
//! |---|---|
//! | main | admin endpoint, kubelet poller, devices' feed, certificates, signals, shutdown |
//! | `serving` | gRPC, its streams, and the book, which alone may wait for the disk |
//! | `journal-flush` | the group commit |
//! | monitor's threads | the driver: may hang there |

mod parts;
mod serving;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use berth_gpu::MonitorHandle;
use berth_runtime::{
    BuildInfo, Outcome, Readiness, SharedClock, Tasks,
    admin::{Admin, config_page},
    announce::Addresses,
    listen::ListenError,
    metrics,
    process::{self, Context, Pages},
    tls::ServerTls,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::error;
use uuid::Uuid;

use self::serving::{Serving, Stops};
use crate::{
    book::{Actor, Book},
    config::{Config, DeviceSource, authority},
    grpc,
    health_store::HealthStore,
    inventory::Feed,
    journal::JournalError,
    metrics::Metrics,
    mirror::Mirror,
    podresources,
};

/// Of `terminationGracePeriodSeconds` (30 by default) the most that a shutdown takes; it takes a fraction of a second.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);

/// This program.
pub const BUILD: BuildInfo = BuildInfo::of("berthd");

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
    context: Context,
    addresses: Addresses,
    serving: Serving,
    routes: Routes,
    identity: Arc<grpc::Identity>,
    admin: Admin,
    pages: Pages,
    tls: Option<ServerTls>,
    book: Book,
    actor: Actor,
    metrics: Metrics,
    monitor: Arc<MonitorHandle>,
    store: HealthStore,
    readiness: Readiness,
    phases: Phases,
}

/// What the services look at: cancelled one after the other when berthd ends.
#[derive(Debug, Default)]
struct Phases {
    refuse: CancellationToken,
    end_streams: CancellationToken,
}

/// Call it inside the tokio runtime.
pub fn build(config: Config, context: Context) -> Result<Bound, StartError> {
    let clock = SharedClock::clone(&context.clock);
    let tls = config
        .tls
        .clone()
        .map(|files| ServerTls::new(files, SharedClock::clone(&clock)));
    if let Some(tls) = &tls {
        parts::check_tls(&tls.status().borrow())?;
    }
    let admin = Admin::bind(config.admin)?;
    let mut serving = Serving::new().map_err(StartError::Thread)?;
    let grpc_addr = serving.bind(config.listen, tls.clone(), &config.socket)?;

    let readiness = Readiness::new(SharedClock::clone(&clock));
    let mut registry = metrics::registry(BUILD);
    let metrics = Metrics::register(&mut registry, SharedClock::clone(&clock));
    if let Some(tls) = &tls {
        tls.register_metrics(&mut registry);
    }
    let (book, actor) = parts::restore_book(&config, &clock, &metrics, &readiness)?;
    Metrics::register_levels(&mut registry, book.views().clone());

    let store = HealthStore::new(&config.state_dir);
    let monitor = Arc::new(parts::start_monitor(&config, &clock, &store).map_err(StartError::Thread)?);
    let phases = Phases::default();
    let identity = Arc::new(grpc::Identity {
        instance_id: Uuid::new_v4().to_string(),
        version: BUILD.version,
        simulated: matches!(config.devices, DeviceSource::Simulated { .. }),
    });
    let routes = grpc::routes(grpc::Parts {
        book: book.clone(),
        monitor: Arc::clone(&monitor),
        may_change: config.may_change.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        tasks: context.tasks.clone(),
        identity: Arc::clone(&identity),
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
    let pages = Pages {
        registry: Arc::new(registry),
        readiness: readiness.clone(),
        config: config_page(&config),
        more: parts::debug_pages(book.views().clone()),
    };
    Ok(Bound {
        config,
        context,
        addresses,
        serving,
        routes,
        identity,
        admin,
        pages,
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

impl Bound {
    /// What was bound, with the real ports.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until the process's shutdown, and goes through its phases.
    ///
    /// # Errors
    /// It cannot be told what is bound.
    pub async fn run(self) -> Result<Outcome, process::StartError> {
        let context = self.context;
        context.announce(&self.addresses)?;
        let tasks = &context.tasks;
        let mut drain = context.drain(&self.readiness, DRAIN_DEADLINE);
        let Phases { refuse, end_streams } = self.phases;
        drain.phase("refuse new grants", async move { refuse.cancel() });
        drain.phase("end streams", async move { end_streams.cancel() });
        let accepting = drain.token("stop accepting");
        let (served, is_served) = tokio::sync::oneshot::channel::<()>();
        drain.phase("finish calls", async move { drop(is_served.await) });

        let stop_workers = drain.token("stop workers");
        let workers = Workers {
            tls: self.tls,
            book: &self.book,
            metrics: self.metrics,
            addresses: &self.addresses,
            monitor: &self.monitor,
            store: self.store,
            identity: self.identity,
            clock: context.clock.clone(),
        };
        workers.spawn(self.config.clone(), tasks, &stop_workers);
        let monitor = self.monitor;
        drain.phase("stop the monitor", async move {
            monitor.stop();
            monitor.stopped().await;
        });

        let stops = Stops {
            accepting,
            book: drain.token("close the book"),
            served,
        };
        let traced = self.config.traced;
        if let Err(error) = self.serving.start(tasks, self.routes, traced, self.actor, stops) {
            context
                .shutdown
                .fail(format!("the operating system refuses a thread: {error}"));
        }
        // The journal is flushed when the book's task ends.
        Ok(context.serve(drain, self.admin, self.pages).await)
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// What the tasks of the main thread are made of.
struct Workers<'a> {
    tls: Option<ServerTls>,
    book: &'a Book,
    metrics: Metrics,
    addresses: &'a Addresses,
    monitor: &'a MonitorHandle,
    store: HealthStore,
    identity: Arc<grpc::Identity>,
    clock: SharedClock,
}

impl Workers<'_> {
    fn spawn(self, config: Config, tasks: &Tasks, stop: &CancellationToken) {
        let Self {
            tls,
            book,
            metrics,
            addresses,
            monitor,
            store,
            identity,
            clock,
        } = self;
        let text = |address: &Option<String>| address.clone().unwrap_or_default();
        let feed = Feed {
            inventory: monitor.inventory.clone(),
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
        drop(tasks.spawn("health-memory", store.follow(monitor.memory.clone(), stop.clone())));
        let conditions = parts::follow_tls(tls.clone(), book.clone(), stop.clone());
        drop(tasks.spawn("conditions-tls", conditions));
        if let Some(tls) = tls {
            drop(tasks.spawn("tls", tls.follow(stop.clone())));
        }
        if let Some(mirror) = config.mirror.clone() {
            let scheme = if config.tls.is_some() { "https" } else { "http" };
            let port = addresses
                .grpc
                .as_deref()
                .and_then(|address| address.parse::<SocketAddr>().ok());
            let authority = mirror
                .advertise
                .zip(port)
                .and_then(|(host, at)| authority(&host, at.port()));
            let mirror = Mirror {
                access: mirror.access,
                build: BUILD,
                node: config.node.clone(),
                node_health: mirror.node_health,
                address: authority.map(|it| format!("{scheme}://{it}")).unwrap_or_default(),
                identity,
                views: book.views().subscribe(),
                metrics: metrics.clone(),
                clock: SharedClock::clone(&clock),
            };
            drop(tasks.spawn("mirror", mirror.run(stop.clone())));
        }
        let kubelet = podresources::follow(config.kubelet, book.clone(), metrics, clock, stop.clone());
        drop(tasks.spawn("kubelet", async move {
            if let Err(error) = kubelet.await {
                error!(error = &error as &dyn std::error::Error, "the kubelet cannot be asked");
            }
        }));
    }
}
