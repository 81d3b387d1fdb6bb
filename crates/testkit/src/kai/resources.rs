//! Amounts of named resources, and what a pod asks for. On purpose not Berth's own parser: a stand-in that shares code
//! with what it tests would share its mistakes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity,
};

/// By resource name, in base units (cores, bytes, devices). What is not named is zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Resources(BTreeMap<String, f64>);

/// Of a sum of quantities like 0.1: far below any of them.
const ROUNDING: f64 = 1e-6;

impl Resources {
    pub(super) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, name: &str, amount: f64) {
        self.0.insert(name.to_owned(), amount);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            match self.0.get_mut(name) {
                Some(sum) => *sum += amount,
                None => self.set(name, *amount),
            }
        }
        self.forget_zeros();
    }

    pub(super) fn sub(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            match self.0.get_mut(name) {
                Some(sum) => *sum -= amount,
                None => self.set(name, -amount),
            }
        }
        self.forget_zeros();
    }

    fn forget_zeros(&mut self) {
        self.0.retain(|_, amount| *amount != 0.0);
    }

    /// The name of a resource of which this asks for more than `first` and `second` have together.
    pub(super) fn lacking(&self, first: &Self, second: Option<&Self>) -> Option<&str> {
        let short = |name: &str, amount: f64| {
            amount > 0.0 && amount > first.get(name) + second.map_or(0.0, |second| second.get(name)) + ROUNDING
        };
        self.0
            .iter()
            .find(|(name, amount)| short(name, **amount))
            .map(|(name, _)| name.as_str())
    }

    fn max(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let largest = self.get(name).max(*amount);
            self.set(name, largest);
        }
    }
}

impl<'a> FromIterator<(&'a String, &'a Quantity)> for Resources {
    fn from_iter<I: IntoIterator<Item = (&'a String, &'a Quantity)>>(quantities: I) -> Self {
        Self(
            quantities
                .into_iter()
                .map(|(name, quantity)| (name.clone(), amount(&quantity.0)))
                .collect(),
        )
    }
}

/// What the pod needs of a node, its slot included.
pub(super) fn of_pod(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of_container(container));
    }
    // Sidecars run on; the others run one by one, next to the sidecars before them (KEP-753).
    let (mut starting, mut sidecars) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let request = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&request);
            starting.max(&sidecars);
        } else {
            let mut together = sidecars.clone();
            together.add(&request);
            starting.max(&together);
        }
    }
    running.add(&sidecars);
    running.max(&starting);
    running.add(&spec.overhead.iter().flatten().collect());
    running.set("pods", 1.0);
    running
}

fn of_container(container: &Container) -> Resources {
    let requests = container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    requests.into_iter().flatten().collect()
}

/// A quantity in base units; what is none counts as zero (the API server lets none through).
fn amount(text: &str) -> f64 {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        exponent => 10_f64.powi(exponent[1..].parse().unwrap_or_default()),
    };
    number.parse::<f64>().unwrap_or_default() * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_base_units() {
        for (text, expected) in [
            ("8", 8.0),
            ("250m", 0.25),
            ("2Gi", 2_147_483_648.0),
            ("1e3", 1000.0),
            ("1.5k", 1500.0),
        ] {
            assert!((amount(text) - expected).abs() < ROUNDING, "{text}");
        }
    }

    #[test]
    fn a_sidecar_counts_with_what_runs_and_an_init_container_only_where_it_is_larger() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
                {"name": "i", "resources": {"requests": {"cpu": "5", "memory": "1"}}}],
            "overhead": {"cpu": "1"}}}))
        .unwrap();
        let request = of_pod(&pod);
        assert_eq!(
            (request.get("cpu"), request.get("memory"), request.get("pods")),
            (7.0, 1.0, 1.0)
        );
    }
}
