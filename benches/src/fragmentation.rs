//! How fragmented a cluster is, by FGD's definition (Weng et al., USENIX ATC'23): free GPUs that a random pod of the
//! workload cannot use, in GPUs. Reckoned in full: for reports, not for decisions.

use std::collections::HashMap;

use berth_placement::{GpuShape, MilliGpu, NodeState, Shape};

use crate::trace::Pod;

/// The commonest shapes that make up [`COVERAGE`] of all pods, with their shares of these.
#[derive(Debug, Clone)]
pub struct Typical(Vec<(Shape, f64)>);

const COVERAGE: f64 = 0.95;

impl Typical {
    #[expect(clippy::cast_precision_loss, reason = "a number of pods")]
    pub fn of(pods: &[Pod]) -> Self {
        let mut counts: HashMap<&Shape, usize> = HashMap::new();
        for pod in pods {
            *counts.entry(&pod.shape).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|(one, times), (other, more)| more.cmp(times).then_with(|| one.cmp(other)));
        let mut covered = 0;
        let wanted = COVERAGE * pods.len() as f64;
        counts.retain(|(_, count)| {
            let common = (covered as f64) < wanted;
            covered += if common { *count } else { 0 };
            common
        });
        let share = |(shape, count): (&Shape, usize)| (shape.clone(), count as f64 / covered as f64);
        Self(counts.into_iter().map(share).collect())
    }

    /// Free GPUs of these nodes that a random typical pod cannot use.
    pub fn unusable<'a>(&self, nodes: impl Iterator<Item = &'a NodeState>) -> f64 {
        nodes.map(|node| self.of_node(node)).sum()
    }

    fn of_node(&self, node: &NodeState) -> f64 {
        let free: f64 = node.devices.iter().map(|device| gpus(device.free.milli)).sum();
        let used: f64 = self.0.iter().map(|(shape, share)| share * usable(node, shape)).sum();
        free - used
    }
}

/// Free GPUs of a node that such pods can use.
fn usable(node: &NodeState, shape: &Shape) -> f64 {
    if node.cpu_free.is_some_and(|free| free < shape.cpu) {
        return 0.0;
    }
    let least = match &shape.gpu {
        GpuShape::Whole { .. } => MilliGpu::WHOLE,
        GpuShape::Share { size, .. } => {
            size.on(node
                .devices
                .first()
                .map_or_else(Default::default, |device| device.memory))
                .0
        }
        GpuShape::None | GpuShape::Mig { .. } => return 0.0,
    };
    let fitting = node
        .devices
        .iter()
        .filter(|device| shape.accepts(&device.model) && device.free.milli >= least);
    let (count, sum) = fitting.fold((0, 0.0), |(count, sum), device| {
        (count + 1, sum + gpus(device.free.milli))
    });
    if count >= shape.gpu.count() { sum } else { 0.0 }
}

fn gpus(milli: MilliGpu) -> f64 {
    f64::from(milli.get()) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::device;

    #[test]
    fn a_remainder_that_half_of_the_pods_can_use_counts_half() {
        let pod = |milli| Pod {
            name: String::new(),
            shape: Shape::gpu(GpuShape::share(Some(MilliGpu::new(milli)), None, 1).unwrap()),
            milli: u64::from(milli),
            lifetime: None,
        };
        let mut gpu = device(&"n".parse().unwrap(), 0, &"T4".parse().unwrap()).unwrap();
        gpu.free.milli = MilliGpu::new(400);
        let node = NodeState::of_devices("n".parse().unwrap(), 1, vec![gpu]);
        let typical = Typical::of(&[pod(300), pod(500)]);
        assert!((typical.unusable(std::iter::once(&node)) - 0.2).abs() < 1e-9);
    }
}
