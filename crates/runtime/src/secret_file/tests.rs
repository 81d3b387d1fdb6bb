use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use berth_testkit::{eventually, spawn};

use super::*;

/// Much more than an event and its settling take, and less than the poll that backs events up.
const SOON: Duration = Duration::from_secs(10);

async fn reads(file: &SecretFile, text: &str) {
    let reads = eventually(SOON, async || {
        let secret = file.current().context("no secret")?;
        ensure!(secret.expose_str() == Some(text), "another secret");
        Ok(())
    });
    reads.await.unwrap();
}

#[test]
fn a_secret_is_never_printed() {
    let secret = Secret::from(b"hunter2\n".to_vec());
    assert_eq!(secret.expose_str(), Some("hunter2"));
    assert_eq!(secret.expose(), b"hunter2\n");
    assert_eq!(format!("{secret:?}"), "Secret(not shown)");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), "hunter2").unwrap();
    let file = SecretFile::new(dir.path().join("token"));
    assert!(file.current().is_some());
    assert!(!format!("{file:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_secret_may_come_late_change_and_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let file = SecretFile::new(&path);
    assert_eq!(file.current(), None);
    let stop = CancellationToken::new();
    let follow = spawn(file.clone().follow(stop.clone()));

    fs::write(&path, "one").unwrap();
    reads(&file, "one").await;
    fs::write(&path, "two\n").unwrap();
    reads(&file, "two").await;
    let mut changes = file.subscribe();
    changes.mark_unchanged();
    fs::write(&path, "").unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "three").unwrap();
    changes.changed().await.unwrap();
    reads(&file, "three").await;

    stop.cancel();
    follow.await.unwrap();
}

#[test]
fn an_empty_or_missing_file_keeps_the_last_secret_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "good").unwrap();
    let file = SecretFile::new(&path);
    fs::write(&path, " \n").unwrap();
    assert_eq!(file.reload().unwrap_err().reason(), "SecretEmpty");
    fs::remove_file(&path).unwrap();
    assert_eq!(file.reload().unwrap_err().reason(), "SecretUnreadable");
    assert_eq!(file.current().unwrap().expose_str(), Some("good"));
}

#[tokio::test]
async fn a_mounted_secret_is_followed_through_its_symlink_swap() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let put = |version: &str, secret: &str| {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("token"), secret).unwrap();
        symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    put("..2026_1", "one");
    symlink("..data/token", at("token")).unwrap();
    let file = SecretFile::new(at("token"));
    assert_eq!(file.current().unwrap().expose_str(), Some("one"));
    let stop = CancellationToken::new();
    let follow = spawn(file.clone().follow(stop.clone()));
    for version in ["two", "three"] {
        put(&format!("..2026_{version}"), version);
        reads(&file, version).await;
    }
    stop.cancel();
    follow.await.unwrap();
}
