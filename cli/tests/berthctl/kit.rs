//! What the tests of this program share.

use std::{fs, time::Duration};

use anyhow::ensure;
use berth_testkit::{Process, Program, eventually, process::Ended};

use crate::fake::Fake;

/// For anything that must happen. Long, because the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// berthctl, asked to talk to this daemon.
pub(crate) fn berthctl(address: &str, args: &[&str]) -> Program {
    program(env!("CARGO_BIN_EXE_berthctl"))
        .raw_args(&["--address", address])
        .raw_args(args)
}

/// A program that finds nothing of the tester's own settings.
pub(crate) fn program(path: &str) -> Program {
    Program::at(path).env("USER", "alice").env("BERTHCTL_OUTPUT", "table")
}

pub(crate) async fn ask(fake: &Fake, args: &[&str]) -> Ended {
    berthctl(&fake.address(), args).run(SOON).await.unwrap()
}

pub(crate) fn code(ended: &Ended) -> i32 {
    ended
        .status
        .code()
        .unwrap_or_else(|| panic!("{} {}", ended.status, ended.stderr))
}

/// Starts berthctl and waits until the command under it has written `text`.
pub(crate) async fn start_and_see(fake: &Fake, args: &[&str], text: &str) -> Process {
    let process = berthctl(&fake.address(), args).spawn().unwrap();
    see(&process, text).await;
    process
}

pub(crate) async fn see(process: &Process, text: &str) {
    eventually(SOON, async || {
        let (stdout, stderr) = (process.stdout(), process.stderr());
        ensure!(
            stdout.contains(text) || stderr.contains(text),
            "no {text:?} in {stdout:?} and {stderr:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until no such process runs. One that nobody has reaped yet has ended too.
pub(crate) async fn gone(pid: &str) {
    eventually(SOON, async || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let runs = status
            .lines()
            .any(|line| line.starts_with("State:") && !line.contains('Z'));
        ensure!(!runs, "{pid} still runs:\n{status}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until this many AcquireLease streams are open.
pub(crate) async fn open_leases(fake: &Fake, count: usize) {
    let mut open = fake.state.open_leases.subscribe();
    tokio::time::timeout(SOON, open.wait_for(|open| *open == count))
        .await
        .expect("in time")
        .unwrap();
}

/// A signal that whoever started the tests made us ignore (`nohup`, a job in the background) stays ignored below us too.
pub(crate) fn is_ignored_here(signal: &str) -> bool {
    let number = match signal {
        "HUP" => 1,
        "INT" => 2,
        _ => return false,
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap()
        .trim();
    u64::from_str_radix(mask, 16).unwrap() & (1 << (number - 1)) != 0
}
