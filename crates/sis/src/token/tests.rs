//! What is told of each kind of wrong token, and that no token is ever shown.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_runtime::secret_file::SecretFile;
use serde_json::{Value, json};

use super::*;
use crate::ClusterId;

const NOW: i64 = 1_800_000_000;

fn token(change: &Value) -> String {
    let mut claims = json!({"iss": TokenRules::SIS_ISSUER, "sub": "nvca-operator", "aud": ["nvca-operator", "s:api"],
        "scopes": ["cluster-management"], "exp": NOW + 600, "nbf": NOW, "iat": NOW});
    claims
        .as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "ES256"})), part(&claims))
}

#[test]
fn each_wrong_token_is_told_by_its_reason_and_never_shown() {
    let rules = TokenRules::cluster_management();
    for (change, reason) in [
        (json!({"exp": NOW - 61}), "TokenExpired"),
        (json!({"nbf": NOW + 61}), "TokenNotYetValid"),
        (json!({"iss": "http://api.sis.svc.cluster.local/"}), "TokenIssuer"),
        (json!({"iss": null}), "TokenIssuer"),
        (json!({"scopes": ["nvca-cluster"]}), "TokenScope"),
        (json!({"scopes": "a cluster-management"}), "TokenScope"),
        (json!({"scopes": null}), "TokenScope"),
        (json!({"note": "x".repeat(2000)}), "TokenTooLong"),
    ] {
        let token = token(&change);
        let error = rules.check(&token, NOW).unwrap_err();
        assert_eq!(error.reason(), reason, "{change}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(&token) && !shown.contains("c2lnbmF0dXJl"), "{shown}");
    }
    for junk in ["", "garbage", "a.b.c", "a.b.c.d"] {
        assert_eq!(rules.check(junk, NOW).unwrap_err().reason(), "TokenMalformed", "{junk}");
    }
}

#[test]
fn what_the_service_forgives_is_no_error() {
    let rules = TokenRules::cluster_management();
    for change in [
        json!({"exp": NOW - 60}),
        json!({"nbf": NOW + 60}),
        json!({"exp": null, "nbf": null, "iat": null}),
        json!({"scopes": "cluster-management"}),
    ] {
        let (_claims, warning) = rules.check(&token(&change), NOW).unwrap();
        assert_eq!(warning, None, "{change}");
    }
    let (_claims, warning) = rules.check(&token(&json!({"aud": "s:other"})), NOW).unwrap();
    let warning = warning.unwrap();
    assert_eq!(warning.reason(), "TokenAudience");
    assert!(warning.to_string().contains("s:other"), "{warning}");
}

#[test]
fn a_token_of_the_cluster_must_be_for_this_cluster_alone() {
    let cluster: ClusterId = "c-1".parse().unwrap();
    let rules = TokenRules::cluster_token(cluster.clone());
    for good in [json!("nvcf-icms:c-1"), json!(["other", "nvcf-icms:c-1"])] {
        rules
            .check(&token(&json!({"aud": good, "iss": "https://k8s"})), NOW)
            .unwrap();
    }
    for bad in [
        json!("nvcf-icms:c-2"),
        json!(["nvcf-icms:c-1", "nvcf-icms:c-2"]),
        json!([]),
    ] {
        let error = rules.check(&token(&json!({"aud": bad})), NOW).unwrap_err();
        assert_eq!(error.reason(), "TokenAudience", "{bad}");
    }
    let rules = TokenRules::agent();
    let claims = Claims {
        subject: Some("nvca".into()),
        ..Claims::default()
    };
    rules.check_subject(&claims, &ClusterId::of_client("nvca")).unwrap();
    let error = rules.check_subject(&claims, &cluster).unwrap_err();
    assert_eq!(error.reason(), "TokenSubject");
}

#[test]
fn the_file_is_read_for_each_request_and_a_vanished_one_leaves_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets.json");
    let file = TokenFile::new(SecretFile::new(&path));
    assert_eq!(file.read().unwrap_err().reason(), "TokenMissing");
    std::fs::write(&path, r#"{"kv":{"tokens":{}}}"#).unwrap();
    assert_eq!(file.read().unwrap_err().reason(), "TokenNotInFile");
    for round in ["one", "two"] {
        std::fs::write(&path, json!({"kv": {"tokens": {"icms": round}}}).to_string()).unwrap();
        assert_eq!(file.read().unwrap().expose(), round);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(file.read().unwrap().expose(), "two");
    assert_eq!(format!("{:?}", file.read().unwrap()), "Token(not shown)");
}
