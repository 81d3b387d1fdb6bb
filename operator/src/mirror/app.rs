//! Composition: what is built from what, and in which order it ends.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::Router;
use berth_runtime::{
    BuildInfo, Drain, Outcome, Readiness, SharedClock, Shutdown, Tasks,
    admin::{Admin, AdminState, config_page},
    announce::Addresses,
    listen::ListenError,
    metrics,
    telemetry::LogLevel,
};

use super::{config::Config, follow::Mirror, metrics::Metrics};

/// All phases of the end together. A write in flight takes a few seconds at most.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);

/// What the program takes from outside.
#[derive(Debug, Clone)]
pub struct Context {
    pub build: BuildInfo,
    pub clock: SharedClock,
    pub shutdown: Shutdown,
    pub tasks: Tasks,
    pub log_level: LogLevel,
}

/// The admin address is bound, nothing is mirrored yet.
#[derive(Debug)]
pub struct Bound {
    context: Context,
    config: Config,
    admin: Admin,
}

/// Binds the admin address. Call it inside the tokio runtime.
///
/// # Errors
/// The operating system refuses.
pub fn build(config: Config, context: Context) -> Result<Bound, ListenError> {
    let admin = Admin::bind(config.admin)?;
    Ok(Bound { context, config, admin })
}

impl Bound {
    pub fn addresses(&self) -> Addresses {
        Addresses {
            admin: Some(self.admin.bound_addr().to_string()),
            ..Addresses::default()
        }
    }

    /// Mirrors until the shutdown, and to its end.
    pub async fn run(self) -> Outcome {
        let Context {
            build,
            clock,
            shutdown,
            tasks,
            log_level,
        } = self.context;
        let shown = config_page(&self.config);
        let mut registry = metrics::registry(build);
        let readiness = Readiness::new(clock.clone());
        let mirror = Mirror {
            access: self.config.access,
            build,
            wanted: self.config.wanted,
            resync: self.config.resync_period.0,
            metrics: Metrics::register(&mut registry),
            block: readiness.register("api server"),
            told: BTreeSet::new(),
            troubles: BTreeSet::new(),
        };
        let mut drain = Drain::new(shutdown, clock, DRAIN_DEADLINE);
        let off = readiness.clone();
        drain.phase("readiness off", async move { off.shut_down() });
        drop(tasks.spawn("mirror", mirror.run(drain.token("stop mirroring"))));
        let admin_off = drain.token("admin off");
        let state = AdminState {
            registry: Arc::new(registry),
            readiness,
            tasks: tasks.clone(),
            log_level,
            config: shown,
        };
        self.admin.serve(state, Router::new(), &admin_off);
        drain.phase("tasks", async move { tasks.join().await });
        drain.run().await
    }
}
