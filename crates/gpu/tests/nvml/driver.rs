//! The driver as a whole: absent, unloaded, upgraded, slow, hanging, no driver at all.

use std::{fs, path::PathBuf, time::Duration};

use berth_fake_nvml::scenario::{Effect, ReturnCode};
use berth_gpu::{
    GpuBackend as _, GpuError, MonitorConfig, NvmlBackend,
    backend::Progress,
    inventory::{DriverState, Inventory},
};
use berth_placement::Health;

use crate::rig::{Machine, Rig, absent_because, fast, is_ready, now};

fn open(library: PathBuf) -> GpuError {
    let mut backend = NvmlBackend::new(Some(library));
    backend
        .with_session(&Progress::default(), &mut |_| panic!("no session can begin"))
        .unwrap_err()
}

#[test]
fn what_is_no_nvml_is_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let missing = open(dir.path().join("libnvidia-ml.so.1"));
    assert_eq!(missing.reason(), "NoLibrary");
    assert!(missing.to_string().contains("libnvidia-ml.so.1"), "{missing}");

    let garbage = dir.path().join("garbage.so");
    fs::write(&garbage, b"this is no shared object").unwrap();
    assert_eq!(open(garbage).reason(), "NoLibrary");

    let other = open(PathBuf::from("libm.so.6"));
    assert_eq!(other.reason(), "NoLibrary");
    assert!(other.to_string().contains("nvmlInit"), "{other}");
}

#[test]
fn a_driver_that_is_not_loaded_is_no_session() {
    let machine = Machine::of("l40sx1");
    machine.edit(|scenario| {
        scenario.unload();
        Ok(())
    });
    assert_eq!(open(machine.installed.library.clone()), GpuError::NoDriver);
}

#[test]
fn sessions_begin_and_end_without_leaving_anything_open() {
    let machine = Machine::of("dgx-h100");
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = || {
        let text = fs::read_to_string("/proc/self/maps").unwrap();
        text.lines()
            .filter(|line| line.contains(machine.installed.library.to_str().unwrap()))
            .count()
    };
    machine.session(|session| session.discover().unwrap()).unwrap();
    let before = open_files();
    for _ in 0..20 {
        machine.session(|session| session.discover().unwrap()).unwrap();
    }
    assert!(
        open_files() <= before + 15,
        "other tests may have files open, but twenty sessions leave none"
    );
    assert_eq!(maps(), 0, "the library is unmapped, or an upgrade would never be seen");
}

#[tokio::test]
async fn an_unloaded_driver_is_reported_and_found_again() {
    let rig = Rig::of("dgx-h100", fast());
    rig.ready(8).await;
    rig.machine.edit(|scenario| scenario.xid("1", 79, None));
    rig.health(1, Health::Unhealthy).await;
    rig.machine.edit(|scenario| {
        scenario.unload();
        Ok(())
    });
    let absent = rig
        .until("absence", |now| absent_because(now) == Some("NoDriver"))
        .await;
    assert!(absent.devices.is_empty());
    rig.machine.edit(|scenario| {
        scenario.load(None);
        Ok(())
    });
    let back = rig.ready(8).await;
    assert_ne!(
        back.devices[1].health.state,
        Health::Unhealthy,
        "a driver that is loaded anew initialises every GPU"
    );
    rig.health(1, Health::Healthy).await;
}

#[tokio::test]
async fn a_driver_upgrade_under_our_feet_is_survived() {
    let rig = Rig::of("dgx-h100", fast());
    rig.ready(8).await;
    rig.machine.edit(|scenario| {
        scenario.upgrade("590.44.01");
        Ok(())
    });
    let upgraded =
        |now: &Inventory| matches!(&now.driver, DriverState::Ready(driver) if driver.driver_version == "590.44.01");
    let inventory = rig.until("the new version", upgraded).await;
    assert_eq!(inventory.devices.len(), 8);
    rig.ready(8).await;
}

#[tokio::test]
async fn a_library_that_stays_old_is_a_reported_mismatch() {
    let machine = Machine::of("l40sx1");
    machine.edit(|scenario| {
        scenario.break_call(
            "nvmlInitWithFlags",
            None,
            Effect::Fail(ReturnCode::LIB_RM_VERSION_MISMATCH),
        )
    });
    let rig = machine.watch(fast());
    rig.until("the mismatch", |now| absent_because(now) == Some("VersionMismatch"))
        .await;
    rig.machine.edit(|scenario| scenario.mend_calls(None, None));
    rig.ready(1).await;
}

#[tokio::test]
async fn slow_calls_are_no_hang() {
    let machine = Machine::of("l40sx2");
    machine.edit(|scenario| scenario.break_call("*", None, Effect::SlowMs(20)));
    for gpu in ["0", "1"] {
        machine.edit(|scenario| scenario.break_call("*", Some(gpu), Effect::SlowMs(60)));
    }
    // A sweep takes longer than what counts as a hang; each call of it does not.
    let started = now();
    let rig = machine.watch(MonitorConfig {
        hang_after: Duration::from_millis(900),
        ..fast()
    });
    rig.ready(2).await;
    assert!(started.elapsed() > Duration::from_millis(900));
    rig.machine.edit_gpu("0", |gpu| gpu.temperature_c = 77);
    let mut inventory = rig.monitor.inventory.clone();
    loop {
        let now = inventory.borrow_and_update().clone();
        assert!(is_ready(&now), "{:?}", now.driver);
        if now.devices[0]
            .sample
            .as_ref()
            .is_some_and(|sample| sample.temperature_celsius == Some(77))
        {
            break;
        }
        tokio::time::timeout(Duration::from_secs(30), inventory.changed())
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_call_that_hangs_is_reported_and_survived() {
    let rig = Rig::of(
        "dgx-h100",
        MonitorConfig {
            hang_after: Duration::from_millis(500),
            ..fast()
        },
    );
    rig.ready(8).await;
    rig.machine
        .edit(|scenario| scenario.break_call("nvmlDeviceGetTemperature", Some("3"), Effect::Hang));
    let hung = rig
        .until("a hang", |now| matches!(now.driver, DriverState::NotAnswering { .. }))
        .await;
    assert_eq!(hung.devices.len(), 8);
    assert!(hung.devices.iter().all(|device| device.health.state == Health::Suspect));
    rig.machine.edit(|scenario| scenario.mend_calls(None, None));
    rig.until("recovery", |now| {
        is_ready(now) && now.devices.iter().all(|device| device.health.state == Health::Healthy)
    })
    .await;
}

#[tokio::test]
async fn a_stop_is_prompt_while_a_call_hangs() {
    let rig = Rig::of("dgx-h100", fast());
    rig.ready(8).await;
    rig.machine
        .edit(|scenario| scenario.break_call("*", Some("3"), Effect::Hang));
    let asked = now();
    rig.monitor.stop();
    tokio::time::timeout(Duration::from_secs(10), rig.monitor.stopped())
        .await
        .unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        asked.elapsed()
    );
    rig.machine.edit(|scenario| scenario.mend_calls(None, None));
}

#[tokio::test]
async fn a_gpu_whose_calls_fail_is_suspect_and_the_others_are_not() {
    let rig = Rig::of("l40sx3", fast());
    rig.ready(3).await;
    rig.machine
        .edit(|scenario| scenario.break_call("*", Some("1"), Effect::Fail(ReturnCode::UNKNOWN)));
    let inventory = rig.health(1, Health::Suspect).await;
    assert_eq!(inventory.devices[0].health.state, Health::Healthy);
    assert_eq!(inventory.devices[2].health.state, Health::Healthy);
    rig.machine.edit(|scenario| scenario.mend_calls(None, None));
    rig.health(1, Health::Healthy).await;
}
