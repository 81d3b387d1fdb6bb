use std::time::Duration;

use super::*;
use crate::{
    GpuBackend as _, SimBackend,
    backend::Progress,
    health::DeviceMemory,
    sim::{Command, GpuSelector},
};

/// A state that is fed by hand with what a simulated machine answers.
struct Fed {
    state: State,
    sim: SimBackend,
    now: Moment,
}

impl Fed {
    fn new(profile: &str, memory: HealthMemory) -> Self {
        let sim = SimBackend::new(&profile.parse().unwrap(), &"gpu-a".parse().unwrap());
        let state = State::new(HealthConfig::default(), None, memory);
        let now = Moment {
            unix_ms: 1_700_000_000_000,
            monotonic: Duration::from_secs(10),
        };
        let mut fed = Self { state, sim, now };
        fed.connect();
        fed.sweep();
        fed
    }

    fn reports(&self, with: impl Fn(&mut dyn crate::GpuSession) -> Vec<Report>) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut body = |session: &mut dyn crate::GpuSession| reports = with(session);
        self.sim.clone().with_session(&Progress::default(), &mut body).unwrap();
        reports
    }

    fn feed(&mut self, reports: Vec<Report>) {
        for report in reports {
            self.state.apply(self.now, report);
        }
    }

    fn connect(&mut self) {
        let connected = self.reports(|session| {
            vec![Report::Connected {
                driver: session.driver(),
                discovery: session.discover().unwrap(),
            }]
        });
        self.feed(connected);
    }

    fn sweep(&mut self) {
        let known: Vec<_> = self
            .state
            .devices
            .iter()
            .map(|device| device.facts.uuid.clone())
            .collect();
        let read = self.reports(|session| {
            let read = |device: &DeviceUuid| Report::Read {
                device: device.clone(),
                result: session.sample(device),
            };
            known.iter().map(read).collect()
        });
        self.feed(read);
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
    }

    fn send(&self, command: &Command) {
        self.sim.control().send(command).unwrap();
    }

    fn health(&self, at: usize) -> Health {
        self.state.inventory().devices[at].health.state
    }

    fn sampled(&self, at: usize) -> u64 {
        self.state.inventory().devices[at]
            .sample
            .as_ref()
            .unwrap()
            .sampled_unix_ms
    }
}

#[test]
fn an_xid_without_a_gpu_is_of_those_that_do_not_answer() {
    let mut fed = Fed::new("dgx-h100", HealthMemory::default());
    fed.state.apply(fed.now, Report::Xid { device: None, code: 79 });
    assert!((0..8).all(|at| fed.health(at) == Health::Healthy), "every GPU answers");
    fed.send(&Command::Lose {
        gpu: GpuSelector::Position(3),
    });
    fed.sweep();
    fed.state.apply(fed.now, Report::Xid { device: None, code: 79 });
    let reasons = &fed.state.inventory().devices[3].health.reasons;
    assert_eq!(
        reasons.iter().map(|reason| reason.reason).collect::<Vec<_>>(),
        ["Lost", "Xid"]
    );
    assert!((0..8).filter(|at| *at != 3).all(|at| fed.health(at) == Health::Healthy));
}

#[test]
fn a_reading_that_does_not_move_is_dated_anew_once_a_minute() {
    let mut fed = Fed::new("l40sx1", HealthMemory::default());
    let first = fed.sampled(0);
    fed.pass(Duration::from_secs(59));
    fed.sweep();
    assert_eq!(fed.sampled(0), first);
    fed.pass(Duration::from_secs(1));
    fed.sweep();
    assert_eq!(fed.sampled(0), fed.now.unix_ms);
    fed.now.unix_ms -= 3_600_000;
    fed.sweep();
    assert_eq!(
        fed.sampled(0),
        fed.now.unix_ms,
        "a clock that was set back does not freeze the date"
    );
}

#[test]
fn what_is_remembered_of_a_gpu_waits_until_the_gpu_is_seen() {
    let mut fed = Fed::new("dgx-h100", HealthMemory::default());
    let uuid = fed.state.devices[2].facts.uuid.clone();
    fed.state.apply(
        fed.now,
        Report::Xid {
            device: Some(uuid.clone()),
            code: 62,
        },
    );
    fed.send(&Command::Remove {
        gpu: GpuSelector::Position(2),
    });
    fed.connect();
    assert!(fed.state.inventory().device(&uuid).is_none());

    let mut again = Fed::new("dgx-h100x2", fed.state.memory());
    assert!(
        again.state.memory().ailing().any(|(ailing, _)| *ailing == uuid),
        "carried on though it is not here"
    );
    again.sim = SimBackend::new(&"dgx-h100".parse().unwrap(), &"gpu-a".parse().unwrap());
    again.connect();
    assert_eq!(again.health(2), Health::Unhealthy);
}

#[test]
fn what_is_remembered_of_gpus_that_are_gone_has_an_end() {
    let mut fed = Fed::new("l40sx1", HealthMemory::default());
    let mut memory = fed.state.memory();
    let (_, like) = memory.devices.first_key_value().unwrap();
    let like = DeviceMemory {
        state: Health::Unhealthy,
        ..like.clone()
    };
    for number in 0..1_000 {
        memory
            .devices
            .insert(format!("GPU-{number}").parse().unwrap(), like.clone());
    }
    fed.state = State::new(HealthConfig::default(), None, memory);
    fed.connect();
    assert!(fed.state.memory().devices.len() <= MAX_REMEMBERED);
    assert_eq!(fed.state.inventory().devices.len(), 1);
}
