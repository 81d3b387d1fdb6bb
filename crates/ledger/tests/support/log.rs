//! What was done to a ledger, step by step, as JSON lines: enough to do it again.

use std::{fs, path::Path};

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

pub(crate) fn write(path: &Path, steps: &[Step]) {
    let lines: Vec<_> = steps.iter().map(|step| serde_json::to_string(step).unwrap()).collect();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

pub(crate) fn read(path: &Path) -> Vec<Step> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parse = |(number, line)| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{}: {error}", path.display(), number + 1))
    };
    text.lines().enumerate().map(parse).collect()
}
