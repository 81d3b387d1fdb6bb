use axum::body::Body;
use axum::http::HeaderMap;
use berth_testkit::http;
use serde_json::json;
use tower::ServiceExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::identity::ClientIdentity;
use crate::{Block, BuildInfo, Shutdown, SystemClock, metrics};

struct Running {
    url: String,
    stop: CancellationToken,
    tasks: Tasks,
    journal: Block,
    readiness: Readiness,
    /// The log level can be changed as long as its subscriber lives.
    _subscriber: Box<dyn tracing::Subscriber>,
}

fn state() -> (AdminState, Box<dyn tracing::Subscriber>) {
    let (filter, log_level) = LogLevel::layer("info").unwrap();
    let state = AdminState {
        registry: Arc::new(metrics::registry(BuildInfo::of("test"))),
        readiness: Readiness::new(SystemClock::shared()),
        tasks: Tasks::new(Shutdown::new()),
        log_level,
        config: config_page(&json!({"node_name": "a"})),
    };
    (state, Box::new(tracing_subscriber::registry().with(filter)))
}

fn start(more: Router) -> Running {
    let (state, subscriber) = state();
    let (tasks, readiness) = (state.tasks.clone(), state.readiness.clone());
    let journal = readiness.register("journal");
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", admin.bound_addr());
    let stop = CancellationToken::new();
    admin.serve(state, more, &stop);
    Running {
        url,
        stop,
        tasks,
        journal,
        readiness,
        _subscriber: subscriber,
    }
}

impl Running {
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = http::get(&format!("{}{path}", self.url)).await.unwrap();
        (answer.status, answer.body)
    }

    async fn put(&self, path: &str, body: &str) -> (u16, String) {
        let answer = http::request("PUT", &format!("{}{path}", self.url), body)
            .await
            .unwrap();
        (answer.status, answer.body)
    }
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let admin = start(Router::new());
    let answer = http::get(&format!("{}/metrics", admin.url)).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        answer.head.contains("application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    assert!(
        answer.body.contains("berth_build_info{") && answer.body.ends_with("# EOF\n"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn readyz_lists_what_is_pending_and_livez_does_not_care() {
    let admin = start(Router::new());
    let (status, body) = admin.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.starts_with("journal: starting (for "), "{body}");
    assert_eq!(admin.get("/livez").await, (200, "ok\n".to_owned()));
    admin.journal.ready();
    assert_eq!(admin.get("/readyz").await, (200, "ok\n".to_owned()));
    admin.readiness.shut_down();
    let (status, body) = admin.get("/readyz").await;
    assert!(status == 503 && body.contains("shutting down"), "{body}");
    assert_eq!(admin.get("/livez").await.0, 200);
}

#[tokio::test]
async fn the_log_level_is_shown_changed_and_a_mistake_refused() {
    let admin = start(Router::new());
    assert_eq!(admin.get("/log-level").await, (200, "info\n".to_owned()));
    assert_eq!(admin.put("/log-level", "warn,berth_ledger=trace\n").await.0, 204);
    let (_, filter) = admin.get("/log-level").await;
    assert!(
        filter.contains("berth_ledger=trace") && filter.contains("warn"),
        "{filter}"
    );
    let (status, body) = admin.put("/log-level", "verbose").await;
    assert_eq!(status, 400);
    assert!(body.contains("`verbose` is no log filter"), "{body}");
    assert_eq!(admin.get("/log-level").await.1, filter);
    assert_eq!(admin.put("/log-level", &"x".repeat(MAX_BODY_BYTES + 1)).await.0, 413);
}

#[tokio::test]
async fn debug_pages_show_the_configuration_and_the_tasks() {
    let admin = start(Router::new());
    assert_eq!(
        admin.get("/debug/config").await,
        (200, r#"{"node_name":"a"}"#.to_owned())
    );
    assert_eq!(
        admin.get("/debug/tasks").await,
        (200, r#"["accept-tcp","admin"]"#.to_owned())
    );
    assert_eq!(admin.get("/nowhere").await.0, 404);
}

#[tokio::test]
async fn a_program_adds_pages_of_its_own() {
    let admin = start(Router::new().route("/debug/ledger", get(async || "book")));
    assert_eq!(admin.get("/debug/ledger").await, (200, "book".to_owned()));
}

#[tokio::test]
async fn the_network_reads_metrics_and_health_and_nothing_else() {
    let (state, _subscriber) = state();
    let router = router(state, Router::new().route("/debug/ledger", get(async || "book")));
    let ask = async |method: Method, path: &str, remote: &str| {
        let peer = PeerInfo::new(ClientIdentity::Anonymous, Some(remote.parse().unwrap()));
        let mut request = Request::new(Body::from("warn"));
        (*request.method_mut(), *request.uri_mut()) = (method, path.parse().unwrap());
        *request.headers_mut() = HeaderMap::new();
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let far = "192.0.2.7:4000";
    for (method, path, expected) in [
        (Method::GET, "/metrics", 200),
        (Method::GET, "/livez", 200),
        (Method::GET, "/readyz", 200),
        (Method::GET, "/debug/config", 403),
        (Method::GET, "/debug/tasks", 403),
        (Method::GET, "/debug/ledger", 403),
        (Method::PUT, "/log-level", 403),
        (Method::POST, "/metrics", 403),
    ] {
        assert_eq!(ask(method.clone(), path, far).await, expected, "{method} {path}");
    }
    assert_eq!(ask(Method::PUT, "/log-level", "127.0.0.1:4000").await, 204);
    assert_eq!(ask(Method::PUT, "/log-level", "[::ffff:127.0.0.1]:4000").await, 204);
    assert_eq!(ask(Method::GET, "/debug/ledger", "[::1]:4000").await, 200);
}

#[tokio::test]
async fn stopping_ends_every_task_of_the_endpoint() {
    let admin = start(Router::new());
    admin.get("/livez").await;
    admin.stop.cancel();
    admin.tasks.join().await;
    http::get(&format!("{}/livez", admin.url)).await.unwrap_err();
}

#[tokio::test]
async fn a_taken_address_is_an_error() {
    let taken = Admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    Admin::bind(taken.bound_addr()).unwrap_err();
}
