//! The nvca-operator process: arguments, runtime, signals. Everything else is in the library.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use berth_operator::reconcile::{
    app::{self, Config, Context},
    args::{Args, ENV_PREFIX},
};
use berth_runtime::{
    BuildInfo, Shutdown, SystemClock, Tasks, admin::config_page, announce, args::parse_args, telemetry::Telemetry,
    tls::install_crypto_provider,
};
use clap::{CommandFactory as _, error::ErrorKind};
use tracing::info;
use uuid::Uuid;

const BUILD: BuildInfo = BuildInfo::of("nvca-operator");

fn main() -> anyhow::Result<ExitCode> {
    install_crypto_provider();
    let args: Args = parse_args(ENV_PREFIX);
    let access = args.kubernetes.access().unwrap_or_else(|| {
        let message = "this is not a pod: give --kubeconfig\n";
        Args::command()
            .error(ErrorKind::MissingRequiredArgument, message)
            .exit()
    });
    let settings = args.settings().unwrap_or_else(|error| {
        let message = format!("{:#}\n", anyhow::Error::from(error));
        Args::command().error(ErrorKind::ValueValidation, message).exit()
    });
    let config = Config {
        access,
        settings,
        admin: args.admin.admin,
        health_url: args.agent_health_url.clone(),
        drain: args.drain_timeout.0,
        shown: config_page(&args),
    };
    // It waits for sockets.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(&args, config))
}

async fn run(args: &Args, config: Config) -> anyhow::Result<ExitCode> {
    let telemetry = Telemetry::start(&args.telemetry, BUILD)?;
    let shutdown = Shutdown::new();
    let tasks = Tasks::new(shutdown.clone());
    shutdown
        .listen_for_signals(&tasks)
        .context("cannot listen for signals")?;
    let context = Context {
        build: BUILD,
        clock: SystemClock::shared(),
        shutdown,
        tasks,
        log_level: telemetry.log_level(),
        identity: Uuid::new_v4().to_string(),
    };
    let bound = app::build(config, context)?;
    let addresses = bound.addresses();
    info!(admin = addresses.admin, "serving");
    announce::write_addresses(&addresses).context("cannot tell the addresses")?;
    let outcome = bound.run().await;
    telemetry.flush(Duration::from_secs(1)).await;
    Ok(outcome.exit_code())
}
