//! `cargo xtask demo`: the main job on one machine, in one screen, and proof that it held.
//!
//! Four nodes: three simulated, one that goes the real NVML path through the fake driver library. Function pods as a real
//! kube-scheduler sends them go through filter, prioritize and bind. One GPU breaks in the middle and recovers.

mod cluster;
mod pods;
mod show;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};

use crate::{process::Stopwatch, workspace};

/// Runs it to its end. An error says which promise did not hold.
pub(crate) fn run(keep: bool) -> anyhow::Result<()> {
    println!("building …");
    workspace::build_programs()?;
    let watch = Stopwatch::start();
    let dir = tempfile::tempdir().context("no place for the nodes' books")?;
    let cluster = cluster::Cluster::start(dir.path())?;
    show::nodes(&cluster)?;

    let mut placed = Vec::new();
    show::heading("function pods, through filter, prioritize and bind");
    for ask in pods::first_wave() {
        placed.push(place(&cluster, &ask)?);
    }

    // The next pod for an H200 would go here, if nothing happened to it.
    let victim = &pods::next_on_h200();
    let favourite = cluster.plan(victim)?.context("the H200 node has room")?;
    let broken = favourite.first().context("the plan names a device")?.clone();
    let named = format!(
        "GPU {} of {}",
        cluster.index(cluster::FAKE_NODE, &broken)?,
        cluster::FAKE_NODE
    );
    show::heading(&format!("XID 79 on {named}: it fell off the bus"));
    let since = Stopwatch::start();
    cluster.xid(&broken, 79)?;
    let avoided = cluster.wait_until_avoided(&broken, Duration::from_secs(5))?;
    println!("  the scheduler avoids it {} ms later", since.elapsed().as_millis());
    println!("  {avoided}");
    let other = place(&cluster, victim)?;
    ensure!(
        !other.devices.contains(&broken),
        "a pod was placed on the broken {named}"
    );
    placed.push(other);
    let all = pods::whole_h200_node();
    let refused = cluster
        .filter(&all)?
        .refusal(cluster::FAKE_NODE)
        .context("the broken node passed the filter")?;
    println!("  {:<10} {:<22} refused, {refused}", all.name, all.wish());

    show::heading(&format!("the operator acknowledges {named}"));
    let since = Stopwatch::start();
    cluster.acknowledge(&broken)?;
    cluster.wait_until_healthy(&broken, Duration::from_mins(1))?;
    println!("  probed and healthy again {} ms later", since.elapsed().as_millis());
    let mut back_in_use = false;
    for ask in pods::after_recovery() {
        let seat = place(&cluster, &ask)?;
        back_in_use |= seat.devices.contains(&broken);
        placed.push(seat);
    }
    ensure!(back_in_use, "the recovered {named} took no pod");

    show::heading("who sits where, from the nodes' own books");
    show::seats(&cluster, &placed)?;
    println!(
        "\n{} pods placed, every promise held, {:.1} s",
        placed.len(),
        watch.elapsed().as_secs_f64()
    );
    if keep {
        println!("still running; {}\nCtrl-C ends it", cluster.addresses()?);
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

/// The demo's cluster after some work of every kind, good and bad.
pub(crate) fn at_work(dir: &Path) -> anyhow::Result<cluster::Cluster> {
    let cluster = cluster::Cluster::start(dir)?;
    for ask in pods::first_wave() {
        cluster.place(&ask)?;
    }
    let next = pods::next_on_h200();
    let broken = cluster.plan(&next)?.context("the H200 node has room")?;
    cluster.xid(&broken[0], 79)?;
    cluster.wait_until_avoided(&broken[0], Duration::from_secs(5))?;
    cluster.filter(&pods::whole_h200_node())?;
    ensure!(
        cluster.bind(&next, cluster::FAKE_NODE).is_err(),
        "a pod that was never filtered was bound"
    );
    Ok(cluster)
}

fn place(cluster: &cluster::Cluster, ask: &pods::Ask) -> anyhow::Result<cluster::Seat> {
    let seat = cluster
        .place(ask)
        .with_context(|| format!("pod {} ({})", ask.name, ask.wish()))?;
    show::seat(cluster, ask, &seat)?;
    Ok(seat)
}
