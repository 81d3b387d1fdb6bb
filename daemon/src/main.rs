//! berthd: parses flags, builds the runtime, runs the daemon.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use berth_daemon::{
    app::{self, BUILD, Process},
    args::Args,
    config::Config,
};
use berth_runtime::{Shutdown, SystemClock, Tasks, announce, args, telemetry::Telemetry, tls};
use clap::{CommandFactory as _, error::ErrorKind};
use tracing::error;

/// Traces that are left at the end.
const FLUSH: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<ExitCode> {
    tls::install_crypto_provider();
    let args: Args = args::parse_args("BERTHD");
    let telemetry = args.telemetry.clone();
    let config = Config::from_args(args).unwrap_or_else(|error| {
        let message = format!("{:#}\n", anyhow::Error::from(error));
        Args::command().error(ErrorKind::ValueValidation, message).exit()
    });
    // One thread for everything but serving, which has its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the operating system refuses threads")?;
    runtime.block_on(async {
        let telemetry = Telemetry::start(&telemetry, BUILD)?;
        let clock = SystemClock::shared();
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        shutdown.listen_for_signals(&tasks)?;
        let process = Process {
            clock,
            shutdown,
            tasks,
            log_level: telemetry.log_level(),
        };
        let code = match app::build(config, process) {
            Ok(bound) => {
                announce::write_addresses(bound.addresses())?;
                bound.run().await.exit_code()
            }
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "berthd cannot start");
                ExitCode::FAILURE
            }
        };
        telemetry.flush(FLUSH).await;
        Ok(code)
    })
}
