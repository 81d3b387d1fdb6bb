//! The pages over HTTP, without a socket.

use axum::{body::Body, http};
use tower::ServiceExt as _;

use super::*;

async fn ask(path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, "agent: {featureFlags: [KAIScheduler]}").unwrap();
    let (settings, _) = Settings::read(&config).unwrap();
    let router = Reviews::new(settings, &mut Registry::default()).router();
    let request = http::Request::post(path).header("content-type", "application/json");
    let response = router.oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn question(kind: &str, operation: &str, object: &Value) -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": kind}, "operation": operation,
        "namespace": "nvcf-backend", "object": object}})
    .to_string()
}

fn pod() -> Value {
    json!({"metadata": {"name": "p", "annotations": {"nvcf.nvidia.io/instance-type-name": "NCP.GPU.H100_1x"}},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}})
}

/// The response part, and the document after its patch.
async fn reviewed(path: &str, body: String) -> (Value, Option<Value>) {
    let (status, text) = ask(path, body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let review: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&review["kind"], &review["response"]["uid"]),
        (&json!("AdmissionReview"), &json!("u-1"))
    );
    let response = review["response"].clone();
    let patch: Option<ByteString> = serde_json::from_value(response["patch"].clone()).unwrap();
    let patched = patch.map(|bytes| {
        assert_eq!(response["patchType"], "JSONPatch");
        let mut object = serde_json::from_str::<Value>(&body).unwrap()["request"]["object"].take();
        json_patch::patch(&mut object, &serde_json::from_slice::<Patch>(&bytes.0).unwrap()).unwrap();
        object
    });
    (response, patched)
}

#[tokio::test]
async fn a_new_pod_is_patched_and_an_old_one_and_other_kinds_are_left_alone() {
    let (response, patched) = reviewed("/mutate-pod-nodeaffinity", question("Pod", "CREATE", &pod())).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(patched.unwrap()["spec"]["schedulerName"], "kai-scheduler");
    let (_, patched) = reviewed("/nvca-mutating-webhook", question("Pod", "CREATE", &pod())).await;
    assert_eq!(patched.unwrap()["spec"]["automountServiceAccountToken"], false);
    for (path, kind, operation) in [
        ("/mutate-pod-nodeaffinity", "Pod", "UPDATE"),
        ("/nvca-mutating-webhook", "Pod", "UPDATE"),
        ("/nvca-mutating-webhook", "Secret", "CREATE"),
        ("/mutate-helm-storage", "Pod", "CREATE"),
        ("/validate", "Service", "CREATE"),
    ] {
        let (response, patched) = reviewed(path, question(kind, operation, &pod())).await;
        assert_eq!(
            (&response["allowed"], patched),
            (&json!(true), None),
            "{path} {kind} {operation}"
        );
    }
}

#[tokio::test]
async fn a_pod_that_reaches_into_its_node_is_denied_with_the_reason() {
    let mut host = pod();
    host["spec"]["hostNetwork"] = json!(true);
    for operation in ["CREATE", "UPDATE"] {
        let (response, _) = reviewed("/validate", question("Pod", operation, &host)).await;
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["message"], "hostNetwork is not allowed");
    }
    let (response, _) = reviewed("/validate", question("Pod", "DELETE", &Value::Null)).await;
    assert_eq!(response["allowed"], true);
}

#[tokio::test]
async fn garbage_is_refused_in_plain_words() {
    let no_pod = question("Pod", "CREATE", &json!({"spec": {"containers": "s3cret"}}));
    let no_spec = question("Deployment", "CREATE", &json!({"spec": 5}));
    for (path, body, tells) in [
        ("/mutate-pod-nodeaffinity", String::new(), "no AdmissionReview"),
        (
            "/mutate-pod-nodeaffinity",
            "{}".to_owned(),
            "is missing (line 1, column 2)",
        ),
        ("/nvca-mutating-webhook", "[1,2".to_owned(), "no AdmissionReview"),
        ("/nvca-mutating-webhook", no_pod.clone(), "no Pod"),
        ("/validate", no_spec, "Deployment"),
        ("/validate", no_pod, "cannot be read"),
    ] {
        let (status, text) = ask(path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {text}");
        assert!(text.contains(tells), "{path}: {text}");
        assert!(!text.contains("s3cret"), "{path}: {text}");
    }
    let (status, _) = ask("/validate", vec![0_u8, 159, 146, 150]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_that_no_api_server_would_send_is_not_read() {
    let (status, _) = ask("/validate", vec![b' '; MAX_BODY + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn pages_that_would_lie_are_not_served() {
    for path in [
        "/mutate-miniservice",
        "/mutate-pod-enforcement",
        "/mutate-helm-persistent-storage",
        "/",
    ] {
        let (status, _) = ask(path, question("Pod", "CREATE", &pod())).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
}
