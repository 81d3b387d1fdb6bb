//! What may happen to a node, in terms that make sense in any state: "the third pod", "some device". The world turns them
//! into events.

use berth_placement::{Health, MemoryBytes, MilliGpu};
use proptest::{prelude::*, sample::Index};

#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// A pod comes; its name may be one that another pod had.
    Reserve {
        name: Index,
        ask: Ask,
        ttl_ms: u64,
        preferred: Vec<Index>,
    },
    /// The same pod asks again, perhaps for something else.
    ReserveAgain {
        pod: Index,
        other: Option<Ask>,
        ttl_ms: u64,
    },
    Acquire {
        lease: Index,
        ask: Ask,
    },
    ReleasePod(Index),
    ReleaseLease(Index),
    /// Of somebody who never was.
    ReleaseNobody,
    /// The kubelet admits a pod of the book.
    Admit {
        pod: Index,
        how: Admission,
    },
    /// The kubelet admits a pod that nobody reserved for.
    AdmitForeign {
        name: Index,
        devices: Vec<Index>,
        shared: bool,
    },
    /// The kubelet forgets a pod.
    End(Index),
    /// We ask the kubelet.
    Ask(Listing),
    NoKubelet,
    Health {
        device: Index,
        health: Health,
    },
    Mode {
        device: Index,
        prohibited: bool,
        exclusive: bool,
    },
    Memory {
        device: Index,
        gib: u64,
    },
    Plug(Index),
    Split {
        device: Index,
        instances: u32,
    },
    Remake(Index),
    /// The driver is unloaded: no devices until the next look.
    Reload,
    Look,
    Process {
        device: Index,
        pod: Option<Index>,
        inside: bool,
    },
    Kill(Index),
    Cordon {
        device: Index,
        schedulable: bool,
    },
    Wait {
        ms: u64,
    },
    /// Until something falls due.
    WaitUntilDue,
    ClockBack {
        ms: u64,
    },
    Flush,
    Crash {
        lost: Index,
        then: Start,
    },
    Compact,
}

/// In what order a daemon that starts hears of the world.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    DevicesFirst,
    KubeletFirst,
    /// It serves requests before it has heard of either.
    Hasty,
}

#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Whole(u32),
    Milli(u32, u32),
    Memory(MemoryBytes),
    Mig(u32),
    Nothing,
}

/// Where the kubelet puts a pod.
#[derive(Debug, Clone)]
pub(crate) enum Admission {
    AsPlanned,
    Elsewhere(Vec<Index>),
    Replicas(u32),
    WithoutDevices,
}

/// What a list of the kubelet's tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listing {
    All,
    Nothing,
    /// The first half.
    Half,
    /// With every second entry twice.
    Doubled,
}

fn milli() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(100),
        Just(250),
        Just(300),
        Just(500),
        Just(MilliGpu::WHOLE.get()),
        1..=1000_u32
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (1..=3_u32).prop_map(Ask::Whole),
        5 => (milli(), 1..=2_u32).prop_map(|(milli, count)| Ask::Milli(milli, count)),
        2 => (1..=80_u64).prop_map(|gib| Ask::Memory(MemoryBytes::from_gib(gib))),
        3 => (1..=2_u32).prop_map(Ask::Mig),
        1 => Just(Ask::Nothing),
    ]
}

fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..100_000_u64, Just(u64::MAX)]
}

fn some_devices() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 1..3)
}

fn admission() -> impl Strategy<Value = Admission> {
    prop_oneof![
        4 => Just(Admission::AsPlanned),
        3 => some_devices().prop_map(Admission::Elsewhere),
        1 => (1..4_u32).prop_map(Admission::Replicas),
        1 => Just(Admission::WithoutDevices),
    ]
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![
        3 => Just(Health::Healthy),
        1 => Just(Health::Suspect),
        1 => Just(Health::Recovering),
        2 => Just(Health::Unhealthy),
    ]
}

fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..2_000_u64, 3 => 2_000..40_000_u64, 1 => 40_000..400_000_u64]
}

fn of_clients() -> impl Strategy<Value = Action> {
    use Action::{Acquire, ReleaseLease, ReleaseNobody, ReleasePod, Reserve, ReserveAgain};
    prop_oneof![
        10 => (any::<Index>(), ask(), ttl(), prop::collection::vec(any::<Index>(), 0..3))
            .prop_map(|(name, ask, ttl_ms, preferred)| Reserve { name, ask, ttl_ms, preferred }),
        4 => (any::<Index>(), prop::option::weighted(0.2, ask()), ttl())
            .prop_map(|(pod, other, ttl_ms)| ReserveAgain { pod, other, ttl_ms }),
        3 => (any::<Index>(), ask()).prop_map(|(lease, ask)| Acquire { lease, ask }),
        7 => any::<Index>().prop_map(ReleasePod),
        3 => any::<Index>().prop_map(ReleaseLease),
        1 => Just(ReleaseNobody),
    ]
}

fn of_kubelet() -> impl Strategy<Value = Action> {
    prop_oneof![
        7 => (any::<Index>(), admission()).prop_map(|(pod, how)| Action::Admit { pod, how }),
        2 => (any::<Index>(), some_devices(), any::<bool>())
            .prop_map(|(name, devices, shared)| Action::AdmitForeign { name, devices, shared }),
        5 => any::<Index>().prop_map(Action::End),
        9 => Just(Action::Ask(Listing::All)),
        1 => Just(Action::Ask(Listing::Nothing)),
        1 => Just(Action::Ask(Listing::Half)),
        1 => Just(Action::Ask(Listing::Doubled)),
    ]
}

fn of_hardware() -> impl Strategy<Value = Action> {
    use Action::{Cordon, Health, Kill, Look, Memory, Mode, Plug, Process, Reload, Remake, Split};
    prop_oneof![
        5 => (any::<Index>(), health()).prop_map(|(device, health)| Health { device, health }),
        1 => (any::<Index>(), any::<bool>(), any::<bool>())
            .prop_map(|(device, prohibited, exclusive)| Mode { device, prohibited, exclusive }),
        1 => (any::<Index>(), prop_oneof![Just(80_u64), Just(76), Just(40)]).prop_map(|(device, gib)| Memory { device, gib }),
        2 => any::<Index>().prop_map(Plug),
        2 => (any::<Index>(), 0..4_u32).prop_map(|(device, instances)| Split { device, instances }),
        1 => any::<Index>().prop_map(Remake),
        1 => Just(Reload),
        3 => Just(Look),
        4 => (any::<Index>(), prop::option::of(any::<Index>()), any::<bool>())
            .prop_map(|(device, pod, inside)| Process { device, pod, inside }),
        4 => any::<Index>().prop_map(Kill),
        2 => (any::<Index>(), prop::bool::weighted(0.6)).prop_map(|(device, schedulable)| Cordon { device, schedulable }),
    ]
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![5 => Just(Start::DevicesFirst), 4 => Just(Start::KubeletFirst), 1 => Just(Start::Hasty)]
}

fn of_fate() -> impl Strategy<Value = Action> {
    prop_oneof![
        18 => wait().prop_map(|ms| Action::Wait { ms }),
        2 => Just(Action::WaitUntilDue),
        1 => (1..10_000_000_u64).prop_map(|ms| Action::ClockBack { ms }),
        12 => Just(Action::Flush),
        2 => (any::<Index>(), start()).prop_map(|(lost, then)| Action::Crash { lost, then }),
        1 => Just(Action::Compact),
        1 => prop::bool::weighted(0.1).prop_map(|none| if none { Action::NoKubelet } else { Action::Wait { ms: 1 } }),
    ]
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    prop_oneof![10 => of_clients(), 9 => of_kubelet(), 6 => of_hardware(), 6 => of_fate()]
}
