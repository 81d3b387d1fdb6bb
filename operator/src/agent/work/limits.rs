//! How long a pod may have trouble before its instance ends. Pure.

use std::time::Duration;

use super::{message::Wish, trouble::Trouble};
use crate::agent_config::AgentConfig;

/// The real agent's, unless the configuration says something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    no_node: Duration,
    image_pull: Duration,
    restarts: Duration,
    init: Duration,
    /// `None`: such pods are left alone.
    not_up: Option<Duration>,
    degraded: Option<Duration>,
    /// Of a task, from its start to its end.
    run: Option<Duration>,
}

/// A task ends itself and tells of it; this much later it is ended.
const TO_END_ITSELF: Duration = Duration::from_mins(5);

impl Limits {
    pub(crate) fn of(config: &AgentConfig) -> Self {
        let times = &config.workload.times;
        let purges = !config.lacks("AutoPurgeDegradedWorkers");
        Self {
            no_node: times.pod_scheduled(),
            image_pull: times.image_pull(),
            restarts: times.restarts(),
            init: times.init(),
            not_up: purges.then(|| times.worker_startup()),
            degraded: purges.then(|| times.worker_degradation()),
            run: None,
        }
    }

    /// A task says by itself how long it may wait for a node, and how long it may run.
    pub(crate) fn for_wish(self, wish: &Wish) -> Self {
        let no_node = wish.longest_queued().unwrap_or(self.no_node);
        let run = wish.longest_run().map(|run| run.saturating_add(TO_END_ITSELF));
        Self { no_node, run, ..self }
    }

    /// How long the instance may take from its start to its end; `None`: for ever.
    pub(crate) const fn run(&self) -> Option<Duration> {
        self.run
    }

    /// `None`: for ever.
    pub(crate) const fn after(&self, trouble: Trouble) -> Option<Duration> {
        match trouble {
            Trouble::NoNode => Some(self.no_node),
            Trouble::ImagePull => Some(self.image_pull),
            // It does not pass.
            Trouble::CreateContainer => Some(Duration::ZERO),
            Trouble::InitStuck => Some(self.init),
            Trouble::InitRestarts | Trouble::Restarts => Some(self.restarts),
            Trouble::NotUp => self.not_up,
            Trouble::Degraded => self.degraded,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(&AgentConfig::default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_the_real_agents_unless_the_configuration_says_otherwise() {
        let minutes = |limits: &Limits, trouble| limits.after(trouble).map(|limit| limit.as_secs() / 60);
        let limits = Limits::default();
        for (trouble, wanted) in [
            (Trouble::NoNode, 10),
            (Trouble::ImagePull, 1),
            (Trouble::CreateContainer, 0),
            (Trouble::InitStuck, 120),
            (Trouble::InitRestarts, 10),
            (Trouble::Restarts, 10),
            (Trouble::NotUp, 120),
            (Trouble::Degraded, 30),
        ] {
            assert_eq!(minutes(&limits, trouble), Some(wanted), "{trouble:?}");
        }
        let config = json!({"agent": {"featureFlags": ["-AutoPurgeDegradedWorkers"]},
            "workload": {"podScheduledThreshold": "1h30m0s", "maxImagePullErrorThreshold": 120_000_000_000_u64}});
        let limits = Limits::of(&serde_json::from_value(config).unwrap());
        assert_eq!(minutes(&limits, Trouble::NoNode), Some(90));
        assert_eq!(minutes(&limits, Trouble::ImagePull), Some(2));
        assert_eq!(minutes(&limits, Trouble::Degraded), None);
        assert_eq!(minutes(&limits, Trouble::NotUp), None);
    }

    #[test]
    fn a_task_says_how_long_it_may_run_and_a_function_runs_for_ever() {
        let run = |action: &str, longest: &str| {
            let message = json!({"requestId": "r", "ncaId": "n", "action": action, "instanceType": "NCP.GPU.H100",
                "launchSpecification": {"gpuName": "H100", "maxRuntimeDuration": longest}});
            Limits::default().for_wish(&Wish::of(message).unwrap()).run()
        };
        let task = "RequestSpotInstancesForTask";
        assert_eq!(run(task, "PT1H"), Some(Duration::from_mins(65)));
        for (action, longest) in [(task, ""), (task, "soon"), ("RequestSpotInstances", "PT1H")] {
            assert_eq!(run(action, longest), None, "{action} {longest}");
        }
    }

    #[test]
    fn a_task_says_how_long_it_may_wait_for_a_node() {
        let wish = |action: &str, queued: &str| {
            let message = json!({"requestId": "r", "ncaId": "n", "action": action, "instanceType": "NCP.GPU.H100",
                "launchSpecification": {"gpuName": "H100", "maxQueuedDuration": queued}});
            Wish::of(message).unwrap()
        };
        let no_node = |wish: &Wish| Limits::default().for_wish(wish).after(Trouble::NoNode);
        let hours = |hours| Some(Duration::from_hours(hours));
        assert_eq!(no_node(&wish("RequestSpotInstancesForTask", "PT72H")), hours(72));
        for (action, queued) in [
            ("RequestSpotInstances", "PT72H"),
            ("RequestSpotInstancesForTask", "soon"),
            ("RequestSpotInstancesForTask", "PT0S"),
        ] {
            assert_eq!(
                no_node(&wish(action, queued)),
                Some(Duration::from_mins(10)),
                "{action} {queued}"
            );
        }
    }
}
