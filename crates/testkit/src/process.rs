//! Our programs as what they are in production: processes, with files, sockets, signals and an exit code.
//!
//! The binaries are those next to the test (`target/debug/berthd`); nothing is built here.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::wait::eventually;

/// From exec to bound addresses. A debug build on a machine that also compiles is slow.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A program that is about to start. Everything it may bind is bound to a free port or a temporary directory.
#[derive(Debug)]
pub struct Program {
    binary: &'static str,
    package: &'static str,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    dir: Dir,
}

/// A program that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    addresses: serde_json::Value,
    dir: Dir,
}

/// Where a process keeps its files.
#[derive(Debug, Clone)]
enum Dir {
    /// Removed with the last process that uses it.
    Temporary(Arc<TempDir>),
    Kept(PathBuf),
}

// === impl Program ===

impl Program {
    /// `berthd`, with its state and its socket in a temporary directory. Add `--simulate` or an NVML.
    pub fn berthd() -> Self {
        Self::new("berthd", "berth-daemon")
            .arg("--listen", "127.0.0.1:0")
            .arg("--admin", "127.0.0.1:0")
            .arg("--node-name", "test-node")
    }

    /// `berth-scheduler`. Add `--nodes`.
    pub fn scheduler() -> Self {
        Self::new("berth-scheduler", "berth-scheduler")
            .arg("--extender", "127.0.0.1:0")
            .arg("--listen", "127.0.0.1:0")
            .arg("--admin", "127.0.0.1:0")
    }

    /// Any binary of the workspace, without a single argument.
    pub fn new(binary: &'static str, package: &'static str) -> Self {
        let dir = Dir::Temporary(Arc::new(TempDir::new().expect("a temporary directory")));
        Self { binary, package, args: Vec::new(), env: BTreeMap::new(), dir }
    }

    /// Sets a flag, once: a flag that is set already gets the new value.
    #[must_use]
    pub fn arg(mut self, flag: &str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref().to_owned();
        match self.args.iter().position(|known| known == flag) {
            Some(index) => self.args[index + 1] = value,
            None => self.args.extend([flag.to_owned(), value]),
        }
        self
    }

    /// Adds arguments as they are.
    #[must_use]
    pub fn raw_args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, variable: &str, value: impl AsRef<str>) -> Self {
        self.env.insert(variable.to_owned(), value.as_ref().to_owned());
        self
    }

    /// Uses the directory of a process that ended: the same state, the same socket.
    #[must_use]
    pub fn in_dir_of(mut self, process: &Process) -> Self {
        self.dir = process.dir.clone();
        self
    }

    /// Uses a directory that is kept.
    #[must_use]
    pub fn in_dir(mut self, dir: &Path) -> Self {
        self.dir = Dir::Kept(dir.to_owned());
        self
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the program and waits until it has bound everything.
    ///
    /// # Errors
    /// The binary is not built, or the program ended or bound nothing; the error holds what it logged.
    pub async fn start(self) -> anyhow::Result<Process> {
        let address_file = self.dir.path().join("addresses.json");
        let mut process = self.spawn()?;
        let bound = eventually(START_DEADLINE, async || {
            let ended = process.child.try_wait()?;
            Ok(match ended {
                Some(status) => Err(status),
                None => Ok(serde_json::from_slice(&fs::read(&address_file).context("nothing is bound yet")?)?),
            })
        });
        match bound.await {
            Ok(Ok(addresses)) => {
                process.addresses = addresses;
                Ok(process)
            }
            Ok(Err(status)) => bail!("it ended at once with {status}; it logged:\n{}", process.stderr()),
            Err(error) => Err(error.context(format!("it logged:\n{}", process.stderr()))),
        }
    }

    /// Starts a program that is expected to end by itself.
    ///
    /// # Errors
    /// The binary is not built.
    pub fn spawn(self) -> anyhow::Result<Process> {
        let Self { binary, package, args, env, dir } = self;
        let address_file = dir.path().join("addresses.json");
        if address_file.exists() {
            fs::remove_file(&address_file)?;
        }
        let mut command = Command::new(find_binary(binary, package)?);
        if binary == "berthd" {
            command.arg("--socket").arg(dir.path().join("berthd.sock"));
            command.arg("--state-dir").arg(dir.path().join("state"));
        }
        command.args(args).envs(env).env("BERTH_ADDRESS_FILE", &address_file);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = capture(child.stderr.take().context("stderr is a pipe")?)?;
        Ok(Process { child, stderr, addresses: serde_json::Value::Null, dir })
    }
}

// === impl Process ===

impl Process {
    /// `http://IP:PORT` of gRPC.
    pub fn grpc(&self) -> String {
        format!("http://{}", self.address("grpc"))
    }

    /// `http://IP:PORT` of the admin endpoint.
    pub fn admin(&self) -> String {
        format!("http://{}", self.address("admin"))
    }

    /// `http://IP:PORT` of the scheduler extender.
    pub fn extender(&self) -> String {
        format!("http://{}", self.address("extender"))
    }

    /// Path of the unix socket.
    pub fn socket(&self) -> PathBuf {
        self.address("socket").into()
    }

    /// What the program announced under `name`; a panic that names it if it did not.
    pub fn address(&self, name: &str) -> &str {
        self.addresses[name].as_str().unwrap_or_else(|| panic!("no `{name}` among the addresses {}", self.addresses))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().clone()
    }

    /// Ends it as a power cut does, and waits for its end.
    pub fn kill(&mut self) {
        // Err means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Asks it to end, as the kubelet does first.
    ///
    /// # Errors
    /// It has ended already.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal("TERM")
    }

    /// Sends a signal by its name without SIG.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        // The shell's own kill: the system call would need unsafe code, and a kill program may not be installed.
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()]).status()?;
        ensure!(sent.success(), "SIG{name} could not be sent to {}", self.pid());
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after `deadline`; the error holds what it logged.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let ended = eventually(deadline, async || self.child.try_wait()?.context("it still runs")).await;
        ended.with_context(|| format!("it logged:\n{}", self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Dir ===

impl Dir {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(path) => path,
        }
    }
}

/// Next to the test executable, which cargo puts into `deps`.
fn find_binary(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let test = env::current_exe()?;
    let places = test.ancestors().skip(1).take(2);
    let found = places.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build -p {package}` (with the test's profile) first"))
}

/// Keeps reading, or the program would block on a full pipe.
fn capture(stderr: std::process::ChildStderr) -> anyhow::Result<Arc<Mutex<String>>> {
    let captured = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&captured);
    thread::Builder::new().name("stderr".to_owned()).spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut sink = sink.lock();
            sink.push_str(&line);
            sink.push('\n');
        }
    })?;
    Ok(captured)
}
