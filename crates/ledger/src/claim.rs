//! A claim: one holder's part of the node. The ledger keeps at most one for each holder.

use std::fmt;

use berth_placement::{Grant, LeaseId, PodRef, PodUid, Shape};
use serde::{Deserialize, Serialize};

/// Who holds a claim: its identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Holder {
    Pod(PodUid),
    Lease(LeaseId),
    /// A pod that the kubelet tells of and nobody reserved for; the kubelet gives no UID: `namespace/name`.
    Foreign(String),
}

/// What the claim rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimState {
    /// Intent; lapses after the deadline unless the kubelet confirms it.
    Reserved { deadline_unix_ms: u64 },
    /// The kubelet confirmed it; `grants` are what the kubelet assigned.
    Allocated { since_unix_ms: u64 },
    /// A client holds its stream open.
    Leased,
    /// From the kubelet alone. Never persisted: the kubelet tells it again.
    Foreign {
        since_unix_ms: u64,
        /// Its pod was released: whoever released it knows that it is gone, and the next list that lacks it ends the claim.
        released: bool,
    },
}

/// One holder's part of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub holder: Holder,
    /// Absent for a lease and a foreign pod's claim.
    pub pod: Option<PodRef>,
    /// Of a foreign pod what it must have asked for; a share of zero where it shares its devices with others and nobody
    /// knows how much it takes.
    pub shape: Shape,
    /// The plan while reserved, the assignment once allocated.
    pub grants: Vec<Grant>,
    pub state: ClaimState,
    pub granted_unix_ms: u64,
    /// Who asked, in words.
    pub client: String,
    /// The scheduler's decision; empty where there was none.
    pub decision_id: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(uid) => write!(f, "pod {uid}"),
            Self::Lease(id) => write!(f, "lease {id}"),
            Self::Foreign(name) => write!(f, "foreign pod {name}"),
        }
    }
}
