//! berthd as it is in production: a process with files, sockets and signals. One test binary, so that it is linked once.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test a panic is how it fails"
)]

#[path = "it/support.rs"]
mod support;

#[path = "it/devices.rs"]
mod devices;
#[path = "it/faults.rs"]
mod faults;
#[path = "it/kubelet.rs"]
mod kubelet;
#[path = "it/leases.rs"]
mod leases;
#[path = "it/nvml.rs"]
mod nvml;
#[path = "it/restart.rs"]
mod restart;
#[path = "it/rpc.rs"]
mod rpc;
#[path = "it/start.rs"]
mod start;
#[path = "it/tls.rs"]
mod tls;
