//! Names turned into small numbers: kinds of devices, MIG profiles, shapes, and what a shape needs of each kind.
//!
//! Numbers are given in the order of first sight and never reused, so that tables may be indexed by them.

use std::collections::HashMap;

use crate::{DeviceState, GpuModel, GpuShape, MemoryBytes, MigProfile, Shape};

/// A model with a memory size: all that a shape's needs depend on.
pub(crate) type KindId = u32;
pub(crate) type ProfileId = u32;

/// What devices of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) model: GpuModel,
    pub(crate) memory: MemoryBytes,
}

/// What a shape takes of one device of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// The model will do.
    pub(crate) accepted: bool,
    pub(crate) milli: u32,
    /// Bytes.
    pub(crate) memory: u64,
    /// The larger of both dimensions, in thousandths: what policies reckon with. More than 1000 never fits.
    pub(crate) effective: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    None,
    Whole,
    Share,
    Mig(ProfileId),
}

/// A shape, resolved against the catalogue.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Thousandths of a core.
    pub(crate) cpu: u32,
    /// Bytes of host memory.
    pub(crate) memory: u64,
    pub(crate) form: Form,
    pub(crate) count: u32,
    /// Thousandths of a device that it takes on any kind at least.
    pub(crate) least: u32,
    /// By kind.
    pub(crate) needs: Vec<Need>,
}

/// The numbers given so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    kinds: Vec<Kind>,
    kind_ids: HashMap<Kind, KindId>,
    profiles: HashMap<MigProfile, ProfileId>,
}

/// CPU that nobody can know: no shape asks for so much.
pub(crate) const UNKNOWN_CPU: u32 = u32::MAX;

/// A number for a table's index; a process has not the memory for more.
pub(crate) fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Catalog {
    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Where the kind is new, every [`Ask`] must [`learn`](Ask::learn) it.
    pub(crate) fn kind(&mut self, device: &DeviceState) -> KindId {
        let kind = Kind {
            model: device.model.clone(),
            memory: device.memory,
        };
        if let Some(id) = self.kind_ids.get(&kind) {
            return *id;
        }
        let id = small(self.kinds.len());
        self.kinds.push(kind.clone());
        self.kind_ids.insert(kind, id);
        id
    }

    pub(crate) fn profile(&mut self, profile: &MigProfile) -> ProfileId {
        if let Some(id) = self.profiles.get(profile) {
            return *id;
        }
        let id = small(self.profiles.len());
        self.profiles.insert(profile.clone(), id);
        id
    }

    pub(crate) fn ask(&mut self, shape: &Shape) -> Ask {
        let (form, count) = match &shape.gpu {
            GpuShape::None => (Form::None, 0),
            GpuShape::Whole { count } => (Form::Whole, *count),
            GpuShape::Share { count, .. } => (Form::Share, *count),
            GpuShape::Mig { profile, count } => (Form::Mig(self.profile(profile)), *count),
        };
        let mut ask = Ask {
            cpu: u32::try_from(shape.cpu.0)
                .unwrap_or(UNKNOWN_CPU - 1)
                .min(UNKNOWN_CPU - 1),
            memory: shape.memory.get(),
            form,
            count,
            least: u32::MAX,
            needs: Vec::with_capacity(self.kinds.len()),
        };
        ask.learn(shape, &self.kinds);
        ask
    }
}

impl Ask {
    /// Works out the needs for kinds that came after the last call.
    pub(crate) fn learn(&mut self, shape: &Shape, kinds: &[Kind]) {
        for kind in kinds.iter().skip(self.needs.len()) {
            let need = need(shape, kind);
            self.least = self.least.min(need.milli);
            self.needs.push(need);
        }
    }

    /// Of a kind that was not learned: not accepted.
    pub(crate) fn need(&self, kind: KindId) -> Need {
        const NEVER: Need = Need {
            accepted: false,
            milli: u32::MAX,
            memory: u64::MAX,
            effective: u32::MAX,
        };
        self.needs.get(kind as usize).copied().unwrap_or(NEVER)
    }
}

fn need(shape: &Shape, kind: &Kind) -> Need {
    let accepted = shape.accepts(&kind.model);
    let (milli, memory) = match &shape.gpu {
        GpuShape::Share { size, .. } => size.on(kind.memory),
        GpuShape::Whole { .. } => (crate::MilliGpu::WHOLE, kind.memory),
        GpuShape::None | GpuShape::Mig { .. } => (crate::MilliGpu::ZERO, MemoryBytes::ZERO),
    };
    Need {
        accepted,
        milli: milli.get(),
        memory: memory.get(),
        effective: milli.max(memory.milli_of(kind.memory)).get(),
    }
}
