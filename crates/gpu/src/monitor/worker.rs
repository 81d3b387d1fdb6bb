//! The worker: the one thread that calls the driver. It decides when to look, never what it means.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use berth_placement::DeviceUuid;
use parking_lot::{Condvar, Mutex};

use super::{MonitorClock, MonitorConfig, state::Report};
use crate::{
    GpuBackend, GpuError, GpuSession,
    backend::{GpuEvent, Progress},
    health::xid::{self, XidClass},
};

/// Longest pause without a sign of life to the watchdog.
const PAUSE_SLICE: Duration = Duration::from_secs(1);

/// What the supervisor and its worker share.
#[derive(Debug, Default)]
pub(super) struct Lease {
    pub(super) progress: Progress,
    ended: Mutex<bool>,
    changed: Condvar,
}

pub(super) struct Worker {
    pub(super) config: MonitorConfig,
    pub(super) clock: MonitorClock,
    pub(super) lease: Arc<Lease>,
    /// False: nobody listens any more.
    pub(super) report: Box<dyn Fn(Report) -> bool + Send>,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Asked to.
    Stopped,
    /// GPUs came or went: connect anew.
    Outdated,
    Failed(GpuError),
}

/// When to do what next, in monotonic time.
struct Schedule {
    sweep: Duration,
    refresh: Duration,
    processes: Duration,
    rounds: u32,
}

impl Lease {
    pub(super) fn end(&self) {
        *self.ended.lock() = true;
        self.changed.notify_all();
    }

    fn has_ended(&self) -> bool {
        *self.ended.lock()
    }

    /// Waits, unless and until the lease ends.
    fn pause(&self, time: Duration) {
        let mut left = time;
        let mut ended = self.ended.lock();
        while !*ended && !left.is_zero() {
            let slice = left.min(PAUSE_SLICE);
            self.changed.wait_for(&mut ended, slice);
            self.progress.tick();
            left = left.saturating_sub(slice);
        }
    }
}

impl Worker {
    /// Connects again and again until the lease ends.
    pub(super) fn run(self, mut backend: Box<dyn GpuBackend>) {
        let mut pause = self.config.retry_min;
        while !self.lease.has_ended() {
            let mut swept = false;
            let mut end = End::Stopped;
            let connected = backend.with_session(&self.lease.progress, &mut |session| {
                end = match self.session(session, &mut swept) {
                    ControlFlow::Break(end) => end,
                    ControlFlow::Continue(()) => End::Stopped,
                };
            });
            let failure = match (connected, end) {
                (Err(error), _) => Report::ConnectFailed(error),
                (Ok(()), End::Failed(error)) => Report::SessionEnded(error),
                (Ok(()), End::Outdated) => Report::Outdated,
                (Ok(()), End::Stopped) => return,
            };
            if !(self.report)(failure) {
                return;
            }
            if swept {
                // It worked until now, so it may at once work again.
                pause = self.config.retry_min;
            } else {
                self.lease.pause(pause);
                pause = (pause * 2).min(self.config.retry_max);
            }
        }
    }

    /// Breaks when the session is over; sets `swept` after the first round, when the session proved good.
    fn session(&self, session: &mut dyn GpuSession, swept: &mut bool) -> ControlFlow<End> {
        let discovery = match session.discover() {
            Ok(discovery) => discovery,
            Err(error) => return ControlFlow::Break(End::Failed(error)),
        };
        let devices: Vec<DeviceUuid> = discovery.devices.iter().map(|device| device.uuid.clone()).collect();
        self.send(Report::Connected {
            driver: session.driver(),
            discovery,
        })?;
        let mut schedule = Schedule::starting((self.clock.monotonic)(), &self.config);
        loop {
            self.round(session, &devices, &mut schedule)?;
            *swept = true;
            let left = schedule.next().saturating_sub((self.clock.monotonic)());
            let timeout = left.min(self.config.event_slice);
            match session.wait_event(timeout) {
                Ok(None) => {}
                Ok(Some(event)) => self.event(session, &devices, event)?,
                Err(error) if error.ends_session() => return ControlFlow::Break(End::Failed(error)),
                // Events are a convenience; the sweep goes on without.
                Err(_) => self.lease.pause(timeout),
            }
            if self.lease.has_ended() {
                return ControlFlow::Break(End::Stopped);
            }
        }
    }

    /// What is due.
    fn round(&self, session: &mut dyn GpuSession, devices: &[DeviceUuid], due: &mut Schedule) -> ControlFlow<End> {
        let now = (self.clock.monotonic)();
        if now >= due.sweep {
            due.sweep = now + self.config.sweep;
            if self.check(session.devices_changed())? == Some(true) {
                return ControlFlow::Break(End::Outdated);
            }
            for device in devices {
                self.read(session, device)?;
            }
        }
        if now >= due.refresh {
            due.refresh = now + self.config.refresh;
            for device in devices {
                self.refresh(session, device)?;
            }
        }
        if now >= due.processes {
            due.rounds = due.rounds.wrapping_add(1);
            due.processes = now + self.config.processes + jitter(self.config.processes, due.rounds);
            for device in devices {
                self.processes(session, device)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn event(&self, session: &mut dyn GpuSession, devices: &[DeviceUuid], event: GpuEvent) -> ControlFlow<End> {
        match event {
            GpuEvent::Xid {
                device: Some(device),
                code,
            } => {
                self.send(Report::Xid {
                    device: Some(device.clone()),
                    code,
                })?;
                // The reading shows what the XID only announces, such as the recovery action.
                if xid::class(code) != XidClass::Application {
                    self.read(session, &device)?;
                }
                ControlFlow::Continue(())
            }
            GpuEvent::Xid { device: None, code } => {
                for device in devices {
                    self.read(session, device)?;
                }
                self.send(Report::Xid { device: None, code })
            }
            GpuEvent::Changed { device } => {
                self.read(session, &device)?;
                self.refresh(session, &device)?;
                self.processes(session, &device)
            }
            GpuEvent::DevicesChanged => ControlFlow::Break(End::Outdated),
        }
    }

    fn read(&self, session: &mut dyn GpuSession, device: &DeviceUuid) -> ControlFlow<End> {
        let result = session.sample(device);
        if let Err(error) = &result
            && error.ends_session()
        {
            return ControlFlow::Break(End::Failed(error.clone()));
        }
        self.send(Report::Read {
            device: device.clone(),
            result,
        })
    }

    fn refresh(&self, session: &mut dyn GpuSession, device: &DeviceUuid) -> ControlFlow<End> {
        match self.check(session.refresh(device))? {
            Some(refreshed) => self.send(Report::Refreshed {
                device: device.clone(),
                refreshed,
            }),
            None => ControlFlow::Continue(()),
        }
    }

    fn processes(&self, session: &mut dyn GpuSession, device: &DeviceUuid) -> ControlFlow<End> {
        match self.check(session.processes(device))? {
            Some(processes) => self.send(Report::Processes {
                device: device.clone(),
                processes,
            }),
            None => ControlFlow::Continue(()),
        }
    }

    /// `None`: failed for this device only; the reading tells of that.
    #[expect(clippy::unused_self, reason = "reads as the other steps")]
    fn check<T>(&self, result: Result<T, GpuError>) -> ControlFlow<End, Option<T>> {
        match result {
            Ok(value) => ControlFlow::Continue(Some(value)),
            Err(error) if error.ends_session() => ControlFlow::Break(End::Failed(error)),
            Err(_) => ControlFlow::Continue(None),
        }
    }

    fn send(&self, report: Report) -> ControlFlow<End> {
        if (self.report)(report) && !self.lease.has_ended() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(End::Stopped)
        }
    }
}

impl Schedule {
    /// Everything but the refresh at once: discovery has just read what a refresh reads.
    fn starting(now: Duration, config: &MonitorConfig) -> Self {
        Self {
            sweep: now,
            refresh: now + config.refresh,
            processes: now,
            rounds: 0,
        }
    }

    fn next(&self) -> Duration {
        self.sweep.min(self.refresh).min(self.processes)
    }
}

/// Up to a fifth of `interval`, different in each round, without a source of randomness: multiples of the golden ratio
/// spread evenly.
fn jitter(interval: Duration, round: u32) -> Duration {
    let fraction = round.wrapping_mul(0x9e37_79b9) >> 16;
    interval / 5 * fraction / 0x1_0000
}
