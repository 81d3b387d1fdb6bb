//! Tells SIS what the cluster has, and goes on telling: the one task that registers and beats.
//!
//! What is told is made by pure code (`view`, `register`, `heartbeat`), and when by [`Schedule`]; here it is sent, and what
//! SIS answers becomes health. A SIS that is away, or a token that comes late, is waited for.

use std::{sync::Arc, time::Duration};

use berth_runtime::{
    SharedClock,
    secret_file::{Secret, SecretFile},
};
use berth_sis::{
    ClusterId, RetryPolicy, SetupError, SisClient, SisError,
    wire::{Heartbeat, HeartbeatAction, RegisterRequest},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    health::{Components, GPU, HEARTBEAT, Health, ORDERS, REGISTRATION},
    heartbeat::heartbeat,
    inventory::{Allocation, Inventory},
    metrics::Metrics,
    register::{self, InUse, MOST_COMPLETIONS},
    schedule::Schedule,
    seam::Orders,
    settings::{Settings, chain},
    view::View,
};

/// SIS is told the same again.
const REGISTER_EVERY: Duration = Duration::from_hours(1);
/// SIS forgets a cluster after 10 minutes.
const BEAT_EVERY: Duration = Duration::from_mins(5);

/// What the task follows and tells.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) inventory: watch::Receiver<Option<Arc<Inventory>>>,
    pub(crate) allocation: watch::Receiver<Allocation>,
    pub(crate) k8s_version: watch::Receiver<String>,
    pub(crate) health: Health,
    pub(crate) health_seen: watch::Receiver<Components>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
    pub(crate) seed: u64,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) orders: watch::Sender<Orders>,
}

/// Whom is told, by one state of the configuration.
struct Line {
    settings: Arc<Settings>,
    client: SisClient,
    cluster: ClusterId,
    /// Another one may do better.
    secret: watch::Receiver<Option<Arc<Secret>>>,
    /// Of the secret's file.
    follow: CancellationToken,
}

/// What was told, and when it is due again.
struct Told {
    register: Schedule<RegisterRequest>,
    beat: Schedule<Heartbeat>,
    in_use: InUse,
    /// SIS was asked at least once: a heartbeat before the registration would tell of what it does not know yet.
    tried: bool,
    /// SIS wants the agent to end itself.
    dismissed: bool,
}

enum Duty {
    Register(RegisterRequest),
    Beat(Heartbeat),
    Wait(Duration),
}

impl Report {
    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(line) = stop.run_until_cancelled(self.line()).await {
            let follow = line.follow.clone();
            let ended = stop.run_until_cancelled(self.tell(line)).await;
            follow.cancel();
            if ended.is_none() {
                return;
            }
        }
    }

    /// Waits for a configuration by which somebody can be told.
    async fn line(&mut self) -> Line {
        loop {
            let settings = self.settings.borrow_and_update().clone();
            self.publish(&settings);
            if let Some(cluster) = settings.cluster.clone() {
                match self.connect(Arc::clone(&settings), cluster) {
                    Ok(line) => return line,
                    Err(error) => self.health.bad(REGISTRATION, error.reason(), chain(&error)),
                }
            } else {
                let text = "waiting for the cluster's id: the operator's bootstrap registers the cluster";
                self.health.bad(REGISTRATION, "ClusterNotRegistered", text);
            }
            self.changed().await;
        }
    }

    fn connect(&self, settings: Arc<Settings>, cluster: ClusterId) -> Result<Line, SetupError> {
        let secret = SecretFile::new(&settings.config.authz.secrets_file);
        // The schedule knows what is due after a failure: by then it may be something else.
        let client = settings.sis_client(secret.clone(), RetryPolicy::ONCE, self.clock.clone())?;
        info!(sis = settings.config.agent.sis_url, %cluster, "telling SIS of the cluster");
        Ok(Line {
            client,
            cluster,
            secret: secret.subscribe(),
            follow: CancellationToken::new(),
            settings,
        })
    }

    /// Until the configuration is another one.
    async fn tell(&mut self, mut line: Line) {
        let mut told = Told {
            register: Schedule::new(REGISTER_EVERY, self.seed),
            beat: Schedule::new(BEAT_EVERY, self.seed.rotate_left(17)),
            in_use: InUse::default(),
            tried: false,
            dismissed: false,
        };
        let secret = line.client.token_file().secret().clone();
        let mut followed = std::pin::pin!(secret.follow(line.follow.clone()));
        loop {
            if **self.settings.borrow() != *line.settings {
                self.orders.send_replace(Orders::Wait);
                return;
            }
            let duty = self.duty(&line.settings, &mut told);
            tokio::select! {
                // Runs beside; it does not end before it is told to.
                () = &mut followed => return,
                () = self.perform(duty, &mut line, &mut told) => {}
            }
        }
    }

    fn duty(&mut self, settings: &Settings, told: &mut Told) -> Duty {
        let now = self.clock.monotonic();
        let Some(view) = self.publish(settings) else {
            return Duty::Wait(Duration::MAX);
        };
        let k8s_version = self.k8s_version.borrow_and_update().clone();
        let mut wait = Duration::MAX;
        let gpus = told.in_use.complete(view.gpus.clone());
        let request = register::request(settings, &k8s_version, gpus).filter(|_| !k8s_version.is_empty());
        if let Some(request) = request {
            let due = told.register.due(now, &request);
            if due <= now {
                // Now and then SIS may let go of types that it wanted to keep.
                if told.register.is_refresh(&request) {
                    told.in_use.forget();
                    let plain = register::request(settings, &k8s_version, view.gpus.clone());
                    return Duty::Register(plain.unwrap_or(request));
                }
                return Duty::Register(request);
            }
            wait = due.saturating_sub(now);
        }
        // Without a GPU there is nothing to register, and SIS must hear of that all the same.
        if told.tried || view.gpus.is_empty() {
            self.health_seen.mark_unchanged();
            let healthy = self.health.is_good_but_for(HEARTBEAT);
            let beat = heartbeat(settings, healthy, told.register.was_told(), view.usage.clone());
            let due = told.beat.due(now, &beat);
            if due <= now {
                return Duty::Beat(beat);
            }
            wait = wait.min(due.saturating_sub(now));
        }
        Duty::Wait(wait)
    }

    /// What is to be told by now, for everybody. `None` while the cluster is not known.
    fn publish(&mut self, settings: &Settings) -> Option<Arc<View>> {
        let inventory = self.inventory.borrow_and_update().clone()?;
        let view = Arc::new(View::of(&inventory, settings, &self.allocation.borrow_and_update()));
        match view.trouble() {
            None => self.health.good(GPU),
            Some((reason, text)) => self.health.bad(GPU, reason, text),
        }
        self.view.send_if_modified(|current| {
            let changed = *current != view;
            current.clone_from(&view);
            changed
        });
        Some(view)
    }

    async fn perform(&mut self, duty: Duty, line: &mut Line, told: &mut Told) {
        match duty {
            Duty::Register(request) => self.register(request, line, told).await,
            Duty::Beat(beat) => self.beat(beat, line, told).await,
            Duty::Wait(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.changed() => {}
                    // Its sender lives as long as the client.
                    changed = line.secret.changed() => if changed.is_ok() {
                        told.register.nudge();
                        told.beat.nudge();
                    }
                }
            }
        }
    }

    async fn register(&self, mut request: RegisterRequest, line: &Line, told: &mut Told) {
        told.tried = true;
        for _ in 0..MOST_COMPLETIONS {
            let answer = line.client.register(&line.cluster, &request).await;
            self.metrics.asked("register", answer.as_ref().err());
            let now = self.clock.monotonic();
            match answer {
                Ok(_) => {
                    info!(kept = ?told.in_use.kept().collect::<Vec<_>>(), "registered");
                    told.in_use.accepted(&request.gpus);
                    told.register.succeeded(now, request);
                    self.health.good(REGISTRATION);
                    self.work(told);
                    return;
                }
                Err(refusal) if told.in_use.learn(&refusal) => {
                    info!(
                        refusal = refusal.chain(),
                        "instances run of types that no node offers: they stay, empty"
                    );
                    request.gpus = told.in_use.complete(request.gpus);
                }
                Err(error) => {
                    told.register
                        .failed(now, &request, error.is_transient(), error.retry_after());
                    self.health.bad(REGISTRATION, error.reason(), words(&error));
                    return;
                }
            }
        }
        // The next completion is another request, which is due at once; the schedule keeps a gap.
        let now = self.clock.monotonic();
        told.register.failed(now, &request, true, None);
    }

    async fn beat(&self, beat: Heartbeat, line: &Line, told: &mut Told) {
        let answer = line.client.heartbeat(&line.cluster, &beat).await;
        self.metrics.asked("heartbeat", answer.as_ref().err());
        let now = self.clock.monotonic();
        match answer {
            Ok(action) => {
                told.beat.succeeded(now, beat);
                self.health.good(HEARTBEAT);
                told.dismissed = action == HeartbeatAction::SelfDestruct;
                self.work(told);
            }
            Err(error) => {
                told.beat.failed(now, &beat, error.is_transient(), error.retry_after());
                self.health.bad(HEARTBEAT, error.reason(), words(&error));
                // It was deleted and made anew, or the answer comes from another service: start over.
                if matches!(error, SisError::NotFound { .. }) {
                    told.register.forget();
                }
            }
        }
    }

    /// As the real agent does, functions end and are told. Unlike it, this one goes on asking: SIS may think better of it. The
    /// agent itself stays: whoever wants the cluster gone deletes its NVCFBackend.
    fn work(&self, told: &Told) {
        let orders = match (told.register.was_told(), told.dismissed) {
            (_, true) => Orders::Leave,
            (true, false) => Orders::Work,
            (false, false) => Orders::Wait,
        };
        self.orders
            .send_if_modified(|current| std::mem::replace(current, orders) != orders);
        if told.dismissed {
            let text = "SIS answered SELF_DESTRUCT: all functions end, and no new work is taken; upgrade the agent, or delete \
                        the NVCFBackend";
            self.health.bad(ORDERS, "SelfDestruct", text);
        } else {
            self.health.good(ORDERS);
        }
    }

    /// Something is other than it was, so that something else may be due.
    async fn changed(&mut self) {
        // An end of one of the senders is the end of the process, which waits for nothing here.
        let ended = tokio::select! {
            changed = self.settings.changed() => changed.is_err(),
            changed = self.inventory.changed() => changed.is_err(),
            changed = self.allocation.changed() => changed.is_err(),
            changed = self.k8s_version.changed() => changed.is_err(),
            changed = self.health_seen.changed() => changed.is_err(),
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

/// In plain words, with what to do where that is not plain.
fn words(error: &SisError) -> String {
    let hint = match error {
        SisError::NotFound { .. } => ": the cluster was deleted at SIS; the operator's bootstrap registers it again",
        SisError::Refused { status: 409, text } if text.contains("instance type spec") => {
            ": another cluster of its group offers the same GPU in other shapes; give one of them another group, or another \
             name for the GPU by the label nvca.nvcf.nvidia.io/gpu.product"
        }
        _ => "",
    };
    format!("{}{hint}", error.chain())
}

#[cfg(test)]
mod tests;
