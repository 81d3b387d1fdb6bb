//! What the driver tells of its own accord. These run without sweeps, so that nothing but events can be the cause.

use std::time::Duration;

use berth_fake_nvml::scenario::{Effect, EventKind, Presence, RecoveryAction, ReturnCode};
use berth_gpu::MonitorConfig;
use berth_placement::Health;

use crate::rig::{Machine, Rig, by_events_only, fast, now, reasons};

#[tokio::test]
async fn an_xid_is_published_within_a_second() {
    let rig = Rig::of("dgx-h100", by_events_only());
    rig.ready(8).await;
    let sent = now();
    rig.machine.edit(|scenario| scenario.xid("6", 48, None));
    let inventory = rig.health(6, Health::Unhealthy).await;
    assert!(sent.elapsed() < Duration::from_secs(1), "it took {:?}", sent.elapsed());
    let reason = &inventory.devices[6].health.reasons[0];
    assert_eq!((reason.reason, reason.xid), ("Xid", Some(48)));
    assert!(
        inventory
            .devices
            .iter()
            .filter(|device| device.health.state != Health::Healthy)
            .count()
            == 1
    );
}

#[tokio::test]
async fn an_xid_of_an_application_changes_nothing() {
    let rig = Rig::of("dgx-h100", by_events_only());
    let before = rig.ready(8).await.generation;
    for code in [13, 31, 43, 45, 68, 109] {
        rig.machine.edit(|scenario| scenario.xid("0", code, None));
    }
    // The next one is heard, so those before it were heard too.
    rig.hears_xids_of(1).await;
    let inventory = rig.monitor.inventory.borrow().clone();
    assert_eq!(inventory.devices[0].health.state, Health::Healthy);
    assert_eq!(inventory.generation, before + 1);
}

#[tokio::test]
async fn an_event_makes_the_monitor_look_at_once() {
    let rig = Rig::of("dgx-h100", by_events_only());
    rig.ready(8).await;
    rig.machine.edit(|scenario| {
        scenario.gpu_mut("4")?.recovery_action = RecoveryAction::DrainAndReset;
        scenario.xid("4", 154, None)
    });
    let inventory = rig.health(4, Health::Unhealthy).await;
    assert_eq!(
        reasons(&inventory, 4),
        ["RecoveryActionDrain"],
        "the XID itself is only a notice"
    );
}

#[tokio::test]
async fn a_gpu_without_events_does_not_silence_the_others() {
    let machine = Machine::of("dgx-h100");
    machine.edit_gpu("0", |gpu| gpu.events = Some(vec![]));
    machine.edit_gpu("2", |gpu| gpu.events = Some(vec![EventKind::Clock]));
    let rig = machine.watch(by_events_only());
    rig.ready(8).await;
    rig.hears_xids_of(7).await;
}

#[tokio::test]
async fn a_gpu_that_fails_to_register_does_not_silence_the_others() {
    let machine = Machine::of("dgx-h100");
    for (gpu, code) in [("0", ReturnCode::UNKNOWN), ("5", ReturnCode::NOT_SUPPORTED)] {
        machine.edit(|scenario| scenario.break_call("nvmlDeviceRegisterEvents", Some(gpu), Effect::Fail(code)));
    }
    let rig = machine.watch(by_events_only());
    rig.ready(8).await;
    rig.hears_xids_of(1).await;
    rig.hears_xids_of(7).await;
}

#[tokio::test]
async fn a_driver_without_events_is_watched_by_sweeps() {
    let machine = Machine::of("dgx-h100");
    machine.edit(|scenario| scenario.break_call("nvmlEventSetCreate", None, Effect::Fail(ReturnCode::NOT_SUPPORTED)));
    let rig = machine.watch(fast());
    rig.ready(8).await;
    rig.machine.edit(|scenario| scenario.lose("3", Presence::Lost, true));
    assert_eq!(reasons(&*rig.health(3, Health::Unhealthy).await, 3), ["Lost"]);
}

#[tokio::test]
async fn waiting_that_always_fails_leaves_the_sweeps() {
    let machine = Machine::of("dgx-h100x2");
    machine.edit(|scenario| scenario.break_call("nvmlEventSetWait_v2", None, Effect::Fail(ReturnCode::UNKNOWN)));
    let rig = machine.watch(fast());
    rig.ready(2).await;
    rig.machine
        .edit_gpu("1", |gpu| gpu.recovery_action = RecoveryAction::NodeReboot);
    assert_eq!(
        reasons(&*rig.health(1, Health::Unhealthy).await, 1),
        ["RecoveryActionReboot"]
    );
}

#[tokio::test]
async fn a_gpu_that_falls_off_the_bus_is_named_and_its_siblings_are_still_heard() {
    let rig = Rig::of("dgx-h100", by_events_only());
    rig.ready(8).await;
    rig.machine.edit(|scenario| scenario.lose("3", Presence::Lost, false));
    let both = |now: &berth_gpu::Inventory| reasons(now, 3) == ["Xid", "Lost"];
    let inventory = rig.until("XID and loss", both).await;
    assert!(
        (0..8)
            .filter(|at| *at != 3)
            .all(|at| inventory.devices[at].health.state == Health::Healthy)
    );
    rig.hears_xids_of(4).await;
}

#[tokio::test]
async fn a_loss_without_a_word_is_noticed_by_the_wait_itself() {
    let rig = Rig::of("dgx-h100", by_events_only());
    rig.ready(8).await;
    rig.machine.edit(|scenario| scenario.lose("2", Presence::Lost, true));
    assert_eq!(reasons(&*rig.health(2, Health::Unhealthy).await, 2), ["Lost"]);
    rig.hears_xids_of(0).await;
}

#[tokio::test]
async fn a_gpu_that_comes_back_recovers_and_is_heard_again() {
    let rig = Rig::of(
        "dgx-h100",
        MonitorConfig {
            refresh: Duration::from_hours(1),
            ..fast()
        },
    );
    rig.ready(8).await;
    rig.machine.edit(|scenario| scenario.lose("3", Presence::Lost, false));
    // Seen to be gone, not only told: else its return is no sign of a reset.
    rig.until("the loss", |now| reasons(now, 3) == ["Xid", "Lost"]).await;
    rig.machine.edit(|scenario| scenario.restore("3"));
    rig.health(3, Health::Healthy).await;
    rig.machine.edit(|scenario| scenario.xid("3", 62, None));
    assert_eq!(reasons(&*rig.health(3, Health::Unhealthy).await, 3), ["Xid"]);
}
