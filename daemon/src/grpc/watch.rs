//! WatchNode: the node after every change, at a pace that a reader can follow.

use std::{sync::Arc, time::Duration};

use berth_proto::node::v1::WatchNodeResponse;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    convert::node::{self, Identity},
    stream::Sink,
};
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

/// Sends the node whenever its generation is above the one sent last; at once where `after_generation` is zero.
pub(super) async fn watch_node(
    sink: Sink<WatchNodeResponse>,
    views: watch::Receiver<Arc<NodeView>>,
    identity: Arc<Identity>,
    after_generation: u64,
) {
    let mut views = PacedViews::new(views);
    let mut view = views.current();
    let mut sent = (after_generation > 0).then_some(after_generation);
    loop {
        if sent.is_none_or(|sent| view.generation() > sent) {
            sent = Some(view.generation());
            let message = WatchNodeResponse {
                node: Some(node::node(&view, &identity)),
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
        view = tokio::select! {
            next = views.next() => match next {
                Some(view) => view,
                None => return,
            },
            _ = sink.closed() => return,
        };
    }
}
