//! How the agent is: by component, each with what is wrong in plain words. Owns `/healthz`'s form; must not know who asks.

use std::{collections::BTreeMap, sync::Arc};

use berth_sis::wire::GpuUsage;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

/// The configuration can be used.
pub const CONFIG: &str = "config";
/// The API server tells of the cluster.
pub const KUBERNETES: &str = "kubernetes";
/// There are GPUs to offer.
pub const GPU: &str = "gpu";
/// SIS took the registration.
pub const REGISTRATION: &str = "sis-registration";
/// SIS took the last heartbeat. Not part of what a heartbeat says.
pub const HEARTBEAT: &str = "sis-heartbeat";
/// SIS wants this agent to go on.
pub const ORDERS: &str = "sis-orders";
/// Nodes carry the label that function pods look for.
pub const LABELS: &str = "node-labels";

/// Clones share one state.
#[derive(Debug, Clone)]
pub struct Health {
    components: Arc<watch::Sender<Components>>,
}

/// What is wrong with each component; `None`: nothing.
pub type Components = BTreeMap<&'static str, Option<Trouble>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Stable, in CamelCase.
    pub reason: &'static str,
    pub text: String,
}

impl Health {
    /// Unhealthy until each of the components said something better.
    pub fn starting(components: &[&'static str]) -> Self {
        let starting = |name: &&'static str| {
            let text = "starting".to_owned();
            let reason = "Starting";
            (*name, Some(Trouble { reason, text }))
        };
        let (components, _) = watch::channel(components.iter().map(starting).collect());
        Self {
            components: Arc::new(components),
        }
    }

    pub fn good(&self, component: &'static str) {
        self.set(component, None);
    }

    /// Logged when the reason is another one than before.
    pub fn bad(&self, component: &'static str, reason: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.set(component, Some(Trouble { reason, text }));
    }

    pub fn subscribe(&self) -> watch::Receiver<Components> {
        self.components.subscribe()
    }

    /// Whether all but `except` are well.
    pub fn is_good_but_for(&self, except: &str) -> bool {
        let components = self.components.borrow();
        components
            .iter()
            .all(|(name, trouble)| *name == except || trouble.is_none())
    }

    /// What `/healthz` shows, and whether all is well. Keys as the real agent writes them.
    pub fn page(&self, usage: &BTreeMap<String, GpuUsage>, k8s_version: &str) -> (bool, Value) {
        let components = self.components.borrow();
        let healthy = components.values().all(Option::is_none);
        let status = |good| if good { "healthy" } else { "unhealthy" };
        let component = |(name, trouble): (&&'static str, &Option<Trouble>)| {
            let errors = trouble.as_ref().map(|it| [format!("{}: {}", it.reason, it.text)]);
            (
                (*name).to_owned(),
                json!({"Status": status(trouble.is_none()), "Errors": errors}),
            )
        };
        let components: serde_json::Map<String, Value> = components.iter().map(component).collect();
        let page = json!({"Status": status(healthy), "GPUUsage": usage, "Components": components,
            "k8sVersion": k8s_version});
        (healthy, page)
    }

    fn set(&self, component: &'static str, trouble: Option<Trouble>) {
        let reason = |trouble: Option<&Trouble>| trouble.map(|it| it.reason);
        self.components.send_if_modified(|components| {
            let before = components.get(component).and_then(Option::as_ref);
            if components.contains_key(component) && before == trouble.as_ref() {
                return false;
            }
            if reason(before) != reason(trouble.as_ref()) {
                if let Some(Trouble { reason, text }) = &trouble {
                    warn!(component, reason, "unhealthy: {text}");
                } else {
                    info!(component, "healthy");
                }
            }
            components.insert(component, trouble);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_keys_that_the_operator_reads() {
        let health = Health::starting(&[GPU, HEARTBEAT]);
        health.good(GPU);
        let usage = GpuUsage {
            available: 7,
            capacity: 8,
            allocated: 1,
        };
        let usage = BTreeMap::from([("H100".to_owned(), usage)]);
        health.bad(HEARTBEAT, "TokenScope", "it lacks the scope");
        let (healthy, page) = health.page(&usage, "v1.35.4");
        assert!(!healthy && health.is_good_but_for(HEARTBEAT) && !health.is_good_but_for(GPU));
        assert_eq!(
            page,
            json!({"Status": "unhealthy", "GPUUsage": {"H100": {"available": 7, "capacity": 8, "allocated": 1}},
                "Components": {"gpu": {"Status": "healthy", "Errors": null},
                    "sis-heartbeat": {"Status": "unhealthy", "Errors": ["TokenScope: it lacks the scope"]}},
                "k8sVersion": "v1.35.4"})
        );
        health.good(HEARTBEAT);
        assert_eq!(health.page(&usage, "").1["Status"], "healthy");
    }

    #[test]
    fn who_follows_is_told_of_changes_only() {
        let health = Health::starting(&[GPU]);
        let mut follower = health.subscribe();
        follower.mark_unchanged();
        health.good(GPU);
        assert!(follower.has_changed().unwrap());
        follower.mark_unchanged();
        health.good(GPU);
        assert!(!follower.has_changed().unwrap());
    }
}
