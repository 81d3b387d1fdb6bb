//! `bao-standin`: OpenBao's stand-in as a process, with the flags and the greeting of `bao server -dev`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use berth_runtime::{Shutdown, SystemClock, Tasks};
use berth_testkit::bao::{
    Bao,
    server::{BaoServer, Faults},
};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Stands in for OpenBao in tests. In memory, and no guard of real secrets.")]
struct Args {
    #[arg(long, default_value = "127.0.0.1:8200")]
    listen: SocketAddr,
    /// A token with every right.
    #[arg(long, default_value = "root")]
    root_token: String,
    /// Unseals it again after `sys/seal`.
    #[arg(long, default_value = "c3RhbmQtaW4=")]
    unseal_key: String,
    /// Each answer comes this many milliseconds later.
    #[arg(long, default_value_t = 0)]
    slow: u64,
    /// Without NVCF's engine that signs tokens.
    #[arg(long)]
    no_plugins: bool,
}

fn main() -> ExitCode {
    berth_runtime::tls::install_crypto_provider();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        shutdown.listen_for_signals(&tasks)?;
        let bao = Bao::dev(SystemClock::shared(), &args.root_token, &args.unseal_key);
        let bao = if args.no_plugins { bao.without_plugins() } else { bao };
        let faults = Faults {
            slow: Duration::from_millis(args.slow),
            hang: false,
        };
        let server = BaoServer::start(bao, args.listen, faults, &tasks, &shutdown)?;
        println!("bao-standin listens on http://{}", server.address());
        println!("Unseal Key: {}\nRoot Token: {}", args.unseal_key, args.root_token);
        shutdown.started().cancelled().await;
        Ok(())
    })
}
