//! What makes a pod whose devices are reserved run on the node: the seam for posting the binding to an API server.

use std::{fmt, future::Future, pin::Pin};

use berth_placement::{NodeName, PodRef};
use thiserror::Error;

/// A pod and the node whose daemon has reserved for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub pod: PodRef,
    pub node: NodeName,
}

/// The pod could not be bound. Its reservation is released.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BindFailed {
    /// Stable CamelCase name.
    pub reason: String,
    pub message: String,
}

/// Binds pods. Called once the node's daemon has granted, with a deadline by the caller; the same binding may come again.
pub trait Binder: fmt::Debug + Send + Sync {
    fn bind<'a>(&'a self, binding: &'a Binding) -> Pin<Box<dyn Future<Output = Result<(), BindFailed>> + Send + 'a>>;
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
