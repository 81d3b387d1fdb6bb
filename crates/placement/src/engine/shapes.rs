//! The shapes that were asked for, each with its scores on all nodes.

use std::collections::HashMap;

use super::{
    catalog::{Ask, Catalog, small},
    index::Index,
};
use crate::Shape;

pub(crate) type ShapeId = u32;

/// One shape at hand.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) shape: Shape,
    pub(crate) ask: Ask,
    pub(crate) index: Index,
    /// Changes before this position are in the index.
    pub(crate) synced: u64,
    /// The tables that the scores were reckoned with; 0: none yet.
    pub(crate) version: u64,
    used: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Shapes {
    entries: Vec<Entry>,
    ids: HashMap<Shape, ShapeId>,
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

    pub(crate) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// The shape's place; of at most `limit` shapes the one unused for longest makes room.
    pub(crate) fn id(&mut self, shape: &Shape, catalog: &mut Catalog, limit: usize) -> ShapeId {
        self.clock += 1;
        if let Some(&id) = self.ids.get(shape) {
            self.entries[id as usize].used = self.clock;
            return id;
        }
        let entry = Entry {
            shape: shape.clone(),
            ask: catalog.ask(shape),
            index: Index::default(),
            synced: 0,
            version: 0,
            used: self.clock,
        };
        let id = if self.entries.len() < limit.max(1) {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let oldest = (0..self.entries.len()).min_by_key(|at| self.entries[*at].used).unwrap_or(0);
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
            entry.ask.learn(&entry.shape, catalog.kinds());
        }
    }

    /// Each shape in its turn, so that none falls far behind.
    pub(crate) fn next_turn(&mut self) -> Option<ShapeId> {
        self.turn = (self.turn + 1) % self.entries.len().max(1);
        (!self.entries.is_empty()).then(|| small(self.turn))
    }
}
