//! How long a decision takes in clusters of several sizes that are in use: pods come and go at nine tenths.
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::fs;

use anyhow::Context as _;
use berth_benches::{
    driver::{Latencies, now},
    fixtures::{Busy, dgx},
    report::Speed,
};
use berth_placement::{Engine, EngineConfig, PolicyName};
use clap::Parser;
use serde::Serialize;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Sizes of clusters, in nodes of eight GPUs
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 10_000])]
    nodes: Vec<usize>,
    /// Decisions to measure for each
    #[arg(long, default_value_t = 100_000)]
    decisions: usize,
    /// fragmentation, fgd, binpack, spread or random
    #[arg(long, default_value_t)]
    policy: PolicyName,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// One line of output.
#[derive(Debug, Serialize)]
struct Line {
    nodes: usize,
    gpus: usize,
    policy: String,
    decisions: usize,
    /// Of the process, by node: states, cells, scores of all shapes.
    resident_bytes_per_node: u64,
    mean_us: f64,
    #[serde(flatten)]
    speed: Speed,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    for &count in &args.nodes {
        let before = resident_bytes()?;
        let nodes = dgx(count)?;
        let engine = Engine::new(EngineConfig {
            policy: args.policy,
            seed: args.seed,
            ..EngineConfig::default()
        });
        let mut busy = Busy::new(engine, nodes, args.seed)?;
        for _ in 0..args.decisions / 4 {
            busy.step();
        }
        busy.driver.latencies = Latencies::default();
        let start = now();
        for _ in 0..args.decisions {
            busy.step();
        }
        let wall = start.elapsed();
        let line = Line {
            nodes: count,
            gpus: 8 * count,
            policy: args.policy.to_string(),
            decisions: args.decisions,
            resident_bytes_per_node: resident_bytes()?.saturating_sub(before) / (count.max(1) as u64),
            mean_us: busy.driver.latencies.mean(),
            speed: Speed::of(&busy.driver.latencies, wall),
        };
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

/// Second field of `/proc/self/statm`, in pages of 4 KiB.
fn resident_bytes() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm").context("cannot read /proc/self/statm")?;
    let pages: u64 = text
        .split_whitespace()
        .nth(1)
        .context("/proc/self/statm is too short")?
        .parse()?;
    Ok(pages * 4096)
}
