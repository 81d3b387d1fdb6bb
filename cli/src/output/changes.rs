//! `berthctl watch`: a line for each change.

use serde::Serialize;

use super::{Page, Report, text::time_of_day};
use crate::diff::Change;

/// A change, when it was seen, and in which state of the node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangeLine<'a> {
    pub(crate) unix_ms: u64,
    pub(crate) generation: u64,
    #[serde(flatten)]
    pub(crate) change: &'a Change,
}

impl Report for ChangeLine<'_> {
    fn render(&self, page: &mut Page) {
        let Change { kind, message, .. } = self.change;
        let subject = self
            .change
            .subject()
            .map(|subject| format!("{subject}: "))
            .unwrap_or_default();
        page.line(&format!(
            "{}  {:<18}  {subject}{message}",
            time_of_day(self.unix_ms),
            kind.as_str()
        ));
    }
}
