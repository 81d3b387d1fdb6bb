//! Opaque handles: a number that says which session gave it out, and the row of that session's table.

use std::collections::HashMap;

use crate::{driver::Outcome, scenario::ReturnCode};

/// What a handle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// The session's member at this position.
    Gpu(usize),
    MigDevice(usize, InstanceKey, InstanceKey),
    GpuInstance(usize, InstanceKey),
    ComputeInstance(usize, InstanceKey, InstanceKey),
    EventSet(u32),
    SystemEventSet(u32),
}

/// A MIG instance. Ids are used again; births are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct InstanceKey {
    pub(crate) id: u32,
    pub(crate) birth: u64,
}

/// The table of one session. Asking twice gives the same handle, as the driver does.
#[derive(Debug)]
pub(super) struct Handles {
    generation: u32,
    rows: Vec<Target>,
    by_target: HashMap<Target, usize>,
}

/// In the low bits of every handle, where a pointer to anything real has zeroes.
const MARK: usize = 0b1001;
const MARK_BITS: u32 = 4;
const GENERATION_SHIFT: u32 = 32;

impl Handles {
    pub(super) fn new(generation: u32) -> Self {
        Self {
            generation,
            rows: Vec::new(),
            by_target: HashMap::new(),
        }
    }

    pub(super) fn of(&mut self, target: Target) -> usize {
        let row = *self.by_target.entry(target).or_insert_with(|| {
            self.rows.push(target);
            self.rows.len() - 1
        });
        (self.generation as usize) << GENERATION_SHIFT | row << MARK_BITS | MARK
    }

    /// `INVALID_ARGUMENT` for whatever this session did not give out.
    pub(super) fn target(&self, handle: usize) -> Outcome<Target> {
        let row = (handle & u32::MAX as usize) >> MARK_BITS;
        let ours = handle & ((1 << MARK_BITS) - 1) == MARK && handle >> GENERATION_SHIFT == self.generation as usize;
        let target = self.rows.get(row).filter(|_| ours);
        target.copied().ok_or(ReturnCode::INVALID_ARGUMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_means_one_thing_in_one_session() {
        let (mut first, mut second) = (Handles::new(1), Handles::new(2));
        let gpu = first.of(Target::Gpu(0));
        assert_eq!(first.of(Target::Gpu(0)), gpu);
        assert_ne!(first.of(Target::Gpu(1)), gpu);
        second.of(Target::Gpu(0));
        assert_eq!(first.target(gpu), Ok(Target::Gpu(0)));
        assert_eq!(second.target(gpu), Err(ReturnCode::INVALID_ARGUMENT));
    }

    #[test]
    fn garbage_is_no_handle() {
        let mut handles = Handles::new(1);
        let gpu = handles.of(Target::Gpu(0));
        for garbage in [0, 1, usize::MAX, gpu + 1, gpu + (1 << MARK_BITS), gpu & !0xF] {
            assert_eq!(
                handles.target(garbage),
                Err(ReturnCode::INVALID_ARGUMENT),
                "{garbage:#x}"
            );
        }
    }
}
