//! What goes and what stays, with an API server that is a map.

use std::{collections::BTreeMap, sync::Arc};

use http::{Method, Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::Value;

use super::*;

/// Namespaces and nodes, by name; it has nothing else.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<BTreeMap<String, Value>>>);

impl Cluster {
    fn with(self, path: &str, metadata: &Value) -> Self {
        let mut object = json!({"metadata": metadata});
        object["metadata"]["name"] = json!(path.rsplit('/').next());
        self.0.lock().insert(format!("/api/v1/{path}"), object);
        self
    }

    fn namespace(self, name: &str) -> Self {
        let labels = json!({names::WORKLOAD_INSTANCE_TYPE: "miniservice"});
        self.with(&format!("namespaces/{name}"), &json!({"labels": labels}))
    }

    /// With the label of the instance type, which that manager has set.
    fn node(self, name: &str, manager: &str) -> Self {
        let labels = json!({(format!("f:{INSTANCE_TYPE}")): {}});
        let entries = json!([
            {"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}}},
            {"manager": manager, "operation": "Apply", "fieldsV1": {"f:metadata": {"f:labels": labels}}},
        ]);
        let metadata = json!({"labels": {INSTANCE_TYPE: "NCP.GPU.H100"}, "managedFields": entries});
        self.with(&format!("nodes/{name}"), &metadata)
    }

    fn label_of(&self, name: &str) -> Option<String> {
        let objects = self.0.lock();
        let label = &objects[&format!("/api/v1/nodes/{name}")]["metadata"]["labels"][INSTANCE_TYPE];
        label.as_str().map(str::to_owned)
    }

    fn names(&self) -> Vec<String> {
        self.0
            .lock()
            .keys()
            .map(|path| path["/api/v1/".len()..].to_owned())
            .collect()
    }

    fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (code, answer) = cluster.answer(request.method(), request.uri().path());
            let answer = Response::builder()
                .status(code)
                .body(Body::from(answer.to_string().into_bytes()));
            async move { answer }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str) -> (u16, Value) {
        let mut objects = self.0.lock();
        let failure = |code: u16, reason: &str| {
            let status = json!({"status": "Failure", "code": code, "reason": reason, "message": "m"});
            (code, status)
        };
        if path == "/api/v1/namespaces" || path == "/api/v1/nodes" {
            let folder = format!("{path}/");
            let items = objects.iter().filter(|(path, _)| path.starts_with(&folder));
            let items: Vec<&Value> = items.map(|(_, object)| object).collect();
            return (200, json!({"metadata": {}, "items": items}));
        }
        let Some(object) = objects.get_mut(path) else {
            return failure(404, "NotFound");
        };
        if method == Method::DELETE {
            if path.ends_with("/sr-kept") {
                return failure(403, "Forbidden");
            }
            return (200, objects.remove(path).unwrap());
        }
        if method == Method::PATCH {
            object["metadata"]["labels"] = json!({});
        }
        (200, object.clone())
    }

    async fn tear_down(&self) -> Report {
        let down = Teardown {
            client: self.client(),
            drain: Duration::from_mins(1),
        };
        down.run(&mut Silent).await.unwrap()
    }
}

struct Silent;

impl Progress for Silent {
    async fn tell(&mut self, _message: String) {}
}

#[tokio::test]
async fn a_namespace_goes_that_was_made_for_workloads_and_not_one_that_somebody_labelled() {
    let cluster = Cluster::default().with("namespaces/nvca-system", &json!({}));
    let cluster = ["sr-1", "default", "kube-system", "theirs", "nvcf-backend"]
        .into_iter()
        .fold(cluster, Cluster::namespace);
    let report = cluster.tear_down().await;
    assert_eq!(report, Report::default());
    let theirs = ["namespaces/default", "namespaces/kube-system", "namespaces/theirs"];
    assert_eq!(cluster.names(), theirs);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_may_not_be_deleted_is_left_and_told() {
    let cluster = Cluster::default().namespace("sr-kept").namespace("sr-1");
    let report = cluster.tear_down().await;
    assert_eq!(report.left, ["Namespace sr-kept (its deletion is forbidden)"]);
    assert_eq!(cluster.names(), ["namespaces/sr-kept"]);
}

#[tokio::test]
async fn a_node_loses_the_label_that_the_agent_set_and_keeps_the_one_that_people_set() {
    let cluster = Cluster::default()
        .node("found", names::AGENT)
        .node("listed", "kubectl-label");
    assert_eq!(cluster.tear_down().await, Report::default());
    assert_eq!(cluster.label_of("found"), None);
    assert_eq!(cluster.label_of("listed").as_deref(), Some("NCP.GPU.H100"));
}
