//! How people name a GPU: by its index now, by its UUID, or by the start of it.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::view::Device;

/// A GPU as it was named on the command line. Only [`DeviceSelector::find`] knows which one that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeviceSelector {
    /// The driver's index at this moment.
    Index(u32),
    /// The start of a UUID, without `GPU-`, in lower case.
    UuidPrefix(String),
}

/// The text names no GPU, or not exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SelectorError {
    #[error("write the index of a GPU (3), its UUID, or the start of its UUID (GPU-4c1f)")]
    Syntax,
    #[error("a MIG instance cannot be named here: name its GPU")]
    Mig,
    #[error("no GPU of this node is {selector}; it has {known}")]
    NotFound { selector: DeviceSelector, known: String },
    #[error("{selector} could be {candidates}: write more of the UUID")]
    Ambiguous {
        selector: DeviceSelector,
        candidates: String,
    },
}

impl DeviceSelector {
    /// The one device that is meant.
    ///
    /// # Errors
    /// None is, or several are.
    pub(crate) fn find<'a>(&self, devices: &'a [Device]) -> Result<&'a Device, SelectorError> {
        let candidates: Vec<_> = devices.iter().filter(|device| self.names(device)).collect();
        match *candidates {
            [device] => Ok(device),
            [] => Err(SelectorError::NotFound {
                selector: self.clone(),
                known: list(devices.iter()),
            }),
            _ => Err(SelectorError::Ambiguous {
                selector: self.clone(),
                candidates: list(candidates.into_iter()),
            }),
        }
    }

    fn names(&self, device: &Device) -> bool {
        match self {
            // A device that is gone keeps its last index in the book, which may be another's by now.
            Self::Index(index) => device.index == *index && !device.missing,
            Self::UuidPrefix(prefix) => bare(&device.uuid).starts_with(prefix),
        }
    }
}

impl SelectorError {
    /// Stable CamelCase name.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Syntax => "InvalidDevice",
            Self::Mig => "MigInstanceNamed",
            Self::NotFound { .. } => "UnknownDevice",
            Self::Ambiguous { .. } => "AmbiguousDevice",
        }
    }
}

/// Without `GPU-`, in lower case.
fn bare(uuid: &str) -> String {
    let uuid = uuid.to_ascii_lowercase();
    uuid.strip_prefix("gpu-").unwrap_or(&uuid).to_owned()
}

fn list<'a>(devices: impl Iterator<Item = &'a Device>) -> String {
    let names: Vec<_> = devices
        .map(|device| format!("{} ({})", device.index, device.uuid))
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

impl FromStr for DeviceSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.to_ascii_lowercase().starts_with("mig-") {
            return Err(SelectorError::Mig);
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() < 8 {
            return text.parse().map(Self::Index).map_err(|_| SelectorError::Syntax);
        }
        let prefix = bare(text);
        let is_start = prefix.starts_with(|c: char| c.is_ascii_alphanumeric())
            && prefix.len() <= 96
            && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_start {
            Ok(Self::UuidPrefix(prefix))
        } else {
            Err(SelectorError::Syntax)
        }
    }
}

impl fmt::Display for DeviceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "number {index}"),
            Self::UuidPrefix(prefix) => write!(f, "GPU-{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<Device> {
        let device = |index, uuid: &str| Device {
            index,
            uuid: uuid.to_owned(),
            ..Device::default()
        };
        vec![
            device(0, "GPU-4c1f0f5e-aa"),
            device(1, "GPU-4c1fffff-bb"),
            device(3, "GPU-12345678-cc"),
        ]
    }

    fn find(text: &str) -> Result<u32, String> {
        let selector: DeviceSelector = text.parse().map_err(|error: SelectorError| error.to_string())?;
        let devices = devices();
        selector
            .find(&devices)
            .map(|device| device.index)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_gpu_is_named_by_index_by_uuid_or_by_a_unique_start_of_it() {
        for (text, index) in [
            ("0", 0),
            ("3", 3),
            ("GPU-4c1f0f5e-aa", 0),
            ("GPU-4c1f0", 0),
            ("4C1FF", 1),
            ("12345678", 3),
        ] {
            assert_eq!(find(text), Ok(index), "{text}");
        }
    }

    #[test]
    fn an_ambiguous_start_lists_who_could_be_meant() {
        let error = find("GPU-4c1f").unwrap_err();
        assert_eq!(
            error,
            "GPU-4c1f could be 0 (GPU-4c1f0f5e-aa), 1 (GPU-4c1fffff-bb): write more of the UUID"
        );
    }

    #[test]
    fn an_unknown_gpu_is_answered_with_those_that_there_are() {
        assert!(
            find("2")
                .unwrap_err()
                .starts_with("no GPU of this node is number 2; it has 0 (GPU-4c1f0f5e-aa), 1")
        );
        let none = "GPU-1".parse::<DeviceSelector>().unwrap().find(&[]).unwrap_err();
        assert_eq!(none.to_string(), "no GPU of this node is GPU-1; it has none");
    }

    #[test]
    fn the_index_of_a_missing_device_names_nobody() {
        let mut devices = devices();
        devices[0].missing = true;
        assert!("0".parse::<DeviceSelector>().unwrap().find(&devices).is_err());
        assert!("GPU-4c1f0".parse::<DeviceSelector>().unwrap().find(&devices).is_ok());
    }

    #[test]
    fn what_cannot_name_a_gpu_is_a_mistake_on_the_command_line() {
        for text in ["", "GPU-", "-1", "a b", "gpu_1", "é"] {
            assert_eq!(text.parse::<DeviceSelector>(), Err(SelectorError::Syntax), "{text:?}");
        }
        assert_eq!("MIG-1".parse::<DeviceSelector>(), Err(SelectorError::Mig));
    }
}
