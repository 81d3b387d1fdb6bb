use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use berth_placement::Health;
use berth_runtime::ManualClock;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{
    decisions::Outcome,
    testing::{cluster, extender, report},
};

const LIMITS: Limits = Limits {
    max_body_bytes: 64 << 10,
    max_requests: 4,
    filter_top: Top(64),
    body_deadline: Duration::from_secs(5),
};

/// What a real kube-scheduler sent.
macro_rules! captured {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../crates/kube-api/testdata/extender/",
            $name
        ))
    };
}

/// What we answer.
macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/", $name))
    };
}

/// `gpu-0000` is free, `gpu-0001` is full.
fn two_nodes() -> Arc<Extender> {
    let clock = ManualClock::at_unix_ms(1_800_000_000_000);
    extender(
        cluster(&clock, [report("gpu-0000", 0), report("gpu-0001", 8)]),
        &clock,
        LIMITS,
    )
}

async fn send(extender: &Arc<Extender>, request: Request<Body>) -> (StatusCode, String) {
    let response = router(Arc::clone(extender)).oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.into()).unwrap())
}

async fn post(extender: &Arc<Extender>, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    send(extender, request.body(body.into()).unwrap()).await
}

async fn post_json(extender: &Arc<Extender>, path: &str, body: &Value) -> Value {
    let (status, answer) = post(extender, path, body.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

/// A pod in the form that kube-scheduler sends.
fn pod(gpus: u32) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns", "uid": "uid-1"},
           "spec": {"containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": gpus.to_string()}}}]}})
}

#[tokio::test]
async fn captured_requests_get_exactly_these_answers() {
    let extender = two_nodes();
    for (path, request, answer) in [
        (
            "/filter",
            captured!("cache/filter-1.json"),
            golden!("cache/filter-1.answer.json"),
        ),
        (
            "/filter",
            captured!("cache/filter-2.json"),
            golden!("cache/filter-2.answer.json"),
        ),
        (
            "/filter",
            captured!("cache/filter-3.json"),
            golden!("cache/filter-3.answer.json"),
        ),
        (
            "/prioritize",
            captured!("cache/prioritize-1.json"),
            golden!("cache/prioritize-1.answer.json"),
        ),
        (
            "/filter",
            captured!("nocache/filter-2.json"),
            golden!("nocache/filter-2.answer.json"),
        ),
        (
            "/prioritize",
            captured!("nocache/prioritize-1.json"),
            golden!("nocache/prioritize-1.answer.json"),
        ),
        (
            "/bind",
            captured!("cache/bind-1.json"),
            golden!("cache/bind-1.answer.json"),
        ),
        (
            "/bind",
            captured!("nocache/bind-1.json"),
            golden!("nocache/bind-1.answer.json"),
        ),
    ] {
        let (status, body) = post(&extender, path, request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, answer.trim_end(), "{path}");
    }
}

#[tokio::test]
async fn whole_nodes_are_answered_with_the_same_whole_nodes() {
    let request = captured!("nocache/filter-1.json");
    let (_, body) = post(&two_nodes(), "/filter", request).await;
    let (sent, answer): (Value, Value) = (
        serde_json::from_str(request).unwrap(),
        serde_json::from_str(&body).unwrap(),
    );
    assert_eq!(answer["NodeNames"], Value::Null);
    let offered = sent["Nodes"]["items"].as_array().unwrap();
    let fitting: Vec<_> = offered
        .iter()
        .filter(|node| node["metadata"]["name"] == "gpu-0000")
        .collect();
    assert_eq!(
        answer["Nodes"]["items"].as_array().unwrap().iter().collect::<Vec<_>>(),
        fitting
    );
    assert!(
        answer["FailedNodes"]["gpu-0001"]
            .as_str()
            .unwrap()
            .starts_with("DeviceHeld: ")
    );
}

#[tokio::test]
async fn nodes_where_no_eviction_helps_are_told_apart() {
    let clock = ManualClock::at_unix_ms(0);
    let mut broken = report("broken", 0);
    broken
        .state
        .devices
        .iter_mut()
        .for_each(|device| device.health = Health::Unhealthy);
    let mut other = report("other", 0);
    other
        .state
        .devices
        .iter_mut()
        .for_each(|device| device.model = "L40S".parse().unwrap());
    let extender = extender(cluster(&clock, [report("full", 8), broken, other]), &clock, LIMITS);
    let mut pod = pod(1);
    pod["metadata"]["annotations"] = json!({"nvcf.nvidia.io/instance-type-name": "NCP.GPU.H100_1x"});
    let names = ["full", "broken", "other", "nobody", "Not A Name"];
    let answer = post_json(&extender, "/filter", &json!({"Pod": pod, "NodeNames": names})).await;
    assert_eq!(answer["NodeNames"], json!([]));
    let keys = |map: &str| answer[map].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys("FailedNodes"), ["full"]);
    assert_eq!(
        keys("FailedAndUnresolvableNodes"),
        ["Not A Name", "broken", "nobody", "other"]
    );
    let why = |node: &str| answer["FailedAndUnresolvableNodes"][node].as_str().unwrap().to_owned();
    assert!(why("other").starts_with("ModelMismatch: "), "{}", why("other"));
    assert!(why("broken").starts_with("DeviceUnhealthy: "), "{}", why("broken"));
    assert!(why("nobody").starts_with("UnknownNode: "), "{}", why("nobody"));
    assert_eq!(extender.decisions.latest()[0].outcome, Outcome::NoFit);
}

#[tokio::test]
async fn a_pod_without_gpus_passes_everywhere_and_is_preferred_nowhere() {
    let extender = two_nodes();
    let request = json!({"Pod": {"metadata": {"name": "p"}}, "NodeNames": ["gpu-0001", "unknown"]});
    let answer = post_json(&extender, "/filter", &request).await;
    assert_eq!(answer["NodeNames"], json!(["gpu-0001", "unknown"]));
    let scores = post_json(&extender, "/prioritize", &request).await;
    assert_eq!(
        scores,
        json!([{"Host": "gpu-0001", "Score": 0}, {"Host": "unknown", "Score": 0}])
    );
    assert!(extender.decisions.latest().is_empty(), "nothing was decided");
    let mut named = pod(0);
    named["metadata"]["uid"] = "cpu-only".into();
    post_json(&extender, "/filter", &json!({"Pod": named, "NodeNames": ["gpu-0001"]})).await;
    let bind = json!({"PodName": "p", "PodNamespace": "ns", "PodUID": "cpu-only", "Node": "gpu-0001"});
    assert_eq!(
        post_json(&extender, "/bind", &bind).await,
        json!({"Error": ""}),
        "nothing to reserve"
    );
}

/// `gpu-0000` is free, `gpu-0001` half full and therefore better, `gpu-0002` full.
fn three_nodes(filter_top: Top) -> Arc<Extender> {
    let clock = ManualClock::at_unix_ms(1_800_000_000_000);
    let nodes = [report("gpu-0000", 0), report("gpu-0001", 4), report("gpu-0002", 8)];
    extender(cluster(&clock, nodes), &clock, Limits { filter_top, ..LIMITS })
}

#[tokio::test]
async fn filter_leaves_the_best_nodes_only_and_refuses_none_for_it() {
    let names = ["gpu-0000", "gpu-0001", "gpu-0002"];
    let asked = |gpus: u32| json!({"Pod": pod(gpus), "NodeNames": names});
    let (all, best, full) = (&names[..2], &names[1..2], &names[2..]);
    for (by_default, path, left, refused) in [
        (0, "/filter", all, full),
        (2, "/filter", all, full),
        // The choice is made.
        (1, "/filter", best, &[]),
        (64, "/filter?top=1", best, &[]),
        (1, "/filter?top=0", all, full),
    ] {
        let extender = three_nodes(by_default.into());
        let answer = post_json(&extender, path, &asked(1)).await;
        assert_eq!(answer["NodeNames"], json!(left), "{by_default} {path}");
        let failed = answer["FailedNodes"].as_object().unwrap();
        assert_eq!(failed.keys().collect::<Vec<_>>(), refused, "{by_default} {path}");
        let scores = json!({"Pod": pod(1), "NodeNames": left});
        let scores = post_json(&extender, "/prioritize", &scores).await;
        let best = scores.as_array().unwrap().iter().max_by_key(|it| it["Score"].as_i64());
        assert_eq!(best.unwrap()["Host"], "gpu-0001");
    }
    let nowhere = post_json(&three_nodes(1.into()), "/filter", &asked(16)).await;
    let told = |what: &str| nowhere[what].as_object().unwrap().len();
    assert_eq!(told("FailedNodes") + told("FailedAndUnresolvableNodes"), 3, "{nowhere}");
}

#[tokio::test]
async fn a_query_that_is_not_understood_is_refused() {
    let body = || json!({"Pod": pod(1), "NodeNames": ["gpu-0000"]}).to_string();
    for query in ["top=best", "top=-1", "tops=1", "top=70000"] {
        let (status, answer) = post(&two_nodes(), &format!("/filter?{query}"), body()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(
            answer.contains("InvalidQuery: ") && answer.contains("?top=NUMBER"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn filter_reserves_nothing_however_often_it_is_asked() {
    let extender = two_nodes();
    let request = json!({"Pod": pod(8), "NodeNames": ["gpu-0000"]});
    for _ in 0..3 {
        let answer = post_json(&extender, "/filter", &request).await;
        assert_eq!(answer["NodeNames"], json!(["gpu-0000"]));
    }
}

#[tokio::test]
async fn a_decision_says_who_where_and_why() {
    let extender = two_nodes();
    post(&extender, "/filter", captured!("cache/filter-1.json")).await;
    post(&extender, "/prioritize", captured!("cache/prioritize-1.json")).await;
    let decision = extender.decisions.latest().remove(0);
    assert_eq!(decision.pod.to_string(), "nvcf-backend/fn-cache-1");
    assert_eq!(decision.asks, "8 GPU (H100)");
    assert_eq!((decision.candidates, decision.fitting), (2, 1));
    assert_eq!(decision.ranked, ["gpu-0000"]);
    assert_eq!(decision.devices.len(), 8);
    assert_eq!(decision.refused, [("DeviceHeld", 1)].into());
    assert!(
        decision.examples[0].starts_with("gpu-0001: DeviceHeld: "),
        "{:?}",
        decision.examples
    );
    assert_eq!(decision.outcome, Outcome::Proposed);
    assert_eq!(decision.id.get_version_num(), 7);
}

#[tokio::test]
async fn malformed_bodies_are_refused_with_the_position() {
    let extender = two_nodes();
    for (body, tells) in [
        ("", "line 1 column 0"),
        ("{", "line 1 column 1"),
        ("nonsense", "line 1 column"),
        ("{\"Pod\":\n 5}", "line 2 column"),
        (
            r#"{"Pod":{"spec":{"containers":[{"resources":{"requests":{"cpu":"a lot"}}}]}}}"#,
            "quantity",
        ),
        (r#"{"NodeNames":"n"}"#, "expected a sequence"),
        (r#"{"Nodes":{"items":[5]}}"#, "line 1 column"),
        ("\u{0}\u{1}", "line 1 column 1"),
    ] {
        for path in ["/filter", "/prioritize"] {
            let (status, answer) = post(&extender, path, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
            let error = serde_json::from_str::<Value>(&answer).unwrap()["Error"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(
                error.starts_with("MalformedBody: ") && error.contains(tells),
                "{body}: {error}"
            );
        }
    }
    let (status, answer) = post(&extender, "/bind", "{\"PodUID\": 5}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer.contains("ExtenderBindingArgs") && answer.contains("line 1 column 12"),
        "{answer}"
    );
    let (status, _) = post(&extender, "/filter", vec![0xff, 0xfe, 0x00]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn senseless_requests_are_told_in_the_error_field() {
    let extender = two_nodes();
    let bad_fraction = json!({"metadata": {"name": "p", "annotations": {"gpu-fraction": "2"}}});
    let mut no_uid = pod(1);
    no_uid["metadata"]["uid"] = "".into();
    for (request, reason) in [
        (json!({"Pod": null, "NodeNames": ["n"]}), "NoPod: "),
        (json!({"NodeNames": ["n"]}), "NoPod: "),
        (json!({"Pod": pod(1), "Nodes": null, "NodeNames": null}), "NoNodes: "),
        (json!({"Pod": bad_fraction, "NodeNames": ["n"]}), "InvalidAnnotation: "),
        (json!({"Pod": pod(9999), "NodeNames": ["n"]}), "InvalidGpuCount: "),
        (json!({"Pod": no_uid, "NodeNames": ["n"]}), "InvalidPod: "),
    ] {
        let answer = post_json(&extender, "/filter", &request).await;
        let error = answer["Error"].as_str().unwrap();
        assert!(error.starts_with(reason), "{error}");
        let (status, answer) = post(&extender, "/prioritize", request.to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "prioritize has no field for an error");
        assert!(answer.contains(reason), "{answer}");
    }
}

#[tokio::test]
async fn empty_lists_get_empty_answers() {
    let extender = two_nodes();
    let answer = post_json(&extender, "/filter", &json!({"Pod": pod(1), "NodeNames": []})).await;
    assert_eq!((&answer["NodeNames"], &answer["Error"]), (&json!([]), &json!("")));
    let answer = post_json(&extender, "/filter", &json!({"Pod": pod(1), "Nodes": {"items": null}})).await;
    assert_eq!(answer["Nodes"], json!({"metadata": {}, "items": []}));
    assert_eq!(
        post_json(&extender, "/prioritize", &json!({"Pod": pod(1), "NodeNames": []})).await,
        json!([])
    );
}

#[tokio::test]
async fn bad_binds_are_told_in_the_error_field() {
    let extender = two_nodes();
    post_json(&extender, "/filter", &json!({"Pod": pod(1), "NodeNames": ["gpu-0000"]})).await;
    let bind =
        |uid: &str, name: &str, node: &str| json!({"PodName": name, "PodNamespace": "ns", "PodUID": uid, "Node": node});
    for (request, reason) in [
        (json!({}), "InvalidName: "),
        (bind("", "p", "gpu-0000"), "InvalidName: "),
        (bind("uid-1", "p", "Not A Node"), "InvalidName: "),
        (bind("unknown", "p", "gpu-0000"), "UnknownPod: "),
        (bind("uid-1", "other", "gpu-0000"), "OtherPod: "),
        (bind("uid-1", "p", "nobody"), "UnknownNode: "),
        (bind("uid-1", "p", "gpu-0001"), "DeviceHeld: "),
    ] {
        let answer = post_json(&extender, "/bind", &request).await;
        let error = answer["Error"].as_str().unwrap();
        assert!(error.starts_with(reason), "{request}: {error}");
    }
    extender.reserver.refuse.cancel();
    let answer = post_json(&extender, "/bind", &bind("uid-1", "p", "gpu-0000")).await;
    assert!(answer["Error"].as_str().unwrap().starts_with("Draining: "));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_what_to_do() {
    let body = format!("{{\"NodeNames\":[{:?}]}}", "x".repeat(LIMITS.max_body_bytes));
    let (status, answer) = post(&two_nodes(), "/filter", body).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        answer.contains("BodyTooLarge: ") && answer.contains("nodeCacheCapable"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up_and_its_slot_is_given_back() {
    let clock = ManualClock::at_unix_ms(0);
    let body_deadline = Duration::from_millis(200);
    let limits = Limits {
        body_deadline,
        ..LIMITS
    };
    let extender = extender(cluster(&clock, [report("gpu-0000", 0)]), &clock, limits);
    let app = router(Arc::clone(&extender));
    let stuck = || {
        let body = Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        let request = Request::post("/filter").body(body).unwrap();
        berth_testkit::spawn(app.clone().oneshot(request))
    };
    let all: Vec<_> = (0..LIMITS.max_requests).map(|_| stuck()).collect();
    tokio::task::yield_now().await;
    let one_more = Request::post("/filter").body(Body::from("{}")).unwrap();
    let response = app.clone().oneshot(one_more).await.unwrap();
    assert_eq!(
        response.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "every slot is taken"
    );
    for stuck in all {
        assert_eq!(stuck.await.unwrap().unwrap().status(), StatusCode::REQUEST_TIMEOUT);
    }
    let answer = post_json(&extender, "/filter", &json!({"Pod": pod(1), "NodeNames": []})).await;
    assert_eq!(answer["Error"], "");
}

#[tokio::test]
async fn other_paths_and_methods_are_told_so() {
    let extender = two_nodes();
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let (status, help) = send(&extender, get("/")).await;
    assert!(status.is_success() && help.contains("POST /filter"));
    assert_eq!(send(&extender, get("/filter")).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(send(&extender, get("/elsewhere")).await.0, StatusCode::NOT_FOUND);
}

const VERBS: [&str; 4] = ["/filter", "/prioritize", "/preempt", "/bind"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_and_no_damage_panic(
        at in 0_usize..8000, length in 0_usize..60, put in prop::collection::vec(any::<u8>(), 0..12), verb in 0_usize..4,
    ) {
        let mut body = captured!("nocache/filter-1.json").as_bytes().to_vec();
        let start = at.min(body.len());
        let end = (start + length).min(body.len());
        body.splice(start..end, put);
        check(VERBS[verb], body);
    }

    #[test]
    fn no_json_panics(value in json_value(), verb in 0_usize..4) {
        let keys = [
            "Pod", "Nodes", "NodeNames", "PodUID", "PodName", "Node", "NodeNameToVictims", "NodeNameToMetaVictims",
        ];
        let body: serde_json::Map<_, _> = keys.iter().map(|key| ((*key).to_owned(), value.clone())).collect();
        check(VERBS[verb], Value::from(body).to_string().into());
    }
}

/// Answers with JSON, and says what is wrong where it is not 200.
fn check(path: &str, body: Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (status, answer) = runtime.block_on(async { post(&two_nodes(), path, body).await });
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(
        status == StatusCode::OK || !answer["Error"].as_str().unwrap().is_empty(),
        "{status}"
    );
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "metadata",
        "spec",
        "containers",
        "resources",
        "requests",
        "items",
        "nvidia.com/gpu",
    ]);
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..4).prop_map(|entries| {
                entries
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}
