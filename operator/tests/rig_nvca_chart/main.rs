//! The chart of the operator: true to the code, sound, and at work on a real control plane with the real helm, with the commands
//! of NVCF's page "Self-Managed Clusters".
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a panic is how it fails; a report says what was not proven"
)]

mod cluster;
mod install;
mod kit;
mod life;
mod outage;
mod pods;
mod shipped;
mod sound;
mod system;
mod upgrade;
mod work;
