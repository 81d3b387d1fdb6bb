//! Which command lines make a configuration, and what the others are told.

use berth_runtime::args::parse_args_from;

use super::*;
use crate::mirror::args::{Args, ENV_PREFIX, Verb};

fn parsed(more: &[&str]) -> RunArgs {
    let line = [
        "nvca-mirror",
        "run",
        "--source-namespace",
        "nvca-operator",
        "--kubeconfig",
        "k",
    ];
    let line = line.iter().chain(more).map(Into::into);
    let Args { verb: Verb::Run(args) } = parse_args_from(ENV_PREFIX, line).unwrap();
    *args
}

fn listing(json: &str) -> Result<BTreeSet<String>, ConfigError> {
    let base64 = STANDARD.encode(json);
    let args = parsed(&["--additional-image-pull-secrets-b64", &base64]);
    Config::from_args(&args).map(|config| config.wanted.names)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_list_may_be_bare_or_as_in_a_pods_spec_or_nothing() {
    assert_eq!(
        listing(r#"[{"name":"b"},{"name":"a"},{"name":"a"}]"#),
        Ok(set(&["a", "b"]))
    );
    assert_eq!(listing(r#"{"imagePullSecrets":[{"name":"a.b"}]}"#), Ok(set(&["a.b"])));
    for nothing in ["null", "[]", "{}", r#"{"imagePullSecrets":null}"#, ""] {
        assert_eq!(listing(nothing), Ok(set(&[])), "{nothing}");
    }
    let wrapped = format!("{}\n", STANDARD.encode(r#"[{"name":"a"}]"#));
    assert_eq!(pull_secrets(&wrapped), Ok(set(&["a"])));
}

#[test]
fn what_is_no_list_of_names_is_refused() {
    assert_eq!(pull_secrets("!!"), Err(ConfigError::Base64));
    for bad in [r#"["a"]"#, r#"[{"nam":"a"}]"#, "7", "[", r#""a""#] {
        assert_eq!(listing(bad), Err(ConfigError::Json), "{bad}");
    }
    for bad in ["", "A", "a_b", "-a", "a-", "a..b", "a/b", &"a".repeat(254)] {
        let json = format!(r#"[{{"name":"{bad}"}}]"#);
        assert_eq!(listing(&json), Err(ConfigError::Name(bad.to_owned())));
    }
}

#[test]
fn names_that_the_operator_needs_for_itself_are_refused_with_a_way_out() {
    for name in RESERVED {
        let error = listing(&format!(r#"[{{"name":"{name}"}}]"#)).unwrap_err();
        assert_eq!(error, ConfigError::Reserved(name.to_owned()));
        assert!(error.to_string().ends_with("Rename yours"), "{error}");
    }
}

#[test]
fn namespaces_and_times_are_checked_and_the_target_has_a_default() {
    let config = Config::from_args(&parsed(&[])).unwrap();
    assert_eq!(config.wanted.target, "nvca-system");
    assert_eq!(config.wanted.names, set(&[]));
    assert_eq!(config.resync_period.0, Duration::from_hours(1));
    let flag = "--target-namespace";
    let name = "Nope".to_owned();
    let error = Config::from_args(&parsed(&[flag, &name])).unwrap_err();
    assert_eq!(error, ConfigError::Namespace { flag, name });
    let error = Config::from_args(&parsed(&["--resync-period", "9s"])).unwrap_err();
    assert_eq!(error, ConfigError::Resync);
}
