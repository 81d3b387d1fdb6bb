//! Keeps the health memory in `STATE_DIR/health.json`: a restart must not make a broken GPU well.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_gpu::HealthMemory;
use tokio::task::spawn_blocking;
use tracing::warn;

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

    /// Replaces what is kept, whole or not at all.
    pub(crate) async fn save(&self, memory: Arc<HealthMemory>) -> io::Result<()> {
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

    #[test]
    fn an_unreadable_memory_is_put_aside_and_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("health.json"), "{").unwrap();
        assert_eq!(HealthStore::new(dir.path()).load(), HealthMemory::default());
        assert_eq!(fs::read(dir.path().join("health.json.corrupt")).unwrap(), b"{");
    }
}
