//! What was told in the log: each kind of trouble once, not once per attempt. Decides nothing.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::Trouble;
use crate::registration::{Difference, Found};

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    trouble: Option<&'static str>,
    differences: Vec<Difference>,
}

impl Told {
    /// `wait`: until the next attempt.
    pub(super) fn trouble(&mut self, trouble: &Trouble, wait: Duration) {
        let reason = trouble.reason();
        let error = trouble as &dyn std::error::Error;
        if self.trouble.replace(reason) == Some(reason) {
            debug!(error, reason, ?wait, "this attempt failed as well");
        } else {
            warn!(
                error,
                reason,
                ?wait,
                "this attempt to register the cluster failed: trying on"
            );
        }
    }

    pub(super) fn found(&mut self, found: &Found) {
        if let Some(reason) = self.trouble.take() {
            info!(reason, "the trouble is over");
        }
        for difference in &found.differences {
            if !self.differences.contains(difference) {
                warn!(field = difference.field, "{difference}");
            }
        }
        self.differences.clone_from(&found.differences);
    }
}
