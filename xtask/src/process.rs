//! Programs of ours as child processes: started on free ports, ended by process id when dropped.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A running program that told its addresses.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    child: Child,
    log: PathBuf,
    addresses: Value,
}

impl Program {
    /// Starts it and waits until it has written its addresses; its log goes to `dir/NAME.log`.
    pub(crate) fn start(name: &str, dir: &Path, command: &mut Command) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let told = dir.join(format!("{name}.addresses.json"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .env("BERTH_ADDRESS_FILE", &told)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut program = Self {
            name: name.to_owned(),
            child,
            log,
            addresses: Value::Null,
        };
        program.addresses = wait_for(Duration::from_secs(30), || {
            if let Some(status) = program.child.try_wait()? {
                bail!(
                    "{} ended at its start ({status}):\n{}",
                    program.name,
                    program.log_tail()
                );
            }
            Ok(std::fs::read(&told)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok()))
        })
        .with_context(|| format!("{name} did not start:\n{}", program.log_tail()))?;
        Ok(program)
    }

    /// The address that it bound for this purpose: "grpc", "admin", "extender".
    pub(crate) fn address(&self, what: &str) -> anyhow::Result<&str> {
        self.addresses[what]
            .as_str()
            .with_context(|| format!("{} told no {what} address: {}", self.name, self.addresses))
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Asks until there is an answer, at most this long.
pub(crate) fn wait_for<T>(longest: Duration, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let watch = Stopwatch::start();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if watch.elapsed() > longest {
            bail!("nothing came within {} s", longest.as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Measures how long something took.
#[derive(Debug)]
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a developer's command needs no injected clock")]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
