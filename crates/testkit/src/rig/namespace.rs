//! A network namespace without a route out, and a pid namespace that takes every part with it when it ends.
//!
//! As root directly; as another user through a user namespace.

use std::{
    env, fs,
    io::Read as _,
    process::{Command, Stdio, exit},
};

use nix::unistd::Uid;

use super::RigError;

/// Set in the process that runs inside.
const INSIDE: &str = "BERTH_RIG_INSIDE";

/// Runs a test's body inside namespaces of its own: the test calls itself again through `unshare`.
///
/// `test` is the test's full name (`module::name`), as the test runner knows it. Panics with the inner test's failure.
#[expect(clippy::panic, reason = "a failed test panics")]
pub fn inside(test: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        if let Err(error) = settle() {
            panic!("{error}");
        }
        body();
        return;
    }
    let program = env::current_exe().unwrap_or_else(|error| panic!("no path of the test program: {error}"));
    let mut command = enter(&program.display().to_string());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    // The pipe stays open for as long as we live: see `settle`.
    command.env(INSIDE, "1").stdin(Stdio::piped());
    let status = command.spawn().and_then(|mut child| {
        // `wait` would close it.
        let _held_open = child.stdin.take();
        child.wait()
    });
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{test} failed inside its namespace ({status})"),
        Err(error) => panic!("cannot run `unshare` (package util-linux): {error}"),
    }
}

/// [`inside`] with a body that waits, on one thread.
#[expect(clippy::panic, reason = "a failed test panics")]
pub fn in_rig(test: &str, body: impl AsyncFnOnce()) {
    inside(test, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        runtime.block_on(body());
    });
}

/// `unshare … PROGRAM`, ready for the program's arguments.
pub fn enter(program: &str) -> Command {
    let mut command = Command::new("unshare");
    if !Uid::effective().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(program);
    command
}

/// What the first process inside has to do: bring loopback up, and end when whoever started it has ended.
pub fn settle() -> Result<(), RigError> {
    loopback_up()?;
    let watch = std::thread::Builder::new().name("parent-watch".to_owned()).spawn(|| {
        let mut nothing = [0_u8; 1];
        // Ends only when the other end of the pipe is closed: its owner is dead.
        while std::io::stdin().read(&mut nothing).is_ok_and(|count| count > 0) {}
        exit(143);
    });
    watch.map(drop).map_err(|error| RigError::start("parent-watch", error))
}

/// A new namespace has its loopback device down.
pub fn loopback_up() -> Result<(), RigError> {
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(RigError::Namespace(format!("`ip link set lo up` failed ({status})"))),
        Err(error) => Err(RigError::Namespace(format!(
            "`ip` (package iproute2) cannot be run: {error}"
        ))),
    }
}

/// Refuses to start parts where a packet could leave the machine.
pub(super) fn require_isolation() -> Result<(), RigError> {
    // Field 2 is the destination, 8 the mask: all zero is a default route. Header in the first line.
    let routes = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    if routes.lines().skip(1).any(|line| !line.trim().is_empty()) {
        return Err(RigError::NotIsolated);
    }
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let others = devices
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .any(|(name, _)| name.trim() != "lo");
    if others { Err(RigError::NotIsolated) } else { Ok(()) }
}
