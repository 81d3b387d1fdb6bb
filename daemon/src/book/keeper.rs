//! Keeps the book on disk, and knows how that stands: writable, behind, damaged.
//!
//! While the journal is behind the book nothing is staged; the way back is one rewrite of the whole book, tried again
//! and again.

use std::sync::Arc;

use berth_ledger::{Effect, Ledger, Record};
use tracing::{error, info, warn};

use crate::{
    conditions::{ConditionType, Finding},
    journal::{Corrupt, Journal, JournalError},
    metrics::Metrics,
};

/// Between two tries to write a journal that could not be written.
const RETRY_MS: u64 = 1_000;
/// How long a damaged journal is told of after it was repaired; a restart ends that too.
const TELL_CORRUPT_MS: u64 = 3_600_000;

#[derive(Debug)]
pub(super) struct Keeper {
    journal: Journal,
    metrics: Metrics,
    /// Why the journal is behind, in words; `None` while it is not.
    failure: Option<Arc<str>>,
    retry_at_ms: u64,
    corrupt: Option<(Corrupt, u64)>,
}

impl Keeper {
    pub(super) fn new(journal: Journal, corrupt: Option<Corrupt>, now_ms: u64, metrics: Metrics) -> Self {
        let failure = journal.is_behind().then(|| "it was not yet written".into());
        let corrupt = corrupt.map(|corrupt| (corrupt, now_ms.saturating_add(TELL_CORRUPT_MS)));
        Self {
            journal,
            metrics,
            failure,
            retry_at_ms: 0,
            corrupt,
        }
    }

    /// Why nothing can be kept; `None` where it can.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.failure.clone()
    }

    /// What the event that caused these effects asks to be kept.
    pub(super) fn stage(&mut self, effects: &[Effect]) {
        let records = effects.iter().filter_map(|effect| match effect {
            Effect::Persist(record) => Some(record),
            _ => None,
        });
        if self.failure.is_some() || records.clone().next().is_none() {
            return;
        }
        if let Err(error) = self.journal.stage(records) {
            self.fail(&error);
        }
    }

    /// Keeps everything that was staged. An error: none of it is kept.
    pub(super) fn commit(&mut self) -> Result<(), Arc<str>> {
        if self.failure.is_none()
            && let Err(error) = self.journal.commit()
        {
            self.fail(&error);
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// A sync in the background failed: what the kernel took may not be on the disk, and a later sync would not tell.
    pub(super) fn sync_failed(&mut self, detail: &str) {
        warn!(detail, "the journal could not be synced: writing it anew");
        self.metrics.journal_failures.inc();
        self.journal.give_up();
        self.failure = Some(detail.into());
        self.retry_at_ms = 0;
    }

    /// Where the journal is behind and it is time: tries to write the whole book.
    pub(super) fn catch_up(&mut self, now_ms: u64, ledger: &Ledger) {
        if self.failure.is_none() || now_ms < self.retry_at_ms {
            return;
        }
        let records: Vec<Record> = ledger.compact();
        match self.journal.rewrite(&records) {
            Ok(()) => {
                info!(records = records.len(), "the journal holds the whole book");
                self.metrics.journal_rewrites.inc();
                self.failure = None;
            }
            Err(error) => {
                self.fail(&error);
                self.retry_at_ms = now_ms.saturating_add(RETRY_MS);
            }
        }
    }

    /// Shortens a journal that has grown long. Where that fails the long one is as good as before.
    pub(super) fn compact(&mut self, ledger: &Ledger) {
        if self.failure.is_some() || !self.journal.is_long() {
            return;
        }
        match self.journal.rewrite(&ledger.compact()) {
            Ok(()) => {
                self.metrics.journal_rewrites.inc();
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "the journal could not be shortened"
            ),
        }
    }

    /// When to call [`Self::catch_up`] or look at [`Self::finding`] again.
    pub(super) fn next_due(&self) -> Option<u64> {
        let retry = self.failure.is_some().then_some(self.retry_at_ms);
        let silence = self.corrupt.as_ref().map(|(_, until)| *until);
        [retry, silence].into_iter().flatten().min()
    }

    pub(super) fn finding(&mut self, now_ms: u64) -> Finding {
        const KIND: ConditionType = ConditionType::JournalHealthy;
        self.corrupt.take_if(|(_, until)| now_ms >= *until);
        match (&self.failure, &self.corrupt) {
            (Some(detail), _) => {
                let advice = "nothing is granted until it can; make room on the disk of --state-dir";
                KIND.fails("JournalUnavailable", format!("the journal cannot be written: {detail}; {advice}"))
            }
            (None, Some((Corrupt { damaged_lines, kept_as }, _))) => KIND.fails(
                "JournalCorrupt",
                format!(
                    "{damaged_lines} lines of the journal were damaged; the rest was kept, the kubelet tells of running \
                     pods, and the damaged file is kept as {}; told for an hour, or until a restart",
                    kept_as.display()
                ),
            ),
            (None, None) => KIND.holds("Writable", "what is granted is kept"),
        }
    }

    fn fail(&mut self, problem: &JournalError) {
        self.metrics.journal_failures.inc();
        if self.failure.is_none() {
            error!(
                error = problem as &dyn std::error::Error,
                reason = problem.reason(),
                "nothing is granted any more"
            );
        }
        self.journal.unstage();
        self.journal.give_up();
        let causes = std::iter::successors(Some(problem as &dyn std::error::Error), |error| error.source());
        self.failure = Some(causes.map(ToString::to_string).collect::<Vec<_>>().join(": ").into());
    }
}
