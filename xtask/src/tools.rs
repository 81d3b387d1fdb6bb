//! Real programs that tests and rigs start, built from the package registries into the git-ignored cache.
//!
//! Versions and checksums are pinned in `xtask/tools/MODULE/go.mod` and `go.sum`; a cache entry is named after its pins, so
//! a second run builds nothing and another version never meets an old binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{process::Stopwatch, workspace};

/// One program: its tools module, its name, its Go package.
type Tool = (&'static str, &'static str, &'static str);

const GRPCURL: Tool = ("grpcurl", "grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl");

/// What a rig is made of.
const RIG: &[Tool] = &[
    ("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    ("kubernetes", "kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kubernetes",
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    ("kubernetes", "kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kubernetes", "kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    ("helm", "helm", "helm.sh/helm/v3/cmd/helm"),
    ("nats", "nats-server", "github.com/nats-io/nats-server/v2"),
    GRPCURL,
];

/// The real grpcurl.
pub(crate) fn grpcurl() -> anyhow::Result<PathBuf> {
    build(GRPCURL, "")
}

/// One folder with every program of a rig.
pub(crate) fn rig() -> anyhow::Result<PathBuf> {
    let mut built = Vec::new();
    for (at, tool) in RIG.iter().enumerate() {
        built.push((tool.1, build(*tool, &format!("[{}/{}] ", at + 1, RIG.len()))?));
    }
    // Links with the plain names, in a folder that is named after all pins together.
    let names: Vec<_> = built.iter().map(|(_, path)| path.display().to_string()).collect();
    let folder = cache().join(format!("rig-{:016x}", fingerprint(names.join("\n").as_bytes())));
    fs::create_dir_all(&folder)?;
    for (name, path) in built {
        let link = folder.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == path) {
            continue;
        }
        let _none_before = fs::remove_file(&link);
        std::os::unix::fs::symlink(&path, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(folder)
}

fn cache() -> PathBuf {
    workspace::cache().join("tools")
}

fn build((module, name, package): Tool, progress: &str) -> anyhow::Result<PathBuf> {
    let folder = workspace::root().join("xtask/tools").join(module);
    let pins = fs::read(folder.join("go.sum")).with_context(|| format!("no pins for {module}"))?;
    let binary = cache().join(format!("{name}-{:016x}", fingerprint(&pins)));
    if binary.exists() {
        return Ok(binary);
    }
    go_is_there()?;
    eprintln!("{progress}building {name} (once) …");
    let watch = Stopwatch::start();
    fs::create_dir_all(cache())?;
    // Built beside its place and moved there: an interrupted build leaves no half binary.
    let unfinished = binary.with_extension("unfinished");
    let mut command = Command::new("go");
    command
        .current_dir(&folder)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly -trimpath");
    command
        .args(["build", "-ldflags", &link_flags(&folder, module)?, "-o"])
        .arg(&unfinished)
        .arg(package);
    workspace::check(&mut command).with_context(|| {
        format!(
            "cannot build {name}; if it is for want of space, {} holds what can be deleted",
            cache().display()
        )
    })?;
    fs::rename(&unfinished, &binary)?;
    eprintln!("{progress}{name} built in {:.0} s", watch.elapsed().as_secs_f64());
    Ok(binary)
}

/// Kubernetes reports the version that its linker was told.
fn link_flags(folder: &Path, module: &str) -> anyhow::Result<String> {
    if module != "kubernetes" {
        return Ok("-s -w".to_owned());
    }
    let manifest = fs::read_to_string(folder.join("go.mod"))?;
    let version = manifest
        .lines()
        .find_map(|line| {
            line.trim()
                .trim_start_matches("require ")
                .strip_prefix("k8s.io/kubernetes v")
        })
        .and_then(|rest| rest.split_whitespace().next())
        .context("go.mod does not pin k8s.io/kubernetes")?;
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let at = "k8s.io/component-base/version";
    Ok(format!(
        "-s -w -X {at}.gitVersion=v{version} -X {at}.gitMajor={major} -X {at}.gitMinor={minor}"
    ))
}

fn go_is_there() -> anyhow::Result<()> {
    let found = Command::new("go")
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        bail!("`go` is not on the PATH: the real parts are built with Go 1.25 or newer (https://go.dev/dl)");
    }
    Ok(())
}

/// FNV-1a: names a cache entry after its pins.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
