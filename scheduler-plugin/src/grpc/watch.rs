//! WatchDecisions: the trail, as it grows.

use berth_proto::scheduler::v1::{WatchDecisionsResponse, watch_decisions_response::Event};
use berth_runtime::grpc::Sink;
use tokio::sync::broadcast::error::RecvError;

use super::convert;
use crate::decisions::Decisions;

/// Tells until the reader or the scheduler is gone. A reader that is too slow is told how many it missed.
pub(super) async fn follow(decisions: &Decisions, history: bool, sink: Sink<WatchDecisionsResponse>) {
    let (kept, mut news) = decisions.watch();
    if history {
        for decision in &kept {
            if sink
                .send(message(Event::Decision(convert::decision(decision))))
                .await
                .is_err()
            {
                return;
            }
        }
    }
    drop(kept);
    loop {
        let event = tokio::select! {
            news = news.recv() => match news {
                Ok(decision) => Event::Decision(convert::decision(&decision)),
                Err(RecvError::Lagged(missed)) => Event::Missed(missed),
                Err(RecvError::Closed) => return,
            },
            _ = sink.closed() => return,
        };
        if sink.send(message(event)).await.is_err() {
            return;
        }
    }
}

fn message(event: Event) -> WatchDecisionsResponse {
    WatchDecisionsResponse { event: Some(event) }
}
