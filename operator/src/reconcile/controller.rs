//! The loop: looks at what is there, does what the plan says, tells how it went. Level-triggered: any change is looked at anew.
//!
//! The only writer of everything that the operator makes. Owns what was tried last and when; decides nothing.

use std::{sync::Arc, time::Duration};

use berth_kube_api::nvcf::backend::{NvcfBackend, NvcfBackendSpec};
use berth_runtime::{
    SharedClock,
    kubernetes::{ApiError, DEADLINE, apply, within},
    telemetry::with_causes,
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    attempts::{Attempts, FIRST_WAIT, Failure, LAST_WAIT, last_wait},
    events::Events,
    health::{AgentStatus, Health},
    live::{Live, LiveReceiver},
    metrics::Metrics,
    object::Key,
    plan::{self, Before, Plan, Problem},
    settings::Settings,
    status::{self, Verdict},
    teardown::{Progress, Teardown},
};
use crate::names;

/// Owner of the fields that the operator applies.
pub(super) const MANAGER: &str = "nvca-operator";
/// What changes within this is looked at once.
const SETTLE: Duration = Duration::from_millis(20);
/// Certificates grow old without an event.
const AT_LEAST: Duration = Duration::from_mins(10);

/// What the loop needs.
pub(super) struct Controller {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) live: LiveReceiver,
    pub(super) health: watch::Receiver<Health>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Metrics,
    pub(super) events: Events,
    pub(super) teardown: Teardown,
    pub(super) memory: Memory,
}

/// What is remembered from round to round.
#[derive(Debug, Default)]
pub(super) struct Memory {
    before: Before,
    attempts: Attempts,
    told: Vec<String>,
    health: Option<AgentStatus>,
    failures: u32,
}

impl Controller {
    /// For ever.
    pub(super) async fn run(mut self) {
        loop {
            let live = self.live.borrow_and_update().clone();
            let Some(live) = live else {
                if self.live.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let again = self.round(&live).await;
            tokio::select! {
                changed = self.live.changed() => if changed.is_err() { return },
                changed = self.health.changed() => if changed.is_err() { return },
                () = sleep(again) => {}
            }
            sleep(SETTLE).await;
        }
    }

    /// One look at everything. When to look again at the latest.
    async fn round(&mut self, live: &Live) -> Duration {
        let started = self.clock.monotonic();
        let plan = plan::plan(live, &self.settings, self.clock.now_unix_ms(), &self.memory.before);
        if plan.certificates.is_some() {
            self.memory.before.certificates.clone_from(&plan.certificates);
        }
        self.tell(&plan.problems);
        let done = match plan.deleting.clone() {
            Some(backend) => self.delete(live, &backend).await.map(|()| AT_LEAST),
            None => self.bring_up_to_date(live, &plan).await,
        };
        self.metrics
            .round(self.clock.monotonic().saturating_sub(started), done.as_ref().err());
        match done {
            Ok(wait) => {
                self.memory.failures = 0;
                wait
            }
            Err(error) => {
                let wait = FIRST_WAIT * 2_u32.saturating_pow(self.memory.failures.min(8));
                self.memory.failures += 1;
                warn!(
                    error = &error as &dyn std::error::Error,
                    reason = error.reason(),
                    "trying on"
                );
                wait.min(last_wait(error.is_transient()))
            }
        }
    }

    /// Each kind of trouble once.
    fn tell(&mut self, problems: &[Problem]) {
        let now: Vec<String> = problems.iter().map(|it| with_causes(it)).collect();
        for (problem, text) in problems.iter().zip(&now) {
            if !self.memory.told.contains(text) {
                warn!(reason = problem.reason(), "{text}");
            }
        }
        if now.is_empty() && !self.memory.told.is_empty() {
            info!("nothing stands in the way any more");
        }
        self.memory.told = now;
    }

    async fn bring_up_to_date(&mut self, live: &Live, plan: &Plan) -> Result<Duration, ApiError> {
        // Also where it cannot be written: its definition is one of the objects.
        let backend = self.backend(plan).await;
        let (wait, failure) = self.objects(live, plan).await;
        if let Some(backend) = backend? {
            let version = plan.backend.as_ref().map_or("", |wanted| &wanted.spec.version);
            self.status(&backend, version, plan, failure.as_ref()).await?;
        }
        for other in &plan.superfluous {
            self.superfluous(other, plan).await?;
        }
        for other in &plan.released {
            self.release(other).await?;
        }
        Ok(wait)
    }

    /// The `NVCFBackend`, written where it is not as it should be.
    async fn backend(&mut self, plan: &Plan) -> Result<Option<Arc<NvcfBackend>>, ApiError> {
        let Some(wanted) = plan.backend.as_ref().filter(|wanted| wanted.is_stale) else {
            return Ok(plan.current.clone());
        };
        self.memory.before.retired = None;
        let api: Api<NvcfBackend> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let object = NvcfBackend {
            metadata: ObjectMeta {
                name: Some(wanted.name.clone()),
                finalizers: Some(vec![names::BACKEND_FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: wanted.spec.clone(),
            status: None,
        };
        let written = Arc::new(apply(&api, &object, MANAGER).await?);
        let what = plan.current.as_deref().map_or("Install", |_| "Upgrade");
        info!(
            name = wanted.name,
            version = wanted.spec.version,
            "the NVCFBackend is written"
        );
        let note = note(plan.current.as_deref().map(|it| &it.spec), &wanted.spec);
        self.events.normal(&written, what, &note).await;
        Ok(Some(written))
    }

    /// Applies and prunes; goes on after a failure. When to look again, and the first failure.
    async fn objects(&mut self, live: &Live, plan: &Plan) -> (Duration, Option<Failure>) {
        let mut failure = None;
        let mut again = AT_LEAST;
        let now = self.clock.monotonic();
        for (key, object) in &plan.apply {
            if self.memory.attempts.is_settled(key, object, live) {
                continue;
            }
            if let Some((rest, before)) = self.memory.attempts.rest(key, object, now) {
                again = again.min(rest);
                failure = failure.or(before);
                continue;
            }
            let api = self.api(key);
            let params = PatchParams::apply(MANAGER).force();
            let written = within(DEADLINE, api.patch(&key.name, &params, &Patch::Apply(object))).await;
            let (made, failed) = match written {
                Ok(made) => {
                    info!(object = %key, "applied");
                    self.metrics.applied(key.kind.name);
                    (super::live::slim(made), None)
                }
                Err(error) => {
                    warn!(object = %key, error = &error as &dyn std::error::Error, "not applied");
                    self.metrics.failed(&error);
                    again = again.min(FIRST_WAIT);
                    (None, Some(Failure::of(key, &error)))
                }
            };
            failure = failure.or_else(|| failed.clone());
            self.memory.attempts.came_of(key, made, failed);
        }
        for key in &plan.prune {
            let deleted = within(DEADLINE, self.api(key).delete(&key.name, &DeleteParams::default())).await;
            match deleted {
                Ok(_) => info!(object = %key, "not wanted any more: deleted"),
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    again = again.min(LAST_WAIT);
                    failure = failure.or_else(|| Some(Failure::of(key, &error)));
                }
            }
        }
        self.memory.attempts.forget(&plan.apply, now);
        (again, failure)
    }

    fn api(&self, key: &Key) -> Api<DynamicObject> {
        let resource = key.kind.resource();
        match &key.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    async fn status(
        &mut self,
        backend: &NvcfBackend,
        version: &str,
        plan: &Plan,
        failure: Option<&Failure>,
    ) -> Result<(), ApiError> {
        let health = self.health.borrow_and_update().clone();
        self.tell_health(backend, &health).await;
        let verdicts = verdicts(plan, &health, failure);
        let now = self.now();
        let before = backend.status.as_ref();
        let version = if version.is_empty() {
            before.map_or("", |it| &it.version)
        } else {
            version
        };
        let status = status::status(before, version, &health, &verdicts, backend.metadata.generation, now);
        if before == Some(&status) {
            return Ok(());
        }
        self.write_status(backend, json!(status)).await
    }

    async fn tell_health(&mut self, backend: &NvcfBackend, health: &Health) {
        let before = self.memory.health.replace(health.status);
        let written = backend.status.as_ref().map_or("", |it| it.agent_status.as_str());
        let before = before.map_or(written, |it| it.as_str());
        let now = health.status.as_str();
        if before == now {
            return;
        }
        let message = format!(
            "ClusterAgent health changed from '{before}' to '{now}' {}",
            health.message
        );
        let message = message.trim_end();
        if health.status == AgentStatus::Healthy {
            info!("{message}");
            self.events.normal(backend, "Health", message).await;
        } else {
            warn!("{message}");
            self.events.warning(backend, "Health", message).await;
        }
    }

    /// Tells it on the object itself; nothing is done for it.
    async fn superfluous(&self, backend: &NvcfBackend, plan: &Plan) -> Result<(), ApiError> {
        let is_it = |it: &&Problem| matches!(it, Problem::Superfluous { .. });
        let Some(problem) = plan.problems.iter().find(is_it) else {
            return Ok(());
        };
        let verdict = Verdict::new("Ready", Some(false), problem.reason(), problem.to_string());
        let before = backend.status.as_ref();
        let generation = backend.metadata.generation;
        let status = status::status(before, "", &Health::default(), &[verdict], generation, self.now());
        if before == Some(&status) {
            return Ok(());
        }
        self.write_status(backend, json!(status)).await
    }

    /// Lets one go that this cluster does not stand for; what there is belongs to the other.
    async fn release(&self, backend: &NvcfBackend) -> Result<(), ApiError> {
        if self.let_go(backend).await? {
            let note = "it was no backend of this cluster: it goes, and nothing is taken down";
            info!(name = backend.name_any(), "{note}");
            self.events.normal(backend, "Uninstall", note).await;
        }
        Ok(())
    }

    /// Takes everything down, and lets the object go.
    async fn delete(&mut self, live: &Live, backend: &NvcfBackend) -> Result<(), ApiError> {
        info!(
            name = backend.name_any(),
            "the NVCFBackend is deleted: taking the agent down"
        );
        let mut reporter = Reporter {
            api: Api::namespaced(self.client.clone(), &self.settings.namespace),
            events: self.events.clone(),
            backend: backend.clone(),
            now: self.now(),
        };
        let report = self.teardown.run(&mut reporter).await?;
        let mut end = "everything of the agent is gone".to_owned();
        if !report.freed.is_empty() {
            end = format!(
                "{end}; freed of finalizers, as nobody served them: {}",
                report.freed.join(", ")
            );
        }
        if report.left.is_empty() {
            self.events.normal(backend, "Uninstall", &end).await;
        } else {
            let end = format!("{end}, but not yet: {}", report.left.join(", "));
            self.events.warning(backend, "Uninstall", &end).await;
        }
        self.let_go(backend).await?;
        self.memory.before.retired = plan::cluster_text(live);
        self.memory.attempts = Attempts::default();
        info!(
            "the NVCFBackend is gone. It is made again when the ConfigMap {} changes, or the operator is restarted",
            names::CLUSTER_DTO
        );
        Ok(())
    }

    /// Without the operator's finalizer. Whether it was still there.
    async fn let_go(&self, backend: &NvcfBackend) -> Result<bool, ApiError> {
        let api: Api<NvcfBackend> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let finalizers = backend.metadata.finalizers.iter().flatten();
        let others: Vec<&String> = finalizers.filter(|it| *it != names::BACKEND_FINALIZER).collect();
        let patch = Patch::Merge(json!({"metadata": {"finalizers": others}}));
        let done = within(
            DEADLINE,
            api.patch(&backend.name_any(), &PatchParams::default(), &patch),
        )
        .await;
        match done {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write_status(&self, backend: &NvcfBackend, status: Value) -> Result<(), ApiError> {
        let api: Api<NvcfBackend> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        write_status(&api, &backend.name_any(), status).await
    }

    fn now(&self) -> Timestamp {
        let ms = i64::try_from(self.clock.now_unix_ms()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(ms).unwrap_or_default()
    }
}

/// Tells the progress of a deletion on the object.
struct Reporter {
    api: Api<NvcfBackend>,
    events: Events,
    backend: NvcfBackend,
    now: Timestamp,
}

impl Progress for Reporter {
    async fn tell(&mut self, message: String) {
        info!("{message}");
        self.events.normal(&self.backend, "Uninstall", &message).await;
        let verdict = Verdict::new("Ready", Some(false), "Deleting", message);
        let generation = self.backend.metadata.generation;
        let before = self.backend.status.clone();
        let version = before.as_ref().map_or("", |it| &it.version);
        let status = status::status(
            before.as_ref(),
            version,
            &Health::default(),
            &[verdict],
            generation,
            self.now,
        );
        // Only a word on the way: the end is what counts.
        drop(write_status(&self.api, &self.backend.name_any(), json!(status)).await);
    }
}

async fn write_status(api: &Api<NvcfBackend>, name: &str, status: Value) -> Result<(), ApiError> {
    let object =
        json!({"apiVersion": "nvcf.nvidia.io/v1", "kind": "NVCFBackend", "metadata": {"name": name}, "status": status});
    let params = PatchParams::apply(MANAGER).force();
    let written = within(DEADLINE, api.patch_status(name, &params, &Patch::Apply(object))).await;
    match written {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn verdicts(plan: &Plan, health: &Health, failure: Option<&Failure>) -> Vec<Verdict> {
    let registered = plan.problems.iter().find(|it| matches!(it, Problem::NotRegistered));
    let registered = match registered {
        Some(problem) => Verdict::new("Registered", Some(false), problem.reason(), problem.to_string()),
        None => Verdict::new("Registered", Some(true), "AsExpected", "SIS knows the cluster"),
    };
    let major = plan
        .problems
        .iter()
        .find(|it| !it.is_minor() && !matches!(it, Problem::NotRegistered));
    let applied = match (failure, major) {
        (Some(failure), _) => {
            let message = format!("{} cannot be applied: {}", failure.object, failure.message);
            Verdict::new("Applied", Some(false), failure.reason, message)
        }
        (None, Some(problem)) => Verdict::new("Applied", Some(false), problem.reason(), with_causes(problem)),
        (None, None) => Verdict::new("Applied", Some(true), "AsExpected", "all objects are as they should be"),
    };
    let healthy = match health.status {
        AgentStatus::Healthy => Verdict::new("AgentHealthy", Some(true), "AsExpected", "the agent says so"),
        AgentStatus::Unhealthy => Verdict::new("AgentHealthy", Some(false), "AgentUnhealthy", health.message.clone()),
        AgentStatus::Unknown => Verdict::new("AgentHealthy", None, "AgentUnknown", health.message.clone()),
    };
    let mut verdicts = vec![registered, applied, healthy];
    let ready = status::summary(&verdicts);
    let minor: Vec<&Problem> = plan.problems.iter().filter(|it| it.is_minor()).collect();
    verdicts.push(match minor.first() {
        None => Verdict::new(
            "ConfigurationValid",
            Some(true),
            "AsExpected",
            "everything given is used",
        ),
        Some(first) => {
            let all: Vec<String> = minor.iter().map(|it| with_causes(*it)).collect();
            Verdict::new("ConfigurationValid", Some(false), first.reason(), all.join("\n"))
        }
    });
    verdicts.push(ready);
    verdicts
}

fn note(before: Option<&NvcfBackendSpec>, now: &NvcfBackendSpec) -> String {
    match before {
        None => format!("Starting ClusterAgent {} installation", now.version),
        Some(before) if before.version != now.version => {
            format!("Upgrading ClusterAgent from {} to {}", before.version, now.version)
        }
        Some(_) => "Updating ClusterAgent feature configuration".to_owned(),
    }
}

#[cfg(test)]
mod tests;
