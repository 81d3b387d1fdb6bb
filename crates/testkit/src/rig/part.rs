//! One part of a rig: a process with a log, that can be stopped, paused, killed and started again.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use super::RigError;

/// A program with its arguments, running or not.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    paused: bool,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartState {
    Running { pid: u32 },
    Paused { pid: u32 },
    Stopped,
}

/// Politeness has an end.
const STOP: Duration = Duration::from_secs(20);

impl Part {
    /// Starts it; its output is appended to `DIR/logs/NAME.log`.
    pub fn start(name: &'static str, program: &Path, args: Vec<String>, dir: &Path) -> Result<Self, RigError> {
        Self::start_with(name, program, args, Vec::new(), dir)
    }

    /// The same, with environment variables on top of ours.
    pub fn start_with(
        name: &'static str,
        program: &Path,
        args: Vec<String>,
        envs: Vec<(String, String)>,
        dir: &Path,
    ) -> Result<Self, RigError> {
        let log = dir.join("logs").join(format!("{name}.log"));
        let mut part = Self {
            name,
            program: program.to_owned(),
            args,
            envs,
            log,
            child: None,
            paused: false,
        };
        part.restart()?;
        Ok(part)
    }

    /// Starts it (again, if it runs: the old process is killed first) with the same arguments.
    pub fn restart(&mut self) -> Result<(), RigError> {
        self.kill();
        let parent = self.log.parent().unwrap_or(&self.log);
        fs::create_dir_all(parent).map_err(|error| RigError::io(parent, error))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|error| RigError::io(&self.log, error))?;
        let errors: File = log.try_clone().map_err(|error| RigError::io(&self.log, error))?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| RigError::start(self.name, error))?;
        self.child = Some(child);
        Ok(())
    }

    /// Replaces its arguments for the next start.
    pub fn set_args(&mut self, args: Vec<String>) {
        self.args = args;
    }

    /// Sets an environment variable for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.envs.push((name.to_owned(), value.to_owned()));
    }

    /// SIGKILL, and waits for its end. What was in flight is lost: that is the point.
    pub fn kill(&mut self) {
        self.paused = false;
        if let Some(mut child) = self.child.take() {
            let _gone_already = child.kill();
            let _status = child.wait();
        }
    }

    /// SIGTERM, and waits; SIGKILL when it takes too long. Answers how it ended.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.resume();
        let mut child = self.child.take()?;
        signal(&child, Signal::SIGTERM);
        let tick = Duration::from_millis(10);
        for _ in 0..STOP.as_millis() / tick.as_millis() {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(tick);
        }
        let _gone_already = child.kill();
        child.wait().ok()
    }

    /// SIGSTOP: it lives, holds its connections, and answers nothing. Returns when its last thread stands still: the signal
    /// alone is only a request, and a busy process answers for a while yet.
    pub fn pause(&mut self) {
        if let Some(child) = &self.child {
            signal(child, Signal::SIGSTOP);
            let stands_still = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            let _or_has_ended = waitid(Id::Pid(pid(child)), stands_still);
            self.paused = true;
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        if let Some(child) = self.child.as_ref().filter(|_| self.paused) {
            signal(child, Signal::SIGCONT);
            self.paused = false;
        }
    }

    pub fn state(&self) -> PartState {
        match &self.child {
            Some(child) if self.paused => PartState::Paused { pid: child.id() },
            Some(child) => PartState::Running { pid: child.id() },
            None => PartState::Stopped,
        }
    }

    /// An error, with its last lines, if it ended by itself.
    pub fn check(&mut self) -> Result<(), RigError> {
        let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) else {
            return Ok(());
        };
        self.child = None;
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        Err(RigError::Died {
            part: self.name.to_owned(),
            status,
            log: self.log_tail(12),
        })
    }

    /// Its last lines.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal(child: &Child, signal: Signal) {
    let _gone_already = kill(pid(child), signal);
}

fn pid(child: &Child) -> Pid {
    // As the kernel gave it: a positive `pid_t`.
    Pid::from_raw(child.id().cast_signed())
}
