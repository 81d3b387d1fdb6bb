//! Whose turn it is, among processes that do the same: a `coordination.k8s.io/v1` Lease, as Kubernetes' own components use it.
//!
//! Whoever holds it renews it; whoever sees it unchanged for its duration, by the own clock, may take it. It keeps work from
//! being done twice; it is no proof that nobody else is at it (a process may be asleep while its time runs out).

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use tracing::{debug, info, warn};

use super::{ApiError, within};
use crate::SharedClock;

const REQUEST: Duration = Duration::from_secs(1);
/// Who stands by looks as often as this at least: a Lease that is given up is free at once.
const STAND_BY: Duration = Duration::from_secs(5);

/// How fast it changes hands, and how much that asks of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Whoever is silent for so long has lost it.
    pub duration: Duration,
    pub renewal: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(6),
            renewal: Duration::from_secs(2),
        }
    }
}

/// Which Lease, and who wants it.
#[derive(Debug, Clone)]
pub struct Contender {
    pub namespace: String,
    pub name: &'static str,
    /// Another one in each process.
    pub identity: String,
    pub pace: Pace,
}

/// One contender's way to its turn. Clones are the same contender.
#[derive(Clone)]
pub struct Turn {
    leases: Api<Lease>,
    name: &'static str,
    identity: Arc<str>,
    pace: Pace,
    clock: SharedClock,
}

/// What the Lease said, and since when it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    version: Option<String>,
    since: Duration,
}

impl Turn {
    pub fn new(client: Client, contender: Contender, clock: SharedClock) -> Self {
        Self {
            leases: Api::namespaced(client, &contender.namespace),
            name: contender.name,
            identity: contender.identity.into(),
            pace: contender.pace,
            clock,
        }
    }

    /// Waits until it is this one's turn, whatever the API server says.
    pub async fn come(&self) {
        // No error ends it.
        drop(self.come_unless(|_| false).await);
    }

    /// As [`Self::come`], but ends with a refusal that waiting does not change: the Lease may not be written.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn come_or_fail(&self) -> Result<(), ApiError> {
        self.come_unless(|error| !error.is_transient()).await
    }

    async fn come_unless(&self, ends: impl Fn(&ApiError) -> bool) -> Result<(), ApiError> {
        let mut seen: Option<Seen> = None;
        let mut told = false;
        loop {
            match self.try_take(&mut seen).await {
                Ok(true) => {
                    debug!(lease = self.name, holder = %self.identity, "it is this process's turn");
                    return Ok(());
                }
                Ok(false) => {
                    if !told {
                        info!(lease = self.name, "it is another process's turn: standing by");
                    }
                    told = true;
                }
                Err(error) if ends(&error) => return Err(error),
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    lease = self.name,
                    "not taken: trying on"
                ),
            }
            tokio::time::sleep(self.pace.renewal.min(STAND_BY)).await;
        }
    }

    /// Renews it, until it is lost.
    pub async fn pass(&self) {
        let mut renewed = self.clock.monotonic();
        let mut written = None;
        loop {
            tokio::time::sleep(self.pace.renewal).await;
            match self.renew(&mut written).await {
                Ok(true) => renewed = self.clock.monotonic(),
                Ok(false) => {
                    warn!(lease = self.name, "another process has taken over");
                    return;
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    lease = self.name,
                    "not renewed: trying on"
                ),
            }
            // Without the API server nobody else can take it, and nothing that it guards can be done either.
            if self.clock.monotonic().saturating_sub(renewed) > self.pace.duration * 10 {
                return;
            }
        }
    }

    /// Gives it up, so that nobody waits for its end. Nothing happens where it is another's.
    pub async fn leave(&self) {
        let Ok(mut lease) = within(REQUEST, self.leases.get(self.name)).await else {
            return;
        };
        if self.is_mine(&lease) {
            lease.spec = Some(LeaseSpec::default());
            drop(within(REQUEST, self.leases.replace(self.name, &PostParams::default(), &lease)).await);
        }
    }

    async fn try_take(&self, seen: &mut Option<Seen>) -> Result<bool, ApiError> {
        let now = self.clock.monotonic();
        let lease = match within(REQUEST, self.leases.get(self.name)).await {
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
        settled(within(REQUEST, self.leases.replace(self.name, &PostParams::default(), &mine)).await)
    }

    fn may_take(&self, lease: &Lease, seen: &mut Option<Seen>, now: Duration) -> bool {
        let version = lease.resource_version();
        let since = match seen {
            Some(seen) if seen.version == version => seen.since,
            _ => now,
        };
        *seen = Some(Seen { version, since });
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        self.is_mine(lease) || holder.is_none_or(str::is_empty) || now.saturating_sub(since) > self.pace.duration
    }

    /// One request where nobody else wrote since, `written` being the version of the last renewal.
    async fn renew(&self, written: &mut Option<String>) -> Result<bool, ApiError> {
        let version = if let Some(version) = written.take() {
            version
        } else {
            let lease = within(REQUEST, self.leases.get(self.name)).await?;
            if !self.is_mine(&lease) {
                return Ok(false);
            }
            lease.resource_version().unwrap_or_default()
        };
        let mine = self.mine(Some(version));
        match within(REQUEST, self.leases.replace(self.name, &PostParams::default(), &mine)).await {
            Ok(lease) => *written = lease.resource_version(),
            // It may be a renewal of ours whose answer was lost: the next look tells.
            Err(error) if error.is_conflict() => {
                let lease = within(REQUEST, self.leases.get(self.name)).await?;
                return Ok(self.is_mine(&lease));
            }
            Err(error) => return Err(error),
        }
        Ok(true)
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
                name: Some(self.name.to_owned()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.to_string()),
                lease_duration_seconds: i32::try_from(self.pace.duration.as_secs()).ok(),
                acquire_time: now.clone(),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        }
    }
}

// The client has no `Debug`.
impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("name", &self.name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
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
    use super::*;
    use crate::ManualClock;

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
        crate::tls::install_crypto_provider();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let contender = Contender {
            namespace: "berth".to_owned(),
            name: "turn",
            identity: "me".to_owned(),
            pace: Pace::default(),
        };
        let turn = Turn::new(client, contender, ManualClock::at_unix_ms(0).shared());
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
