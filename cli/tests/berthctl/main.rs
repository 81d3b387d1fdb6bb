//! berthctl as a process: against a daemon of our own making that does what the real one rarely does, and against the
//! real one.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test's helper a panic is how the test fails"
)]

mod cluster;
mod commands;
mod daemon;
mod fake;
mod kit;
mod run;
mod terminal;
mod watch;
