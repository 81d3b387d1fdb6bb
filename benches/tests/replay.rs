//! Replays of a small made-up trace, of broken files, and of the real traces where they are at hand.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use berth_benches::{
    arrivals::{self, STEPS},
    departures,
    report::{Arrivals, Departures},
    trace::{TraceError, read_nodes, read_pods},
};
use berth_placement::{EngineConfig, PolicyName};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn config(policy: PolicyName, seed: u64) -> EngineConfig {
    EngineConfig {
        policy,
        seed,
        ..EngineConfig::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_nothing_is_allocated_twice() {
    let (nodes, pods) = (
        read_nodes(&data("nodes.csv")).unwrap(),
        read_pods(&data("pods.csv")).unwrap(),
    );
    for policy in PolicyName::ALL {
        let run = || arrivals::run(&nodes, &pods, config(*policy, 3), 1.3).unwrap();
        let (one, other) = (run(), run());
        assert_eq!(one.allocated.len(), STEPS.len(), "{policy}");
        assert_eq!(
            (&one.allocated, one.failed),
            (&other.allocated, other.failed),
            "{policy}"
        );
        assert!(one.allocated.iter().all(|percent| *percent <= 100.0), "{policy}");
        assert!(one.allocated.windows(2).all(|pair| pair[0] <= pair[1]), "{policy}");
        assert!(one.failed > 0 && one.allocated[16] > 60.0, "{policy}: {one:?}");
    }
}

#[test]
fn pods_that_leave_make_room() {
    let (nodes, pods) = (
        read_nodes(&data("nodes.csv")).unwrap(),
        read_pods(&data("pods.csv")).unwrap(),
    );
    let run = |load| departures::run(&nodes, &pods, config(PolicyName::Fragmentation, 1), load).unwrap();
    let (half, twice) = (run(0.5), run(2.0));
    assert!((30.0..70.0).contains(&half.allocated), "{half:?}");
    assert!((70.0..=100.0).contains(&twice.allocated), "{twice:?}");
    let lost = |run: &departures::Run| run.lost.iter().map(|loss| loss.lost / loss.offered).fold(0.0, f64::max);
    assert!(lost(&half) < lost(&twice));
}

#[test]
fn a_summary_has_the_keys_that_readers_count_on() {
    let (nodes, pods) = (
        read_nodes(&data("nodes.csv")).unwrap(),
        read_pods(&data("pods.csv")).unwrap(),
    );
    let run = arrivals::run(&nodes, &pods, config(PolicyName::Binpack, 0), 1.3).unwrap();
    let line = Arrivals::of(&run, &data("pods.csv"), "binpack", 0);
    let summary = Arrivals::mean(&[line.clone(), line]).unwrap();
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(
        (&json["summary"], &json["seeds"], &json["policy"]),
        (&true.into(), &2.into(), &"binpack".into())
    );
    assert!(json["pods"].as_str().unwrap().ends_with("pods.csv"));
    for step in ["50", "130"] {
        assert!(json["allocated_pct"][step].is_f64(), "{json}");
    }
    for key in ["decisions_per_s", "p50_us", "p99_us", "max_us"] {
        assert!(json[key].is_f64(), "{key} {json}");
    }
    assert!(summary.plot().contains("<svg") && summary.table().contains("allocated %"));
    let lost = departures::run(&nodes, &pods, config(PolicyName::Fgd, 0), 0.9).unwrap();
    let line = Departures::of(&lost, &data("pods.csv"), "fgd", 0, 0.9);
    assert!(Departures::mean(&[line]).unwrap().table().contains("load 0.9"));
}

/// The error of a file with this text.
fn error(text: &str, read: fn(&Path) -> Option<TraceError>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.csv");
    fs::write(&file, text).unwrap();
    let error = read(&file).expect("it must be refused");
    assert!(error.reason().starts_with("Trace"));
    error.to_string().replace(&file.display().to_string(), "FILE")
}

#[test]
fn a_broken_file_is_refused_with_line_and_column() {
    let pods = |text: &str| error(text, |file| read_pods(file).err());
    let nodes = |text: &str| error(text, |file| read_nodes(file).err());
    let header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n";
    let told = pods(&format!("{header}a,1000,10,1,500\nb,1000,ten,1,500\n"));
    assert_eq!(
        told,
        "FILE:3:8: memory_mib \"ten\" cannot be read: invalid digit found in string"
    );
    let told = pods(&format!("{header}a,1000,10,1,1500\n"));
    assert!(
        told.starts_with("FILE:2:13: gpu_milli \"1500\" a share of 1500"),
        "{told}"
    );
    assert_eq!(
        pods(&format!("{header}a,1000,10\n")),
        "FILE:2: 3 columns, where the header names 5"
    );
    assert_eq!(
        pods("name,cpu_milli\n"),
        "FILE:1: the header has no column \"memory_mib\""
    );
    assert_eq!(pods(header), "FILE: it holds no pods");
    assert_eq!(pods(""), "FILE: it has no header line");
    let told = nodes("sn,cpu_milli,memory_mib,gpu,model\nn-1,1,1,1,T4\nn-1,1,1,1,T4\n");
    assert_eq!(told, "FILE:3:1: sn \"n-1\" is listed before");
    let told = nodes("sn,cpu_milli,memory_mib,gpu,model\nN_1,1,1,1,T4\n");
    assert!(
        told.starts_with("FILE:2:1: sn \"N_1\" cannot be read: node name"),
        "{told}"
    );
    let missing = read_pods(Path::new("no-such-file.csv")).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read no-such-file.csv");
}

/// The published traces, where `BERTH_OPENB` names their folder: one seed each, with room for its noise.
#[test]
fn on_the_real_traces_fragmentation_beats_published_fgd() {
    let Some(folder) = std::env::var_os("BERTH_OPENB").map(PathBuf::from) else {
        return;
    };
    let nodes = read_nodes(&folder.join("openb_node_list_gpu_node.csv")).unwrap();
    for (trace, least) in [("default", 95.85), ("gpuspec25", 95.4), ("multigpu50", 97.18)] {
        let pods = read_pods(&folder.join(format!("openb_pod_list_{trace}.csv"))).unwrap();
        let run = arrivals::run(&nodes, &pods, config(PolicyName::Fragmentation, 0), 1.3).unwrap();
        assert!(run.allocated[16] > least, "{trace}: {:?}", run.allocated);
    }
}
