//! Files that a reader always finds whole: written beside their place, then moved there.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Whether the file does not hold just this text.
pub(super) fn differs(path: &Path, text: &str) -> bool {
    fs::read(path).ok().as_deref() != Some(text.as_bytes())
}

/// Replaces the file with this text and mode; makes missing folders.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let mut unfinished = name.to_owned();
    unfinished.push(".unfinished");
    let unfinished = folder.join(unfinished);
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(mode)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    // The process's umask may have taken rights away, and an older file may have had more.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/secrets.json");
        assert!(differs(&path, "1"));
        write(&path, "1", 0o600).unwrap();
        write(&path, "22", 0o440).unwrap();
        assert!(!differs(&path, "22") && differs(&path, "1"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o440);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
