//! `berthctl run` as a process: the command, its environment and its end; the lease and its end.

use std::{fs, os::unix::fs::PermissionsExt as _};

use berth_proto::node::v1::{self as pb, acquire_lease_response::Event};
use tempfile::TempDir;
use tonic::Code;

use crate::{
    fake::{Fake, LEASE, Mood, grant, lease, news, refusal, uuid},
    kit::{SOON, ask, berthctl, code, gone, is_ignored_here, open_leases, program, see, start_and_see},
};

/// Tells of signals, and ends by one of them with a code of its own.
const TELLS_SIGNALS: &str = "trap 'echo got USR1' USR1; trap 'echo got HUP' HUP; trap 'echo got INT' INT; \
                             trap 'exit 9' TERM; echo ready $$; while :; do sleep 0.05; done";

#[tokio::test]
async fn the_commands_exit_code_is_berthctls() {
    let fake = Fake::start();
    for (script, exit) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        let ended = ask(&fake, &["run", "--", "sh", "-c", script]).await;
        assert_eq!((code(&ended), ended.stderr.as_str()), (exit, ""), "{script}");
    }
}

#[tokio::test]
async fn the_command_is_told_its_devices_and_its_lease() {
    let fake = Fake::start();
    fake.set_mood(Mood::Grants(vec![grant(1), grant(0)]));
    let script = "echo $CUDA_VISIBLE_DEVICES; echo $NVIDIA_VISIBLE_DEVICES; echo $BERTH_LEASE_ID; echo \"$@\"";
    let ended = ask(
        &fake,
        &["run", "--gpus", "2", "--", "sh", "-c", script, "sh", "a b", "--gpus"],
    )
    .await;
    let uuids = format!("{},{}", uuid(1), uuid(0));
    assert_eq!(ended.stdout, format!("{uuids}\n{uuids}\n{LEASE}\na b --gpus\n"));
}

#[tokio::test]
async fn a_mig_instance_is_told_by_its_own_uuid() {
    let fake = Fake::start();
    let mig = pb::Grant {
        mig_uuid: "MIG-1".to_owned(),
        mig_profile: "1g.10gb".to_owned(),
        ..grant(0)
    };
    fake.set_mood(Mood::Grants(vec![mig]));
    let ended = ask(
        &fake,
        &[
            "run",
            "--mig",
            "1g.10gb",
            "--",
            "sh",
            "-c",
            "echo $CUDA_VISIBLE_DEVICES",
        ],
    )
    .await;
    assert_eq!(ended.stdout, "MIG-1\n");
    let asked = fake.state.lease.lock().as_ref().unwrap().0.shape.clone().unwrap();
    assert_eq!(
        asked.gpu,
        Some(pb::shape::Gpu::Mig(pb::MigRequest {
            profile: "1g.10gb".to_owned(),
            count: 1
        }))
    );
}

#[tokio::test]
async fn the_lease_is_given_back_before_berthctl_ends() {
    let fake = Fake::start();
    assert_eq!(code(&ask(&fake, &["run", "--", "true"]).await), 0);
    assert_eq!(fake.calls(), [format!("release LeaseId(\"{LEASE}\")")]);
    open_leases(&fake, 0).await;
}

#[tokio::test]
async fn killing_berthctl_ends_the_lease_and_the_command() {
    let fake = Fake::start();
    let mut run = start_and_see(
        &fake,
        &["run", "--", "sh", "-c", "echo pid $$; exec sleep 1000"],
        "pid ",
    )
    .await;
    let pid = run.stdout().split_whitespace().last().unwrap().to_owned();
    open_leases(&fake, 1).await;
    run.kill();
    open_leases(&fake, 0).await;
    gone(&pid).await;
}

#[tokio::test]
async fn signals_are_passed_on() {
    let fake = Fake::start();
    let mut run = start_and_see(&fake, &["run", "--", "sh", "-c", TELLS_SIGNALS], "ready").await;
    for signal in ["USR1", "HUP", "INT"]
        .into_iter()
        .filter(|signal| !is_ignored_here(signal))
    {
        run.signal(signal).unwrap();
        see(&run, &format!("got {signal}")).await;
    }
    run.terminate().unwrap();
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(9));
    open_leases(&fake, 0).await;
}

#[tokio::test]
async fn the_command_finds_signals_as_a_shell_leaves_them() {
    let fake = Fake::start();
    let show = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let ended = ask(&fake, &["run", "--", "sh", "-c", show]).await;
    let without = program("/bin/sh").raw_args(&["-c", show]).run(SOON).await.unwrap();
    assert_eq!(ended.stdout, without.stdout);
}

#[tokio::test]
async fn what_nohup_made_us_ignore_stays_ignored() {
    let fake = Fake::start();
    fake.set_mood(Mood::LetsWait);
    let nohup = [
        "-c",
        "trap '' HUP; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_berthctl"),
        "--address",
    ];
    let address = fake.address();
    let command = ["run", "--wait", "1h", "--", "sh", "-c", "kill -HUP $$; echo alive"];
    let sh = program("/bin/sh")
        .raw_args(&nohup)
        .raw_args(&[&address])
        .raw_args(&command);
    let mut run = sh.spawn().unwrap();
    see(&run, "waiting for").await;
    run.signal("HUP").unwrap();
    fake.tell(Ok(news(Event::Granted, "Granted", ""))).await;
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(0));
    assert_eq!(run.stdout(), "alive\n");
}

#[tokio::test]
async fn a_refused_lease_starts_no_command() {
    let fake = Fake::start();
    fake.set_mood(Mood::Refuses(refusal(
        Code::ResourceExhausted,
        "InsufficientDevices",
        "2 of 2 GPUs: 2 DeviceHeld",
    )));
    let ended = ask(&fake, &["run", "--gpus", "2", "--", "echo", "started"]).await;
    assert_eq!((code(&ended), ended.stdout.as_str()), (1, ""));
    assert_eq!(
        ended.stderr,
        "berthctl: InsufficientDevices: 2 of 2 GPUs: 2 DeviceHeld\n"
    );
    assert_eq!(fake.state.lease.lock().as_ref().map(|lease| lease.0.wait_ms), None);
}

#[tokio::test]
async fn waiting_for_room_is_said_and_then_the_command_runs() {
    let fake = Fake::start();
    fake.set_mood(Mood::LetsWait);
    let args = ["run", "--share", "0.5", "--wait", "30s", "--", "echo", "started"];
    let mut run = start_and_see(
        &fake,
        &args,
        "berthctl: waiting for 0.5 GPU: 2 of 2 GPUs: 2 DeviceHeld\n",
    )
    .await;
    let wait_ms = fake.state.lease.lock().as_ref().map(|lease| lease.0.wait_ms).unwrap();
    assert!((29_000..=30_000).contains(&wait_ms), "{wait_ms}");
    assert_eq!(run.stdout(), "");
    fake.tell(Ok(news(Event::Granted, "Granted", ""))).await;
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(0));
    assert_eq!(run.stdout(), "started\n");
    assert!(
        run.stderr().ends_with(&format!("berthctl: got GPU 0 ({})\n", uuid(0))),
        "{}",
        run.stderr()
    );
}

#[tokio::test]
async fn a_daemon_that_is_not_ready_is_waited_for_where_that_was_asked() {
    let fake = Fake::start();
    let not_ready = refusal(Code::Unavailable, "NotReconciled", "the book is not yet reconciled");
    fake.set_mood(Mood::Refuses(not_ready));
    assert_eq!(code(&ask(&fake, &["run", "--", "true"]).await), 4);
    let args = ["run", "--wait", "1h", "--", "echo", "started"];
    let mut run = start_and_see(&fake, &args, "waiting for 1 GPU: the book is not yet reconciled\n").await;
    fake.set_mood(Mood::Willing);
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(0));
    assert_eq!(run.stdout(), "started\n");
}

#[tokio::test]
async fn a_daemon_that_stays_unready_is_given_up_on_when_the_time_is_up() {
    let fake = Fake::start();
    fake.set_mood(Mood::Refuses(refusal(Code::Unavailable, "NotReconciled", "not yet")));
    let ended = ask(&fake, &["run", "--wait", "100ms", "--", "echo", "started"]).await;
    assert_eq!((code(&ended), ended.stdout.as_str()), (4, ""));
    assert_eq!(
        ended.stderr,
        "berthctl: waiting for 1 GPU: not yet\nberthctl: NotReconciled: not yet\n"
    );
}

#[tokio::test]
async fn waiting_in_vain_is_a_refusal() {
    let fake = Fake::start();
    fake.set_mood(Mood::LetsWait);
    let mut run = start_and_see(&fake, &["run", "--wait", "30s", "--", "echo", "started"], "waiting").await;
    fake.tell(Err(refusal(
        Code::ResourceExhausted,
        "InsufficientDevices",
        "still nothing",
    )))
    .await;
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(1));
    assert!(
        run.stderr().ends_with("berthctl: InsufficientDevices: still nothing\n"),
        "{}",
        run.stderr()
    );
}

#[tokio::test]
async fn whoever_waits_can_be_stopped() {
    let fake = Fake::start();
    fake.set_mood(Mood::LetsWait);
    let signals = [("INT", 130), ("TERM", 143), ("HUP", 129)];
    for (signal, exit) in signals.into_iter().filter(|(signal, _)| !is_ignored_here(signal)) {
        let mut run = start_and_see(&fake, &["run", "--wait", "1h", "--", "true"], "waiting").await;
        run.signal(signal).unwrap();
        assert_eq!(run.wait(SOON).await.unwrap().code(), Some(exit));
        open_leases(&fake, 0).await;
    }
}

#[tokio::test]
async fn a_revoked_lease_is_said_and_the_command_goes_on() {
    let fake = Fake::start();
    let mut run = start_and_see(&fake, &["run", "--", "sh", "-c", TELLS_SIGNALS], "ready").await;
    fake.tell(Ok(news(Event::Revoked, "DeviceMissing", "GPU 0 is gone for good")))
        .await;
    see(
        &run,
        "berthctl: the lease is lost (DeviceMissing: GPU 0 is gone for good); the command (pid ",
    )
    .await;
    see(&run, "goes on, but others may get its GPUs\n").await;
    run.signal("USR1").unwrap();
    see(&run, "got USR1").await;
    run.terminate().unwrap();
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(9));
    assert_eq!(fake.calls(), [""; 0], "there is nothing to give back");
}

#[tokio::test]
async fn a_lost_lease_ends_the_command_where_that_is_asked_for() {
    let fake = Fake::start();
    let args = ["run", "--on-loss", "terminate", "--", "sh", "-c", TELLS_SIGNALS];
    let mut run = start_and_see(&fake, &args, "ready").await;
    fake.tell(Ok(news(Event::Revoked, "Released", "somebody released this lease")))
        .await;
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(9));
    assert!(run.stderr().contains("gets SIGTERM"), "{}", run.stderr());
}

#[tokio::test]
async fn a_daemon_that_dies_is_said_and_the_command_goes_on() {
    let fake = Fake::start();
    let mut run = start_and_see(&fake, &["run", "--", "sh", "-c", TELLS_SIGNALS], "ready").await;
    drop(fake);
    see(&run, "berthctl: the lease is lost (no berthd answers at unix://").await;
    run.terminate().unwrap();
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(9));
}

#[tokio::test]
async fn trouble_with_the_devices_is_said_while_the_command_runs() {
    let fake = Fake::start();
    let mut run = start_and_see(&fake, &["run", "--", "sh", "-c", TELLS_SIGNALS], "ready").await;
    fake.tell(Ok(news(Event::Changed, "DevicesUnwell", "GPU 0 is Suspect: hot")))
        .await;
    see(&run, "berthctl: GPU 0 is Suspect: hot\n").await;
    let moved = pb::AcquireLeaseResponse {
        allocation: Some(lease(vec![grant(1)])),
        ..news(Event::Changed, "DevicesChanged", "")
    };
    fake.tell(Ok(moved)).await;
    see(
        &run,
        &format!(
            "the lease is on GPU 1 ({}) from now on; the command was started on GPU 0 (",
            uuid(1)
        ),
    )
    .await;
    run.terminate().unwrap();
    assert_eq!(run.wait(SOON).await.unwrap().code(), Some(9));
}

#[tokio::test]
async fn a_command_that_cannot_be_started_says_so_and_holds_nothing() {
    let fake = Fake::start();
    let dir = TempDir::new().unwrap();
    let plain_file = dir.path().join("not-a-program");
    fs::write(&plain_file, "text").unwrap();
    fs::set_permissions(&plain_file, fs::Permissions::from_mode(0o644)).unwrap();
    for (program, exit) in [("no-such-program", 127), (plain_file.to_str().unwrap(), 126)] {
        let ended = ask(&fake, &["run", "--", program]).await;
        assert_eq!(code(&ended), exit, "{}", ended.stderr);
        let start = format!("berthctl: CannotStart: the command cannot be started: {program}: ");
        assert!(ended.stderr.starts_with(&start), "{}", ended.stderr);
        open_leases(&fake, 0).await;
    }
}

#[tokio::test]
async fn others_see_user_and_program_and_no_argument() {
    let fake = Fake::start();
    let asked = || fake.state.lease.lock().as_ref().unwrap().0.client.clone();
    assert_eq!(
        code(&ask(&fake, &["run", "--", "/bin/sh", "-c", "true", "--token=hunter2"]).await),
        0
    );
    assert_eq!(asked(), "alice: sh");
    assert_eq!(
        code(&ask(&fake, &["run", "--label", "training set A", "--", "true"]).await),
        0
    );
    assert_eq!(asked(), "training set A");
}

#[tokio::test]
async fn an_old_lease_id_from_outside_is_not_passed_on() {
    let fake = Fake::start();
    let args = ["run", "--", "sh", "-c", "echo $BERTH_LEASE_ID"];
    let nested = berthctl(&fake.address(), &args)
        .env("BERTH_LEASE_ID", "outer")
        .env("CUDA_VISIBLE_DEVICES", "7");
    assert_eq!(nested.run(SOON).await.unwrap().stdout, format!("{LEASE}\n"));
}
