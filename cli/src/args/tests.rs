use berth_placement::{GpuShape, MemoryBytes, MilliGpu};
use clap::FromArgMatches as _;

use super::*;
use crate::selector::DeviceSelector;

fn parse(line: &str) -> Result<Cli, String> {
    let args = std::iter::once("berthctl").chain(line.split_whitespace());
    command()
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| error.to_string())
}

fn run(line: &str) -> RunArgs {
    match parse(line).unwrap().action {
        Action::Run(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_sound() {
    command().debug_assert();
}

#[test]
fn every_command_teaches_by_example() {
    for subcommand in command().get_subcommands() {
        let name = subcommand.get_name();
        let help = subcommand.clone().render_long_help().to_string();
        assert!(help.contains("Example"), "{name}");
        assert!(help.contains(&format!("  berthctl {name}")), "{name}");
    }
}

/// As a shell splits a line: at spaces, but what stands in single quotes is one word.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().map(ToOwned::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

#[test]
fn every_example_can_be_typed() {
    let mut examples = 0;
    for subcommand in command().get_subcommands() {
        let help = subcommand.clone().render_help().to_string();
        for line in help.lines().filter_map(|line| line.strip_prefix("  berthctl ")) {
            let before_pipe = line.split(" | ").next().unwrap_or(line);
            let typed = std::iter::once("berthctl".to_owned()).chain(words(before_pipe));
            let parsed = command().try_get_matches_from(typed);
            assert!(parsed.is_ok(), "berthctl {line}: {}", parsed.unwrap_err());
            examples += 1;
        }
    }
    assert!(examples >= 15, "{examples}");
}

#[test]
fn shapes_are_what_the_flags_say() {
    let gib = |gib| Some(MemoryBytes::from_gib(gib));
    let milli = |milli| Some(MilliGpu::new(milli));
    let cases = [
        ("", GpuShape::whole(1)),
        ("--gpus 2", GpuShape::whole(2)),
        ("--model H100", GpuShape::whole(1)),
        ("--share 0.25", GpuShape::share(milli(250), None, 1)),
        ("--share 1", GpuShape::whole(1)),
        ("--memory 20Gi", GpuShape::share(None, gib(20), 1)),
        ("--gpus 2 --memory 20Gi", GpuShape::share(None, gib(20), 2)),
        ("--share 0.5 --memory 20Gi", GpuShape::share(milli(500), gib(20), 1)),
        ("--mig 1g.10gb", GpuShape::mig("1g.10gb".parse().unwrap(), 1)),
        ("--mig 1g.10gb --gpus 3", GpuShape::mig("1g.10gb".parse().unwrap(), 3)),
    ];
    for (flags, shape) in cases {
        let asked = run(&format!("run {flags} -- true")).shape.shape().unwrap();
        assert_eq!(asked.gpu, shape.unwrap(), "{flags}");
    }
    let models = run("run --model H200,H100 --model H100 -- true")
        .shape
        .shape()
        .unwrap()
        .models;
    assert_eq!(models, ["H100".parse().unwrap(), "H200".parse().unwrap()]);
}

#[test]
fn all_that_follows_the_command_is_its_own() {
    for line in [
        "run --gpus 1 -- ls -l --gpus 2 -o json",
        "run --gpus 1 ls -l --gpus 2 -o json",
    ] {
        let args = run(line);
        assert_eq!(args.command, ["ls", "-l", "--gpus", "2", "-o", "json"], "{line}");
        assert_eq!(args.shape.gpus, Some(1), "{line}");
    }
}

#[test]
fn options_of_every_command_may_stand_on_either_side() {
    for line in ["-o json --timeout 3s node", "node --timeout 3s -o json"] {
        let global = parse(line).unwrap().global;
        assert_eq!(
            (global.output, global.timeout),
            (Format::Json, Duration::from_secs(3)),
            "{line}"
        );
    }
    let global = parse("node").unwrap().global;
    assert_eq!(
        (global.address.to_string().as_str(), global.timeout),
        ("unix:///run/berth/berthd.sock", Duration::from_secs(10))
    );
}

#[test]
fn every_option_of_every_command_is_a_variable_and_nothing_else_is() {
    let command = command();
    let variables: Vec<_> = command
        .get_arguments()
        .filter_map(|arg| arg.get_env()?.to_str())
        .collect();
    let expected = [
        "ADDRESS",
        "SCHEDULER",
        "TIMEOUT",
        "OUTPUT",
        "TLS_CA",
        "TLS_CERT",
        "TLS_KEY",
    ]
    .map(|name| format!("BERTHCTL_{name}"));
    assert_eq!(variables, expected);
    assert!(
        command
            .get_subcommands()
            .all(|sub| sub.get_arguments().all(|arg| arg.get_env().is_none()))
    );
}

#[test]
fn what_a_pod_is_called_is_checked_here() {
    let Action::Reserve(args) = parse("reserve --pod ns/pod-0 --uid u-1 --ttl 2m").unwrap().action else {
        panic!()
    };
    let pod = args.pod();
    assert_eq!((pod.to_string().as_str(), pod.uid.as_str()), ("ns/pod-0", "u-1"));
    assert_eq!(args.ttl, Some(Duration::from_mins(2)));
}

#[test]
fn devices_are_named_in_three_ways() {
    let device = |line: &str| match parse(line).unwrap().action {
        Action::Cordon(args) => args.device,
        Action::Uncordon(args) => args.device,
        Action::Ack(args) => args.device,
        other => panic!("{other:?}"),
    };
    assert_eq!(device("cordon 3 --message broken"), DeviceSelector::Index(3));
    assert_eq!(
        device("uncordon GPU-4C1F"),
        DeviceSelector::UuidPrefix("4c1f".to_owned())
    );
    assert_eq!(
        device("ack 4c1f0f5e"),
        DeviceSelector::UuidPrefix("4c1f0f5e".to_owned())
    );
}

#[test]
fn a_mistake_is_answered_with_what_would_be_right() {
    let cases = [
        ("", "Usage: berthctl"),
        ("nodes", "similar subcommand exists: 'node'"),
        ("run --gpu 1 -- true", "similar argument exists: '--gpus'"),
        ("run --gpus 1", "<CMD>"),
        ("run --gpus 0 -- true", "0 is not in 1..=256"),
        ("run --gpus many -- true", "invalid digit"),
        ("run --share 1.5 -- true", "from 0.001 to 1"),
        ("run --memory 20Q -- true", "such as 20Gi"),
        ("run --mig 10gb -- true", "it has the form 1g.10gb"),
        ("run --mig 1g.10gb --share 0.5 -- true", "cannot be used with"),
        ("run --mig 1g.10gb --memory 5Gi -- true", "cannot be used with"),
        ("run --wait soon -- true", "such as 500ms, 30s"),
        ("run --on-loss panic -- true", "keep, terminate"),
        ("node --timeout 0s", "above zero"),
        ("node -o yaml", "table, json"),
        (
            "node --address gpu-7:9440",
            "write http://HOST:PORT, https://HOST:PORT or unix:///PATH",
        ),
        ("node --tls-cert c.pem", "--tls-key"),
        ("reserve --uid u --gpus 1", "--pod <NAMESPACE/NAME>"),
        ("reserve --pod p --uid u --gpus 1", "write NAMESPACE/NAME"),
        ("reserve --pod NS/p --uid u --gpus 1", "DNS subdomain"),
        ("reserve --pod ns/p --uid é --gpus 1", "printable characters"),
        ("release", "<--uid <UID>|--lease <ID>>"),
        ("release --uid u --lease l", "cannot be used with"),
        ("cordon", "<DEVICE>"),
        ("cordon MIG-1", "name its GPU"),
        ("cordon -- -1", "write the index of a GPU"),
    ];
    for (line, part) in cases {
        let error = parse(line).expect_err(line);
        assert!(error.contains(part), "{line}: {error}");
    }
}
