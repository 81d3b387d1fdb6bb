//! Pages that are written by the programs themselves, so that they cannot drift: the command line, the metrics.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, bail, ensure};

use crate::{demo, process::Program, workspace};

/// Writes the pages, or with `check` compares them.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    workspace::build_programs()?;
    let mut stale = Vec::new();
    let mut pages = vec![
        ("docs/cli.md".to_owned(), command_lines()?),
        ("docs/metrics.md".to_owned(), metrics()?),
    ];
    pages.extend(custom_resources()?);
    for (page, text) in pages {
        let path = workspace::root().join(&page);
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            continue;
        }
        if check {
            stale.push(page);
        } else {
            fs::create_dir_all(path.parent().context("a page has a folder")?)?;
            fs::write(&path, text)?;
            println!("wrote {page}");
        }
    }
    if !stale.is_empty() {
        bail!(
            "not what the code says: {}; run `cargo xtask codegen`",
            stale.join(", ")
        );
    }
    Ok(())
}

/// The definitions of our custom resources.
fn custom_resources() -> anyhow::Result<Vec<(String, String)>> {
    let dir = tempfile::tempdir()?;
    let generate = ["run", "--quiet", "-p", "berth-kube-api", "--bin", "berth-crds", "--"];
    workspace::check(workspace::cargo(&generate).arg(dir.path()))?;
    let mut pages = Vec::new();
    for file in fs::read_dir(dir.path())? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        pages.push((format!("deploy/crds/{name}"), fs::read_to_string(file.path())?));
    }
    Ok(pages)
}

fn command_lines() -> anyhow::Result<String> {
    let mut page =
        String::from("# Command line\n\nWritten by `cargo xtask codegen` from the programs' own help; do not edit.\n");
    for (program, subcommands) in [
        ("berthd", &[][..]),
        ("berth-scheduler", &[]),
        (
            "berthctl",
            &[
                "node",
                "devices",
                "allocations",
                "watch",
                "reserve",
                "release",
                "explain",
                "cordon",
                "uncordon",
                "ack",
                "run",
            ],
        ),
        ("nvca-self-managed", &["bootstrap", "watch"]),
        ("nvca-operator", &[]),
        ("nvca-operator-cleanup", &[]),
        ("nvca-mirror", &["run"]),
        ("nvca", &[]),
        ("webhook-server", &[]),
        ("fake-nvml-ctl", &[]),
    ] {
        section(&mut page, program, &[])?;
        for subcommand in subcommands {
            section(&mut page, program, &[subcommand])?;
        }
    }
    Ok(page)
}

fn section(page: &mut String, program: &str, subcommand: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(workspace::target_debug().join(program))
        .args(subcommand)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} {subcommand:?} --help failed");
    let depth = if subcommand.is_empty() { "##" } else { "###" };
    let title = [&[program], subcommand].concat().join(" ");
    let help = String::from_utf8(output.stdout)?;
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    write!(page, "\n{depth} {title}\n\n```text\n{}\n```\n", help.join("\n"))?;
    Ok(())
}

/// Every family that the programs tell once they have seen some work: an empty one is not written by the library.
fn metrics() -> anyhow::Result<String> {
    let dir = tempfile::tempdir()?;
    let cluster = demo::at_work(dir.path())?;
    let mut page =
        String::from("# Metrics\n\nWritten by `cargo xtask codegen` from the programs' own `/metrics`; do not edit.\n");
    for (name, programs) in cluster.programs() {
        let mut rows = BTreeSet::new();
        for program in programs {
            rows.extend(rows_of(&told_by(program)?));
        }
        table(&mut page, name, rows)?;
    }
    for program in alone(dir.path())? {
        table(&mut page, &program.name, rows_of(&told_by(&program)?))?;
    }
    // What the agent tells hangs on GPUs and on SIS: a test of its own holds it against this.
    let agent = fs::read_to_string(workspace::root().join("operator/testdata/nvca-metrics.txt"))?;
    table(&mut page, "nvca", rows_of(&agent))?;
    Ok(page)
}

fn told_by(program: &Program) -> anyhow::Result<String> {
    let url = format!("http://{}/metrics", program.address("admin")?);
    Ok(ureq::get(&url).call()?.body_mut().read_to_string()?)
}

fn table(page: &mut String, name: &str, rows: BTreeSet<String>) -> anyhow::Result<()> {
    ensure!(rows.len() > 3, "{name} tells too few metrics");
    write!(page, "\n## {name}\n\n| name | type | meaning |\n|---|---|---|\n")?;
    page.extend(rows);
    Ok(())
}

fn rows_of(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| row(line, text)).collect()
}

/// Programs that tell all that they count from the start, also without a cluster.
fn alone(dir: &Path) -> anyhow::Result<Vec<Program>> {
    let (kubeconfig, config) = (dir.join("kubeconfig"), dir.join("agent.yaml"));
    fs::write(
        &kubeconfig,
        "{apiVersion: v1, kind: Config, current-context: none, contexts: [{name: none, context: {cluster: none, user: none}}], \
         clusters: [{name: none, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: none, user: {}}]}",
    )?;
    fs::write(&config, "{}")?;
    let start = |name: &str, subcommand: &[&str], flags: &[(&str, &Path)]| {
        let mut command = Command::new(workspace::target_debug().join(name));
        command.args(subcommand).env_clear().args(["--admin", "127.0.0.1:0"]);
        command.arg("--kubeconfig").arg(&kubeconfig);
        for (flag, path) in flags {
            command.arg(flag).arg(path);
        }
        Program::start(name, dir, &mut command)
    };
    let source = ["run", "--source-namespace", "nvca-operator"];
    let (listen, tls) = (Path::new("127.0.0.1:0"), dir.join("tls"));
    Ok(vec![
        start("nvca-operator", &[], &[])?,
        start("nvca-self-managed", &["watch"], &[])?,
        start("nvca-mirror", &source, &[])?,
        start(
            "webhook-server",
            &[],
            &[("--config", &config), ("--listen", listen), ("--tls-dir", &tls)],
        )?,
    ])
}

/// The table row of a `# HELP` line.
fn row(line: &str, text: &str) -> Option<String> {
    let (name, help) = line.strip_prefix("# HELP ")?.split_once(' ')?;
    let kind = text
        .lines()
        .find_map(|line| line.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' '))?;
    Some(format!("| `{name}` | {kind} | {help} |\n"))
}
