//! Faults of calls, as opposed to faults of GPUs: slow, failing and hanging functions.

use serde::{Deserialize, Serialize};

use super::ReturnCode;

/// Something that goes wrong with a function, for all GPUs or for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// NVML's function name, such as `nvmlDeviceGetMemoryInfo_v2`; `*` is every function.
    pub function: String,
    /// UUID of the only GPU concerned. Without it, calls that take no device are concerned too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    pub effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The call takes this many milliseconds longer.
    SlowMs(u64),
    /// The call does nothing and returns this.
    Fail(ReturnCode),
    /// The call blocks until the fault is cleared, or gives up with `TIMEOUT` after [`Effect::HANG_LIMIT_S`] seconds.
    Hang,
}

impl Effect {
    /// Longer than any test waits, short enough that no process stays for ever.
    pub const HANG_LIMIT_S: u64 = 600;
}

impl Fault {
    /// Whether this fault is about `function` and exactly this GPU (or exactly no GPU).
    pub fn concerns(&self, function: &str, gpu: Option<&str>) -> bool {
        (self.function == "*" || self.function == function) && self.gpu.as_deref() == gpu
    }
}
