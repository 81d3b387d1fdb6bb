//! The NVML backend and the monitor, by the real code path, against the scriptable `libnvidia-ml.so.1` of
//! `berth-fake-nvml`. That crate is a dev-dependency, so cargo builds its shared library before these tests.

mod discovery;
mod driver;
mod events;
mod plugging;
mod readings;
mod rig;
