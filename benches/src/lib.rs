//! Measuring tools: replay of recorded workloads, load generators, and the fixtures that criterion benches share.
#![forbid(unsafe_code)]

pub mod arrivals;
pub mod departures;
pub mod driver;
pub mod published;
pub mod random;
pub mod trace;
