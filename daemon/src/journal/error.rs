//! What can be wrong with a journal, with what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::line::FORMAT;

/// What can be wrong with a journal.
#[derive(Debug, Error)]
pub enum JournalError {
    #[error(
        "another berthd uses the state directory {}: give each its own --state-dir, or stop the other one",
        dir.display()
    )]
    Locked { dir: PathBuf },
    #[error(
        "the state directory {} cannot be used ({action}): make it a directory that this user may write, or give another --state-dir",
        dir.display()
    )]
    StateDir {
        dir: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "the journal in {} belongs to node {theirs:?}, this is {ours:?}: give the --node-name or the --state-dir that belongs together, or move the journal away",
        dir.display()
    )]
    OtherNode { dir: PathBuf, theirs: String, ours: String },
    #[error(
        "the journal in {} has format {format}, this berthd reads {FORMAT}: start the newer version, or move the journal away",
        dir.display()
    )]
    OtherFormat { dir: PathBuf, format: u32 },
    #[error(
        "{} is not a regular file: move it away, or give another --state-dir",
        path.display()
    )]
    NotAFile { path: PathBuf },
    #[error("the journal cannot be written")]
    Write(#[source] io::Error),
    #[error("the journal cannot be read back")]
    Read(#[source] io::Error),
    #[error("the journal could not be written before, and is behind the book")]
    Behind,
    #[error("a record cannot be encoded")]
    Encode(#[source] serde_json::Error),
}

impl JournalError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "StateDirLocked",
            Self::StateDir { .. } => "StateDirUnusable",
            Self::OtherNode { .. } => "JournalOfOtherNode",
            Self::OtherFormat { .. } => "JournalFormatUnknown",
            Self::NotAFile { .. } => "JournalNotAFile",
            Self::Write(_) | Self::Behind | Self::Encode(_) => "JournalUnavailable",
            Self::Read(_) => "JournalUnreadable",
        }
    }
}
