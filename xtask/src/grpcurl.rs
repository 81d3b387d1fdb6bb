//! The promise to people with nothing but grpcurl: list, describe and call, with no .proto file.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{process::Program, tools, workspace};

/// Starts a simulated berthd and asks it with the real grpcurl.
pub(crate) fn run() -> anyhow::Result<()> {
    let grpcurl = tools::grpcurl()?;
    workspace::build_programs()?;
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(workspace::target_debug().join("berthd"));
    command.args([
        "--node-name",
        "grpcurl",
        "--simulate",
        "dgx-h100",
        "--kubelet-socket",
        "none",
        "--allow",
        "loopback",
    ]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command
        .arg("--socket")
        .arg(dir.path().join("berthd.sock"))
        .arg("--state-dir")
        .arg(dir.path().join("state"));
    let berthd = Program::start("berthd", dir.path(), &mut command)?;
    let address = berthd.address("grpc")?;

    let ask = |args: &[&str]| -> anyhow::Result<String> {
        let output = Command::new(&grpcurl)
            .args(args)
            .output()
            .context("cannot start grpcurl")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "grpcurl {}: {errors}", args.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    };

    let services = ask(&["-plaintext", address, "list"])?;
    for service in ["berth.node.v1.NodeService", "grpc.health.v1.Health"] {
        ensure!(
            services.contains(service),
            "`grpcurl list` does not name {service}:\n{services}"
        );
    }
    let methods = ask(&["-plaintext", address, "describe", "berth.node.v1.NodeService"])?;
    ensure!(
        methods.contains("rpc AcquireLease"),
        "describe does not name AcquireLease:\n{methods}"
    );

    let health = ask(&["-plaintext", address, "grpc.health.v1.Health/Check"])?;
    ensure!(health.contains("SERVING"), "not serving: {health}");

    let request = json!({
        "pod": {"namespace": "nvcf-backend", "name": "from-grpcurl", "uid": "11111111-2222-3333-4444-555555555555"},
        "shape": {"whole": {"count": 2}}
    });
    let body = request.to_string();
    let reserved: Value = serde_json::from_str(&ask(&[
        "-plaintext",
        "-d",
        &body,
        address,
        "berth.node.v1.NodeService/Reserve",
    ])?)?;
    let grants = reserved["allocation"]["grants"].as_array().map_or(0, Vec::len);
    ensure!(grants == 2, "two GPUs asked for, {grants} granted: {reserved}");

    let node: Value = serde_json::from_str(&ask(&["-plaintext", address, "berth.node.v1.NodeService/GetNode"])?)?;
    let devices = node["node"]["devices"].as_array().context("GetNode told no devices")?;
    let held = devices
        .iter()
        .filter(|device| device["free"]["milli"].as_u64().unwrap_or(0) == 0)
        .count();
    ensure!(
        devices.len() == 8 && held == 2,
        "{} devices, {held} held: {node}",
        devices.len()
    );

    let too_many = json!({"pod": {"namespace": "a", "name": "b", "uid": "c"}, "shape": {"whole": {"count": 7}}});
    let refused = ask(&[
        "-plaintext",
        "-d",
        &too_many.to_string(),
        address,
        "berth.node.v1.NodeService/Reserve",
    ]);
    let message = refused
        .err()
        .context("seven of six free GPUs were granted")?
        .to_string();
    for word in ["ResourceExhausted", "InsufficientDevices", "google.rpc.ErrorInfo"] {
        ensure!(message.contains(word), "the refusal does not say {word}: {message}");
    }
    scheduler(&ask)?;
    println!("grpcurl: list, describe, health, Reserve, GetNode, Simulate and a refusal, all by reflection");
    Ok(())
}

/// The scheduler answers the same way.
fn scheduler(ask: &dyn Fn(&[&str]) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(workspace::target_debug().join("berth-scheduler"));
    command.args(["--cluster", "simulated:2xdgx-h100"]);
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    let scheduler = Program::start("berth-scheduler", dir.path(), &mut command)?;
    let address = scheduler.address("grpc")?;
    let service = "berth.scheduler.v1.PlacementService";
    let services = ask(&["-plaintext", address, "list"])?;
    ensure!(
        services.contains(service),
        "`grpcurl list` does not name {service}:\n{services}"
    );
    let seventeen = json!({"shapes": [{"shape": {"gpu": {"whole": {"count": 1}}}, "count": 17}]}).to_string();
    let method = format!("{service}/Simulate");
    let answer: Value = serde_json::from_str(&ask(&["-plaintext", "-d", &seventeen, address, &method])?)?;
    ensure!(answer["placed"] == 16, "16 GPUs, 17 pods: {answer}");
    Ok(())
}
