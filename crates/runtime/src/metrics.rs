//! The process's metrics registry, what every program reports about itself, and a timer that cannot be forgotten.
//!
//! A module registers its metrics once, with names that hold the unit, and keeps the handles:
//! `Metrics::register(registry.sub_registry_with_prefix("ledger"))`.

use std::fmt;
use std::fs;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::{BuildInfo, SharedClock};

/// A registry whose names all start with `berth_`, with `berth_build_info` and `berth_process_*` in it.
pub fn registry(build: BuildInfo) -> Registry {
    let mut registry = Registry::with_prefix("berth");
    let BuildInfo { name, version, git } = build;
    let labels = vec![("program", name), ("version", version), ("git", git)];
    registry.register("build", "Name and version of this program", Info::new(labels));
    registry.register_collector(Box::new(ProcessCollector));
    registry
}

/// A histogram of seconds for calls on one node: 16 buckets, doubling, from 50 µs to 1.6 s.
pub fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 16))
}

/// Observes in a histogram, in seconds, how long it lived.
#[must_use = "it measures until it is dropped"]
pub struct Timer {
    histogram: Histogram,
    clock: SharedClock,
    start: Duration,
}

/// Memory and CPU of this process, read when scraped.
#[derive(Debug)]
struct ProcessCollector;

// === impl Timer ===

impl Timer {
    pub fn start(histogram: &Histogram, clock: &SharedClock) -> Self {
        Self {
            histogram: histogram.clone(),
            clock: clock.clone(),
            start: clock.monotonic(),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.histogram
            .observe(self.clock.monotonic().saturating_sub(self.start).as_secs_f64());
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

// === impl ProcessCollector ===

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(bytes) = fs::read_to_string("/proc/self/status")
            .ok()
            .as_deref()
            .and_then(resident_bytes)
        {
            let gauge = ConstGauge::new(bytes);
            let help = "Resident memory of this process";
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor("process_resident_memory_bytes", help, None, kind)?)?;
        }
        if let Some(seconds) = fs::read_to_string("/proc/self/stat")
            .ok()
            .as_deref()
            .and_then(cpu_seconds)
        {
            let counter = ConstCounter::new(seconds);
            let help = "CPU time of this process, user and system";
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, kind)?)?;
        }
        Ok(())
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Fields 14 and 15 of proc(5) stat. The kernel counts them in ticks of 1/100 s on every architecture we run on.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name in parentheses may hold blanks; the third field follows it.
    let (_, from_third_field) = stat.rsplit_once(')')?;
    let mut ticks = from_third_field.split_whitespace().skip(11);
    let user: u32 = ticks.next()?.parse().ok()?;
    let system: u32 = ticks.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::ManualClock;

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn registry_tells_the_build_and_the_process() {
        let text = scrape(&registry(BuildInfo::of("berthd")));
        assert!(text.contains(r#"berth_build_info{program="berthd",version="#), "{text}");
        let resident = text
            .lines()
            .find_map(|line| line.strip_prefix("berth_process_resident_memory_bytes "))
            .unwrap();
        assert!(resident.parse::<u64>().unwrap() > 100_000, "{text}");
        assert!(text.contains("berth_process_cpu_seconds_total "), "{text}");
    }

    #[test]
    fn timer_observes_once_when_dropped() {
        let clock = ManualClock::at_unix_ms(0);
        let histogram = latency_histogram();
        let mut registry = Registry::default();
        registry.register("call_seconds", "Calls", histogram.clone());
        let timer = Timer::start(&histogram, &clock.shared());
        clock.advance(Duration::from_millis(3));
        assert!(scrape(&registry).contains("call_seconds_count 0\n"));
        drop(timer);
        let text = scrape(&registry);
        assert!(
            text.contains("call_seconds_count 1\n") && text.contains("call_seconds_sum 0.003\n"),
            "{text}"
        );
    }

    #[test]
    fn process_figures_are_read_from_proc_as_documented() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1_263_616));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("garbage"), None);
    }
}
