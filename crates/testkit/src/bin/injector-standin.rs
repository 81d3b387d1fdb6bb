//! `injector-standin`: the webhook of the vault-agent injector, and the agent that it would have put into a pod.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use berth_runtime::{Shutdown, SystemClock, Tasks};
use berth_testkit::{
    injector::{self, Defaults, SIDECAR},
    vault_agent::{Agent, AgentConfig},
};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Stands in for vault-k8s in tests")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The mutating webhook, until a signal.
    Webhook(Webhook),
    /// One container's agent: renders its files into a folder, until a signal.
    Render(Render),
}

#[derive(Debug, clap::Args)]
struct Webhook {
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[arg(long)]
    tls_cert_file: PathBuf,
    #[arg(long)]
    tls_key_file: PathBuf,
    /// Where pods reach OpenBao.
    #[arg(long)]
    vault_address: String,
    /// The agent's method: kubernetes or jwt.
    #[arg(long, default_value = "kubernetes")]
    vault_auth_type: String,
    #[arg(long, default_value = "auth/jwt")]
    vault_auth_path: String,
    #[arg(long, default_value = "openbao/openbao:2.6.2")]
    vault_image: String,
}

#[derive(Debug, clap::Args)]
#[group(id = "from", required = true)]
struct Render {
    /// An injected pod, JSON.
    #[arg(long, group = "from")]
    pod: Option<PathBuf>,
    /// The agent's configuration itself, JSON.
    #[arg(long, group = "from")]
    config: Option<PathBuf>,
    /// Which of the pod's containers: vault-agent or vault-agent-init.
    #[arg(long, default_value = SIDECAR)]
    container: String,
    /// The folder that stands for the container's root: its volumes lie below it at their mount paths.
    #[arg(long)]
    root: PathBuf,
    /// Where OpenBao really is, if the configured address is none here.
    #[arg(long)]
    address: Option<String>,
}

fn main() -> ExitCode {
    berth_runtime::tls::install_crypto_provider();
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(run(Args::parse()))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let tasks = Tasks::new(shutdown.clone());
    shutdown.listen_for_signals(&tasks)?;
    match args.command {
        Command::Webhook(webhook) => {
            let defaults = Defaults {
                address: webhook.vault_address,
                auth_type: webhook.vault_auth_type,
                auth_path: webhook.vault_auth_path,
                image: webhook.vault_image,
            };
            let files = (webhook.tls_cert_file, webhook.tls_key_file);
            let address = injector::server::start(defaults, webhook.listen, files, &tasks, &shutdown)?;
            println!("injector-standin listens on https://{address}");
            shutdown.started().cancelled().await;
        }
        Command::Render(render) => {
            let config = match (&render.pod, &render.config) {
                (Some(path), _) => {
                    AgentConfig::of_container(&serde_json::from_slice(&read(path)?)?, &render.container)?
                }
                (None, Some(path)) => AgentConfig::parse(&read(path)?)?,
                (None, None) => anyhow::bail!("say --pod or --config"),
            };
            let log = Box::new(|line: &str| eprintln!("{line}"));
            let agent = Agent::new(
                config,
                render.root,
                render.address.as_deref(),
                SystemClock::shared(),
                log,
            );
            agent.run(shutdown.started().clone()).await;
        }
    }
    Ok(())
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
