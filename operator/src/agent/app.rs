//! Composition: what the agent is built from, and in which order it ends.
//!
//! ```text
//! settings ─┐
//! connect ──┼─► inventory, labels ─► report ─► SIS
//!           └─► [`Seam`]: queues and pods
//! ```

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use berth_runtime::{
    BuildInfo, Outcome, Readiness,
    admin::{Admin, config_page},
    announce::Addresses,
    kubernetes::{Access, DEADLINE, within},
    listen::{Listen, ListenError, serve_http},
    metrics,
    process::{self, Context, StartError},
};
use berth_sis::Backoff;
use kube::Client;
use tokio::sync::watch;
use tracing::warn;

use super::{
    args::Args,
    health::{CONFIG, GPU, HEARTBEAT, Health, KUBERNETES, LABELS, REGISTRATION},
    inventory::{Allocation, Follow, Inventory, follow},
    labels,
    metrics::Metrics,
    report::Report,
    seam::{Orders, Seam},
    server::{self, Pages},
    settings::{self, Settings, SettingsError, chain},
    worker,
};

/// All phases of the end together; the pod's grace is 30 s.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// The API server may be upgraded beneath us.
const VERSION_EVERY: Duration = Duration::from_hours(1);

/// It cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("an address cannot be served")]
    Listen(#[from] ListenError),
    #[error("the configuration cannot be used")]
    Settings(#[from] SettingsError),
    #[error("there is no way to the API server: this is no pod, so give --kubeconfig")]
    NoCluster,
}

/// Everything is bound, nothing is served yet.
pub struct Bound {
    context: Context,
    path: PathBuf,
    access: Access,
    listen: Listen,
    http: SocketAddr,
    admin: Admin,
    settings: watch::Sender<Arc<Settings>>,
    inventory: watch::Sender<Option<Arc<Inventory>>>,
    k8s_version: watch::Sender<String>,
    client: watch::Sender<Option<Client>>,
    report: Report,
    seam: Seam,
}

/// Reads the configuration, binds the addresses and puts the parts together. Call it inside the tokio runtime.
///
/// # Errors
/// An address cannot be bound, or nothing says where the API server is. A configuration that is not there yet is none.
pub fn build(args: Args, context: Context) -> Result<Bound, BuildError> {
    let access = args.kubernetes.access().ok_or(BuildError::NoCluster)?;
    let health = Health::starting(&[CONFIG, KUBERNETES, GPU, REGISTRATION, HEARTBEAT, LABELS]);
    let read = Settings::read(&args.config).unwrap_or_else(|error| {
        health.bad(CONFIG, error.reason(), chain(&error));
        Settings::default()
    });
    settings::set_log_level(&read.config, &context.log_level);
    let mut listen = Listen::new();
    let http = server::bind(&mut listen, settings::address(&read.config.agent.svc_addr)?)?;
    let admin = Admin::bind(settings::address(&read.config.agent.admin_addr)?)?;

    let (settings, settings_seen) = watch::channel(Arc::new(read));
    let (inventory, inventory_seen) = watch::channel(None);
    let (k8s_version, k8s_version_seen) = watch::channel(String::new());
    let (client, client_seen) = watch::channel(None);
    let (view, view_seen) = watch::channel(Arc::default());
    let (orders, orders_seen) = watch::channel(Orders::Wait);
    let (allocation, allocation_seen) = watch::channel(Allocation::new());
    let metrics = Metrics::default();
    let report = Report {
        settings: settings_seen.clone(),
        inventory: inventory_seen,
        allocation: allocation_seen,
        k8s_version: k8s_version_seen,
        health_seen: health.subscribe(),
        health: health.clone(),
        metrics: metrics.clone(),
        clock: context.clock.clone(),
        seed: context.seed,
        view,
        orders,
    };
    let seam = Seam {
        settings: settings_seen,
        inventory: inventory.subscribe(),
        view: view_seen,
        orders: orders_seen,
        allocation,
        health,
        metrics,
        client: client_seen,
    };
    Ok(Bound {
        context,
        path: args.config,
        access,
        listen,
        http,
        admin,
        settings,
        inventory,
        k8s_version,
        client,
        report,
        seam,
    })
}

impl Bound {
    fn addresses(&self) -> Addresses {
        Addresses {
            http: Some(self.http.to_string()),
            admin: Some(self.admin.bound_addr().to_string()),
            ..Addresses::default()
        }
    }

    /// Serves until the shutdown, and to its end.
    ///
    /// # Errors
    /// It cannot be told what is bound.
    pub async fn run(self) -> Result<Outcome, StartError> {
        self.context.announce(&self.addresses())?;
        let context = self.context;
        let (build, tasks) = (context.build, &context.tasks);
        let health = self.seam.health.clone();
        let registry = Arc::new(metrics::registry(build));
        let pages = Pages {
            build,
            health: health.clone(),
            view: self.seam.view.clone(),
            settings: self.seam.settings.clone(),
            k8s_version: self.k8s_version.subscribe(),
            metrics: self.seam.metrics.clone(),
            process: Arc::clone(&registry),
        };

        let readiness = Readiness::new(context.clock.clone());
        let mut drain = context.drain(&readiness, DRAIN_DEADLINE);
        // What pods came to is told to SIS while the rest still is.
        let stop_work = drain.token("stop work");
        let worked = tasks.spawn("work", worker::run(self.seam.clone(), context.clock.clone(), stop_work));
        drain.phase("last jobs", async move { drop(worked.await) });
        let stop = drain.token("stop telling");
        let functions = self.seam.settings.borrow().config.agent.requests_namespace.clone();
        let cluster = Cluster {
            access: self.access,
            build,
            client: self.client,
            k8s_version: self.k8s_version,
            inventory: self.inventory,
            functions,
            settings: self.seam.settings.clone(),
            health: health.clone(),
            seed: context.seed,
        };
        drop(tasks.spawn("cluster", stop.clone().run_until_cancelled_owned(cluster.run())));
        let followed = settings::follow(
            self.path,
            self.settings,
            context.log_level.clone(),
            health,
            stop.clone(),
        );
        drop(tasks.spawn("settings", followed));
        drop(tasks.spawn("report", self.report.run(stop)));

        let close = drain.token("close");
        let incoming = self.listen.start(tasks, &close);
        drop(tasks.spawn("service", serve_http(incoming, server::router(pages), close)));
        let pages = process::Pages {
            registry,
            readiness,
            config: config_page(&self.seam.settings.borrow().config),
            more: Router::new(),
        };
        Ok(context.serve(drain, self.admin, pages).await)
    }
}

// A Kubernetes client shows nothing of itself.
impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

/// Everything that is asked of the API server.
struct Cluster {
    access: Access,
    build: BuildInfo,
    client: watch::Sender<Option<Client>>,
    k8s_version: watch::Sender<String>,
    inventory: watch::Sender<Option<Arc<Inventory>>>,
    functions: String,
    settings: watch::Receiver<Arc<Settings>>,
    health: Health,
    seed: u64,
}

impl Cluster {
    async fn run(self) {
        let client = self.connect().await;
        self.client.send_replace(Some(client.clone()));
        let labels = labels::keep(
            client.clone(),
            self.inventory.subscribe(),
            self.settings.clone(),
            self.health.clone(),
            self.seed,
        );
        let version = follow_version(client.clone(), &self.k8s_version, self.seed);
        let follow = follow(Follow {
            client,
            functions: self.functions,
            health: self.health.clone(),
            inventory: self.inventory,
        });
        tokio::join!(labels, version, follow);
    }

    async fn connect(&self) -> Client {
        let mut backoff = backoff(self.seed);
        loop {
            match self.access.client(self.build).await {
                Ok(client) => return client,
                Err(error) => self.health.bad(KUBERNETES, "NoAccess", chain(&error)),
            }
            tokio::time::sleep(backoff.after(None)).await;
        }
    }
}

async fn follow_version(client: Client, k8s_version: &watch::Sender<String>, seed: u64) {
    let mut backoff = backoff(seed);
    loop {
        let wait = match within(DEADLINE, client.apiserver_version()).await {
            Ok(info) => {
                backoff.reset();
                k8s_version.send_if_modified(|current| {
                    let changed = *current != info.git_version;
                    *current = info.git_version;
                    changed
                });
                VERSION_EVERY
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the version of Kubernetes is not known yet");
                backoff.after(None)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

const fn backoff(seed: u64) -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(10), seed)
}
