//! The book on disk: `STATE_DIR/journal`, lines of records, appended to and now and then rewritten shorter.
//!
//! What is promised. [`Journal::commit`] returns after the whole batch was handed to the kernel in one write: it then
//! survives the death of this process at any instant. Power loss: with [`SyncMode::Always`] it is also on the disk by
//! then; with [`SyncMode::Group`] it is there at most [`WINDOW`] and one sync later, so a power loss may cost the grants
//! of those last milliseconds (and the kubelet tells again of every pod that runs). One line holds all records of one
//! event, so that a torn line never splits a change in two.
//!
//! A write that fails leaves the file as it was before. From then on the journal is behind the book, and only
//! [`Journal::rewrite`] with the whole book makes it good again.
//!
//! Must not know what records mean.

mod error;
mod flush;
mod line;
mod scan;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_ledger::Record;
use berth_placement::NodeName;
use berth_runtime::SharedClock;
use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;

pub use error::JournalError;
pub use flush::WINDOW;
use flush::{Flusher, OnError};
use line::{FORMAT, Header};
use scan::Scan;

/// A journal is rewritten once it is longer than this and four times as long as its last rewrite: at 20,000 grants a
/// second that is once or twice a second, and a start reads at most a few tens of milliseconds.
const COMPACT_ABOVE: u64 = 8 << 20;
const COMPACT_RATIO: u64 = 4;

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// When the kernel has it; the disk follows within milliseconds.
    #[default]
    Group,
    /// When the disk has it.
    Always,
}

/// What opening a journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Lines read.
    pub lines: u64,
    /// Bytes of a last line that a crash cut short.
    pub torn_bytes: u64,
    pub corrupt: Option<Corrupt>,
    /// There was no journal.
    pub new: bool,
}

/// A journal with damage in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt {
    pub damaged_lines: u64,
    /// Where the damaged file is kept.
    pub kept_as: PathBuf,
}

/// What the journal needs from its surroundings.
#[derive(Debug)]
pub struct JournalOptions {
    pub dir: PathBuf,
    pub node: NodeName,
    pub sync: SyncMode,
    pub clock: SharedClock,
    /// Seconds that a write took, and a sync.
    pub write_latency: Histogram,
    pub sync_latency: Histogram,
}

/// The journal of this process. Holds the lock on the state directory.
#[derive(Debug)]
pub struct Journal {
    options: JournalOptions,
    _lock: File,
    /// `None` while the journal is behind the book.
    file: Option<Arc<File>>,
    flusher: Flusher,
    /// Lines of the batch that is not committed.
    staged: Vec<u8>,
    len: u64,
    rewritten_len: u64,
    /// Where the next rewrite puts the damaged file.
    put_aside: Option<PathBuf>,
}

impl Journal {
    /// Takes the state directory and reads what is in it: every line's records go to `each` in order, with a flag that
    /// says whether damage lies before them. Call [`Self::rewrite`] next where [`Self::is_behind`] or where it is
    /// damaged; until then nothing on disk has changed but the end of the last line.
    pub fn open(
        options: JournalOptions,
        on_sync_error: OnError,
        each: impl FnMut(Vec<Record>, bool),
    ) -> Result<(Self, Opened), JournalError> {
        let dir = options.dir.clone();
        let wrong = |action| {
            move |source| JournalError::StateDir {
                dir: dir.clone(),
                action,
                source,
            }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&options.dir)
            .map_err(wrong.clone()("creating it"))?;
        let lock = lock(&options.dir)?;
        let flusher = Flusher::start(options.clock.clone(), options.sync_latency.clone(), on_sync_error)
            .map_err(wrong.clone()("starting the thread that syncs it"))?;
        let path = options.dir.join("journal");
        // Opening a fifo would wait for ever, and reading a device may never end.
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(JournalError::NotAFile { path });
        }
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(wrong("opening the journal")(error)),
        };
        let found = match &file {
            Some(file) => scan::scan(BufReader::new(file), each).map_err(JournalError::Read)?,
            None => Scan::default(),
        };
        check_header(&found, &options)?;
        let (usable, len) = match file {
            Some(file) if found.header.is_some() && found.damaged == 0 => match mend_tail(&file, &found) {
                Ok(len) => (Some(file), len),
                // It must not be added to; a rewrite may still succeed.
                Err(_) => (None, found.len),
            },
            _ => (None, found.len),
        };
        let corrupt = (found.damaged > 0).then(|| Corrupt {
            damaged_lines: found.damaged,
            kept_as: options
                .dir
                .join(format!("journal.corrupt-{}", options.clock.now_unix_ms())),
        });
        let put_aside = corrupt.as_ref().map(|corrupt| corrupt.kept_as.clone());
        let opened = Opened {
            lines: found.lines,
            torn_bytes: found.torn,
            corrupt,
            new: found.len == 0,
        };
        let journal = Self {
            options,
            _lock: lock,
            file: usable.map(Arc::new),
            flusher,
            staged: Vec::new(),
            len,
            rewritten_len: 0,
            put_aside,
        };
        Ok((journal, opened))
    }

    /// The file does not hold the book: only [`Self::rewrite`] helps.
    pub fn is_behind(&self) -> bool {
        self.file.is_none()
    }

    /// Worth a rewrite for its length.
    pub fn is_long(&self) -> bool {
        self.len > COMPACT_ABOVE && self.len > self.rewritten_len.saturating_mul(COMPACT_RATIO)
    }

    /// Adds the records of one event to the batch.
    pub fn stage<'a>(&mut self, records: impl Iterator<Item = &'a Record> + Clone) -> Result<(), JournalError> {
        line::encode(records, &mut self.staged).map_err(JournalError::Encode)
    }

    /// Drops the batch.
    pub fn unstage(&mut self) {
        self.staged.clear();
    }

    /// Writes the batch. On an error nothing of it is in the file, and the journal is behind.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        let Some(file) = &self.file else {
            self.staged.clear();
            return Err(JournalError::Behind);
        };
        if self.staged.is_empty() {
            return Ok(());
        }
        let start = self.options.clock.monotonic();
        let written = file
            .write_all_at(&self.staged, self.len)
            .and_then(|()| match self.options.sync {
                SyncMode::Always => file.sync_data(),
                SyncMode::Group => Ok(()),
            });
        self.options
            .write_latency
            .observe(self.options.clock.monotonic().saturating_sub(start).as_secs_f64());
        let staged = self.staged.len() as u64;
        self.staged.clear();
        match written {
            Ok(()) => {
                self.len += staged;
                if self.options.sync == SyncMode::Group {
                    self.flusher.written(file);
                }
                Ok(())
            }
            Err(error) => {
                self.give_up();
                Err(JournalError::Write(error))
            }
        }
    }

    /// What is in the file can no longer be relied on, or no more can be added. Cuts off what was not acknowledged.
    pub fn give_up(&mut self) {
        self.flusher.forget();
        if let Some(file) = self.file.take() {
            // Where even this fails, what is left is a line that was never acknowledged: the next rewrite drops it.
            file.set_len(self.len).ok();
        }
    }

    /// Replaces the file by one that holds exactly `records`: shorter, or good again. The old file stays until the new
    /// one is on the disk; one with damage is kept beside it.
    pub fn rewrite<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) -> Result<(), JournalError> {
        let header = Header {
            berth_journal: FORMAT,
            node: self.options.node.as_str().to_owned(),
        };
        let mut bytes = Vec::new();
        line::encode_value(&header, &mut bytes).map_err(JournalError::Encode)?;
        for record in records {
            line::encode([record].into_iter(), &mut bytes).map_err(JournalError::Encode)?;
        }
        let unfinished = self.options.dir.join("journal.new");
        let replaced = self.replace(&unfinished, &bytes);
        if replaced.is_err() {
            // It holds nothing that is not elsewhere, and the disk may be full.
            fs::remove_file(&unfinished).ok();
        }
        let file = replaced.map_err(JournalError::Write)?;
        self.flusher.forget();
        self.file = Some(Arc::new(file));
        self.len = bytes.len() as u64;
        self.rewritten_len = self.len;
        self.put_aside = None;
        Ok(())
    }

    fn replace(&self, unfinished: &Path, bytes: &[u8]) -> io::Result<File> {
        let path = self.options.dir.join("journal");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(unfinished)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        if let Some(kept_as) = &self.put_aside {
            // A second name first, so that at no instant there is no journal. It may be there from an earlier try.
            match fs::hard_link(&path, kept_as) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::copy(&path, kept_as).map(drop)?,
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(unfinished, &path)?;
        File::open(&self.options.dir)?.sync_all()?;
        Ok(file)
    }

    /// Reads the file again, as [`Self::open`] did: the book as it is on disk.
    pub fn read_back(&self, each: impl FnMut(Vec<Record>, bool)) -> Result<(), JournalError> {
        let file = File::open(self.options.dir.join("journal")).map_err(JournalError::Read)?;
        let whole = io::Read::take(file, self.len);
        scan::scan(BufReader::new(whole), each).map_err(JournalError::Read)?;
        Ok(())
    }
}

/// Makes the file end where a line ends. Returns its length.
fn mend_tail(file: &File, found: &Scan) -> io::Result<u64> {
    file.set_len(found.len)?;
    if !found.is_unterminated {
        return Ok(found.len);
    }
    file.write_all_at(b"\n", found.len)?;
    Ok(found.len + 1)
}

/// The lock lives in the directory itself: no file that a full disk could refuse or a crash leave behind.
fn lock(dir: &Path) -> Result<File, JournalError> {
    let wrong = |source| JournalError::StateDir {
        dir: dir.to_owned(),
        action: "locking it",
        source,
    };
    let lock = File::open(dir).map_err(wrong)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(wrong(source)),
    }
}

fn check_header(found: &Scan, options: &JournalOptions) -> Result<(), JournalError> {
    match &found.header {
        Some(header) if header.berth_journal != FORMAT => Err(JournalError::OtherFormat {
            dir: options.dir.clone(),
            format: header.berth_journal,
        }),
        Some(header) if header.node != options.node.as_str() => Err(JournalError::OtherNode {
            dir: options.dir.clone(),
            theirs: header.node.clone(),
            ours: options.node.as_str().to_owned(),
        }),
        _ => Ok(()),
    }
}
