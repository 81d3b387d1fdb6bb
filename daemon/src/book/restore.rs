//! From the state directory to a book that can go on where the last daemon stopped, or was stopped.

use std::sync::Arc;

use berth_ledger::{Ledger, LedgerConfig};
use berth_placement::NodeName;
use berth_runtime::SharedClock;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{Actor, ActorOptions, Book, Command, keeper::Keeper};
use crate::journal::{Journal, JournalError, JournalOptions, Opened};

/// Where the journal's flusher, which is older than the book, finds the book.
type LateCommands = Arc<Mutex<Option<mpsc::Sender<Command>>>>;

/// Reads the journal back and makes the actor that goes on with it.
pub(crate) fn restore(
    node: NodeName,
    config: LedgerConfig,
    journal: JournalOptions,
    options: ActorOptions,
) -> Result<(Book, Actor), JournalError> {
    let clock = SharedClock::clone(&options.clock);
    let mut ledger = Ledger::new(node, config);
    let commands = LateCommands::default();
    let on_sync_error = {
        let commands = Arc::clone(&commands);
        Box::new(move |error: std::io::Error| {
            let sender = commands.lock().clone();
            if let Some(sender) = sender {
                // Err: the book is closed, and was written for the last time.
                sender
                    .blocking_send(Command::SyncFailed {
                        detail: error.to_string(),
                    })
                    .ok();
            }
        })
    };
    let (journal, opened) = Journal::open(journal, on_sync_error, |records, _| {
        for record in records {
            if let Err(error) = ledger.replay(record) {
                error!(
                    error = &error as &dyn std::error::Error,
                    reason = error.reason(),
                    "a record is skipped"
                );
            }
        }
    })?;
    tell(&opened, ledger.snapshot().claims.len());
    let now_ms = clock.now_unix_ms();
    let mut keeper = Keeper::new(journal, opened.corrupt, now_ms, options.metrics.clone());
    // A new journal, or one with damage in it, is written before anything happens.
    keeper.catch_up(now_ms, &ledger);
    let (book, actor) = Actor::new(options, ledger, keeper);
    *commands.lock() = Some(book.commands.clone());
    Ok((book, actor))
}

fn tell(opened: &Opened, claims: usize) {
    let Opened {
        lines,
        torn_bytes,
        corrupt,
        new,
    } = opened;
    if *new {
        info!("no journal: this node's book begins empty");
    } else {
        info!(lines, claims, "journal read");
    }
    if *torn_bytes > 0 {
        info!(
            torn_bytes,
            "the journal's last line was cut short by a crash and dropped: nobody was told of it"
        );
    }
    if let Some(corrupt) = corrupt {
        let kept_as = corrupt.kept_as.display();
        warn!(damaged_lines = corrupt.damaged_lines, %kept_as, "the journal is damaged: every readable line was kept");
    }
}
