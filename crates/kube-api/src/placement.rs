//! The annotation `gpu.berth.dev/placement`: what was decided for a pod, on the pod. Written when the pod is bound, and read
//! back by whoever must know which devices it has.

use berth_placement::{Grant, GrantSize, MemoryBytes, MilliGpu, ParseIdError, Plan, Room};
use serde::{Deserialize, Serialize};

/// As JSON, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Placement {
    pub node: String,
    pub devices: Vec<PlacedDevice>,
    /// By which nodes were ranked.
    pub policy: String,
    /// A UUID: the same in the daemon's book, in logs and in spans.
    pub decision: String,
    /// The node's daemon granted it; else it rests on labels and on the pods that are bound.
    pub verified: bool,
}

/// One device's part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PlacedDevice {
    pub uuid: String,
    /// Thousandths of the GPU: 1000 is all of it.
    pub milli: u32,
    pub memory_bytes: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mig_uuid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mig_profile: String,
}

impl PlacedDevice {
    pub fn of(grant: &Grant) -> Self {
        let uuid = grant.device.to_string();
        match &grant.size {
            GrantSize::Whole => Self {
                uuid,
                milli: MilliGpu::WHOLE.get(),
                ..Self::default()
            },
            GrantSize::Share(room) => Self {
                uuid,
                milli: room.milli.get(),
                memory_bytes: room.memory.get(),
                ..Self::default()
            },
            GrantSize::Mig { instance, profile } => Self {
                uuid,
                mig_uuid: instance.to_string(),
                mig_profile: profile.to_string(),
                ..Self::default()
            },
        }
    }

    fn grant(&self) -> Result<Grant, ParseIdError> {
        let size = if !self.mig_uuid.is_empty() {
            GrantSize::Mig {
                instance: self.mig_uuid.parse()?,
                profile: self.mig_profile.parse()?,
            }
        } else if self.milli >= MilliGpu::WHOLE.get() {
            GrantSize::Whole
        } else {
            GrantSize::Share(Room {
                milli: MilliGpu::new(self.milli),
                memory: MemoryBytes::new(self.memory_bytes),
            })
        };
        Ok(Grant {
            device: self.uuid.parse()?,
            size,
        })
    }
}

impl Placement {
    /// The text of the annotation.
    pub fn to_annotation(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// `None` where the text is none of ours.
    pub fn from_annotation(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The devices, as placement reckons with them; `None` where one cannot be understood.
    pub fn plan(&self) -> Option<Plan> {
        let grants = self.devices.iter().map(PlacedDevice::grant).collect::<Result<_, _>>();
        Some(Plan { grants: grants.ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_read_back_as_it_was_written() {
        let grants = vec![
            Grant {
                device: "GPU-1".parse().unwrap(),
                size: GrantSize::Whole,
            },
            Grant {
                device: "GPU-2".parse().unwrap(),
                size: GrantSize::Share(Room {
                    milli: MilliGpu::new(250),
                    memory: MemoryBytes::from_gib(20),
                }),
            },
            Grant {
                device: "GPU-3".parse().unwrap(),
                size: GrantSize::Mig {
                    instance: "MIG-1".parse().unwrap(),
                    profile: "1g.10gb".parse().unwrap(),
                },
            },
        ];
        let placement = Placement {
            node: "a".to_owned(),
            devices: grants.iter().map(PlacedDevice::of).collect(),
            policy: "fragmentation".to_owned(),
            decision: "d".to_owned(),
            verified: true,
        };
        let text = placement.to_annotation();
        assert!(
            text.contains(r#"{"memoryBytes":0,"milli":1000,"uuid":"GPU-1"}"#),
            "{text}"
        );
        let back = Placement::from_annotation(&text).unwrap();
        assert_eq!(back, placement);
        assert_eq!(back.plan(), Some(Plan { grants }));
    }

    #[test]
    fn what_is_none_of_ours_is_not_taken_for_it() {
        assert_eq!(Placement::from_annotation("node-1"), None);
        let odd = Placement::from_annotation(r#"{"devices":[{"uuid":""}]}"#).unwrap();
        assert_eq!(odd.plan(), None);
    }
}
