//! The webhook-server process: its arguments. Everything else is in the library.

use std::process::ExitCode;

use berth_operator::webhook::{Args, ENV_PREFIX, build};
use berth_runtime::{
    BuildInfo,
    args::parse_args,
    process::{self, Threads},
};

const BUILD: BuildInfo = BuildInfo::of("webhook-server");
/// Questions are answered from memory.
const WORKERS: usize = 2;

fn main() -> anyhow::Result<ExitCode> {
    let args: Args = parse_args(ENV_PREFIX);
    let telemetry = args.telemetry.clone();
    process::run(BUILD, &telemetry, Threads::Workers(WORKERS), async |context| {
        Ok(build(args, context)?.run().await?.exit_code())
    })
}
