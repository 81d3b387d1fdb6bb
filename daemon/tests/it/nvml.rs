//! The real NVML path, against a library that does what a script says: faults, a driver that goes and comes, one that
//! hangs.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use berth_fake_nvml::{
    Installed, Scenario, built_library,
    profiles::machine,
    scenario::{EditError, Effect},
};
use berth_proto::{
    node::v1::{AllocationState, Device, HealthState, WatchNodeRequest},
    podresources::v1::ClaimResource,
};
use berth_testkit::{FakeKubelet, Program, eventually};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

use crate::support::{Daemon, SOON, condition, devices, node, reason, whole};

/// A machine of the catalogue, scripted.
struct Machine {
    installed: Installed,
    _dir: TempDir,
}

impl Machine {
    fn of(profile: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = built_library().expect("libberth_fake_nvml.so is built with this test");
        let scenario = machine(profile).unwrap().build("gpu-a").unwrap();
        let installed = Installed::new(dir.path(), &library, &scenario).unwrap();
        Self { installed, _dir: dir }
    }

    fn berthd(&self) -> Program {
        self.berthd_of_kubelet("none")
    }

    fn berthd_of_kubelet(&self, socket: &str) -> Program {
        Program::berthd()
            .arg("--nvml-library", self.installed.library.to_str().unwrap())
            .arg("--kubelet-socket", socket)
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Scenario) -> Result<T, EditError>) -> T {
        self.installed.state.edit(change).unwrap()
    }
}

/// Waits until a device is as `is_so` says.
async fn until_device(daemon: &mut Daemon, index: usize, is_so: impl Fn(&Device) -> bool) {
    let client = &mut daemon.client;
    let found = eventually(SOON, async || {
        let node = node(client).await?;
        let device = node.devices.get(index).context("no such device")?;
        ensure!(is_so(device), "{device:?}");
        Ok(())
    });
    found.await.unwrap();
}

#[tokio::test]
async fn the_driver_tells_devices_and_an_xid_within_a_second() {
    let machine = Machine::of("dgx-h100");
    let mut daemon = Daemon::start(machine.berthd()).await;
    let found = daemon.node().await;
    assert!(!found.simulated);
    assert_eq!(found.driver.as_ref().unwrap().backend, "nvml");
    assert_eq!(found.devices.len(), 8);
    daemon.reserve("a", whole(1)).await.unwrap();

    let request = WatchNodeRequest { after_generation: 0 };
    let mut watch = daemon.client.watch_node(request).await.unwrap().into_inner();
    watch.next().await.unwrap().unwrap();
    machine.edit(|scenario| scenario.xid("2", 79, None));
    let told = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            let node = watch.next().await.unwrap().unwrap().node.unwrap();
            let health = node.devices[2].health.clone().unwrap();
            if health.reasons.iter().any(|reason| reason.xid == Some(79)) {
                return health;
            }
        }
    });
    assert_eq!(told.await.expect("within a second").state(), HealthState::Unhealthy);
    assert_eq!(
        reason(&daemon.reserve("b", whole(7)).await.unwrap_err()),
        "InsufficientDevices"
    );
}

#[tokio::test]
async fn a_broken_gpu_is_still_broken_after_a_restart() {
    let machine = Machine::of("dgx-h100");
    let mut daemon = Daemon::start(machine.berthd()).await;
    let is_ill = |device: &Device| {
        device
            .health
            .as_ref()
            .is_some_and(|health| health.state() == HealthState::Unhealthy)
    };
    machine.edit(|scenario| scenario.xid("2", 79, None));
    until_device(&mut daemon, 2, is_ill).await;
    let memory = daemon.process.dir().join("state/health.json");
    let kept = eventually(SOON, async || {
        let kept = std::fs::read_to_string(&memory)?;
        ensure!(kept.contains("79"), "{kept}");
        Ok(())
    });
    kept.await.unwrap();
    let program = machine.berthd().in_dir_of(&daemon.process);
    daemon.process.kill();
    let mut daemon = Daemon::start(program).await;
    until_device(&mut daemon, 2, is_ill).await;
    daemon.reserve("rest", whole(7)).await.unwrap();
    assert_eq!(
        reason(&daemon.reserve("one", whole(1)).await.unwrap_err()),
        "DeviceHeld"
    );
}

#[tokio::test]
async fn a_driver_that_is_replaced_costs_nobody_what_it_holds() {
    let machine = Machine::of("dgx-h100");
    let mut daemon = Daemon::start(machine.berthd()).await;
    let held = daemon.reserve("a", whole(2)).await.unwrap();
    machine.edit(|scenario| {
        scenario.unload();
        Ok(())
    });
    daemon.until_condition("DriverReady", false).await;
    let gone = daemon.node().await;
    assert!(
        gone.devices.iter().all(|device| device.missing),
        "only what is held is still told of"
    );
    assert_eq!(gone.devices.len(), 2);
    assert_eq!(reason(&daemon.reserve("b", whole(1)).await.unwrap_err()), "NoDevices");

    machine.edit(|scenario| {
        scenario.load(Some("590.48.01"));
        Ok(())
    });
    daemon.until_condition("DriverReady", true).await;
    let back = daemon.node().await;
    assert_eq!(back.driver.unwrap().driver_version, "590.48.01");
    assert_eq!(back.devices.len(), 8);
    assert_eq!(daemon.allocations().await, [held]);
    daemon.reserve("b", whole(6)).await.unwrap();
}

#[tokio::test]
async fn a_claim_that_was_told_before_the_driver_came_is_counted_before_the_first_grant() {
    let machine = Machine::of("dgx-h100");
    machine.edit(|scenario| {
        scenario.unload();
        Ok(())
    });
    let program = machine.berthd_of_kubelet("{dir}/kubelet.sock");
    let kubelet = FakeKubelet::start(program.dir().join("kubelet.sock")).unwrap();
    let claimed = ClaimResource {
        driver_name: "gpu.nvidia.com".to_owned(),
        pool_name: "gpu-a".to_owned(),
        device_name: "gpu-3".to_owned(),
    };
    kubelet.assign_claim("sr-1", "before-us", "main", "claim", claimed);
    let mut daemon = Daemon::start_closed(program).await;
    let told = daemon.until_condition("KubeletReachable", true).await;
    assert!(
        told.message.contains("when the driver has told its devices"),
        "{told:?}"
    );
    assert!(!condition(&daemon.node().await, "LedgerReconciled").status);

    machine.edit(|scenario| {
        scenario.load(None);
        Ok(())
    });
    daemon.until_condition("LedgerReconciled", true).await;
    assert_eq!(
        reason(&daemon.reserve("a", whole(8)).await.unwrap_err()),
        "InsufficientDevices",
        "the book opens with the claim in it"
    );
    let book = daemon.allocations().await;
    assert_eq!((book.len(), book[0].state()), (1, AllocationState::Foreign));
    assert_eq!(devices(&book[0]), [daemon.node().await.devices[3].uuid.clone()]);
}

#[tokio::test]
async fn a_driver_that_hangs_holds_nobody_up() {
    let machine = Machine::of("dgx-h100");
    let mut daemon = Daemon::start(machine.berthd()).await;
    machine.edit(|scenario| scenario.break_call("nvmlDeviceGetTemperature", Some("1"), Effect::Hang));
    machine.edit(|scenario| scenario.break_call("nvmlDeviceGetMemoryInfo_v2", Some("1"), Effect::Hang));
    let client = &mut daemon.client;
    let told = eventually(SOON * 2, async || {
        let node = tokio::time::timeout(Duration::from_secs(1), node(client))
            .await
            .context("the daemon hangs too")??;
        let ready = condition(&node, "DriverReady");
        ensure!(!ready.status && ready.reason == "NotAnswering", "{ready:?}");
        Ok(node)
    });
    assert_eq!(
        told.await.unwrap().devices.len(),
        8,
        "the devices are those known before"
    );
    let page = berth_testkit::http::get(&format!("{}/livez", daemon.process.admin()))
        .await
        .unwrap();
    assert_eq!(page.status, 200);
    let process = daemon.end().await;
    assert!(process.stderr().contains("NotAnswering"));
}

#[tokio::test]
async fn nothing_is_granted_while_the_driver_does_not_answer() {
    let machine = Machine::of("dgx-h100");
    let mut daemon = Daemon::start(machine.berthd()).await;
    machine.edit(|scenario| scenario.break_call("nvmlDeviceGetTemperature", None, Effect::Hang));
    machine.edit(|scenario| scenario.break_call("nvmlDeviceGetMemoryInfo_v2", None, Effect::Hang));
    let client = &mut daemon.client;
    let silent = eventually(SOON * 2, async || {
        let node = node(client).await?;
        ensure!(condition(&node, "DriverReady").reason == "NotAnswering", "it answers");
        Ok(())
    });
    silent.await.unwrap();
    let refused = daemon.reserve("a", whole(1)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    daemon.end().await;
}

#[tokio::test]
async fn a_held_gpu_that_is_gone_keeps_its_number_and_is_not_called_cordoned() {
    let machine = Machine::of("dgx-h100");
    let mut daemon = Daemon::start(machine.berthd()).await;
    let held = daemon.reserve("a", whole(1)).await.unwrap();
    let index = held.grants[0].index;
    machine.edit(|scenario| {
        scenario.unload();
        Ok(())
    });
    let client = &mut daemon.client;
    let gone = eventually(SOON * 2, async || {
        let node = node(client).await?;
        node.devices
            .iter()
            .find(|device| device.missing)
            .cloned()
            .context("nothing is missing")
    });
    let gone = gone.await.unwrap();
    assert!(gone.schedulable && gone.index == index, "{gone:?}");
    assert_eq!(daemon.allocations().await[0].grants[0].index, index);
    daemon.end().await;
}
