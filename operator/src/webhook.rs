//! `webhook-server`: pods of functions as KAI and their instance type want them, checked when they are created.
//!
//! Owns the admission pages of the agent's webhook configurations. It answers from the request and the agent's configuration
//! alone: no call, no state. Which objects it is asked about is the configurations' business, not its own.
//!
//! ```text
//! API server ──HTTPS──► review (AdmissionReview in and out) ──► mutate, validate (pure)
//! certificate (Secret or files, watched) ──► TLS        settings (agent-config, watched) ──► gates
//! ```

mod app;
mod args;
mod certificate;
mod mutate;
mod review;
mod settings;
mod validate;

pub use app::{Bound, BuildError, build};
pub use args::{Args, ENV_PREFIX};
pub use mutate::{Gates, defaults, placement};
pub(crate) use mutate::{has_gpus, place};
pub use settings::SettingsError;
pub use validate::{Refusals, validate};
