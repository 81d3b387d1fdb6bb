//! What can be wrong with a device: how bad each is, what ends it, how it is told.

use std::time::Duration;

use berth_placement::Health;
use serde::{Deserialize, Serialize};

use super::xid::{self, XidClass};
use crate::inventory::{HealthReason, RecoveryAction};

/// A kind of fault. The names are stored on disk: never rename one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum FaultKind {
    Xid(u32),
    /// The count of uncorrectable memory errors grew on a GPU that can replace rows by itself.
    EccUncorrected,
    /// The same on a GPU that cannot.
    EccUncorrectedUnmapped,
    RowRemapPending,
    RowRemapFailed,
    PageRetirementPending,
    RecoveryActionReset,
    RecoveryActionReboot,
    RecoveryActionDrain,
    RecoveryActionOther,
    Lost,
    ResetRequired,
    NotAnswering,
    /// Has not answered for long.
    Unresponsive,
    HwThermalSlowdown,
    HwPowerBrake,
}

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// It is there as long as the sweep sees it.
    Level,
    /// As `Level`, and for a short while after: it comes and goes.
    Lingering,
    /// A quiet time after its last sign.
    Quiet,
    /// The driver asks for no recovery action; or a reset.
    DriverSays,
    /// A reset.
    Reset,
}

/// One fault of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) since_unix_ms: u64,
    /// Monotonic.
    pub(crate) last_seen: Duration,
}

impl FaultKind {
    /// `None` where the code says nothing about the device.
    pub(crate) fn of_xid(code: u32) -> Option<Self> {
        match xid::class(code) {
            XidClass::Application | XidClass::Notice => None,
            XidClass::Suspect | XidClass::Reset | XidClass::Reboot => Some(Self::Xid(code)),
        }
    }

    pub(crate) const fn of_recovery_action(action: RecoveryAction) -> Option<Self> {
        match action {
            RecoveryAction::None => None,
            RecoveryAction::GpuReset | RecoveryAction::BusReset => Some(Self::RecoveryActionReset),
            RecoveryAction::NodeReboot | RecoveryAction::SystemReboot => Some(Self::RecoveryActionReboot),
            RecoveryAction::DrainP2P | RecoveryAction::DrainAndReset => Some(Self::RecoveryActionDrain),
            RecoveryAction::RecoverImexDomain | RecoveryAction::Other(_) => Some(Self::RecoveryActionOther),
        }
    }

    /// Suspect or Unhealthy.
    pub(crate) fn severity(self) -> Health {
        match self {
            Self::Xid(code) => match xid::class(code) {
                XidClass::Reset | XidClass::Reboot => Health::Unhealthy,
                XidClass::Application | XidClass::Notice | XidClass::Suspect => Health::Suspect,
            },
            Self::EccUncorrected
            | Self::RowRemapPending
            | Self::PageRetirementPending
            | Self::RecoveryActionOther
            | Self::NotAnswering
            | Self::HwThermalSlowdown
            | Self::HwPowerBrake => Health::Suspect,
            Self::EccUncorrectedUnmapped
            | Self::RowRemapFailed
            | Self::RecoveryActionReset
            | Self::RecoveryActionReboot
            | Self::RecoveryActionDrain
            | Self::Lost
            | Self::ResetRequired
            | Self::Unresponsive => Health::Unhealthy,
        }
    }

    pub(crate) fn cure(self) -> Cure {
        match self {
            Self::Xid(code) => match xid::class(code) {
                XidClass::Reboot => Cure::Reset,
                XidClass::Reset => Cure::DriverSays,
                XidClass::Application | XidClass::Notice | XidClass::Suspect => Cure::Quiet,
            },
            Self::EccUncorrected => Cure::Quiet,
            Self::EccUncorrectedUnmapped => Cure::DriverSays,
            Self::HwThermalSlowdown | Self::HwPowerBrake => Cure::Lingering,
            Self::RowRemapPending
            | Self::RowRemapFailed
            | Self::PageRetirementPending
            | Self::RecoveryActionReset
            | Self::RecoveryActionReboot
            | Self::RecoveryActionDrain
            | Self::RecoveryActionOther
            | Self::Lost
            | Self::ResetRequired
            | Self::NotAnswering
            | Self::Unresponsive => Cure::Level,
        }
    }

    /// An event: it does not show in later readings.
    pub(crate) fn is_event(self) -> bool {
        matches!(self.cure(), Cure::Quiet | Cure::DriverSays | Cure::Reset)
    }

    /// About whether the device answers at all, not about what it answers.
    pub(crate) const fn is_silence(self) -> bool {
        matches!(
            self,
            Self::Lost | Self::ResetRequired | Self::NotAnswering | Self::Unresponsive
        )
    }

    pub(crate) const fn is_recovery_action(self) -> bool {
        matches!(
            self,
            Self::RecoveryActionReset
                | Self::RecoveryActionReboot
                | Self::RecoveryActionDrain
                | Self::RecoveryActionOther
        )
    }

    /// Stable CamelCase name.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Xid(_) => "Xid",
            Self::EccUncorrected | Self::EccUncorrectedUnmapped => "EccUncorrected",
            Self::RowRemapPending => "RowRemapPending",
            Self::RowRemapFailed => "RowRemapFailed",
            Self::PageRetirementPending => "PageRetirementPending",
            Self::RecoveryActionReset => "RecoveryActionReset",
            Self::RecoveryActionReboot => "RecoveryActionReboot",
            Self::RecoveryActionDrain => "RecoveryActionDrain",
            Self::RecoveryActionOther => "RecoveryActionOther",
            Self::Lost => "Lost",
            Self::ResetRequired => "ResetRequired",
            Self::NotAnswering => "NotAnswering",
            Self::Unresponsive => "Unresponsive",
            Self::HwThermalSlowdown => "HwThermalSlowdown",
            Self::HwPowerBrake => "HwPowerBrake",
        }
    }

    fn message(self) -> String {
        let text = match self {
            Self::Xid(code) => return xid::describe(code),
            Self::EccUncorrected | Self::EccUncorrectedUnmapped => "uncorrectable memory errors were counted",
            Self::RowRemapPending => "a memory row is replaced with the next reset of the GPU",
            Self::RowRemapFailed => "a memory row could not be replaced: have the GPU exchanged",
            Self::PageRetirementPending => "a memory page is retired with the next reset of the GPU",
            Self::RecoveryActionReset => "the driver asks for a reset of the GPU",
            Self::RecoveryActionReboot => "the driver asks for a reboot of the machine",
            Self::RecoveryActionDrain => "the driver asks to drain the GPU, then to reset it",
            Self::RecoveryActionOther => "the driver asks for a recovery action that concerns more than this GPU",
            Self::Lost => "the GPU has fallen off the bus",
            Self::ResetRequired => "the GPU answers nothing until it is reset",
            Self::NotAnswering => "the driver does not answer for this GPU",
            Self::Unresponsive => "the driver has not answered for this GPU for long",
            Self::HwThermalSlowdown => "clocks are held back because it is too hot",
            Self::HwPowerBrake => "clocks are held back by the power supply",
        };
        text.to_owned()
    }
}

impl Fault {
    pub(crate) fn tell(&self) -> HealthReason {
        HealthReason {
            reason: self.kind.reason(),
            message: self.kind.message(),
            since_unix_ms: self.since_unix_ms,
            xid: if let FaultKind::Xid(code) = self.kind {
                Some(code)
            } else {
                None
            },
        }
    }
}
