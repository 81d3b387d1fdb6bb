//! The control file: JSON lines that somebody appends, read as they come.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use super::Command;

/// Most that is read at once: a demo's whole script fits, a file by mistake does not fill the memory.
const MAX_READ: u64 = 256 * 1024;

/// A reader's place in the file.
#[derive(Debug)]
pub(super) struct ControlFile {
    path: PathBuf,
    offset: u64,
    /// The last failure, so that one that lasts is told once.
    failed: bool,
}

impl ControlFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            failed: false,
        }
    }

    /// The complete lines since the last time; lines that are no command are reported and skipped.
    pub(super) fn poll(&mut self) -> Vec<Command> {
        match self.read_new() {
            Ok(text) => {
                self.failed = false;
                text.lines()
                    .filter(|line| !line.trim().is_empty())
                    .filter_map(|line| self.parse(line))
                    .collect()
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) && error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %self.path.display(), "the control file cannot be read");
                }
                Vec::new()
            }
        }
    }

    fn parse(&self, line: &str) -> Option<Command> {
        let parsed = serde_json::from_str(line);
        if let Err(error) = &parsed {
            tracing::warn!(
                %error, path = %self.path.display(),
                "a line of the control file is no command such as {{\"xid\":{{\"gpu\":3,\"code\":79}}}}"
            );
        }
        parsed.ok()
    }

    fn read_new(&mut self) -> io::Result<String> {
        let length = std::fs::metadata(&self.path)?.len();
        if length < self.offset {
            // Written anew: it starts over.
            self.offset = 0;
        }
        if length == self.offset {
            return Ok(String::new());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(MAX_READ).read_to_end(&mut bytes)?;
        let complete = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            // A line that never ends is passed over.
            None if bytes.len() as u64 == MAX_READ => bytes.len(),
            None => 0,
        };
        bytes.truncate(complete);
        self.offset += complete as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn file_with(text: &str) -> (tempfile::TempDir, ControlFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        fs::write(&path, text).unwrap();
        (dir, ControlFile::new(path))
    }

    fn append(file: &ControlFile, text: &str) {
        let mut out = fs::OpenOptions::new().append(true).open(&file.path).unwrap();
        out.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn each_line_is_read_once_and_only_when_it_is_complete() {
        let (_dir, mut file) = file_with("{\"hang\":{}}\n{\"ans");
        assert_eq!(file.poll(), [Command::Hang {}]);
        assert!(file.poll().is_empty());
        append(&file, "wer\":{}}\n");
        assert_eq!(file.poll(), [Command::Answer {}]);
        assert!(file.poll().is_empty());
    }

    #[test]
    fn garbage_is_skipped_and_a_file_that_is_written_anew_starts_over() {
        let (_dir, mut file) = file_with("what?\n\n{\"xid\":{\"index\":3,\"code\":79}}\n\u{fffd}\n{\"unload\":{}}\n");
        assert_eq!(
            file.poll(),
            [
                Command::Xid {
                    gpu: 3.into(),
                    code: 79
                },
                Command::Unload {}
            ]
        );
        fs::write(&file.path, "{\"load\":{}}\n").unwrap();
        assert_eq!(file.poll(), [Command::Load { version: None }]);
    }

    #[test]
    fn a_missing_file_is_no_command() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = ControlFile::new(dir.path().join("later"));
        assert!(file.poll().is_empty());
        fs::write(&file.path, "{\"hang\":{}}\n").unwrap();
        assert_eq!(file.poll(), [Command::Hang {}]);
    }
}
