//! Rules that the compiler does not know: file headers and sizes, who may depend on whom, what no file may say.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::workspace;

const MOST_LINES: usize = 800;

/// What each package may build on, of ours. The direction of the arrows is the architecture.
const MAY_USE: &[(&str, &[&str])] = &[
    ("berth-placement", &[]),
    ("berth-proto", &[]),
    ("berth-fake-nvml", &[]),
    ("berth-runtime", &[]),
    ("berth-ledger", &["berth-placement"]),
    ("berth-gpu", &["berth-placement"]),
    ("berth-kube-api", &["berth-placement"]),
    ("berth-sis", &["berth-runtime"]),
    ("berth-testkit", &["berth-proto", "berth-runtime"]),
    (
        "berth-daemon",
        &[
            "berth-gpu",
            "berth-ledger",
            "berth-kube-api",
            "berth-placement",
            "berth-proto",
            "berth-runtime",
        ],
    ),
    (
        "berth-scheduler",
        &["berth-kube-api", "berth-placement", "berth-proto", "berth-runtime"],
    ),
    (
        "berth-operator",
        &["berth-kube-api", "berth-placement", "berth-runtime", "berth-sis"],
    ),
    ("berth-cli", &["berth-placement", "berth-proto", "berth-runtime"]),
    ("berth-benches", &["berth-ledger", "berth-placement", "berth-proto"]),
    ("xtask", &[]),
];

/// Packages that must know no I/O, no clock, no async.
const PURE: &[&str] = &["berth-placement", "berth-ledger"];
const PURE_MAY_USE: &[&str] = &["serde", "thiserror", "smallvec", "foldhash", "berth-placement"];

/// Where `unsafe` may be allowed.
const UNSAFE_IN: &[&str] = &["crates/gpu/src/nvml/raw.rs", "crates/fake-nvml/"];

/// Runs all rules and tells every breach.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = workspace::root();
    let mut breaches = Vec::new();
    for file in files(&root)? {
        let Ok(text) = fs::read_to_string(root.join(&file)) else {
            continue;
        };
        every_file(&file, &text, &mut breaches);
        if Path::new(&file).extension().is_some_and(|end| end == "rs") {
            rust_file(&file, &text, &mut breaches);
        }
    }
    packages(&mut breaches)?;
    if breaches.is_empty() {
        println!("tidy: all rules hold");
        return Ok(());
    }
    bail!("{} breaches:\n  {}", breaches.len(), breaches.join("\n  "))
}

fn files(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot start git")?;
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn every_file(file: &str, text: &str, breaches: &mut Vec<String>) {
    // Spelled in parts, so that this file does not say them.
    let machine = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("bash_", "jobs")];
    let hosts = [
        concat!("crates", ".io"),
        concat!("proxy.go", "lang"),
        concat!("pypi", ".org"),
        concat!("npmjs", "."),
    ];
    let ending = Path::new(file)
        .extension()
        .and_then(std::ffi::OsStr::to_str)
        .unwrap_or_default();
    if matches!(ending, "lock" | "sum") {
        return;
    }
    for word in machine.iter().chain(&hosts) {
        if text.contains(word) {
            breaches.push(format!(
                "{file}: names {word:?}, a place of one machine or a registry's host"
            ));
        }
    }
    if file != "LICENSE" && ending != "json" && !text.is_empty() && !text.ends_with('\n') {
        breaches.push(format!("{file}: does not end with a line end"));
    }
}

fn rust_file(file: &str, text: &str, breaches: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > MOST_LINES {
        breaches.push(format!("{file}: {lines} lines, at most {MOST_LINES}"));
    }
    if file.ends_with("/mod.rs") {
        breaches.push(format!("{file}: a module is foo.rs beside foo/, not mod.rs"));
    }
    // The tests of a module are said by the module.
    let tests_of_a_module = file.contains("/src/") && (file.ends_with("/tests.rs") || file.contains("/tests/"));
    if !text.starts_with("//!") && !tests_of_a_module {
        breaches.push(format!("{file}: the first line must say (//!) what the file owns"));
    }
    for word in [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
    ] {
        if text.contains(word) {
            breaches.push(format!("{file}: left open: {word}"));
        }
    }
    let allows_unsafe =
        text.contains(concat!("allow(unsafe", "_code")) || text.contains(concat!("expect(unsafe", "_code"));
    if allows_unsafe && !UNSAFE_IN.iter().any(|place| file.starts_with(place)) {
        breaches.push(format!("{file}: unsafe belongs to {UNSAFE_IN:?} only"));
    }
    for (at, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            breaches.push(format!("{file}:{}: white space at the end", at + 1));
        }
    }
}

fn packages(breaches: &mut Vec<String>) -> anyhow::Result<()> {
    let output = workspace::cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = fs::read_to_string(package["manifest_path"].as_str().unwrap_or_default())?;
        if !manifest.contains("[lints]\nworkspace = true") {
            breaches.push(format!("{name}: Cargo.toml lacks `[lints] workspace = true`"));
        }
        let Some(may_use) = allowed.get(name) else {
            breaches.push(format!("{name}: not in tidy's table of who may depend on whom"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            if !dependency["kind"].is_null() {
                continue;
            }
            if (used.starts_with("berth-") || used == "xtask") && !may_use.contains(&used) {
                breaches.push(format!("{name} must not depend on {used}"));
            }
            if PURE.contains(&name) && !PURE_MAY_USE.contains(&used) {
                breaches.push(format!("{name} is pure and must not depend on {used}"));
            }
        }
    }
    Ok(())
}
