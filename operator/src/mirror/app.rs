//! Composition: what is built from what, and in which order it ends.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::Router;
use berth_runtime::{
    Outcome, Readiness,
    admin::{Admin, config_page},
    announce::Addresses,
    listen::ListenError,
    metrics,
    process::{Context, Pages, StartError},
};

use super::{config::Config, follow::Mirror, metrics::Metrics};

/// All phases of the end together. A write in flight takes a few seconds at most.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);

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
    fn addresses(&self) -> Addresses {
        Addresses {
            admin: Some(self.admin.bound_addr().to_string()),
            ..Addresses::default()
        }
    }

    /// Mirrors until the shutdown, and to its end.
    ///
    /// # Errors
    /// It cannot be told what is bound.
    pub async fn run(self) -> Result<Outcome, StartError> {
        self.context.announce(&self.addresses())?;
        let context = self.context;
        let shown = config_page(&self.config);
        let mut registry = metrics::registry(context.build);
        let readiness = Readiness::new(context.clock.clone());
        let mirror = Mirror {
            access: self.config.access,
            build: context.build,
            wanted: self.config.wanted,
            resync: self.config.resync_period.0,
            metrics: Metrics::register(&mut registry),
            block: readiness.register("api server"),
            told: BTreeSet::new(),
            troubles: BTreeSet::new(),
        };
        let mut drain = context.drain(&readiness, DRAIN_DEADLINE);
        drop(context.tasks.spawn("mirror", mirror.run(drain.token("stop mirroring"))));
        let pages = Pages {
            registry: Arc::new(registry),
            readiness,
            config: shown,
            more: Router::new(),
        };
        Ok(context.serve(drain, self.admin, pages).await)
    }
}
