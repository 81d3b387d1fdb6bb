//! Asks a running berth-scheduler what kube-scheduler asks it: filter and prioritize with thousands of node names, one pod after
//! the other over one connection, and now and then a bind, so that the cluster changes.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use berth_benches::driver::now;
use clap::Parser;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Args {
    /// Where berth-scheduler serves kube-scheduler
    #[arg(long, default_value = "127.0.0.1:9450")]
    extender: String,
    /// Where it serves gRPC's neighbour, the admin endpoint: the names of its nodes come from there
    #[arg(long, default_value = "127.0.0.1:9452")]
    admin: String,
    /// Pods to place
    #[arg(long, default_value_t = 2000)]
    pods: usize,
    /// Not measured, at the start
    #[arg(long, default_value_t = 100)]
    warm_up: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let names = node_names(&args.admin)?;
    let mut extender = Connection::to(&args.extender)?;
    let (mut filter, mut prioritize, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..args.pods + args.warm_up {
        // Mostly one GPU, some two, four and eight.
        let gpus = [1, 1, 1, 1, 2, 1, 4, 1, 1, 8][at % 10];
        let pod = pod(at, gpus);
        let (filtered, filter_took) = extender.post("/filter", &json!({"Pod": pod, "NodeNames": names}))?;
        let fits = filtered["NodeNames"].as_array().context("filter names no nodes")?;
        ensure!(!fits.is_empty(), "no node fits pod {at}: {}", filtered["Error"]);
        let asked = json!({"Pod": pod, "NodeNames": fits});
        let (scores, prioritize_took) = extender.post("/prioritize", &asked)?;
        let best = scores
            .as_array()
            .and_then(|all| all.iter().max_by_key(|it| it["Score"].as_i64()));
        let best = best.context("prioritize ranks nothing")?["Host"].clone();
        let bind =
            json!({"PodName": format!("p{at}"), "PodNamespace": "load", "PodUID": format!("u{at}"), "Node": best});
        let (bound, _) = extender.post("/bind", &bind)?;
        ensure!(bound["Error"] == "", "pod {at} is not bound: {bound}");
        if at >= args.warm_up {
            filter.push(filter_took);
            prioritize.push(prioritize_took);
            both.push(filter_took + prioritize_took);
        }
    }
    let report = json!({
        "nodes": names.len(), "pods": args.pods,
        "filter_us": latency(filter), "prioritize_us": latency(prioritize), "both_us": latency(both),
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

fn pod(at: usize, gpus: u32) -> Value {
    let resources =
        json!({"limits": {"nvidia.com/gpu": gpus.to_string()}, "requests": {"nvidia.com/gpu": gpus.to_string()}});
    json!({
        "metadata": {"name": format!("p{at}"), "namespace": "load", "uid": format!("u{at}")},
        "spec": {"containers": [{"name": "c", "resources": resources}]},
    })
}

fn node_names(admin: &str) -> anyhow::Result<Vec<String>> {
    let page = Connection::to(admin)?.request("GET /debug/cluster", "")?.0;
    let nodes = page["nodes"].as_array().context("/debug/cluster tells no nodes")?;
    let names: Vec<String> = nodes
        .iter()
        .filter_map(|node| Some(node["name"].as_str()?.to_owned()))
        .collect();
    ensure!(!names.is_empty(), "berth-scheduler knows no node");
    Ok(names)
}

fn latency(mut all: Vec<Duration>) -> Value {
    all.sort_unstable();
    let at = |per_mille: usize| all.get((all.len() * per_mille / 1000).min(all.len().saturating_sub(1)));
    let micros = |per_mille| at(per_mille).map_or(0, Duration::as_micros);
    json!({"p50": micros(500), "p99": micros(990), "max": micros(1000)})
}

/// HTTP/1.1 with keep-alive, as kube-scheduler speaks it.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn to(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("nobody answers at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<(Value, Duration)> {
        self.request(&format!("POST {path}"), &body.to_string())
    }

    /// The answer, and the time from the first byte that was sent to the last that came.
    fn request(&mut self, line: &str, body: &str) -> anyhow::Result<(Value, Duration)> {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: load\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body.as_bytes()].concat();
        let started = now();
        self.stream.get_mut().write_all(&request)?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = None;
        loop {
            let mut header = String::new();
            self.stream.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let mut body = vec![0; length.context("an answer without a length")?];
        self.stream.read_exact(&mut body)?;
        let took = started.elapsed();
        if !status.contains(" 200 ") {
            bail!("{line}: {}: {}", status.trim_end(), String::from_utf8_lossy(&body));
        }
        Ok((serde_json::from_slice(&body)?, took))
    }
}
