//! Replays a recorded workload against a placement policy: how full the cluster gets, how fast decisions are.
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use berth_benches::{
    arrivals, departures,
    report::{Arrivals, Departures},
    trace,
};
use berth_placement::{EngineConfig, MixConfig, NodeState, PolicyName, Ties};
use clap::{Parser, ValueEnum};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Node list in the openb format
    #[arg(long, value_name = "FILE")]
    nodes: PathBuf,
    /// Pod list in the openb format
    #[arg(long, value_name = "FILE")]
    pods: PathBuf,
    /// fragmentation, fgd, binpack, spread or random
    #[arg(long, default_value_t)]
    policy: PolicyName,
    /// Runs, each with another order of arrivals
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Demand that arrives, in parts of the cluster's GPUs
    #[arg(long, default_value_t = 1.3, value_parser = part)]
    arrivals: f64,
    /// Which of equally good nodes
    #[arg(long, value_enum, default_value_t = TieRule::Random)]
    ties: TieRule,
    /// Pods leave after their lifetime: a loss system instead of arrivals only
    #[arg(long)]
    departures: bool,
    /// With --departures: offered demand, in parts of the cluster's GPUs
    #[arg(long, value_delimiter = ',', default_values_t = [0.95, 1.05], value_parser = part)]
    loads: Vec<f64>,
    /// Tell the engine the trace's shapes beforehand instead of letting it learn
    #[arg(long)]
    known_mix: bool,
    /// More of the engine's configuration, as JSON: its policy, ties and seed are overruled by this tool's flags
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One line of JSON per run and one for the summary
    #[arg(long)]
    json: bool,
    /// Where to draw the arrivals' curve, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TieRule {
    Random,
    Name,
}

fn part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if part > 0.0 && part <= 10.0 {
        Ok(part)
    } else {
        Err("it must be more than 0 and at most 10".to_owned())
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let nodes = trace::read_nodes(&args.nodes)?;
    let pods = trace::read_pods(&args.pods)?;
    let config = args.engine(&pods)?;
    if args.departures {
        return args
            .loads
            .iter()
            .try_for_each(|load| depart(&args, &nodes, &pods, &config, *load));
    }
    let mut runs = Vec::new();
    for seed in 0..args.seeds {
        let config = EngineConfig { seed, ..config.clone() };
        let run = arrivals::run(&nodes, &pods, config, args.arrivals)?;
        let line = Arrivals::of(&run, &args.pods, args.policy.as_str(), seed);
        if args.json {
            println!("{}", serde_json::to_string(&line)?);
        }
        runs.push(line);
    }
    let summary = Arrivals::mean(&runs).context("no run")?;
    if let Some(file) = &args.plot {
        fs::write(file, summary.plot()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(args.json, &summary, Arrivals::table)
}

fn depart(
    args: &Args,
    nodes: &[NodeState],
    pods: &[trace::Pod],
    config: &EngineConfig,
    load: f64,
) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for seed in 0..args.seeds {
        let config = EngineConfig { seed, ..config.clone() };
        let run = departures::run(nodes, pods, config, load)?;
        let line = Departures::of(&run, &args.pods, args.policy.as_str(), seed, load);
        if args.json {
            println!("{}", serde_json::to_string(&line)?);
        }
        runs.push(line);
    }
    print(
        args.json,
        &Departures::mean(&runs).context("no run")?,
        Departures::table,
    )
}

fn print<T: serde::Serialize>(json: bool, summary: &T, table: fn(&T) -> String) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string(summary)?
    } else {
        table(summary)
    };
    println!("{text}");
    Ok(())
}

impl Args {
    fn engine(&self, pods: &[trace::Pod]) -> anyhow::Result<EngineConfig> {
        let mut config = match &self.config {
            Some(file) => {
                let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                serde_json::from_str(&text).with_context(|| file.display().to_string())?
            }
            None => EngineConfig::default(),
        };
        config.policy = self.policy;
        config.ties = match self.ties {
            TieRule::Random => Ties::Random,
            TieRule::Name => Ties::Name,
        };
        if self.known_mix {
            config.mix = MixConfig {
                known: pods.iter().map(|pod| (pod.shape.clone(), 1.0)).collect(),
                learn: false,
                ..config.mix
            };
        }
        Ok(config)
    }
}
