//! What makes a pod whose devices are reserved run on the node: the seam for posting the binding to an API server.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin};

use berth_kube_api::placement::Placement;
use berth_placement::{NodeName, PodRef};
use thiserror::Error;

mod kubernetes;

pub(crate) use kubernetes::{BOUND_ELSEWHERE, ClientBox, EventPoster, KubernetesBinder};

/// A pod, the node that has room for it, and what it got there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub pod: PodRef,
    pub node: NodeName,
    /// `None`: the pod asks for no GPU, and nothing was decided here.
    pub placement: Option<Placement>,
    /// For people: why there.
    pub why: String,
    /// What else the pod is to carry from the moment that it is bound.
    pub annotations: BTreeMap<String, String>,
}

/// The pod could not be bound. Its reservation is released, unless the pod may be bound all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BindFailed {
    /// Stable CamelCase name.
    pub reason: String,
    pub message: String,
    /// The pod may be bound all the same: nobody answered.
    pub outcome_unknown: bool,
}

impl BindFailed {
    /// Nothing is to be done to the pod any more.
    pub(crate) fn elsewhere(node: &str) -> Self {
        Self {
            reason: BOUND_ELSEWHERE.to_owned(),
            message: format!("the pod is bound to {node} already"),
            outcome_unknown: false,
        }
    }
}

/// Binds pods. Called once the node's daemon has granted, with a deadline by the caller; the same binding may come again.
pub trait Binder: fmt::Debug + Send + Sync {
    fn bind<'a>(&'a self, binding: &'a Binding) -> Pin<Box<dyn Future<Output = Result<(), BindFailed>> + Send + 'a>>;

    /// Whether a pod that is bound stays on its node for ever, as in Kubernetes.
    fn is_for_good(&self) -> bool {
        false
    }

    /// No node takes the pod now: for whoever looks at it. Must not wait.
    fn refused(&self, _pod: &PodRef, _why: &str) {}
}

/// Binds nothing: the reservation on the node is all there is, for clusters without Kubernetes. Whoever starts the pod's
/// process finds its devices in the daemon's book.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReserveOnly;

impl Binder for ReserveOnly {
    fn bind<'a>(&'a self, _: &'a Binding) -> Pin<Box<dyn Future<Output = Result<(), BindFailed>> + Send + 'a>> {
        Box::pin(async { Ok(()) })
    }
}
