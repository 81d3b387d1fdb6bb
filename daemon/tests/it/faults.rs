//! A disk that is full: nothing is granted that cannot be kept, and all is well again when there is room.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};
use berth_proto::node::v1::ReserveRequest;
use berth_testkit::{Program, eventually};
use tonic::{Code, Status};

use crate::support::{Client, Daemon, SOON, allocations, condition, node, pod, reason, share, simulated};

/// For the journal, in KiB. A claim takes about a third of one.
const ROOM: usize = 64;
/// What else is on that disk, until somebody makes room.
const FILLER: usize = 128;
/// The claims of the test lapse after this; the book is then small again.
const TTL_MS: u64 = 4_000;

/// berthd with a disk that is soon full: a file system of its own where we may mount one, else a limit on the size of its
/// files (the kernel answers EFBIG instead of ENOSPC).
struct SmallDisk {
    mounted: Option<tempfile::TempDir>,
}

impl SmallDisk {
    fn program(&self) -> Program {
        if let Some(dir) = &self.mounted {
            return simulated().arg("--state-dir", dir.path().join("state").to_str().unwrap());
        }
        // SIGXFSZ would end it: ignored signals stay ignored across exec.
        let script = format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", ROOM * 2);
        Program::at("/bin/sh")
            .raw_args(&["-c", &script, env!("CARGO_BIN_EXE_berthd"), "--node-name", "test-node"])
            .raw_args(&[
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--socket",
                "{dir}/berthd.sock",
            ])
            .raw_args(&[
                "--state-dir",
                "{dir}/state",
                "--simulate",
                "dgx-h100",
                "--kubelet-socket",
                "none",
            ])
    }

    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={}k", ROOM + FILLER);
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success()).then_some(dir);
        if let Some(dir) = &mounted {
            fs::write(dir.path().join("filler"), vec![0; FILLER << 10]).expect("room for the filler");
        }
        Self { mounted }
    }

    /// Somebody makes room. With a limit on files nobody can; there it is enough that reservations lapse.
    fn make_room(&self) {
        if let Some(dir) = &self.mounted {
            fs::remove_file(dir.path().join("filler")).expect("the filler");
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(dir) = &self.mounted {
            Command::new("umount").arg(dir.path()).status().expect("umount");
        }
    }
}

async fn reserve(client: &mut Client, uid: &str) -> Result<(), Status> {
    let request = ReserveRequest {
        pod: Some(pod(uid)),
        shape: Some(share(1)),
        ttl_ms: TTL_MS,
        ..ReserveRequest::default()
    };
    client.reserve(request).await.map(drop)
}

#[tokio::test]
async fn a_full_disk_grants_nothing_loses_nothing_and_recovers_by_itself() {
    let disk = SmallDisk::new();
    let mut daemon = Daemon::start(disk.program()).await;
    let mut granted = Vec::new();
    let refused = loop {
        let uid = format!("uid-{}", granted.len());
        match reserve(&mut daemon.client, &uid).await {
            Ok(()) => granted.push(uid),
            Err(status) => break status,
        }
        assert!(granted.len() < 2_000, "the disk is never full");
    };
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "JournalUnavailable")
    );
    assert!(granted.len() > 20, "{}", granted.len());

    let found = node(&mut daemon.client).await.unwrap();
    let told = condition(&found, "JournalHealthy");
    assert_eq!((told.status, told.reason.as_str()), (false, "JournalUnavailable"));
    assert!(told.message.contains("make room"), "{}", told.message);
    let book = allocations(&mut daemon.client).await.unwrap();
    assert!(book.len() <= granted.len(), "what was refused is not held");
    assert_eq!(found.devices.len(), 8, "reading goes on");

    disk.make_room();
    let healthy = eventually(SOON, async || {
        reserve(&mut daemon.client, "after").await.context("still full")?;
        let found = node(&mut daemon.client).await?;
        ensure!(condition(&found, "JournalHealthy").status, "not healthy yet");
        Ok(())
    });
    healthy.await.unwrap();
    daemon.process.kill();
    drop(daemon);
    drop(disk);
}

#[tokio::test]
async fn a_grant_that_was_refused_for_the_disk_is_not_there_after_a_crash() {
    let disk = SmallDisk::new();
    let mut daemon = Daemon::start(disk.program()).await;
    let mut granted = 0;
    let refused = loop {
        let uid = format!("uid-{granted}");
        match reserve(&mut daemon.client, &uid).await {
            Ok(()) => granted += 1,
            Err(_) => break uid,
        }
    };
    let state = disk
        .mounted
        .as_ref()
        .map_or_else(|| daemon.process.dir().join("state"), |dir| dir.path().join("state"));
    daemon.process.kill();
    let journal = fs::read_to_string(state.join("journal")).unwrap();
    assert!(journal.ends_with('\n'), "no half line is left behind");
    assert!(!journal.contains(&format!("\"{refused}\"")), "{refused} was refused");
    for number in 0..granted {
        assert!(
            journal.contains(&format!("\"uid-{number}\"")),
            "uid-{number} was granted"
        );
    }
}
