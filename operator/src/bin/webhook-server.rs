//! The webhook-server process: arguments, runtime, signals. Everything else is in the library.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use berth_operator::webhook::{Args, Context, ENV_PREFIX, build};
use berth_runtime::{
    BuildInfo, Shutdown, SystemClock, Tasks, announce, args::parse_args, telemetry::Telemetry,
    tls::install_crypto_provider,
};
use tracing::info;

const BUILD: BuildInfo = BuildInfo::of("webhook-server");
/// Questions are answered from memory.
const WORKERS: usize = 2;

fn main() -> anyhow::Result<ExitCode> {
    install_crypto_provider();
    let args: Args = parse_args(ENV_PREFIX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("webhook-server")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
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
    };
    let bound = build(args, context)?;
    let addresses = bound.addresses();
    info!(webhook = addresses.webhook, admin = addresses.admin, "serving");
    announce::write_addresses(&addresses).context("cannot tell the addresses")?;
    let outcome = bound.run().await;
    telemetry.flush(Duration::from_secs(2)).await;
    Ok(outcome.exit_code())
}
