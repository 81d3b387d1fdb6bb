//! nvca-operator on a real API server and controller manager: what it makes, keeps, rolls out and takes down.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is how it fails")]

mod down;
mod kit;
mod up;
