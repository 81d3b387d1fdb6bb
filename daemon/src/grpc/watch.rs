//! WatchNode: the node after every change, at a pace that a reader can follow.

use std::{sync::Arc, time::Duration};

use berth_gpu::Inventory;
use berth_proto::node::v1::WatchNodeResponse;
use berth_runtime::grpc::Sink;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use super::convert::node::{self, Identity};
use crate::book::NodeView;

/// The shortest time between two messages of one stream. The first change after a quiet moment is told at once; what
/// changes in the next moments is told together.
const PACE: Duration = Duration::from_millis(50);

/// Follows the published views, skipping those that come too fast.
#[derive(Debug)]
pub(super) struct PacedViews {
    views: watch::Receiver<Arc<NodeView>>,
    pace: Interval,
}

impl PacedViews {
    pub(super) fn new(views: watch::Receiver<Arc<NodeView>>) -> Self {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { views, pace }
    }

    pub(super) fn current(&mut self) -> Arc<NodeView> {
        Arc::clone(&self.views.borrow_and_update())
    }

    /// The next one; `None` when the book is closed. May be dropped half way.
    pub(super) async fn next(&mut self) -> Option<Arc<NodeView>> {
        self.pace.tick().await;
        self.views.changed().await.ok()?;
        Some(self.current())
    }
}

/// One WatchNode stream. Readings alone (temperature, power, utilisation) are no change: they come along with the next one.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) views: PacedViews,
    pub(super) readings: watch::Receiver<Arc<Inventory>>,
    pub(super) identity: Arc<Identity>,
    /// Zero: the present state is sent at once.
    pub(super) after_generation: u64,
}

impl Follow {
    /// Sends the node whenever its generation is above the one sent last.
    pub(super) async fn run(mut self, sink: Sink<WatchNodeResponse>) {
        let mut view = self.views.current();
        let mut sent = (self.after_generation > 0).then_some(self.after_generation);
        loop {
            if sent.is_none_or(|sent| view.generation() > sent) {
                sent = Some(view.generation());
                let fresh = view.with_readings(&self.readings.borrow());
                let message = WatchNodeResponse {
                    node: Some(node::node(&fresh, &self.identity)),
                };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            view = tokio::select! {
                next = self.views.next() => match next {
                    Some(view) => view,
                    None => return,
                },
                _ = sink.closed() => return,
            };
        }
    }
}
