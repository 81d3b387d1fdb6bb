//! The command line from end to end, on a state file.

use clap::{CommandFactory, Parser};

use super::*;

/// What the tool says, or why it refuses.
fn ctl(dir: &std::path::Path, line: &str) -> Result<String, CtlError> {
    let (result, said) = outcome(dir, line);
    result.map(|()| said)
}

fn outcome(dir: &std::path::Path, line: &str) -> (Result<(), CtlError>, String) {
    let state = dir.join("state.json");
    let words = ["fake-nvml-ctl", "--file", state.to_str().unwrap()];
    let args = Args::try_parse_from(words.into_iter().chain(line.split(' '))).unwrap();
    let mut out = Vec::new();
    let result = run(args, &mut out);
    (result, String::from_utf8(out).unwrap())
}

fn state(dir: &std::path::Path) -> Scenario {
    ScenarioFile::new(dir.join("state.json")).load().unwrap()
}

#[test]
fn the_command_line_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn every_verb_leaves_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for line in [
        "init --profile dgx-h100 --gpus 3 --seed node-a --driver 570.86.15",
        "xid 0 79",
        "xid 0 13 --instance 7:0",
        "ecc 1 --count 3",
        "ecc 1 --corrected --location sram",
        "event 0 clock",
        "lose 2 --off-bus --silent",
        "restore 2",
        "add --product l40s",
        "add",
        "remove 3",
        "process add 0 4711 1024 --name train --kind graphics --sm 80",
        "mig enable 1",
        "mig create 1 3g.40gb --compute 2,1",
        "mig create 1 1g.10gb",
        "process add 1 99 100 --instance 2:0",
        "set 0 temperature_c 91",
        "slow * 5",
        "fail nvmlDeviceGetUUID GPU_IS_LOST --gpu 0",
        "hang nvmlDeviceGetName",
    ] {
        let said = ctl(dir, line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(!said.trim().is_empty(), "{line} says nothing");
    }
    let scenario = state(dir);
    assert_eq!(scenario.driver.cuda, 12080);
    assert_eq!(scenario.gpus.len(), 4);
    assert_eq!(scenario.faults.len(), 3);
    let shown = ctl(dir, "show").unwrap();
    for part in [
        "570.86.15",
        "train",
        "MIG 1c.3g.40gb",
        "MIG 2c.3g.40gb",
        "hangs",
        "91 °C",
        "NVIDIA L40S",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    assert!(ctl(dir, "clear").unwrap().contains('3'));
    ctl(dir, "process remove 1 99").unwrap();
    ctl(dir, "mig destroy 1 2 --compute 0").unwrap();
    ctl(dir, "mig destroy 1 2").unwrap();
    ctl(dir, "unload").unwrap();
    assert!(!state(dir).driver.loaded);
    ctl(dir, "load").unwrap();
    ctl(dir, "upgrade 590.48.01").unwrap();
    assert_eq!(state(dir).driver.cuda, 13010);
    assert!(ctl(dir, "show --json").unwrap().starts_with('{'));
}

#[test]
fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let says = |line: &str, what: &str| {
        let error = ctl(dir, line).expect_err(line);
        assert!(error.to_string().contains(what), "{line}: {error}");
    };
    says("xid 0 79", "state.json");
    says("init --profile dgx-z9", "dgx-h100");
    ctl(dir, "init --profile mig").unwrap();
    says("init --profile mig", "--force");
    says("xid 8 79", "below 8");
    says("fail GetUUID UNKNOWN", "nvmlDeviceGetUUID");
    says("hang nvmlFoo", "functions");
    says("mig create 7 9g.90gb", "1g.10gb");
    says("mig create 7 1g.10gb", "no room");
    says("mig enable 99", "no GPU");
    says("set 0 temperature 5", "temperature_c");
    says("process remove 0 1", "no process 1");
    assert!(
        Args::try_parse_from(["x", "fail", "*", "NOPE"])
            .unwrap_err()
            .to_string()
            .contains("GPU_IS_LOST")
    );
}

#[test]
fn function_names_are_unique() {
    let mut names: Vec<_> = abi::functions().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 150, "{count}");
}
