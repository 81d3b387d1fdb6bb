//! Events of the `NVCFBackend`: what `kubectl describe nvcfbackends` shows. Owns how they are posted; a lost one is only logged.

use berth_kube_api::nvcf::NvcfBackend;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tracing::debug;

/// Kubernetes' own limit of a note.
const LONGEST: usize = 1024;

/// Posts them. Clones post as the same reporter.
#[derive(Clone)]
pub(super) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(super) fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter {
            controller: "nvca-operator".to_owned(),
            instance: Some(instance),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    pub(super) async fn normal(&self, of: &NvcfBackend, reason: &str, note: &str) {
        self.post(of, EventType::Normal, reason, note).await;
    }

    pub(super) async fn warning(&self, of: &NvcfBackend, reason: &str, note: &str) {
        self.post(of, EventType::Warning, reason, note).await;
    }

    async fn post(&self, of: &NvcfBackend, kind: EventType, reason: &str, note: &str) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(LONGEST).collect()),
            action: reason.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &of.object_ref(&())).await {
            debug!(error = &error as &dyn std::error::Error, reason, "an event is lost");
        }
    }
}
