//! `berthctl run` at a terminal: Ctrl-C reaches the command, and only by the terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
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

/// berthctl in the foreground of a terminal of its own.
struct Terminal {
    berthctl: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn run(fake: &Fake, command: &[&str]) -> Self {
        let terminal = openpty(None, None).unwrap();
        let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
        // Of util-linux: a session whose controlling terminal is standard input. It becomes berthctl without a fork.
        let berthctl = Command::new("setsid")
            .args([
                "--ctty",
                env!("CARGO_BIN_EXE_berthctl"),
                "--address",
                &fake.address(),
                "run",
                "--",
            ])
            .args(command)
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        drop(terminal.slave);
        let keyboard = File::from(terminal.master);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut shown, seen) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        let reader = thread::Builder::new().spawn(move || {
            let mut buffer = [0; 1024];
            // Ends with the last process on the terminal.
            while let Ok(length @ 1..) = shown.read(&mut buffer) {
                seen.lock().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self {
            berthctl,
            keyboard,
            screen,
            reader: reader.unwrap(),
        }
    }

    async fn see(&self, text: &str) {
        eventually(SOON, async || {
            let screen = self.screen.lock().clone();
            ensure!(screen.contains(text), "no {text:?} in {screen:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    fn press_ctrl_c(&mut self) {
        self.keyboard.write_all(b"\x03").unwrap();
    }

    /// To berthctl alone, as `kill` does.
    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.berthctl.id()).unwrap()), signal).unwrap();
    }

    /// The exit code, and all that was on the screen.
    fn end(mut self) -> (Option<i32>, String) {
        self.send(Signal::SIGTERM);
        let status = self.berthctl.wait().unwrap();
        self.reader.join().unwrap();
        (status.code(), self.screen.lock().clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_reaches_the_command() {
    let fake = Fake::start();
    let mut terminal = Terminal::run(&fake, &["sh", "-c", TELLS_SIGNALS]);
    terminal.see("ready").await;
    terminal.press_ctrl_c();
    terminal.see("got INT").await;
    assert_eq!(terminal.end().0, Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_is_not_passed_on_a_second_time() {
    let fake = Fake::start();
    // In a session of its own the terminal does not reach it: what it hears, it hears from berthctl.
    let mut terminal = Terminal::run(&fake, &["setsid", "sh", "-c", TELLS_SIGNALS]);
    terminal.see("ready").await;
    terminal.press_ctrl_c();
    // The terminal has shown it: berthctl has the signal, and takes the next one after it.
    terminal.see("^C").await;
    terminal.send(Signal::SIGUSR1);
    terminal.see("got USR1").await;
    let (exit, screen) = terminal.end();
    assert_eq!(exit, Some(9), "{screen}");
    assert!(!screen.contains("got INT"), "{screen}");
}
