//! What goes wrong between this process and the driver, in this crate's words.

use thiserror::Error;

/// A call into a backend failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GpuError {
    /// The driver's library is not on this machine, or is no such library.
    #[error("the NVIDIA driver library cannot be loaded: {detail}")]
    NoLibrary { detail: String },
    #[error("the NVIDIA kernel module is not loaded")]
    NoDriver,
    /// The kernel module was replaced under our feet: the library must be opened anew.
    #[error("the NVIDIA library and the kernel module have different versions")]
    VersionMismatch,
    /// The session with the driver is over, for a reason that the driver does not tell.
    #[error("the session with the driver has ended")]
    SessionLost,
    #[error("the GPU has fallen off the bus")]
    DeviceLost,
    #[error("the GPU answers nothing until it is reset")]
    ResetRequired,
    #[error("the driver does not offer this on this GPU")]
    Unsupported,
    #[error("this process may not ask the driver for this")]
    NoPermission,
    /// No such device, or none any more.
    #[error("the driver knows no such device")]
    NotFound,
    /// Anything else; it may work the next time.
    #[error("the driver failed: {detail}")]
    Transient { detail: String },
}

impl GpuError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoLibrary { .. } => "NoLibrary",
            Self::NoDriver => "NoDriver",
            Self::VersionMismatch => "VersionMismatch",
            Self::SessionLost => "SessionLost",
            Self::DeviceLost => "DeviceLost",
            Self::ResetRequired => "ResetRequired",
            Self::Unsupported => "Unsupported",
            Self::NoPermission => "NoPermission",
            Self::NotFound => "NotFound",
            Self::Transient { .. } => "DriverFailed",
        }
    }

    /// No call of this session can succeed any more: a new one is needed.
    pub const fn ends_session(&self) -> bool {
        matches!(
            self,
            Self::NoLibrary { .. } | Self::NoDriver | Self::VersionMismatch | Self::SessionLost
        )
    }
}
