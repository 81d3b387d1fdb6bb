//! What a developer sees when a tool is missing.

use std::process::Command;

#[test]
fn a_missing_go_toolchain_is_told_with_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["rig", "tools"])
        .env("BERTH_CACHE", cache.path())
        .env("PATH", cache.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        told.contains("`go` is not on the PATH") && told.contains("Go 1.25"),
        "{told}"
    );
}

#[test]
fn an_unknown_step_is_told_with_where_to_look() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["test", "--only", "nonsense"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && told.contains("cargo xtask test --list"),
        "{told}"
    );
}
