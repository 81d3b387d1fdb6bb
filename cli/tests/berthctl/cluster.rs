//! What berthctl asks the scheduler.

use std::time::Duration;

use berth_testkit::{Ended, Process, Program};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

async fn scheduler() -> Process {
    let program = Program::scheduler().arg("--cluster", "simulated:2xdgx-h100,1xl40s");
    program.start().await.unwrap()
}

async fn ask(scheduler: &Process, args: &[&str]) -> Ended {
    let address = format!("http://{}", scheduler.address("grpc"));
    let args = [&["--scheduler", &address], args].concat();
    Program::berthctl().raw_args(&args).run(SOON).await.unwrap()
}

#[tokio::test]
async fn the_cluster_is_a_table_for_people_and_json_for_programs() {
    let scheduler = scheduler().await;
    let page = ask(&scheduler, &["cluster"]).await;
    assert!(page.status.success(), "{}", page.stderr);
    assert!(
        page.stdout
            .starts_with("3 nodes, 24 GPUs, 24 of them free as a whole; policy fragmentation")
    );
    assert_eq!(page.stdout.matches("takes pods").count(), 3, "{}", page.stdout);
    let json = ask(&scheduler, &["cluster", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["nodes"][0]["gpusFree"], &json["nodes"][0]["usable"]),
        (&8.into(), &true.into())
    );
}

#[tokio::test]
async fn why_and_what_if_end_with_a_code_that_says_whether_it_fits() {
    let scheduler = scheduler().await;
    let fits = ask(&scheduler, &["explain", "shape", "--gpus", "8", "--model", "H100"]).await;
    assert_eq!(fits.status.code(), Some(0), "{}", fits.stderr);
    assert!(
        fits.stdout.contains("fits on 2 of 3 nodes") && fits.stdout.contains("1 ModelMismatch"),
        "{}",
        fits.stdout
    );
    let too_big = ask(&scheduler, &["explain", "shape", "--gpus", "9"]).await;
    assert_eq!(too_big.status.code(), Some(1));
    assert!(too_big.stdout.contains("3 InsufficientDevices"), "{}", too_big.stdout);

    let some = ask(&scheduler, &["simulate", "3x8@H100", "2x0.5", "-o", "json"]).await;
    assert_eq!(some.status.code(), Some(1), "{}", some.stderr);
    let some: Value = serde_json::from_str(&some.stdout).unwrap();
    assert_eq!((&some["placed"], &some["pods"][2]["node"]), (&4.into(), &"".into()));
    let all = ask(&scheduler, &["simulate", "2x8@H100"]).await;
    assert_eq!(all.status.code(), Some(0), "{}", all.stderr);
    assert!(
        all.stdout
            .starts_with("2 of 2 pods fit; 24.0 GPUs were free, 8.0 would be"),
        "{}",
        all.stdout
    );

    let unseen = ask(&scheduler, &["explain", "pod", "a/b"]).await;
    assert_eq!(unseen.status.code(), Some(1));
    assert!(unseen.stderr.contains("UnknownPod"), "{}", unseen.stderr);
    let senseless = ask(&scheduler, &["simulate", "many"]).await;
    assert_eq!(senseless.status.code(), Some(2));
    assert!(senseless.stderr.contains("COUNTxSIZE"), "{}", senseless.stderr);
}

#[tokio::test]
async fn no_scheduler_is_told_with_what_to_do() {
    let args = ["--scheduler", "http://127.0.0.1:1", "cluster"];
    let ended = Program::berthctl().raw_args(&args).run(SOON).await.unwrap();
    assert_eq!(ended.status.code(), Some(3));
    assert!(ended.stderr.contains("no berth-scheduler answers") && ended.stderr.contains("BERTHCTL_SCHEDULER"));
}
