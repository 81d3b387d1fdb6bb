//! Whose turn it is to feed KAI. Nothing hangs on it but work that is not done twice: two feeders at once book nothing twice,
//! they only stand in each other's way.
//!
//! A `coordination.k8s.io/v1` Lease, as Kubernetes' own components use it: whoever holds it renews it; whoever sees it unchanged
//! for its duration, by the own clock, may take it.

use std::{sync::Arc, time::Duration};

use berth_runtime::{
    SharedClock,
    kubernetes::{ApiError, within},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use tracing::{info, warn};

const NAME: &str = "berth-scheduler-kai";
/// Whoever is silent for so long has lost it.
const DURATION: Duration = Duration::from_secs(6);
const RENEWAL: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(1);

/// One contender.
#[derive(Clone)]
pub(super) struct Turn {
    leases: Api<Lease>,
    identity: Arc<str>,
    clock: SharedClock,
}

/// What the Lease said, and since when it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    version: Option<String>,
    since: Duration,
}

impl Turn {
    pub(super) fn new(client: Client, namespace: &str, identity: String, clock: SharedClock) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity: identity.into(),
            clock,
        }
    }

    /// Waits until it is this one's turn.
    pub(super) async fn come(&self) {
        let mut seen: Option<Seen> = None;
        let mut told = false;
        loop {
            match self.try_take(&mut seen).await {
                Ok(true) => {
                    info!(lease = NAME, holder = %self.identity, "this scheduler feeds KAI");
                    return;
                }
                Ok(false) => {
                    if !told {
                        info!(lease = NAME, "another scheduler feeds KAI: standing by");
                    }
                    told = true;
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    lease = NAME,
                    "not taken: trying on"
                ),
            }
            tokio::time::sleep(RENEWAL).await;
        }
    }

    /// Renews it, until it is lost.
    pub(super) async fn pass(&self) {
        let mut renewed = self.clock.monotonic();
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.renew().await {
                Ok(true) => renewed = self.clock.monotonic(),
                Ok(false) => {
                    warn!(lease = NAME, "another scheduler has taken over");
                    return;
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    lease = NAME,
                    "not renewed: trying on"
                ),
            }
            // Without the API server nobody else can take it, and nothing can be done for KAI either.
            if self.clock.monotonic().saturating_sub(renewed) > DURATION * 10 {
                return;
            }
        }
    }

    /// Gives it up, so that nobody waits for its end.
    pub(super) async fn leave(&self) {
        let Ok(mut lease) = within(REQUEST, self.leases.get(NAME)).await else {
            return;
        };
        if self.is_mine(&lease) {
            lease.spec = Some(LeaseSpec::default());
            drop(within(REQUEST, self.leases.replace(NAME, &PostParams::default(), &lease)).await);
        }
    }

    async fn try_take(&self, seen: &mut Option<Seen>) -> Result<bool, ApiError> {
        let now = self.clock.monotonic();
        let lease = match within(REQUEST, self.leases.get(NAME)).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let lease = self.mine(None);
                return settled(within(REQUEST, self.leases.create(&PostParams::default(), &lease)).await);
            }
            Err(error) => return Err(error),
        };
        if !self.may_take(&lease, seen, now) {
            return Ok(false);
        }
        let mine = self.mine(lease.resource_version());
        settled(within(REQUEST, self.leases.replace(NAME, &PostParams::default(), &mine)).await)
    }

    fn may_take(&self, lease: &Lease, seen: &mut Option<Seen>, now: Duration) -> bool {
        let version = lease.resource_version();
        let since = match seen {
            Some(seen) if seen.version == version => seen.since,
            _ => now,
        };
        *seen = Some(Seen { version, since });
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        self.is_mine(lease) || holder.is_none_or(str::is_empty) || now.saturating_sub(since) > DURATION
    }

    async fn renew(&self) -> Result<bool, ApiError> {
        let lease = within(REQUEST, self.leases.get(NAME)).await?;
        if !self.is_mine(&lease) {
            return Ok(false);
        }
        let mine = self.mine(lease.resource_version());
        settled(within(REQUEST, self.leases.replace(NAME, &PostParams::default(), &mine)).await)
    }

    fn is_mine(&self, lease: &Lease) -> bool {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        holder == Some(&*self.identity)
    }

    fn mine(&self, version: Option<String>) -> Lease {
        let now = i64::try_from(self.clock.now_unix_ms()).ok();
        let now = now.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(MicroTime);
        Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.to_string()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: now.clone(),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Who is too late has not got it.
fn settled(written: Result<Lease, ApiError>) -> Result<bool, ApiError> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::ManualClock;

    use super::*;

    fn lease(version: &str, holder: &str) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.to_owned());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            ..LeaseSpec::default()
        });
        lease
    }

    #[tokio::test]
    async fn a_lease_is_taken_when_it_is_free_or_unchanged_for_its_duration() {
        berth_runtime::tls::install_crypto_provider();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let turn = Turn::new(client, "berth", "me".to_owned(), ManualClock::at_unix_ms(0).shared());
        let at = Duration::from_secs;
        let mut seen = None;
        assert!(!turn.may_take(&lease("1", "other"), &mut seen, at(100)));
        assert!(!turn.may_take(&lease("1", "other"), &mut seen, at(106)));
        assert!(
            !turn.may_take(&lease("2", "other"), &mut seen, at(107)),
            "it was renewed"
        );
        assert!(!turn.may_take(&lease("2", "other"), &mut seen, at(113)));
        assert!(turn.may_take(&lease("2", "other"), &mut seen, at(114)));
        assert!(turn.may_take(&lease("3", ""), &mut None, at(0)) && turn.may_take(&lease("3", "me"), &mut None, at(0)));
    }
}
