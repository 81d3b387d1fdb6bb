//! x
use std::path::PathBuf;
use berth_placement::*;
use clap::Parser;
#[derive(Parser)]
struct Args { #[arg(long)] nodes: PathBuf, #[arg(long)] pods: PathBuf, #[arg(long, default_value="fragmentation")] policy: PolicyName, #[arg(long, default_value_t=10)] seeds: u64,
 #[arg(long, default_value="")] weights: String }
fn main() -> anyhow::Result<()> {
    let a = Args::parse();
    let nodes = berth_benches::trace::read_nodes(&a.nodes)?;
    let pods = berth_benches::trace::read_pods(&a.pods)?;
    let mut w = Weights::default();
    let mut mixc = MixConfig::default();
    for kv in a.weights.split(',').filter(|s| !s.is_empty()) { let (k,v) = kv.split_once('=').unwrap(); let v: f64 = v.parse()?; match k {
        "pack" => w.pack=v, "liq" => w.liquidity=v, "temper" => w.temper=v, "sliver" => w.sliver=v, "cp" => w.class_pressure=v, "bp" => w.block_pressure=v, "be" => w.block_exponent=v, "cov" => mixc.coverage=v, _ => anyhow::bail!("{k}") } }
    let mut sums = vec![0.0; berth_benches::arrivals::STEPS.len()];
    let (mut n, mut t) = (0usize, 0.0f64);
    let mut p99=0.0; let mut p50=0.0; let mut max=0.0f64; let mut dt=0.0;
    for seed in 0..a.seeds {
        let r = berth_benches::arrivals::run(&nodes, &pods, EngineConfig { policy: a.policy, seed, weights: w.clone(), mix: mixc.clone(), ..Default::default() }, 1.3, false)?;
        for (s, v) in sums.iter_mut().zip(&r.allocated) { *s += v / a.seeds as f64; }
        n += r.latencies.len(); t += r.wall.as_secs_f64(); p50+=r.latencies.quantile(0.5); p99 += r.latencies.quantile(0.99); max = max.max(r.latencies.quantile(1.0)); dt += r.latencies.len() as f64 * 0.0;
    }
    let _ = dt;
    let at = |x: u32| sums[berth_benches::arrivals::STEPS.iter().position(|s| *s==x).unwrap()];
    let s = a.seeds as f64;
    println!("{} {} 85/90/95/100/110/130: {:.2} {:.2} {:.2} {:.2} {:.2} {:.3}  {:.0}/s p50 {:.1} p99 {:.1} max {:.0}", a.pods.file_stem().unwrap().to_string_lossy(), a.policy, at(85), at(90), at(95), at(100), at(110), at(130), n as f64 / t, p50/s, p99/s, max);
    Ok(())
}
