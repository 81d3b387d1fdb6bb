//! The short model name of a device, from the name that the driver gives the product.

use berth_placement::{GpuModel, product::model_of_product};

/// As [`model_of_product`]; `unknown` where the name tells no model.
pub fn short_name(product: &str) -> GpuModel {
    model_of_product(product).unwrap_or_else(|| {
        "unknown"
            .parse()
            .unwrap_or_else(|_| unreachable!("a plain word is a model name"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_have_the_short_names_that_instance_types_use() {
        for (product, expected) in [
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA H100 PCIe", "H100"),
            ("NVIDIA H100 NVL", "H100"),
            ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "H100"),
            ("NVIDIA H200", "H200"),
            ("NVIDIA H20", "H20"),
            ("NVIDIA GH200 480GB", "GH200"),
            ("NVIDIA GH200 144G HBM3e", "GH200"),
            ("NVIDIA B200", "B200"),
            ("NVIDIA B300 SXM6 AC", "B300"),
            ("NVIDIA GB200", "GB200"),
            ("NVIDIA A100-SXM4-40GB", "A100"),
            ("NVIDIA A100-PCIE-40GB", "A100"),
            ("NVIDIA A100 80GB PCIe", "A100"),
            ("A100-SXM4-80GB", "A100"),
            ("NVIDIA A10", "A10"),
            ("NVIDIA A10G", "A10G"),
            ("NVIDIA A30", "A30"),
            ("NVIDIA A40", "A40"),
            ("NVIDIA L4", "L4"),
            ("NVIDIA L40", "L40"),
            ("NVIDIA L40S", "L40S"),
            ("NVIDIA L40-48Q", "L40"),
            ("Tesla T4", "T4"),
            ("Tesla V100-SXM2-16GB", "V100"),
            ("Tesla V100-SXM3-32GB-H", "V100"),
            ("Tesla P100-PCIE-16GB", "P100"),
            ("Tesla P40", "P40"),
            ("Tesla K80", "K80"),
            ("Tesla M60", "M60"),
            ("NVIDIA GeForce RTX 4090", "RTX4090"),
            ("NVIDIA GeForce RTX 4090 D", "RTX4090"),
            ("NVIDIA GeForce RTX 3080 Ti", "RTX3080Ti"),
            ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX4070Ti"),
            ("NVIDIA GeForce GTX 1080", "GTX1080"),
            ("Quadro RTX 8000", "RTX8000"),
            ("NVIDIA RTX A6000", "RTXA6000"),
            ("NVIDIA RTX 6000 Ada Generation", "RTX6000"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTXPRO6000"),
            ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTXPRO6000"),
            ("NVIDIA Thor", "THOR"),
        ] {
            assert_eq!(short_name(product).as_str(), expected, "{product}");
        }
    }

    #[test]
    fn any_text_gives_some_model_name() {
        for product in [
            "",
            " ",
            "NVIDIA",
            "NVIDIA Graphics Device",
            "80GB",
            "\u{9}\u{1F600}",
            &"x".repeat(500),
        ] {
            assert!(!short_name(product).as_str().is_empty(), "{product:?}");
        }
    }
}
