//! The client and `fake-sis`, as processes: what the service promises, and what the client makes of it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use axum::{Json, Router, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use berth_runtime::{Clock as _, SystemClock, secret_file::SecretFile, tls};
use berth_sis::{
    RetryPolicy, SisClient, SisConfig, SisError, TokenFile, TokenRules,
    wire::{CloudProvider, CreateCluster},
};
use berth_testkit::{Process, Program, http};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ISSUER: &str = TokenRules::SIS_ISSUER;

/// Signs tokens as OpenBao does, and serves the key set.
struct Authority {
    key: EcdsaKeyPair,
    key_set: String,
}

impl Authority {
    async fn start() -> Self {
        tls::install_crypto_provider();
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
        let set =
            json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1", "x": x, "y": y}]});
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key_set = format!("http://{}/jwks", listener.local_addr().unwrap());
        let router = Router::new().route("/jwks", get(async move || Json(set)));
        drop(berth_testkit::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
        Self { key, key_set }
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let now = SystemClock::new().now_unix_ms() / 1000;
        let mut claims = json!({
            "iss": ISSUER, "sub": "nvca-operator", "aud": ["nvca-operator"], "scopes": ["cluster-management"],
            "iat": now, "nbf": now, "exp": now + 600,
        });
        change(&mut claims);
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            part(&json!({"alg": "ES256", "kid": "k1", "typ": "JWT"})),
            part(&claims)
        );
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature.as_ref()))
    }
}

struct Service {
    process: Process,
    authority: Authority,
    token: PathBuf,
}

impl Service {
    async fn start() -> Self {
        let authority = Authority::start().await;
        let process = program(&authority.key_set).start().await.unwrap();
        let token = process.dir().join("token");
        fs::write(&token, authority.token(|_| {})).unwrap();
        Self {
            process,
            authority,
            token,
        }
    }

    fn client(&self) -> SisClient {
        self.client_with(&self.token)
    }

    fn client_with(&self, token: &Path) -> SisClient {
        let config = SisConfig {
            url: format!("http://{}", self.process.address("http")),
            host: None,
            user_agent: "test/1".to_owned(),
            retry: RetryPolicy {
                attempts: 3,
                first: Duration::from_millis(10),
                most: Duration::from_millis(50),
                total: Duration::from_secs(20),
            },
            deadline: Some(Duration::from_secs(5)),
        };
        let token = TokenFile::new(SecretFile::new(token));
        SisClient::new(&config, token, TokenRules::cluster_management(), SystemClock::shared()).unwrap()
    }

    async fn faults(&self, faults: Value) {
        let page = format!("{}/debug/faults", self.process.admin());
        let answer = http::request("PUT", &page, &faults.to_string()).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    /// How often a line of this kind was asked.
    async fn asked(&self, line: &str) -> usize {
        let page = http::get(&format!("{}/debug/exchanges", self.process.admin()))
            .await
            .unwrap();
        let exchanges: Vec<Value> = serde_json::from_str(&page.body).unwrap();
        let is_one = |it: &&Value| it["request"].as_str().unwrap().starts_with(line);
        exchanges.iter().filter(is_one).count()
    }
}

fn program(key_set: &str) -> Program {
    Program::new("fake-sis", "berth-sis")
        .arg("--listen", "127.0.0.1:0")
        .arg("--admin", "127.0.0.1:0")
        .arg("--state", "{dir}/state")
        .arg("--issuer", format!("{ISSUER}={key_set}"))
}

fn cluster(name: &str) -> CreateCluster {
    CreateCluster {
        cluster_name: name.to_owned(),
        cluster_group_name: name.to_owned(),
        nca_id: "nvcf-default".to_owned(),
        cloud_provider: CloudProvider::Ncp,
        nvca_version: "2.52.1".to_owned(),
        region: "us-west-1".to_owned(),
        cluster_description: String::new(),
        capabilities: vec!["DynamicGPUDiscovery".to_owned()],
        attributes: Vec::new(),
        gpus: Vec::new(),
        oauth_client_id: format!("client-{name}"),
        jwks: None,
        oidc_issuer: None,
    }
}

#[tokio::test]
async fn a_cluster_is_created_once_found_again_and_lives_through_kill_9() {
    let mut service = Service::start().await;
    let (client, account) = (service.client(), "nvcf-default".parse().unwrap());
    assert!(client.find_cluster(&account, "one").await.unwrap().is_none());
    client.create_cluster(&account, &cluster("one")).await.unwrap();
    let found = client.find_cluster(&account, "one").await.unwrap().unwrap();
    let again = client.create_cluster(&account, &cluster("one")).await.unwrap_err();
    assert!(matches!(again, SisError::NameExists), "{again:?}");

    service.process.kill();
    service.process = program(&service.authority.key_set)
        .in_dir_of(&service.process)
        .start()
        .await
        .unwrap();
    let client = service.client();
    let kept = client.find_cluster(&account, "one").await.unwrap().unwrap();
    assert_eq!(kept.cluster_id, found.cluster_id, "its state is on disk");
    client.delete_cluster(&account, &found.cluster_id).await.unwrap();
    assert!(client.find_cluster(&account, "one").await.unwrap().is_none());
}

#[tokio::test]
async fn what_passes_is_waited_out_and_a_creation_is_never_sent_twice() {
    let service = Service::start().await;
    let (client, account) = (service.client(), "nvcf-default".parse().unwrap());
    service
        .faults(json!([{"on": "GET /v1/accounts", "status": 503, "times": 2}]))
        .await;
    assert!(client.list_clusters(&account).await.unwrap().is_empty());
    assert_eq!(
        service.asked("GET /v1/accounts").await,
        3,
        "two failures and the answer"
    );
    service
        .faults(json!([{"on": "POST /v1/accounts", "lose": true, "times": 1}]))
        .await;
    let lost = client.create_cluster(&account, &cluster("lost")).await.unwrap_err();
    assert!(lost.is_outcome_unknown(), "{lost:?}");
    assert_eq!(service.asked("POST /v1/accounts").await, 1);
    service.faults(json!([])).await;
    assert!(
        client.find_cluster(&account, "lost").await.unwrap().is_some(),
        "it was carried out"
    );
}

#[tokio::test]
async fn a_token_that_would_be_refused_is_told_in_plain_words_before_anything_is_sent() {
    let service = Service::start().await;
    let account = "nvcf-default".parse().unwrap();
    let client = service.client();
    let signed = |key: &str, value: Value| service.authority.token(|claims| claims[key] = value);
    for token in [
        signed("scopes", json!(["other"])),
        signed("iss", json!("http://else")),
        signed("exp", json!(1000)),
        "no token".to_owned(),
    ] {
        fs::write(&service.token, &token).unwrap();
        let error = client.list_clusters(&account).await.unwrap_err();
        assert!(matches!(error, SisError::Token(_)), "{error:?}");
        assert!(!error.chain().contains(&token), "the token is in the error");
    }
    assert_eq!(service.asked("GET").await, 0);
    // The file is read anew for each request: a good token helps at once.
    fs::write(&service.token, service.authority.token(|_| {})).unwrap();
    client.list_clusters(&account).await.unwrap();
}

#[tokio::test]
async fn a_401_about_the_token_and_a_401_that_is_an_outage_are_told_apart() {
    let service = Service::start().await;
    let account = "nvcf-default".parse().unwrap();
    let stranger = Authority::start().await;
    let foreign = service.process.dir().join("foreign");
    fs::write(&foreign, stranger.token(|_| {})).unwrap();
    let refused = service.client_with(&foreign).list_clusters(&account).await.unwrap_err();
    assert!(matches!(refused, SisError::TokenRefused { .. }), "{refused:?}");
    assert!(!refused.is_transient());

    // A service that cannot reach the key set.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let service = Service {
        process: program(&format!("http://{closed}/jwks")).start().await.unwrap(),
        ..service
    };
    let outage = service.client().list_clusters(&account).await.unwrap_err();
    assert!(
        matches!(outage, SisError::KeySetOutage) && outage.is_transient(),
        "{outage:?}"
    );
}
