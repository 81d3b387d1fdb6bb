use clap::CommandFactory as _;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "fake", mut_arg("admin", |arg| arg.default_value("127.0.0.1:9441")))]
struct Args {
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[arg(long)]
    quick: bool,
    #[arg(long, env = "ODD_NAME")]
    odd: Option<String>,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    Run {
        #[arg(long)]
        gpus: Option<u32>,
    },
}

fn parse(args: &[&str]) -> Result<Args, clap::Error> {
    // A prefix that no environment has: nobody's variables reach the test.
    parse_args_from("BERTH_ARGS_TEST", ["fake"].iter().chain(args).map(OsString::from))
}

#[test]
fn the_command_line_is_consistent() {
    with_env_prefix(Args::command(), "BERTHD").debug_assert();
}

#[test]
fn every_long_flag_has_a_variable_and_help_shows_it() {
    let mut command = with_env_prefix(Args::command(), "BERTHD");
    let variable = |command: &Command, id: &str| {
        let arg = command.get_arguments().find(|arg| arg.get_id() == id).unwrap();
        arg.get_env().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(variable(&command, "log_level"), "BERTHD_LOG_LEVEL");
    assert_eq!(variable(&command, "tls_client_ca"), "BERTHD_TLS_CLIENT_CA");
    assert_eq!(variable(&command, "quick"), "BERTHD_QUICK");
    assert_eq!(variable(&command, "odd"), "ODD_NAME", "a name of its own is kept");
    assert_eq!(variable(command.find_subcommand("run").unwrap(), "gpus"), "BERTHD_GPUS");
    let help = command.render_long_help().to_string();
    for shown in [
        "[env: BERTHD_ADMIN=]",
        "[env: BERTHD_ALLOW=]",
        "[default: 127.0.0.1:9441]",
    ] {
        assert!(help.contains(shown), "{shown} is not in {help}");
    }
}

#[test]
fn defaults_are_those_of_the_program() {
    let args = parse(&[]).unwrap();
    assert_eq!(args.admin.admin.port(), 9441);
    assert_eq!(args.telemetry.log_level, "info");
    assert_eq!(args.telemetry.log_format, LogFormat::Auto);
    assert!(args.telemetry.otlp_endpoint.is_none() && args.tls.files().is_none());
    assert!(!args.quick && args.odd.is_none() && args.command.is_none());
    assert_eq!(args.identity.rules(), IdentityRules::local_defaults());
}

#[test]
fn mistakes_are_refused_with_code_2_and_a_message_that_names_the_flag() {
    for (args, named) in [
        (&["--admin", "nowhere"][..], "--admin"),
        (&["--tls-cert", "a.crt"], "--tls-key"),
        (&["--tls-client-ca", "ca.crt"], "--tls-cert"),
        (&["--allow", "everybody"], "uid:NUMBER"),
        (&["--log-format", "xml"], "--log-format"),
        (&["--qiuck"], "--quick"),
    ] {
        let error = parse(args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(named), "{named} is not in {error}");
    }
}

#[test]
fn allow_can_be_repeated_or_listed_and_adds_to_the_defaults() {
    let args = parse(&["--allow", "loopback,gid:44", "--allow", "cn:x"]).unwrap();
    let more = ["loopback", "gid:44", "cn:x"].map(|text| text.parse().unwrap());
    assert_eq!(args.identity.rules(), IdentityRules::local_defaults().with(more));
}

#[test]
fn tls_files_are_complete_or_absent() {
    let args = parse(&["--tls-cert", "a.crt", "--tls-key", "a.key"]).unwrap();
    let files = ServerTlsFiles {
        cert: "a.crt".into(),
        key: "a.key".into(),
        client_ca: None,
    };
    assert_eq!(args.tls.files(), Some(files));
}

#[test]
fn flags_of_a_subcommand_are_parsed() {
    let args = parse(&["run", "--gpus", "2"]).unwrap();
    assert!(matches!(args.command, Some(Sub::Run { gpus: Some(2) })));
}
