//! `nvca-self-managed`: registers the cluster, once (`bootstrap`) or for good (`watch`).
//!
//! ```text
//! nvcfbackend-self-managed ─┐
//! secrets.json (token) ─────┼─► attempt ──► SIS: look, create, adopt ──► nvca-cluster-registration
//! nvca-cluster-registration ┘      ▲
//!                                  └─ again: `once` until it succeeds or makes no sense, `watch` for ever
//! ```
//! `attempt` is one try from beginning to end, and the only place that knows all of them; `trouble` says what a failed one
//! means. An id is never written but with the other one, and never an empty one.

pub mod args;
mod attempt;
mod metrics;
mod once;
mod told;
mod trouble;
mod watch;

pub use attempt::{Registrar, RegistrarConfig};
pub use once::{GaveUp, bootstrap};
pub use trouble::Trouble;
pub use watch::Watch;
