//! `berthctl run` at a terminal: Ctrl-C reaches the command once.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::ensure;
use berth_testkit::eventually;
use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;

use crate::{fake::Fake, kit::SOON};

const TELLS_SIGNALS: &str = "trap 'echo got INT' INT; trap 'echo got USR1' USR1; trap 'exit 9' TERM; echo ready; \
                             while :; do sleep 0.05; done";

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_reaches_the_command_once_and_it_keeps_the_terminal() {
    let fake = Fake::start();
    let terminal = openpty(None, None).unwrap();
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    // util-linux: a session of its own, whose controlling terminal is standard input.
    let mut run = Command::new("setsid")
        .args([
            "--ctty",
            "--wait",
            env!("CARGO_BIN_EXE_berthctl"),
            "--address",
            &fake.address(),
        ])
        .args(["run", "--", "sh", "-c", TELLS_SIGNALS])
        .stdin(slave())
        .stdout(slave())
        .stderr(slave())
        .spawn()
        .unwrap();
    let berthctl = Pid::from_raw(i32::try_from(run.id()).unwrap());
    drop(terminal.slave);
    let mut keyboard = File::from(terminal.master);
    let screen = Arc::new(Mutex::new(String::new()));
    let (mut shown, seen) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
    let reader = thread::Builder::new().spawn(move || {
        let mut buffer = [0; 1024];
        // Ends with the last process on the terminal.
        while let Ok(length @ 1..) = shown.read(&mut buffer) {
            seen.lock().push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    let see = async |text: &str| {
        eventually(SOON, async || {
            let screen = screen.lock().clone();
            ensure!(screen.contains(text), "no {text:?} in {screen:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    see("ready").await;
    keyboard.write_all(b"\x03").unwrap();
    see("got INT").await;
    // Had berthctl passed Ctrl-C on as well, the command would hear of it before this.
    kill(berthctl, Signal::SIGUSR1).unwrap();
    see("got USR1").await;
    assert_eq!(screen.lock().matches("got INT").count(), 1, "{}", screen.lock());
    kill(berthctl, Signal::SIGTERM).unwrap();
    let status = run.wait().unwrap();
    assert_eq!(status.code(), Some(9), "{}", screen.lock());
    reader.unwrap().join().unwrap();
}
