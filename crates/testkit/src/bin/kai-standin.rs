//! `kai-standin scheduler | binder | podgrouper`: one part of the stand-in for KAI Scheduler.
#![allow(clippy::print_stderr, reason = "a terminal program")]

use std::process::ExitCode;

use berth_testkit::kai::{self, Part};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "A stand-in for KAI Scheduler, for tests")]
struct Args {
    #[command(subcommand)]
    part: Part,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(kai::run(args.part)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
