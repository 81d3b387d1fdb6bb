//! Follows the state file: one `stat` per look, read again only when it changed.

use std::{
    fs::{self, File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    sync::Arc,
};

use crate::scenario::{FileError, Scenario, ScenarioFile};

pub(super) struct Watch {
    file: Result<ScenarioFile, String>,
    seen: Option<Stamp>,
    last_good: Option<Arc<Scenario>>,
    /// What was complained of last, so that it is said once and not at every call.
    complaint: Option<String>,
}

/// The file when it was read, and what was in it.
struct Reading {
    stamp: Stamp,
    scenario: Result<Scenario, FileError>,
}

/// What tells one version of the file from another. An edit replaces the file; by hand it may be written in place.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

impl Watch {
    pub(super) fn new(file: Result<ScenarioFile, String>) -> Self {
        Self {
            file,
            seen: None,
            last_good: None,
            complaint: None,
        }
    }

    pub(super) fn file(&self) -> Option<&ScenarioFile> {
        self.file.as_ref().ok()
    }

    /// The scenario now. A file that cannot be read or understood leaves the last good one in force.
    pub(super) fn look(&mut self) -> Option<Arc<Scenario>> {
        match &self.file {
            Err(why) => {
                let why = why.clone();
                self.complain(why);
            }
            Ok(file) => match self.read(file) {
                Ok(None) => {}
                Ok(Some(Reading { stamp, scenario })) => {
                    self.seen = Some(stamp);
                    match scenario {
                        Ok(scenario) => {
                            self.last_good = Some(Arc::new(scenario));
                            self.complaint = None;
                        }
                        Err(error) => self.complain(chain(&error)),
                    }
                }
                Err(error) => self.complain(chain(&error)),
            },
        }
        self.last_good.clone()
    }

    /// `None` if the file is the one that was seen last.
    fn read(&self, file: &ScenarioFile) -> Result<Option<Reading>, FileError> {
        let unreadable = |source| FileError::Read {
            path: file.path().to_owned(),
            source,
        };
        if self.seen == Some(Stamp::of(&fs::metadata(file.path()).map_err(unreadable)?)) {
            return Ok(None);
        }
        let mut open = File::open(file.path()).map_err(unreadable)?;
        let stamp = Stamp::of(&open.metadata().map_err(unreadable)?);
        let mut text = Vec::new();
        open.read_to_end(&mut text).map_err(unreadable)?;
        Ok(Some(Reading {
            stamp,
            scenario: file.parse(&text),
        }))
    }

    #[expect(
        clippy::print_stderr,
        reason = "a library that stands in for a driver has no other way to say it"
    )]
    fn complain(&mut self, what: String) {
        if self.complaint.as_ref() != Some(&what) {
            eprintln!("fake NVML: {what}");
            self.complaint = Some(what);
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched() -> (tempfile::TempDir, ScenarioFile, Watch) {
        let dir = tempfile::tempdir().unwrap();
        let file = ScenarioFile::new(dir.path().join("state.json"));
        let watch = Watch::new(Ok(file.clone()));
        (dir, file, watch)
    }

    #[test]
    fn an_edit_is_seen_at_the_next_look() {
        let (_dir, file, mut watch) = watched();
        assert!(watch.look().is_none());
        let mut scenario = Scenario::default();
        for births in 1..50 {
            scenario.births = births;
            file.save(&scenario).unwrap();
            assert_eq!(watch.look().map(|seen| seen.births), Some(births));
        }
    }

    #[test]
    fn a_broken_file_leaves_the_last_good_one_in_force() {
        let (_dir, file, mut watch) = watched();
        file.save(&Scenario::default()).unwrap();
        assert!(watch.look().is_some());
        fs::write(file.path(), "{").unwrap();
        assert!(watch.look().is_some());
        let complaint = watch.complaint.clone().unwrap();
        assert!(
            complaint.contains("state.json") && complaint.contains("EOF"),
            "{complaint}"
        );
        fs::remove_file(file.path()).unwrap();
        assert!(watch.look().is_some());
        file.save(&Scenario::default()).unwrap();
        assert!(watch.look().is_some());
        assert_eq!(watch.complaint, None);
    }
}
