//! Best fit and worst fit: what is left of CPU and GPU, each in parts of the largest node.

use super::{Scale, Score};
use crate::engine::{
    catalog::{Ask, Form, UNKNOWN_CPU},
    cell::Cell,
};

/// `sign` -1 prefers the node with the least left, 1 the one with the most. Where CPU is unknown, only GPUs count.
pub(super) fn fit(cell: &Cell, ask: &Ask, scale: Scale, sign: f64) -> Score {
    Score {
        total: sign * (0.5 * cpu_left(cell, ask) / scale.cpu + 0.5 * gpu_left(cell, ask) / scale.gpu),
        level: None,
    }
}

fn cpu_left(cell: &Cell, ask: &Ask) -> f64 {
    if cell.cpu == UNKNOWN_CPU {
        0.0
    } else {
        f64::from(cell.cpu.saturating_sub(ask.cpu))
    }
}

fn gpu_left(cell: &Cell, ask: &Ask) -> f64 {
    let left: u32 = match ask.form {
        // Instances are compared with instances.
        Form::Mig(_) => cell.mig.iter().map(|level| 1000 * level.free).sum(),
        _ => cell.free,
    };
    f64::from(left)
}
