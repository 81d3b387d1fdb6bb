//! Our programs as what they are in production: processes, with files, sockets, signals and an exit code.
//!
//! The binaries are those next to the test (`target/debug/berthd`), or those of another build; nothing is built here.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::wait::eventually;

mod cpu;

pub use cpu::cpu_time;

/// From exec to bound addresses. A debug build on a machine that also compiles is slow.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Folder of programs to use instead, where it has them: those of a release that is measured.
const PROGRAMS: &str = "BERTH_PROGRAMS";

/// A program that is about to start, with a directory of its own. In its arguments and variables `{dir}` stands for that
/// directory.
#[derive(Debug)]
pub struct Program {
    executable: Executable,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    dir: Dir,
}

/// A program that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Captured,
    stderr: Captured,
    addresses: serde_json::Value,
    dir: Dir,
}

#[derive(Debug)]
enum Executable {
    /// Built by us, with the package that builds it.
    Ours {
        name: &'static str,
        package: &'static str,
    },
    At(PathBuf),
}

/// What a process has written to one of its outputs.
#[derive(Debug)]
struct Captured {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

/// How a program that ended by itself did.
#[derive(Debug, Clone)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
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
    /// `berthd`, with its state and its socket in its directory, on free ports. Add `--simulate` or an NVML.
    pub fn berthd() -> Self {
        Self::new("berthd", "berth-daemon")
            .arg("--listen", "127.0.0.1:0")
            .arg("--admin", "127.0.0.1:0")
            .arg("--node-name", "test-node")
            .arg("--socket", "{dir}/berthd.sock")
            .arg("--state-dir", "{dir}/state")
    }

    /// `berth-scheduler`, on free ports. Add `--nodes`.
    pub fn scheduler() -> Self {
        Self::new("berth-scheduler", "berth-scheduler")
            .arg("--listen", "127.0.0.1:0")
            .arg("--grpc", "127.0.0.1:0")
            .arg("--admin", "127.0.0.1:0")
    }

    /// `berthctl`, without a single argument.
    pub fn berthctl() -> Self {
        Self::new("berthctl", "berth-cli")
    }

    /// A binary of the workspace, and the package that builds it.
    pub fn new(name: &'static str, package: &'static str) -> Self {
        Self::of(Executable::Ours { name, package })
    }

    /// Any program of this machine.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self::of(Executable::At(path.into()))
    }

    fn of(executable: Executable) -> Self {
        let dir = Dir::Temporary(Arc::new(TempDir::new().expect("a temporary directory")));
        Self {
            executable,
            args: Vec::new(),
            env: BTreeMap::new(),
            dir,
        }
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
                None => Ok(serde_json::from_slice(
                    &fs::read(&address_file).context("nothing is bound yet")?,
                )?),
            })
        });
        match bound.await {
            Ok(Ok(addresses)) => {
                process.addresses = addresses;
                Ok(process)
            }
            Ok(Err(status)) => {
                process.wait(START_DEADLINE).await?;
                bail!("it ended at once with {status}; it logged:\n{}", process.stderr())
            }
            Err(error) => Err(error.context(format!("it logged:\n{}", process.stderr()))),
        }
    }

    /// Starts the program and returns at once.
    ///
    /// # Errors
    /// The binary is not built.
    pub fn spawn(self) -> anyhow::Result<Process> {
        let Self {
            executable,
            args,
            env,
            dir,
        } = self;
        let address_file = dir.path().join("addresses.json");
        if address_file.exists() {
            fs::remove_file(&address_file)?;
        }
        let dir_text = dir.path().to_str().context("the directory's name is not UTF-8")?;
        let mut child = Command::new(executable.find()?)
            .args(args.iter().map(|arg| arg.replace("{dir}", dir_text)))
            .envs(
                env.iter()
                    .map(|(variable, value)| (variable, value.replace("{dir}", dir_text))),
            )
            .env("BERTH_ADDRESS_FILE", &address_file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = Captured::start(child.stdout.take().context("stdout is a pipe")?)?;
        let stderr = Captured::start(child.stderr.take().context("stderr is a pipe")?)?;
        Ok(Process {
            child,
            stdout,
            stderr,
            addresses: serde_json::Value::Null,
            dir,
        })
    }

    /// Starts the program and waits until it ends by itself.
    ///
    /// # Errors
    /// The binary is not built, or the program still runs after `deadline`.
    pub async fn run(self, deadline: Duration) -> anyhow::Result<Ended> {
        let mut process = self.spawn()?;
        let status = process.wait(deadline).await?;
        Ok(Ended {
            status,
            stdout: process.stdout(),
            stderr: process.stderr(),
        })
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
        self.addresses[name]
            .as_str()
            .unwrap_or_else(|| panic!("no `{name}` among the addresses {}", self.addresses))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.text.lock().clone()
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        self.stderr.text.lock().clone()
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
        let pid = self.pid().to_string();
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .stderr(Stdio::null());
        let sent = kill.status()?;
        ensure!(sent.success(), "SIG{name} could not be sent to {}", self.pid());
        Ok(())
    }

    /// Waits for its end, and until all that it wrote is read.
    ///
    /// # Errors
    /// It still runs after `deadline`; the error holds what it logged.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let ended = eventually(deadline, async || {
            let status = self.child.try_wait()?.context("it still runs")?;
            let is_read = self.stdout.reader.is_finished() && self.stderr.reader.is_finished();
            ensure!(is_read, "it has ended with {status}, and a child of it still writes");
            Ok(status)
        })
        .await;
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

// === impl Executable ===

impl Executable {
    fn find(&self) -> anyhow::Result<PathBuf> {
        match self {
            Self::At(path) => Ok(path.clone()),
            Self::Ours { name, package } => {
                // Next to the test executable, which cargo puts into `deps`.
                let test = env::current_exe()?;
                let beside = test.ancestors().skip(1).take(2).map(Path::to_owned);
                let mut places = env::var_os(PROGRAMS).map(PathBuf::from).into_iter().chain(beside);
                let found = places.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()));
                found.with_context(|| {
                    format!("{name} is not built: run `cargo build -p {package}` (with the tests' profile) first")
                })
            }
        }
    }
}

// === impl Captured ===

impl Captured {
    /// Keeps reading, or the program would block on a full pipe.
    fn start(output: impl Read + Send + 'static) -> anyhow::Result<Self> {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&text);
        let reader = thread::Builder::new().name("output".to_owned()).spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                sink.lock().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        })?;
        Ok(Self { text, reader })
    }
}

#[cfg(test)]
mod tests;
