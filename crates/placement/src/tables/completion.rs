//! What a node will host in the end: CPU and GPUs priced together, since a GPU without CPU to feed it is lost.

use super::{Extent, Typical};

/// Rows of CPU at most.
const ROWS: usize = 513;
/// The finest step of CPU, in thousandths of a core.
const FINEST: u32 = 250;
/// Columns per GPU.
const PER_GPU: usize = 10;

/// Expected GPUs in use on a node with `cpu` and `gpus` fluid free GPUs after a stream of pods has filled it:
/// `U(c,G) = Σ w·v / Σ w`, `v = g + U(c-cpu, G-g)`, `w = p·exp(temper·v/G)` over the shapes that fit. `temper` leans
/// towards good completions, since the cluster chooses who comes.
#[derive(Debug, Clone, Default)]
pub(super) struct Completion {
    /// [row of CPU][column of GPUs]
    values: Vec<f32>,
    rows: usize,
    columns: usize,
    /// 2^32 by the step of CPU, rounded up: a product instead of a division. Exact up to 2^32 / step rows.
    per_step: u64,
}

/// A shape on the grid.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Move {
    rows: usize,
    columns: usize,
    gpus: f32,
    popularity: f32,
}

impl Move {
    /// What it weighs, and what it is worth with what the rest holds.
    #[inline]
    fn weigh(&self, rest: f32, scale: f32) -> (f32, f32) {
        let value = self.gpus + rest;
        (self.popularity * exp(scale * value), value)
    }
}

impl Completion {
    pub(super) fn new(typical: &[Typical], temper: f64, extent: Extent) -> Self {
        if !extent.completion {
            return Self::default();
        }
        let step = extent
            .cpu
            .div_ceil((ROWS - 1) as u32)
            .next_multiple_of(FINEST)
            .max(FINEST);
        let rows = (extent.cpu / step) as usize + 1;
        let columns = extent.gpus * PER_GPU + 1;
        // Moves that cost no CPU look at the row that is being made: after the others, column by column.
        let (paid, free): (Vec<Move>, Vec<Move>) = moves(typical, step).into_iter().partition(|step| step.rows > 0);
        let scale: Vec<f32> = (0..columns)
            .map(|column| temper as f32 * PER_GPU as f32 / column.max(1) as f32)
            .collect();
        let mut values = vec![0.0_f32; rows * columns];
        // Weighted means in the making; two arrays, so that several columns are summed at once.
        let (mut weights, mut weighted) = (vec![0.0_f32; columns], vec![0.0_f32; columns]);
        for row in 0..rows {
            let (earlier, rest) = values.split_at_mut(row * columns);
            weights.fill(0.0);
            weighted.fill(0.0);
            for step in paid.iter().filter(|step| step.rows <= row && step.columns < columns) {
                let from = &earlier[(row - step.rows) * columns..][..columns - step.columns];
                let sums = weights[step.columns..].iter_mut().zip(&mut weighted[step.columns..]);
                for (((weights, weighted), rest), scale) in sums.zip(from).zip(&scale[step.columns..]) {
                    let (weight, value) = step.weigh(*rest, *scale);
                    *weights += weight;
                    *weighted += weight * value;
                }
            }
            let current = &mut rest[..columns];
            for column in 1..columns {
                let (mut weights, mut weighted) = (weights[column], weighted[column]);
                for step in free.iter().filter(|step| step.columns <= column) {
                    let (weight, value) = step.weigh(current[column - step.columns], scale[column]);
                    weights += weight;
                    weighted += weight * value;
                }
                if weights > 0.0 {
                    current[column] = (weighted / weights).min(column as f32 / PER_GPU as f32);
                }
            }
        }
        Self {
            values,
            rows,
            columns,
            per_step: (1_u64 << 32).div_ceil(u64::from(step)),
        }
    }

    /// Floor in CPU, linear in GPUs.
    pub(super) fn at(&self, cpu: u32, gpus: f64) -> f64 {
        if self.columns < 2 {
            return 0.0;
        }
        let row = (((u64::from(cpu) * self.per_step) >> 32) as usize).min(self.rows - 1);
        let column = (gpus * PER_GPU as f64).clamp(0.0, (self.columns - 1) as f64);
        let left = (column as usize).min(self.columns - 2);
        let at = row * self.columns + left;
        let (low, high) = (f64::from(self.values[at]), f64::from(self.values[at + 1]));
        low + (high - low) * (column - left as f64)
    }
}

/// Shapes that take something, on the grid; those that fall together are added up.
fn moves(typical: &[Typical], step: u32) -> Vec<Move> {
    let mut moves: Vec<Move> = Vec::with_capacity(typical.len());
    for shape in typical {
        let milli = shape.count * shape.milli;
        let on_grid = Move {
            rows: shape.cpu.div_ceil(step) as usize,
            columns: ((milli + 50) / 100) as usize,
            gpus: milli as f32 / 1000.0,
            popularity: shape.popularity as f32,
        };
        if on_grid.rows == 0 && on_grid.columns == 0 {
            continue;
        }
        let same = |other: &&mut Move| {
            (other.rows, other.columns, other.gpus.to_bits()) == (on_grid.rows, on_grid.columns, on_grid.gpus.to_bits())
        };
        match moves.iter_mut().find(same) {
            Some(other) => other.popularity += on_grid.popularity,
            None => moves.push(on_grid),
        }
    }
    moves
}

/// `e^x` to half a per cent for small positive `x`, in a few multiplications: it weighs, it does not measure.
fn exp(x: f32) -> f32 {
    let part = x / 16.0;
    let mut power = 1.0 + part * (1.0 + part * (0.5 + part / 6.0));
    for _ in 0..4 {
        power *= power;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(popularity: f64, cpu: u32, milli: u32) -> Typical {
        Typical {
            popularity,
            cpu,
            count: u32::from(milli > 0),
            milli,
            whole: milli == 1000,
        }
    }

    const EXTENT: Extent = Extent {
        cpu: 64_000,
        gpus: 4,
        completion: true,
    };

    #[test]
    fn a_node_completes_to_no_more_than_it_has_and_more_is_never_worth_less() {
        let completion = Completion::new(
            &[pod(0.5, 8_000, 1000), pod(0.3, 4_000, 470), pod(0.2, 6_000, 0)],
            3.0,
            EXTENT,
        );
        for cpu in (0..=64_000).step_by(1_000) {
            for tenth in 0..=40 {
                let gpus = f64::from(tenth) / 10.0;
                let value = completion.at(cpu, gpus);
                assert!((0.0..=gpus + 1e-6).contains(&value), "{cpu} {gpus}: {value}");
                assert!(
                    completion.at(cpu + 8_000, gpus) + 0.35 >= value,
                    "{cpu} {gpus}: {value}"
                );
            }
        }
    }

    #[test]
    fn gpus_without_cpu_are_worth_nothing_and_pods_without_cpu_need_none() {
        let completion = Completion::new(&[pod(1.0, 8_000, 1000)], 3.0, EXTENT);
        assert!(completion.at(7_999, 4.0).abs() < 1e-9);
        assert!(
            (completion.at(16_000, 4.0) - 2.0).abs() < 1e-3,
            "{}",
            completion.at(16_000, 4.0)
        );
        let free = Completion::new(&[pod(1.0, 0, 1000)], 3.0, EXTENT);
        assert!((free.at(0, 4.0) - 4.0).abs() < 1e-3, "{}", free.at(0, 4.0));
    }

    #[test]
    fn the_cheap_exponential_is_close() {
        for tenth in 0_u8..=60 {
            let x = f32::from(tenth) / 10.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 0.01, "{x}");
        }
    }
}
