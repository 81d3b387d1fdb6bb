//! Loads a running berthd over its unix socket: Reserve and Release in pairs, as fast as it answers.
//!
//! Each worker waits for each answer before it asks again, so the latency of a call is what a caller sees, and the number
//! of calls in flight is `--connections` times `--in-flight`. Each pair is a pod of its own with a small share of a GPU.

use std::{io::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use berth_proto::node::v1::{
    GpuShare, PodRef, ReleaseRequest, ReserveRequest, Shape, node_service_client::NodeServiceClient, release_request,
    shape,
};
use clap::Parser;
use serde::Serialize;
use tokio::{runtime, task::JoinSet};
use tonic::transport::{Channel, Endpoint};

/// Thousandths of a GPU that each pod takes: 256 calls in flight fit on three GPUs.
const MILLI: u32 = 10;

#[derive(Debug, Parser)]
struct Args {
    /// berthd's unix socket
    #[arg(long, default_value = "/run/berth/berthd.sock")]
    socket: PathBuf,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Calls in flight on each connection
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// Threads of this program
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    pairs: usize,
    seconds: f64,
    pairs_per_second: f64,
    calls_in_flight: usize,
    reserve_us: Latency,
    release_us: Latency,
}

/// What one worker measured, in microseconds.
#[derive(Debug, Default)]
struct Measured {
    reserve: Vec<u64>,
    release: Vec<u64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut builder = match args.threads {
        0 | 1 => runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    let report = builder.enable_all().build()?.block_on(run(&args))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    let Report {
        pairs,
        seconds,
        pairs_per_second,
        calls_in_flight,
        reserve_us,
        release_us,
    } = report;
    writeln!(
        out,
        "{pairs} pairs in {seconds:.2} s with {calls_in_flight} in flight: {pairs_per_second:.0} Reserve+Release/s"
    )?;
    for (name, Latency { p50, p99, p999, max }) in [("Reserve", reserve_us), ("Release", release_us)] {
        writeln!(out, "{name}: p50 {p50} us, p99 {p99} us, p99.9 {p999} us, max {max} us")?;
    }
    Ok(())
}

async fn run(args: &Args) -> anyhow::Result<Report> {
    let address = format!("unix://{}", args.socket.display());
    let mut workers = JoinSet::new();
    let start = now();
    let end = start + Duration::from_secs(args.seconds);
    for connection in 0..args.connections {
        let channel = Endpoint::from_shared(address.clone())?.connect().await;
        let channel = channel.with_context(|| format!("no berthd answers at {address}"))?;
        for lane in 0..args.in_flight {
            let client = NodeServiceClient::new(channel.clone());
            workers.spawn(work(
                client,
                format!("load-{}-{connection}-{lane}", std::process::id()),
                end,
            ));
        }
    }
    let mut all = Measured::default();
    while let Some(measured) = workers.join_next().await {
        let measured = measured??;
        all.reserve.extend(measured.reserve);
        all.release.extend(measured.release);
    }
    let seconds = start.elapsed().as_secs_f64();
    let pairs = all.release.len();
    ensure!(pairs > 0, "not one pair was finished");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 pairs")]
    let pairs_per_second = pairs as f64 / seconds;
    Ok(Report {
        pairs,
        seconds,
        pairs_per_second,
        calls_in_flight: args.connections * args.in_flight,
        reserve_us: latency(all.reserve),
        release_us: latency(all.release),
    })
}

async fn work(
    mut client: NodeServiceClient<Channel>,
    name: String,
    end: tokio::time::Instant,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    for number in 0_u64.. {
        let start = now();
        if start >= end {
            break;
        }
        let uid = format!("{name}-{number}");
        let share = GpuShare {
            milli: MILLI,
            memory_bytes: 0,
            count: 1,
        };
        let reserve = ReserveRequest {
            pod: Some(PodRef {
                namespace: "load".to_owned(),
                name: name.clone(),
                uid: uid.clone(),
            }),
            shape: Some(Shape {
                gpu: Some(shape::Gpu::Share(share)),
                models: Vec::new(),
            }),
            ttl_ms: 60_000,
            preferred_devices: Vec::new(),
            decision_id: String::new(),
        };
        client.reserve(reserve).await.context("Reserve")?;
        let reserved = now();
        let release = ReleaseRequest {
            holder: Some(release_request::Holder::PodUid(uid)),
        };
        let released = client.release(release).await.context("Release")?.into_inner().released;
        ensure!(released, "what was just reserved was not held");
        measured.reserve.push(micros(reserved - start));
        measured.release.push(micros(reserved.elapsed()));
    }
    Ok(measured)
}

/// Exact: all values are kept.
fn latency(mut values: Vec<u64>) -> Latency {
    values.sort_unstable();
    let at = |per_mille: usize| values[(values.len() * per_mille / 1000).min(values.len() - 1)];
    Latency {
        p50: at(500),
        p99: at(990),
        p999: at(999),
        max: at(1000),
    }
}

fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
