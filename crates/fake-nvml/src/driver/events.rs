//! Event sets: each hears every event once, of the GPUs and kinds it registered, from the moment it registered.

use std::collections::BTreeMap;

use super::{Outcome, Session, Target};
use crate::scenario::{Event, ReturnCode, Scenario};

#[derive(Debug, Default)]
pub(super) struct EventSet {
    /// Sequence number of the next event to look at.
    cursor: u64,
    /// By member.
    registered: BTreeMap<usize, Registration>,
}

#[derive(Debug)]
struct Registration {
    kinds: u64,
    since: u64,
}

#[derive(Debug, Default)]
pub(super) struct SystemEventSet {
    cursor: u64,
    kinds: u64,
}

/// An event for a set. The device's handle is the session's to make.
pub(crate) struct Happening {
    pub(crate) member: usize,
    pub(crate) event: Event,
}

pub(crate) struct SystemHappening {
    pub(crate) kind: u64,
    pub(crate) gpu_id: u32,
}

/// The next event at or after the cursor that `wanted` takes, with the cursor moved behind it (or to the end).
fn next<'a, T>(cursor: &mut u64, scenario: &'a Scenario, wanted: impl Fn(&'a Event) -> Option<T>) -> Option<T> {
    // A state file that was written anew counts from the start again.
    *cursor = (*cursor).min(scenario.events.next);
    for event in scenario.events.log.iter().filter(|event| event.seq >= *cursor) {
        if let Some(found) = wanted(event) {
            *cursor = event.seq + 1;
            return Some(found);
        }
    }
    *cursor = scenario.events.next;
    None
}

impl Session {
    pub(crate) fn create_set(&mut self, scenario: &Scenario) -> usize {
        let id = self.new_set_id();
        let set = EventSet {
            cursor: scenario.events.next,
            ..EventSet::default()
        };
        self.sets.insert(id, set);
        self.handle_of(Target::EventSet(id))
    }

    pub(crate) fn register(&mut self, scenario: &Scenario, set: usize, member: usize, kinds: u64) -> Outcome {
        let registered = &mut self.set(set)?.registered;
        let registration = registered.entry(member).or_insert(Registration {
            kinds: 0,
            since: scenario.events.next,
        });
        registration.kinds |= kinds;
        Ok(())
    }

    /// The next event for a set, if there is one. Events come before the news that a GPU of the set is lost.
    pub(crate) fn poll(&mut self, scenario: &Scenario, set: usize) -> Outcome<Option<Happening>> {
        let members: Vec<_> = self.members.iter().map(|member| member.uuid.clone()).collect();
        let set = self.set(set)?;
        let wanted = |event: &Event| {
            let member = members.iter().rposition(|uuid| *uuid == event.gpu)?;
            let registration = set.registered.get(&member)?;
            (event.seq >= registration.since && registration.kinds & event.kind.device_bit() != 0).then(|| Happening {
                member,
                event: event.clone(),
            })
        };
        if let Some(happening) = next(&mut set.cursor, scenario, wanted) {
            return Ok(Some(happening));
        }
        let registered: Vec<_> = set.registered.keys().copied().collect();
        let lost = |member: &usize| self.members[*member].is_lost(scenario);
        if registered.iter().any(lost) {
            return Err(ReturnCode::GPU_IS_LOST);
        }
        Ok(None)
    }

    pub(crate) fn free_set(&mut self, set: usize) -> Outcome {
        match self.target_of(set)? {
            Target::EventSet(id) => self.sets.remove(&id).map(drop),
            Target::SystemEventSet(id) => self.system_sets.remove(&id).map(drop),
            _ => None,
        }
        .ok_or(ReturnCode::INVALID_ARGUMENT)
    }

    pub(crate) fn create_system_set(&mut self, scenario: &Scenario) -> usize {
        let id = self.new_set_id();
        let set = SystemEventSet {
            cursor: scenario.events.next,
            ..SystemEventSet::default()
        };
        self.system_sets.insert(id, set);
        self.handle_of(Target::SystemEventSet(id))
    }

    pub(crate) fn register_system(&mut self, set: usize, kinds: u64) -> Outcome {
        self.system_set(set)?.kinds |= kinds;
        Ok(())
    }

    pub(crate) fn poll_system(&mut self, scenario: &Scenario, set: usize) -> Outcome<Option<SystemHappening>> {
        let set = self.system_set(set)?;
        let kinds = set.kinds;
        let wanted = |event: &Event| {
            (kinds & event.kind.system_bit() != 0).then(|| SystemHappening {
                kind: event.kind.system_bit(),
                gpu_id: event.bus_id.gpu_id(),
            })
        };
        Ok(next(&mut set.cursor, scenario, wanted))
    }

    fn new_set_id(&mut self) -> u32 {
        self.next_set += 1;
        self.next_set
    }

    fn set(&mut self, handle: usize) -> Outcome<&mut EventSet> {
        match self.target_of(handle)? {
            Target::EventSet(id) => self.sets.get_mut(&id).ok_or(ReturnCode::INVALID_ARGUMENT),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }

    fn system_set(&mut self, handle: usize) -> Outcome<&mut SystemEventSet> {
        match self.target_of(handle)? {
            Target::SystemEventSet(id) => self.system_sets.get_mut(&id).ok_or(ReturnCode::INVALID_ARGUMENT),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }
}
