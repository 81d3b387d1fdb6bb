//! A machine without GPUs that behaves as if it had some: real products, stable names, faults on command.
//!
//! Readings are constant until somebody does something to the machine, so that an idle daemon has nothing to publish. The
//! commands ([`Command`]) come from the same process through [`SimControl`], or from outside through a file of JSON lines.

mod command;
mod control_file;
mod gpu;
mod machine;
mod profile;
mod session;

use std::{path::PathBuf, sync::Arc};

use berth_placement::NodeName;
use parking_lot::{Condvar, Mutex};

pub use command::{Command, CommandError, GpuSelector};
pub use profile::{ParseProfileError, Profile};

use self::{control_file::ControlFile, machine::Machine, session::SimSession};
use crate::{GpuBackend, GpuError, GpuSession, backend::Progress};

/// The simulated driver. Clones share one machine, so that a new worker thread finds it as the old one left it.
#[derive(Debug, Clone)]
pub struct SimBackend {
    shared: Arc<Shared>,
}

/// Breaks and mends the simulated machine at run time.
#[derive(Debug, Clone)]
pub struct SimControl {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    machine: Mutex<Machine>,
    /// Something happened to the machine.
    changed: Condvar,
    control_file: Option<Mutex<ControlFile>>,
}

impl SimBackend {
    /// The machine of `profile`. UUIDs follow from `node` and the position, so they are the same after a restart.
    pub fn new(profile: &Profile, node: &NodeName) -> Self {
        Self::build(profile, node, None)
    }

    /// The same, obeying the commands that are appended to `file`, one JSON object a line; see [`Command`]. The file need
    /// not exist yet. What it holds at the start is applied to the new machine, except that past XIDs are not sent again.
    pub fn with_control_file(profile: &Profile, node: &NodeName, file: PathBuf) -> Self {
        Self::build(profile, node, Some(file))
    }

    fn build(profile: &Profile, node: &NodeName, file: Option<PathBuf>) -> Self {
        let mut machine = Machine::new(profile, node);
        let control_file = file.map(|path| {
            let mut file = ControlFile::new(path);
            for command in file.poll() {
                if !matches!(command, Command::Xid { .. }) {
                    obey(&mut machine, &command);
                }
            }
            machine.drop_events();
            Mutex::new(file)
        });
        Self {
            shared: Arc::new(Shared {
                machine: Mutex::new(machine),
                changed: Condvar::new(),
                control_file,
            }),
        }
    }

    /// For tests and demos in the same process.
    pub fn control(&self) -> SimControl {
        SimControl {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl GpuBackend for SimBackend {
    fn with_session(&mut self, progress: &Progress, body: &mut dyn FnMut(&mut dyn GpuSession)) -> Result<(), GpuError> {
        let mut session = SimSession::open(&self.shared, progress)?;
        body(&mut session);
        Ok(())
    }
}

impl SimControl {
    /// Does it at once; a waiting session is woken.
    pub fn send(&self, command: &Command) -> Result<(), CommandError> {
        self.shared.machine.lock().obey(command)?;
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Shared {
    /// Obeys what was appended to the control file. True if anything was.
    fn poll_control_file(&self, machine: &mut Machine) -> bool {
        let Some(file) = &self.control_file else { return false };
        let commands = file.lock().poll();
        for command in &commands {
            obey(machine, command);
        }
        !commands.is_empty()
    }
}

fn obey(machine: &mut Machine, command: &Command) {
    if let Err(error) = machine.obey(command) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            ?command,
            "the simulated machine refused a command"
        );
    }
}

#[cfg(test)]
mod tests;
