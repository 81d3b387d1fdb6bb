//! Between what is told to SIS and what SIS asks for: the queues and pods take from here, and give back what they hold.

use std::{fmt, sync::Arc};

use berth_sis::wire::RegisterStatus;
use kube::Client;
use tokio::sync::watch;

use super::{
    health::Health,
    heartbeat::maintenance,
    inventory::{Allocation, Inventory},
    metrics::Metrics,
    settings::Settings,
    view::{View, capacity},
};

/// How many instances of so many GPUs of that name can be taken on now; what [`Seam::allocation`] says is taken.
pub type Fits = Arc<dyn Fn(&str, u32) -> u32 + Send + Sync>;

/// What SIS wants of this agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Orders {
    /// It does not know the cluster yet.
    #[default]
    Wait,
    Work,
    /// It answered `SELF_DESTRUCT`: everything ends.
    Leave,
}

#[derive(Clone)]
pub struct Seam {
    pub settings: watch::Receiver<Arc<Settings>>,
    /// `None` until the cluster is known.
    pub inventory: watch::Receiver<Option<Arc<Inventory>>>,
    pub view: watch::Receiver<Arc<View>>,
    pub orders: watch::Receiver<Orders>,
    /// What requests hold: goes into the heartbeat.
    pub allocation: watch::Sender<Allocation>,
    pub health: Health,
    pub metrics: Metrics,
    /// `None` until there is a way to the API server.
    pub client: watch::Receiver<Option<Client>>,
}

impl Seam {
    /// Nothing fits while no work is to be taken: before the registration, and during maintenance.
    pub fn fits(&self) -> Fits {
        let seam = self.clone();
        Arc::new(move |gpu, gpus_per_instance| {
            let settings = seam.settings.borrow().clone();
            let (status, _) = maintenance(&settings.config);
            if *seam.orders.borrow() != Orders::Work || status != RegisterStatus::Ready {
                return 0;
            }
            // Not by the view: it lags behind the allocation.
            let inventory = seam.inventory.borrow().clone();
            let capacity = inventory.map(|it| capacity(&it, &settings, &seam.allocation.borrow()));
            capacity.map_or(0, |capacity| capacity.fits(gpu, gpus_per_instance))
        })
    }
}

// A Kubernetes client shows nothing of itself.
impl fmt::Debug for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seam")
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::inventory::tests::{H100, inventory, node},
        agent_config::AgentConfig,
    };

    #[test]
    fn nothing_fits_before_the_registration_and_during_maintenance() {
        let (settings, settings_seen) = watch::channel(Arc::default());
        let known = inventory(&[(node("a", H100, 8), None)]);
        let (inventory, inventory_seen) = watch::channel(None);
        let (orders, orders_seen) = watch::channel(Orders::Wait);
        let (allocation, _) = watch::channel(Allocation::new());
        let seam = Seam {
            settings: settings_seen,
            inventory: inventory_seen,
            view: watch::channel(Arc::default()).1,
            orders: orders_seen,
            allocation,
            health: Health::starting(&[]),
            metrics: Metrics::default(),
            client: watch::channel(None).1,
        };
        let fits = seam.fits();
        assert_eq!(fits("H100", 2), 0);
        inventory.send_replace(Some(Arc::new(known)));
        assert_eq!(fits("H100", 2), 0);
        orders.send_replace(Orders::Work);
        assert_eq!(fits("H100", 2), 4);
        seam.allocation.send_replace(Allocation::from([("H100".to_owned(), 4)]));
        assert_eq!(fits("H100", 2), 2, "at once");
        let mut config = AgentConfig::default();
        config.agent.feature_flags = vec!["CordonMaintenance".to_owned()];
        settings.send_replace(Arc::new(Settings::of(config)));
        assert_eq!(fits("H100", 2), 0);
        // Where the configuration lists the GPUs, its word counts.
        settings.send_replace(Arc::default());
        assert_eq!(fits("H100", 2), 2);
        orders.send_replace(Orders::Leave);
        assert_eq!(fits("H100", 2), 0);
        orders.send_replace(Orders::Work);
        let listed = serde_json::json!({"agent": {"staticGPUs": [{"name": "L40", "capacity": 6}]}});
        settings.send_replace(Arc::new(Settings::of(serde_json::from_value(listed).unwrap())));
        assert_eq!((fits("H100", 2), fits("L40", 2)), (0, 3));
    }
}
