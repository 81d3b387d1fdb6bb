//! What an operator may tune: how long each thing is waited for.

use serde::{Deserialize, Serialize};

/// Durations in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// Life of a reservation whose asker names none.
    pub default_ttl_ms: u64,
    /// No reservation lives longer without being asked for again: longer wishes are cut.
    pub max_ttl_ms: u64,
    /// How long the kubelet's lists may lack what they told before, until that counts as gone. Covers a restart of the
    /// kubelet, whose first lists are empty: they end no reservation either. Also how long a pod's entry is taken for its
    /// predecessor of the same name.
    pub kubelet_grace_ms: u64,
    /// How long sources may disagree before that is drift, and how long a reservation whose device failed waits for room.
    pub drift_grace_ms: u64,
    /// A process that nobody assigned takes its device (or its MIG instance) out of scheduling.
    pub count_out_of_band: bool,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            default_ttl_ms: 5 * 60_000,
            max_ttl_ms: 60 * 60_000,
            kubelet_grace_ms: 30_000,
            drift_grace_ms: 60_000,
            count_out_of_band: true,
        }
    }
}
