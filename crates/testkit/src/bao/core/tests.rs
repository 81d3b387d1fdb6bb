//! The API's promises, with a clock that moves when told.

use std::time::Duration;

use berth_runtime::ManualClock;
use serde_json::json;

use super::*;
use crate::bao::jwt::{self, PublicKey, Signer};

/// A round number, so that seconds are easy to read.
const START: u64 = 1_800_000_000_000;

struct Bench {
    bao: Bao,
    clock: ManualClock,
    issuer: Signer,
}

impl Bench {
    fn new() -> Self {
        let clock = ManualClock::at_unix_ms(START);
        let bao = Bao::dev(clock.shared(), "root", "key");
        let issuer = Signer::generate("cluster").unwrap();
        let mut bench = Self { bao, clock, issuer };
        bench.put("sys/auth/jwt", json!({"type": "jwt"}));
        let config = json!({"jwt_validation_pubkeys": [bench.issuer.public_pem()], "bound_issuer": "https://cluster"});
        bench.put("auth/jwt/config", config);
        bench
    }

    fn put(&mut self, path: &str, body: Value) -> Value {
        let answer = self.ask(Verb::Write, path, "root", body);
        assert!(answer.status < 300, "{path}: {answer:?}");
        answer.body.unwrap_or_default()
    }

    fn ask(&mut self, verb: Verb, path: &str, token: &str, body: Value) -> Answer {
        self.bao.handle(&Request::new(verb, path).token(token).body(body))
    }

    fn role(&mut self, change: &Value) {
        let mut role = json!({
            "role_type": "jwt", "bound_audiences": ["http://bao"], "user_claim": "sub",
            "bound_claims": {"/kubernetes.io/namespace": "nvca-system"}, "token_policies": ["kv"],
            "token_ttl": "1h", "token_max_ttl": "2h",
        });
        role.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        self.put("auth/jwt/role/nvca", role);
    }

    fn claims(change: &Value) -> Map<String, Value> {
        let mut claims = json!({
            "iss": "https://cluster", "sub": "system:serviceaccount:nvca-system:nvca", "aud": ["http://bao"],
            "kubernetes.io": {"namespace": "nvca-system"}, "iat": START / 1000, "exp": START / 1000 + 3600,
        });
        claims
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        claims.as_object().unwrap().clone()
    }

    fn login(&mut self, change: &Value) -> Answer {
        let jwt = self.issuer.sign(&Self::claims(change)).unwrap();
        let body = json!({"role": "nvca", "jwt": jwt});
        self.bao.handle(&Request::new(Verb::Write, "auth/jwt/login").body(body))
    }

    fn token(&mut self) -> String {
        let answer = self.login(&json!({}));
        answer.body.as_ref().unwrap()["auth"]["client_token"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer:?}"))
            .to_owned()
    }

    fn lookup(&mut self, token: &str) -> Answer {
        self.ask(Verb::Read, "auth/token/lookup-self", token, json!({}))
    }
}

fn words(answer: &Answer) -> String {
    answer.body.as_ref().unwrap()["errors"].to_string()
}

#[test]
fn a_login_earns_a_token_with_the_role_s_policies_and_time() {
    let mut bench = Bench::new();
    bench.role(&json!({"claim_mappings": {"/kubernetes.io/namespace": "ns"}}));
    let body = bench.login(&json!({})).body.unwrap();
    assert_eq!(body["auth"]["policies"], json!(["default", "kv"]));
    assert_eq!(body["auth"]["lease_duration"], 3600);
    assert_eq!(body["auth"]["metadata"], json!({"ns": "nvca-system", "role": "nvca"}));
    let token = body["auth"]["client_token"].as_str().unwrap().to_owned();
    let seen = bench.lookup(&token).body.unwrap();
    assert_eq!(seen["data"]["path"], "auth/jwt/login");
    assert_eq!(seen["data"]["ttl"], 3600);
}

#[test]
fn a_login_is_refused_with_the_reason() {
    let mut bench = Bench::new();
    bench.role(&json!({"bound_subject": "system:serviceaccount:nvca-system:nvca"}));
    let now = START / 1000;
    for (change, told) in [
        (
            json!({"aud": "http://other"}),
            "audience claim does not match any expected audience",
        ),
        (json!({"iat": now - 7200, "exp": now - 61}), "token is expired"),
        (json!({"nbf": now + 61}), "token not yet valid"),
        (json!({"iss": "https://other"}), "invalid issuer (iss) claim"),
        (
            json!({"sub": "system:serviceaccount:default:x"}),
            "invalid subject (sub) claim",
        ),
        (
            json!({"kubernetes.io": {"namespace": "default"}}),
            "does not match any associated bound claim values",
        ),
        (json!({"kubernetes.io": {}}), "is missing"),
        (json!({"iat": null, "exp": null}), "no issued at (iat)"),
    ] {
        let answer = bench.login(&change);
        assert_eq!(answer.status, 400, "{change}");
        assert!(words(&answer).contains(told), "{change}: {}", words(&answer));
    }
    // Inside the leeway.
    assert_eq!(bench.login(&json!({"exp": now - 59})).status, 200);
    let unknown = Request::new(Verb::Write, "auth/jwt/login").body(json!({"role": "x", "jwt": "a.b.c"}));
    assert!(words(&bench.bao.handle(&unknown)).contains("role \\\"x\\\" could not be found"));
    bench.issuer = Signer::generate("stranger").unwrap();
    assert!(words(&bench.login(&json!({}))).contains("error verifying token signature"));
}

#[test]
fn bound_claims_may_be_globs_and_lists() {
    let mut bench = Bench::new();
    let sub = "system:serviceaccount:nvca-*:nvca";
    bench.role(&json!({"bound_claims_type": "glob", "bound_claims": {"sub": ["x", sub], "groups": "g-*"}}));
    assert_eq!(bench.login(&json!({"groups": ["a", "g-1"]})).status, 200);
    assert_eq!(bench.login(&json!({"groups": ["a"]})).status, 400);
    bench.role(&json!({"bound_claims": {"sub": sub}}));
    assert_eq!(bench.login(&json!({})).status, 400);
}

#[test]
fn keys_may_come_from_a_download() {
    let mut bench = Bench::new();
    bench.role(&json!({}));
    bench.put(
        "auth/jwt/config",
        json!({"jwks_url": "https://cluster/jwks", "jwks_ca_pem": "PEM"}),
    );
    let jwt = bench.issuer.sign(&Bench::claims(&json!({}))).unwrap();
    let mut request = Request::new(Verb::Write, "auth/jwt/login").body(json!({"role": "nvca", "jwt": jwt}));
    let source = bench.bao.needs_keys(&request).unwrap();
    assert_eq!(
        (source.url.as_str(), source.ca_pem.as_deref()),
        ("https://cluster/jwks", Some("PEM"))
    );
    request.keys = Some(Err("connection refused".to_owned()));
    assert!(words(&bench.bao.handle(&request)).contains("connection refused"));
    request.keys = Some(Ok(json!({"keys": [bench.issuer.jwk()]})));
    assert_eq!(bench.bao.handle(&request).status, 200);
}

#[test]
fn a_token_ends_with_its_time_and_renewal_stops_at_the_maximum() {
    let mut bench = Bench::new();
    bench.role(&json!({}));
    let token = bench.token();
    bench.clock.advance(Duration::from_mins(50));
    let renewed = bench.ask(Verb::Write, "auth/token/renew-self", &token, json!({}));
    assert_eq!(renewed.body.unwrap()["auth"]["lease_duration"], 3600);
    bench.clock.advance(Duration::from_mins(40));
    let renewed = bench.ask(Verb::Write, "auth/token/renew-self", &token, json!({"increment": "5h"}));
    // 2 h after its creation and no later.
    assert_eq!(renewed.body.unwrap()["auth"]["lease_duration"], 30 * 60);
    bench.clock.advance(Duration::from_mins(30));
    let late = bench.lookup(&token);
    assert_eq!((late.status, words(&late).as_str()), (403, r#"["permission denied"]"#));
    let root = bench.ask(Verb::Write, "auth/token/renew-self", "root", json!({}));
    assert!(words(&root).contains("lease is not renewable"));
}

#[test]
fn a_periodic_token_lives_as_long_as_it_is_renewed() {
    let mut bench = Bench::new();
    bench.role(&json!({"token_period": 43200, "token_ttl": 0, "token_max_ttl": 0}));
    let token = bench.token();
    for _ in 0..80 {
        bench.clock.advance(Duration::from_hours(11));
        assert_eq!(
            bench
                .ask(Verb::Write, "auth/token/renew-self", &token, json!({}))
                .status,
            200
        );
    }
    assert_eq!(bench.lookup(&token).body.unwrap()["data"]["period"], 43200);
    bench.clock.advance(Duration::from_hours(12));
    assert_eq!(bench.lookup(&token).status, 403);
}

#[test]
fn a_removed_role_ends_renewal() {
    let mut bench = Bench::new();
    bench.role(&json!({}));
    let token = bench.token();
    bench.ask(Verb::Delete, "auth/jwt/role/nvca", "root", json!({}));
    assert_eq!(
        bench
            .ask(Verb::Write, "auth/token/renew-self", &token, json!({}))
            .status,
        500
    );
    assert_eq!(bench.lookup(&token).status, 200);
}

#[test]
fn a_revoked_token_takes_its_children_and_leases_along() {
    let mut bench = Bench::new();
    signing(&mut bench);
    let parent = bench.put("auth/token/create", json!({"policies": ["root"], "ttl": "1h"}));
    let parent = parent["auth"]["client_token"].as_str().unwrap().to_owned();
    let child = bench.ask(
        Verb::Write,
        "auth/token/create",
        &parent,
        json!({"policies": ["default"], "ttl": "1h"}),
    );
    let child = child.body.unwrap()["auth"]["client_token"].as_str().unwrap().to_owned();
    let signed = bench
        .ask(Verb::Read, "services/sis-api/jwt/sign/nvca", &parent, json!({}))
        .body
        .unwrap();
    let lease = json!({"lease_id": signed["lease_id"]});
    assert_eq!(
        bench
            .ask(Verb::Write, "sys/leases/lookup", "root", lease.clone())
            .status,
        200
    );
    assert_eq!(
        bench
            .ask(Verb::Write, "auth/token/revoke-self", &parent, json!({}))
            .status,
        204
    );
    assert_eq!(bench.lookup(&child).status, 403);
    assert_eq!(bench.ask(Verb::Write, "sys/leases/lookup", "root", lease).status, 400);
}

#[test]
fn a_policy_denies_what_it_does_not_grant() {
    let mut bench = Bench::new();
    bench.role(&json!({}));
    let policy = r#"path "secret/data/open/*" { capabilities = ["read", "create"] }"#;
    bench.put("sys/policies/acl/kv", json!({ "policy": policy }));
    bench.put("secret/data/shut", json!({"data": {"a": 1}}));
    let token = bench.token();
    let body = json!({"data": {"a": 1}});
    assert_eq!(
        bench
            .ask(Verb::Write, "secret/data/open/x", &token, body.clone())
            .status,
        200
    );
    assert_eq!(
        bench.ask(Verb::Read, "secret/data/open/x", &token, json!({})).status,
        200
    );
    // Now it exists: a write is an update, which is not granted.
    let update = bench.ask(Verb::Write, "secret/data/open/x", &token, body);
    assert_eq!(
        (update.status, words(&update).contains("permission denied")),
        (403, true)
    );
    assert_eq!(bench.ask(Verb::Read, "secret/data/shut", &token, json!({})).status, 403);
    assert_eq!(bench.ask(Verb::Write, "sys/seal", &token, json!({})).status, 403);
    assert_eq!(
        bench.ask(Verb::Read, "secret/data/shut", "no-token", json!({})).status,
        403
    );
    let asked = bench.ask(
        Verb::Write,
        "sys/capabilities-self",
        &token,
        json!({"paths": ["secret/data/open/y", "x"]}),
    );
    assert_eq!(
        asked.body.unwrap()["data"],
        json!({"secret/data/open/y": ["create", "read"], "x": ["deny"]})
    );
}

#[test]
fn key_value_secrets_have_versions_and_check_and_set() {
    let mut bench = Bench::new();
    let missing = bench.ask(Verb::Read, "secret/data/a", "root", json!({}));
    assert_eq!((missing.status, words(&missing).as_str()), (404, "[]"));
    let first = json!({"data": {"n": 1}, "options": {"cas": 0}});
    assert_eq!(bench.put("secret/data/a", first.clone())["data"]["version"], 1);
    let again = bench.ask(Verb::Write, "secret/data/a", "root", first);
    assert_eq!(again.status, 400);
    assert!(words(&again).contains("check-and-set parameter did not match the current version"));
    bench.put("secret/data/a", json!({"data": {"n": 2}, "options": {"cas": 1}}));
    let read = bench.ask(Verb::Read, "secret/data/a", "root", json!({})).body.unwrap();
    assert_eq!(
        (&read["data"]["data"], &read["data"]["metadata"]["version"]),
        (&json!({"n": 2}), &json!(2))
    );
    let mut old = Request::new(Verb::Read, "secret/data/a").token("root");
    old.query.insert("version".to_owned(), "1".to_owned());
    assert_eq!(bench.bao.handle(&old).body.unwrap()["data"]["data"], json!({"n": 1}));
    assert!(words(&bench.ask(Verb::Write, "secret/data/a", "root", json!({}))).contains("no data provided"));

    bench.put("secret/metadata/a", json!({"cas_required": true}));
    let bare = bench.ask(Verb::Write, "secret/data/a", "root", json!({"data": {}}));
    assert!(words(&bare).contains("check-and-set parameter required"));
}

#[test]
fn a_deleted_version_comes_back_and_a_destroyed_one_does_not() {
    let mut bench = Bench::new();
    bench.put("secret/data/f/a", json!({"data": {"n": 1}}));
    assert_eq!(
        bench.ask(Verb::Delete, "secret/data/f/a", "root", json!({})).status,
        204
    );
    let gone = bench.ask(Verb::Read, "secret/data/f/a", "root", json!({}));
    assert_eq!(gone.status, 404);
    let data = &gone.body.unwrap()["data"];
    assert!(
        data["data"].is_null() && data["metadata"]["deletion_time"] != "",
        "{data}"
    );
    bench.put("secret/undelete/f/a", json!({"versions": [1]}));
    assert_eq!(bench.ask(Verb::Read, "secret/data/f/a", "root", json!({})).status, 200);
    bench.put("secret/destroy/f/a", json!({"versions": [1]}));
    bench.put("secret/undelete/f/a", json!({"versions": [1]}));
    assert_eq!(bench.ask(Verb::Read, "secret/data/f/a", "root", json!({})).status, 404);
    let listed = bench
        .ask(Verb::List, "secret/metadata", "root", json!({}))
        .body
        .unwrap();
    assert_eq!(listed["data"]["keys"], json!(["f/"]));
    assert_eq!(
        bench.ask(Verb::Delete, "secret/metadata/f/a", "root", json!({})).status,
        204
    );
    assert_eq!(bench.ask(Verb::List, "secret/metadata", "root", json!({})).status, 404);
}

fn signing(bench: &mut Bench) {
    bench.put(
        "sys/mounts/services/sis-api/jwt",
        json!({"type": "vault-plugin-secrets-jwt"}),
    );
    bench.put(
        "services/sis-api/jwt/config",
        json!({"jwt_ttl": "12h", "key_ttl": "24h"}),
    );
    let claims = json!({"sub": "nvca", "aud": ["nvca", "s:api"], "scopes": ["nvca-cluster"]});
    let role = json!({"issuer": "http://api.sis.svc.cluster.local", "claims": claims});
    bench.put("services/sis-api/jwt/roles/nvca", role);
}

fn keys(bench: &mut Bench) -> Vec<PublicKey> {
    // No token: the key set is for everybody.
    let request = Request::new(Verb::Read, "services/sis-api/jwt/jwks");
    PublicKey::from_jwks(&bench.bao.handle(&request).body.unwrap())
}

fn sign(bench: &mut Bench) -> (String, Value) {
    let signed = bench
        .ask(Verb::Read, "services/sis-api/jwt/sign/nvca", "root", json!({}))
        .body
        .unwrap();
    (signed["data"]["token"].as_str().unwrap().to_owned(), signed)
}

#[test]
fn a_signed_token_has_the_role_s_claims_and_a_lease() {
    let mut bench = Bench::new();
    signing(&mut bench);
    let (token, signed) = sign(&mut bench);
    assert_eq!(
        (&signed["lease_duration"], &signed["renewable"]),
        (&json!(43200), &json!(false))
    );
    let claims = jwt::verify(&token, &keys(&mut bench)).unwrap();
    assert_eq!(claims["iss"], "http://api.sis.svc.cluster.local");
    assert_eq!(
        (&claims["sub"], &claims["scopes"]),
        (&json!("nvca"), &json!(["nvca-cluster"]))
    );
    assert_eq!(
        (&claims["iat"], &claims["exp"]),
        (&json!(START / 1000), &json!(START / 1000 + 43200))
    );
    assert!(claims["jti"].is_string());
    let lease = json!({"lease_id": signed["lease_id"]});
    let renewal = bench.ask(Verb::Write, "sys/leases/renew", "root", lease.clone());
    assert!(words(&renewal).contains("lease is not renewable"));
    bench.clock.advance(Duration::from_hours(12));
    assert_eq!(bench.ask(Verb::Write, "sys/leases/lookup", "root", lease).status, 400);
    let unknown = bench.ask(Verb::Read, "services/sis-api/jwt/sign/other", "root", json!({}));
    assert!(words(&unknown).contains("unknown role"));
}

#[test]
fn only_allowed_claims_may_be_added() {
    let mut bench = Bench::new();
    signing(&mut bench);
    let path = "services/sis-api/jwt/sign/nvca";
    let foo = bench.ask(Verb::Write, path, "root", json!({"claims": {"foo": "bar"}}));
    assert!(words(&foo).contains("claim foo not permitted"));
    let sub = bench.ask(Verb::Write, path, "root", json!({"claims": {"sub": "root"}}));
    assert!(words(&sub).contains("already provided via role configuration"));
    bench.put("services/sis-api/jwt/config", json!({"allowed_claims": ["foo"]}));
    assert_eq!(
        bench
            .ask(Verb::Write, path, "root", json!({"claims": {"foo": "bar"}}))
            .status,
        200
    );
}

#[test]
fn a_key_rotates_and_its_tokens_stay_valid_for_their_life() {
    let mut bench = Bench::new();
    signing(&mut bench);
    let (old, _) = sign(&mut bench);
    bench.clock.advance(Duration::from_hours(24));
    let (new, _) = sign(&mut bench);
    let both = keys(&mut bench);
    assert_eq!(both.len(), 2);
    assert!(jwt::verify(&old, &both).is_ok() && jwt::verify(&new, &both).is_ok());
    bench.clock.advance(Duration::from_hours(12));
    let one = keys(&mut bench);
    assert_eq!(one.len(), 1);
    assert!(jwt::verify(&old, &one).is_err() && jwt::verify(&new, &one).is_ok());
    bench.bao.rotate("services/sis-api/jwt").unwrap();
    assert_eq!(keys(&mut bench).len(), 2);
}

#[test]
fn a_sealed_server_says_so_and_forgets_nothing() {
    let mut bench = Bench::new();
    bench.role(&json!({}));
    let token = bench.token();
    assert_eq!(bench.ask(Verb::Write, "sys/seal", "root", json!({})).status, 204);
    let sealed = bench.lookup(&token);
    assert_eq!(
        (sealed.status, words(&sealed).as_str()),
        (503, r#"["Vault is sealed"]"#)
    );
    assert_eq!(bench.login(&json!({})).status, 503);
    let health = bench.bao.handle(&Request::new(Verb::Read, "sys/health"));
    assert_eq!((health.status, &health.body.unwrap()["sealed"]), (503, &json!(true)));
    let status = bench.bao.handle(&Request::new(Verb::Read, "sys/seal-status"));
    assert_eq!((status.status, &status.body.unwrap()["sealed"]), (200, &json!(true)));
    let unseal = |key: &str| Request::new(Verb::Write, "sys/unseal").body(json!({ "key": key }));
    assert_eq!(bench.bao.handle(&unseal("wrong")).status, 400);
    assert_eq!(bench.bao.handle(&unseal("key")).status, 200);
    assert_eq!(bench.lookup(&token).status, 200);
    assert_eq!(bench.bao.handle(&Request::new(Verb::Read, "sys/health")).status, 200);
}

#[test]
fn what_is_not_mounted_is_told() {
    let mut bench = Bench::new();
    let nowhere = bench.ask(Verb::Read, "services/none/jwt/sign/x", "root", json!({}));
    assert_eq!(nowhere.status, 404);
    assert!(words(&nowhere).contains("no handler for route"));
    let twice = bench.ask(Verb::Write, "sys/mounts/secret", "root", json!({"type": "kv-v2"}));
    assert!(words(&twice).contains("path is already in use at secret/"));
    let other = bench.ask(Verb::Write, "sys/mounts/pki", "root", json!({"type": "pki"}));
    assert!(words(&other).contains("the stand-in has"));
}
