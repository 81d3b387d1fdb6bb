//! The nodes: their states as told, their cells, and which of them changed.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{
    catalog::{Catalog, KindId, small},
    cell::Cell,
    index::BLOCK,
    log::ChangeLog,
    memory::Memory,
    totals::Totals,
};
use crate::{
    CpuMilli, DeviceUuid, NodeName, NodeState,
    policy::{Scale, Scorer},
};

/// Nodes by slot: a small number that stays a node's own while it is known, and is given to another one later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes {
    slots: Vec<Slot>,
    cells: Vec<Cell>,
    /// [`Scorer::worth`] of each cell.
    worth: Vec<f64>,
    memory: Memory,
    /// Hashed quickly: thousands of names are looked up for each pod. They come from the API server, not from whoever wants a slow map.
    by_name: HashMap<NodeName, u32, FixedState>,
    /// By class: slots of its blocks that no node has.
    vacant: Vec<Vec<u32>>,
    /// By block of slots: the class that all its nodes are of.
    class_of_block: Vec<u32>,
    classes: Classes,
    catalog: Catalog,
    log: ChangeLog,
    totals: Totals,
    largest: Scale,
}

#[derive(Debug, Clone)]
struct Slot {
    /// `None`: vacant.
    state: Option<NodeState>,
    kinds: Vec<KindId>,
    class: u32,
}

/// Nodes that were bought alike: same kinds of devices, same CPU to the nearest four cores.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    /// Sorted.
    pub(crate) kinds: Vec<KindId>,
    /// In fours of cores, rounded; `None` where nobody knows.
    pub(crate) cpu: Option<u64>,
}

/// A class has blocks of slots of its own, so there must not be too many.
const MOST_CLASSES: usize = 128;

#[derive(Debug, Clone, Default)]
struct Classes {
    all: Vec<Class>,
    ids: HashMap<Class, u32>,
}

impl Nodes {
    pub(crate) fn upsert(&mut self, state: NodeState, scorer: &Scorer) {
        let known = self.slot(state.name.as_str());
        let same = known.filter(|slot| self.state(*slot).is_some_and(|old| same_devices(old, &state)));
        let slot = same.unwrap_or_else(|| self.settle(&state, scorer));
        self.slots[slot as usize].state = Some(state);
        self.refresh(slot, scorer);
    }

    /// Gives a node a slot in a block of its class; one that it had elsewhere it leaves.
    fn settle(&mut self, state: &NodeState, scorer: &Scorer) -> u32 {
        self.remove(&state.name, scorer);
        let kinds: Vec<KindId> = state.devices.iter().map(|device| self.catalog.kind(device)).collect();
        let class = self.classes.id(&kinds, state.cpu_total);
        self.largest.widen(state);
        self.totals.join(class, kinds.len());
        let at = class as usize;
        if self.vacant.len() <= at {
            self.vacant.resize(at + 1, Vec::new());
        }
        let slot = self.vacant[at].pop().unwrap_or_else(|| self.open_block(class));
        self.slots[slot as usize].kinds = kinds;
        self.by_name.insert(state.name.clone(), slot);
        slot
    }

    fn open_block(&mut self, class: u32) -> u32 {
        let first = small(self.slots.len());
        let end = first + small(BLOCK);
        self.class_of_block.push(class);
        let vacant = Slot {
            state: None,
            kinds: Vec::new(),
            class,
        };
        self.slots.resize(end as usize, vacant);
        self.cells.resize(end as usize, Cell::default());
        self.worth.resize(end as usize, 0.0);
        self.memory.resize(end as usize);
        // The first one is taken, the others follow in their order.
        self.vacant[class as usize].extend((first + 1..end).rev());
        first
    }

    pub(crate) fn remove(&mut self, name: &NodeName, scorer: &Scorer) {
        if let Some(slot) = self.by_name.remove(name) {
            self.leave(slot);
            let Slot { state, class, .. } = &mut self.slots[slot as usize];
            *state = None;
            self.vacant[*class as usize].push(slot);
            self.refresh(slot, scorer);
        }
    }

    /// A known node's devices no longer count for its class.
    fn leave(&mut self, slot: u32) {
        let Slot { state, kinds, class } = &self.slots[slot as usize];
        if state.is_some() {
            self.totals.leave(*class, kinds.len());
        }
    }

    /// Lets `change` alter a node's state; `false` where it says so or the node is not known.
    pub(crate) fn change(
        &mut self,
        name: &NodeName,
        scorer: &Scorer,
        change: impl FnOnce(&mut NodeState) -> bool,
    ) -> bool {
        let Some(slot) = self.slot(name.as_str()) else {
            return false;
        };
        let changed = self.slots[slot as usize].state.as_mut().is_some_and(change);
        if changed {
            self.refresh(slot, scorer);
        }
        changed
    }

    /// Works out a slot's cell anew. Only a real change is logged.
    fn refresh(&mut self, slot: u32, scorer: &Scorer) {
        let at = slot as usize;
        let Slot { state, kinds, class } = &self.slots[at];
        let cell = match state {
            Some(state) => Cell::of(state, *class, kinds, &mut self.catalog),
            None => Cell::default(),
        };
        if self.cells[at] == cell {
            return;
        }
        self.totals.replace(&self.cells[at], &cell);
        self.memory.set(slot, if cell.open { cell.memory } else { u64::MAX });
        self.worth[at] = scorer.worth(&cell);
        self.cells[at] = cell;
        self.log.push(slot);
    }

    /// After the scorer changed.
    pub(crate) fn revalue(&mut self, scorer: &Scorer) {
        for (cell, worth) in self.cells.iter().zip(&mut self.worth) {
            *worth = scorer.worth(cell);
        }
    }

    /// After prices of blocks changed: nodes that have one count as changed.
    pub(crate) fn touch_blocks(&mut self, scorer: &Scorer) {
        for (slot, (cell, worth)) in (0..).zip(self.cells.iter().zip(&mut self.worth)) {
            if cell.wholes > 1 {
                *worth = scorer.worth(cell);
                self.log.push(slot);
            }
        }
    }

    /// After the scorer changed: what each cell was worth at a position of the log.
    pub(crate) fn install(&mut self, worth: &[f64], position: u64, scorer: &Scorer) {
        let Self { log, cells, .. } = self;
        let Some(changed) = log.since(position).filter(|_| worth.len() <= cells.len()) else {
            self.revalue(scorer);
            return;
        };
        self.worth[..worth.len()].copy_from_slice(worth);
        for slot in changed {
            self.worth[slot as usize] = scorer.worth(&cells[slot as usize]);
        }
    }

    pub(crate) fn slot(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn state(&self, slot: u32) -> Option<&NodeState> {
        self.slots.get(slot as usize).and_then(|slot| slot.state.as_ref())
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = &NodeState> {
        self.slots().map(|(_, state)| state)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (u32, &NodeState)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(at, slot)| slot.state.as_ref().map(|state| (at, state)))
    }

    /// All slots' cells with what they are worth.
    pub(crate) fn cells(&self) -> impl ExactSizeIterator<Item = (&Cell, f64)> {
        self.cells.iter().zip(self.worth.iter().copied())
    }

    pub(crate) fn cell(&self, slot: u32) -> (&Cell, f64) {
        (&self.cells[slot as usize], self.worth[slot as usize])
    }

    /// Free host memory of all nodes.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The largest node so far.
    pub(crate) fn scale(&self) -> Scale {
        self.largest
    }

    /// How many kinds of devices were seen.
    pub(crate) fn kinds(&self) -> usize {
        self.catalog.kinds().len()
    }

    pub(crate) fn log(&self) -> &ChangeLog {
        &self.log
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(crate) fn catalog_mut(&mut self) -> &mut Catalog {
        &mut self.catalog
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// By block of slots.
    pub(crate) fn class_of_block(&self) -> &[u32] {
        &self.class_of_block
    }

    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes.all
    }

    /// The first device of a level, by the node's own order of preference.
    pub(crate) fn device_of(&self, slot: u32, level: &super::cell::Level) -> Option<&DeviceUuid> {
        let Slot { state, kinds, .. } = self.slots.get(slot as usize)?;
        let devices = state.as_ref()?.devices.iter().zip(kinds);
        devices
            .filter(|(device, kind)| level.holds(device, **kind))
            .min_by_key(|(device, _)| (device.nvlink_domain.is_some(), device.index))
            .map(|(device, _)| &device.uuid)
    }
}

/// Neither the devices nor the size of the node changed: the kinds and the class are what they were.
fn same_devices(old: &NodeState, new: &NodeState) -> bool {
    old.cpu_total == new.cpu_total
        && old.devices.len() == new.devices.len()
        && old
            .devices
            .iter()
            .zip(&new.devices)
            .all(|(old, new)| old.model == new.model && old.memory == new.memory)
}

impl Classes {
    fn id(&mut self, kinds: &[KindId], cpu: Option<CpuMilli>) -> u32 {
        let mut kinds = kinds.to_vec();
        kinds.sort_unstable();
        let cpu = cpu.map(|cpu| cpu.0.saturating_add(2000) / 4000);
        let class = Class { kinds, cpu };
        if let Some(id) = self.ids.get(&class) {
            return *id;
        }
        // A cluster of many different nodes: those that come late count as one class.
        let id = small(self.all.len());
        if self.all.len() >= MOST_CLASSES {
            return id - 1;
        }
        self.all.push(class.clone());
        self.ids.insert(class, id);
        id
    }
}
