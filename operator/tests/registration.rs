//! Registering against `fake-sis`: what is asked, in which order, and that nothing is made twice.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

use std::{fs, time::Duration};

use berth_operator::registration::{How, RegisterError, Registration, Wanted, find, register};
use berth_runtime::{SystemClock, secret_file::SecretFile, tls};
use berth_sis::{
    RetryPolicy, SisClient, SisConfig, SisError, TokenFile, TokenRules,
    check::{NewCluster, new_cluster},
};
use berth_testkit::FakeSis;
use serde_json::json;

const LIST: &str = "GET /v1/accounts/nvcf-default/clusters";
const CREATE: &str = "POST /v1/accounts/nvcf-default/clusters";

fn client(sis: &FakeSis) -> SisClient {
    tls::install_crypto_provider();
    let token = sis.dir().join("token");
    fs::write(&token, sis.authority.token(|_| {})).unwrap();
    let config = SisConfig {
        url: sis.url(),
        host: None,
        user_agent: "test/1".to_owned(),
        retry: RetryPolicy::ONCE,
        deadline: Some(Duration::from_secs(5)),
    };
    let token = TokenFile::new(SecretFile::new(token));
    SisClient::new(&config, token, TokenRules::cluster_management(), SystemClock::shared()).unwrap()
}

fn cluster(name: &str) -> NewCluster {
    NewCluster {
        cluster_name: name.to_owned(),
        cluster_group_name: "nvcf-default".to_owned(),
        nca_id: "nvcf-default".to_owned(),
        cloud_provider: "NCP".to_owned(),
        nvca_version: "2.52.1".to_owned(),
        region: "us-west-1".to_owned(),
        capabilities: vec!["DynamicGPUDiscovery".to_owned()],
        oauth_client_id: format!("client-{name}"),
        ..NewCluster::default()
    }
}

fn wanted(cluster: NewCluster) -> Wanted {
    let (account, cluster) = new_cluster(cluster).unwrap();
    Wanted { account, cluster }
}

#[tokio::test]
async fn a_cluster_is_created_then_confirmed_and_adopted_where_the_record_is_lost() {
    let sis = FakeSis::start().await.unwrap();
    let (client, wanted) = (client(&sis), wanted(cluster("one")));
    assert!(find(&client, &wanted, None).await.unwrap().is_none());
    let created = register(&client, &wanted, None).await.unwrap();
    assert_eq!(created.how, How::Created);
    let known = created.registration;
    let confirmed = register(&client, &wanted, Some(&known)).await.unwrap();
    assert_eq!((confirmed.how, &confirmed.registration), (How::Confirmed, &known));
    let adopted = register(&client, &wanted, None).await.unwrap();
    assert_eq!((adopted.how, &adopted.registration), (How::Adopted, &known));
    let another = Registration {
        cluster_id: "another".parse().unwrap(),
        ..known
    };
    let adopted = find(&client, &wanted, Some(&another)).await.unwrap().unwrap();
    assert_eq!(adopted.how, How::Adopted);
    assert_eq!(sis.asked(CREATE).await.unwrap(), 1);
}

#[tokio::test]
async fn who_was_faster_is_adopted_and_a_lost_answer_is_looked_for_and_not_asked_again() {
    let sis = FakeSis::start().await.unwrap();
    let client = client(&sis);
    // The answer is lost, the cluster is made.
    sis.faults(json!([{"on": CREATE, "lose": true, "times": 1}])).await;
    let lost = register(&client, &wanted(cluster("lost")), None).await.unwrap();
    assert_eq!((lost.how, sis.asked(CREATE).await.unwrap()), (How::Adopted, 1));
    // Nothing is made, and it is not known: trouble that passes, and one request.
    sis.faults(json!([{"on": CREATE, "status": 503, "times": 1}])).await;
    let failed = register(&client, &wanted(cluster("failed")), None).await.unwrap_err();
    assert!(
        matches!(failed, RegisterError::Sis(SisError::Failed { status: 503, .. })),
        "{failed:?}"
    );
    assert_eq!(
        (sis.asked(CREATE).await.unwrap(), sis.asked(LIST).await.unwrap()),
        (2, 4)
    );
    // Two at once, as if each had looked before the other wrote.
    sis.faults(json!([])).await;
    let race = wanted(cluster("race"));
    let (one, two) = tokio::join!(register(&client, &race, None), register(&client, &race, None));
    let (one, two) = (one.unwrap(), two.unwrap());
    let listed = find(&client, &race, None).await.unwrap().unwrap();
    assert!([&one, &two].iter().any(|it| it.registration == listed.registration));
}

#[tokio::test]
async fn what_sis_refuses_is_told_with_the_cluster_that_is_in_the_way() {
    let sis = FakeSis::start().await.unwrap();
    let client = client(&sis);
    register(&client, &wanted(cluster("one")), None).await.unwrap();
    let renamed = NewCluster {
        oauth_client_id: "client-one".to_owned(),
        ..cluster("two")
    };
    let taken = register(&client, &wanted(renamed), None).await.unwrap_err();
    assert!(taken.to_string().contains("set clusterName to one"), "{taken}");
    let other_provider = NewCluster {
        cloud_provider: "AWS".to_owned(),
        ..cluster("three")
    };
    let refused = register(&client, &wanted(other_provider), None).await.unwrap_err();
    assert!(
        refused.to_string().contains("cloudProvider AWS is different"),
        "{refused}"
    );
    // Another client id: adopted, and told.
    let other_client = NewCluster {
        oauth_client_id: "nvca".to_owned(),
        ..cluster("one")
    };
    let adopted = register(&client, &wanted(other_client), None).await.unwrap();
    assert_eq!(adopted.how, How::Adopted);
    assert_eq!(adopted.differences.len(), 1);
    assert!(
        adopted.differences[0].to_string().contains("subject is `nvca`"),
        "{:?}",
        adopted.differences
    );
}
