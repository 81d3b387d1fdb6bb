//! The process `nvca`: its arguments. Everything else is in the library.

use std::process::ExitCode;

use berth_operator::agent::{
    app,
    args::{Args, ENV_PREFIX},
};
use berth_runtime::{
    BuildInfo,
    args::parse_args,
    process::{self, Threads},
};

const BUILD: BuildInfo = BuildInfo::of("nvca");

fn main() -> anyhow::Result<ExitCode> {
    let args: Args = parse_args(ENV_PREFIX);
    let telemetry = args.telemetry.clone();
    process::run(BUILD, &telemetry, Threads::Main, async |context| {
        Ok(app::build(args, context)?.run().await?.exit_code())
    })
}
