//! What can be done to a machine: the verbs of the control tool, for tests to call without it.
//!
//! Every verb takes the GPU as people name it: index, UUID or PCI bus id. A verb that fails has changed nothing that is
//! ever written, as [`super::ScenarioFile::edit`] drops the scenario then.

mod faults;
mod health;
mod mig;
mod plug;

use serde_json::Value;

use super::{BusId, FileError, Gpu, Scenario};

pub use plug::NewGpu;

/// Why a verb was refused.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error("no GPU {wanted:?}: give an index below {known}, a UUID or a PCI bus id")]
    NoSuchGpu { wanted: String, known: usize },
    #[error("no process {pid} on GPU {gpu}")]
    NoSuchProcess { gpu: String, pid: u32 },
    #[error("cannot set {key}: {why}")]
    BadKey { key: String, why: String },
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    File(#[from] FileError),
}

impl EditError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchGpu { .. } => "NoSuchGpu",
            Self::NoSuchProcess { .. } => "NoSuchProcess",
            Self::BadKey { .. } => "BadKey",
            Self::Refused(_) => "Refused",
            Self::File(error) => error.reason(),
        }
    }
}

impl Scenario {
    /// Position of the GPU that `wanted` names.
    pub fn find(&self, wanted: &str) -> Result<usize, EditError> {
        let bus_id = wanted.parse::<BusId>().ok();
        let named = |gpu: &Gpu| gpu.uuid == wanted || Some(gpu.bus_id) == bus_id;
        wanted
            .parse()
            .ok()
            .filter(|index| *index < self.gpus.len())
            .or_else(|| self.gpus.iter().position(named))
            .ok_or_else(|| EditError::NoSuchGpu {
                wanted: wanted.to_owned(),
                known: self.gpus.len(),
            })
    }

    /// The GPU that `wanted` names.
    pub fn gpu_mut(&mut self, wanted: &str) -> Result<&mut Gpu, EditError> {
        let index = self.find(wanted)?;
        Ok(&mut self.gpus[index])
    }

    /// Sets any field of a GPU by its path in the state file, such as `temperature_c` or `ecc.aggregate.corrected.dram`.
    /// The value is JSON; what is no JSON is taken as a string.
    pub fn set(&mut self, wanted: &str, key: &str, value: &str) -> Result<(), EditError> {
        let gpu = self.gpu_mut(wanted)?;
        let bad = |why: String| EditError::BadKey {
            key: key.to_owned(),
            why,
        };
        let before = serde_json::to_value(&*gpu).map_err(|error| bad(error.to_string()))?;
        let with = |value: Value| {
            let mut all = before.clone();
            *at_path(&mut all, key)? = value;
            serde_json::from_value::<Gpu>(all).map_err(|error| error.to_string())
        };
        let text = Value::String(value.to_owned());
        let changed = match serde_json::from_str(value) {
            Ok(json) => with(json).or_else(|why| with(text).map_err(|_| why)),
            Err(_) => with(text),
        };
        *gpu = changed.map_err(bad)?;
        self.check().map_err(bad)
    }
}

/// The place in `root` that a dotted path names, made if it is a new key of an object.
fn at_path<'a>(root: &'a mut Value, key: &str) -> Result<&'a mut Value, String> {
    key.split('.').try_fold(root, |value, part| match value {
        Value::Object(map) => Ok(map.entry(part).or_insert(Value::Null)),
        Value::Array(list) => {
            let len = list.len();
            part.parse::<usize>()
                .ok()
                .and_then(|index| list.get_mut(index))
                .ok_or_else(|| format!("{part:?} is no position in a list of {len}"))
        }
        _ => Err(format!("nothing is below {part:?}")),
    })
}

#[cfg(test)]
mod tests;
