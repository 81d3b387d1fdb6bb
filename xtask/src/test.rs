//! `cargo xtask test`: every check, each a named step, all of them run even when one fails.

use anyhow::bail;

use crate::{codegen, demo, grpcurl, process::Stopwatch, tidy, tools, workspace};

type Step = (&'static str, &'static str, fn() -> anyhow::Result<()>);

const STEPS: &[Step] = &[
    ("fmt", "code is formatted", || {
        workspace::check(&mut workspace::cargo(&["fmt", "--all", "--check"]))
    }),
    ("tidy", "house rules that the compiler does not know", tidy::run),
    ("clippy", "lints, warnings are errors", clippy),
    ("unit", "all tests of all crates", unit),
    (
        "ledger",
        "a million random events on the ledger, in release mode",
        ledger,
    ),
    ("rig", "a real control plane: up, at work, in trouble, gone", rig),
    ("codegen", "generated pages are what the code says", || {
        codegen::run(true)
    }),
    ("grpcurl", "the real grpcurl, without a .proto file", grpcurl::run),
    ("demo", "the main job end to end", || demo::run(false)),
];

/// Runs the steps; fails if any failed, after having run them all.
pub(crate) fn run(only: &[String], list: bool) -> anyhow::Result<()> {
    if list {
        for (name, about, _) in STEPS {
            println!("{name:<8} {about}");
        }
        return Ok(());
    }
    if let Some(unknown) = only.iter().find(|name| !STEPS.iter().any(|(step, ..)| step == name)) {
        bail!("no step is called {unknown}; `cargo xtask test --list` names them");
    }
    let mut report = Vec::new();
    for (name, about, step) in STEPS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        println!("\n=== {name}: {about}");
        let watch = Stopwatch::start();
        let outcome = step();
        if let Err(error) = &outcome {
            println!("{error:#}");
        }
        report.push((name, watch.elapsed(), outcome.is_ok()));
    }
    println!();
    for (name, took, passed) in &report {
        println!(
            "{:<8} {:>6.1} s  {}",
            name,
            took.as_secs_f64(),
            if *passed { "passed" } else { "FAILED" }
        );
    }
    let failed = report.iter().filter(|(.., passed)| !passed).count();
    println!("steps: {} passed, {failed} failed", report.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} steps failed", report.len());
    }
    Ok(())
}

/// One selection of packages and features for every step, so that cargo builds things once.
const EVERYTHING: &[&str] = &["--workspace", "--features", "berth-testkit/rig"];

fn clippy() -> anyhow::Result<()> {
    let args = [
        &["clippy", "--quiet", "--all-targets"],
        EVERYTHING,
        &["--", "-D", "warnings"],
    ]
    .concat();
    workspace::check(&mut workspace::cargo(&args))
}

/// Whole-process tests start programs of other packages: a build of everything comes first.
fn build() -> anyhow::Result<()> {
    workspace::check(&mut workspace::cargo(&[&["build", "--quiet"], EVERYTHING].concat()))
}

fn unit() -> anyhow::Result<()> {
    build()?;
    let args = [
        &["test", "--quiet", "--no-fail-fast"],
        EVERYTHING,
        &["--", "--skip", "rig_"],
    ]
    .concat();
    let mut tests = workspace::cargo(&args);
    let traces = workspace::root().join("../shared/data/openb");
    if traces.is_dir() {
        tests.env("BERTH_OPENB", traces);
    }
    workspace::check(&mut tests)
}

/// What needs a real control plane has `rig_` in its name.
fn rig() -> anyhow::Result<()> {
    build()?;
    let tests = ["--test", "rig*", "--", "--test-threads=2", "rig_"];
    let args = [&["test", "--quiet", "--no-fail-fast"], EVERYTHING, &tests].concat();
    workspace::check(workspace::cargo(&args).env("BERTH_TOOLS", tools::rig()?))
}

fn ledger() -> anyhow::Result<()> {
    let args = [
        "test",
        "--quiet",
        "--release",
        "-p",
        "berth-ledger",
        "--test",
        "property",
        "--",
        "--nocapture",
    ];
    workspace::check(workspace::cargo(&args).env("BERTH_LEDGER_EVENTS", "1000000"))
}
