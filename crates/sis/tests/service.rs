//! The client and `fake-sis`, as processes: what the service promises, and what the client makes of it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_runtime::{SystemClock, secret_file::SecretFile, tls};
use berth_sis::{
    RetryPolicy, SisClient, SisConfig, SisError, TokenFile, TokenRules,
    wire::{CloudProvider, CreateCluster},
};
use berth_testkit::{Authority, FakeSis};
use serde_json::{Value, json};
use tokio::net::TcpListener;

struct Service {
    sis: FakeSis,
    token: PathBuf,
}

impl Service {
    async fn start() -> Self {
        let sis = FakeSis::start().await.unwrap();
        let token = sis.dir().join("token");
        fs::write(&token, sis.authority.token(|_| {})).unwrap();
        Self { sis, token }
    }

    fn client(&self) -> SisClient {
        self.client_with(&self.token)
    }

    fn client_with(&self, token: &Path) -> SisClient {
        tls::install_crypto_provider();
        let config = SisConfig {
            url: self.sis.url(),
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
        self.sis.faults(faults).await;
    }

    /// How often a line of this kind was asked.
    async fn asked(&self, line: &str) -> usize {
        self.sis.asked(line).await.unwrap()
    }
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

    service.sis.restart().await.unwrap();
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
    let signed = |key: &str, value: Value| service.sis.authority.token(|claims| claims[key] = value);
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
    fs::write(&service.token, service.sis.authority.token(|_| {})).unwrap();
    client.list_clusters(&account).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_told_without_what_is_in_it() {
    let service = Service::start().await;
    let account = "nvcf-default".parse().unwrap();
    service
        .faults(json!([{"on": "GET /v1/accounts", "status": 200, "body": "s3cret"}]))
        .await;
    let error = service.client().list_clusters(&account).await.unwrap_err();
    assert_eq!(error.reason(), "SisNonsense");
    let told = error.chain();
    assert!(told.contains("another form") && !told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn a_401_about_the_token_and_a_401_that_is_an_outage_are_told_apart() {
    let service = Service::start().await;
    let account = "nvcf-default".parse().unwrap();
    let stranger = Authority::start().await;
    let foreign = service.sis.dir().join("foreign");
    fs::write(&foreign, stranger.token(|_| {})).unwrap();
    let refused = service.client_with(&foreign).list_clusters(&account).await.unwrap_err();
    assert!(matches!(refused, SisError::TokenRefused { .. }), "{refused:?}");
    assert!(!refused.is_transient());

    // A service that cannot reach the key set.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let issuer = format!("{}=http://{closed}/jwks", TokenRules::SIS_ISSUER);
    let deaf = FakeSis::program(&stranger).arg("--issuer", issuer);
    let service = Service {
        sis: FakeSis {
            process: deaf.start().await.unwrap(),
            ..service.sis
        },
        token: service.token,
    };
    let outage = service.client().list_clusters(&account).await.unwrap_err();
    assert!(
        matches!(outage, SisError::KeySetOutage) && outage.is_transient(),
        "{outage:?}"
    );
}
