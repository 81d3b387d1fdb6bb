//! The GPU model that an instance type's name tells.

use berth_placement::GpuModel;

/// The model of an instance type: `NCP.GPU.H100_8x` (or `…_8x.x2`, or without the number) is an `H100`.
///
/// `None` where the name is of another form, as an administrator may choose it: then it tells no model.
pub fn model_of_instance_type(name: &str) -> Option<GpuModel> {
    let (provider, shape) = name.split_once(".GPU.")?;
    if provider.is_empty() {
        return None;
    }
    let model = shape.split_once('_').map_or(shape, |(model, _)| model);
    let model = model.split_once("-MIG-").map_or(model, |(model, _)| model);
    (!model.contains('.')).then(|| model.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_types_name_their_model() {
        for (name, model) in [
            ("NCP.GPU.H100_8x", "H100"),
            ("NCP.GPU.H100", "H100"),
            ("ON-PREM.GPU.B200_8x.x2", "B200"),
            ("NCP.GPU.H200-MIG-7g-141gb_1x", "H200"),
            ("NCP.GPU.RTXPRO6000_2x", "RTXPRO6000"),
        ] {
            assert_eq!(model_of_instance_type(name).unwrap().as_str(), model, "{name}");
        }
        for name in [
            "",
            "g6.xlarge",
            "H100",
            ".GPU.H100",
            "NCP.GPU.",
            "NCP.GPU.a b",
            "my.GPU.dgx.large",
        ] {
            assert_eq!(model_of_instance_type(name), None, "{name:?}");
        }
    }
}
