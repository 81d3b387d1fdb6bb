//! `fake-sis`: a stand-in for the control plane's cluster service, for tests and demos. Parses flags and starts it.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context as _;
use berth_runtime::{
    BuildInfo, Readiness,
    admin::{Admin, config_page},
    announce::Addresses,
    args::{self, AdminArgs, HumanDuration, TelemetryArgs},
    metrics,
    process::{self, Context, Pages, Threads},
};
use berth_sis::{
    Backoff,
    fake::{Fake, FakeConfig, Publisher, admin as admin_pages},
};
use clap::Parser;
use serde::Serialize;
use tokio::net::TcpListener;
use tracing::warn;

const BUILD: BuildInfo = BuildInfo::of("fake-sis");
const DRAIN: Duration = Duration::from_secs(5);
const OPENBAO: &str = "http://openbao-server.vault-system.svc.cluster.local:8200/v1/services";

/// Answers as the control plane's cluster service (SIS, ICMS) does. For tests and demos: its admin page can change everything
#[derive(Debug, Clone, Serialize, Parser)]
#[command(name = "fake-sis", version, mut_arg("admin", |arg| arg.default_value("127.0.0.1:8181")))]
struct Args {
    /// Serve the API here, in plain HTTP
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Trust tokens of this issuer, by the key set at this URL. Repeatable; without it the two of a self-hosted control plane
    #[arg(long, value_name = "ISSUER=URL")]
    issuer: Vec<Issuer>,

    /// Keep the state in this folder; without it in memory
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Publish requests for instances to this NATS, with JetStream
    #[arg(long, value_name = "URL")]
    nats: Option<String>,

    /// Clusters may show tokens that they signed themselves
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    cluster_identity: bool,

    /// Time between the look for a cluster and its creation: the real service's race
    #[arg(long, value_name = "DURATION", default_value = "5ms")]
    race_window: HumanDuration,

    #[command(flatten)]
    admin: AdminArgs,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// `ISSUER=URL`.
#[derive(Debug, Clone, Serialize)]
struct Issuer {
    issuer: String,
    key_set: String,
}

impl FromStr for Issuer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (issuer, key_set) = text.rsplit_once('=').ok_or("write ISSUER=URL")?;
        Ok(Self {
            issuer: issuer.to_owned(),
            key_set: key_set.to_owned(),
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args: Args = args::parse_args("FAKE_SIS");
    process::run(BUILD, &args.telemetry, Threads::Workers(2), async |context| {
        run(&args, context).await
    })
}

async fn run(args: &Args, context: Context) -> anyhow::Result<ExitCode> {
    let admin = Admin::bind(args.admin.admin)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let addresses = Addresses {
        http: Some(listener.local_addr()?.to_string()),
        admin: Some(admin.bound_addr().to_string()),
        ..Addresses::default()
    };
    let publisher = match &args.nats {
        Some(url) => Some(connected(url, &context).await?),
        None => None,
    };
    if let Some(dir) = &args.state {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let fake = Fake::new(config(args), publisher, context.clock.clone())?;
    let readiness = Readiness::new(context.clock.clone());
    let mut drain = context.drain(&readiness, DRAIN);
    let pages = Pages {
        registry: Arc::new(metrics::registry(BUILD)),
        readiness,
        config: config_page(args),
        more: admin_pages::pages(Arc::clone(&fake)),
    };
    fake.serve(listener, &context.tasks, drain.token("stop serving"));
    context.announce(&addresses)?;
    Ok(context.serve(drain, admin, pages).await.exit_code())
}

fn config(args: &Args) -> FakeConfig {
    let given = args
        .issuer
        .iter()
        .map(|issuer| (issuer.issuer.clone(), issuer.key_set.clone()));
    let mut issuers: Vec<(String, String)> = given.collect();
    if issuers.is_empty() {
        issuers = ["sis", "nvcf"]
            .map(|name| {
                let service = if name == "sis" { "sis-api" } else { "nvcf-api" };
                (
                    format!("http://api.{name}.svc.cluster.local"),
                    format!("{OPENBAO}/{service}/jwt/jwks"),
                )
            })
            .to_vec();
    }
    FakeConfig {
        issuers,
        cluster_identity: args.cluster_identity,
        race_window: args.race_window.0,
        state_dir: args.state.clone(),
    }
}

/// As the real service: not up before NATS is.
async fn connected(url: &str, context: &Context) -> anyhow::Result<Publisher> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5), context.seed);
    loop {
        match Publisher::connect(url).await {
            Ok(publisher) => return Ok(publisher),
            Err(error) => warn!(error = &error as &dyn std::error::Error, "waiting for NATS"),
        }
        let wait = tokio::time::sleep(backoff.after(None));
        if context.shutdown.started().run_until_cancelled(wait).await.is_none() {
            anyhow::bail!("stopped while waiting for NATS");
        }
    }
}
