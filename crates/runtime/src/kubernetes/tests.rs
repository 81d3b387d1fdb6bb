use std::path::Path;

use axum::{Router, http::StatusCode, routing::get};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher;

use super::*;
use crate::{telemetry::with_causes, tls::install_crypto_provider};

const BUILD: BuildInfo = BuildInfo::of("berth-test");

/// A server of these routes, and a client that is told of it by a kubeconfig.
async fn served(routes: Router, dir: &Path) -> Client {
    install_crypto_provider();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(berth_testkit::spawn(async move { axum::serve(listener, routes).await }));
    let path = dir.join("kubeconfig");
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(&path, config).unwrap();
    Access::Kubeconfig(path).client(BUILD).await.unwrap()
}

#[test]
fn a_kubeconfig_wins_over_the_service_account_and_outside_a_pod_there_is_no_cluster() {
    let given = KubernetesArgs {
        kubeconfig: Some("/k".into()),
    };
    assert_eq!(given.access_in(true), Some(Access::Kubeconfig("/k".into())));
    assert_eq!(KubernetesArgs::default().access_in(true), Some(Access::ServiceAccount));
    assert_eq!(KubernetesArgs::default().access_in(false), None);
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_read_is_named() {
    let access = Access::Kubeconfig("/no/such/kubeconfig".into());
    let Err(error) = access.client(BUILD).await else {
        panic!("made a client from nothing")
    };
    assert!(error.to_string().contains("/no/such/kubeconfig"), "{error}");
    assert!(error.to_string().contains("--kubeconfig"), "{error}");
}

#[tokio::test]
async fn what_the_server_refuses_has_a_stable_reason() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = |code: u16, reason: &'static str| {
        get(move || async move {
            let status = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code,
            });
            (StatusCode::from_u16(code).unwrap(), axum::Json(status))
        })
    };
    let maps = "/api/v1/namespaces/default/configmaps";
    let routes = Router::new()
        .route(&format!("{maps}/gone"), refuse(404, "NotFound"))
        .route(&format!("{maps}/raced"), refuse(409, "Conflict"))
        .route(&format!("{maps}/secret"), refuse(403, "Forbidden"))
        .route(&format!("{maps}/busy"), refuse(503, "ServiceUnavailable"));
    let client = served(routes, dir.path()).await;
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    for (name, reason, is_transient) in [
        ("gone", "ApiNotFound", false),
        ("raced", "ApiConflict", false),
        ("secret", "ApiForbidden", false),
        ("busy", "ApiServerError", true),
    ] {
        let error = within(DEADLINE, api.get(name)).await.unwrap_err();
        assert_eq!((error.reason(), error.is_transient()), (reason, is_transient), "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_told_without_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let answer = get(async || axum::Json(serde_json::json!({"metadata": {}, "data": "s3cret"})));
    let routes = Router::new().route("/api/v1/namespaces/default/configmaps/{name}", answer);
    let api: Api<ConfigMap> = Api::namespaced(served(routes, dir.path()).await, "default");
    let quoted = api.get("x").await.unwrap_err();
    assert!(quoted.to_string().contains("s3cret"), "the client quotes: {quoted}");
    let told = with_causes(&within(DEADLINE, api.get("x")).await.unwrap_err());
    assert!(told.contains("another form") && !told.contains("s3cret"), "{told}");
    let told = with_causes(&watch::plain(watcher::Error::WatchFailed(quoted)));
    assert!(told.contains("another form") && !told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_or_is_not_there_is_told_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let silent = Router::new().fallback(std::future::pending::<()>);
    let client = served(silent, dir.path()).await;
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let error = within(Duration::from_millis(50), api.get("x")).await.unwrap_err();
    assert_eq!((error.reason(), error.is_transient()), ("ApiDeadline", true));

    let mut nowhere = Config::new("http://127.0.0.1:9".parse().unwrap());
    nowhere.connect_timeout = Some(CONNECT);
    let api: Api<ConfigMap> = Api::namespaced(Client::try_from(nowhere).unwrap(), "default");
    let error = within(DEADLINE, api.get("x")).await.unwrap_err();
    assert_eq!((error.reason(), error.is_transient()), ("ApiUnavailable", true));
}
