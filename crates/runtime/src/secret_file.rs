//! A secret that somebody else keeps in a file (OpenBao's agent, the kubelet): read, watched, last good kept, and never
//! printed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::file_watch::FileWatch;

/// Bytes that never appear in a log. Compares like bytes; not in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// A secret in a file that may come late, change, and vanish. Clones share one secret.
#[derive(Debug, Clone)]
pub struct SecretFile {
    path: Arc<Path>,
    current: watch::Sender<Option<Arc<Secret>>>,
}

/// The file gives no secret. What it gave before stays in use.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("cannot read {path}")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is empty")]
    Empty { path: PathBuf },
}

// === impl Secret ===

impl Secret {
    /// The secret itself. Hand it to its consumer, and to nobody else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// As text without white space at the end, which most writers of such files add; `None` if it is not UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        str::from_utf8(&self.0).ok().map(str::trim_end)
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

// === impl SecretFile ===

impl SecretFile {
    /// Reads the file if it is there. [`Self::follow`] keeps it fresh.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (current, _) = watch::channel(None);
        let file = Self {
            path: path.into().into(),
            current,
        };
        if let Err(error) = file.reload() {
            warn!(
                error = &error as &dyn std::error::Error,
                reason = error.reason(),
                "no secret yet"
            );
        }
        file
    }

    /// The last good secret; `None` as long as there was none.
    pub fn current(&self) -> Option<Arc<Secret>> {
        self.current.borrow().clone()
    }

    /// Re-reads the file now: for whoever asks once per request. A file that gives no secret leaves the last good one.
    ///
    /// # Errors
    /// The file gives no secret, and never gave one.
    pub fn read(&self) -> Result<Arc<Secret>, SecretFileError> {
        let read = self.reload();
        match (self.current(), read) {
            (Some(secret), _) => Ok(secret),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(SecretFileError::Empty {
                path: self.path.to_path_buf(),
            }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Follows the secret. Changes only when its content does.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Secret>>> {
        self.current.subscribe()
    }

    /// Re-reads the file whenever it may have changed, until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        let mut files = FileWatch::new([&*self.path]);
        let mut was_good = self.current().is_some();
        loop {
            // Before the first wait too: the file may have changed before the watch was armed.
            match self.reload() {
                Ok(()) => was_good = true,
                Err(error) if was_good => {
                    was_good = false;
                    let error_chain = &error as &dyn std::error::Error;
                    warn!(
                        error = error_chain,
                        reason = error.reason(),
                        "keeping the secret that was good last"
                    );
                }
                Err(_) => {}
            }
            if stop.run_until_cancelled(files.changed()).await.is_none() {
                return;
            }
        }
    }

    fn reload(&self) -> Result<(), SecretFileError> {
        let path = || self.path.to_path_buf();
        let bytes = fs::read(&self.path).map_err(|source| SecretFileError::Unreadable { path: path(), source })?;
        if bytes.trim_ascii().is_empty() {
            return Err(SecretFileError::Empty { path: path() });
        }
        self.current.send_if_modified(|current| {
            let changed = current.as_ref().is_none_or(|secret| secret.0 != bytes);
            if changed {
                info!(path = %self.path.display(), "secret read");
                *current = Some(Arc::new(Secret(bytes)));
            }
            changed
        });
        Ok(())
    }
}

impl SecretFileError {
    /// Stable name of the error.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "SecretUnreadable",
            Self::Empty { .. } => "SecretEmpty",
        }
    }
}

#[cfg(test)]
mod tests;
