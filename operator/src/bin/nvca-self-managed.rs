//! The nvca-self-managed process: arguments, runtime, signals. Everything else is in the library.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use berth_operator::bootstrap::{
    Registrar, RegistrarConfig, Watch,
    args::{Args, BootstrapArgs, Command, CommonArgs, ENV_PREFIX, WatchArgs},
    bootstrap,
};
use berth_runtime::{
    BuildInfo, Readiness,
    admin::{Admin, config_page},
    announce::Addresses,
    args::parse_args,
    kubernetes::Access,
    metrics,
    process::{self, Context, Pages, Threads},
    secret_file::SecretFile,
};
use tracing::error;

const BUILD: BuildInfo = BuildInfo::of("nvca-self-managed");
/// The longest phase gives a Lease up.
const DRAIN: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<ExitCode> {
    let Args { command } = parse_args(ENV_PREFIX);
    let common = command.common().clone();
    let access = common.kubernetes.required::<Args>();
    process::run(BUILD, &common.telemetry, Threads::Main, async |context| {
        let registrar = registrar(&context, &common, &access).await?;
        match command {
            Command::Bootstrap(args) => Ok(once(context, &args, &registrar).await),
            Command::Watch(args) => watch(context, &args, registrar).await,
        }
    })
}

async fn registrar(context: &Context, args: &CommonArgs, access: &Access) -> anyhow::Result<Registrar> {
    let config = RegistrarConfig {
        namespace: args.system_namespace.clone(),
        sis_url: args.sis_url.clone(),
        build: BUILD,
    };
    let client = access.client(BUILD).await.context("no way to the API server")?;
    let secret = SecretFile::new(&args.secrets_file);
    let stop = context.shutdown.started().clone();
    drop(context.tasks.spawn("follow-token", secret.clone().follow(stop)));
    Ok(Registrar::new(config, client, secret, context.clock.clone()))
}

async fn once(context: Context, args: &BootstrapArgs, registrar: &Registrar) -> ExitCode {
    let work = bootstrap(registrar, args.timeout.0, context.seed);
    match context.shutdown.started().run_until_cancelled(work).await {
        Some(Ok(_)) => ExitCode::SUCCESS,
        Some(Err(gave_up)) => {
            let error = &gave_up as &dyn std::error::Error;
            error!(error, reason = gave_up.reason(), "Bootstrap failed");
            ExitCode::FAILURE
        }
        None => {
            registrar.leave().await;
            error!("Bootstrap was stopped before it was done");
            ExitCode::FAILURE
        }
    }
}

async fn watch(context: Context, args: &WatchArgs, registrar: Registrar) -> anyhow::Result<ExitCode> {
    let admin = Admin::bind(args.admin.admin)?;
    let readiness = Readiness::new(context.clock.clone());
    let mut registry = metrics::registry(BUILD);
    let block = readiness.register("registration");
    let watch = Watch::new(registrar, args.resync.0, context.seed, block, &mut registry);

    let mut drain = context.drain(&readiness, DRAIN);
    let watched = context.tasks.spawn("watch", watch.run(drain.token("stop watching")));
    drain.phase("leave", async move { drop(watched.await) });
    context.announce(&Addresses {
        admin: Some(admin.bound_addr().to_string()),
        ..Addresses::default()
    })?;
    let pages = Pages {
        registry: Arc::new(registry),
        readiness,
        config: config_page(args),
        more: Router::new(),
    };
    Ok(context.serve(drain, admin, pages).await.exit_code())
}
