//! Client and wire types of the control plane's cluster service (SIS, today ICMS). Knows no Kubernetes.
//!
//! | to | see |
//! |---|---|
//! | ask the service | [`SisClient`]: cluster management with [`NcaId`], the agent's calls with [`ClusterId`] |
//! | know what a refusal means | [`SisError`]: `reason()`, `is_transient()`, `retry_after()` |
//! | hand it a token | [`TokenFile`], re-read for each request, checked by [`TokenRules`] before one is sent |
//! | check what a person wrote | [`check`] |
//! | test against it | [`fake`], the program `fake-sis` |
#![forbid(unsafe_code)]

mod backoff;
pub mod check;
mod client;
mod error;
pub mod fake;
mod ids;
mod token;
pub mod wire;

pub use backoff::{Backoff, RetryPolicy};
pub use client::{SetupError, SisClient, SisConfig};
pub use error::SisError;
pub use ids::{ClusterGroupId, ClusterId, IdError, NcaId};
pub use token::{Audience, Claims, TokenError, TokenFile, TokenRules, TokenWarning};
