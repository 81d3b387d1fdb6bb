//! Feeds KAI Scheduler, unmodified: where a pod should go is decided here, before KAI looks at it.
//!
//! ```text
//!               ┌ hint: reserve, status.nominatedNodeName, take the gate away ──► KAI places it there
//! webhook ─► pod┤
//!               └ bind: reserve, PodGroup, pods/binding (a BindRequest for parts of GPUs) ──► KAI accounts it
//! ```
//! In either mode KAI is who answers for the pod in the end: where nothing is decided in time, or something needs what only
//! KAI can do (evict, volumes, claims, affinity to pods), the pod is handed over as if Berth were not there.
//!
//! Of several schedulers one feeds KAI and the others stand by, by a Lease. `feed` is the actor, and the only one who changes the state; `jobs` are the steps for one pod, or one gang.

mod feed;
mod filter;
mod groups;
mod hand_over;
mod jobs;
mod narrowing;
mod objects;
mod pod;
mod queue;
mod shared_group;
mod state;

use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

pub(crate) use feed::KaiFeed;
#[cfg(test)]
pub(crate) use pod::tests::pod as pod_for_tests;
pub(crate) use pod::{is_managed, needs_kai};

/// How KAI is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// KAI decides, and is told the node that it should prefer.
    Hint,
    /// Berth decides and binds, and KAI accounts it.
    Bind,
}

/// Not a mode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no mode: write hint or bind")]
pub struct ParseModeError(String);

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "hint" => Ok(Self::Hint),
            "bind" => Ok(Self::Bind),
            _ => Err(ParseModeError(text.to_owned())),
        }
    }
}
