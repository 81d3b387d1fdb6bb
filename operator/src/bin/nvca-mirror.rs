//! The nvca-mirror process: its arguments. Everything else is in the library.

use std::process::ExitCode;

use berth_operator::mirror::{
    app,
    args::{Args, ENV_PREFIX, Verb},
    config::Config,
};
use berth_runtime::{
    BuildInfo,
    args::{parse_args, refuse},
    process::{self, Threads},
};

const BUILD: BuildInfo = BuildInfo::of("nvca-mirror");

fn main() -> anyhow::Result<ExitCode> {
    let Args { verb: Verb::Run(args) } = parse_args(ENV_PREFIX);
    let config = Config::from_args(&args).unwrap_or_else(|error| refuse::<Args>(&error));
    process::run(BUILD, &args.telemetry, Threads::Main, async |context| {
        Ok(app::build(config, context)?.run().await?.exit_code())
    })
}
