//! The state file: read whole, replaced whole, one writer at a time.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::Scenario;

/// A scenario on disk. Readers never see half a file: an edit writes a new one and renames it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioFile {
    path: PathBuf,
}

/// Why the state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read scenario {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("scenario {path} is not what it should be; `fake-nvml-ctl init` writes one that is")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("scenario {path} does not make sense: {what}")]
    Invalid { path: PathBuf, what: String },
    #[error("cannot lock scenario {path}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot write scenario {path}; it is unchanged")]
    Write { path: PathBuf, source: io::Error },
}

impl FileError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "ScenarioUnreadable",
            Self::Parse { .. } => "ScenarioMalformed",
            Self::Invalid { .. } => "ScenarioInvalid",
            Self::Lock { .. } => "ScenarioLocked",
            Self::Write { .. } => "ScenarioUnwritable",
        }
    }
}

impl ScenarioFile {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn load(&self) -> Result<Scenario, FileError> {
        let text = fs::read(&self.path).map_err(|source| FileError::Read {
            path: self.path.clone(),
            source,
        })?;
        self.parse(&text)
    }

    pub(crate) fn parse(&self, text: &[u8]) -> Result<Scenario, FileError> {
        let scenario: Scenario = serde_json::from_slice(text).map_err(|source| FileError::Parse {
            path: self.path.clone(),
            source,
        })?;
        self.check(&scenario)?;
        Ok(scenario)
    }

    /// Writes the scenario, whatever was there before.
    pub fn save(&self, scenario: &Scenario) -> Result<(), FileError> {
        let _lock = self.lock()?;
        self.replace(scenario)
    }

    /// Reads, changes and writes back under the lock. If `change` fails, nothing is written.
    pub fn edit<T, E: From<FileError>>(&self, change: impl FnOnce(&mut Scenario) -> Result<T, E>) -> Result<T, E> {
        let _lock = self.lock()?;
        let mut scenario = self.load()?;
        let done = change(&mut scenario)?;
        self.replace(&scenario)?;
        Ok(done)
    }

    fn check(&self, scenario: &Scenario) -> Result<(), FileError> {
        scenario.check().map_err(|what| FileError::Invalid {
            path: self.path.clone(),
            what,
        })
    }

    /// A file beside the scenario, as the scenario itself changes identity with every edit. Held until dropped.
    fn lock(&self) -> Result<File, FileError> {
        let take = || {
            let file = File::options().create(true).append(true).open(self.beside("lock"))?;
            file.lock()?;
            Ok(file)
        };
        take().map_err(|source| FileError::Lock {
            path: self.path.clone(),
            source,
        })
    }

    fn replace(&self, scenario: &Scenario) -> Result<(), FileError> {
        self.check(scenario)?;
        let write = || {
            let new = self.beside("new");
            let mut text = serde_json::to_vec_pretty(scenario)?;
            text.push(b'\n');
            fs::write(&new, text)?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|source| FileError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(suffix);
        self.path.with_file_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::EditError;

    fn scratch() -> (tempfile::TempDir, ScenarioFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = ScenarioFile::new(dir.path().join("state.json"));
        (dir, file)
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let (_dir, file) = scratch();
        let scenario = crate::profiles::machine("dgx-h100").unwrap().build("test").unwrap();
        file.save(&scenario).unwrap();
        assert_eq!(file.load().unwrap(), scenario);
    }

    #[test]
    fn a_failed_edit_changes_nothing() {
        let (_dir, file) = scratch();
        file.save(&Scenario::default()).unwrap();
        let result: Result<(), EditError> = file.edit(|scenario| {
            scenario.driver.loaded = false;
            Err(EditError::NoSuchGpu {
                wanted: "7".to_owned(),
                known: 0,
            })
        });
        assert!(result.is_err());
        assert!(file.load().unwrap().driver.loaded);
    }

    #[test]
    fn concurrent_edits_are_all_kept() {
        let (_dir, file) = scratch();
        file.save(&Scenario::default()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let bump = |scenario: &mut Scenario| {
                            scenario.births += 1;
                            Ok::<_, FileError>(())
                        };
                        file.edit(bump).unwrap();
                    }
                });
            }
        });
        assert_eq!(file.load().unwrap().births, 100);
    }

    #[test]
    fn an_unknown_key_is_told_with_the_known_ones() {
        let (_dir, file) = scratch();
        fs::write(file.path(), br#"{"gpu": []}"#).unwrap();
        let error = file.load().unwrap_err();
        assert_eq!(error.reason(), "ScenarioMalformed");
        assert!(format!("{error:?}").contains("`gpus`"), "{error:?}");
    }
}
