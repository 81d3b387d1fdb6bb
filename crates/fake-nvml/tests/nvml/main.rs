//! The library as programs load it: by path, through `nvml-wrapper`, each test with a copy and a scenario of its own.

#![allow(unsafe_code, reason = "what nvml-wrapper does not wrap is called as C")]

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
