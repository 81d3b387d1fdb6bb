//! The nvca-operator process: its arguments. Everything else is in the library.

use std::process::ExitCode;

use berth_operator::reconcile::{
    app::{self, Config},
    args::{Args, ENV_PREFIX},
};
use berth_runtime::{
    BuildInfo,
    admin::config_page,
    args::{parse_args, refuse},
    process::{self, Threads},
};

const BUILD: BuildInfo = BuildInfo::of("nvca-operator");

fn main() -> anyhow::Result<ExitCode> {
    let args: Args = parse_args(ENV_PREFIX);
    let config = Config {
        access: args.kubernetes.required::<Args>(),
        settings: args.settings().unwrap_or_else(|error| refuse::<Args>(&error)),
        admin: args.admin.admin,
        health_url: args.agent_health_url.clone(),
        drain: args.drain_timeout.0,
        shown: config_page(&args),
    };
    process::run(BUILD, &args.telemetry, Threads::Main, async |context| {
        Ok(app::build(config, context)?.run().await?.exit_code())
    })
}
