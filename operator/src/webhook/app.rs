//! Composition: what is built from what, and in which order it ends.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use berth_runtime::{
    Block, BuildInfo, Outcome, Readiness,
    admin::{Admin, config_page},
    announce::Addresses,
    listen::{Listen, ListenError, serve_http},
    metrics,
    process::{Context, Pages, StartError},
    tls::{ServerTls, TlsStatus},
};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::watch;

use super::{
    Args,
    certificate::FromSecret,
    review::Reviews,
    settings::{Settings, SettingsError, address},
};

/// All phases of the end together. A question is answered in milliseconds.
const DRAIN_DEADLINE: Duration = Duration::from_secs(12);

/// It cannot start.
#[derive(Debug, Error)]
pub enum BuildError {
    #[error("the configuration cannot be used")]
    Settings(#[from] SettingsError),
    #[error("an address cannot be served")]
    Listen(#[from] ListenError),
    #[error(
        "there is no certificate: give --tls-cert and --tls-key, or a way to the API server (--kubeconfig, or run in a pod) \
         for the Secret with it"
    )]
    NoCertificate,
}

/// Everything is bound, nothing is served yet.
#[derive(Debug)]
pub struct Bound {
    context: Context,
    config: serde_json::Value,
    listen: Listen,
    addr: SocketAddr,
    admin: Admin,
    tls: ServerTls,
    from_secret: Option<FromSecret>,
    settings: Settings,
    router: Router,
    readiness: Readiness,
    block: Block,
    registry: Registry,
}

/// Reads the configuration and binds every address. Call it inside the tokio runtime.
///
/// # Errors
/// The configuration is missing or garbage, an address cannot be bound, or there is no way to a certificate.
pub fn build(args: Args, context: Context) -> Result<Bound, BuildError> {
    let config = config_page(&args);
    let (settings, agent) = Settings::read(&args.config)?;
    let listen_on = match args.listen {
        Some(addr) => addr,
        None => address(&agent.webhook.svc_addr)?,
    };
    let (files, from_secret) = if let Some(files) = args.tls.files() {
        (files, None)
    } else {
        let files = FromSecret::files(&args.tls_dir);
        let from = FromSecret {
            access: args.kubernetes.access().ok_or(BuildError::NoCertificate)?,
            build: context.build,
            namespace: agent.agent.system_namespace,
            name: agent.webhook.tls_secret_name,
            dir: args.tls_dir,
        };
        // So that there is something to watch. Where it cannot be made the first certificate says so.
        drop(std::fs::create_dir_all(&from.dir));
        (files, Some(from))
    };
    let admin = Admin::bind(args.admin.admin)?;
    let tls = ServerTls::new(files, context.clock.clone());
    let mut listen = Listen::new();
    let addr = listen.tcp(listen_on, Some(tls.clone()))?;
    let mut registry = metrics::registry(context.build);
    tls.register_metrics(&mut registry);
    let router = Reviews::new(settings.clone(), &mut registry).router();
    let readiness = Readiness::new(context.clock.clone());
    let block = readiness.register("certificate");
    Ok(Bound {
        context,
        config,
        listen,
        addr,
        admin,
        tls,
        from_secret,
        settings,
        router,
        readiness,
        block,
        registry,
    })
}

impl Bound {
    fn addresses(&self) -> Addresses {
        Addresses {
            webhook: Some(self.addr.to_string()),
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
        let tasks = &context.tasks;
        let mut drain = context.drain(&self.readiness, DRAIN_DEADLINE);
        let refuse = drain.token("refuse new questions");
        let incoming = self.listen.start(tasks, &refuse);
        let served = tasks.spawn("webhook", serve_http(incoming, self.router, refuse));
        drain.phase("webhook", async move { drop(served.await) });
        let stop = drain.token("stop workers");
        drop(tasks.spawn("settings", self.settings.follow(stop.clone())));
        drop(tasks.spawn("tls", self.tls.clone().follow(stop.clone())));
        let ready = tell(self.tls.status(), self.block);
        drop(tasks.spawn("readiness", stop.clone().run_until_cancelled_owned(ready)));
        if let Some(from_secret) = self.from_secret {
            let keep = stop.run_until_cancelled_owned(from_secret.run());
            drop(tasks.spawn("certificate", keep));
        }
        let pages = Pages {
            registry: Arc::new(self.registry),
            readiness: self.readiness.clone(),
            config: self.config,
            more: pages(context.build, self.readiness),
        };
        Ok(context.serve(drain, self.admin, pages).await)
    }
}

/// The pages that the agent's programs have besides ours.
fn pages(build: BuildInfo, readiness: Readiness) -> Router {
    let healthz = async move || {
        if readiness.is_ready() {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    };
    let version = format!("{}\n", build.version);
    Router::new()
        .route("/healthz", get(healthz))
        .route("/version", get(async move || version))
}

async fn tell(mut status: watch::Receiver<TlsStatus>, block: Block) {
    loop {
        let seen = status.borrow_and_update().clone();
        match (seen.serving_until_unix_ms, seen.problem) {
            (Some(_), _) => block.ready(),
            (None, problem) => {
                let why = problem.map_or_else(|| "there is none".to_owned(), |problem| problem.message);
                block.not_ready(why);
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
