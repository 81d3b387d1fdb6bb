//! `nvca-self-managed bootstrap`: attempts until one succeeds, one makes no sense any more, or time is up.

use std::time::Duration;

use berth_sis::Backoff;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Registrar, Trouble, attempt::Seen, told::Told};
use crate::registration::Found;

/// Between two attempts, doubled up to the longest.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The cluster is not registered.
#[derive(Debug, Error)]
pub enum GaveUp {
    #[error("the cluster is not registered, and waiting does not help")]
    Permanent(#[source] Trouble),
    #[error("the cluster was not registered within {limit:?}")]
    OutOfTime {
        limit: Duration,
        #[source]
        last: Option<Trouble>,
    },
}

/// Registers the cluster within `limit`. `seed`: another one in each process.
///
/// # Errors
/// It is not registered, and why.
pub async fn bootstrap(registrar: &Registrar, limit: Duration, seed: u64) -> Result<Found, GaveUp> {
    let mut last = None;
    let outcome = timeout(limit, until_registered(registrar, seed, &mut last)).await;
    let outcome = outcome.unwrap_or_else(|_elapsed| Err(GaveUp::OutOfTime { limit, last }));
    if let Ok(found) = &outcome {
        info!(
            cluster_id = %found.registration.cluster_id,
            cluster_group_id = %found.registration.cluster_group_id,
            how = found.how.as_str(),
            "Bootstrap completed successfully"
        );
    }
    // An attempt that was cut short may hold it.
    registrar.leave().await;
    outcome
}

async fn until_registered(registrar: &Registrar, seed: u64, last: &mut Option<Trouble>) -> Result<Found, GaveUp> {
    let mut token = registrar.secret().subscribe();
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed);
    let mut told = Told::default();
    let mut seen = Seen::default();
    loop {
        drop(token.borrow_and_update());
        let trouble = match Box::pin(registrar.attempt(&mut seen, None)).await {
            Ok(found) => {
                told.found(&found);
                return Ok(found);
            }
            Err(trouble) => trouble,
        };
        // A pod that starts again while SIS is away must not wait for it: its cluster is known.
        if trouble.leaves_the_record_true()
            && let Some(known) = seen.recorded.clone()
            && let Ok(found) = registrar.unconfirmed(&mut seen, &known).await
        {
            let error = &trouble as &dyn std::error::Error;
            warn!(
                error,
                reason = trouble.reason(),
                "SIS does not confirm the registration: taking the recorded one"
            );
            return Ok(found);
        }
        if trouble.is_permanent() {
            return Err(GaveUp::Permanent(trouble));
        }
        let wait = backoff.after(trouble.retry_after());
        told.trouble(&trouble, wait);
        let wakes = trouble.is_about_token();
        *last = Some(trouble);
        tokio::select! {
            () = sleep(wait) => {}
            Ok(()) = token.changed(), if wakes => {}
        }
    }
}

impl GaveUp {
    /// Stable, for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Permanent(trouble) => trouble.reason(),
            Self::OutOfTime { last, .. } => last.as_ref().map_or("OutOfTime", Trouble::reason),
        }
    }
}
