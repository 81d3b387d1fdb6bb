#![allow(clippy::all, clippy::pedantic, clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout)]
use berth_gpu::*;
use std::time::*;
fn main() {
    let start = Instant::now();
    let clock = MonitorClock::new(move || 1_700_000_000_000 + start.elapsed().as_millis() as u64, move || start.elapsed());
    let a: Vec<String> = std::env::args().collect();
    let spawned = if a[1] == "sim" {
        let sim = SimBackend::new(&a[2].parse().unwrap(), &"n".parse().unwrap());
        let sim = if a.len() > 3 { SimBackend::with_control_file(&a[2].parse().unwrap(), &"n".parse().unwrap(), a[3].clone().into()) } else { sim };
        Monitor::spawn(MonitorConfig::default(), clock, HealthMemory::default(), move || Box::new(sim.clone()))
    } else {
        let lib = a[2].clone();
        Monitor::spawn(MonitorConfig::default(), clock, HealthMemory::default(), move || Box::new(NvmlBackend::new(Some(lib.clone().into()))))
    }.unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let cpu = || { let s = std::fs::read_to_string("/proc/self/schedstat").unwrap();
        let mut t = 0u64; for e in std::fs::read_dir("/proc/self/task").unwrap() { let p = e.unwrap().path().join("schedstat"); t += std::fs::read_to_string(p).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap(); } let _ = s; t };
    let c0 = cpu(); let t0 = Instant::now();
    std::thread::sleep(Duration::from_secs(60));
    let used = cpu() - c0;
    println!("devices {} cpu {:.4}% of a core", spawned.inventory.borrow().devices.len(), used as f64 / t0.elapsed().as_nanos() as f64 * 100.0);
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("Threads")).collect::<Vec<_>>().join(" "));
}
