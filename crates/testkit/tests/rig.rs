//! The rig itself: real parts come up, work, survive chaos, say what is wrong, and leave nothing behind.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use berth_testkit::{
    eventually,
    rig::{PartState, Rig, RigConfig, RigError, in_rig, namespace},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::PostParams};
use serde_json::json;

fn small() -> RigConfig {
    RigConfig {
        nodes: 2,
        ..RigConfig::default()
    }
}

fn gpu_pod(name: &str, scheduler: &str, gpus: u32) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"schedulerName": scheduler, "containers": [
            {"name": "c", "image": "none", "resources": {"limits": {"nvidia.com/gpu": gpus.to_string()}}}]},
    }))
    .unwrap()
}

async fn runs_on(pods: &Api<Pod>, name: &str) -> anyhow::Result<String> {
    eventually(Duration::from_secs(30), async || {
        let pod = pods.get(name).await?;
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.clone())
            .unwrap_or_default();
        ensure!(phase == "Running", "{name} is {phase}");
        pod.spec.and_then(|spec| spec.node_name).context("running nowhere")
    })
    .await
}

#[test]
fn rig_a_pod_is_bound_by_the_real_kube_scheduler_and_runs() {
    in_rig("rig_a_pod_is_bound_by_the_real_kube_scheduler_and_runs", async || {
        let rig = Rig::up(small()).await.unwrap();
        let pods: Api<Pod> = Api::default_namespaced(rig.client());
        pods.create(&PostParams::default(), &gpu_pod("p", "default-scheduler", 8))
            .await
            .unwrap();
        assert!(runs_on(&pods, "p").await.unwrap().starts_with("gpu-000"));
        let nodes: Api<Node> = Api::all(rig.client());
        let node = nodes.get("gpu-0000").await.unwrap();
        let labels = node.metadata.labels.unwrap();
        assert_eq!(labels["nvidia.com/gpu.product"], "NVIDIA-H100-80GB-HBM3");
    });
}

#[test]
fn rig_parts_that_are_paused_or_killed_come_back_with_their_data() {
    in_rig(
        "rig_parts_that_are_paused_or_killed_come_back_with_their_data",
        async || {
            let mut rig = Rig::up(small()).await.unwrap();
            let pods: Api<Pod> = Api::default_namespaced(rig.client());
            pods.create(&PostParams::default(), &gpu_pod("before", "default-scheduler", 1))
                .await
                .unwrap();
            runs_on(&pods, "before").await.unwrap();

            rig.part("kube-apiserver").unwrap().pause();
            assert!(matches!(
                rig.part("kube-apiserver").unwrap().state(),
                PartState::Paused { .. }
            ));
            let asked = tokio::time::timeout(Duration::from_millis(300), pods.get("before")).await;
            assert!(asked.is_err(), "a paused API server answered");
            rig.part("kube-apiserver").unwrap().resume();

            rig.part("etcd").unwrap().restart().unwrap();
            rig.part("kube-apiserver").unwrap().restart().unwrap();
            rig.wait_ready().await.unwrap();
            pods.get("before").await.unwrap();
            pods.create(&PostParams::default(), &gpu_pod("after", "default-scheduler", 1))
                .await
                .unwrap();
            runs_on(&pods, "after").await.unwrap();
        },
    );
}

#[test]
fn rig_tells_which_part_died_with_its_last_lines() {
    in_rig("rig_tells_which_part_died_with_its_last_lines", async || {
        let config = RigConfig {
            scheduler: Some(json!({"profiles": "not a list"})),
            ..small()
        };
        let error = Rig::up(config).await.unwrap_err();
        let RigError::Died { part, log, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(part, "kube-scheduler");
        assert!(log.contains("profiles"), "{log}");
    });
}

#[test]
fn rig_names_the_port_that_is_in_use() {
    in_rig("rig_names_the_port_that_is_in_use", async || {
        let _taken = std::net::TcpListener::bind("127.0.0.1:6443").unwrap();
        let error = Rig::up(small()).await.unwrap_err().to_string();
        assert!(error.contains("port 6443 for kube-apiserver is in use"), "{error}");
    });
}

#[test]
fn rig_on_a_full_disk_says_so() {
    in_rig("rig_on_a_full_disk_says_so", async || {
        // Our mount namespace: gone with us.
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success());
        fs::write(dir.path().join("ballast"), vec![0; 60 * 1024]).unwrap();
        let config = RigConfig {
            dir: Some(dir.path().join("rig")),
            ..small()
        };
        let error = Rig::up(config).await.unwrap_err();
        let told = format!("{:#}", anyhow::Error::from(error));
        assert!(
            told.contains("disk is full") || told.contains("no space left"),
            "{told}"
        );
    });
}

#[test]
fn rig_refuses_to_run_where_packets_could_leave() {
    // In this process: not inside a namespace of its own, where the machine has a route or a second device.
    if fs::read_to_string("/proc/self/net/route").unwrap().lines().count() < 2 {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime.block_on(Rig::up(small())).unwrap_err();
    assert!(matches!(error, RigError::NotIsolated), "{error}");
}

#[test]
fn rig_ends_with_the_process_that_started_it_however_that_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut outer = namespace::enter(env!("CARGO_BIN_EXE_berth-rig"));
    outer
        .arg("--dir")
        .arg(dir.path())
        .args(["serve", "--nodes", "1"])
        .stdin(Stdio::null());
    let mut child = outer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let up = async || {
        ensure!(dir.path().join("state.json").exists(), "not up");
        Ok(())
    };
    runtime.block_on(eventually(Duration::from_mins(1), up)).unwrap();
    assert!(processes_that_name(dir.path()) > 4);
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = async || {
        let left = processes_that_name(dir.path());
        ensure!(left == 0, "{left} processes are left");
        Ok(())
    };
    runtime.block_on(eventually(Duration::from_secs(10), gone)).unwrap();
}

#[test]
fn rig_up_and_down_leave_no_process_mount_or_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let rig = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_berth-rig"))
            .arg("--dir")
            .arg(dir.path())
            .args(args)
            .output()
            .unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text)
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let (up, told) = rig(&["up", "--scheduler-config", "Cargo.toml"]);
    assert!(!up && told.contains("Cargo.toml is not"), "{told}");
    let shipped = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/scheduler/kube-scheduler-config.yaml"
    );
    let (up, told) = rig(&["up", "--nodes", "1", "--scheduler-config", shipped]);
    assert!(up, "{told}");
    let config = fs::read_to_string(dir.path().join("scheduler.json")).unwrap();
    assert!(config.contains("filterVerb"), "{config}");
    let (second, told) = rig(&["up"]);
    assert!(!second && told.contains("runs already"), "{told}");
    let (ok, status) = rig(&["status"]);
    assert!(
        ok && status.contains("kube-apiserver") && status.contains("running"),
        "{status}"
    );
    let (ok, log) = rig(&["logs", "nothing"]);
    assert!(!ok && log.contains("kube-scheduler"), "{log}");
    let (ok, env) = rig(&["env"]);
    assert!(ok && env.contains("KUBECONFIG="), "{env}");
    assert!(processes_that_name(dir.path()) > 4);

    let (down, told) = rig(&["down"]);
    assert!(down, "{told}");
    assert_eq!(processes_that_name(dir.path()), 0);
    assert_eq!(fs::read_to_string("/proc/self/mounts").unwrap(), mounts);
    // The ports were the namespace's own: here they were never taken.
    assert!(std::net::TcpListener::bind("127.0.0.1:6443").is_ok());
    let (again, told) = rig(&["down"]);
    assert!(again && told.contains("no rig runs"), "{told}");
}

/// How many processes have this folder in their command line, this test's own children of `Command` aside.
fn processes_that_name(dir: &Path) -> usize {
    let dir = dir.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(&dir))
        .count()
}
