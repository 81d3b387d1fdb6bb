//! The node's book of who holds what: intent (reservations, leases), assignment (the kubelet), use (processes).
//!
//! Pure: events in, effects out. No clock (the time comes with each event), no I/O, no async. The daemon persists an
//! effect's record before it answers, so that what was granted is never lost; replaying the records gives the same book.
//!
//! ```text
//!  Event ──► Ledger::apply ──► Reply (the answer)  +  Effects (records to persist, drift, revocations, "changed")
//!  Record ─► Ledger::replay                        (at start, before anything else)
//! ```
//!
//! The rules, and where each lives:
//!
//! | rule | module |
//! |---|---|
//! | requests: idempotent by holder, refused before the book is reconciled | `ledger::requests` |
//! | the kubelet's list confirms, moves and ends claims; graces; pods re-created under one name | `ledger::kubelet` |
//! | reservations make way and are planned anew, on the kubelet's choice and when a device fails | `ledger::replan` |
//! | devices come, go, change; cordons; what of each device is free | `ledger::devices`, `tally` |
//! | out-of-band use and drift | `ledger::drift` |
//! | deadlines, clocks that jump | `ledger::time` |
//! | records, generations | `ledger::journal` |
//! | what must hold after every event | `ledger::invariants` |
#![forbid(unsafe_code)]

mod book;
pub mod claim;
pub mod config;
pub mod event;
mod ledger;
mod outbox;
pub mod snapshot;
mod tally;

pub use claim::{Claim, ClaimState, Holder};
pub use config::LedgerConfig;
pub use event::{
    Assignment, DeviceFacts, Drift, DriftReason, Effect, Event, GpuProcess, Record, Reply, RequestRefused,
};
pub use ledger::{Ledger, ReplayError, Violation, removal};
pub use snapshot::{OutOfBandUse, Snapshot};
