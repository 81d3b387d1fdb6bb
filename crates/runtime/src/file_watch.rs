//! Notices that files may have changed. It watches their *directories*: Kubernetes replaces a mounted secret by swapping
//! a symlink next to it, and an editor by renaming over it; both are lost on a watch of the file itself.
//!
//! A slow poll backs the kernel's events up, for file systems that send none. Callers compare contents; a wake-up is
//! only a hint.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::warn;

/// Wake-up without an event.
const POLL: Duration = Duration::from_secs(30);
/// Writers change several files one after the other: let them finish.
const SETTLE: Duration = Duration::from_millis(100);

/// Tells when files may have changed.
#[derive(Debug)]
pub struct FileWatch {
    directories: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
    /// Absent where the kernel gives none (out of inotify instances): then the poll is all there is.
    watcher: Option<RecommendedWatcher>,
}

impl FileWatch {
    /// Watches from now on, also for files and folders that are not there yet.
    pub fn new<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let directories = files.into_iter().map(|file| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        });
        let changed = Arc::new(Notify::new());
        let on_event = {
            let changed = Arc::clone(&changed);
            move |event: notify::Result<notify::Event>| {
                // Our own reads are events too.
                if !matches!(
                    event,
                    Ok(notify::Event {
                        kind: EventKind::Access(_),
                        ..
                    })
                ) {
                    changed.notify_one();
                }
            }
        };
        let watcher = notify::recommended_watcher(on_event)
            .inspect_err(|error| warn!(error = error as &dyn std::error::Error, "no file events: polling only"))
            .ok();
        let mut watch = Self {
            directories: directories.collect(),
            changed,
            watcher,
        };
        watch.arm();
        watch
    }

    /// Returns when a file may have changed, and every [`POLL`].
    pub async fn changed(&mut self) {
        if tokio::time::timeout(POLL, self.changed.notified()).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
        self.arm();
    }

    /// A directory may not be there yet, or be another one under the same name by now; arming it again is cheap.
    fn arm(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for directory in &self.directories {
            // The next poll tries again, and reading the file tells what is wrong.
            drop(watcher.watch(directory, RecursiveMode::NonRecursive));
        }
    }
}
