//! A scheduler in this process, and what kube-scheduler would say to it.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
};
use berth_runtime::{
    BuildInfo, Outcome, Readiness, Shutdown,
    announce::Addresses,
    args::parse_args_from,
    process::{Context, StartError},
    telemetry::LogLevel,
};
use berth_scheduler::{
    app::{self, Bound},
    args::ENV_PREFIX,
    binder::{Binder, ReserveOnly},
    config::Config,
};
use berth_testkit::eventually;
use http::Request;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tower::ServiceExt as _;

/// Far longer than anything takes, on a machine that also compiles.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Scheduler {
    router: Router,
    pub(crate) addresses: Addresses,
    pub(crate) readiness: Readiness,
    shutdown: Shutdown,
    ended: JoinHandle<Result<Outcome, StartError>>,
}

impl Scheduler {
    /// Runs with short graces, and waits for nothing.
    pub(crate) fn start(targets: &[String], more: &[&str]) -> Self {
        Self::start_with(targets, more, Arc::new(ReserveOnly))
    }

    pub(crate) fn start_with(targets: &[String], more: &[&str], binder: Arc<dyn Binder>) -> Self {
        let (bound, shutdown) = build(targets, more, binder);
        Self {
            router: bound.router(),
            addresses: bound.addresses(),
            readiness: bound.readiness(),
            shutdown,
            ended: berth_testkit::spawn(bound.run()),
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// The nodes that take the pod.
    pub(crate) async fn filter(&self, pod: &Pod, nodes: &[&str]) -> Vec<String> {
        let answer = self.post("/filter", &pod.args(nodes)).await;
        assert_eq!(answer["Error"], "", "{answer}");
        serde_json::from_value(answer["NodeNames"].clone()).unwrap()
    }

    /// The node with the best score.
    pub(crate) async fn best(&self, pod: &Pod, nodes: &[&str]) -> String {
        let scores = self.post("/prioritize", &pod.args(nodes)).await;
        let best = scores
            .as_array()
            .unwrap()
            .iter()
            .max_by_key(|it| it["Score"].as_i64())
            .unwrap();
        best["Host"].as_str().unwrap().to_owned()
    }

    /// The error, empty where it was bound.
    pub(crate) async fn bind(&self, pod: &Pod, node: &str) -> String {
        let answer = self.post("/bind", &pod.bind_args(node)).await;
        answer["Error"].as_str().unwrap().to_owned()
    }

    /// Waits until these nodes, and no others of `nodes`, take the pod.
    pub(crate) async fn until_fits(&self, pod: &Pod, nodes: &[&str], fitting: &[&str]) {
        let wait = eventually(SOON, async || {
            let fits = self.filter(pod, nodes).await;
            anyhow::ensure!(fits == fitting, "{fits:?} fit");
            Ok(())
        });
        wait.await.unwrap();
    }

    pub(crate) fn start_shutdown(&self) {
        self.shutdown.trigger("the test is over");
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(self) -> Outcome {
        self.start_shutdown();
        self.ended.await.unwrap().unwrap()
    }
}

pub(crate) fn build(targets: &[String], more: &[&str], binder: Arc<dyn Binder>) -> (Bound, Shutdown) {
    let nodes = targets.join(",");
    let mut args = vec![
        "berth-scheduler",
        "--nodes",
        &nodes,
        "--listen",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    if !more.contains(&"--unreachable-after") {
        args.extend(["--unreachable-after", "300ms"]);
    }
    args.extend(more);
    let args = parse_args_from(ENV_PREFIX, args.into_iter().map(Into::into)).unwrap();
    let log_level = LogLevel::layer("info").unwrap().1;
    let context = Context::new(BuildInfo::of("berth-scheduler"), log_level);
    let shutdown = context.shutdown.clone();
    (
        app::build_with(Config::from_args(args).unwrap(), context, binder).unwrap(),
        shutdown,
    )
}

/// One request and its whole answer, over a connection that stays open.
pub(crate) async fn http(stream: &mut TcpStream, head: &str, body: &str) -> (u16, String) {
    http_with(stream, head, "Host: x", body).await
}

pub(crate) async fn http_with(stream: &mut TcpStream, head: &str, header: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{head} HTTP/1.1\r\n{header}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await.unwrap();
        answer.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        if body.len() >= length.parse().unwrap() || n == 0 {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return (status, body.to_owned());
        }
    }
}

/// A function pod, as far as anybody looks.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    gpus: u32,
    model: Option<&'static str>,
}

impl Pod {
    pub(crate) fn new(uid: &str, gpus: u32) -> Self {
        Self {
            uid: uid.to_owned(),
            gpus,
            model: None,
        }
    }

    /// Only this model will do.
    pub(crate) fn on(self, model: &'static str) -> Self {
        Self {
            model: Some(model),
            ..self
        }
    }

    pub(crate) fn args(&self, nodes: &[&str]) -> Value {
        let requests = json!({"cpu": "1", "nvidia.com/gpu": self.gpus.to_string()});
        let instance_type = self.model.map(|model| format!("NCP.GPU.{model}_{}x", self.gpus));
        let annotations = instance_type.map(|name| json!({"nvcf.nvidia.io/instance-type-name": name}));
        let name = format!("pod-{}", self.uid);
        json!({
            "Pod": {
                "metadata": {"name": name, "namespace": "nvcf-backend", "uid": self.uid, "annotations": annotations},
                "spec": {"containers": [{"name": "inference", "resources": {"requests": requests}}]},
            },
            "Nodes": null,
            "NodeNames": nodes,
        })
    }

    pub(crate) fn bind_args(&self, node: &str) -> Value {
        json!({"PodName": format!("pod-{}", self.uid), "PodNamespace": "nvcf-backend", "PodUID": self.uid, "Node": node})
    }
}
