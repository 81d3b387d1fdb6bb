//! What the remainder of one GPU will hold in the end: dead slivers hold nothing, and no CPU is kept for them.

use super::{SLOTS, Typical, slot_up};

/// By hundredth, in GPUs: the mean fill of a remainder by a random stream of the shapes that fit it, discounted where
/// less than about `dead` of them do.
pub(super) fn holds(typical: &[Typical], dead: f64) -> [f32; SLOTS] {
    let single: Vec<(usize, f64, f64)> = typical
        .iter()
        .filter(|shape| shape.single() && shape.milli > 0)
        .map(|shape| (slot_up(shape.milli), f64::from(shape.milli) / 1000.0, shape.popularity))
        .collect();
    let all: f64 = single.iter().map(|(.., popularity)| popularity).sum();
    let mut fill = [0.0_f64; SLOTS];
    let mut holds = [0.0_f32; SLOTS];
    for slot in 1..SLOTS {
        let (mut mass, mut sum) = (0.0, 0.0);
        for (size, gpus, popularity) in single.iter().filter(|(size, ..)| *size <= slot) {
            mass += popularity;
            sum += popularity * (gpus + fill[slot - size]);
        }
        if mass > 0.0 {
            fill[slot] = sum / mass;
            let usable = mass / all;
            holds[slot] = (fill[slot] * usable / (usable + dead)) as f32;
        }
    }
    holds[SLOTS - 1] = 1.0;
    holds
}
