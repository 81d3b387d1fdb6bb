//! The state machine of one device.

use std::time::Duration;

use berth_placement::Health;

use super::{
    HealthConfig, Moment,
    fault::{Cure, Fault, FaultKind},
    memory::{DeviceMemory, FaultMemory},
};
use crate::{
    GpuError,
    inventory::{HealthReason, HealthReport, RecoveryAction, Sample, ThrottleReason},
};

/// Distinct XIDs kept for one device: a broken one may send anything.
const MAX_FAULTS: usize = 32;

/// One device's health.
#[derive(Debug, Clone)]
pub struct HealthMachine {
    config: HealthConfig,
    state: Health,
    since_unix_ms: u64,
    faults: Vec<Fault>,
    recovery: Recovery,
    /// Since when the driver has asked for no recovery action; `None` while it asks for one, or does not tell.
    no_action_since: Option<Duration>,
    /// The driver asked for a recovery action in the last reading that told.
    action_asked: bool,
    ecc_uncorrected: Option<u64>,
    /// Failed readings in a row, and since when there was no good one.
    failed: u32,
    silent_since: Option<Duration>,
}

/// The stay in Recovering. While Unhealthy, `from` holds what there will be to recover from.
#[derive(Debug, Clone, Default)]
struct Recovery {
    since: Duration,
    good_sweeps: u32,
    from: Vec<Fault>,
    acknowledged: Option<HealthReason>,
}

/// What one sweep found.
#[derive(Debug, Clone, Copy)]
pub enum Observation<'a> {
    Reading(&'a Sample),
    Failed(&'a GpuError),
    /// The driver as a whole does not answer.
    Silence,
}

impl HealthMachine {
    /// A device that is seen for the first time.
    pub fn new(config: HealthConfig, now: Moment) -> Self {
        Self {
            config,
            state: Health::Healthy,
            since_unix_ms: now.unix_ms,
            faults: Vec::new(),
            recovery: Recovery::default(),
            no_action_since: None,
            action_asked: false,
            ecc_uncorrected: None,
            failed: 0,
            silent_since: None,
        }
    }

    /// A device that was known before a restart. All dwell times start anew.
    pub fn restore(config: HealthConfig, now: Moment, memory: &DeviceMemory) -> Self {
        let fault = |fault: &FaultMemory| Fault {
            kind: fault.kind,
            since_unix_ms: fault.since_unix_ms,
            last_seen: now.monotonic,
        };
        let faults = memory.faults.iter().take(MAX_FAULTS).map(fault).collect();
        let mut machine = Self {
            state: memory.state,
            since_unix_ms: memory.since_unix_ms,
            ecc_uncorrected: memory.ecc_uncorrected,
            ..Self::new(config, now)
        };
        if memory.state == Health::Recovering {
            machine.recovery = Recovery {
                since: now.monotonic,
                from: faults,
                ..Recovery::default()
            };
        } else {
            machine.faults = faults;
            machine.action_asked = machine.faults.iter().any(|fault| fault.kind.is_recovery_action());
        }
        machine.settle(now);
        machine
    }

    pub fn memory(&self) -> DeviceMemory {
        let faults = if self.state == Health::Recovering {
            &self.recovery.from
        } else {
            &self.faults
        };
        let remember = |fault: &Fault| FaultMemory {
            kind: fault.kind,
            since_unix_ms: fault.since_unix_ms,
        };
        DeviceMemory {
            state: self.state,
            since_unix_ms: self.since_unix_ms,
            faults: faults.iter().map(remember).collect(),
            ecc_uncorrected: self.ecc_uncorrected,
        }
    }

    pub const fn state(&self) -> Health {
        self.state
    }

    pub fn report(&self) -> HealthReport {
        let mut reasons: Vec<HealthReason> = match self.state {
            Health::Recovering => self.recovery.from.iter().map(Fault::tell).collect(),
            _ => self.worst_first().map(Fault::tell).collect(),
        };
        if self.state == Health::Recovering {
            reasons.extend(self.recovery.acknowledged.clone());
        }
        HealthReport {
            state: self.state,
            since_unix_ms: self.since_unix_ms,
            reasons,
        }
    }

    /// The driver sent an XID.
    pub fn xid(&mut self, now: Moment, code: u32) {
        if let Some(kind) = FaultKind::of_xid(code) {
            self.raise(now, kind);
            self.recovery.good_sweeps = 0;
        }
        self.settle(now);
    }

    /// A sweep looked at the device.
    pub fn observe(&mut self, now: Moment, observation: Observation<'_>) {
        match observation {
            Observation::Reading(sample) => self.read(now, sample),
            Observation::Failed(GpuError::DeviceLost) => self.silent(now, FaultKind::Lost),
            Observation::Failed(GpuError::ResetRequired) => self.silent(now, FaultKind::ResetRequired),
            Observation::Failed(_) => {
                self.failed = self.failed.saturating_add(1);
                if self.failed >= self.config.failed_readings {
                    self.silent(now, FaultKind::NotAnswering);
                }
            }
            Observation::Silence => self.silent(now, FaultKind::NotAnswering),
        }
        self.settle(now);
    }

    /// The device was reset, its driver loaded anew, or the machine rebooted: what events told is history.
    pub fn reset(&mut self, now: Moment) {
        self.clear(FaultKind::is_event);
        self.settle(now);
    }

    /// An operator says that the cause is dealt with. Ends what events told; what the sweep still sees, stays. Returns the
    /// reasons that ended.
    pub fn acknowledge(&mut self, now: Moment, message: &str) -> Vec<&'static str> {
        let ended = self.faults.iter().filter(|fault| fault.kind.is_event());
        let ended = ended.map(|fault| fault.kind.reason()).collect();
        self.clear(FaultKind::is_event);
        self.settle(now);
        if self.state == Health::Recovering {
            self.recovery.acknowledged = Some(HealthReason {
                reason: "Acknowledged",
                message: message.to_owned(),
                since_unix_ms: now.unix_ms,
                xid: None,
            });
        }
        ended
    }

    fn read(&mut self, now: Moment, sample: &Sample) {
        // Who was gone and answers again was reset, re-attached, or at least re-initialised by the driver.
        let came_back = self.has(FaultKind::Lost) || self.has(FaultKind::ResetRequired);
        self.failed = 0;
        self.silent_since = None;
        self.clear(FaultKind::is_silence);

        let action_done = self.note_recovery_action(now, sample.recovery_action);
        if came_back || action_done {
            self.clear(FaultKind::is_event);
        }
        self.note_ecc(now, sample);

        let seen = levels(sample);
        for kind in &seen {
            self.raise(now, *kind);
        }
        let config = &self.config;
        let no_action_since = self.no_action_since;
        self.faults.retain(|fault| {
            let quiet = now.monotonic.saturating_sub(fault.last_seen);
            match fault.kind.cure() {
                Cure::Level => seen.contains(&fault.kind),
                Cure::Lingering => quiet < config.throttle_quiet,
                Cure::Quiet => quiet < config.suspect_quiet,
                Cure::DriverSays => no_action_since.is_none_or(|since| {
                    now.monotonic.saturating_sub(since.max(fault.last_seen)) < config.driver_clear_after
                }),
                Cure::Reset => true,
            }
        });
        self.recovery.good_sweeps = self.recovery.good_sweeps.saturating_add(1);
    }

    /// True when an action that the driver had asked for is no longer asked for: it was taken.
    fn note_recovery_action(&mut self, now: Moment, action: Option<RecoveryAction>) -> bool {
        match action {
            None => {
                self.no_action_since = None;
                false
            }
            Some(RecoveryAction::None) => {
                self.no_action_since.get_or_insert(now.monotonic);
                std::mem::take(&mut self.action_asked)
            }
            Some(_) => {
                self.no_action_since = None;
                self.action_asked = true;
                false
            }
        }
    }

    fn note_ecc(&mut self, now: Moment, sample: &Sample) {
        let Some(total) = sample.ecc_uncorrected_total else {
            return;
        };
        // A lower count than before was set back by a reset or by hand. Without a count from before, nothing is new.
        if self.ecc_uncorrected.is_some_and(|known| total > known) {
            // What a GPU that replaces rows cannot contain, it tells by XID 48 or 95 and by the recovery action.
            let kind = match sample.remapped_rows {
                Some(_) => FaultKind::EccUncorrected,
                None => FaultKind::EccUncorrectedUnmapped,
            };
            self.raise(now, kind);
        }
        self.ecc_uncorrected = Some(total);
    }

    fn silent(&mut self, now: Moment, kind: FaultKind) {
        let since = *self.silent_since.get_or_insert(now.monotonic);
        self.no_action_since = None;
        self.recovery.good_sweeps = 0;
        self.raise(now, kind);
        if now.monotonic.saturating_sub(since) >= self.config.unanswered_limit {
            self.raise(now, FaultKind::Unresponsive);
        }
    }

    fn raise(&mut self, now: Moment, kind: FaultKind) {
        if let Some(fault) = self.faults.iter_mut().find(|fault| fault.kind == kind) {
            fault.last_seen = now.monotonic;
        } else if self.faults.len() < MAX_FAULTS || !kind.is_event() {
            self.faults.push(Fault {
                kind,
                since_unix_ms: now.unix_ms,
                last_seen: now.monotonic,
            });
        }
    }

    fn has(&self, kind: FaultKind) -> bool {
        self.faults.iter().any(|fault| fault.kind == kind)
    }

    fn clear(&mut self, which: impl Fn(FaultKind) -> bool) {
        self.faults.retain(|fault| !which(fault.kind));
    }

    fn worst_first(&self) -> impl Iterator<Item = &Fault> {
        let mut faults: Vec<&Fault> = self.faults.iter().collect();
        faults.sort_by_key(|fault| (std::cmp::Reverse(fault.kind.severity()), fault.since_unix_ms));
        faults.into_iter()
    }

    /// Draws the conclusion from the faults.
    fn settle(&mut self, now: Moment) {
        let worst = self.faults.iter().map(|fault| fault.kind.severity()).max();
        let next = match (self.state, worst) {
            (_, Some(Health::Unhealthy)) => Health::Unhealthy,
            (Health::Unhealthy, _) => Health::Recovering,
            (Health::Recovering, _) if !self.recovered(now) => Health::Recovering,
            (_, Some(_)) => Health::Suspect,
            (_, None) => Health::Healthy,
        };
        if next != self.state {
            if next == Health::Recovering {
                self.recovery.since = now.monotonic;
                self.recovery.good_sweeps = 0;
            }
            self.state = next;
            self.since_unix_ms = now.unix_ms;
        }
        if self.state == Health::Unhealthy {
            let condemning = self
                .faults
                .iter()
                .filter(|fault| fault.kind.severity() == Health::Unhealthy);
            self.recovery = Recovery {
                from: condemning.copied().collect(),
                ..Recovery::default()
            };
        }
    }

    fn recovered(&self, now: Moment) -> bool {
        self.recovery.good_sweeps >= self.config.recovering_sweeps
            && now.monotonic.saturating_sub(self.recovery.since) >= self.config.recovering_dwell
    }
}

/// What a reading shows that is wrong at this moment.
fn levels(sample: &Sample) -> Vec<FaultKind> {
    let rows = sample.remapped_rows.unwrap_or_default();
    let throttled = |reason| sample.throttle.contains(&reason);
    let flags = [
        (rows.failed, FaultKind::RowRemapFailed),
        (rows.pending, FaultKind::RowRemapPending),
        (
            sample.page_retirement_pending == Some(true),
            FaultKind::PageRetirementPending,
        ),
        (
            throttled(ThrottleReason::HwThermalSlowdown),
            FaultKind::HwThermalSlowdown,
        ),
        (throttled(ThrottleReason::HwPowerBrake), FaultKind::HwPowerBrake),
    ];
    let flags = flags.into_iter().filter_map(|(set, kind)| set.then_some(kind));
    flags
        .chain(sample.recovery_action.and_then(FaultKind::of_recovery_action))
        .collect()
}
