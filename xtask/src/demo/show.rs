//! What the demo prints: fits one screen of a hundred columns.

use anyhow::ensure;

use super::{
    cluster::{Cluster, Seat},
    pods::Ask,
};

/// A line that says what comes next.
pub(super) fn heading(text: &str) {
    println!("\n{text}");
}

/// The nodes with their devices.
pub(super) fn nodes(cluster: &Cluster) -> anyhow::Result<()> {
    heading("nodes");
    for daemon in &cluster.daemons {
        let devices = cluster.devices(&daemon.name)?;
        ensure!(!devices.is_empty(), "{} found no devices", daemon.name);
        let product = devices[0]["product"].as_str().unwrap_or_default();
        println!(
            "  {:<11} {} x {:<24} {}",
            daemon.name,
            devices.len(),
            product,
            daemon.address("grpc")?
        );
    }
    Ok(())
}

/// One pod's seat.
pub(super) fn seat(cluster: &Cluster, ask: &Ask, seat: &Seat) -> anyhow::Result<()> {
    println!(
        "  {:<10} {:<22} -> {:<10} GPU {}",
        seat.pod,
        ask.wish(),
        seat.node,
        indexes(cluster, seat)?
    );
    Ok(())
}

/// The seat's GPUs as people number them: `0-3`, `1,3`.
fn indexes(cluster: &Cluster, seat: &Seat) -> anyhow::Result<String> {
    let mut held = Vec::new();
    for uuid in &seat.devices {
        held.push(cluster.index(&seat.node, uuid)?);
    }
    held.sort_unstable();
    let runs = held.chunk_by(|one, next| one + 1 == *next).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(ToString::to_string).collect(),
    });
    Ok(runs.collect::<Vec<_>>().join(","))
}

/// Who sits where and why. Fails where a book does not hold what was bound.
pub(super) fn seats(cluster: &Cluster, placed: &[Seat]) -> anyhow::Result<()> {
    println!("  {:<11} {:<7} {:<10} why", "node", "GPU", "pod");
    for daemon in &cluster.daemons {
        let held = cluster.seats_on(&daemon.name)?;
        let mut bound: Vec<_> = placed.iter().filter(|seat| seat.node == daemon.name).collect();
        ensure!(
            held.len() == bound.len(),
            "{} holds {} pods, {} were bound",
            daemon.name,
            held.len(),
            bound.len()
        );
        bound.sort_by_key(|seat| indexes(cluster, seat).unwrap_or_default());
        for seat in bound {
            ensure!(
                held.iter().any(|(pod, _)| *pod == seat.pod),
                "{}'s book lost {}",
                daemon.name,
                seat.pod
            );
            println!(
                "  {:<11} {:<7} {:<10} {}",
                seat.node,
                indexes(cluster, seat)?,
                seat.pod,
                seat.why
            );
        }
    }
    Ok(())
}
