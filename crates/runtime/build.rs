//! Puts `git describe` into release builds. A build outside a checkout, or without git, works and says "unknown".

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=BERTH_GIT_DESCRIBE");
    // An image recipe builds without .git and passes the value in. A debug build does without: it would be rebuilt
    // after every commit.
    if env::var_os("BERTH_GIT_DESCRIBE").is_some() || env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let moves_with_every_commit = Path::new("../../.git/logs/HEAD");
    if !moves_with_every_commit.exists() {
        return;
    }
    println!("cargo:rerun-if-changed={}", moves_with_every_commit.display());
    let Ok(output) = Command::new("git")
        .args(["describe", "--always", "--tags", "--dirty"])
        .output()
    else {
        return;
    };
    if let (true, Ok(describe)) = (output.status.success(), String::from_utf8(output.stdout)) {
        println!("cargo:rustc-env=BERTH_GIT_DESCRIBE={}", describe.trim());
    }
}
