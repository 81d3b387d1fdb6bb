use super::*;

fn unix(uid: u32, gid: u32) -> ClientIdentity {
    ClientIdentity::Unix { uid, gid, pid: Some(7) }
}

fn tls(common_name: Option<&str>, sans: &[&str]) -> ClientIdentity {
    let sans = sans.iter().map(|san| (*san).to_owned()).collect();
    ClientIdentity::Tls {
        common_name: common_name.map(str::to_owned),
        sans,
    }
}

fn rules(texts: &[&str]) -> IdentityRules {
    IdentityRules::nobody().with(texts.iter().map(|text| text.parse().unwrap()))
}

#[test]
fn every_kind_of_rule_lets_in_its_own_kind_only() {
    let spiffe = "spiffe://cluster.local/ns/berth/sa/scheduler";
    let clients = [
        unix(1000, 50),
        unix(50, 1000),
        tls(Some("berth-scheduler"), &[]),
        tls(None, &[spiffe, "other"]),
        ClientIdentity::Loopback,
        ClientIdentity::Anonymous,
    ];
    let allowed = |rule: &str| {
        let rules = rules(&[rule]);
        clients
            .iter()
            .map(|client| rules.allows(client).is_ok())
            .collect::<Vec<_>>()
    };
    assert_eq!(allowed("uid:1000"), [true, false, false, false, false, false]);
    assert_eq!(allowed("gid:1000"), [false, true, false, false, false, false]);
    assert_eq!(allowed("cn:berth-scheduler"), [false, false, true, false, false, false]);
    assert_eq!(
        allowed(&format!("san:{spiffe}")),
        [false, false, false, true, false, false]
    );
    assert_eq!(allowed("loopback"), [false, false, false, false, true, false]);
    assert_eq!(allowed("cn:berth"), [false; 6], "no match on a part of a name");
}

#[test]
fn by_default_root_and_the_own_user_may_and_loopback_may_not() {
    let own = own_uid().unwrap();
    let rules = IdentityRules::local_defaults();
    rules.allows(&unix(0, 0)).unwrap();
    rules.allows(&unix(own, 4711)).unwrap();
    let stranger = own + 12_345;
    rules.allows(&unix(stranger, 0)).unwrap_err();
    rules.allows(&ClientIdentity::Loopback).unwrap_err();
    rules.allows(&ClientIdentity::Anonymous).unwrap_err();
    rules.allows(&tls(Some("root"), &[])).unwrap_err();
}

#[test]
fn nobody_is_not_even_root() {
    IdentityRules::nobody().allows(&unix(0, 0)).unwrap_err();
}

#[test]
fn a_refusal_says_who_it_was_and_which_flag_would_help() {
    let refusal = |client: &ClientIdentity| IdentityRules::nobody().allows(client).unwrap_err().to_string();
    let text = refusal(&unix(1000, 50));
    assert!(text.starts_with("uid 1000 gid 50 pid 7 may only read"), "{text}");
    assert!(text.ends_with("--allow uid:1000"), "{text}");
    assert!(refusal(&tls(Some("x"), &[])).contains("--allow cn:x"));
    assert!(refusal(&tls(None, &["spiffe://y"])).contains("--allow san:spiffe://y"));
    assert!(refusal(&ClientIdentity::Loopback).contains("--allow loopback"));
    assert!(refusal(&ClientIdentity::Anonymous).contains("--tls-client-ca"));
}

#[test]
fn rules_round_trip_and_mistakes_are_refused() {
    for text in ["uid:0", "gid:44", "cn:a b", "san:spiffe://x/y:z", "loopback"] {
        assert_eq!(text.parse::<IdentityRule>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "uid",
        "uid:",
        "uid:root",
        "uid:-1",
        "cn:",
        "san:",
        "loopback:",
        "everybody",
        "UID:0",
    ] {
        let error = text.parse::<IdentityRule>().unwrap_err().to_string();
        assert!(error.contains("uid:NUMBER"), "{error}");
    }
}
