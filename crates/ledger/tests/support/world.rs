//! A node as it really is: its devices, what its kubelet runs, its processes, its clock. Turns actions into steps.

use berth_ledger::{Assignment, ClaimState, Event, GpuProcess, Holder, Snapshot};
use berth_placement::{
    ComputeMode, DeviceState, DeviceUuid, GpuShape, Health, LeaseId, MemoryBytes, MigSlot, MilliGpu, PodRef, Room,
    Shape,
};
use proptest::sample::Index;

use crate::{
    actions::{Action, Admission, Ask, Listing, Start},
    harness::{log::Step, model::target, shell::Shell},
};

const DEVICES: u32 = 8;
const NAMES: usize = 6;
const LEASES: usize = 3;

pub(crate) struct World {
    now: u64,
    /// All that ever were, with whether each is plugged in.
    devices: Vec<(DeviceState, bool)>,
    /// Pods in the order of their coming, with what each asked for.
    pods: Vec<(PodRef, Shape)>,
    /// What the kubelet runs.
    running: Vec<Assignment>,
    processes: Vec<GpuProcess>,
    next_pid: u32,
    /// Grows whenever instances are made anew: they get other UUIDs.
    made: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            now: 1_700_000_000_000,
            devices: (0..DEVICES).map(|index| (gpu(index), true)).collect(),
            pods: Vec::new(),
            running: Vec::new(),
            processes: Vec::new(),
            next_pid: 100,
            made: 0,
        };
        for index in [6, 7] {
            world.split(index, 3);
        }
        world
    }

    /// What the daemon does when it starts.
    pub(crate) fn start(&self, order: Start) -> Vec<Step> {
        let (devices, list) = (self.step(self.present()), self.list(Listing::All));
        let processes = self.step(Event::Processes(self.processes.clone()));
        match order {
            Start::DevicesFirst => vec![devices, list, processes],
            Start::KubeletFirst => vec![processes, list, devices],
            Start::Hasty => Vec::new(),
        }
    }

    /// The steps of an action; none where it makes no sense in this state.
    pub(crate) fn resolve(&mut self, action: Action, shell: &Shell) -> Vec<Step> {
        let book = &shell.book();
        match action {
            Action::Flush => vec![Step::Flush],
            Action::Compact => vec![Step::Compact],
            Action::Crash { lost, then } => {
                let lost = lost.index(shell.volatile() + 1);
                [vec![Step::Crash { lost }], self.start(then)].concat()
            }
            Action::WaitUntilDue => {
                let Some(due) = shell.next_deadline() else {
                    return Vec::new();
                };
                self.now = self.now.max(due);
                vec![self.step(Event::Tick)]
            }
            Action::Wait { ms } => {
                self.now += ms;
                vec![self.step(Event::Tick)]
            }
            Action::ClockBack { ms } => {
                self.now -= ms;
                vec![self.step(Event::Tick)]
            }
            Action::Ask(listing) => vec![self.list(listing)],
            Action::NoKubelet => vec![self.step(Event::NoKubelet)],
            Action::Admit { .. } | Action::AdmitForeign { .. } | Action::End(_) => self.of_kubelet(action, book),
            Action::Reserve { .. }
            | Action::ReserveAgain { .. }
            | Action::Acquire { .. }
            | Action::ReleasePod(_)
            | Action::ReleaseLease(_)
            | Action::ReleaseNobody => self
                .of_clients(action, book)
                .into_iter()
                .map(|event| self.step(event))
                .collect(),
            _ => self
                .of_hardware(&action)
                .into_iter()
                .map(|event| self.step(event))
                .collect(),
        }
    }

    fn step(&self, event: Event) -> Step {
        Step::Event { now: self.now, event }
    }

    fn of_clients(&mut self, action: Action, book: &Snapshot) -> Option<Event> {
        Some(match action {
            Action::Reserve {
                name,
                ask,
                ttl_ms,
                preferred,
            } => {
                let uid = format!("u{}", self.pods.len());
                let pod = PodRef::new("prod", &format!("p{}", name.index(NAMES)), uid.parse().unwrap()).unwrap();
                let shape = shape(&ask);
                self.pods.push((pod.clone(), shape.clone()));
                reserve(pod, shape, ttl_ms, self.some(&preferred))
            }
            Action::ReserveAgain { pod, other, ttl_ms } => {
                let (pod, shape_before) = self.recent_pod(pod)?.clone();
                reserve(pod, other.as_ref().map_or(shape_before, shape), ttl_ms, Vec::new())
            }
            Action::Acquire { lease: at, ask } => Event::Acquire {
                lease: lease(at),
                shape: shape(&ask),
                client: "alice".to_owned(),
            },
            Action::ReleasePod(at) => Event::Release {
                holder: match pods_of(book) {
                    held if held.is_empty() => Holder::Pod(self.recent_pod(at)?.0.uid.clone()),
                    held => at.get(&held).clone(),
                },
            },
            Action::ReleaseLease(at) => Event::Release {
                holder: Holder::Lease(lease(at)),
            },
            _ => Event::Release {
                holder: Holder::Foreign("prod/p0".to_owned()),
            },
        })
    }

    /// The kubelet acts on its own; sometimes we look at once, sometimes later.
    fn of_kubelet(&mut self, action: Action, book: &Snapshot) -> Vec<Step> {
        match action {
            Action::Admit { pod, how } => {
                let waiting: Vec<_> = book
                    .claims
                    .iter()
                    .filter(|claim| matches!(claim.state, ClaimState::Reserved { .. }))
                    .collect();
                if waiting.is_empty() {
                    return Vec::new();
                }
                let claim = waiting[pod.index(waiting.len())];
                let Some(pod) = &claim.pod else { return Vec::new() };
                let (devices, shared) = match how {
                    Admission::AsPlanned => (claim.grants.iter().map(|grant| target(grant).clone()).collect(), false),
                    Admission::Elsewhere(devices) => (self.some(&devices), false),
                    Admission::Replicas(count) => {
                        let devices = claim.grants.iter().map(|grant| target(grant).clone());
                        (devices.flat_map(|device| vec![device; count as usize]).collect(), true)
                    }
                    Admission::WithoutDevices => (Vec::new(), false),
                };
                self.running.push(assignment(&pod.name, devices, shared));
                vec![self.list(Listing::All)]
            }
            Action::AdmitForeign { name, devices, shared } => {
                let devices = self.some(&devices);
                self.running
                    .push(assignment(&format!("p{}", name.index(NAMES + 3)), devices, shared));
                Vec::new()
            }
            Action::End(at) if !self.running.is_empty() => {
                self.running.remove(at.index(self.running.len()));
                vec![self.list(Listing::All)]
            }
            _ => Vec::new(),
        }
    }

    fn of_hardware(&mut self, action: &Action) -> Option<Event> {
        match *action {
            Action::Health { device, health } => self.device(device).health = health,
            Action::Mode {
                device,
                prohibited,
                exclusive,
            } => {
                self.device(device).compute_mode = match (prohibited, exclusive) {
                    (false, false) => ComputeMode::Default,
                    (false, true) => ComputeMode::ExclusiveProcess,
                    (true, _) => ComputeMode::Prohibited,
                };
            }
            Action::Memory { device, gib } => self.device(device).memory = MemoryBytes::from_gib(gib),
            Action::Plug(device) => {
                let at = device.index(self.devices.len());
                self.devices[at].1 ^= true;
            }
            Action::Split { device, instances } => {
                let at = device.index(self.devices.len());
                self.split(at, instances);
            }
            Action::Remake(device) => {
                let at = device.index(self.devices.len());
                let slots = self.devices[at].0.mig.as_ref()?.len();
                self.made += 1;
                self.split(at, u32::try_from(slots).ok()?);
            }
            Action::Reload => return Some(Event::Devices(Vec::new())),
            Action::Process { device, pod, inside } => {
                let (device, _) = &self.devices[device.index(self.devices.len())];
                let instance = device.mig.iter().flatten().next().filter(|_| inside);
                let process = GpuProcess {
                    device: device.uuid.clone(),
                    mig_instance: instance.map(|slot| slot.uuid.clone()),
                    pid: self.next_pid,
                    used_memory_bytes: None,
                    pod_uid: pod.and_then(|pod| self.recent_pod(pod)).map(|(pod, _)| pod.uid.clone()),
                };
                // The driver tells some processes twice: as compute and as graphics.
                let times = if self.next_pid.is_multiple_of(5) { 2 } else { 1 };
                self.next_pid += 1;
                self.processes.extend(vec![process; times]);
                return Some(Event::Processes(self.processes.clone()));
            }
            Action::Kill(at) => {
                if self.processes.is_empty() {
                    return None;
                }
                self.processes.remove(at.index(self.processes.len()));
                return Some(Event::Processes(self.processes.clone()));
            }
            Action::Cordon { device, schedulable } => {
                // Now and then one that the node does not have.
                let at = device.index(self.devices.len() + 1);
                let known = self.devices.get(at).map(|(device, _)| device.uuid.clone());
                return Some(Event::SetSchedulable {
                    device: known.unwrap_or_else(|| "GPU-none".parse().unwrap()),
                    schedulable,
                    message: "by hand".to_owned(),
                });
            }
            _ => {}
        }
        Some(self.present())
    }

    fn present(&self) -> Event {
        Event::Devices(
            self.devices
                .iter()
                .filter(|(_, present)| *present)
                .map(|(device, _)| device.clone())
                .collect(),
        )
    }

    fn list(&self, listing: Listing) -> Step {
        let running = self.running.iter().cloned();
        let list = match listing {
            Listing::All => running.collect(),
            Listing::Nothing => Vec::new(),
            Listing::Half => running.take(self.running.len() / 2).collect(),
            Listing::Doubled => running
                .enumerate()
                .flat_map(|(at, entry)| vec![entry; 1 + at % 2])
                .collect(),
        };
        self.step(Event::Kubelet(list))
    }

    fn device(&mut self, at: Index) -> &mut DeviceState {
        let at = at.index(self.devices.len());
        &mut self.devices[at].0
    }

    /// Zero instances: no longer split.
    fn split(&mut self, at: usize, instances: u32) {
        let made = self.made;
        let device = &mut self.devices[at].0;
        let slot = |number| MigSlot {
            uuid: format!("MIG-{}-{made}-{number}", device.index).parse().unwrap(),
            profile: "1g.10gb".parse().unwrap(),
            memory: MemoryBytes::from_gib(10),
            free: true,
        };
        device.mig = (instances > 0).then(|| (0..instances).map(slot).collect());
    }

    /// Devices or MIG instances, as the kubelet would name them; some of them unknown to the driver.
    fn some(&self, which: &[Index]) -> Vec<DeviceUuid> {
        let mut all: Vec<DeviceUuid> = vec!["MIG-none".parse().unwrap()];
        for (device, _) in &self.devices {
            match &device.mig {
                None => all.push(device.uuid.clone()),
                Some(slots) => all.extend(slots.iter().map(|slot| slot.uuid.clone())),
            }
        }
        which.iter().map(|at| at.get(&all).clone()).collect()
    }

    /// One of the last few: of the earlier ones nothing is left as a rule.
    fn recent_pod(&self, at: Index) -> Option<&(PodRef, Shape)> {
        let recent = self.pods.len().min(12);
        (recent > 0).then(|| &self.pods[self.pods.len() - 1 - at.index(recent)])
    }
}

fn gpu(index: u32) -> DeviceState {
    let memory = MemoryBytes::from_gib(80);
    DeviceState {
        uuid: format!("GPU-{index}").parse().unwrap(),
        index,
        model: if index < 6 { "H100" } else { "A100" }.parse().unwrap(),
        memory,
        compute_mode: ComputeMode::Default,
        numa_node: Some(index / 4),
        nvlink_domain: (index < 4).then_some(0),
        health: Health::Healthy,
        schedulable: true,
        out_of_band: false,
        mig: None,
        free: Room::whole(memory),
    }
}

fn pods_of(book: &Snapshot) -> Vec<Holder> {
    let pods = book.claims.iter().filter(|claim| claim.pod.is_some());
    pods.map(|claim| claim.holder.clone()).collect()
}

fn shape(ask: &Ask) -> Shape {
    Shape::gpu(match ask {
        Ask::Whole(count) => GpuShape::whole(*count).unwrap(),
        Ask::Milli(milli, count) => GpuShape::share(Some(MilliGpu::new(*milli)), None, *count).unwrap(),
        Ask::Memory(memory) => GpuShape::share(None, Some(*memory), 1).unwrap(),
        Ask::Mig(count) => GpuShape::mig("1g.10gb".parse().unwrap(), *count).unwrap(),
        Ask::Nothing => GpuShape::None,
    })
}

fn reserve(pod: PodRef, shape: Shape, ttl_ms: u64, preferred: Vec<DeviceUuid>) -> Event {
    Event::Reserve {
        pod,
        shape,
        ttl_ms,
        preferred,
        client: "scheduler".to_owned(),
        decision_id: String::new(),
    }
}

fn lease(at: Index) -> LeaseId {
    format!("l{}", at.index(LEASES)).parse().unwrap()
}

fn assignment(name: &str, devices: Vec<DeviceUuid>, shared: bool) -> Assignment {
    Assignment {
        namespace: "prod".to_owned(),
        name: name.to_owned(),
        devices,
        shared,
    }
}
