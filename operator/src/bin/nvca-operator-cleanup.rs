//! The nvca-operator-cleanup process: arguments, exit code. Everything else is in the library.

use std::process::ExitCode;

use anyhow::Context as _;
use berth_operator::reconcile::cleanup::{Args, ENV_PREFIX, run};
use berth_runtime::{
    BuildInfo,
    args::parse_args,
    kubernetes::Access,
    process::{self, Threads},
};
use tracing::{error, info};

const BUILD: BuildInfo = BuildInfo::of("nvca-operator-cleanup");

fn main() -> anyhow::Result<ExitCode> {
    let args: Args = parse_args(ENV_PREFIX);
    let access = args.kubernetes.required::<Args>();
    process::run(BUILD, &args.telemetry, Threads::Main, async |context| {
        let cleaned = context
            .shutdown
            .started()
            .run_until_cancelled(Box::pin(clean(&args, &access)));
        cleaned.await.unwrap_or_else(|| {
            error!("the clean-up was stopped half-way; run it again");
            Ok(ExitCode::FAILURE)
        })
    })
}

async fn clean(args: &Args, access: &Access) -> anyhow::Result<ExitCode> {
    let client = access.client(BUILD).await.context("no way to the API server")?;
    Ok(match run(client, args).await {
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
    })
}
