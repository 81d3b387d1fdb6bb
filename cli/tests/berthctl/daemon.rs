//! Against the real berthd, with simulated GPUs.

use std::{fs::OpenOptions, io::Write as _};

use anyhow::ensure;
use berth_testkit::{
    Process, Program,
    certs::{Ca, Subject},
    eventually,
};
use serde_json::Value;

use crate::kit::{SOON, berthctl, code, gone, see};

async fn berthd(profile: &str) -> Process {
    start_berthd(Program::berthd().arg("--simulate", profile)).await
}

/// Starts it and waits until it grants.
async fn start_berthd(program: Program) -> Process {
    let berthd = with_kit(program).start().await.unwrap();
    eventually(SOON, async || {
        let conditions = json(&berthd, "node").await["conditions"].clone();
        let reconciled = |c: &Value| c["type"] == "LedgerReconciled" && c["status"] == true;
        ensure!(conditions.as_array().unwrap().iter().any(reconciled), "{conditions}");
        Ok(())
    })
    .await
    .unwrap();
    berthd
}

fn with_kit(program: Program) -> Program {
    program
        .arg("--kubelet-socket", "none")
        .arg("--simulate-control", "{dir}/control")
}

fn address(berthd: &Process) -> String {
    format!("unix:{}", berthd.socket().display())
}

async fn ask(berthd: &Process, line: &str) -> (i32, String, String) {
    let args: Vec<_> = line.split_whitespace().collect();
    let ended = berthctl(&address(berthd), &args).run(SOON).await.unwrap();
    (code(&ended), ended.stdout, ended.stderr)
}

async fn json(berthd: &Process, line: &str) -> Value {
    let (_, stdout, stderr) = ask(berthd, &format!("-o json {line}")).await;
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

/// Waits until this many hold something.
async fn holders(berthd: &Process, count: usize) {
    eventually(SOON, async || {
        let allocations = json(berthd, "allocations").await["allocations"].clone();
        ensure!(allocations.as_array().unwrap().len() == count, "{allocations}");
        Ok(())
    })
    .await
    .unwrap();
}

fn start(berthd: &Process, args: &[&str]) -> Process {
    berthctl(&address(berthd), args).spawn().unwrap()
}

#[tokio::test]
async fn a_reservation_can_be_seen_prolonged_and_given_back() {
    let berthd = berthd("dgx-h100").await;
    let reserve = "reserve --pod ns/train-0 --uid u-1 --gpus 2";
    let (exit, stdout, stderr) = ask(&berthd, reserve).await;
    assert_eq!((exit, stderr.as_str()), (0, ""));
    assert!(
        stdout.starts_with("ns/train-0 now holds 2 GPU: GPU 0 (GPU-"),
        "{stdout}"
    );
    assert!(
        stdout.contains("\nIt lapses in ") && stdout.ends_with(" unless the kubelet confirms it\n"),
        "{stdout}"
    );
    assert!(
        ask(&berthd, reserve)
            .await
            .1
            .starts_with("ns/train-0 already holds 2 GPU")
    );
    let (exit, _, stderr) = ask(&berthd, "reserve --pod ns/train-0 --uid u-1 --gpus 3").await;
    assert_eq!(exit, 1);
    assert!(stderr.starts_with("berthctl: HolderHasOther: "), "{stderr}");

    let book = json(&berthd, "allocations").await;
    assert_eq!(book["allocations"][0]["pod"]["uid"], "u-1");
    assert_eq!(book["allocations"][0]["state"], "Reserved");
    assert_eq!(book["allocations"][0]["shape"]["whole"]["count"], 2);
    let devices = ask(&berthd, "devices").await.1;
    assert_eq!(devices.matches("ns/train-0").count(), 2, "{devices}");

    assert_eq!(
        ask(&berthd, "release --uid u-1").await.1,
        "Released what Pod u-1 held\n"
    );
    assert_eq!(
        ask(&berthd, "release --uid u-1").await.1,
        "Pod u-1 held nothing; nothing to release\n"
    );
    assert!(
        ask(&berthd, "allocations")
            .await
            .1
            .starts_with("Nobody holds anything of test-node.")
    );
}

#[tokio::test]
async fn a_cordoned_device_gets_nothing_until_it_is_back() {
    let berthd = berthd("l40s").await;
    let devices = json(&berthd, "devices").await["devices"].as_array().unwrap().len();
    let all = format!("explain --gpus {devices}");
    assert_eq!(ask(&berthd, &all).await.0, 0);
    assert_eq!(ask(&berthd, "cordon 0 --message loud").await.0, 0);
    let (exit, stdout, _) = ask(&berthd, &all).await;
    assert_eq!(exit, 1);
    assert!(stdout.contains("DeviceCordoned"), "{stdout}");
    let devices = ask(&berthd, "devices").await.1;
    assert!(
        devices.contains("Healthy, cordoned") && devices.contains("GPU 0 is cordoned: loud"),
        "{devices}"
    );
    assert_eq!(ask(&berthd, "uncordon 0").await.0, 0);
    assert_eq!(ask(&berthd, &all).await.0, 0);
}

#[tokio::test]
async fn every_page_of_an_eight_gpu_node_fits_in_a_hundred_columns() {
    let berthd = berthd("dgx-h100").await;
    for command in ["node", "devices", "allocations", "explain --gpus 9"] {
        let stdout = ask(&berthd, command).await.1;
        assert!(stdout.lines().all(|line| line.chars().count() <= 100), "{stdout}");
        assert!(!stdout.is_empty(), "{command}");
    }
}

#[tokio::test]
async fn one_run_after_the_other_finds_every_gpu_free_again() {
    let berthd = berthd("dgx-h100").await;
    for round in 0..10 {
        let (exit, stdout, stderr) = ask(&berthd, "run --gpus 8 -- printenv CUDA_VISIBLE_DEVICES").await;
        assert_eq!((exit, stderr.as_str()), (0, ""), "round {round}");
        assert_eq!(stdout.matches("GPU-").count(), 8, "{stdout}");
    }
    holders(&berthd, 0).await;
}

#[tokio::test]
async fn whoever_waits_gets_the_gpus_when_the_other_ends() {
    let berthd = berthd("dgx-h100").await;
    let mut first = start(
        &berthd,
        &["run", "--gpus", "8", "--", "sh", "-c", "echo runs; exec sleep 1000"],
    );
    see(&first, "runs").await;
    let (exit, _, stderr) = ask(&berthd, "run -- true").await;
    assert_eq!(exit, 1);
    assert!(stderr.starts_with("berthctl: DeviceHeld: 1 GPU asked, "), "{stderr}");
    let mut second = start(
        &berthd,
        &["run", "--memory", "20Gi", "--wait", "1h", "--", "echo", "mine"],
    );
    see(&second, "berthctl: waiting for 20 GiB of a GPU: ").await;
    first.terminate().unwrap();
    assert_eq!(first.wait(SOON).await.unwrap().code(), Some(143));
    assert_eq!(second.wait(SOON).await.unwrap().code(), Some(0));
    assert_eq!(second.stdout(), "mine\n");
    assert!(second.stderr().contains("berthctl: got GPU 0 ("), "{}", second.stderr());
}

#[tokio::test]
async fn whoever_waits_outlasts_a_restart_of_the_daemon() {
    let mut first = berthd("l40s").await;
    let all = ["reserve", "--pod", "ns/p", "--uid", "u", "--gpus", "8"];
    let reserved = berthctl(&address(&first), &all).run(SOON).await.unwrap();
    assert_eq!(code(&reserved), 0, "{}", reserved.stderr);
    let mut run = start(&first, &["run", "--wait", "1h", "--", "echo", "mine"]);
    see(&run, "waiting for 1 GPU: ").await;
    first.kill();
    see(&run, "waiting for 1 GPU: no berthd answers at unix://").await;
    let again = start_berthd(Program::berthd().arg("--simulate", "l40s").in_dir_of(&first)).await;
    assert_eq!(ask(&again, "release --uid u").await.1, "Released what Pod u held\n");
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(0));
    assert_eq!(run.stdout(), "mine\n");
}

#[tokio::test]
async fn waiting_ends_when_its_time_is_up() {
    let berthd = berthd("l40s").await;
    let (exit, _, stderr) = ask(&berthd, "run --model H100 --wait 300ms -- true").await;
    assert_eq!(exit, 1);
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("berthctl: ModelMismatch: 1 GPU asked, "), "{stderr}");
}

#[tokio::test]
async fn killing_berthctl_frees_the_gpus_and_ends_the_command() {
    let berthd = berthd("dgx-h100").await;
    let mut run = start(
        &berthd,
        &["run", "--gpus", "8", "--", "sh", "-c", "echo pid $$; exec sleep 1000"],
    );
    see(&run, "pid ").await;
    let pid = run.stdout().split_whitespace().last().unwrap().to_owned();
    holders(&berthd, 1).await;
    run.kill();
    holders(&berthd, 0).await;
    gone(&pid).await;
}

#[tokio::test]
async fn a_restarted_daemon_loses_the_lease_and_the_command_goes_on() {
    let mut first = berthd("dgx-h100").await;
    let script = "trap 'exit 5' TERM; echo runs; while :; do sleep 0.05; done";
    let mut run = start(&first, &["run", "--gpus", "8", "--", "sh", "-c", script]);
    see(&run, "runs").await;
    first.kill();
    see(&run, "berthctl: the lease is lost (").await;
    let again = start_berthd(Program::berthd().arg("--simulate", "dgx-h100").in_dir_of(&first)).await;
    // Still in the book, for a job that goes on; given back when it ends.
    holders(&again, 1).await;
    run.terminate().unwrap();
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(5));
    assert_eq!(
        json(&again, "allocations").await["allocations"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[tokio::test]
async fn a_mig_instance_is_leased_by_its_uuid() {
    let berthd = berthd("mig").await;
    let devices = json(&berthd, "devices").await;
    let instances = devices["devices"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|d| d["mig"]["instances"].as_array().unwrap());
    let first = instances.clone().next().unwrap();
    let (profile, total) = (first["profile"].as_str().unwrap(), instances.clone().count());
    assert!(total > 1, "{devices}");
    let (exit, stdout, stderr) = ask(
        &berthd,
        &format!("run --mig {profile} -- printenv CUDA_VISIBLE_DEVICES"),
    )
    .await;
    assert_eq!((exit, stderr.as_str()), (0, ""));
    assert!(
        instances.clone().any(|instance| instance["uuid"] == stdout.trim()),
        "{stdout}"
    );
}

#[tokio::test]
async fn a_gpu_that_breaks_is_told_to_those_who_watch_and_to_those_who_run_on_it() {
    let berthd = berthd("dgx-h100").await;
    let watch = start(&berthd, &["watch"]);
    see(&watch, "Connected           test-node: 8 GPUs, 0 holders").await;
    let run = start(
        &berthd,
        &["run", "--gpus", "8", "--", "sh", "-c", "echo runs; exec sleep 1000"],
    );
    see(&run, "runs").await;
    let mut control = OpenOptions::new()
        .create(true)
        .append(true)
        .open(berthd.dir().join("control"))
        .unwrap();
    control.write_all(b"{\"xid\":{\"gpu\":3,\"code\":79}}\n").unwrap();
    see(&watch, "GPU 3: Healthy -> Unhealthy: ").await;
    see(&run, "is Unhealthy: ").await;
    let devices = ask(&berthd, "devices").await.1;
    assert!(devices.contains("GPU 3 is Unhealthy: "), "{devices}");
    assert!(devices.lines().all(|line| line.chars().count() <= 100), "{devices}");
    assert_eq!(ask(&berthd, "ack 3 --message reseated").await.0, 0);
}

#[tokio::test]
async fn over_plain_tcp_everybody_may_look_and_nobody_may_touch() {
    let berthd = berthd("l40s").await;
    let over_tcp = async |args: &[&str]| berthctl(&berthd.grpc(), args).run(SOON).await.unwrap();
    assert_eq!(code(&over_tcp(&["devices"]).await), 0);
    for args in [&["cordon", "0"][..], &["run", "--", "true"], &["release", "--uid", "u"]] {
        let ended = over_tcp(args).await;
        assert_eq!(code(&ended), 1, "{args:?}");
        assert!(
            ended.stderr.starts_with("berthctl: IdentityNotAllowed: "),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("--allow loopback, or use its unix socket"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn over_tls_a_known_certificate_may_touch_and_an_unknown_server_is_not_believed() {
    let ca = Ca::new("test CA");
    let stranger = Ca::new("somebody else's CA");
    let program = Program::berthd().arg("--simulate", "l40s");
    let dir = program.dir().to_owned();
    let (server, client) = (
        ca.localhost().write(&dir, "server"),
        ca.client(&Subject::new("alice")).write(&dir, "alice"),
    );
    let (ca, stranger) = (ca.write(&dir, "ca"), stranger.write(&dir, "stranger"));
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let berthd = program
        .arg("--tls-cert", path(&server.cert))
        .arg("--tls-key", path(&server.key))
        .arg("--tls-client-ca", path(&ca))
        .arg("--allow", "cn:alice");
    let berthd = start_berthd(berthd).await;
    let https = berthd.grpc().replace("http://", "https://");
    let as_alice = ["--tls-cert", &path(&client.cert), "--tls-key", &path(&client.key)].map(ToOwned::to_owned);
    let ask = async |ca: &std::path::Path, args: &[&str]| {
        let program = berthctl(&https, &["--tls-ca", &path(ca)]);
        program
            .raw_args(&as_alice.each_ref().map(String::as_str))
            .raw_args(args)
            .run(SOON)
            .await
            .unwrap()
    };
    let ended = ask(&ca, &["run", "--", "true"]).await;
    assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
    let ended = ask(&stranger, &["node"]).await;
    assert_eq!(code(&ended), 3);
    assert!(ended.stderr.contains("certificate"), "{}", ended.stderr);
}
