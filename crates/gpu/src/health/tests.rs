use std::time::Duration;

use berth_placement::Health;
use proptest::prelude::*;

use super::*;
use crate::{
    GpuError,
    inventory::{RecoveryAction, RemappedRows, Sample, ThrottleReason},
};

const SWEEP: Duration = Duration::from_secs(5);

/// A machine and its time: each step is one sweep.
struct Device {
    machine: HealthMachine,
    now: Moment,
}

impl Device {
    fn new() -> Self {
        let now = Moment {
            unix_ms: 1_000_000,
            monotonic: Duration::from_secs(100),
        };
        Self {
            machine: HealthMachine::new(HealthConfig::default(), now),
            now,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
    }

    fn xid(&mut self, code: u32) -> Health {
        self.machine.xid(self.now, code);
        self.state()
    }

    fn sweep(&mut self, sample: &Sample) -> Health {
        self.pass(SWEEP);
        self.machine.observe(self.now, Observation::Reading(sample));
        self.state()
    }

    /// Sweeps for `time`; the state at the end.
    fn sweep_for(&mut self, time: Duration, sample: &Sample) -> Health {
        let end = self.now.monotonic + time;
        while self.now.monotonic < end {
            self.sweep(sample);
        }
        self.state()
    }

    fn fail(&mut self, error: &GpuError) -> Health {
        self.pass(SWEEP);
        self.machine.observe(self.now, Observation::Failed(error));
        self.state()
    }

    fn restart(&mut self) -> Health {
        let text = serde_json::to_string(&self.machine.memory()).unwrap();
        let memory: DeviceMemory = serde_json::from_str(&text).unwrap();
        self.machine = HealthMachine::restore(HealthConfig::default(), self.now, &memory);
        self.state()
    }

    fn state(&self) -> Health {
        self.machine.report().state
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.machine
            .report()
            .reasons
            .iter()
            .map(|reason| reason.reason)
            .collect()
    }
}

/// An H100 in good order on a driver that tells recovery actions.
fn good() -> Sample {
    Sample {
        ecc_uncorrected_total: Some(0),
        remapped_rows: Some(RemappedRows::default()),
        recovery_action: Some(RecoveryAction::None),
        ..Sample::default()
    }
}

/// A V100 in good order.
fn good_old() -> Sample {
    Sample {
        ecc_uncorrected_total: Some(0),
        page_retirement_pending: Some(false),
        ..Sample::default()
    }
}

fn asks(action: RecoveryAction) -> Sample {
    Sample {
        recovery_action: Some(action),
        ..good()
    }
}

#[test]
fn xids_count_by_their_class() {
    for (code, expected) in [
        (13, Health::Healthy),
        (31, Health::Healthy),
        (43, Health::Healthy),
        (45, Health::Healthy),
        (68, Health::Healthy),
        (109, Health::Healthy),
        (154, Health::Healthy),
        (63, Health::Suspect),
        (92, Health::Suspect),
        (94, Health::Suspect),
        (3_000, Health::Suspect),
        (48, Health::Unhealthy),
        (79, Health::Unhealthy),
        (95, Health::Unhealthy),
        (119, Health::Unhealthy),
        (140, Health::Unhealthy),
    ] {
        assert_eq!(Device::new().xid(code), expected, "XID {code}");
    }
}

#[test]
fn readings_count_by_what_they_show() {
    let rows = |pending, failed| Sample {
        remapped_rows: Some(RemappedRows {
            pending,
            failed,
            ..RemappedRows::default()
        }),
        ..good()
    };
    let throttled = |reason| Sample {
        throttle: vec![reason],
        ..good()
    };
    for (sample, expected, reasons) in [
        (good(), Health::Healthy, vec![]),
        (good_old(), Health::Healthy, vec![]),
        (Sample::default(), Health::Healthy, vec![]),
        (throttled(ThrottleReason::SwPowerCap), Health::Healthy, vec![]),
        (throttled(ThrottleReason::SwThermalSlowdown), Health::Healthy, vec![]),
        (
            throttled(ThrottleReason::HwThermalSlowdown),
            Health::Suspect,
            vec!["HwThermalSlowdown"],
        ),
        (
            throttled(ThrottleReason::HwPowerBrake),
            Health::Suspect,
            vec!["HwPowerBrake"],
        ),
        (rows(true, false), Health::Suspect, vec!["RowRemapPending"]),
        (
            rows(true, true),
            Health::Unhealthy,
            vec!["RowRemapFailed", "RowRemapPending"],
        ),
        (
            asks(RecoveryAction::GpuReset),
            Health::Unhealthy,
            vec!["RecoveryActionReset"],
        ),
        (
            asks(RecoveryAction::NodeReboot),
            Health::Unhealthy,
            vec!["RecoveryActionReboot"],
        ),
        (
            asks(RecoveryAction::DrainAndReset),
            Health::Unhealthy,
            vec!["RecoveryActionDrain"],
        ),
        (
            asks(RecoveryAction::Other(77)),
            Health::Suspect,
            vec!["RecoveryActionOther"],
        ),
        (
            Sample {
                page_retirement_pending: Some(true),
                ..good_old()
            },
            Health::Suspect,
            vec!["PageRetirementPending"],
        ),
    ] {
        let mut device = Device::new();
        assert_eq!(device.sweep(&sample), expected, "{sample:?}");
        assert_eq!(device.reasons(), reasons, "{sample:?}");
    }
}

#[test]
fn a_critical_xid_is_over_when_the_driver_has_asked_for_nothing_for_a_minute() {
    let mut device = Device::new();
    device.sweep(&good());
    assert_eq!(device.xid(48), Health::Unhealthy);
    assert_eq!(device.sweep_for(Duration::from_secs(55), &good()), Health::Unhealthy);
    assert_eq!(device.sweep(&good()), Health::Recovering);
    assert_eq!(device.reasons(), ["Xid"], "it tells what it recovers from");
    assert_eq!(device.sweep_for(Duration::from_secs(10), &good()), Health::Recovering);
    assert_eq!(device.sweep(&good()), Health::Healthy);
    assert!(device.reasons().is_empty());
}

#[test]
fn a_critical_xid_stays_where_the_driver_tells_no_recovery_action() {
    let mut device = Device::new();
    device.xid(48);
    assert_eq!(
        device.sweep_for(Duration::from_hours(2), &good_old()),
        Health::Unhealthy
    );
}

#[test]
fn a_taken_recovery_action_ends_what_it_was_asked_for() {
    let mut device = Device::new();
    device.xid(95);
    device.sweep(&asks(RecoveryAction::GpuReset));
    assert_eq!(
        device.sweep_for(Duration::from_hours(1), &asks(RecoveryAction::GpuReset)),
        Health::Unhealthy
    );
    assert_eq!(device.sweep(&good()), Health::Recovering);
}

#[test]
fn a_gpu_off_the_bus_waits_for_more_than_the_drivers_word() {
    let mut device = Device::new();
    device.xid(79);
    assert_eq!(device.sweep_for(Duration::from_hours(1), &good()), Health::Unhealthy);
    device.machine.reset(device.now);
    assert_eq!(device.state(), Health::Recovering);
}

#[test]
fn a_lost_gpu_that_answers_again_recovers_and_its_xid_is_history() {
    let mut device = Device::new();
    device.xid(79);
    assert_eq!(device.fail(&GpuError::DeviceLost), Health::Unhealthy);
    assert_eq!(device.reasons(), ["Xid", "Lost"]);
    assert_eq!(device.sweep(&good()), Health::Recovering);
    assert_eq!(device.sweep_for(Duration::from_secs(15), &good()), Health::Healthy);
}

#[test]
fn one_failed_reading_is_forgiven_two_are_not_and_a_long_silence_condemns() {
    let transient = GpuError::Transient {
        detail: "unknown error".to_owned(),
    };
    let mut device = Device::new();
    assert_eq!(device.fail(&transient), Health::Healthy);
    assert_eq!(device.sweep(&good()), Health::Healthy);
    assert_eq!(device.fail(&transient), Health::Healthy);
    assert_eq!(device.fail(&transient), Health::Suspect);
    for _ in 0..12 {
        device.fail(&transient);
    }
    assert_eq!(device.state(), Health::Unhealthy);
    assert_eq!(device.reasons(), ["Unresponsive", "NotAnswering"]);
    assert_eq!(device.sweep(&good()), Health::Recovering);
}

#[test]
fn an_acknowledgement_ends_what_events_told_and_the_device_is_probed() {
    let mut device = Device::new();
    device.xid(79);
    device.sweep(&good_old());
    let ended = device.machine.acknowledge(device.now, "riser reseated");
    assert_eq!((ended, device.state()), (vec!["Xid"], Health::Recovering));
    assert_eq!(device.reasons(), ["Xid", "Acknowledged"]);
    assert_eq!(device.sweep_for(Duration::from_secs(15), &good_old()), Health::Healthy);
}

#[test]
fn an_acknowledgement_does_not_hide_what_the_sweep_still_sees() {
    let mut device = Device::new();
    device.xid(64);
    let worn = Sample {
        remapped_rows: Some(RemappedRows {
            failed: true,
            ..RemappedRows::default()
        }),
        ..good()
    };
    device.sweep(&worn);
    assert_eq!(device.machine.acknowledge(device.now, "looks fine to me"), ["Xid"]);
    assert_eq!(
        (device.state(), device.reasons()),
        (Health::Unhealthy, vec!["RowRemapFailed"])
    );
}

#[test]
fn an_acknowledged_suspect_is_healthy_at_once_and_a_healthy_device_stays() {
    let mut device = Device::new();
    assert!(device.machine.acknowledge(device.now, "nothing to see").is_empty());
    assert_eq!(device.state(), Health::Healthy);
    device.xid(92);
    device.machine.acknowledge(device.now, "known");
    assert_eq!(device.state(), Health::Healthy);
}

#[test]
fn a_suspicion_ends_after_a_quiet_time_that_each_sign_renews() {
    let mut device = Device::new();
    device.xid(94);
    assert_eq!(device.sweep_for(Duration::from_mins(9), &good()), Health::Suspect);
    device.xid(94);
    assert_eq!(device.sweep_for(Duration::from_mins(9), &good()), Health::Suspect);
    assert_eq!(device.sweep_for(Duration::from_mins(1), &good()), Health::Healthy);
}

#[test]
fn throttling_that_flickers_does_not_make_health_flicker() {
    let hot = Sample {
        throttle: vec![ThrottleReason::HwThermalSlowdown],
        ..good()
    };
    let mut device = Device::new();
    for _ in 0..5 {
        assert_eq!(device.sweep(&hot), Health::Suspect);
        assert_eq!(device.sweep(&good()), Health::Suspect);
    }
    assert_eq!(device.sweep_for(Duration::from_secs(30), &good()), Health::Healthy);
}

#[test]
fn uncorrectable_errors_count_only_when_they_grow() {
    let counted = |total| Sample {
        ecc_uncorrected_total: Some(total),
        ..good()
    };
    let mut device = Device::new();
    assert_eq!(device.sweep(&counted(7)), Health::Healthy, "old ones are no news");
    assert_eq!(device.sweep(&counted(8)), Health::Suspect);
    let mut old = Device::new();
    old.sweep(&good_old());
    let grown = Sample {
        ecc_uncorrected_total: Some(1),
        ..good_old()
    };
    assert_eq!(old.sweep(&grown), Health::Unhealthy, "a GPU that cannot replace rows");
    let mut cleared = Device::new();
    cleared.sweep(&counted(7));
    assert_eq!(cleared.sweep(&counted(0)), Health::Healthy, "set back by a reset");
    assert_eq!(cleared.sweep(&counted(1)), Health::Suspect);
}

#[test]
fn errors_that_happened_while_the_daemon_was_down_are_noticed() {
    let mut device = Device::new();
    device.sweep(&good());
    device.restart();
    assert_eq!(
        device.sweep(&Sample {
            ecc_uncorrected_total: Some(3),
            ..good()
        }),
        Health::Suspect
    );
}

#[test]
fn a_restart_neither_launders_nor_forgets() {
    let mut device = Device::new();
    device.xid(79);
    assert_eq!(device.restart(), Health::Unhealthy);
    assert_eq!(
        device.sweep_for(Duration::from_hours(1), &good_old()),
        Health::Unhealthy
    );
    assert_eq!(device.reasons(), ["Xid"]);
    device.machine.acknowledge(device.now, "exchanged");
    assert_eq!(device.restart(), Health::Recovering);
    assert_eq!(device.reasons(), ["Xid"]);
    assert_eq!(device.sweep_for(Duration::from_secs(15), &good_old()), Health::Healthy);
    assert_eq!(device.restart(), Health::Healthy);
}

#[test]
fn an_action_taken_while_the_daemon_was_down_counts() {
    let mut device = Device::new();
    device.xid(95);
    device.sweep(&asks(RecoveryAction::GpuReset));
    device.restart();
    assert_eq!(device.sweep(&good()), Health::Recovering);
}

#[test]
fn a_fault_in_recovery_condemns_again() {
    let mut device = Device::new();
    device.xid(79);
    device.machine.acknowledge(device.now, "try it");
    device.sweep(&good());
    assert_eq!(device.xid(79), Health::Unhealthy);
}

#[test]
fn a_device_that_sends_every_xid_does_not_fill_the_memory() {
    let mut device = Device::new();
    for code in 0..10_000 {
        device.xid(code);
    }
    assert!(device.machine.memory().faults.len() <= 32);
    assert_eq!(device.fail(&GpuError::DeviceLost), Health::Unhealthy);
    assert!(
        device.reasons().contains(&"Lost"),
        "what the sweep sees is kept whatever the events"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Xid(u32),
    Sweep(Sample),
    Fail(GpuError),
    Silence,
    Reset,
    Acknowledge,
    Restart,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        Just(None),
        Just(Some(RecoveryAction::None)),
        Just(Some(RecoveryAction::GpuReset)),
        Just(Some(RecoveryAction::DrainP2P)),
    ];
    let sample = (action, 0..3u64, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(recovery_action, total, pending, failed, hot)| Sample {
            recovery_action,
            ecc_uncorrected_total: Some(total),
            remapped_rows: Some(RemappedRows {
                pending,
                failed: failed && pending,
                ..RemappedRows::default()
            }),
            throttle: if hot {
                vec![ThrottleReason::HwThermalSlowdown]
            } else {
                vec![]
            },
            ..Sample::default()
        },
    );
    prop_oneof![
        (0..180u32).prop_map(Step::Xid),
        sample.prop_map(Step::Sweep),
        Just(Step::Sweep(good())),
        Just(Step::Fail(GpuError::DeviceLost)),
        Just(Step::Fail(GpuError::NoPermission)),
        Just(Step::Silence),
        Just(Step::Reset),
        Just(Step::Acknowledge),
        Just(Step::Restart),
        (1..120u64).prop_map(Step::Pass),
    ]
}

fn apply(device: &mut Device, step: &Step) {
    match step {
        Step::Xid(code) => drop(device.xid(*code)),
        Step::Sweep(sample) => drop(device.sweep(sample)),
        Step::Fail(error) => drop(device.fail(error)),
        Step::Silence => device.machine.observe(device.now, Observation::Silence),
        Step::Reset => device.machine.reset(device.now),
        Step::Acknowledge => drop(device.machine.acknowledge(device.now, "ok")),
        Step::Restart => drop(device.restart()),
        Step::Pass(seconds) => device.pass(Duration::from_secs(*seconds)),
    }
}

proptest! {
    #[test]
    fn unhealthy_never_becomes_usable_without_recovering(steps in prop::collection::vec(step(), 1..80)) {
        let mut device = Device::new();
        for step in &steps {
            let before = device.state();
            apply(&mut device, step);
            let after = device.state();
            if before == Health::Unhealthy {
                prop_assert!(matches!(after, Health::Unhealthy | Health::Recovering), "{before:?} -> {after:?} by {step:?}");
            }
            if before == Health::Recovering && after == Health::Healthy {
                prop_assert!(matches!(step, Step::Sweep(_)), "only a good sweep proves health, not {step:?}");
            }
            if matches!(step, Step::Restart) {
                prop_assert_eq!(before, after, "a restart changes no verdict");
            }
            prop_assert_eq!(after == Health::Healthy, device.reasons().is_empty(), "who is not healthy has a reason");
        }
    }

    #[test]
    fn what_applications_do_never_condemns(
        codes in prop::collection::vec(prop::sample::select(vec![13u32, 31, 43, 45, 68, 109]), 1..200),
    ) {
        let mut device = Device::new();
        for code in codes {
            prop_assert_eq!(device.xid(code), Health::Healthy);
        }
    }

    #[test]
    fn whatever_happened_an_acknowledged_device_that_answers_well_ends_healthy(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut device = Device::new();
        for step in &steps {
            apply(&mut device, step);
        }
        let calm = Sample { ecc_uncorrected_total: Some(9), ..good() };
        device.sweep(&calm);
        device.machine.acknowledge(device.now, "ok");
        prop_assert_eq!(device.sweep_for(Duration::from_mins(1), &calm), Health::Healthy);
    }
}
