//! What is free in the whole cluster, kept while nodes change: what scarcity is reckoned from.

use super::cell::Cell;

/// Sums over the nodes that are open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Free thousandths of GPUs, by class, and of all classes.
    free: Vec<u64>,
    all: u64,
    /// GPUs of all nodes, by class.
    gpus: Vec<u64>,
    /// How many nodes have exactly this many whole free GPUs.
    wholes: Vec<u64>,
}

impl Totals {
    pub(crate) fn replace(&mut self, old: &Cell, new: &Cell) {
        self.count(old, u64::wrapping_sub);
        self.count(new, u64::wrapping_add);
    }

    /// Additions and subtractions cancel out, whatever their order.
    fn count(&mut self, cell: &Cell, step: fn(u64, u64) -> u64) {
        if !cell.open {
            return;
        }
        let (class, wholes) = (cell.class as usize, cell.wholes as usize);
        if self.free.len() <= class {
            self.free.resize(class + 1, 0);
        }
        if self.wholes.len() <= wholes {
            self.wholes.resize(wholes + 1, 0);
        }
        self.free[class] = step(self.free[class], u64::from(cell.free));
        self.all = step(self.all, u64::from(cell.free));
        self.wholes[wholes] = step(self.wholes[wholes], 1);
    }

    /// A node with this many GPUs joins a class.
    pub(crate) fn join(&mut self, class: u32, gpus: usize) {
        let class = class as usize;
        if self.gpus.len() <= class {
            self.gpus.resize(class + 1, 0);
        }
        self.gpus[class] += gpus as u64;
    }

    /// The inverse of [`Totals::join`].
    pub(crate) fn leave(&mut self, class: u32, gpus: usize) {
        if let Some(all) = self.gpus.get_mut(class as usize) {
            *all -= gpus as u64;
        }
    }

    /// All GPUs of a class, free or not.
    pub(crate) fn capacity_of(&self, class: u32) -> f64 {
        gpus(1000 * self.gpus.get(class as usize).copied().unwrap_or(0))
    }

    /// Free GPUs of a class, in GPUs.
    pub(crate) fn free_of(&self, class: u32) -> f64 {
        gpus(self.free.get(class as usize).copied().unwrap_or(0))
    }

    /// Free GPUs of all nodes, in GPUs.
    pub(crate) fn free(&self) -> f64 {
        gpus(self.all)
    }

    /// Whole free GPUs on nodes that have at least `least` of them.
    pub(crate) fn in_blocks_of(&self, least: usize) -> f64 {
        let blocks = self.wholes.iter().enumerate().skip(least);
        let count: u64 = blocks.map(|(size, nodes)| size as u64 * nodes).sum();
        gpus(count * 1000)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a cluster has fewer than 2^50 thousandths of GPUs"
)]
fn gpus(milli: u64) -> f64 {
    milli as f64 / 1000.0
}
