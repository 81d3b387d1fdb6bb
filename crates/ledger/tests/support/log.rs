//! What was done to a ledger, step by step: one JSON line each, enough to do it again.

use berth_ledger::{Event, LedgerConfig};
use serde::{Deserialize, Serialize};

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Always the first line, and only there.
    Start(LedgerConfig),
    Event {
        now: u64,
        event: Event,
    },
    /// Everything that was written so far is on disk, and the answers are out.
    Flush,
    /// The process dies and comes back. Of the records since the last flush the last ones, that many, are lost.
    Crash {
        lost: usize,
    },
    /// The journal is rewritten from the book.
    Compact,
}
