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
pub(super) fn seat(ask: &Ask, seat: &Seat) {
    println!(
        "  {:<12} {:<22} -> {:<10} {}",
        seat.pod,
        ask.wish(),
        seat.node,
        seat.why
    );
}

/// Per node and device: who holds it. Fails where a book does not hold what was bound.
pub(super) fn seats(cluster: &Cluster, placed: &[Seat]) -> anyhow::Result<()> {
    for daemon in &cluster.daemons {
        let seats = cluster.seats_on(&daemon.name)?;
        println!("  {}", daemon.name);
        let mut line = String::from("   ");
        for device in cluster.devices(&daemon.name)? {
            let uuid = device["uuid"].as_str().unwrap_or_default();
            let holders: Vec<&str> = seats
                .iter()
                .filter(|(_, held)| held.iter().any(|held| held == uuid))
                .map(|(pod, _)| pod.as_str())
                .collect();
            let holders = if holders.is_empty() {
                "-".to_owned()
            } else {
                holders.join("+")
            };
            let cell = format!(" {}:{holders}", device["index"]);
            if line.len() + cell.len() > 100 {
                println!("{line}");
                line = String::from("   ");
            }
            line.push_str(&cell);
        }
        println!("{line}");
        let bound: Vec<&str> = placed
            .iter()
            .filter(|seat| seat.node == daemon.name)
            .map(|seat| seat.pod.as_str())
            .collect();
        for pod in &bound {
            ensure!(
                seats.iter().any(|(held, _)| held == pod),
                "{}'s book lost {pod}",
                daemon.name
            );
        }
        ensure!(
            seats.len() == bound.len(),
            "{} holds {} pods, {} were bound",
            daemon.name,
            seats.len(),
            bound.len()
        );
    }
    Ok(())
}
