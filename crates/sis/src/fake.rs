//! Stands in for the service in tests and demos: the program `fake-sis`.
//!
//! Owns what the service promises on the wire: statuses, headers, bodies, the order of its checks, and its faults (creation
//! is not idempotent and races). Where it differs from the service, it is wrong; what the project's notes on the real one do
//! not say is guessed, and the place says so. It must not know who calls it: its types are its own, not [`crate::wire`].
//!
//! ```text
//! http (limits, connections) ──► route (order of checks) ──► auth ──► cluster, agent, instance … ──► state (on disk)
//! ```
//! Not for production: whoever reaches its admin page can change everything.

use std::{path::PathBuf, sync::Arc, time::Duration};

use berth_runtime::{SharedClock, Tasks};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

pub mod admin;
mod agent;
mod auth;
mod body;
mod cluster;
mod create;
mod faults;
mod gpus;
mod http;
mod instance;
mod introspect;
mod jwks;
mod jwt;
mod keys;
mod listing;
mod message;
mod nats;
mod route;
mod state;
mod time;
mod update;

pub use message::{Answer, Request};
pub use nats::{NatsError, Publisher};

use faults::{Faults, Outcome};
use keys::KeySets;
use state::{State, Store};

/// What this service is like.
#[derive(Debug, Clone)]
pub struct FakeConfig {
    /// Trusted issuers and where their key sets are.
    pub issuers: Vec<(String, String)>,
    /// Clusters may have key sets of their own.
    pub cluster_identity: bool,
    /// Between looking whether a cluster is there and writing it: the real service's race.
    pub race_window: Duration,
    /// `None`: in memory only.
    pub state_dir: Option<PathBuf>,
}

/// The service.
#[derive(Debug)]
pub struct Fake {
    config: FakeConfig,
    clock: SharedClock,
    keys: KeySets,
    store: Store,
    state: Mutex<State>,
    faults: Mutex<Faults>,
    publisher: Option<Publisher>,
}

/// The state cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the state in {path}")]
pub struct StateError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl Fake {
    /// Reads the state that an earlier one left.
    ///
    /// # Errors
    /// The state is there and cannot be read.
    pub fn new(config: FakeConfig, publisher: Option<Publisher>, clock: SharedClock) -> Result<Arc<Self>, StateError> {
        let store = Store::in_dir(config.state_dir.clone());
        let state = store.load()?;
        Ok(Arc::new(Self {
            keys: KeySets::new(config.issuers.clone()),
            config,
            clock,
            store,
            state: Mutex::new(state),
            faults: Mutex::default(),
            publisher,
        }))
    }

    /// Serves connections until `stop`.
    pub fn serve(self: &Arc<Self>, listener: TcpListener, tasks: &Tasks, stop: CancellationToken) {
        let fake = Arc::clone(self);
        let accept = async move {
            let mut connections = JoinSet::new();
            while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
                while connections.try_join_next().is_some() {}
                match accepted {
                    Ok((stream, _peer)) => {
                        connections.spawn(http::serve(stream, Arc::clone(&fake), stop.clone()));
                    }
                    Err(error) => {
                        warn!(error = &error as &dyn std::error::Error, "no connection");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
            // The listening socket closes at once, as the real one's does; what is in flight ends with its clients.
        };
        drop(tasks.spawn("service", accept));
    }

    /// The answer to one request, or what a fault makes of it.
    pub(crate) async fn answer(&self, request: Request) -> Outcome {
        let line = format!("{} {}", request.method, request.target);
        let fault = self.faults.lock().take(&line);
        let record = |status| {
            // Before the lock: the clock's head start is behind the same one.
            let now = self.now_unix_ms();
            self.faults.lock().record(now, &line, status);
        };
        if fault.hang {
            record(0);
            return Outcome::Hang;
        }
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        if let Some(status) = fault.status {
            record(status);
            return Outcome::Answer(fault.answer(status));
        }
        let answer = route::answer(self, request).await;
        record(answer.status);
        if fault.lose {
            Outcome::Close
        } else {
            Outcome::Answer(answer)
        }
    }

    fn now_unix_ms(&self) -> u64 {
        self.clock.now_unix_ms() + self.faults.lock().ahead_ms()
    }

    /// Changes the state and writes it down before anybody hears of it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        if let Err(error) = self.store.save(&state) {
            error!(error = &error as &dyn std::error::Error, "the state is not written");
        }
        result
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock())
    }
}
