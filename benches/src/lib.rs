//! Measuring tools: replay of recorded workloads, load generators, and the fixtures that criterion benches share.
#![forbid(unsafe_code)]

pub mod arrivals;
pub mod departures;
pub mod driver;
pub mod fixtures;
pub mod fragmentation;
pub mod plot;
pub mod published;
pub mod random;
pub mod report;
pub mod trace;
