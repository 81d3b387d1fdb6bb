//! From a pod to the shape that it asks for.
//!
//! Owns how requests add up and how the annotations of others are understood; knows nothing of nodes.

use berth_placement::{
    CpuMilli, GpuModel, GpuShape, MemoryBytes, MigProfile, MilliGpu, ParseIdError, Shape, ShapeError,
    product::model_of_product,
};
use thiserror::Error;

use crate::{
    Pod, Quantity,
    names::{kai, nvcf, nvidia},
    object::{PodSpec, ResourceRequirements},
    product::model_of_instance_type,
};

#[cfg(test)]
mod tests;

/// A pod whose request cannot be understood. The texts out of the pod are cut to 80 characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeOfPodError {
    #[error("the pod asks for {quantity} of {resource}: it must be a whole number that is not negative")]
    Amount { resource: String, quantity: Quantity },
    #[error("the pod asks for {first} and for {second}: one pod gets one kind of GPU")]
    Mixed { first: String, second: String },
    #[error("the pod asks for {resource}, which names no MIG profile")]
    Profile {
        resource: String,
        #[source]
        source: ParseIdError,
    },
    #[error("annotation {name}: {value:?} is not valid: {rule}")]
    Annotation {
        name: &'static str,
        value: String,
        rule: &'static str,
    },
    #[error("the instance type asks for {instance_type}, the node selector for {selector}")]
    Models {
        instance_type: GpuModel,
        selector: GpuModel,
    },
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

impl ShapeOfPodError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Amount { .. } => "InvalidAmount",
            Self::Mixed { .. } => "MixedGpuRequests",
            Self::Profile { .. } => "InvalidMigProfile",
            Self::Annotation { .. } => "InvalidAnnotation",
            Self::Models { .. } => "ConflictingModels",
            Self::Shape(error) => error.reason(),
        }
    }
}

/// What the pod asks for, counted as kube-scheduler counts it: the larger of the containers together and of the init
/// containers one by one, sidecars with both (KEP-753), pod-level requests in place of the sum (KEP-2837), overhead on top.
///
/// GPUs come from `nvidia.com/gpu`, `nvidia.com/mig-…`, or KAI's `gpu-fraction` and `gpu-memory` annotations; the model
/// from NVCF's instance type and from the node selector. Time-sliced replicas (`nvidia.com/gpu.shared`) are no GPUs here.
pub fn pod_shape(pod: &Pod) -> Result<Shape, ShapeOfPodError> {
    let spec = &pod.spec;
    let gpu = gpu_shape(pod)?;
    let models = if gpu == GpuShape::None { None } else { model(pod)? };
    let cpu = with_pod_level(spec, "cpu")?.milli();
    let memory = with_pod_level(spec, "memory")?.value();
    Ok(Shape {
        cpu: CpuMilli(cpu.unsigned_abs()),
        memory: MemoryBytes::new(memory.unsigned_abs()),
        gpu,
        ..Shape::default()
    }
    .with_models(models))
}

fn gpu_shape(pod: &Pod) -> Result<GpuShape, ShapeOfPodError> {
    let mut found: Option<(&str, GpuShape)> = None;
    for resource in gpu_resources(&pod.spec) {
        let Some(count) = device_count(resource, total(&pod.spec, resource)?)? else {
            continue;
        };
        let shape = match resource.strip_prefix(nvidia::MIG_PREFIX) {
            Some(profile) => GpuShape::mig(mig_profile(resource, profile)?, count)?,
            None => GpuShape::whole(count)?,
        };
        found = match found {
            Some((first, _)) => return Err(mixed(first, resource)),
            None => Some((resource, shape)),
        };
    }
    match (found, fraction(pod)?) {
        (Some((first, _)), Some((annotation, _))) => Err(mixed(first, annotation)),
        (Some((_, shape)), None) | (None, Some((_, shape))) => Ok(shape),
        (None, None) => Ok(GpuShape::None),
    }
}

/// The names of the GPU resources that any container mentions, each once.
fn gpu_resources(spec: &PodSpec) -> Vec<&str> {
    let mut names: Vec<&str> = spec
        .containers
        .iter()
        .chain(&spec.init_containers)
        .flat_map(|container| container.resources.names())
        .filter(|name| *name == nvidia::GPU || name.starts_with(nvidia::MIG_PREFIX))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// `None` for zero.
fn device_count(resource: &str, quantity: Quantity) -> Result<Option<u32>, ShapeOfPodError> {
    let count = quantity.as_whole().ok_or_else(|| not_an_amount(resource, quantity))?;
    // Above u32 is refused as too many all the same.
    Ok(Some(u32::try_from(count).unwrap_or(u32::MAX)).filter(|count| *count > 0))
}

/// The device plugin writes a dot for the plus that resource names may not have: `mig-1g.10gb.me` is `1g.10gb+me`.
fn mig_profile(resource: &str, profile: &str) -> Result<MigProfile, ShapeOfPodError> {
    profile
        .replacen("gb.", "gb+", 1)
        .parse()
        .map_err(|source| ShapeOfPodError::Profile {
            resource: cut(resource),
            source,
        })
}

/// KAI's annotations for a part of a GPU, with the name of the one that asks.
fn fraction(pod: &Pod) -> Result<Option<(&'static str, GpuShape)>, ShapeOfPodError> {
    let annotation = |name| pod.metadata.annotations.get(name).map(String::as_str);
    let devices = annotation(kai::GPU_FRACTION_DEVICES);
    let share = match (annotation(kai::GPU_FRACTION), annotation(kai::GPU_MEMORY)) {
        (Some(_), Some(_)) => return Err(mixed(kai::GPU_FRACTION, kai::GPU_MEMORY)),
        (Some(text), None) => (kai::GPU_FRACTION, Some(portion(text)?), None),
        (None, Some(text)) => (kai::GPU_MEMORY, None, Some(gpu_memory(text)?)),
        (None, None) => match devices {
            None => return Ok(None),
            Some(text) => {
                let rule = "it needs gpu-fraction or gpu-memory beside it";
                return Err(bad_annotation(kai::GPU_FRACTION_DEVICES, text, rule));
            }
        },
    };
    let count = devices.map_or(Ok(1), |text| {
        let rule = "it must be a whole number above 0";
        let count = text.parse().ok().filter(|count| *count > 0);
        count.ok_or_else(|| bad_annotation(kai::GPU_FRACTION_DEVICES, text, rule))
    })?;
    let (name, milli, memory) = share;
    Ok(Some((name, GpuShape::share(milli, memory, count)?)))
}

/// Rounded down to thousandths, so that three thirds fit one GPU; at least one.
fn portion(text: &str) -> Result<MilliGpu, ShapeOfPodError> {
    let rule = "it must be a number above 0 and at most 1, e.g. 0.5";
    let bad = || bad_annotation(kai::GPU_FRACTION, text, rule);
    let nano = text.parse::<Quantity>().map_err(|_| bad())?.nano();
    if !(1..=1_000_000_000).contains(&nano) {
        return Err(bad());
    }
    let milli = u32::try_from(nano / 1_000_000).map_err(|_| bad())?;
    Ok(MilliGpu::new(milli.max(1)))
}

fn gpu_memory(text: &str) -> Result<MemoryBytes, ShapeOfPodError> {
    let mib = text.parse::<u64>().ok().filter(|mib| *mib > 0);
    let rule = "it must be a whole number of MiB above 0, e.g. 20480";
    mib.map(MemoryBytes::from_mib)
        .ok_or_else(|| bad_annotation(kai::GPU_MEMORY, text, rule))
}

fn model(pod: &Pod) -> Result<Option<GpuModel>, ShapeOfPodError> {
    let instance_type = pod
        .metadata
        .annotations
        .get(nvcf::INSTANCE_TYPE_NAME)
        .and_then(|name| model_of_instance_type(name));
    let selector = pod
        .spec
        .node_selector
        .get(nvidia::PRODUCT)
        .and_then(|product| model_of_product(product));
    match (instance_type, selector) {
        (Some(instance_type), Some(selector)) if instance_type != selector => Err(ShapeOfPodError::Models {
            instance_type,
            selector,
        }),
        (Some(model), _) | (None, Some(model)) => Ok(Some(model)),
        (None, None) => Ok(None),
    }
}

/// CPU or memory: what the pod as a whole says counts before the sum.
fn with_pod_level(spec: &PodSpec, resource: &str) -> Result<Quantity, ShapeOfPodError> {
    let overhead = spec.overhead.get(resource).copied().unwrap_or_default();
    let containers = match asked(&spec.resources, resource)? {
        Some(pod_level) => pod_level,
        None => total(spec, resource)?,
    };
    Ok(containers.saturating_add(not_negative(resource, overhead)?))
}

/// Without overhead.
fn total(spec: &PodSpec, resource: &str) -> Result<Quantity, ShapeOfPodError> {
    let mut running = Quantity::ZERO;
    let mut sidecars = Quantity::ZERO;
    let mut starting = Quantity::ZERO;
    for container in &spec.containers {
        running = running.saturating_add(asked(&container.resources, resource)?.unwrap_or_default());
    }
    for container in &spec.init_containers {
        let request = asked(&container.resources, resource)?.unwrap_or_default();
        if container.is_sidecar() {
            running = running.saturating_add(request);
            sidecars = sidecars.saturating_add(request);
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(sidecars.saturating_add(request));
        }
    }
    Ok(running.max(starting))
}

fn asked(resources: &ResourceRequirements, resource: &str) -> Result<Option<Quantity>, ShapeOfPodError> {
    resources
        .request(resource)
        .map(|quantity| not_negative(resource, quantity))
        .transpose()
}

fn not_negative(resource: &str, quantity: Quantity) -> Result<Quantity, ShapeOfPodError> {
    if quantity < Quantity::ZERO {
        Err(not_an_amount(resource, quantity))
    } else {
        Ok(quantity)
    }
}

fn not_an_amount(resource: &str, quantity: Quantity) -> ShapeOfPodError {
    ShapeOfPodError::Amount {
        resource: cut(resource),
        quantity,
    }
}

fn mixed(first: &str, second: &str) -> ShapeOfPodError {
    ShapeOfPodError::Mixed {
        first: cut(first),
        second: cut(second),
    }
}

fn bad_annotation(name: &'static str, value: &str, rule: &'static str) -> ShapeOfPodError {
    ShapeOfPodError::Annotation {
        name,
        value: cut(value),
        rule,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
