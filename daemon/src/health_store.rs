//! Keeps the health memory in `STATE_DIR/health.json`: a restart must not make a broken GPU well.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use berth_gpu::HealthMemory;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often what could not be kept is tried again.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct HealthStore {
    path: PathBuf,
}

impl HealthStore {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("health.json"),
        }
    }

    /// Nothing kept: a clean memory. Something unreadable: it is put aside, and told.
    pub(crate) fn load(&self) -> HealthMemory {
        let read = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return HealthMemory::default(),
            read => read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from)),
        };
        read.unwrap_or_else(|error| {
            let aside = self.path.with_extension("json.corrupt");
            let path = self.path.display();
            warn!(error = &error as &dyn std::error::Error, %path, aside = %aside.display(), "health memory unreadable");
            if let Err(error) = fs::rename(&self.path, &aside) {
                warn!(error = &error as &dyn std::error::Error, "it could not be put aside");
            }
            HealthMemory::default()
        })
    }

    /// Keeps every change until `stop`, and the last one then. A failure is told once, and tried again until it is over.
    pub(crate) async fn follow(self, mut memory: watch::Receiver<Arc<HealthMemory>>, stop: CancellationToken) {
        let mut is_kept = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = memory.changed() => if changed.is_err() { break },
                () = sleep(RETRY), if !is_kept => {}
            }
            self.keep(&mut memory, &mut is_kept).await;
        }
        self.keep(&mut memory, &mut is_kept).await;
    }

    async fn keep(&self, memory: &mut watch::Receiver<Arc<HealthMemory>>, is_kept: &mut bool) {
        let latest = Arc::clone(&memory.borrow_and_update());
        let saved = self.save(latest).await;
        let was_kept = std::mem::replace(is_kept, saved.is_ok());
        match saved {
            Ok(()) if !was_kept => info!("the health memory is kept again"),
            Err(error) if was_kept => warn!(
                error = &error as &dyn std::error::Error,
                "the health memory could not be kept: it is tried again every {} s",
                RETRY.as_secs()
            ),
            Ok(()) | Err(_) => {}
        }
    }

    /// Replaces what is kept, whole or not at all.
    async fn save(&self, memory: Arc<HealthMemory>) -> io::Result<()> {
        let path = self.path.clone();
        spawn_blocking(move || write(&path, &memory)).await?
    }
}

fn write(path: &Path, memory: &HealthMemory) -> io::Result<()> {
    let unfinished = path.with_extension("json.new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(&serde_json::to_vec(memory)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use anyhow::ensure;
    use berth_testkit::{eventually, spawn};

    use super::*;

    #[tokio::test]
    async fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = HealthStore::new(dir.path());
        assert_eq!(store.load(), HealthMemory::default());
        store.save(Arc::new(HealthMemory::default())).await.unwrap();
        let kept = fs::metadata(dir.path().join("health.json")).unwrap();
        assert_eq!(kept.permissions().mode() & 0o777, 0o600);
        assert_eq!(store.load(), HealthMemory::default());
    }

    #[tokio::test]
    async fn what_could_not_be_kept_is_kept_later_and_once_more_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("health.json");
        // As good as a full disk, and root cannot write it either.
        let in_the_way = dir.path().join("health.json.new");
        fs::create_dir(&in_the_way).unwrap();
        let (sender, memory) = watch::channel(Arc::new(HealthMemory::default()));
        let stop = CancellationToken::new();
        let following = spawn(HealthStore::new(dir.path()).follow(memory.clone(), stop.clone()));
        sender.send(Arc::new(HealthMemory::default())).unwrap();
        // Taken, so that only the retry is left.
        sleep(RETRY / 5).await;
        assert!(!kept.exists());
        fs::remove_dir(&in_the_way).unwrap();
        let later = eventually(RETRY * 4, async || {
            ensure!(kept.exists());
            Ok(())
        });
        later.await.unwrap();

        fs::remove_file(&kept).unwrap();
        stop.cancel();
        following.await.unwrap();
        assert!(kept.exists());
    }

    #[test]
    fn an_unreadable_memory_is_put_aside_and_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("health.json"), "{").unwrap();
        assert_eq!(HealthStore::new(dir.path()).load(), HealthMemory::default());
        assert_eq!(fs::read(dir.path().join("health.json.corrupt")).unwrap(), b"{");
    }
}
