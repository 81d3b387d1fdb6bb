//! A session, from the first `nvmlInit` to the last `nvmlShutdown`.

use std::collections::BTreeMap;

use super::{
    Outcome, Target,
    events::{EventSet, SystemEventSet},
    handles::Handles,
};
use crate::scenario::{Gpu, Presence, ReturnCode, Scenario};

pub(crate) struct Session {
    pub(super) users: u32,
    /// Of the driver, when the session began.
    pub(super) epoch: u64,
    /// The GPUs that were there when it began (or were discovered since); the position is NVML's index. A GPU that goes
    /// away stays, as the driver goes on counting it.
    pub(crate) members: Vec<Member>,
    handles: Handles,
    pub(super) sets: BTreeMap<u32, EventSet>,
    pub(super) system_sets: BTreeMap<u32, SystemEventSet>,
    pub(super) next_set: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) uuid: String,
    pub(crate) birth: u64,
}

impl Member {
    fn of(gpu: &Gpu) -> Self {
        Self {
            uuid: gpu.uuid.clone(),
            birth: gpu.birth,
        }
    }

    /// Where the GPU is now: the same one, and not another that came in its place.
    pub(crate) fn place(&self, scenario: &Scenario) -> Option<usize> {
        let same = |gpu: &Gpu| gpu.uuid == self.uuid && gpu.birth == self.birth;
        scenario.gpus.iter().position(same)
    }

    pub(super) fn is_lost(&self, scenario: &Scenario) -> bool {
        self.place(scenario)
            .is_none_or(|at| scenario.gpus[at].presence != Presence::Present)
    }
}

impl Session {
    pub(super) fn new(scenario: &Scenario, generation: u32, users: u32) -> Self {
        let there = |gpu: &&Gpu| gpu.presence != Presence::OffBus;
        Self {
            users,
            epoch: scenario.driver.epoch,
            members: scenario.gpus.iter().filter(there).map(Member::of).collect(),
            handles: Handles::new(generation),
            sets: BTreeMap::new(),
            system_sets: BTreeMap::new(),
            next_set: 0,
        }
    }

    pub(crate) fn handle_of(&mut self, target: Target) -> usize {
        self.handles.of(target)
    }

    pub(crate) fn target_of(&self, handle: usize) -> Outcome<Target> {
        self.handles.target(handle)
    }

    /// `nvmlDeviceDiscoverGpus`: takes in what was plugged since.
    pub(crate) fn discover(&mut self, scenario: &Scenario) {
        for gpu in scenario.gpus.iter().filter(|gpu| gpu.presence != Presence::OffBus) {
            let member = Member::of(gpu);
            if !self.members.contains(&member) {
                self.members.push(member);
            }
        }
    }

    /// The member that satisfies `wanted`; `NOT_FOUND` if none does, `GPU_IS_LOST` if it is there no more.
    pub(crate) fn member_where(&self, scenario: &Scenario, wanted: impl Fn(&Gpu) -> bool) -> Outcome<usize> {
        let found = self.members.iter().enumerate().find_map(|(position, member)| {
            let gpu = &scenario.gpus[member.place(scenario)?];
            wanted(gpu).then_some((position, gpu.presence))
        });
        match found {
            Some((position, Presence::Present)) => Ok(position),
            Some(_) => Err(ReturnCode::GPU_IS_LOST),
            None => Err(ReturnCode::NOT_FOUND),
        }
    }
}
