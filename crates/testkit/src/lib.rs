//! For tests only: our programs as real processes on port 0, a stand-in for the kubelet, certificates, waiting.
//!
//! Nothing here sleeps for luck: every wait is for a condition, with a deadline, and tells what it last saw.
#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "in a test's helper a panic is how the test fails"
)]

#[cfg(feature = "authority")]
pub mod authority;
#[cfg(feature = "rig")]
pub mod bao;
pub mod certs;
pub mod collector;
#[cfg(feature = "authority")]
pub mod fake_sis;
pub mod http;
#[cfg(feature = "rig")]
pub mod injector;
#[cfg(feature = "rig")]
pub mod kai;
pub mod kubelet;
pub mod process;
pub mod proxy;
#[cfg(feature = "rig")]
pub mod rig;
#[cfg(feature = "rig")]
pub mod vault_agent;
pub mod wait;

#[cfg(feature = "authority")]
pub use authority::Authority;
pub use collector::Collector;
#[cfg(feature = "authority")]
pub use fake_sis::FakeSis;
pub use kubelet::FakeKubelet;
pub use process::{Ended, Process, Program, cpu_time};
pub use wait::{eventually, spawn, throughout};
