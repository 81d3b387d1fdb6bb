//! Runs the queues and pods by the configuration in force, and begins anew where something of it changed that they read once.

use std::sync::Arc;

use berth_runtime::{SharedClock, secret_file::SecretFile};
use berth_sis::{ClusterId, RetryPolicy, SetupError};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    seam::Seam,
    settings::Settings,
    work::{Parts, Work},
};
use crate::agent_config::AgentConfig;

/// What is read once.
#[derive(PartialEq, Eq)]
struct Basis {
    cluster: ClusterId,
    sis: (String, Option<String>),
    nats: String,
    secrets: String,
    version: String,
}

/// Until `stop`.
pub(crate) async fn run(mut seam: Seam, clock: SharedClock, stop: CancellationToken) {
    while let Some((client, settings, basis)) = stop.run_until_cancelled(begin(&mut seam)).await {
        let end = stop.child_token();
        let secrets = SecretFile::new(&basis.secrets);
        let (config, seen) = watch::channel(Arc::new(settings.config.clone()));
        match work(&seam, client, &settings, &basis, seen, secrets.clone(), &clock) {
            Ok(work) => {
                info!(nats = basis.nats, "taking work");
                let changed = async {
                    end.run_until_cancelled(other(&mut seam, &basis, Some(&config))).await;
                    end.cancel();
                };
                tokio::join!(work.run(end.clone()), changed, secrets.follow(end.clone()));
            }
            Err(error) => {
                warn!(
                    reason = error.reason(),
                    error = &error as &dyn std::error::Error,
                    "no work can be taken by this configuration"
                );
                stop.run_until_cancelled(other(&mut seam, &basis, None)).await;
            }
        }
    }
}

fn work(
    seam: &Seam,
    client: Client,
    settings: &Settings,
    basis: &Basis,
    config: watch::Receiver<Arc<AgentConfig>>,
    secrets: SecretFile,
    clock: &SharedClock,
) -> Result<Work, SetupError> {
    let parts = Parts {
        client,
        sis: settings.sis_client(secrets.clone(), RetryPolicy::SHORT, clock.clone())?,
        cluster: basis.cluster.clone(),
        config,
        secrets,
        fits: seam.fits(),
        orders: seam.orders.clone(),
        allocation: seam.allocation.clone(),
        clock: clock.clone(),
    };
    Ok(seam
        .metrics
        .replace_more(settings, |registry| Work::new(parts, registry)))
}

/// Waits for a way to the API server and a cluster id.
async fn begin(seam: &mut Seam) -> (Client, Arc<Settings>, Basis) {
    loop {
        let client = seam.client.borrow_and_update().clone();
        let settings = seam.settings.borrow_and_update().clone();
        if let (Some(client), Some(basis)) = (client, Basis::of(&settings)) {
            return (client, settings, basis);
        }
        let ended = tokio::select! {
            changed = seam.client.changed() => changed.is_err(),
            changed = seam.settings.changed() => changed.is_err(),
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for a configuration with another basis, and hands every other on.
async fn other(seam: &mut Seam, basis: &Basis, config: Option<&watch::Sender<Arc<AgentConfig>>>) {
    while seam.settings.changed().await.is_ok() {
        let settings = seam.settings.borrow_and_update().clone();
        if Basis::of(&settings).as_ref() != Some(basis) {
            return;
        }
        if let Some(config) = config {
            config.send_replace(Arc::new(settings.config.clone()));
        }
    }
    std::future::pending::<()>().await;
}

impl Basis {
    fn of(settings: &Settings) -> Option<Self> {
        let AgentConfig { agent, authz, .. } = &settings.config;
        Some(Self {
            cluster: settings.cluster.clone()?,
            sis: (agent.sis_url.clone(), agent.sis_host.clone()),
            nats: agent.nats_url.clone(),
            secrets: authz.secrets_file.clone(),
            version: settings.version().to_owned(),
        })
    }
}
