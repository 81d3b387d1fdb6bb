//! NVML's return codes: number, name, and the text of `nvmlErrorString`.

use std::{ffi::CStr, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What an NVML call returns (`nvmlReturn_t`). Written by name, `GPU_IS_LOST`; a number or NVML's full constant is read too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReturnCode(u32);

macro_rules! codes {
    ($($value:literal $name:ident $text:literal)*) => {
        impl ReturnCode {
            $(pub const $name: Self = Self($value);)*
        }
        const TABLE: &[(u32, &str, &CStr)] = &[$(($value, stringify!($name), $text)),*];
    };
}

codes! {
    0 SUCCESS c"Success"
    1 UNINITIALIZED c"Uninitialized"
    2 INVALID_ARGUMENT c"Invalid Argument"
    3 NOT_SUPPORTED c"Not Supported"
    4 NO_PERMISSION c"Insufficient Permissions"
    5 ALREADY_INITIALIZED c"Already Initialized"
    6 NOT_FOUND c"Not Found"
    7 INSUFFICIENT_SIZE c"Insufficient Size"
    8 INSUFFICIENT_POWER c"Insufficient External Power"
    9 DRIVER_NOT_LOADED c"Driver Not Loaded"
    10 TIMEOUT c"Timeout"
    11 IRQ_ISSUE c"Interrupt Request Issue"
    12 LIBRARY_NOT_FOUND c"NVML Shared Library Not Found"
    13 FUNCTION_NOT_FOUND c"Function Not Found"
    14 CORRUPTED_INFOROM c"Corrupted infoROM"
    15 GPU_IS_LOST c"GPU is lost"
    16 RESET_REQUIRED c"GPU requires restart"
    17 OPERATING_SYSTEM c"The operating system has blocked the request."
    18 LIB_RM_VERSION_MISMATCH c"RM has detected an NVML/RM version mismatch."
    19 IN_USE c"In use by another client"
    20 MEMORY c"Insufficient Memory"
    21 NO_DATA c"No data"
    22 VGPU_ECC_NOT_SUPPORTED c"The requested vgpu operation is not available on target device, because ECC is enabled"
    23 INSUFFICIENT_RESOURCES c"Insufficient resources"
    24 FREQ_NOT_SUPPORTED c"Frequency not supported"
    25 ARGUMENT_VERSION_MISMATCH c"The provided version is invalid/unsupported"
    26 DEPRECATED c"The requested functionality has been deprecated"
    27 NOT_READY c"The system is not ready for the request"
    28 GPU_NOT_FOUND c"No GPUs were found"
    29 INVALID_STATE c"Resource not in correct state to perform requested operation"
    30 RESET_TYPE_NOT_SUPPORTED c"Reset not supported for given device/parameters"
    999 UNKNOWN c"Unknown Error"
}

impl ReturnCode {
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The text of `nvmlErrorString`; a code that NVML does not have reads as an unknown error.
    pub(crate) fn message(raw: u32) -> &'static CStr {
        TABLE
            .iter()
            .find(|(value, ..)| *value == raw)
            .map_or(c"Unknown Error", |(.., text)| text)
    }
}

impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TABLE.iter().find(|(value, ..)| *value == self.0) {
            Some((_, name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReturnCode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_uppercase();
        let name = upper.trim_start_matches("NVML_").trim_start_matches("ERROR_");
        TABLE
            .iter()
            .find(|(value, known, _)| *known == name || value.to_string() == name)
            .map(|(value, ..)| Self(*value))
            .ok_or_else(|| {
                let known: Vec<_> = TABLE.iter().map(|(_, name, _)| *name).collect();
                format!("{text:?} is no NVML return code; known are {}", known.join(", "))
            })
    }
}

impl TryFrom<String> for ReturnCode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ReturnCode> for String {
    fn from(code: ReturnCode) -> Self {
        code.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_by_name_constant_or_number() {
        for text in ["GPU_IS_LOST", "gpu_is_lost", "NVML_ERROR_GPU_IS_LOST", "15"] {
            assert_eq!(text.parse(), Ok(ReturnCode::GPU_IS_LOST));
        }
        assert!("GPU_LOST".parse::<ReturnCode>().unwrap_err().contains("GPU_IS_LOST"));
    }
}
