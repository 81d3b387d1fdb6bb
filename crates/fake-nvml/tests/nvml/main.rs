//! The library as programs load it: by path, through `nvml-wrapper`, each test with a copy and a scenario of its own.

#![allow(unsafe_code, reason = "what nvml-wrapper does not wrap is called as C")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]
#![allow(clippy::wildcard_imports, reason = "NVML's header is the vocabulary of raw calls")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod errors;
mod events;
mod failures;
mod health;
mod identity;
mod lifecycle;
mod mig;
mod processes;
mod rig;
mod topology;
