//! The process `nvca`: arguments, runtime, signals. Everything else is in the library.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use berth_operator::agent::{
    app::{self, Context},
    args::{Args, ENV_PREFIX},
};
use berth_runtime::{
    BuildInfo, Shutdown, SystemClock, Tasks, announce, args::parse_args, telemetry::Telemetry,
    tls::install_crypto_provider,
};
use tracing::info;
use uuid::Uuid;

const BUILD: BuildInfo = BuildInfo::of("nvca");
const FLUSH: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<ExitCode> {
    install_crypto_provider();
    let args: Args = parse_args(ENV_PREFIX);
    // It waits for sockets: one thread does.
    let runtime = tokio::runtime::Builder::new_current_thread()
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
        seed: Uuid::new_v4().as_u64_pair().0,
    };
    let bound = app::build(args, context)?;
    let addresses = bound.addresses();
    info!(service = addresses.http, admin = addresses.admin, "serving");
    announce::write_addresses(&addresses).context("cannot tell the addresses")?;
    let outcome = bound.run().await;
    telemetry.flush(FLUSH).await;
    Ok(outcome.exit_code())
}
