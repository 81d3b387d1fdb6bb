//! The kit as a whole process: start, signals, panics, flags and variables.
#![expect(clippy::unwrap_used, reason = "test code, also outside of the tests' own functions")]

use std::time::Duration;

use anyhow::ensure;
use berth_testkit::{Process, Program, eventually, http};

const SOON: Duration = Duration::from_secs(20);

fn fixture() -> Program {
    Program::new("runtime-fixture", "berth-runtime")
}

async fn logs(process: &Process, text: &str) {
    let logged = eventually(SOON, async || {
        let stderr = process.stderr();
        ensure!(stderr.contains(text), "`{text}` is not in\n{stderr}");
        Ok(())
    });
    logged.await.unwrap();
}

/// Ends with exit code 1, after the log said `text`.
async fn fails_with(mut process: Process, text: &str) {
    let status = process.wait(SOON).await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", process.stderr());
    logs(&process, text).await;
}

#[tokio::test]
async fn sigterm_drains_in_order_and_ends_with_code_0() {
    let mut process = fixture().start().await.unwrap();
    assert_eq!(
        http::get(&format!("{}/readyz", process.admin())).await.unwrap().status,
        200
    );
    process.terminate().unwrap();
    assert_eq!(
        process.wait(SOON).await.unwrap().code(),
        Some(0),
        "{}",
        process.stderr()
    );
    logs(&process, "stopped").await;
    let stderr = process.stderr();
    let phases: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains(r#""shutdown phase""#))
        .collect();
    let order = ["readiness off", "stop accepting", "admin off", "tasks"];
    assert_eq!(phases.len(), order.len(), "{stderr}");
    assert!(
        phases.iter().zip(order).all(|(line, phase)| line.contains(phase)),
        "{stderr}"
    );
}

#[tokio::test]
async fn readiness_is_off_while_the_process_drains_and_the_second_signal_forces_the_end() {
    let process = fixture()
        .raw_args(&["--hang", "--drain-ms", "600000"])
        .start()
        .await
        .unwrap();
    process.signal("INT").unwrap();
    let url = format!("{}/readyz", process.admin());
    let off = eventually(SOON, async || {
        let answer = http::get(&url).await?;
        ensure!(
            answer.status == 503 && answer.body.contains("shutting down"),
            "{answer:?}"
        );
        Ok(())
    });
    off.await.unwrap();
    process.terminate().unwrap();
    fails_with(process, r#""unfinished":"[\"hang\""#).await;
}

#[tokio::test]
async fn a_phase_that_hangs_is_cut_off_by_the_deadline() {
    let process = fixture()
        .raw_args(&["--hang", "--drain-ms", "50"])
        .start()
        .await
        .unwrap();
    process.terminate().unwrap();
    fails_with(process, "the shutdown takes longer than its deadline").await;
}

#[tokio::test]
async fn a_panic_in_a_task_ends_the_process_with_the_tasks_name() {
    let process = fixture().raw_args(&["--panic-in-task"]).spawn().unwrap();
    fails_with(process, "task `unlucky` panicked").await;
}

#[tokio::test]
async fn a_panic_in_a_thread_ends_the_process_and_its_message_is_in_the_log() {
    let process = fixture().raw_args(&["--panic-in-thread"]).spawn().unwrap();
    logs(&process, r#""message":"scripted panic""#).await;
    fails_with(process, "task `unlucky-thread` panicked").await;
}

#[tokio::test]
async fn flags_can_come_as_variables_and_the_flag_wins() {
    let process = fixture()
        .env("FIXTURE_LOG_LEVEL", "debug")
        .env("FIXTURE_DRAIN_MS", "1234")
        .env("FIXTURE_HANG", "no")
        .raw_args(&["--drain-ms", "4321"])
        .start()
        .await
        .unwrap();
    let config = http::get(&format!("{}/debug/config", process.admin()))
        .await
        .unwrap()
        .body;
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["telemetry"]["log_level"], "debug");
    assert_eq!(config["drain_ms"], 4321);
    assert_eq!(config["hang"], false);
}

#[tokio::test]
async fn a_mistake_in_a_variable_ends_the_start_with_code_2_and_names_the_flag() {
    let mut process = fixture().env("FIXTURE_ADMIN", "nowhere").spawn().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(2));
    logs(&process, "--admin <ADDR>").await;
}

#[tokio::test]
async fn a_bad_log_filter_is_refused_at_the_start() {
    let mut process = fixture().raw_args(&["--log-level", "loud"]).spawn().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_killed_process_leaves_a_socket_that_the_next_one_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let program = || fixture().arg("--socket", socket.to_str().unwrap());
    let mut first = program().start().await.unwrap();
    let mut second = program().spawn().unwrap();
    assert_eq!(second.wait(SOON).await.unwrap().code(), Some(1));
    first.kill();
    assert!(socket.exists());
    let mut third = program().start().await.unwrap();
    assert_eq!(third.socket(), socket);
    third.terminate().unwrap();
    third.wait(SOON).await.unwrap();
    assert!(!socket.exists());
}
