//! Tools that are built from the package registries, pinned with their checksums in `tools/*/go.mod` and `go.sum`.

use std::{path::PathBuf, process::Command};

use anyhow::Context as _;

use crate::workspace;

/// The real grpcurl, built once into the cache.
pub(crate) fn grpcurl() -> anyhow::Result<PathBuf> {
    go_tool("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl")
}

fn go_tool(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let module = workspace::root().join("xtask/tools").join(name);
    let pins = std::fs::read(module.join("go.sum")).with_context(|| format!("no pins for {name}"))?;
    let binary = workspace::cache().join("tools").join(format!("{name}-{:016x}", fingerprint(&pins)));
    if !binary.exists() {
        eprintln!("building {name} (once, about a minute) …");
        let mut build = Command::new("go");
        build.current_dir(&module).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly -trimpath");
        build.args(["build", "-ldflags", "-s -w", "-o"]).arg(&binary).arg(package);
        workspace::check(&mut build)
            .with_context(|| format!("{name} is built with Go: install Go 1.25 or newer, see README.md"))?;
    }
    Ok(binary)
}

/// FNV-1a: names a cache entry after its pins.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
