//! Which build this is: for the start line, `--version`, the `build_info` metric and traces.

use serde::Serialize;

/// Name and version of the running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// The binary's name, e.g. `berthd`.
    pub name: &'static str,
    /// The workspace's version.
    pub version: &'static str,
    /// `git describe` of a release build that was made inside a checkout, else "unknown".
    pub git: &'static str,
}

impl BuildInfo {
    /// The build that `name` belongs to. All crates of the workspace share one version.
    pub const fn of(name: &'static str) -> Self {
        let git = match option_env!("BERTH_GIT_DESCRIBE") {
            Some(describe) => describe,
            None => "unknown",
        };
        Self {
            name,
            version: env!("CARGO_PKG_VERSION"),
            git,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_info_names_the_binary_and_a_version() {
        let build = BuildInfo::of("berthd");
        assert_eq!(build.name, "berthd");
        assert_eq!(build.version.split('.').count(), 3);
        assert!(!build.git.is_empty());
    }
}
