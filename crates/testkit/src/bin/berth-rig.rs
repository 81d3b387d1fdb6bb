//! `berth-rig`: a rig that outlives the command that started it. `cargo xtask rig …` calls it with the tools built.
//!
//! `up` starts `serve` in namespaces of its own and waits; `down` ends `serve`'s namespace and with it every part.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use berth_testkit::rig::{NodeProfile, PartState, Rig, RigConfig, namespace};
use clap::{Parser, Subcommand};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask rig",
    about = "A real Kubernetes control plane with GPU nodes, on this machine alone"
)]
struct Args {
    /// Folder of the rig's data, logs and state.
    #[arg(long, global = true, env = "BERTH_RIG_DIR", default_value = ".cache/rigs/default")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts it and returns when its nodes are Ready.
    Up(Up),
    /// Ends it: no process, mount, namespace or port stays behind.
    Down,
    /// Its parts and their state.
    Status,
    /// What a shell needs to work with it: eval "$(cargo xtask rig env)".
    Env,
    /// The log of one part.
    Logs { part: String },
    /// The rig itself, in the foreground.
    #[command(hide = true)]
    Serve(Up),
}

#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Up {
    /// How many kwok nodes.
    #[arg(long, default_value_t = 20)]
    nodes: usize,
    /// dgx-h100, dgx-a100 or l40s.
    #[arg(long, default_value = "dgx-h100", value_parser = NodeProfile::by_name)]
    profile: NodeProfile,
    /// NATS too, for the agent's queues.
    #[arg(long)]
    nats: bool,
    /// KAI Scheduler too: the real one where BERTH_KAI_BIN and BERTH_KAI_CRDS name it, else the stand-in.
    #[arg(long)]
    kai: bool,
    /// OpenBao and the vault-agent injector too: the real ones where BERTH_BAO_BIN and BERTH_VAULT_K8S_BIN name them, else
    /// the stand-ins.
    #[arg(long)]
    bao: bool,
    /// What kube-scheduler is configured by, without clientConnection: deploy/scheduler/kube-scheduler-config.yaml has it ask a
    /// berth-scheduler on 127.0.0.1:9450 of the rig.
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
    /// Keep data and logs of an earlier rig in the folder instead of clearing them.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir)?;
    match args.command {
        Command::Up(up) => start(&dir, &up),
        Command::Down => down(&dir),
        Command::Status => status(&dir),
        Command::Env => env(&dir),
        Command::Logs { part } => logs(&dir, &part),
        Command::Serve(up) => serve(&dir, &up),
    }
}

fn start(dir: &Path, up: &Up) -> anyhow::Result<()> {
    if let Some(running) = running(dir) {
        bail!(
            "a rig runs already in {} (process {running}): `rig down` ends it",
            dir.display()
        );
    }
    scheduler_config(up)?;
    if dir.exists() && !up.keep {
        fs::remove_dir_all(dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    fs::create_dir_all(dir.join("logs")).with_context(|| format!("no place for the rig in {}", dir.display()))?;
    let _none = fs::remove_file(dir.join("state.json"));
    let log = dir.join("logs/rig.log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let program = std::env::current_exe()?;
    let mut command = namespace::enter(&program.display().to_string());
    command.arg("--dir").arg(dir).arg("serve");
    command.args(["--nodes", &up.nodes.to_string(), "--profile", up.profile.name]);
    if up.nats {
        command.arg("--nats");
    }
    if up.kai {
        command.arg("--kai");
    }
    if up.bao {
        command.arg("--bao");
    }
    if let Some(file) = &up.scheduler_config {
        command.arg("--scheduler-config").arg(file);
    }
    // A process group of its own: Ctrl-C in the shell that started it does not end it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    fs::write(dir.join("pid"), child.id().to_string())?;
    loop {
        if let Some(status) = child.try_wait()? {
            let _none = fs::remove_file(dir.join("pid"));
            bail!(
                "the rig did not start ({status}):\n{}",
                fs::read_to_string(&log).unwrap_or_default().trim_end()
            );
        }
        if dir.join("state.json").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("up: {} nodes ({})", up.nodes, up.profile.name);
    println!("a shell on it:  eval \"$(cargo xtask rig env)\"  then  rig kubectl get nodes");
    println!("end it:         cargo xtask rig down");
    Ok(())
}

fn scheduler_config(up: &Up) -> anyhow::Result<Option<Value>> {
    let Some(file) = &up.scheduler_config else {
        return Ok(None);
    };
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let config: Value = serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", file.display()))?;
    if config["kind"] != "KubeSchedulerConfiguration" {
        bail!("{} is not a KubeSchedulerConfiguration", file.display());
    }
    Ok(Some(config))
}

/// The outer process of a rig in this folder, if it lives and is one of ours.
fn running(dir: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    (line.contains("unshare") && line.contains(&dir.display().to_string())).then_some(pid)
}

fn down(dir: &Path) -> anyhow::Result<()> {
    let Some(pid) = running(dir) else {
        println!("no rig runs in {}", dir.display());
        return Ok(());
    };
    // `unshare --kill-child`: its end is the end of the pid namespace, and so of every part. It ignores SIGTERM.
    let inner = inner(pid);
    kill(Pid::from_raw(pid), Signal::SIGKILL).context("cannot end the rig")?;
    let gone = |pid: i32| !Path::new(&format!("/proc/{pid}")).exists();
    while !(gone(pid) && inner.is_none_or(gone)) {
        std::thread::sleep(Duration::from_millis(10));
    }
    for file in ["pid", "state.json"] {
        let _none = fs::remove_file(dir.join(file));
    }
    println!("down; logs stay in {}", dir.join("logs").display());
    Ok(())
}

/// The first process inside the namespaces, by its number outside.
fn inner(outer: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn status(dir: &Path) -> anyhow::Result<()> {
    let Some(pid) = running(dir) else {
        bail!("no rig runs in {}", dir.display())
    };
    let state: Value = serde_json::from_slice(&fs::read(dir.join("state.json")).context("it is still starting")?)?;
    println!("rig in {} (process {pid})", dir.display());
    for (name, part) in state["parts"].as_object().into_iter().flatten() {
        println!("  {name:<26} {}", part.as_str().unwrap_or_default());
    }
    Ok(())
}

fn env(dir: &Path) -> anyhow::Result<()> {
    let inner = running(dir)
        .and_then(inner)
        .with_context(|| format!("no rig runs in {}", dir.display()))?;
    let state: Value = serde_json::from_slice(&fs::read(dir.join("state.json")).context("it is still starting")?)?;
    let tools = state["tools"].as_str().unwrap_or_default();
    println!("export KUBECONFIG={}", dir.join("kubeconfig").display());
    println!("export PATH={tools}:$PATH");
    println!("# runs a command inside the rig's network: rig kubectl get nodes");
    let user = if nix::unistd::Uid::effective().is_root() {
        ""
    } else {
        "--user --preserve-credentials "
    };
    println!("rig() {{ nsenter --target {inner} {user}--net -- \"$@\"; }}");
    Ok(())
}

fn logs(dir: &Path, part: &str) -> anyhow::Result<()> {
    let path = dir.join("logs").join(format!("{part}.log"));
    let Ok(text) = fs::read_to_string(&path) else {
        let mut names: Vec<String> = fs::read_dir(dir.join("logs"))
            .map(|entries| {
                entries
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        bail!("no log of {part}; there are {}", names.join(", ").replace(".log", ""));
    };
    print!("{text}");
    Ok(())
}

fn serve(dir: &Path, up: &Up) -> anyhow::Result<()> {
    namespace::loopback_up()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = RigConfig {
            nodes: up.nodes,
            profile: up.profile.clone(),
            nats: up.nats,
            kai: up.kai,
            bao: up.bao,
            scheduler: scheduler_config(up)?,
            dir: Some(dir.to_owned()),
            ..RigConfig::default()
        };
        let mut rig = Rig::up(config).await?;
        let mut told = Value::Null;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        loop {
            let state = json!({"tools": rig.tools(), "parts": parts(&mut rig)});
            if state != told {
                let unfinished = dir.join("state.json.unfinished");
                fs::write(&unfinished, state.to_string())?;
                fs::rename(unfinished, dir.join("state.json"))?;
                told = state;
            }
            tokio::select! {
                _ = tick.tick() => {}
                _ = end.recv() => return Ok(()),
            }
        }
    })
}

/// Each part's state in a word; a part that died shows how.
fn parts(rig: &mut Rig) -> Value {
    let names: Vec<_> = rig.parts().map(|(name, _)| name).collect();
    let mut all = serde_json::Map::new();
    for name in names {
        let Ok(part) = rig.part(name) else { continue };
        let died = part.check().err().map(|error| error.to_string());
        let state = match part.state() {
            PartState::Running { .. } => "running".to_owned(),
            PartState::Paused { .. } => "paused".to_owned(),
            PartState::Stopped => died.unwrap_or_else(|| "stopped".to_owned()),
        };
        all.insert(name.to_owned(), Value::String(state));
    }
    Value::Object(all)
}
