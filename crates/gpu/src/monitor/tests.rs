use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use berth_placement::{Health, NodeName};

use super::*;
use crate::{
    GpuError, GpuSession, SimBackend,
    backend::{Discovery, GpuEvent, Progress, Refreshed},
    inventory::{DriverFacts, DriverState, Process, RecoveryAction, Sample},
    sim::Command,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "the tests' one clock")]
fn clock() -> MonitorClock {
    let start = Instant::now();
    let elapsed = move || start.elapsed();
    MonitorClock::new(
        move || 1_700_000_000_000 + u64::try_from(elapsed().as_millis()).unwrap(),
        elapsed,
    )
}

/// Everything a hundred times faster than in production.
fn fast() -> MonitorConfig {
    MonitorConfig {
        sweep: Duration::from_millis(50),
        refresh: Duration::from_millis(50),
        processes: Duration::from_millis(50),
        event_slice: Duration::from_millis(20),
        hang_after: Duration::from_millis(400),
        retry_min: Duration::from_millis(10),
        retry_max: Duration::from_millis(100),
        max_abandoned: 2,
        boot_id: Some("boot-1".to_owned()),
        health: HealthConfig {
            driver_clear_after: Duration::from_millis(200),
            recovering_dwell: Duration::from_millis(100),
            unanswered_limit: Duration::from_mins(1),
            ..HealthConfig::default()
        },
    }
}

/// Sweeps never come: what is seen is seen by events.
fn by_events_only() -> MonitorConfig {
    let never = Duration::from_hours(1);
    MonitorConfig {
        sweep: never,
        refresh: never,
        processes: never,
        ..MonitorConfig::default()
    }
}

struct Rig {
    sim: SimBackend,
    monitor: MonitorHandle,
}

impl Rig {
    fn new(profile: &str, config: MonitorConfig) -> Self {
        Self::with_memory(profile, config, HealthMemory::default())
    }

    fn with_memory(profile: &str, config: MonitorConfig, memory: HealthMemory) -> Self {
        let node: NodeName = "gpu-a".parse().unwrap();
        Self::on(SimBackend::new(&profile.parse().unwrap(), &node), config, memory)
    }

    fn on(sim: SimBackend, config: MonitorConfig, memory: HealthMemory) -> Self {
        let backend = sim.clone();
        let monitor = Monitor::spawn(config, clock(), memory, move || Box::new(backend.clone())).unwrap();
        Self { sim, monitor }
    }

    fn send(&self, command: &Command) {
        self.sim.control().send(command).unwrap();
    }

    async fn until(&self, what: &str, holds: impl Fn(&Inventory) -> bool) -> Arc<Inventory> {
        let mut inventory = self.monitor.inventory.clone();
        let waited = tokio::time::timeout(PATIENCE, inventory.wait_for(|now| holds(now)));
        match waited.await {
            Ok(Ok(found)) => Arc::clone(&found),
            Ok(Err(_)) => panic!("the monitor stopped before {what}"),
            Err(elapsed) => panic!("{elapsed}: {what}; it is {:#?}", self.monitor.inventory.borrow()),
        }
    }

    async fn ready(&self, gpus: usize) -> Arc<Inventory> {
        let all =
            |now: &Inventory| now.devices.len() == gpus && now.devices.iter().all(|device| device.sample.is_some());
        self.until("all GPUs are read", all).await
    }

    async fn health(&self, at: usize, state: Health) -> Arc<Inventory> {
        self.until(state.as_str(), |now| {
            now.devices.get(at).is_some_and(|device| device.health.state == state)
        })
        .await
    }
}

fn is_ready(inventory: &Inventory) -> bool {
    matches!(inventory.driver, DriverState::Ready(_))
}

fn reasons(inventory: &Inventory, at: usize) -> Vec<&'static str> {
    inventory.devices[at]
        .health
        .reasons
        .iter()
        .map(|reason| reason.reason)
        .collect()
}

#[tokio::test]
async fn it_finds_the_machine() {
    let rig = Rig::new("mig", fast());
    let inventory = rig.ready(8).await;
    assert!(is_ready(&inventory));
    assert_eq!(inventory.devices[0].facts.mig.instances.len(), 7);
    assert!(
        inventory
            .devices
            .iter()
            .all(|device| device.health.state == Health::Healthy)
    );
}

#[tokio::test]
async fn a_machine_left_alone_publishes_nothing() {
    let rig = Rig::new("dgx-h100", fast());
    rig.until("the first round", |now| {
        now.devices.iter().all(|device| device.processes_unix_ms.is_some()) && is_ready(now)
    })
    .await;
    let mut inventory = rig.monitor.inventory.clone();
    inventory.mark_unchanged();
    // Twenty sweeps.
    assert!(
        tokio::time::timeout(Duration::from_secs(1), inventory.changed())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_xid_is_published_within_a_second_without_any_sweep() {
    let rig = Rig::new("dgx-h100", by_events_only());
    let before = rig.ready(8).await.generation;
    let took = clock();
    rig.send(&Command::Xid {
        gpu: 3.into(),
        code: 48,
    });
    let inventory = rig.health(3, Health::Unhealthy).await;
    assert!((took.monotonic)() < Duration::from_secs(1));
    assert_eq!(inventory.devices[3].health.reasons[0].xid, Some(48));
    assert!(inventory.generation > before);
}

#[tokio::test]
async fn a_silent_loss_is_seen_by_the_sweep_and_the_siblings_stay() {
    let rig = Rig::new("dgx-h100", fast());
    rig.ready(8).await;
    rig.send(&Command::Lose { gpu: 5.into() });
    let inventory = rig.health(5, Health::Unhealthy).await;
    assert_eq!(reasons(&inventory, 5), ["Lost"]);
    assert!(inventory.devices[5].sample.is_none());
    assert!(
        (0..8)
            .filter(|at| *at != 5)
            .all(|at| inventory.devices[at].health.state == Health::Healthy)
    );
    rig.send(&Command::Restore { gpu: 5.into() });
    rig.health(5, Health::Healthy).await;
}

#[tokio::test]
async fn a_gpu_recovers_by_the_drivers_word_and_is_probed_first() {
    for (dwell, end) in [
        (Duration::from_hours(1), Health::Recovering),
        (Duration::from_millis(100), Health::Healthy),
    ] {
        let health = HealthConfig {
            recovering_dwell: dwell,
            ..fast().health
        };
        let rig = Rig::new("dgx-h100", MonitorConfig { health, ..fast() });
        rig.ready(8).await;
        rig.send(&Command::RecoveryAction {
            gpu: 0.into(),
            action: RecoveryAction::GpuReset,
        });
        rig.send(&Command::Xid {
            gpu: 0.into(),
            code: 95,
        });
        rig.health(0, Health::Unhealthy).await;
        rig.send(&Command::Restore { gpu: 0.into() });
        rig.health(0, end).await;
    }
}

#[tokio::test]
async fn an_acknowledgement_is_answered_and_already_published() {
    let slow_driver = HealthConfig {
        driver_clear_after: Duration::from_hours(1),
        ..fast().health
    };
    let rig = Rig::new(
        "dgx-h100",
        MonitorConfig {
            health: slow_driver,
            ..fast()
        },
    );
    let uuid = rig.ready(8).await.devices[2].facts.uuid.clone();
    rig.send(&Command::Xid {
        gpu: 2.into(),
        code: 119,
    });
    rig.health(2, Health::Unhealthy).await;
    let done = rig
        .monitor
        .acknowledge(uuid.clone(), "firmware updated".to_owned())
        .await
        .unwrap();
    assert_eq!((done.health.state, done.cleared), (Health::Recovering, vec!["Xid"]));
    let state = rig.monitor.inventory.borrow().device(&uuid).unwrap().health.state;
    assert!(state == Health::Recovering || state == Health::Healthy);
    rig.health(2, Health::Healthy).await;
    let unknown = rig
        .monitor
        .acknowledge("GPU-nobody".parse().unwrap(), String::new())
        .await;
    assert_eq!(unknown.unwrap_err().reason(), "UnknownDevice");
}

#[tokio::test]
async fn gpus_that_come_and_go_are_followed() {
    let rig = Rig::new("dgx-h100", fast());
    let first = rig.ready(8).await;
    rig.send(&Command::Remove { gpu: 0.into() });
    let fewer = rig.ready(7).await;
    assert_eq!(fewer.devices[0].facts.uuid, first.devices[1].facts.uuid);
    assert_eq!(fewer.devices[0].facts.index, 0);
    rig.send(&Command::Add { gpu: Some(0.into()) });
    assert_eq!(rig.ready(8).await.devices[0].facts.uuid, first.devices[0].facts.uuid);
}

#[tokio::test]
async fn a_broken_gpu_that_is_unplugged_is_still_broken_when_it_comes_back() {
    let config = MonitorConfig {
        health: HealthConfig {
            driver_clear_after: Duration::from_hours(1),
            ..fast().health
        },
        ..fast()
    };
    let rig = Rig::new("l40s", config);
    rig.ready(8).await;
    rig.send(&Command::Xid {
        gpu: 7.into(),
        code: 62,
    });
    rig.health(7, Health::Unhealthy).await;
    rig.send(&Command::Remove { gpu: 7.into() });
    rig.ready(7).await;
    rig.send(&Command::Add { gpu: Some(7.into()) });
    assert_eq!(rig.ready(8).await.devices[7].health.state, Health::Unhealthy);
}

#[tokio::test]
async fn a_mig_layout_is_followed() {
    let rig = Rig::new("dgx-h100", fast());
    rig.ready(8).await;
    rig.send(&Command::Mig {
        gpu: 1.into(),
        profiles: Some(vec!["3g.40gb".parse().unwrap()]),
    });
    let split = rig
        .until("the split", |now| {
            now.devices.get(1).is_some_and(|device| device.facts.mig.enabled)
        })
        .await;
    assert_eq!(split.devices[1].facts.mig.instances[0].profile.as_str(), "3g.40gb");
    rig.send(&Command::Mig {
        gpu: 1.into(),
        profiles: None,
    });
    rig.until("the end of it", |now| !now.devices[1].facts.mig.enabled)
        .await;
}

#[tokio::test]
async fn processes_are_followed() {
    let rig = Rig::new("dgx-h100", fast());
    rig.ready(8).await;
    rig.send(&Command::Process {
        gpu: 6.into(),
        pid: 4711,
        memory: 1 << 30,
        instance: None,
    });
    rig.until("the process", |now| {
        now.devices[6].processes.iter().any(|process| process.pid == 4711)
    })
    .await;
    rig.send(&Command::EndProcess { pid: 4711 });
    rig.until("its end", |now| now.devices[6].processes.is_empty()).await;
}

#[tokio::test]
async fn a_driver_that_is_unloaded_and_upgraded_is_reported_and_found_again_and_cures_what_a_reset_cures() {
    let rig = Rig::new("dgx-h100", fast());
    rig.ready(8).await;
    rig.send(&Command::Xid {
        gpu: 1.into(),
        code: 79,
    });
    rig.health(1, Health::Unhealthy).await;
    rig.send(&Command::Unload {});
    let absent = rig
        .until("absence", |now| {
            matches!(now.driver, DriverState::Absent { reason: "NoDriver", .. })
        })
        .await;
    assert!(absent.devices.is_empty());
    rig.send(&Command::Restore { gpu: 1.into() });
    rig.send(&Command::Load {
        version: Some("590.10".to_owned()),
    });
    let back = rig.ready(8).await;
    assert!(matches!(&back.driver, DriverState::Ready(driver) if driver.driver_version == "590.10"));
    assert_ne!(back.devices[1].health.state, Health::Unhealthy);
    rig.health(1, Health::Healthy).await;
}

#[tokio::test]
async fn a_restart_keeps_a_verdict_and_a_reboot_ends_it() {
    let config = || MonitorConfig {
        health: HealthConfig {
            driver_clear_after: Duration::from_hours(1),
            ..fast().health
        },
        ..fast()
    };
    let rig = Rig::new("dgx-h100", config());
    rig.ready(8).await;
    rig.send(&Command::Xid {
        gpu: 4.into(),
        code: 120,
    });
    rig.health(4, Health::Unhealthy).await;
    let mut memory = rig.monitor.memory.clone();
    let ailing = tokio::time::timeout(PATIENCE, memory.wait_for(|memory| memory.ailing().count() == 1));
    let memory = HealthMemory::clone(&ailing.await.unwrap().unwrap());
    let text = serde_json::to_string(&memory).unwrap();
    drop(rig);

    let again: HealthMemory = serde_json::from_str(&text).unwrap();
    let rig = Rig::with_memory("dgx-h100", config(), again);
    assert_eq!(rig.ready(8).await.devices[4].health.state, Health::Unhealthy);

    let rebooted = MonitorConfig {
        boot_id: Some("boot-2".to_owned()),
        ..config()
    };
    let rig = Rig::with_memory("dgx-h100", rebooted, memory);
    assert_ne!(rig.ready(8).await.devices[4].health.state, Health::Unhealthy);
    rig.health(4, Health::Healthy).await;
}

#[tokio::test]
async fn a_hanging_driver_is_reported_replaced_and_found_again() {
    let rig = Rig::new("dgx-h100", fast());
    let first = rig.ready(8).await;
    rig.send(&Command::Hang {});
    let hung = rig
        .until("a hang", |now| matches!(now.driver, DriverState::NotAnswering { .. }))
        .await;
    assert_eq!(hung.devices.len(), 8);
    assert!(
        hung.devices
            .iter()
            .all(|device| device.health.state == Health::Suspect && device.sample.is_none())
    );
    assert_eq!(reasons(&hung, 0), ["NotAnswering"]);
    rig.send(&Command::Answer {});
    rig.until("recovery", |now| {
        is_ready(now) && now.devices.iter().all(|device| device.health.state == Health::Healthy)
    })
    .await;
    assert_eq!(rig.ready(8).await.devices[0].facts, first.devices[0].facts);
}

#[tokio::test]
async fn a_stop_is_prompt_also_while_the_driver_hangs() {
    for hang in [false, true] {
        let rig = Rig::new(
            "dgx-h100",
            MonitorConfig {
                hang_after: Duration::from_hours(1),
                ..MonitorConfig::default()
            },
        );
        rig.ready(8).await;
        if hang {
            rig.send(&Command::Hang {});
        }
        let took = clock();
        rig.monitor.stop();
        tokio::time::timeout(PATIENCE, rig.monitor.stopped()).await.unwrap();
        assert!((took.monotonic)() < Duration::from_millis(2_500), "hang: {hang}");
        let late = rig.monitor.acknowledge("GPU-x".parse().unwrap(), String::new()).await;
        assert_eq!(late.unwrap_err().reason(), "MonitorStopped");
        rig.send(&Command::Answer {});
    }
}

/// Counts workers; each one's session does as it is told.
struct Scripted {
    workers: Arc<AtomicU64>,
    act: fn(u64) -> Act,
}

enum Act {
    /// Every call succeeds, and `discover` finds nothing.
    Work,
    HangWhile(&'static AtomicBool),
    Panic,
    Refuse,
}

impl GpuBackend for Scripted {
    fn with_session(&mut self, progress: &Progress, body: &mut dyn FnMut(&mut dyn GpuSession)) -> Result<(), GpuError> {
        match (self.act)(self.workers.load(Ordering::SeqCst)) {
            Act::Work => body(&mut Empty(progress.clone())),
            Act::HangWhile(flag) => {
                while flag.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(10));
                }
            }
            Act::Panic => panic!("as scripted"),
            Act::Refuse => {
                return Err(GpuError::NoLibrary {
                    detail: "no such file".to_owned(),
                });
            }
        }
        Ok(())
    }
}

struct Empty(Progress);

impl GpuSession for Empty {
    fn driver(&self) -> DriverFacts {
        DriverFacts {
            backend: "scripted",
            driver_version: "1".to_owned(),
            nvml_version: None,
            cuda_version: None,
        }
    }

    fn discover(&mut self) -> Result<Discovery, GpuError> {
        Ok(Discovery::default())
    }

    fn refresh(&mut self, _: &DeviceUuid) -> Result<Refreshed, GpuError> {
        Err(GpuError::NotFound)
    }

    fn sample(&mut self, _: &DeviceUuid) -> Result<Sample, GpuError> {
        Err(GpuError::NotFound)
    }

    fn processes(&mut self, _: &DeviceUuid) -> Result<Vec<Process>, GpuError> {
        Err(GpuError::NotFound)
    }

    fn devices_changed(&mut self) -> Result<bool, GpuError> {
        Ok(false)
    }

    fn wait_event(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError> {
        thread::sleep(timeout);
        self.0.tick();
        Ok(None)
    }
}

/// A monitor over scripted workers, and the count of workers so far.
fn scripted(act: fn(u64) -> Act) -> (MonitorHandle, Arc<AtomicU64>) {
    let workers = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&workers);
    let backend = move || -> Box<dyn GpuBackend> {
        count.fetch_add(1, Ordering::SeqCst);
        Box::new(Scripted {
            workers: Arc::clone(&count),
            act,
        })
    };
    (
        Monitor::spawn(fast(), clock(), HealthMemory::default(), backend).unwrap(),
        workers,
    )
}

async fn driver_becomes(monitor: &MonitorHandle, holds: impl Fn(&DriverState) -> bool) {
    let mut inventory = monitor.inventory.clone();
    let waited = tokio::time::timeout(PATIENCE, inventory.wait_for(|now| holds(&now.driver))).await;
    assert!(
        waited.is_ok_and(|found| found.is_ok()),
        "the driver is {:?}",
        monitor.inventory.borrow().driver
    );
}

#[tokio::test]
async fn hanging_threads_are_bounded_and_counted_out_when_they_come_back() {
    static HANGING: AtomicBool = AtomicBool::new(true);
    // The first two hang, which is all that may; only when they have come back may a third try.
    let (monitor, workers) = scripted(|worker| {
        if worker <= 2 {
            Act::HangWhile(&HANGING)
        } else {
            Act::Work
        }
    });
    let started = async |count| {
        while workers.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    driver_becomes(&monitor, |driver| matches!(driver, DriverState::NotAnswering { .. })).await;
    tokio::time::timeout(PATIENCE, started(2)).await.unwrap();
    // Far longer than a third would need.
    assert!(tokio::time::timeout(Duration::from_secs(2), started(3)).await.is_err());
    HANGING.store(false, Ordering::SeqCst);
    driver_becomes(&monitor, |driver| matches!(driver, DriverState::Ready(_))).await;
    assert_eq!(workers.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_panic_in_the_backend_is_survived() {
    let (monitor, _) = scripted(|worker| if worker == 1 { Act::Panic } else { Act::Work });
    driver_becomes(&monitor, |driver| {
        matches!(
            driver,
            DriverState::Absent {
                reason: "DriverFailed",
                ..
            }
        )
    })
    .await;
    driver_becomes(&monitor, |driver| matches!(driver, DriverState::Ready(_))).await;
}

#[tokio::test]
async fn a_missing_library_is_a_state_not_an_end() {
    let (monitor, _) = scripted(|_| Act::Refuse);
    driver_becomes(&monitor, |driver| {
        matches!(
            driver,
            DriverState::Absent {
                reason: "NoLibrary",
                ..
            }
        )
    })
    .await;
    monitor.stop();
    tokio::time::timeout(Duration::from_secs(2), monitor.stopped())
        .await
        .unwrap();
}
