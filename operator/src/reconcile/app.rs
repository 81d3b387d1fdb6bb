//! Composition of nvca-operator: what is built from what, and in which order it ends.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use berth_runtime::{
    BuildInfo, Outcome, Readiness, SharedClock, Shutdown,
    admin::Admin,
    announce::Addresses,
    kubernetes::{
        Access,
        lease::{Contender, Pace, Turn},
    },
    listen::ListenError,
    metrics,
    process::{Context, Pages, StartError},
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    controller::{Controller, Memory},
    definitions,
    events::Events,
    health::{self, Health},
    live,
    metrics::Metrics,
    settings::Settings,
    teardown::Teardown,
};

/// The Lease of whoever is at work.
const LEASE: &str = "nvca-operator";
/// Rare: an idle operator hardly asks the API server for anything. Whoever ends gives the Lease up at once.
const PACE: Pace = Pace {
    duration: Duration::from_mins(1),
    renewal: Duration::from_secs(25),
};
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(15);

/// What it shall do.
#[derive(Debug, Clone)]
pub struct Config {
    pub access: Access,
    pub settings: Settings,
    pub admin: std::net::SocketAddr,
    pub health_url: String,
    pub drain: Duration,
    /// For `/debug/config`.
    pub shown: serde_json::Value,
}

/// Everything is bound, nothing is served yet.
#[derive(Debug)]
pub struct Bound {
    context: Context,
    config: Config,
    admin: Admin,
    registry: Registry,
    metrics: Metrics,
    readiness: Readiness,
}

/// Binds the address. Call it inside the tokio runtime.
///
/// # Errors
/// It cannot be bound.
pub fn build(config: Config, context: Context) -> Result<Bound, ListenError> {
    let mut registry = metrics::registry(context.build);
    Ok(Bound {
        admin: Admin::bind(config.admin)?,
        metrics: Metrics::register(&mut registry),
        readiness: Readiness::new(context.clock.clone()),
        registry,
        config,
        context,
    })
}

impl Bound {
    fn addresses(&self) -> Addresses {
        Addresses {
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
        let mut drain = context.drain(&self.readiness, DRAIN_DEADLINE);
        let build = context.build;
        let work = Work {
            config: self.config.clone(),
            build,
            clock: context.clock.clone(),
            identity: Uuid::new_v4().to_string(),
            metrics: self.metrics,
            shutdown: context.shutdown.clone(),
        };
        let worked = context.tasks.spawn("operator", work.run(drain.token("stop")));
        drain.phase("leave", async move { drop(worked.await) });
        // The chart's probes, as the real operator answers them.
        let more = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/version", get(async move || format!("{}\n", build.version)));
        let pages = Pages {
            registry: Arc::new(self.registry),
            readiness: self.readiness,
            config: self.config.shown,
            more,
        };
        Ok(context.serve(drain, self.admin, pages).await)
    }
}

/// The work, once it is this process's turn.
struct Work {
    config: Config,
    build: BuildInfo,
    clock: SharedClock,
    identity: String,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl Work {
    async fn run(self, stop: CancellationToken) {
        let Some(client) = stop.run_until_cancelled(self.client()).await else {
            return;
        };
        let contender = Contender {
            namespace: self.config.settings.namespace.clone(),
            name: LEASE,
            identity: self.identity.clone(),
            pace: PACE,
        };
        let turn = Turn::new(client.clone(), contender, self.clock.clone());
        let (to_live, live) = watch::channel(None);
        let (to_health, health) = watch::channel(Health::default());
        let controller = Controller {
            settings: self.config.settings.clone(),
            live,
            health,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            events: Events::new(client.clone(), &self.config.settings.namespace, self.clock.clone()),
            teardown: Teardown {
                client: client.clone(),
                drain: self.config.drain,
            },
            memory: Memory::default(),
            client: client.clone(),
        };
        // Those that stand by watch too: they are ready when it is their turn.
        let follow = async {
            definitions::bring(&client).await;
            live::follow(client.clone(), self.config.settings.namespace.clone(), to_live).await;
        };
        let work = async {
            turn.come().await;
            info!("this operator is at work");
            let ask = health::follow(self.config.health_url.clone(), to_health);
            tokio::select! {
                () = controller.run() => {}
                () = ask => {}
                () = turn.pass() => {}
            }
        };
        let ended = stop.run_until_cancelled(Box::pin(async {
            tokio::select! {
                () = follow => {}
                () = work => {}
            }
        }));
        if ended.await.is_some() {
            // What it did was half-way; a new process looks at everything anew.
            self.shutdown.fail("the lease is lost");
        }
        turn.leave().await;
    }

    /// Files may be late, as secrets are.
    async fn client(&self) -> kube::Client {
        let mut wait = FIRST_WAIT;
        loop {
            match self.config.access.client(self.build).await {
                Ok(client) => return client,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "no way to the API server yet: trying on");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }
}
