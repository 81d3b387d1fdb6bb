//! `nvca-self-managed watch`: keeps the cluster registered. An attempt whenever something changed that one depends on, and now
//! and then without that.

use std::{sync::Arc, time::Duration};

use berth_runtime::{Block, secret_file::Secret, telemetry::with_causes};
use berth_sis::Backoff;
use futures_util::{StreamExt as _, stream::BoxStream};
use prometheus_client::registry::Registry;
use tokio::{pin, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Registrar, Trouble,
    attempt::Seen,
    metrics::Metrics,
    once::{FIRST_WAIT, LONGEST_WAIT},
    told::Told,
};
use crate::registration::{Found, How, Registration};

/// Between two attempts at least, should somebody else write the same objects over and over.
const PACE: Duration = Duration::from_secs(1);

/// The task. Ready once it is recorded who the cluster is.
#[derive(Debug)]
pub struct Watch {
    registrar: Registrar,
    resync: Duration,
    /// Another one in each process.
    seed: u64,
    block: Block,
    metrics: Metrics,
}

/// What an attempt depends on, as it changes.
struct Events {
    dtos: BoxStream<'static, Option<String>>,
    records: BoxStream<'static, Option<Registration>>,
    token: watch::Receiver<Option<Arc<Secret>>>,
}

/// What to wait for after an attempt: a change, or the end of this time.
struct Next {
    wait: Duration,
    /// A new token is a change.
    hears_token: bool,
}

impl Watch {
    pub fn new(registrar: Registrar, resync: Duration, seed: u64, block: Block, registry: &mut Registry) -> Self {
        Self {
            registrar,
            resync,
            seed,
            block,
            metrics: Metrics::register(registry),
        }
    }

    /// Until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let _never: Option<()> = stop.run_until_cancelled(self.follow()).await;
        // An attempt that was cut short may hold it.
        self.registrar.leave().await;
    }

    async fn follow(&self) {
        self.block.not_ready("the cluster is not registered yet");
        let mut events = Events::of(&self.registrar);
        let mut errors = Backoff::new(FIRST_WAIT, LONGEST_WAIT, self.seed);
        let mut resyncs = Backoff::new(self.resync, self.resync, self.seed);
        let mut told = Told::default();
        let mut seen = Seen::default();
        let mut known: Option<Registration> = None;
        loop {
            drop(events.token.borrow_and_update());
            let attempted = Box::pin(self.registrar.attempt(&mut seen, known.as_ref())).await;
            self.metrics
                .attempted(attempted.as_ref().map_or_else(Trouble::reason, |_| ""));
            let next = match attempted {
                Ok(found) => {
                    told.found(&found);
                    self.settle(&mut known, found);
                    errors.reset();
                    Next {
                        wait: resyncs.after(None),
                        hears_token: false,
                    }
                }
                Err(trouble) => {
                    self.make_do(&mut seen, &mut known, &trouble).await;
                    let backoff = if trouble.is_permanent() {
                        &mut resyncs
                    } else {
                        &mut errors
                    };
                    let wait = backoff.after(trouble.retry_after());
                    told.trouble(&trouble, wait);
                    Next::after(&trouble, wait)
                }
            };
            self.metrics.recorded(seen.recorded.is_some());
            events.next(&seen, next).await;
            sleep(PACE).await;
        }
    }

    /// What is known of the cluster is recorded and used although SIS could not be asked.
    async fn make_do(&self, seen: &mut Seen, known: &mut Option<Registration>, trouble: &Trouble) {
        if let Some(recorded) = seen.recorded.clone().or_else(|| known.clone())
            && trouble.leaves_the_record_true()
        {
            match self.registrar.unconfirmed(seen, &recorded).await {
                Ok(found) => self.settle(known, found),
                Err(trouble) => {
                    let error = &trouble as &dyn std::error::Error;
                    warn!(error, reason = trouble.reason(), "the registration is not recorded");
                }
            }
        }
        if known.is_none() {
            let why = with_causes(trouble);
            self.block.not_ready(format!("the cluster is not registered: {why}"));
        }
    }

    fn settle(&self, known: &mut Option<Registration>, found: Found) {
        let Found { registration, how, .. } = found;
        self.block.ready();
        let (cluster_id, cluster_group_id) = (&registration.cluster_id, &registration.cluster_group_id);
        let is_news = known.as_ref() != Some(&registration) || matches!(how, How::Created);
        if is_news {
            info!(%cluster_id, %cluster_group_id, how = how.as_str(), "the cluster is registered");
        } else {
            debug!(%cluster_id, %cluster_group_id, how = how.as_str(), "the cluster is still registered");
        }
        *known = Some(registration);
    }
}

impl Next {
    fn after(trouble: &Trouble, wait: Duration) -> Self {
        // Where the wait is long, whatever somebody does about it counts.
        let hears_token = trouble.is_permanent() || trouble.is_about_token() || trouble.retry_after().is_some();
        Self { wait, hears_token }
    }
}

impl Events {
    fn of(registrar: &Registrar) -> Self {
        Self {
            dtos: registrar.dtos(),
            records: registrar.records(),
            token: registrar.secret().subscribe(),
        }
    }

    /// Returns when another attempt is due. What is as the last attempt saw it is no change.
    async fn next(&mut self, seen: &Seen, next: Next) {
        let due = sleep(next.wait);
        pin!(due);
        loop {
            tokio::select! {
                () = &mut due => return,
                Ok(()) = self.token.changed(), if next.hears_token => return,
                Some(dto) = self.dtos.next() => if dto != seen.dto {
                    return debug!("the chart's ConfigMap changed");
                },
                Some(recorded) = self.records.next() => if recorded != seen.recorded {
                    return debug!("the record changed");
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_sis::SisError;
    use futures_util::stream;
    use tokio::time::Instant;

    use super::*;

    /// How long is waited after SIS asked to be left alone for a minute, with this chart and this token in between.
    async fn waits(dto: Option<&str>, token: bool) -> Duration {
        let (sender, receiver) = watch::channel(None);
        let changed = dto.map(|text| Some(text.to_owned()));
        let mut events = Events {
            dtos: stream::iter(changed).chain(stream::pending()).boxed(),
            records: stream::pending().boxed(),
            token: receiver,
        };
        if token {
            sender.send_replace(None);
        }
        let minute = Some(Duration::from_mins(1));
        let busy = Trouble::Register(SisError::Busy { retry_after: minute }.into());
        let start = Instant::now();
        let next = Next::after(&busy, Duration::from_mins(1));
        events.next(&Seen::default(), next).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_silence_gets_it_until_something_changes() {
        assert!(waits(None, false).await >= Duration::from_mins(1));
        assert_eq!(waits(Some("another chart"), false).await, Duration::ZERO);
        assert_eq!(waits(None, true).await, Duration::ZERO);
    }
}
