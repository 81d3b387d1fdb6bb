//! KAI in a rig. The same tests run on the real KAI where BERTH_KAI_BIN and BERTH_KAI_CRDS name it: they say what Berth
//! relies on, and what the stand-in has to do alike.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

mod binding;
mod fairness;
mod harness;
mod placement;
mod sharing;
