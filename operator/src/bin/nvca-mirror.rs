//! The nvca-mirror process: arguments, runtime, signals. Everything else is in the library.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use berth_operator::mirror::{
    app::{self, Context},
    args::{Args, ENV_PREFIX, Verb},
    config::Config,
};
use berth_runtime::{
    BuildInfo, Shutdown, SystemClock, Tasks, announce,
    args::{TelemetryArgs, parse_args},
    telemetry::Telemetry,
    tls::install_crypto_provider,
};
use clap::{CommandFactory as _, error::ErrorKind};
use tracing::info;

const BUILD: BuildInfo = BuildInfo::of("nvca-mirror");

fn main() -> anyhow::Result<ExitCode> {
    install_crypto_provider();
    let Args { verb: Verb::Run(args) } = parse_args(ENV_PREFIX);
    let config = Config::from_args(&args).unwrap_or_else(|error| {
        let message = format!("{:#}\n", anyhow::Error::from(error));
        Args::command().error(ErrorKind::ValueValidation, message).exit()
    });
    // It waits for the API server nearly always.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .thread_name("nvca-mirror")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(&args.telemetry, config))
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
    };
    let bound = app::build(config, context)?;
    let addresses = bound.addresses();
    info!(admin = addresses.admin, "serving");
    announce::write_addresses(&addresses).context("cannot tell the addresses")?;
    let outcome = bound.run().await;
    telemetry.flush(Duration::from_secs(2)).await;
    Ok(outcome.exit_code())
}
