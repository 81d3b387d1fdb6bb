//! The node's book of who holds what: intent (reservations, leases), assignment (the kubelet), use (processes).
//!
//! Pure: events in, effects out. No clock (the time comes with each event), no I/O, no async. The daemon persists an
//! effect's record before it answers, so that what was granted is never lost; replaying the records gives the same book.
//!
//! ```text
//!  Event ──► Ledger::apply ──► Reply (the answer)  +  Effects (records to persist, drift, revocations, "changed")
//!  Record ─► Ledger::replay                        (at start, before anything else)
//! ```
#![forbid(unsafe_code)]

pub mod claim;
pub mod event;

pub use claim::{Claim, ClaimState, Holder};
pub use event::{Assignment, DeviceFacts, Drift, DriftReason, Effect, Event, GpuProcess, Record, Reply, RequestRefused};
