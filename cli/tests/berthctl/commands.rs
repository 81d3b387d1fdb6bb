//! Commands that ask once: what they ask, what they print, how they fail.

use std::{
    os::unix::net::UnixListener,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::{
    fake::{Fake, Mood, refusal, uuid},
    kit::{SOON, ask, berthctl, code},
};

#[tokio::test]
async fn tables_go_to_standard_output_and_are_not_coloured_there() {
    let fake = Fake::start();
    let ended = ask(&fake, &["devices"]).await;
    assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ended.stdout);
    assert!(
        lines[0].starts_with("GPU  UUID") && lines[1].starts_with("0    GPU-00000000"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains('\u{1b}'));
}

#[tokio::test]
async fn every_reading_command_prints_one_json_document() {
    let fake = Fake::start();
    for (command, field) in [
        ("node", "devices"),
        ("devices", "devices"),
        ("allocations", "outOfBand"),
        ("explain", "devices"),
    ] {
        let ended = ask(&fake, &["-o", "json", command]).await;
        let document: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(document[field].is_array(), "{command}: {document}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_said_with_the_reason_and_exit_code_1() {
    let fake = Fake::start();
    let ended = ask(&fake, &["explain", "--gpus", "2"]).await;
    assert_eq!(code(&ended), 1);
    let page = "2 GPU: does not fit on fake-node\nInsufficientDevices: 2 of 2 GPUs: 2 DeviceHeld\n";
    assert_eq!(ended.stdout, page);
}

#[tokio::test]
async fn reserve_and_release_ask_for_what_was_typed() {
    let fake = Fake::start();
    let typed = "reserve --pod ns/p-0 --uid u-1 --memory 20Gi --gpus 2 --model H100 --ttl 2m";
    let ended = ask(&fake, &typed.split(' ').collect::<Vec<_>>()).await;
    assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
    assert!(
        ended
            .stdout
            .starts_with("ns/p-0 now holds 2 x 20 GiB of a GPU (H100): GPU 0 ("),
        "{}",
        ended.stdout
    );
    assert_eq!(code(&ask(&fake, &["release", "--uid", "u-1"]).await), 0);
    assert_eq!(code(&ask(&fake, &["release", "--lease", "l-1"]).await), 0);
    let calls = fake.calls();
    for part in [
        "uid: \"u-1\"",
        "memory_bytes: 21474836480",
        "count: 2",
        "models: [\"H100\"]",
        "ttl_ms: 120000",
    ] {
        assert!(calls[0].contains(part), "{part}: {}", calls[0]);
    }
    assert_eq!(calls[1..], ["release PodUid(\"u-1\")", "release LeaseId(\"l-1\")"]);
}

#[tokio::test]
async fn a_device_is_found_by_its_name_and_told_to_the_daemon_by_uuid() {
    let fake = Fake::start();
    let ended = ask(&fake, &["cordon", "1", "--message", "loud fan"]).await;
    let line = format!(
        "GPU 1 (H100, {}) is out of scheduling; what runs on it stays\n",
        uuid(1)
    );
    assert_eq!((code(&ended), ended.stdout), (0, line));
    assert_eq!(code(&ask(&fake, &["uncordon", "GPU-00000001"]).await), 0);
    assert_eq!(code(&ask(&fake, &["ack", &uuid(0), "--message", "reseated"]).await), 0);
    let (zero, one) = (uuid(0), uuid(1));
    let calls = [
        format!("schedulable {one} false loud fan"),
        format!("schedulable {one} true "),
        format!("acknowledge {zero} reseated"),
    ];
    assert_eq!(fake.calls(), calls);
}

#[tokio::test]
async fn a_device_that_is_not_there_changes_nothing() {
    let fake = Fake::start();
    for (name, reason) in [("7", "UnknownDevice"), ("GPU-0000000", "AmbiguousDevice")] {
        let ended = ask(&fake, &["cordon", name]).await;
        assert_eq!(code(&ended), 1);
        assert!(
            ended.stderr.starts_with(&format!("berthctl: {reason}: ")),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(&uuid(1)), "{}", ended.stderr);
    }
    assert_eq!(fake.calls(), [""; 0]);
}

#[tokio::test]
async fn a_refusal_keeps_the_daemons_reason_and_sentence() {
    let cases = [
        (
            Code::ResourceExhausted,
            "InsufficientDevices",
            "2 of 4 GPUs: 4 DeviceHeld",
            1,
        ),
        (
            Code::PermissionDenied,
            "IdentityNotAllowed",
            "uid 7 may only read here",
            1,
        ),
        (Code::AlreadyExists, "HolderHasOther", "pod u-1 already holds 2 GPU", 1),
        (Code::Unavailable, "NotReconciled", "the book is not yet reconciled", 4),
        (Code::Unavailable, "Draining", "the daemon is shutting down", 4),
        // Its own reason is not told twice.
        (Code::ResourceExhausted, "DeviceHeld", "DeviceHeld: 1 GPU asked", 1),
    ];
    let fake = Fake::start();
    for (grpc, reason, message, exit) in cases {
        fake.set_mood(Mood::Refuses(refusal(grpc, reason, message)));
        let ended = ask(&fake, &["reserve", "--pod", "ns/p", "--uid", "u"]).await;
        assert_eq!((code(&ended), ended.stdout.as_str()), (exit, ""), "{reason}");
        let message = message.trim_start_matches("DeviceHeld: ");
        assert_eq!(ended.stderr, format!("berthctl: {reason}: {message}\n"));
    }
}

#[tokio::test]
async fn an_error_is_json_too_where_json_was_asked_for() {
    let fake = Fake::start();
    fake.set_mood(Mood::Refuses(refusal(
        Code::NotFound,
        "UnknownDevice",
        "no device GPU-1 on this node",
    )));
    let ended = ask(&fake, &["-o", "json", "devices"]).await;
    let error: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!((code(&ended), ended.stdout.as_str()), (1, ""));
    assert_eq!(error["error"]["reason"], "UnknownDevice");
    assert_eq!(error["error"]["message"], "no device GPU-1 on this node");
    assert_eq!(error["error"]["exitCode"], 1);
}

#[tokio::test]
async fn an_older_daemon_that_lacks_a_call_is_told_from_one_that_refuses() {
    let fake = Fake::start();
    fake.set_mood(Mood::Refuses(Status::unimplemented("")));
    let ended = ask(&fake, &["node"]).await;
    assert_eq!(code(&ended), 1);
    assert!(
        ended
            .stderr
            .contains("Unimplemented: the daemon does not know this call"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn a_daemon_that_hangs_is_given_up_on_in_time() {
    let fake = Fake::start();
    fake.set_mood(Mood::Hangs);
    for command in [&["node"][..], &["watch"], &["run", "--", "true"]] {
        let ended = ask(&fake, &[&["--timeout", "200ms"], command].concat()).await;
        assert_eq!(code(&ended), 4, "{command:?}");
        assert!(
            ended.stderr.contains("TimedOut: no answer from unix://"),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("within 200ms\nGive it more time with --timeout."),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn no_daemon_is_said_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("s.sock");
    let address = format!("unix:{}", socket.display());
    let missing = berthctl(&address, &["node"]).run(SOON).await.unwrap();
    assert_eq!(code(&missing), 3);
    let start = format!(
        "berthctl: Unreachable: no berthd answers at unix://{}: there is no such socket\n",
        socket.display()
    );
    assert!(missing.stderr.starts_with(&start), "{}", missing.stderr);
    assert!(
        missing
            .stderr
            .contains("Start berthd on this machine (`berthd --simulate dgx-h100 --socket ")
    );

    drop(UnixListener::bind(&socket).unwrap());
    let stale = berthctl(&address, &["run", "--", "true"]).run(SOON).await.unwrap();
    assert_eq!(code(&stale), 3);
    assert!(
        stale.stderr.contains("nothing listens there\nStart berthd"),
        "{}",
        stale.stderr
    );

    let tcp = berthctl("http://127.0.0.1:1", &["watch"]).run(SOON).await.unwrap();
    assert_eq!(code(&tcp), 3);
    assert!(
        tcp.stderr
            .contains("no berthd answers at http://127.0.0.1:1: nothing listens there\nIs berthd running")
    );
}

#[tokio::test]
async fn something_else_at_the_address_is_not_taken_for_a_daemon() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answering = std::thread::Builder::new().spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let ended = berthctl(&address, &["node"]).run(SOON).await.unwrap();
    answering.unwrap().join().unwrap();
    assert_eq!(code(&ended), 3, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("berthctl: Unreachable: "), "{}", ended.stderr);
}

#[tokio::test]
async fn tls_that_cannot_work_is_a_mistake_on_the_command_line() {
    let cases = [
        ("https://127.0.0.1:1", &["node"][..], "NoAuthority", "--tls-ca"),
        (
            "https://127.0.0.1:1",
            &["node", "--tls-ca", "/nowhere/ca.pem"],
            "CertificateUnreadable",
            "/nowhere/ca.pem",
        ),
        (
            "http://127.0.0.1:1",
            &["node", "--tls-ca", "ca.pem"],
            "NotEncrypted",
            "write https",
        ),
    ];
    for (address, args, reason, part) in cases {
        let ended = berthctl(address, args).run(SOON).await.unwrap();
        assert_eq!(code(&ended), 2, "{}", ended.stderr);
        assert!(
            ended.stderr.starts_with(&format!("berthctl: {reason}: ")),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn variables_stand_in_for_options() {
    let fake = Fake::start();
    let program = crate::kit::program(env!("CARGO_BIN_EXE_berthctl"));
    let program = program
        .env("BERTHCTL_ADDRESS", fake.address())
        .env("BERTHCTL_OUTPUT", "json")
        .raw_args(&["node"]);
    let ended = program.run(SOON).await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&ended.stdout).unwrap()["name"],
        "fake-node"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let fake = Fake::start();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_berthctl"))
        .args(["--address", &fake.address(), "devices"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
