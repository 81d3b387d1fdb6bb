//! GPUs that come and go.
//!
//! A session goes on with the GPUs that it found when it began, whatever is plugged; so the question is only whether to
//! begin a new one. Three sources, as drivers differ: events of the system (recent drivers), the kernel module's list of
//! GPUs, and the driver's own count.

use std::{collections::BTreeSet, os::unix::fs::DirEntryExt as _};

use nvml_wrapper::Nvml;

use super::{error::Asking, raw::SystemEvents};
use crate::GpuError;

/// One folder for each GPU that is bound to the kernel module, named by PCI bus id.
const BOUND_GPUS: &str = "/proc/driver/nvidia/gpus";

pub(super) struct HotPlug<'nvml> {
    events: Option<SystemEvents<'nvml>>,
    bound: BTreeSet<(String, u64)>,
    count: u32,
    /// GPUs that are counted but did not answer.
    unidentified: Vec<u32>,
}

impl<'nvml> HotPlug<'nvml> {
    /// To be called before the GPUs are looked at, so that nothing is missed in between.
    pub(super) fn begin(nvml: &'nvml Nvml, ask: &Asking) -> Self {
        let events = ask.must(|| SystemEvents::register(nvml)).ok();
        Self {
            events,
            bound: bound_gpus(),
            count: 0,
            unidentified: Vec::new(),
        }
    }

    /// What discovery found.
    pub(super) fn expect(&mut self, count: u32, unidentified: impl Iterator<Item = u32>) {
        self.count = count;
        self.unidentified = unidentified.collect();
    }

    /// Whether the driver told of a change. Cheap.
    pub(super) fn told(&self, ask: &Asking) -> bool {
        self.events
            .as_ref()
            .is_some_and(|events| ask.must(|| events.poll()).unwrap_or(false))
    }

    /// Whether a look shows a change.
    pub(super) fn changed(&self, nvml: &Nvml, ask: &Asking) -> Result<bool, GpuError> {
        let answers = |index: &u32| {
            let uuid = ask.must(|| nvml.device_by_index(*index)?.uuid());
            uuid.is_ok()
        };
        Ok(ask.must(|| nvml.device_count())? != self.count
            || bound_gpus() != self.bound
            || self.unidentified.iter().any(answers))
    }
}

/// With the inode: a GPU that was removed and came back between two looks has a new one.
fn bound_gpus() -> BTreeSet<(String, u64)> {
    let entries = std::fs::read_dir(BOUND_GPUS).into_iter().flatten().flatten();
    entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.ino()))
        .collect()
}
