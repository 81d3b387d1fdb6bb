//! The shapes that were asked for, each with its scores on all nodes. Shapes that differ in host memory only are one
//! here: whether a node has the memory is looked up when it is chosen.

use std::sync::Arc;

use super::{
    catalog::{Ask, Catalog, small},
    hash::QuickMap,
    index::Index,
};
use crate::{MemoryBytes, Shape};

pub(crate) type ShapeId = u32;

/// A place and who has it: places are given to other shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryId {
    place: ShapeId,
    born: u64,
}

/// One shape at hand, without its host memory.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) shape: Shape,
    pub(crate) ask: Arc<Ask>,
    pub(crate) index: Index,
    /// Changes before this position are in the index.
    pub(crate) synced: u64,
    /// The tables that the scores were reckoned with; 0: none yet.
    pub(crate) version: u64,
    used: u64,
    born: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Shapes {
    entries: Vec<Entry>,
    ids: QuickMap<Shape, ShapeId>,
    clock: u64,
    turn: usize,
}

impl Shapes {
    pub(crate) fn entry(&mut self, id: ShapeId) -> &mut Entry {
        &mut self.entries[id as usize]
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn asks(&self) -> Vec<(EntryId, Arc<Ask>)> {
        let ask = |(place, entry): (u32, &Entry)| {
            let id = EntryId {
                place,
                born: entry.born,
            };
            (id, entry.ask.clone())
        };
        (0..).zip(&self.entries).map(ask).collect()
    }

    /// Scores that were reckoned elsewhere, if the shape is still at hand and its needs are what they were.
    pub(crate) fn install(&mut self, id: EntryId, index: Index, position: u64, version: u64) {
        if let Some(entry) = self
            .entries
            .get_mut(id.place as usize)
            .filter(|entry| entry.born == id.born)
        {
            entry.index = index;
            entry.synced = position;
            entry.version = version;
        }
    }

    /// The shape's place; of at most `limit` shapes the one unused for longest makes room.
    pub(crate) fn id(&mut self, shape: &Shape, catalog: &mut Catalog, limit: usize) -> ShapeId {
        self.clock += 1;
        let plain;
        let shape = if shape.memory == MemoryBytes::ZERO {
            shape
        } else {
            plain = Shape {
                memory: MemoryBytes::ZERO,
                ..shape.clone()
            };
            &plain
        };
        if let Some(&id) = self.ids.get(shape) {
            self.entries[id as usize].used = self.clock;
            return id;
        }
        let entry = Entry {
            shape: shape.clone(),
            ask: Arc::new(catalog.ask(shape)),
            index: Index::default(),
            synced: 0,
            version: 0,
            used: self.clock,
            born: self.clock,
        };
        let id = if self.entries.len() < limit.max(1) {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let oldest = (0..self.entries.len())
                .min_by_key(|at| self.entries[*at].used)
                .unwrap_or(0);
            let old = std::mem::replace(&mut self.entries[oldest], entry);
            self.ids.remove(&old.shape);
            oldest
        };
        self.ids.insert(shape.clone(), small(id));
        small(id)
    }

    /// Tells every shape of kinds that it does not know yet.
    pub(crate) fn learn(&mut self, catalog: &Catalog) {
        for entry in &mut self.entries {
            Arc::make_mut(&mut entry.ask).learn(&entry.shape, catalog.kinds());
        }
    }

    /// Each shape in its turn, so that none falls far behind.
    pub(crate) fn next_turn(&mut self) -> Option<ShapeId> {
        self.turn = (self.turn + 1) % self.entries.len().max(1);
        (!self.entries.is_empty()).then(|| small(self.turn))
    }
}
