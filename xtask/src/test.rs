//! `cargo xtask test`: every check, each a named step, all of them run even when one fails.

use anyhow::bail;

use crate::{codegen, demo, grpcurl, process::Stopwatch, tidy, tools, workspace};

type Step = (&'static str, &'static str, fn() -> anyhow::Result<()>);

const STEPS: &[Step] = &[
    ("fmt", "code is formatted", || {
        workspace::check(&mut workspace::cargo(&["fmt", "--all", "--check"]))
    }),
    ("tidy", "house rules that the compiler does not know", tidy::run),
    ("clippy", "lints, warnings are errors", || {
        let args = [
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        workspace::check(&mut workspace::cargo(&args))
    }),
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

fn unit() -> anyhow::Result<()> {
    // Whole-process tests start programs of other packages.
    workspace::build_programs()?;
    let mut tests = workspace::cargo(&["test", "--quiet", "--workspace", "--no-fail-fast"]);
    let traces = workspace::root().join("../shared/data/openb");
    if traces.is_dir() {
        tests.env("BERTH_OPENB", traces);
    }
    workspace::check(&mut tests)
}

fn rig() -> anyhow::Result<()> {
    let args = [
        "test",
        "--quiet",
        "-p",
        "berth-testkit",
        "--features",
        "rig",
        "--test",
        "rig",
        "--",
        "--test-threads=2",
    ];
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
