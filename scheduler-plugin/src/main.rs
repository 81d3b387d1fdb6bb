//! The berth-scheduler process: its arguments. Everything else is in the library.

use std::process::ExitCode;

use berth_runtime::{
    BuildInfo,
    args::{parse_args, refuse},
    process::{self, Threads},
};
use berth_scheduler::{
    app,
    args::{Args, ENV_PREFIX},
    config::Config,
};

const BUILD: BuildInfo = BuildInfo::of("berth-scheduler");
/// Decisions are made under one lock; the rest waits for sockets.
const WORKERS: usize = 2;

fn main() -> anyhow::Result<ExitCode> {
    let args: Args = parse_args(ENV_PREFIX);
    let telemetry = args.telemetry.clone();
    let config = Config::from_args(args).unwrap_or_else(|error| refuse::<Args>(&error));
    process::run(BUILD, &telemetry, Threads::Workers(WORKERS), async |context| {
        Ok(app::build(config, context)?.run().await?.exit_code())
    })
}
