//! The nvca-operator-cleanup process: arguments, runtime, exit code. Everything else is in the library.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use berth_operator::reconcile::cleanup::{Args, ENV_PREFIX, run};
use berth_runtime::{
    BuildInfo, args::parse_args, kubernetes::Access, telemetry::Telemetry, tls::install_crypto_provider,
};
use clap::{CommandFactory as _, error::ErrorKind};
use tracing::{error, info};

const BUILD: BuildInfo = BuildInfo::of("nvca-operator-cleanup");

fn main() -> anyhow::Result<ExitCode> {
    install_crypto_provider();
    let args: Args = parse_args(ENV_PREFIX);
    let access = args.kubernetes.access().unwrap_or_else(|| {
        let message = "this is not a pod: give --kubeconfig\n";
        Args::command()
            .error(ErrorKind::MissingRequiredArgument, message)
            .exit()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(clean(&args, &access))
}

async fn clean(args: &Args, access: &Access) -> anyhow::Result<ExitCode> {
    let telemetry = Telemetry::start(&args.telemetry, BUILD)?;
    let client = access.client(BUILD).await.context("no way to the API server")?;
    let code = match run(client, args).await {
        Ok(report) if report.left.is_empty() => {
            info!(freed = report.freed.len(), "nothing of the operator is left");
            ExitCode::SUCCESS
        }
        Ok(report) => {
            error!(
                left = report.left.join(", "),
                "still there; deploy/scripts/force-cleanup-nvcf.sh removes it"
            );
            ExitCode::FAILURE
        }
        Err(failure) => {
            let error = &failure as &dyn std::error::Error;
            error!(
                error,
                reason = failure.reason(),
                "the clean-up stopped half-way; run it again"
            );
            ExitCode::FAILURE
        }
    };
    telemetry.flush(Duration::from_secs(1)).await;
    Ok(code)
}
