//! Names of kinds of GPUs, as the control plane spells them.

use berth_placement::product::model_of_product;

/// The kind that a product label tells: `NVIDIA-H100-80GB-HBM3` is `H100`, `NVIDIA-H200-MIG-7g.141gb` is
/// `H200-MIG-7g-141gb`. A MIG profile of another form is left out.
pub fn gpu_name(product: &str) -> Option<String> {
    let model = model_of_product(product)?;
    let profile = mig_profile(product).and_then(mig_suffix).unwrap_or_default();
    Some(format!("{model}{profile}"))
}

/// What a product label tells of MIG (strategy "single"): `7g.141gb`.
pub(super) fn mig_profile(product: &str) -> Option<&str> {
    let at = product.to_ascii_uppercase().find("-MIG-")?;
    product.get(at + "-MIG-".len()..)
}

/// `-MIG-7g-141gb` for `7g.141gb`; `None` for what is no plain profile (`1g.10gb+me`).
pub(super) fn mig_suffix(profile: &str) -> Option<String> {
    let profile = profile.to_ascii_lowercase();
    let (slices, memory) = profile.split_once(['.', '-'])?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = slices.strip_suffix('g').is_some_and(is_number) && memory.strip_suffix("gb").is_some_and(is_number);
    is_plain.then(|| format!("-MIG-{slices}-{memory}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_that_the_real_agent_registers() {
        for (product, name) in [
            ("NVIDIA-H100-80GB-HBM3", "H100"),
            ("NVIDIA-A100-SXM4-40GB", "A100"),
            ("NVIDIA-H200-MIG-7g.141gb", "H200-MIG-7g-141gb"),
            (
                "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition-MIG-2g.48gb",
                "RTXPRO6000-MIG-2g-48gb",
            ),
            ("NVIDIA-RTX-PRO-6000-Blackwell-MIG-1g.24gb.me", "RTXPRO6000"),
            ("NVIDIA-A100-SXM4-40GB-mig-1g-5gb", "A100-MIG-1g-5gb"),
        ] {
            assert_eq!(gpu_name(product).as_deref(), Some(name), "{product}");
        }
        assert_eq!(gpu_name("NVIDIA"), None);
    }
}
