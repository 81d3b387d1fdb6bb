//! The answers to `berthctl reserve` and `berthctl release`.

use serde::Serialize;

use super::{Page, Report, gpu_list};
use crate::view::Allocation;

#[derive(Debug, Serialize)]
pub(crate) struct ReserveAnswer {
    pub(crate) allocation: Allocation,
    /// The pod held the same already.
    pub(crate) existing: bool,
    pub(crate) generation: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct ReleaseAnswer {
    /// False where nothing was held.
    pub(crate) released: bool,
    pub(crate) generation: u64,
    #[serde(skip)]
    pub(crate) holder: String,
}

impl Report for ReserveAnswer {
    fn render(&self, page: &mut Page) {
        let Self {
            allocation, existing, ..
        } = self;
        let verb = if *existing { "already holds" } else { "now holds" };
        page.line(&format!(
            "{} {verb} {}: {}",
            allocation.holder_name(),
            allocation.shape,
            gpu_list(&allocation.grants)
        ));
        if let Some(deadline) = allocation.deadline_unix_ms {
            page.line(&format!(
                "It lapses in {} unless the kubelet confirms it",
                page.until(deadline)
            ));
        }
    }
}

impl Report for ReleaseAnswer {
    fn render(&self, page: &mut Page) {
        if self.released {
            page.line(&format!("Released what {} held", self.holder));
        } else {
            page.line(&format!("{} held nothing; nothing to release", self.holder));
        }
    }
}
