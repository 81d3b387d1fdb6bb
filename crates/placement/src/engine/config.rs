//! What an engine is told when it is made.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Shape;

/// How nodes are ranked against each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    /// Completion-value gradient: what a node can still become under the workload that is seen.
    #[default]
    Fragmentation,
    /// Fragmentation gradient descent (Weng et al., USENIX ATC'23), unquantised, with a small best-fit term.
    Fgd,
    /// Best fit: the node with the least CPU and GPU left.
    Binpack,
    /// Worst fit.
    Spread,
    /// Any node that fits.
    Random,
}

/// Not a policy's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no policy: use fragmentation, fgd, binpack, spread or random")]
pub struct ParsePolicyError(String);

/// Which of equally good nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ties {
    /// By the seed: different schedulers do not all run to the same node.
    #[default]
    Random,
    /// The smallest name, as the published FGD experiments do.
    Name,
}

/// Weights of the policies' terms. The defaults are what `benches/README.md` reports; see
/// `policy/fragmentation.rs` for what each one does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Best-fit term, in GPUs for a node as large as the largest. Also of `fgd`.
    pub pack: f64,
    /// Exponent on the share of pods that can use what is left of a GPU: 1 is FGD's, less rewards liquidity less.
    pub liquidity: f64,
    /// How much the completion of a node is tempered towards good ones; 0 is a random fill.
    pub temper: f64,
    /// Share of the single-GPU pods below which a remainder counts as dead, while nobody leaves.
    pub sliver: f64,
    /// The same where as many pods leave as come: a remainder that few can use is then better given back whole.
    pub sliver_churn: f64,
    /// Price of nodes that only few can use, per unit of scarcity.
    pub class_pressure: f64,
    /// Price of breaking up blocks of free GPUs that multi-GPU pods need, per unit of scarcity, while nobody leaves.
    pub block_pressure: f64,
    /// The same where as many pods leave as come: what is broken up then stays so for long.
    pub block_pressure_churn: f64,
    /// Exponent on the scarcity of blocks.
    pub block_exponent: f64,
}

/// The workload that the gradient policies expect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixConfig {
    /// Known shapes with how often each is asked for, in pods.
    pub known: Vec<(Shape, f64)>,
    /// Whether shapes seen count too.
    pub learn: bool,
    /// The policies reckon with the commonest shapes that make up this share of all pods.
    pub coverage: f64,
    /// After this many pods an older one counts half.
    pub half_life: f64,
}

/// All of it. Two engines with the same configuration and the same calls give the same answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    pub policy: PolicyName,
    pub ties: Ties,
    pub seed: u64,
    pub weights: Weights,
    pub mix: MixConfig,
    /// Distinct shapes for which scores are kept at hand; the one unused for longest goes first. A score costs eight
    /// bytes per node. Shapes that differ in host memory only count as one.
    pub cached_shapes: usize,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            pack: 0.05,
            liquidity: 0.15,
            temper: 3.0,
            sliver: 0.01,
            sliver_churn: 0.02,
            class_pressure: 0.2,
            block_pressure: 0.1,
            block_pressure_churn: 0.4,
            block_exponent: 1.0,
        }
    }
}

impl Default for MixConfig {
    fn default() -> Self {
        Self {
            known: Vec::new(),
            learn: true,
            coverage: 0.95,
            half_life: 100_000.0,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            policy: PolicyName::default(),
            ties: Ties::default(),
            seed: 0,
            weights: Weights::default(),
            mix: MixConfig::default(),
            cached_shapes: 512,
        }
    }
}

impl PolicyName {
    pub const ALL: &'static [Self] = &[
        Self::Fragmentation,
        Self::Fgd,
        Self::Binpack,
        Self::Spread,
        Self::Random,
    ];

    /// It compares what a node is worth before and after, and needs tables of the workload.
    pub(crate) const fn is_gradient(self) -> bool {
        matches!(self, Self::Fragmentation | Self::Fgd)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fragmentation => "fragmentation",
            Self::Fgd => "fgd",
            Self::Binpack => "binpack",
            Self::Spread => "spread",
            Self::Random => "random",
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for PolicyName {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| ParsePolicyError(text.chars().take(80).collect()))
    }
}

impl ParsePolicyError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        "UnknownPolicy"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_what_they_write_and_refuse_the_rest() {
        for policy in PolicyName::ALL {
            assert_eq!(policy.to_string().parse::<PolicyName>().as_ref(), Ok(policy));
        }
        let error = "Binpack".parse::<PolicyName>().unwrap_err();
        assert!(error.to_string().contains("use fragmentation, fgd"), "{error}");
    }
}
