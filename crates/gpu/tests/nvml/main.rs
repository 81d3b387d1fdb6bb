//! The NVML backend and the monitor, by the real code path, against the scriptable `libnvidia-ml.so.1` of
//! `berth-fake-nvml`. That crate is a dev-dependency, so cargo builds its shared library before these tests.

// `cfg(test)` is always true here: it tells clippy that helpers are test code too.
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod events;
#[cfg(test)]
mod plugging;
#[cfg(test)]
mod readings;
#[cfg(test)]
mod rig;
