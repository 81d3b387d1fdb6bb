//! nvca-self-managed on a real API server with fake-sis: every way to a registration, and every way not to get one.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

mod bootstrap;
mod kit;
mod outage;
mod watch;
