//! Composition: what is built from what, and in which order it ends.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use berth_placement::EngineConfig;
use berth_runtime::{
    Outcome, Readiness, Tasks,
    admin::{Admin, config_page},
    announce::Addresses,
    dial::DialError,
    grpc::DescriptorError,
    listen::{Listen, ListenError, serve_http},
    metrics,
    process::{Context, Pages, StartError},
    tls::{ClientTls, ServerTls},
};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    binder::{Binder, EventPoster, KubernetesBinder, ReserveOnly},
    cluster::Cluster,
    config::{Config, KaiConfig},
    daemons::Daemons,
    debug,
    decide::Decider,
    decisions::Decisions,
    extender::{self, Extender},
    grpc,
    kai::KaiFeed,
    metrics::Metrics,
    pods::{self, Pods},
    random::Ids,
    reserve::Reserver,
    source::{self, Feed, Kubernetes, Source},
    webhook::Webhook,
};

/// All phases of the end together. A bind in flight takes a few seconds at most.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);
/// How exact graces and deadlines are.
const SWEEP: Duration = Duration::from_millis(250);

/// It cannot start.
#[derive(Debug, Error)]
pub enum BuildError {
    #[error("an address cannot be served")]
    Listen(#[from] ListenError),
    #[error("there is no way to a node")]
    Dial(#[from] DialError),
    #[error("the gRPC descriptors cannot be read")]
    Descriptors(#[from] DescriptorError),
}

/// What feeds KAI, once there is a way to the API server.
#[derive(Debug)]
struct Kai {
    feed: KaiFeed,
    webhook: Webhook,
}

/// Everything is bound, nothing is served yet.
#[derive(Debug)]
pub struct Bound {
    context: Context,
    config: serde_json::Value,
    listen: Listen,
    extender_addr: SocketAddr,
    grpc: grpc::Server,
    kai: Option<Kai>,
    admin: Admin,
    tls: Option<ServerTls>,
    extender: Arc<Extender>,
    feed: Feed,
    poster: Option<EventPoster>,
    readiness: Readiness,
    registry: Registry,
}

/// Binds every address and puts the parts together. Call it inside the tokio runtime.
///
/// # Errors
/// An address cannot be bound, or a target cannot be dialled.
pub fn build(config: Config, context: Context) -> Result<Bound, BuildError> {
    if matches!(config.source, Source::Kubernetes(_)) {
        let (binder, poster) = KubernetesBinder::new(context.clock.clone());
        return assemble(config, context, Arc::new(binder.clone()), Some((binder, poster)));
    }
    assemble(config, context, Arc::new(ReserveOnly), None)
}

/// As [`build`], with another binder and without Kubernetes.
pub fn build_with(config: Config, context: Context, binder: Arc<dyn Binder>) -> Result<Bound, BuildError> {
    assemble(config, context, binder, None)
}

fn assemble(
    config: Config,
    context: Context,
    binder: Arc<dyn Binder>,
    kubernetes: Option<(KubernetesBinder, EventPoster)>,
) -> Result<Bound, BuildError> {
    let shown = config_page(&config);
    let clock = context.clock.clone();
    let admin = Admin::bind(config.admin)?;
    let tls = config.tls.map(|files| ServerTls::new(files, clock.clone()));
    let mut listen = Listen::new();
    let extender_addr = listen.tcp(config.listen, tls.clone())?;

    let mut registry = metrics::registry(context.build);
    if let Some(tls) = &tls {
        tls.register_metrics(&mut registry);
    }
    let readiness = Readiness::new(clock.clone());
    let engine = EngineConfig {
        policy: config.policy,
        seed: context.seed,
        ..EngineConfig::default()
    };
    let grace = config.unreachable_after.0;
    let cluster = Arc::new(Cluster::new(engine, grace, clock.clone()));
    let daemons = Daemons::new(config.node_tls.map(ClientTls::new));
    let metrics = Metrics::register(&mut registry, Arc::clone(&cluster));
    let pods = Arc::new(Pods::new(clock.clone(), pods::CAPACITY));
    let decisions = Arc::<Decisions>::default();
    let reserver = Reserver {
        cluster: Arc::clone(&cluster),
        daemons: daemons.clone(),
        pods: Arc::clone(&pods),
        decisions: Arc::clone(&decisions),
        metrics: metrics.clone(),
        binder,
        clock: clock.clone(),
        tasks: context.tasks.clone(),
        refuse: CancellationToken::new(),
        deadline: config.bind_timeout.0,
    };
    let (connect, poster) = kubernetes.unzip();
    let kai_binder = connect.clone();
    cluster.set_known(connect.is_none());
    let feed = match (config.source, connect) {
        (Source::Daemons(targets), _) => {
            source::follow_daemons(targets, &cluster, &daemons, &readiness, grace, context.seed)?
        }
        (Source::Kubernetes(access), Some(binder)) => Feed::Kubernetes(Box::new(Kubernetes {
            access,
            build: context.build,
            cluster: Arc::clone(&cluster),
            daemons: daemons.clone(),
            reserver: reserver.clone(),
            binder,
            block: readiness.register("api server"),
        })),
        (Source::Simulated(simulated), _) => {
            simulated.fill(&cluster);
            Feed::Still
        }
        (Source::Kubernetes(_), None) => Feed::Still,
    };
    let decider = Arc::new(Decider {
        cluster: Arc::clone(&cluster),
        decisions: Arc::clone(&decisions),
        metrics: metrics.clone(),
        ids: Ids::new(clock.clone(), context.seed),
        clock: clock.clone(),
    });
    let kai = config.kai.zip(kai_binder);
    let kai = kai.map(|(config, binder)| Kai::bind(config, binder, &decider, &pods, &reserver));
    let grpc = grpc::Parts {
        decider: Arc::clone(&decider),
        pods: Arc::clone(&pods),
        reserver: reserver.clone(),
        metrics: metrics.clone(),
        may_reserve: config.may_reserve,
        readiness: readiness.clone(),
        tasks: context.tasks.clone(),
        end_streams: CancellationToken::new(),
    };
    Ok(Bound {
        config: shown,
        grpc: grpc::Server::bind(config.grpc, tls.clone(), grpc)?,
        kai: kai.transpose()?,
        listen,
        extender_addr,
        admin,
        tls,
        feed,
        poster,
        extender: Arc::new(Extender {
            cluster,
            pods,
            decisions,
            reserver,
            decider,
            metrics,
            clock,
            limits: config.limits,
        }),
        readiness,
        registry,
        context,
    })
}

impl Bound {
    pub fn addresses(&self) -> Addresses {
        Addresses {
            extender: Some(self.extender_addr.to_string()),
            grpc: Some(self.grpc.addr.to_string()),
            webhook: self.kai.as_ref().map(|kai| kai.webhook.addr.to_string()),
            admin: Some(self.admin.bound_addr().to_string()),
            ..Addresses::default()
        }
    }

    /// The extender's routes, without a socket.
    pub fn router(&self) -> Router {
        extender::router(Arc::clone(&self.extender))
    }

    /// Follows [`Readiness`].
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Serves until the shutdown, and to its end.
    ///
    /// # Errors
    /// It cannot be told what is bound.
    pub async fn run(self) -> Result<Outcome, StartError> {
        self.context.announce(&self.addresses())?;
        let router = self.router();
        let context = self.context;
        let tasks = &context.tasks;

        let mut drain = context.drain(&self.readiness, DRAIN_DEADLINE);
        let refuse = self.extender.reserver.refuse.clone();
        drain.phase("refuse binds", async move { refuse.cancel() });
        let close = drain.token("close extender");
        let incoming = self.listen.start(tasks, &close);
        let served = tasks.spawn("extender", serve_http(incoming, router, close));
        drain.phase("answer what was asked", async move { drop(served.await) });
        let end_streams = self.grpc.end_streams.clone();
        drain.phase("end streams", async move { end_streams.cancel() });
        let calls = self.grpc.start(tasks, drain.token("close gRPC"));
        drain.phase("answer calls", async move { drop(calls.await) });
        let reviewed = self
            .kai
            .map(|kai| kai.start(tasks, &drain.token("close webhook"), &drain.token("stop feeding KAI")));
        drain.phase("answer reviews", async move {
            if let Some(reviewed) = reviewed {
                drop(reviewed.await);
            }
        });
        let stop = drain.token("stop following");
        self.feed.start(tasks, &stop);
        if let Some(poster) = self.poster {
            drop(tasks.spawn("events", poster.run(stop.clone())));
        }
        let sweep = sweep(Arc::clone(&self.extender.cluster));
        drop(tasks.spawn("sweep", stop.clone().run_until_cancelled_owned(sweep)));
        let rebuild = rebuild(Arc::clone(&self.extender.cluster));
        drop(tasks.spawn("rebuild", stop.clone().run_until_cancelled_owned(rebuild)));
        if let Some(tls) = self.tls {
            drop(tasks.spawn("follow-tls", tls.follow(stop.clone())));
        }
        let pages = Pages {
            registry: Arc::new(self.registry),
            readiness: self.readiness,
            config: self.config,
            more: debug::router(Arc::clone(&self.extender.decisions), Arc::clone(&self.extender.cluster)),
        };
        Ok(context.serve(drain, self.admin, pages).await)
    }
}

impl Kai {
    fn bind(
        config: KaiConfig,
        binder: KubernetesBinder,
        decider: &Arc<Decider>,
        pods: &Arc<Pods>,
        reserver: &Reserver,
    ) -> Result<Self, BuildError> {
        let namespace = config.webhook.namespace.clone();
        let webhook = Webhook::bind(config.webhook, config.mode, decider.clock.clone())?;
        let feed = KaiFeed {
            mode: config.mode,
            namespace,
            deadline: config.deadline.0,
            require_top: config.require_top,
            decider: Arc::clone(decider),
            pods: Arc::clone(pods),
            reserver: reserver.clone(),
            binder,
        };
        Ok(Self { feed, webhook })
    }

    /// The webhook, until it is closed.
    fn start(self, tasks: &Tasks, close: &CancellationToken, stop: &CancellationToken) -> JoinHandle<()> {
        let binder = self.feed.binder.clone();
        drop(tasks.spawn("kai", self.feed.run(stop.clone())));
        self.webhook.start(binder, tasks, close)
    }
}

/// Keeps the policy's tables fresh, on a thread for blocking work: decisions go on meanwhile.
async fn rebuild(cluster: Arc<Cluster>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(job) = cluster.pending_rebuild() {
            match tokio::task::spawn_blocking(|| job.run()).await {
                Ok(tables) => cluster.install(tables),
                Err(error) => error!(
                    error = &error as &dyn std::error::Error,
                    "the policy's tables stay as they are"
                ),
            }
        }
    }
}

async fn sweep(cluster: Arc<Cluster>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        cluster.sweep();
    }
}
