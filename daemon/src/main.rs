//! The berthd process: its arguments. Everything else is in the library.

use std::process::ExitCode;

use berth_daemon::{
    app::{self, BUILD},
    args::Args,
    config::Config,
};
use berth_runtime::{
    args::{parse_args, refuse},
    process::{self, Threads},
};
use tracing::error;

fn main() -> anyhow::Result<ExitCode> {
    let args: Args = parse_args("BERTHD");
    let telemetry = args.telemetry.clone();
    let config = Config::from_args(args).unwrap_or_else(|error| refuse::<Args>(&error));
    // One thread for everything but serving, which has its own.
    process::run(BUILD, &telemetry, Threads::Main, async |context| {
        match app::build(config, context) {
            Ok(bound) => Ok(bound.run().await?.exit_code()),
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "berthd cannot start");
                Ok(ExitCode::FAILURE)
            }
        }
    })
}
