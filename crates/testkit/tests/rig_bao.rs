//! OpenBao and the vault-agent injector in a rig: the same tests for the real programs and for the stand-ins.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code, also outside of the tests' own functions; a report says what it was run against"
)]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_runtime::{Clock as _, SystemClock};
use berth_testkit::{
    bao::{BaoClient, jwt::Signer, nvcf},
    eventually,
    proxy::{Proxy, Weather},
    rig::{
        Part, Rig, RigConfig,
        bao::{ADDRESS, Choice, ROOT_TOKEN, lay_out, trust_cluster},
        inside,
    },
    vault_agent::below,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const AUDIENCE: &str = "http://openbao-server.vault-system.svc.cluster.local:8200";

/// Runs an async body inside namespaces of its own.
fn in_namespace(test: &str, body: impl AsyncFnOnce()) {
    inside(test, || {
        println!("{}", Choice::chosen());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
}

/// The server alone, with `auth/jwt` that takes our own tokens.
struct Bench {
    _dir: tempfile::TempDir,
    part: Part,
    root: BaoClient,
    issuer: Signer,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let part = Choice::chosen().start_server(dir.path()).await.unwrap();
        let root = BaoClient::new(ADDRESS).token(ROOT_TOKEN);
        let issuer = Signer::generate("cluster").unwrap();
        root.write("sys/auth/jwt", json!({"type": "jwt"})).await.unwrap();
        let config = json!({"jwt_validation_pubkeys": [issuer.public_pem()], "bound_issuer": "https://cluster"});
        root.write("auth/jwt/config", config).await.unwrap();
        Self {
            _dir: dir,
            part,
            root,
            issuer,
        }
    }

    async fn role(&self, change: &Value) {
        let mut role = json!({"role_type": "jwt", "bound_audiences": [AUDIENCE], "user_claim": "sub",
            "bound_claims": {"/kubernetes.io/namespace": "nvca-system"}, "token_policies": ["test"], "token_ttl": "1h"});
        role.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        self.root.write("auth/jwt/role/nvca", role).await.unwrap();
    }

    fn jwt(&self, change: &Value) -> String {
        let now = SystemClock::new().now_unix_ms() / 1000;
        let mut claims = json!({"iss": "https://cluster", "sub": "system:serviceaccount:nvca-system:nvca",
            "aud": [AUDIENCE], "kubernetes.io": {"namespace": "nvca-system"}, "iat": now, "exp": now + 600});
        claims
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        self.issuer.sign(claims.as_object().unwrap()).unwrap()
    }

    async fn log_in(&self) -> BaoClient {
        let auth = self
            .root
            .login("auth/jwt", "nvca", &self.jwt(&json!({})))
            .await
            .unwrap();
        self.root.token(auth["client_token"].as_str().unwrap())
    }

    async fn policy(&self, text: &str) {
        self.root
            .write("sys/policies/acl/test", json!({ "policy": text }))
            .await
            .unwrap();
    }
}

/// Status and words of a refusal.
async fn refused(answer: impl Future<Output = Result<Value, berth_testkit::bao::ClientError>>) -> (u16, String) {
    let error = answer.await.unwrap_err();
    (error.status().unwrap_or_else(|| panic!("{error}")), error.to_string())
}

#[test]
fn rig_bao_a_login_is_taken_or_refused_by_its_role() {
    in_namespace("rig_bao_a_login_is_taken_or_refused_by_its_role", async || {
        let bench = Bench::new().await;
        bench
            .role(&json!({"claim_mappings": {"/kubernetes.io/namespace": "ns"}}))
            .await;
        let auth = bench
            .root
            .login("auth/jwt", "nvca", &bench.jwt(&json!({})))
            .await
            .unwrap();
        assert_eq!(auth["policies"], json!(["default", "test"]));
        assert_eq!(
            (&auth["lease_duration"], &auth["renewable"]),
            (&json!(3600), &json!(true))
        );
        assert_eq!(auth["metadata"], json!({"ns": "nvca-system", "role": "nvca"}));
        let client = bench.root.token(auth["client_token"].as_str().unwrap());
        let seen = client.read("auth/token/lookup-self").await.unwrap();
        assert_eq!(
            (&seen["data"]["path"], &seen["data"]["type"]),
            (&json!("auth/jwt/login"), &json!("service"))
        );

        let long_ago = json!({"iat": 1_700_000_000, "exp": 1_700_000_600});
        for (change, told) in [
            (
                json!({"aud": "http://other"}),
                "audience claim does not match any expected audience",
            ),
            (long_ago, "token is expired"),
            (json!({"iss": "https://other"}), "invalid issuer (iss) claim"),
            (
                json!({"kubernetes.io": {"namespace": "default"}}),
                "does not match any associated bound claim values",
            ),
        ] {
            let (status, words) = refused(bench.root.login("auth/jwt", "nvca", &bench.jwt(&change))).await;
            assert_eq!(status, 400, "{words}");
            assert!(words.contains(told), "{words}");
        }
        let (status, words) = refused(bench.root.login("auth/jwt", "unknown", &bench.jwt(&json!({})))).await;
        assert!(
            status == 400 && words.contains("could not be found"),
            "{status} {words}"
        );
        let stranger = Signer::generate("cluster")
            .unwrap()
            .sign(&serde_json::Map::new())
            .unwrap();
        let (status, words) = refused(bench.root.login("auth/jwt", "nvca", &stranger)).await;
        assert!(
            status == 400 && words.contains("error verifying token signature"),
            "{status} {words}"
        );

        bench
            .role(&json!({"bound_claims_type": "glob", "bound_claims": {"sub": "system:serviceaccount:nvca-*"}}))
            .await;
        bench.log_in().await;
    });
}

#[test]
fn rig_bao_key_value_secrets_have_versions_and_check_and_set() {
    in_namespace(
        "rig_bao_key_value_secrets_have_versions_and_check_and_set",
        async || {
            let bench = Bench::new().await;
            let root = &bench.root;
            let kv = json!({"type": "kv", "options": {"version": "2"}});
            root.write("sys/mounts/services/all/kv", kv).await.unwrap();
            let path = nvcf::NATS_CREDS;
            let missing = root
                .exchange("GET", &format!("/v1/{path}"), &Value::Null)
                .await
                .unwrap();
            assert_eq!(missing, (404, json!({"errors": []})));
            let put = |key: &str, cas: u64| json!({"data": {"key": key}, "options": {"cas": cas}});
            // A new mount of the real one may still be upgrading itself.
            let written = async || Ok(root.write(path, put("one", 0)).await?);
            assert_eq!(eventually(SOON, written).await.unwrap()["data"]["version"], 1);
            let (status, words) = refused(root.write(path, put("two", 0))).await;
            assert!(
                status == 400 && words.contains("check-and-set parameter did not match"),
                "{words}"
            );
            root.write(path, put("two", 1)).await.unwrap();
            let read = root.read(path).await.unwrap();
            assert_eq!(read["data"]["data"], json!({"key": "two"}));
            assert_eq!(read["data"]["metadata"]["version"], 2);
            assert_eq!((&read["lease_id"], &read["lease_duration"]), (&json!(""), &json!(0)));
            assert_eq!(
                root.read(&format!("{path}?version=1")).await.unwrap()["data"]["data"],
                json!({"key": "one"})
            );

            root.delete(path).await.unwrap();
            let (status, gone) = root
                .exchange("GET", &format!("/v1/{path}"), &Value::Null)
                .await
                .unwrap();
            assert_eq!((status, &gone["data"]["data"]), (404, &Value::Null));
            assert_ne!(gone["data"]["metadata"]["deletion_time"], "");
            let undelete = "services/all/kv/undelete/nats/creds";
            root.write(undelete, json!({"versions": [2]})).await.unwrap();
            root.read(path).await.unwrap();
            let metadata = root.read("services/all/kv/metadata/nats/creds").await.unwrap();
            assert_eq!(metadata["data"]["current_version"], 2);
            let listed = root.read("services/all/kv/metadata?list=true").await.unwrap();
            assert_eq!(listed["data"]["keys"], json!(["nats/"]));
            root.delete("services/all/kv/metadata/nats/creds").await.unwrap();
            assert_eq!(refused(root.read(path)).await.0, 404);
        },
    );
}

#[test]
fn rig_bao_a_policy_denies_what_it_does_not_grant() {
    in_namespace("rig_bao_a_policy_denies_what_it_does_not_grant", async || {
        let bench = Bench::new().await;
        bench.role(&json!({})).await;
        bench
            .policy(
                r#"path "secret/data/open/*" { capabilities = ["read", "create"] }
                   path "secret/data/+/shut" { capabilities = ["deny"] }"#,
            )
            .await;
        bench
            .root
            .write("secret/data/other", json!({"data": {"a": 1}}))
            .await
            .unwrap();
        let client = bench.log_in().await;
        let body = json!({"data": {"a": 1}});
        client.write("secret/data/open/x", body.clone()).await.unwrap();
        client.read("secret/data/open/x").await.unwrap();
        for answer in [
            refused(client.write("secret/data/open/x", body.clone())).await,
            refused(client.read("secret/data/other")).await,
            refused(client.delete("secret/data/open/x")).await,
            refused(client.write("sys/seal", json!({}))).await,
            refused(client.token("s.unknown").read("secret/data/open/x")).await,
        ] {
            assert!(answer.0 == 403 && answer.1.contains("permission denied"), "{answer:?}");
        }
        let nowhere = refused(bench.root.read("nowhere/x")).await;
        assert!(
            nowhere.0 == 404 && nowhere.1.contains("no handler for route"),
            "{nowhere:?}"
        );
    });
}

#[test]
fn rig_bao_a_token_is_renewed_up_to_its_maximum_and_expires() {
    in_namespace("rig_bao_a_token_is_renewed_up_to_its_maximum_and_expires", async || {
        let bench = Bench::new().await;
        bench.role(&json!({"token_ttl": "2s", "token_max_ttl": "6s"})).await;
        let client = bench.log_in().await;
        let renewed = client
            .write("auth/token/renew-self", json!({"increment": "1h"}))
            .await
            .unwrap();
        let left = renewed["auth"]["lease_duration"].as_u64().unwrap();
        assert!((4..=6).contains(&left), "{left}");
        let over = async || {
            let error = client
                .read("auth/token/lookup-self")
                .await
                .err()
                .context("still valid")?;
            ensure!(error.status() == Some(403), "{error}");
            Ok(())
        };
        eventually(SOON, over).await.unwrap();

        bench.role(&json!({"token_ttl": 0, "token_period": 43200})).await;
        let client = bench.log_in().await;
        let seen = client.read("auth/token/lookup-self").await.unwrap();
        assert_eq!(seen["data"]["period"], 43200);
        client.write("auth/token/revoke-self", json!({})).await.unwrap();
        assert_eq!(refused(client.read("auth/token/lookup-self")).await.0, 403);
        let (status, words) = refused(bench.root.write("auth/token/renew-self", json!({}))).await;
        assert_eq!(status, 400, "{words}");
    });
}

#[test]
fn rig_bao_a_sealed_and_a_slow_server_say_so() {
    in_namespace("rig_bao_a_sealed_and_a_slow_server_say_so", async || {
        let mut bench = Bench::new().await;
        bench.role(&json!({})).await;
        let client = bench.log_in().await;
        bench.root.write("sys/seal", json!({})).await.unwrap();
        let sealed = refused(client.read("auth/token/lookup-self")).await;
        assert!(sealed.0 == 503 && sealed.1.contains("is sealed"), "{sealed:?}");
        let (status, health) = client.exchange("GET", "/v1/sys/health", &Value::Null).await.unwrap();
        assert_eq!(
            (status, &health["sealed"], &health["initialized"]),
            (503, &json!(true), &json!(true))
        );
        let (status, seal) = client
            .exchange("GET", "/v1/sys/seal-status", &Value::Null)
            .await
            .unwrap();
        assert_eq!((status, &seal["sealed"]), (200, &json!(true)));
        let log = bench.part.log_tail(1000);
        let key = log.lines().find_map(|line| line.split_once("Unseal Key: ")).unwrap().1;
        let unsealed = client.write("sys/unseal", json!({"key": key.trim()})).await.unwrap();
        assert_eq!(unsealed["sealed"], false);
        let back = async || Ok(client.read("auth/token/lookup-self").await?);
        eventually(SOON, back).await.unwrap();

        let proxy = Proxy::to("127.0.0.1:8200".parse().unwrap()).await.unwrap();
        let through = BaoClient::new(&format!("http://{}", proxy.address())).deadline(Duration::from_millis(300));
        through.read("sys/health").await.unwrap();
        proxy.set(Weather::Slow(Duration::from_secs(2)));
        assert_eq!(through.read("sys/health").await.unwrap_err().reason(), "Late");
        bench.part.pause();
        let direct = bench.root.clone().deadline(Duration::from_millis(300));
        assert_eq!(direct.read("sys/health").await.unwrap_err().reason(), "Late");
        bench.part.resume();
        bench.root.read("sys/health").await.unwrap();
    });
}

#[test]
fn rig_bao_a_signed_token_verifies_through_the_key_set() {
    in_namespace("rig_bao_a_signed_token_verifies_through_the_key_set", async || {
        if !Choice::chosen().signs_tokens() {
            println!(
                "skipped: real OpenBao has no services/NAME/jwt/sign, which is NVCF's plugin vault-plugin-secrets-jwt"
            );
            return;
        }
        let bench = Bench::new().await;
        nvcf::seed(&bench.root, AUDIENCE).await.unwrap();
        nvcf::seed_signing(&bench.root).await.unwrap();
        let account = json!({"kubernetes.io": {"namespace": "nvca-system", "serviceaccount": {"name": "nvca"}}});
        let auth = bench
            .root
            .login("auth/jwt", "nvca", &bench.jwt(&account))
            .await
            .unwrap();
        assert_eq!(auth["lease_duration"], 43200);
        let nvca = bench.root.token(auth["client_token"].as_str().unwrap());
        let signed = nvca.read("services/sis-api/jwt/sign/nvca").await.unwrap();
        assert_eq!(
            (&signed["lease_duration"], &signed["renewable"]),
            (&json!(43200), &json!(false))
        );
        let token = signed["data"]["token"].as_str().unwrap();
        let claims = verified(token).await.unwrap();
        assert_eq!(claims["iss"], "http://api.sis.svc.cluster.local");
        assert_eq!((&claims["sub"], &claims["azp"]), (&json!("nvca"), &json!("nvca")));
        assert_eq!(claims["scopes"], json!(["nvca-cluster", "instance_request_update"]));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 43200);
        // ICMS refuses more than 2048 bytes.
        assert!(token.len() < 2048);
        let other = refused(nvca.read("services/sis-api/jwt/sign/nvca-operator")).await;
        assert_eq!(other.0, 403, "{other:?}");

        let rotate = json!({"mount": "services/sis-api/jwt"});
        bench.root.exchange("PUT", "/standin/rotate", &rotate).await.unwrap();
        verified(token).await.unwrap();
        let second = nvca.write("services/sis-api/jwt/sign/nvca", json!({})).await.unwrap();
        let second = second["data"]["token"].as_str().unwrap();
        verified(second).await.unwrap();
        assert_ne!(key_id(token), key_id(second));
    });
}

fn key_id(token: &str) -> Value {
    part(token.split('.').next().unwrap())["kid"].clone()
}

fn part(text: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

/// The claims, checked without any of the stand-in's own code: key set by `kid`, signature by the crypto library.
async fn verified(token: &str) -> anyhow::Result<Value> {
    let jwks = BaoClient::new(ADDRESS).read("services/sis-api/jwt/jwks").await?;
    let mut keys = jwks["keys"].as_array().context("no keys")?.iter();
    let kid = key_id(token);
    let key = keys.find(|key| key["kid"] == kid).context("no key of that name")?;
    ensure!(
        key["kty"] == "EC" && key["crv"] == "P-256" && key["alg"] == "ES256",
        "{key}"
    );
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        point.extend(URL_SAFE_NO_PAD.decode(key[coordinate].as_str().context("no coordinate")?)?);
    }
    let (signed, signature) = token.rsplit_once('.').context("no signature")?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?)
        .ok()
        .context("the signature is wrong")?;
    Ok(part(signed.split_once('.').context("no claims")?.1))
}

async fn rig() -> Rig {
    let config = RigConfig {
        nodes: 1,
        bao: true,
        ..RigConfig::default()
    };
    Rig::up(config).await.unwrap()
}

/// NVCF's pod for the agent: namespace, account, template and pod with its charts' annotations.
async fn nvca_pod(rig: &Rig, template: &str) -> Pod {
    let client = rig.client();
    let post = PostParams::default();
    let namespace = serde_json::from_value(json!({"metadata": {"name": "nvca-system"}})).unwrap();
    Api::<Namespace>::all(client.clone())
        .create(&post, &namespace)
        .await
        .unwrap();
    let account = serde_json::from_value(json!({"metadata": {"name": "nvca"}})).unwrap();
    Api::<ServiceAccount>::namespaced(client.clone(), "nvca-system")
        .create(&post, &account)
        .await
        .unwrap();
    let map = json!({"metadata": {"name": "templates"}, "data": {"secrets.json.tmpl": template}});
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "nvca-system");
    maps.create(&post, &serde_json::from_value(map).unwrap()).await.unwrap();
    let token = json!({"serviceAccountToken": {"path": "token", "audience": AUDIENCE, "expirationSeconds": 3600}});
    let annotation = |name: &str, value: &str| (format!("vault.hashicorp.com/{name}"), json!(value));
    let annotations: serde_json::Map<String, Value> = [
        annotation("agent-inject", "true"),
        annotation("agent-init-first", "true"),
        annotation("role", "nvca"),
        annotation("auth-path", "auth/jwt"),
        annotation("agent-service-account-token-volume-name", "openbao-token"),
        annotation(
            "auth-config-token-path",
            "/var/run/secrets/openbao/serviceaccount/token",
        ),
        annotation("agent-copy-volume-mounts", "agent"),
        annotation("agent-run-as-same-user", "true"),
        annotation("secret-volume-path", "/home/app/vault"),
        annotation(
            "agent-inject-template-file-secrets.json",
            "/vault/config/templates/secrets.json.tmpl",
        ),
        annotation("template-static-secret-render-interval", "1s"),
        annotation("auth-min-backoff", "100ms"),
        annotation("auth-max-backoff", "500ms"),
        annotation("client-timeout", "1s"),
    ]
    .into_iter()
    .collect();
    let pod = json!({"metadata": {"name": "nvca", "annotations": annotations}, "spec": {
        "serviceAccountName": "nvca",
        "initContainers": [{"name": "bootstrap", "image": "none"}],
        "containers": [{"name": "agent", "image": "none", "securityContext": {"runAsUser": 1000}, "volumeMounts": [
            {"name": "openbao-token", "mountPath": "/var/run/secrets/openbao/serviceaccount", "readOnly": true},
            {"name": "templates", "mountPath": "/vault/config/templates", "readOnly": true}]}],
        "volumes": [{"name": "openbao-token", "projected": {"sources": [token]}},
            {"name": "templates", "configMap": {"name": "templates"}}]}});
    let pods: Api<Pod> = Api::namespaced(client, "nvca-system");
    pods.create(&post, &serde_json::from_value(pod).unwrap()).await.unwrap()
}

#[test]
fn rig_bao_an_annotated_pod_gets_the_agents() {
    in_namespace("rig_bao_an_annotated_pod_gets_the_agents", async || {
        let rig = rig().await;
        let pod = serde_json::to_value(nvca_pod(&rig, "").await).unwrap();
        let spec = &pod["spec"];
        let names = |list: &Value| -> Vec<String> {
            list.as_array()
                .unwrap()
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(&spec["initContainers"]), ["vault-agent-init", "bootstrap"]);
        assert_eq!(names(&spec["containers"]), ["agent", "vault-agent"]);
        let volumes = names(&spec["volumes"]);
        for volume in ["home-init", "home-sidecar", "vault-secrets"] {
            assert!(volumes.iter().any(|name| name == volume), "{volumes:?}");
        }
        assert_eq!(
            pod["metadata"]["annotations"]["vault.hashicorp.com/agent-inject-status"],
            "injected"
        );
        let sidecar = &spec["containers"][1];
        let mut mounts: Vec<_> = sidecar["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["mountPath"].clone())
            .collect();
        mounts.sort_by_key(Value::to_string);
        // The last is the API server's own.
        let expected = [
            "/home/app/vault",
            "/home/vault",
            "/var/run/secrets/kubernetes.io/serviceaccount",
            "/var/run/secrets/openbao/serviceaccount",
            "/vault/config/templates",
        ];
        assert_eq!(mounts, expected);
        assert_eq!(sidecar["securityContext"]["runAsUser"], 1000);
        let config = agent_config(sidecar);
        assert_eq!(
            config["auto_auth"]["method"],
            json!({"type": "kubernetes", "mount_path": "auth/jwt",
            "min_backoff": "100ms", "max_backoff": "500ms", "config": {"role": "nvca",
            "token_path": "/var/run/secrets/openbao/serviceaccount/token"}})
        );
        assert_eq!(
            config["template"],
            json!([{"destination": "/home/app/vault/secrets.json",
            "source": "/vault/config/templates/secrets.json.tmpl", "left_delimiter": "{{", "right_delimiter": "}}"}])
        );
        assert_eq!(config["exit_after_auth"], false);
        assert_eq!(agent_config(&spec["initContainers"][0])["exit_after_auth"], true);

        let pods: Api<Pod> = Api::default_namespaced(rig.client());
        let plain = json!({"metadata": {"name": "plain"}, "spec": {"containers": [{"name": "c", "image": "none"}]}});
        let plain = pods
            .create(&PostParams::default(), &serde_json::from_value(plain).unwrap())
            .await
            .unwrap();
        assert_eq!(plain.spec.unwrap().containers.len(), 1);
        let bad = json!({"metadata": {"name": "bad", "annotations": {"vault.hashicorp.com/agent-inject": "true"}},
            "spec": {"containers": [{"name": "c", "image": "none"}]}});
        let error = pods
            .create(&PostParams::default(), &serde_json::from_value(bad).unwrap())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no Vault role found"), "{error}");
    });
}

fn agent_config(container: &Value) -> Value {
    let mut variables = container["env"].as_array().unwrap().iter();
    let variable = variables.find(|variable| variable["name"] == "VAULT_CONFIG").unwrap();
    let config = base64::engine::general_purpose::STANDARD.decode(variable["value"].as_str().unwrap());
    serde_json::from_slice(&config.unwrap()).unwrap()
}

/// An agent's process; it ends with this.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}

fn agent(pod: &Path, container: &str, root: &Path) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_injector-standin"));
    command
        .arg("render")
        .arg("--pod")
        .arg(pod)
        .args(["--container", container])
        .arg("--root")
        .arg(root);
    Agent(command.stdin(Stdio::null()).spawn().unwrap())
}

#[test]
fn rig_bao_rendered_files_follow_rotation_and_survive_an_outage() {
    in_namespace(
        "rig_bao_rendered_files_follow_rotation_and_survive_an_outage",
        async || {
            let choice = Choice::chosen();
            let mut rig = rig().await;
            let root = BaoClient::new(ADDRESS).token(ROOT_TOKEN);
            set_up(&choice, &root).await;
            let token = if choice.signs_tokens() {
                r#"{{ with secret "services/sis-api/jwt/sign/nvca" }}{{ .Data.token }}{{ end }}"#
            } else {
                ""
            };
            let template = format!(
                r#"{{"kv":{{"nats":{{"api-auth":{{
            {{{{- with secret "/services/all/kv/data/nats/creds" -}}}}
            "user":"{{{{ .Data.data.public_key }}}}","user-seed":"{{{{ .Data.data.key }}}}"
            {{{{- end -}}}} }}}},"tokens":{{"icms":"{token}"}}}}}}"#
            );
            let pod = nvca_pod(&rig, &template).await;
            let dir = tempfile::tempdir().unwrap();
            let container = dir.path().join("root");
            lay_out(&rig.client(), &pod, "vault-agent", &container).await.unwrap();
            let pod_file = dir.path().join("pod.json");
            fs::write(&pod_file, serde_json::to_vec(&pod).unwrap()).unwrap();
            let path = below(&container, "/home/app/vault/secrets.json");
            let read = || -> anyhow::Result<Value> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
            let user = || -> anyhow::Result<String> {
                Ok(read()?["kv"]["nats"]["api-auth"]["user"]
                    .as_str()
                    .context("no user")?
                    .to_owned())
            };

            let mut init = agent(&pod_file, "vault-agent-init", &container);
            let ended = async || init.0.try_wait()?.context("the init container's agent still runs");
            assert!(eventually(SOON, ended).await.unwrap().success());
            assert_eq!(user().unwrap(), "U1");
            let first = read().unwrap();
            if choice.signs_tokens() {
                let claims = verified(first["kv"]["tokens"]["icms"].as_str().unwrap()).await.unwrap();
                assert_eq!(claims["sub"], "nvca");
            }

            // Rotation: a new secret, and a token near its end.
            let _sidecar = agent(&pod_file, "vault-agent", &container);
            creds(&root, "U2").await;
            until_user(&user, "U2").await;
            if choice.signs_tokens() {
                let newer = async || {
                    let now = read()?;
                    ensure!(now["kv"]["tokens"] != first["kv"]["tokens"], "the same token");
                    verified(now["kv"]["tokens"]["icms"].as_str().context("no token")?).await
                };
                eventually(SOON, newer).await.unwrap();
            }

            // It hangs: the last good file stays, and a change made meanwhile comes afterwards.
            creds(&root, "U3").await;
            rig.part("openbao").unwrap().pause();
            let asked = root.clone().deadline(Duration::from_secs(3)).read("sys/health").await;
            assert_eq!(asked.unwrap_err().reason(), "Late");
            let kept = user().unwrap();
            assert!(kept == "U2" || kept == "U3", "{kept}");
            rig.part("openbao").unwrap().resume();
            until_user(&user, "U3").await;

            // It dies, and what comes back has forgotten every token.
            rig.part("openbao").unwrap().kill();
            assert_eq!(root.read("sys/health").await.unwrap_err().reason(), "Unreachable");
            assert_eq!(user().unwrap(), "U3");
            rig.part("openbao").unwrap().restart().unwrap();
            let answers = async || Ok(root.read("sys/health").await?);
            eventually(SOON, answers).await.unwrap();
            let ca = fs::read_to_string(rig.dir().join("ca.crt")).unwrap();
            trust_cluster(&root, &ca).await.unwrap();
            set_up(&choice, &root).await;
            assert!(read().is_ok());
            creds(&root, "U4").await;
            until_user(&user, "U4").await;
        },
    );
}

async fn set_up(choice: &Choice, root: &BaoClient) {
    nvcf::seed(root, AUDIENCE).await.unwrap();
    if choice.signs_tokens() {
        nvcf::seed_signing(root).await.unwrap();
        let short = json!({"jwt_ttl": "3s"});
        root.write("services/sis-api/jwt/config", short).await.unwrap();
    } else {
        println!("without tokens: real OpenBao has no services/NAME/jwt/sign, which is NVCF's plugin");
    }
    creds(root, "U1").await;
}

async fn creds(root: &BaoClient, user: &str) {
    let body = json!({"data": {"public_key": user, "key": "SUA"}});
    let written = async || Ok(root.write(nvcf::NATS_CREDS, body.clone()).await?);
    eventually(SOON, written).await.unwrap();
}

async fn until_user(user: &impl Fn() -> anyhow::Result<String>, wanted: &str) {
    let there = async || {
        let now = user()?;
        ensure!(now == wanted, "the file says {now}");
        Ok(())
    };
    eventually(SOON, there).await.unwrap();
}
