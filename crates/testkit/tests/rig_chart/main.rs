//! The chart and what else `deploy/` ships: true to the code, sound, and at work on a real control plane with the real helm.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod access;
mod cluster;
mod images;
mod install;
mod kai;
mod kit;
mod marks;
mod programs;
mod shipped;
mod sound;
