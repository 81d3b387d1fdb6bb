//! The nvca-self-managed process: arguments, runtime, signals. Everything else is in the library.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use berth_operator::bootstrap::{
    Registrar, RegistrarConfig, Watch,
    args::{Args, BootstrapArgs, Command, CommonArgs, ENV_PREFIX, WatchArgs},
    bootstrap,
};
use berth_runtime::{
    BuildInfo, Drain, Readiness, SharedClock, Shutdown, SystemClock, Tasks,
    admin::{Admin, AdminState, config_page},
    announce::{self, Addresses},
    args::parse_args,
    kubernetes::Access,
    metrics,
    secret_file::SecretFile,
    telemetry::Telemetry,
    tls::install_crypto_provider,
};
use clap::{CommandFactory as _, error::ErrorKind};
use tracing::{error, info};
use uuid::Uuid;

const BUILD: BuildInfo = BuildInfo::of("nvca-self-managed");
const FLUSH: Duration = Duration::from_secs(1);
/// The longest phase gives a Lease up.
const DRAIN: Duration = Duration::from_secs(5);

/// What both commands are made of.
struct Process {
    telemetry: Telemetry,
    shutdown: Shutdown,
    tasks: Tasks,
    clock: SharedClock,
    seed: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    install_crypto_provider();
    let args: Args = parse_args(ENV_PREFIX);
    let access = args.command.common().kubernetes.access().unwrap_or_else(|| {
        let message = "this is not a pod: give --kubeconfig\n";
        Args::command()
            .error(ErrorKind::MissingRequiredArgument, message)
            .exit()
    });
    // It waits for sockets.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(args.command, &access))
}

async fn run(command: Command, access: &Access) -> anyhow::Result<ExitCode> {
    let telemetry = Telemetry::start(&command.common().telemetry, BUILD)?;
    let shutdown = Shutdown::new();
    let tasks = Tasks::new(shutdown.clone());
    shutdown
        .listen_for_signals(&tasks)
        .context("cannot listen for signals")?;
    let process = Process {
        telemetry,
        shutdown,
        tasks,
        clock: SystemClock::shared(),
        seed: Uuid::new_v4().as_u64_pair().0,
    };
    let registrar = process.registrar(command.common(), access).await?;
    match command {
        Command::Bootstrap(args) => Ok(process.bootstrap(&args, &registrar).await),
        Command::Watch(args) => process.watch(&args, registrar).await,
    }
}

impl Process {
    async fn registrar(&self, args: &CommonArgs, access: &Access) -> anyhow::Result<Registrar> {
        let config = RegistrarConfig {
            namespace: args.system_namespace.clone(),
            sis_url: args.sis_url.clone(),
            build: BUILD,
        };
        let client = access.client(BUILD).await.context("no way to the API server")?;
        let secret = SecretFile::new(&args.secrets_file);
        let stop = self.shutdown.started().clone();
        drop(self.tasks.spawn("follow-token", secret.clone().follow(stop)));
        Ok(Registrar::new(config, client, secret, self.clock.clone()))
    }

    async fn bootstrap(self, args: &BootstrapArgs, registrar: &Registrar) -> ExitCode {
        let work = bootstrap(registrar, args.timeout.0, self.seed);
        let code = match self.shutdown.started().run_until_cancelled(work).await {
            Some(Ok(_)) => ExitCode::SUCCESS,
            Some(Err(gave_up)) => {
                let error = &gave_up as &dyn std::error::Error;
                error!(error, reason = gave_up.reason(), "Bootstrap failed");
                ExitCode::FAILURE
            }
            None => {
                registrar.leave().await;
                error!("Bootstrap was stopped before it was done");
                ExitCode::FAILURE
            }
        };
        self.telemetry.flush(FLUSH).await;
        code
    }

    async fn watch(self, args: &WatchArgs, registrar: Registrar) -> anyhow::Result<ExitCode> {
        let admin = Admin::bind(args.admin.admin)?;
        let addresses = Addresses {
            admin: Some(admin.bound_addr().to_string()),
            ..Addresses::default()
        };
        let readiness = Readiness::new(self.clock.clone());
        let mut registry = metrics::registry(BUILD);
        let block = readiness.register("registration");
        let watch = Watch::new(registrar, args.resync.0, self.seed, block, &mut registry);

        let mut drain = Drain::new(self.shutdown, self.clock, DRAIN);
        let off = readiness.clone();
        drain.phase("readiness off", async move { off.shut_down() });
        let watched = self.tasks.spawn("watch", watch.run(drain.token("stop watching")));
        drain.phase("leave", async move { drop(watched.await) });
        let admin_off = drain.token("admin off");
        let state = AdminState {
            registry: Arc::new(registry),
            readiness,
            tasks: self.tasks.clone(),
            log_level: self.telemetry.log_level(),
            config: config_page(args),
        };
        admin.serve(state, Router::new(), &admin_off);
        let tasks = self.tasks;
        drain.phase("tasks", async move { tasks.join().await });
        info!(admin = addresses.admin, "serving");
        announce::write_addresses(&addresses).context("cannot tell the addresses")?;
        let outcome = drain.run().await;
        self.telemetry.flush(FLUSH).await;
        Ok(outcome.exit_code())
    }
}
