//! Short model names out of the long ones of the driver and of GPU Feature Discovery, by the rules that NVCF's agent
//! follows: what it registers with the control plane is what pods ask for.

use crate::GpuModel;

/// The model of a product: `NVIDIA-H100-80GB-HBM3` (a label) and `NVIDIA H100 80GB HBM3` (the driver) are an `H100`.
///
/// Variants of one model (memory size, form factor) have the same short name. `None` where no name is left.
pub fn model_of_product(product: &str) -> Option<GpuModel> {
    let upper = product.trim().to_ascii_uppercase().replace(' ', "-");
    let upper = before(&upper, "-MIG-");
    let upper = upper.strip_suffix("-SHARED").unwrap_or(upper);
    let from = upper.find("RTX").or_else(|| upper.find("GTX")).unwrap_or(0);
    let mut tokens = upper
        .get(from..)
        .unwrap_or_default()
        .split('-')
        .filter(|token| !token.is_empty() && !matches!(*token, "NVIDIA" | "GEFORCE" | "TESLA" | "QUADRO"))
        .peekable();
    let first = tokens.next()?;
    let name = match first {
        "RTX" | "GTX" => consumer_name(first, tokens),
        // The driver's name of some L40.
        "AD102GL" => tokens.next().unwrap_or(first).to_owned(),
        _ => first.to_owned(),
    };
    name.parse().ok()
}

/// `RTX` with its series, number and `Ti`: `RTX2080Ti`, `RTXPRO6000`.
fn consumer_name<'a>(brand: &str, tokens: impl Iterator<Item = &'a str>) -> String {
    let mut name = brand.to_owned();
    let mut numbered = false;
    for token in tokens {
        match token {
            "PRO" if !numbered => name.push_str(token),
            "TI" if numbered => name.push_str("Ti"),
            _ if !numbered && token.ends_with(|c: char| c.is_ascii_digit()) => {
                name.push_str(token);
                numbered = true;
            }
            _ => break,
        }
    }
    name
}

/// What stands before the separator; all of it where there is none.
fn before<'a>(text: &'a str, separator: &str) -> &'a str {
    text.split_once(separator).map_or(text, |(head, _)| head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_have_the_names_that_the_agent_registers() {
        for (product, model) in [
            ("NVIDIA-A100-SXM4-40GB", "A100"),
            ("NVIDIA-H100-80GB-HBM3", "H100"),
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA-H100-PCIe", "H100"),
            ("GH200-480GB", "GH200"),
            ("NVIDIA-H200-MIG-7g.141gb", "H200"),
            ("NVIDIA-L40S", "L40S"),
            ("NVIDIA-L40S-SHARED", "L40S"),
            ("AD102GL-L40", "L40"),
            ("Tesla-T4", "T4"),
            ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", "RTXPRO6000"),
            ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition-MIG-2g.48gb", "RTXPRO6000"),
            ("RTX-2080-Ti-8G", "RTX2080Ti"),
            ("NVIDIA-GeForce-RTX-4090", "RTX4090"),
            ("NVIDIA-RTX-A6000", "RTXA6000"),
            ("GTX-1080-8G", "GTX1080"),
        ] {
            assert_eq!(model_of_product(product).unwrap().as_str(), model, "{product}");
        }
        for product in ["", "NVIDIA", "--", " "] {
            assert_eq!(model_of_product(product), None, "{product:?}");
        }
    }
}
