//! The berth-scheduler process: arguments, runtime, signals. Everything else is in the library.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use berth_runtime::{
    BuildInfo, Shutdown, SystemClock, Tasks, announce,
    args::{TelemetryArgs, parse_args},
    telemetry::Telemetry,
    tls::install_crypto_provider,
};
use berth_scheduler::{
    app::{self, Context},
    args::{Args, ENV_PREFIX},
    config::Config,
};
use clap::{CommandFactory as _, error::ErrorKind};
use tracing::info;
use uuid::Uuid;

const BUILD: BuildInfo = BuildInfo::of("berth-scheduler");
/// Decisions are made under one lock; the rest waits for sockets.
const WORKERS: usize = 2;

fn main() -> anyhow::Result<ExitCode> {
    install_crypto_provider();
    let args: Args = parse_args(ENV_PREFIX);
    let telemetry = args.telemetry.clone();
    let config = Config::from_args(args).unwrap_or_else(|error| {
        let message = format!("{:#}\n", anyhow::Error::from(error));
        Args::command().error(ErrorKind::ValueValidation, message).exit()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("berth-scheduler")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(&telemetry, config))
}

async fn run(telemetry: &TelemetryArgs, config: Config) -> anyhow::Result<ExitCode> {
    let telemetry = Telemetry::start(telemetry, BUILD)?;
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
        seed: Uuid::new_v4().as_u64_pair().0,
    };
    let bound = app::build(config, context)?;
    let addresses = bound.addresses();
    info!(
        extender = addresses.extender,
        grpc = addresses.grpc,
        admin = addresses.admin,
        "serving"
    );
    announce::write_addresses(&addresses).context("cannot tell the addresses")?;
    let outcome = bound.run().await;
    telemetry.flush(Duration::from_secs(2)).await;
    Ok(outcome.exit_code())
}
