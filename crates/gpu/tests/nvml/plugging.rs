//! GPUs that come and go while the monitor watches.

use berth_fake_nvml::scenario::{NewGpu, Presence};
use berth_placement::Health;

use crate::rig::{Machine, Rig, by_events_only, fast, is_ready, reasons};

#[tokio::test]
async fn a_gpu_that_is_plugged_in_is_found_at_once() {
    let rig = Rig::of("l40sx4", by_events_only());
    let before = rig.ready(4).await;
    rig.machine.edit(|scenario| scenario.plug(NewGpu::default()));
    let after = rig.ready(5).await;
    assert!(
        before
            .devices
            .iter()
            .all(|device| after.device(&device.facts.uuid).is_some())
    );
    rig.hears_xids_of(4).await;
}

#[tokio::test]
async fn a_gpu_that_is_unplugged_is_gone_and_the_rest_move_up() {
    let rig = Rig::of("l40sx4", by_events_only());
    let before = rig.ready(4).await;
    rig.machine.edit(|scenario| scenario.unplug("0"));
    let after = rig.ready(3).await;
    assert!(after.device(&before.devices[0].facts.uuid).is_none());
    assert_eq!(after.devices[0].facts.uuid, before.devices[1].facts.uuid);
    assert_eq!(after.devices[0].facts.index, 0);
    assert!(
        is_ready(&after)
            && after
                .devices
                .iter()
                .all(|device| device.health.state == Health::Healthy)
    );
}

#[tokio::test]
async fn what_happened_to_a_gpu_is_remembered_across_a_reconnect() {
    let rig = Rig::of("l40sx4", fast());
    rig.ready(4).await;
    rig.machine.edit(|scenario| scenario.xid("3", 79, None));
    rig.health(3, Health::Unhealthy).await;
    rig.machine.edit(|scenario| scenario.unplug("0"));
    let after = rig.ready(3).await;
    assert_eq!(
        (after.devices[2].health.state, reasons(&after, 2)),
        (Health::Unhealthy, vec!["Xid"])
    );
}

#[tokio::test]
async fn a_gpu_that_was_lost_before_the_start_is_reported_and_found_when_it_answers() {
    let machine = Machine::of("dgx-h100");
    machine.edit_gpu("6", |gpu| gpu.presence = Presence::Lost);
    let rig = machine.watch(fast());
    let inventory = rig.ready(7).await;
    assert_eq!(
        (inventory.unidentified[0].index, inventory.unidentified[0].reason),
        (6, "DeviceLost")
    );
    rig.machine.edit(|scenario| scenario.restore("6"));
    assert!(rig.ready(8).await.unidentified.is_empty());
}
