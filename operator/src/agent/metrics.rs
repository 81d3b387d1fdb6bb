//! The agent's metrics, by the names that dashboards of NVCF know. Levels are taken from the view when asked for.

use std::{borrow::Cow, sync::Arc};

use berth_sis::{SisError, wire::NodeType};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{settings::Settings, view::View};

/// Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    upstream: Family<Upstream, Counter>,
    /// Of the queues and pods.
    more: Arc<Mutex<Registry>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Upstream {
    operation: &'static str,
    /// Of HTTP, or the reason why there is none.
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfType {
    instance_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMachine {
    gpu_family: String,
    gpu_machine: String,
}

impl Metrics {
    /// A request to SIS, and what came of it.
    pub(crate) fn asked(&self, operation: &'static str, error: Option<&SisError>) {
        let status = match error {
            None => "200".to_owned(),
            Some(error) => error
                .status()
                .map_or_else(|| error.reason().to_owned(), |status| status.to_string()),
        };
        self.upstream.get_or_create(&Upstream { operation, status }).inc();
    }

    /// Metrics that another part registers, in place of those that it registered before.
    pub fn replace_more<T>(&self, settings: &Settings, register: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = Registry::with_labels(labels(settings));
        let registered = register(&mut registry);
        *self.more.lock() = registry;
        registered
    }

    /// The page. `process`: what every program tells of itself.
    ///
    /// # Errors
    /// The text cannot be written.
    pub fn page(&self, view: &View, settings: &Settings, process: &Registry) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix_and_labels("nvca", labels(settings));
        registry.register("upstream_request", "Requests to SIS", self.upstream.clone());
        levels(&mut registry, view);
        let mut text = String::new();
        encode_registry(&mut text, &registry)?;
        encode_registry(&mut text, &self.more.lock())?;
        encode_registry(&mut text, process)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// On every metric.
fn labels(settings: &Settings) -> impl Iterator<Item = (Cow<'static, str>, Cow<'static, str>)> {
    let cluster = &settings.config.cluster;
    let labels = [
        ("nvca_nca_id", cluster.nca_id.clone()),
        ("nvca_cluster_name", cluster.name.clone()),
        ("nvca_cluster_group", cluster.group_name.clone()),
        ("nvca_version", settings.version().to_owned()),
    ];
    labels
        .into_iter()
        .map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value)))
}

fn levels(registry: &mut Registry, view: &View) {
    let [capacity, allocatable, unschedulable]: [Family<OfType, Gauge>; 3] = Default::default();
    for gpu in &view.gpus {
        let singles = gpu
            .instance_types
            .iter()
            .filter(|it| it.node_type == Some(NodeType::Single));
        for it in singles {
            let label = OfType {
                instance_type: it.name.clone(),
            };
            let size = u32::try_from(it.gpu_count).unwrap_or(u32::MAX);
            let fits = view.capacity.fits(&gpu.name, size);
            capacity.get_or_create(&label).set(it.max_instances.unwrap_or_default());
            allocatable.get_or_create(&label).set(fits.into());
            unschedulable
                .get_or_create(&label)
                .set(it.unschedulable_capacity.unwrap_or_default());
        }
    }
    let total: Family<OfMachine, Gauge> = Family::default();
    for host in view.inventory.hosts.values() {
        let label = OfMachine {
            gpu_family: host.family.clone(),
            gpu_machine: host.machine.clone(),
        };
        total.get_or_create(&label).inc();
    }
    let unclassified = Gauge::<i64>::default();
    unclassified.set(i64::try_from(view.inventory.unclassified.len()).unwrap_or(i64::MAX));
    let what = "instances of the type that the cluster can hold";
    registry.register("instance_type_capacity", format!("All {what}"), capacity);
    registry.register("instance_type_allocatable", format!("Further {what} now"), allocatable);
    let what = "Instances of the type that cannot be, because a GPU or a node takes no pods";
    registry.register("instance_type_unschedulable", what, unschedulable);
    registry.register("gpu_node_total_count", "Nodes whose GPUs are offered", total);
    let what = "Nodes with GPUs that cannot be offered";
    registry.register("gpu_node_unclassified_count", what, unclassified);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::inventory::{
            Allocation,
            tests::{H100, inventory, node},
        },
        agent::work,
        agent_config::AgentConfig,
    };

    #[test]
    fn the_page_has_the_names_and_labels_that_dashboards_know() {
        let mut config = AgentConfig::default();
        config.cluster.name = "c".to_owned();
        config.cluster.nca_id = "n".to_owned();
        config.cluster.nvca_version = "3.3.0".to_owned();
        let settings = Settings::of(config);
        let inventory = Arc::new(inventory(&[(node("a", H100, 8), None), (node("x", "NVIDIA", 8), None)]));
        let metrics = Metrics::default();
        metrics.asked("register", None);
        metrics.asked("heartbeat", Some(&SisError::Forbidden));
        drop(metrics.replace_more(&settings, work::metrics::Metrics::register));
        let view = View::of(&inventory, &settings, &Allocation::new());
        let text = metrics.page(&view, &settings, &Registry::default()).unwrap();
        let of = "nvca_nca_id=\"n\",nvca_cluster_name=\"c\",nvca_cluster_group=\"\",nvca_version=\"3.3.0\"";
        for line in [
            format!("nvca_upstream_request_total{{{of},operation=\"register\",status=\"200\"}} 1"),
            format!("nvca_upstream_request_total{{{of},operation=\"heartbeat\",status=\"403\"}} 1"),
            format!("nvca_instance_type_capacity{{{of},instance_type=\"NCP.GPU.H100_2x\"}} 4"),
            format!("nvca_instance_type_allocatable{{{of},instance_type=\"NCP.GPU.H100_8x\"}} 1"),
            format!("nvca_instance_type_unschedulable{{{of},instance_type=\"NCP.GPU.H100_8x\"}} 0"),
            format!("nvca_gpu_node_total_count{{{of},gpu_family=\"hopper\",gpu_machine=\"DGXH100\"}} 1"),
            format!("nvca_gpu_node_unclassified_count{{{of}}} 1"),
            format!("nvca_queue_message_processed_total{{{of},queue=\"creation\",outcome=\"taken\"}} 0"),
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        assert_eq!(text.matches("# EOF").count(), 1);
        // From which `cargo xtask codegen` takes what docs/metrics.md says of the agent.
        let golden = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/nvca-metrics.txt"));
        let families: Vec<&str> = text.lines().filter(|line| line.starts_with("# ")).collect();
        assert_eq!(families, golden.lines().collect::<Vec<_>>());
    }
}
