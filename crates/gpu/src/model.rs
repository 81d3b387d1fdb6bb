//! Short model names, as instance types spell them, from the names that the driver gives products.

use berth_placement::GpuModel;

/// Brand words that say nothing about the model.
const BRANDS: [&str; 6] = ["NVIDIA", "TESLA", "QUADRO", "GEFORCE", "GRAPHICS", "DEVICE"];
/// Words after which nothing belongs to the model's name: form factors, editions.
const ENDS: [&str; 12] = [
    "SXM", "SXM2", "SXM3", "SXM4", "SXM5", "SXM6", "PCIE", "HBM2", "HBM2E", "HBM3", "HBM3E", "NVL",
];
/// Words that belong to the number after them.
const JOINED: [&str; 3] = ["RTX", "GTX", "TITAN"];

/// `NVIDIA H100 80GB HBM3` → `H100`, `Tesla V100-SXM2-16GB` → `V100`, `NVIDIA GeForce RTX 4090` → `RTX4090`,
/// `NVIDIA RTX PRO 6000 Blackwell Server Edition` → `RTXPRO6000`. A name without a known form is joined by `-`.
pub fn short_name(product: &str) -> GpuModel {
    let words: Vec<String> = product
        .split(|c: char| c.is_whitespace() || c == '-' || c == '_')
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_uppercase)
        .skip_while(|word| BRANDS.contains(&word.as_str()))
        .take_while(|word| !ENDS.contains(&word.as_str()) && !is_memory(word))
        .collect();
    let name = match words.as_slice() {
        [family, ..] if JOINED.contains(&family.as_str()) => joined(&words),
        [first, ..] => first.clone(),
        [] => product.split_whitespace().collect::<Vec<_>>().join("-"),
    };
    let printable: String = name.chars().filter(char::is_ascii_graphic).take(64).collect();
    let unknown = || {
        "unknown"
            .parse()
            .unwrap_or_else(|_| unreachable!("a plain word is a model name"))
    };
    printable.parse().unwrap_or_else(|_| unknown())
}

/// `RTX`, perhaps a series (`PRO`), the number, and what belongs to the number (`Ti`, `SUPER`, `Ada`).
fn joined(words: &[String]) -> String {
    let number = words.iter().position(|word| word.chars().any(|c| c.is_ascii_digit()));
    let end = number.map_or(words.len(), |at| at + 1);
    let suffix = |word: &&String| ["TI", "SUPER", "ADA", "D"].contains(&word.as_str());
    words
        .iter()
        .take(end)
        .chain(words.iter().skip(end).take_while(suffix))
        .map(String::as_str)
        .collect()
}

/// `80GB`, `16384MiB`.
fn is_memory(word: &str) -> bool {
    let number = word.trim_end_matches(|c: char| !c.is_ascii_digit());
    !number.is_empty()
        && ["GB", "GIB", "MB", "MIB", "G"].contains(&&word[number.len()..])
        && number.bytes().all(|byte| byte.is_ascii_digit())
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
            ("NVIDIA GeForce RTX 4090 D", "RTX4090D"),
            ("NVIDIA GeForce RTX 3080 Ti", "RTX3080TI"),
            ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX4070TISUPER"),
            ("NVIDIA GeForce GTX 1080", "GTX1080"),
            ("NVIDIA TITAN RTX", "TITANRTX"),
            ("Quadro RTX 8000", "RTX8000"),
            ("NVIDIA RTX A6000", "RTXA6000"),
            ("NVIDIA RTX 6000 Ada Generation", "RTX6000ADA"),
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
