//! The machine on one screen.

use std::io::{self, Write};

use crate::{
    profiles,
    scenario::{Effect, Gpu, Presence, Scenario, compute_profile_name},
};

pub(super) fn profiles(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Machines:")?;
    for (name, about) in profiles::machines() {
        writeln!(out, "  {name:14} {about}")?;
    }
    writeln!(out, "Products:\n  {}", profiles::product_keys().join(", "))
}

pub(super) fn scenario(scenario: &Scenario, out: &mut dyn Write) -> io::Result<()> {
    let driver = &scenario.driver;
    let loaded = if driver.loaded { "loaded" } else { "NOT LOADED" };
    writeln!(
        out,
        "driver {} ({loaded}), CUDA {}.{}",
        driver.version,
        driver.cuda / 1000,
        driver.cuda % 1000 / 10
    )?;
    for (index, gpu) in scenario.gpus.iter().enumerate() {
        self::gpu(index, gpu, scenario, out)?;
    }
    for fault in &scenario.faults {
        let about = fault.gpu.as_deref().unwrap_or("all GPUs");
        match fault.effect {
            Effect::SlowMs(ms) => writeln!(out, "fault: {} takes {ms} ms longer ({about})", fault.function)?,
            Effect::Fail(code) => writeln!(out, "fault: {} returns {code} ({about})", fault.function)?,
            Effect::Hang => writeln!(out, "fault: {} hangs ({about})", fault.function)?,
        }
    }
    for event in scenario.events.log.iter().rev().take(5).rev() {
        writeln!(
            out,
            "event {}: {:?} {} on {}",
            event.seq, event.kind, event.data, event.gpu
        )?;
    }
    Ok(())
}

fn gpu(index: usize, gpu: &Gpu, scenario: &Scenario, out: &mut dyn Write) -> io::Result<()> {
    let product = scenario.product_of(gpu);
    let (name, total) = product.map_or(("?", 0), |product| (product.name.as_str(), product.memory_mib));
    let state = match gpu.presence {
        Presence::Present => String::new(),
        Presence::Lost => "  LOST".to_owned(),
        Presence::OffBus => "  OFF THE BUS".to_owned(),
    };
    writeln!(
        out,
        "{index:3}  {}  {}  {name}  {}/{total} MiB  {} %  {} °C  {} W{state}",
        gpu.uuid,
        gpu.bus_id,
        gpu.memory_used(),
        gpu.utilization.gpu,
        gpu.temperature_c,
        gpu.power_mw / 1000,
    )?;
    if gpu.mig.current && gpu.mig.instances.is_empty() {
        writeln!(out, "     MIG on, not partitioned")?;
    }
    for (instance, compute) in gpu.mig.devices() {
        let profile = product.and_then(|product| product.mig_profile(&instance.profile));
        let name = profile.map_or_else(
            || instance.profile.clone(),
            |profile| compute_profile_name(profile, compute.slices),
        );
        let uuid = compute.uuid(&gpu.uuid, instance.id);
        writeln!(
            out,
            "     MIG {name}  GI {} CI {} at {}  {uuid}",
            instance.id, compute.id, instance.start
        )?;
    }
    for process in &gpu.processes {
        let place = process
            .gpu_instance
            .map_or_else(String::new, |id| format!(" in GI {id}"));
        writeln!(
            out,
            "     process {} {} {} MiB{place} ({:?})",
            process.pid, process.name, process.memory_mib, process.kind
        )?;
    }
    Ok(())
}
