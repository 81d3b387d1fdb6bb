use std::{collections::HashSet, fs, io::Write as _, time::Duration};

use berth_placement::{DeviceUuid, MemoryBytes};

use super::*;
use crate::{
    backend::GpuEvent,
    inventory::{DeviceFacts, RecoveryAction},
};

fn node() -> NodeName {
    "gpu-a".parse().unwrap()
}

fn sim(profile: &str) -> SimBackend {
    SimBackend::new(&profile.parse().unwrap(), &node())
}

/// Runs `body` in a session.
fn session<T>(backend: &SimBackend, mut body: impl FnMut(&mut dyn GpuSession) -> T) -> Result<T, GpuError> {
    let mut out = None;
    backend
        .clone()
        .with_session(&Progress::default(), &mut |session| out = Some(body(session)))?;
    Ok(out.unwrap())
}

fn devices(backend: &SimBackend) -> Vec<DeviceFacts> {
    session(backend, |session| session.discover().unwrap().devices).unwrap()
}

fn uuid(backend: &SimBackend, position: usize) -> DeviceUuid {
    devices(backend)[position].uuid.clone()
}

#[test]
fn every_profile_is_a_machine_that_makes_sense() {
    for name in Profile::names() {
        let devices = devices(&sim(name));
        let distinct = |count: usize| assert_eq!(count, devices.len(), "{name}");
        distinct(devices.iter().map(|device| &device.uuid).collect::<HashSet<_>>().len());
        distinct(
            devices
                .iter()
                .filter_map(|device| device.pci_bus_id.as_ref())
                .collect::<HashSet<_>>()
                .len(),
        );
        distinct(
            devices
                .iter()
                .filter_map(|device| device.serial.as_ref())
                .collect::<HashSet<_>>()
                .len(),
        );
        for (device, index) in devices.iter().zip(0..) {
            assert_eq!(device.index, index);
            assert!(device.memory > MemoryBytes::from_gib(14), "{name}");
            for peer in &device.nvlink_peers {
                let other = devices.iter().find(|other| other.uuid == peer.uuid).unwrap();
                assert!(
                    other
                        .nvlink_peers
                        .iter()
                        .any(|back| back.uuid == device.uuid && back.links == peer.links)
                );
                assert_eq!(other.nvlink_domain, device.nvlink_domain);
            }
            assert_eq!(device.nvlink_domain.is_some(), !device.nvlink_peers.is_empty());
        }
    }
}

#[test]
fn a_dgx_h100_has_eight_gpus_in_one_nvlink_domain_and_two_numa_nodes() {
    let devices = devices(&sim("dgx-h100"));
    assert_eq!(devices.len(), 8);
    assert!(
        devices
            .iter()
            .all(|device| device.model.as_str() == "H100" && device.nvlink_domain == Some(0))
    );
    assert!(
        devices
            .iter()
            .all(|device| device.nvlink_peers.len() == 7 && device.nvlink_peers[0].links == 18)
    );
    assert_eq!(devices.iter().filter(|device| device.numa_node == Some(0)).count(), 4);
}

#[test]
fn a_machine_can_have_more_gpus_than_its_model() {
    let devices = devices(&sim("dgx-h100x16"));
    assert_eq!(
        devices.iter().map(|device| &device.uuid).collect::<HashSet<_>>().len(),
        16
    );
    assert_eq!(
        devices
            .iter()
            .filter_map(|device| device.pci_bus_id.as_ref())
            .collect::<HashSet<_>>()
            .len(),
        16
    );
}

#[test]
fn names_are_the_same_after_a_restart_and_differ_between_nodes() {
    let names = |backend: &SimBackend| {
        devices(backend)
            .into_iter()
            .map(|device| device.uuid)
            .collect::<Vec<_>>()
    };
    let other = SimBackend::new(&"mig".parse().unwrap(), &"gpu-b".parse().unwrap());
    assert_eq!(names(&sim("mig")), names(&sim("mig")));
    assert!(names(&sim("mig")).iter().all(|name| !names(&other).contains(name)));
}

#[test]
fn readings_of_a_machine_left_alone_do_not_move() {
    let backend = sim("mixed");
    for device in devices(&backend) {
        let read = || session(&backend, |session| session.sample(&device.uuid).unwrap()).unwrap();
        assert_eq!(read(), read());
    }
}

#[test]
fn a_mig_layout_is_checked_and_gets_new_names_with_each_change() {
    let backend = sim("dgx-h100");
    let split = |profiles: &[&str]| {
        let profiles = Some(profiles.iter().map(|text| text.parse().unwrap()).collect());
        backend.control().send(&Command::Mig {
            gpu: 0.into(),
            profiles,
        })
    };
    split(&["3g.40gb", "3g.40gb"]).unwrap();
    let first = devices(&backend)[0].mig.clone();
    assert_eq!(first.instances.len(), 2);
    assert_eq!(first.instances[0].memory, MemoryBytes::from_mib(81_559 * 4 / 8));
    split(&["3g.40gb", "3g.40gb"]).unwrap();
    assert_ne!(devices(&backend)[0].mig.instances[0].uuid, first.instances[0].uuid);
    assert_eq!(split(&["7g.80gb", "1g.10gb"]).unwrap_err().reason(), "MigDoesNotFit");
    assert_eq!(
        split(&["3g.40gb", "2g.40gb", "1g.10gb"]).unwrap_err().reason(),
        "MigDoesNotFit"
    );
    assert_eq!(
        devices(&backend)[0].mig.instances.len(),
        2,
        "a refused command changes nothing"
    );
    let refused = sim("l40s").control().send(&Command::Mig {
        gpu: 0.into(),
        profiles: Some(vec![]),
    });
    assert_eq!(refused.unwrap_err().reason(), "NoMig");
}

#[test]
fn a_lost_gpu_answers_nothing_until_it_is_restored_and_its_siblings_answer() {
    let backend = sim("dgx-h100");
    let (lost, sibling) = (uuid(&backend, 3), uuid(&backend, 4));
    let sample = |device: &DeviceUuid| session(&backend, |session| session.sample(device)).unwrap();
    backend
        .control()
        .send(&Command::Xid {
            gpu: 3.into(),
            code: 79,
        })
        .unwrap();
    assert_eq!(sample(&lost), Err(GpuError::DeviceLost));
    assert!(sample(&sibling).is_ok());
    backend
        .control()
        .send(&Command::Restore {
            gpu: lost.clone().into(),
        })
        .unwrap();
    assert_eq!(sample(&lost).unwrap().recovery_action, Some(RecoveryAction::None));
}

#[test]
fn gpus_come_and_go_and_an_open_session_notices() {
    let backend = sim("dgx-h100");
    let gone = uuid(&backend, 7);
    session(&backend, |session| {
        assert!(!session.devices_changed().unwrap());
        backend.control().send(&Command::Remove { gpu: 7.into() }).unwrap();
        assert!(session.devices_changed().unwrap());
        assert_eq!(session.wait_event(Duration::ZERO), Ok(Some(GpuEvent::DevicesChanged)));
        assert_eq!(session.sample(&gone), Err(GpuError::NotFound));
    })
    .unwrap();
    assert_eq!(devices(&backend).len(), 7);
    backend.control().send(&Command::Add { gpu: Some(7.into()) }).unwrap();
    assert_eq!(uuid(&backend, 7), gone, "the same GPU comes back");
    backend.control().send(&Command::Add { gpu: None }).unwrap();
    assert_eq!(devices(&backend).len(), 9);
}

#[test]
fn an_unloaded_driver_refuses_and_a_new_version_ends_old_sessions() {
    let backend = sim("l40s");
    session(&backend, |session| {
        backend
            .control()
            .send(&Command::Load {
                version: Some("590.10".to_owned()),
            })
            .unwrap();
        assert_eq!(
            session.wait_event(Duration::from_secs(1)),
            Err(GpuError::VersionMismatch)
        );
    })
    .unwrap();
    assert_eq!(
        session(&backend, |session| session.driver().driver_version).unwrap(),
        "590.10"
    );
    backend.control().send(&Command::Unload {}).unwrap();
    assert_eq!(session(&backend, |_| ()), Err(GpuError::NoDriver));
}

#[test]
fn a_command_in_the_file_reaches_a_waiting_session() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let backend = SimBackend::with_control_file(&"dgx-h100".parse().unwrap(), &node(), path.clone());
    let device = uuid(&backend, 2);
    let event = session(&backend, |session| {
        let mut file = fs::File::create(&path).unwrap();
        writeln!(file, "{{\"xid\":{{\"gpu\":2,\"code\":48}}}}").unwrap();
        session.wait_event(Duration::from_secs(10)).unwrap()
    });
    assert_eq!(
        event.unwrap(),
        Some(GpuEvent::Xid {
            device: Some(device),
            code: 48
        })
    );
}

#[test]
fn after_a_restart_the_file_makes_the_same_machine_but_sends_no_old_xid() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    fs::write(
        &path,
        "{\"lose\":{\"gpu\":1}}\n{\"xid\":{\"gpu\":2,\"code\":48}}\n{\"xid\":{\"gpu\":99,\"code\":1}}\n",
    )
    .unwrap();
    let backend = SimBackend::with_control_file(&"dgx-h100".parse().unwrap(), &node(), path);
    let lost = uuid(&backend, 1);
    session(&backend, |session| {
        assert_eq!(session.sample(&lost), Err(GpuError::DeviceLost));
        assert_eq!(session.wait_event(Duration::ZERO), Ok(None));
    })
    .unwrap();
}

#[test]
fn commands_are_written_as_they_are_documented() {
    for (text, command) in [
        (
            r#"{"xid":{"gpu":3,"code":79}}"#,
            Command::Xid {
                gpu: 3.into(),
                code: 79,
            },
        ),
        (r#"{"restore":{"gpu":0}}"#, Command::Restore { gpu: 0.into() }),
        (r#"{"unload":{}}"#, Command::Unload {}),
        (
            r#"{"recovery_action":{"gpu":1,"action":"GpuReset"}}"#,
            Command::RecoveryAction {
                gpu: 1.into(),
                action: RecoveryAction::GpuReset,
            },
        ),
        (
            r#"{"mig":{"gpu":0,"profiles":["1g.10gb"]}}"#,
            Command::Mig {
                gpu: 0.into(),
                profiles: Some(vec!["1g.10gb".parse().unwrap()]),
            },
        ),
    ] {
        assert_eq!(serde_json::from_str::<Command>(text).unwrap(), command);
        assert_eq!(serde_json::to_string(&command).unwrap(), text);
    }
    for text in [
        r#"{"xid":{"gpu":3}}"#,
        r#"{"burn":{}}"#,
        r#"{"lose":{"gpu":"three"}}"#,
        r#"{"lose":{"gpu":1,"now":1}}"#,
    ] {
        assert!(serde_json::from_str::<Command>(text).is_err(), "{text}");
    }
}
