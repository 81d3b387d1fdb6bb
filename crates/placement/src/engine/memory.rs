//! Free host memory by node, and the least of each block: so that a shape that asks for some needs no scores of its own.

use super::index::BLOCK;

/// In bytes, by slot; `u64::MAX` where nobody knows, and where there is no node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    free: Vec<u64>,
    least: Vec<u64>,
}

/// The nodes that have the host memory that a shape asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enough<'a> {
    memory: &'a Memory,
    asked: u64,
}

impl Memory {
    pub(crate) fn resize(&mut self, slots: usize) {
        self.free.resize(slots, u64::MAX);
        self.least.resize(slots.div_ceil(BLOCK), u64::MAX);
    }

    pub(crate) fn set(&mut self, slot: u32, free: u64) {
        let at = slot as usize;
        let old = std::mem::replace(&mut self.free[at], free);
        let least = &mut self.least[at / BLOCK];
        if free <= *least {
            *least = free;
        } else if old == *least {
            let block = self.free.chunks(BLOCK).nth(at / BLOCK).unwrap_or_default();
            *least = block.iter().copied().min().unwrap_or(u64::MAX);
        }
    }

    pub(crate) fn enough(&self, asked: u64) -> Enough<'_> {
        Enough { memory: self, asked }
    }
}

impl Enough<'_> {
    /// Nothing is asked for.
    pub(crate) fn anywhere(self) -> bool {
        self.asked == 0
    }

    /// Whether every node of a block has it.
    pub(crate) fn everywhere(self, block: usize) -> bool {
        self.asked == 0 || self.memory.least.get(block).is_none_or(|least| *least >= self.asked)
    }

    pub(crate) fn at(self, slot: usize) -> bool {
        self.asked == 0 || self.memory.free.get(slot).is_none_or(|free| *free >= self.asked)
    }
}
