//! What the driver tells of its own accord: XIDs, and hints to look at once.
//!
//! NVML waits for one set of events in one call, so all GPUs share a set. Registering fails as a whole when one GPU does
//! not support what is asked, and waiting fails for all when one GPU of the set is lost: the set is then made anew from
//! those that can.

use std::{collections::VecDeque, thread, time::Duration};

use berth_placement::DeviceUuid;
use nvml_wrapper::{
    EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
    struct_wrappers::event::EventData,
};
use nvml_wrapper_sys::bindings as sys;

use super::{
    Known,
    error::{self, Asking},
    raw,
};
use crate::{GpuError, backend::GpuEvent};

/// Kinds worth waking up for. Correctable errors are not: they may come by the thousand.
const WANTED: u64 = (sys::nvmlEventTypeXidCriticalError
    | sys::nvmlEventTypeDoubleBitEccError
    | sys::nvmlEventMigConfigChange
    | sys::nvmlEventTypeDramRetirementEvent
    | sys::nvmlEventTypeDramRetirementFailure
    | sys::nvmlEventTypeNonFatalPoisonError
    | sys::nvmlEventTypeFatalPoisonError
    | sys::nvmlEventTypeGpuUnavailableError
    | sys::nvmlEventTypeGpuRecoveryAction) as u64;

/// Failures in a row after which a session does without events.
const MAX_FAILURES: u32 = 5;
/// NVML's number for an XID that it does not know.
const UNKNOWN_XID: u32 = 999;

pub(super) struct Events<'nvml> {
    /// `None`: no GPU tells anything.
    set: Option<EventSet<'nvml>>,
    members: Vec<Member>,
    /// GPUs that did not answer when the set was made.
    silent: Vec<DeviceUuid>,
    /// To be told before waiting again.
    pending: VecDeque<GpuEvent>,
    failures: u32,
}

struct Member {
    key: usize,
    uuid: DeviceUuid,
}

impl<'nvml> Events<'nvml> {
    pub(super) const fn none() -> Self {
        Self {
            set: None,
            members: Vec::new(),
            silent: Vec::new(),
            pending: VecDeque::new(),
            failures: 0,
        }
    }

    /// A set of all GPUs that support events.
    pub(super) fn of(nvml: &'nvml Nvml, devices: &[Known<'nvml>], ask: &Asking) -> Result<Self, GpuError> {
        let mut events = Self::none();
        let mut candidates = Vec::new();
        for known in devices {
            match ask.must(|| raw::supported_events(&known.device)) {
                Ok(bits) if bits & WANTED != 0 => candidates.push((known, bits & WANTED)),
                Ok(_) | Err(GpuError::Unsupported) => {}
                Err(error) if error.ends_session() => return Err(error),
                Err(_) => events.silent.push(known.uuid.clone()),
            }
        }
        // A failed registration takes the set with it: leave out the GPU that failed, and start over.
        while !candidates.is_empty() {
            match register(nvml, &candidates, ask) {
                Ok(set) => {
                    events.set = Some(set);
                    break;
                }
                Err((_, error)) if error.ends_session() => return Err(error),
                Err((at, _)) => match candidates.get_mut(at) {
                    // What it claims to support it may still refuse; XIDs are what matters.
                    Some((_, bits)) if *bits & !XID != 0 && *bits & XID != 0 => *bits = XID,
                    Some(_) => drop(candidates.remove(at)),
                    None => break,
                },
            }
        }
        let member = |(known, _): &(&Known<'_>, u64)| Member {
            key: raw::key(&known.device),
            uuid: known.uuid.clone(),
        };
        if events.set.is_some() {
            events.members = candidates.iter().map(member).collect();
        }
        Ok(events)
    }

    /// Takes GPUs in again that were silent and now answer.
    pub(super) fn rejoin(&mut self, nvml: &'nvml Nvml, devices: &[Known<'nvml>], ask: &Asking) -> Result<(), GpuError> {
        let answers = |known: &&Known<'_>| {
            self.silent.contains(&known.uuid) && ask.must(|| raw::supported_events(&known.device)).is_ok()
        };
        if !self.silent.is_empty() && devices.iter().any(|known| answers(&known)) {
            self.renew(nvml, devices, ask)?;
        }
        Ok(())
    }

    pub(super) fn wait(
        &mut self,
        nvml: &'nvml Nvml,
        devices: &[Known<'nvml>],
        ask: &Asking,
        timeout: Duration,
    ) -> Result<Option<GpuEvent>, GpuError> {
        if let Some(event) = self.pending.pop_front() {
            return Ok(Some(event));
        }
        let Some(set) = &self.set else {
            thread::sleep(timeout);
            ask.tick();
            return Ok(None);
        };
        let waited = set.wait(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        ask.tick();
        match waited {
            Ok(event) => {
                self.failures = 0;
                Ok(Some(self.tell(&event)))
            }
            Err(NvmlError::Timeout) => {
                self.failures = 0;
                Ok(None)
            }
            Err(error) => {
                let error = error::of(&error);
                if error.ends_session() {
                    return Err(error);
                }
                self.broken(nvml, devices, ask, timeout)?;
                Ok(self.pending.pop_front())
            }
        }
    }

    /// The set fails: make it anew from the GPUs that answer, and have those looked at that do not.
    fn broken(
        &mut self,
        nvml: &'nvml Nvml,
        devices: &[Known<'nvml>],
        ask: &Asking,
        timeout: Duration,
    ) -> Result<(), GpuError> {
        self.failures += 1;
        let before: Vec<DeviceUuid> = self.members.drain(..).map(|member| member.uuid).collect();
        if self.failures > MAX_FAILURES {
            tracing::warn!("waiting for driver events fails again and again; this session goes on without them");
            *self = Self::none();
            return Ok(());
        }
        self.renew(nvml, devices, ask)?;
        let gone = before
            .into_iter()
            .filter(|uuid| self.members.iter().all(|member| member.uuid != *uuid));
        let gone: Vec<_> = gone.map(|device| GpuEvent::Changed { device }).collect();
        if gone.is_empty() {
            // Nobody is lost, so the next wait may fail as this one did: not at full speed.
            thread::sleep(timeout);
            ask.tick();
        }
        self.pending.extend(gone);
        Ok(())
    }

    /// The new set is made before the old one is freed: an event in between is told twice rather than never.
    fn renew(&mut self, nvml: &'nvml Nvml, devices: &[Known<'nvml>], ask: &Asking) -> Result<(), GpuError> {
        let fresh = Self::of(nvml, devices, ask)?;
        let old = std::mem::replace(self, fresh);
        self.pending = old.pending;
        self.failures = old.failures;
        Ok(())
    }

    fn tell(&self, event: &EventData<'_>) -> GpuEvent {
        let key = raw::key(&event.device);
        // By the handle first: a GPU that fell off the bus does not tell its UUID.
        let by_key = self
            .members
            .iter()
            .find(|member| member.key == key)
            .map(|member| member.uuid.clone());
        let device = by_key.or_else(|| event.device.uuid().ok()?.parse().ok());
        match (&event.event_data, device) {
            (Some(XidError::Value(code)), device) => GpuEvent::Xid {
                device,
                code: u32::try_from(*code).unwrap_or(UNKNOWN_XID),
            },
            (Some(XidError::Unknown), device) => GpuEvent::Xid {
                device,
                code: UNKNOWN_XID,
            },
            (None, Some(device)) => GpuEvent::Changed { device },
            (None, None) => GpuEvent::DevicesChanged,
        }
    }
}

const XID: u64 = sys::nvmlEventTypeXidCriticalError as u64;

/// A set with all of these. On failure: which one failed (or one past the end if the set could not be made at all).
fn register<'nvml>(
    nvml: &'nvml Nvml,
    candidates: &[(&Known<'nvml>, u64)],
    ask: &Asking,
) -> Result<EventSet<'nvml>, (usize, GpuError)> {
    let mut set = ask
        .must(|| nvml.create_event_set())
        .map_err(|error| (candidates.len(), error))?;
    for (at, (known, bits)) in candidates.iter().enumerate() {
        let types = EventTypes::from_bits_retain(*bits);
        set = ask
            .must(|| known.device.register_events(types, set).map_err(|failed| failed.error))
            .map_err(|error| (at, error))?;
    }
    Ok(set)
}
