use std::collections::BTreeMap;

use berth_runtime::SystemClock;
use http::{Method, Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::client::Body;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use super::*;
use crate::reconcile::{definitions, manifest, plan::Wanted, settings::fixture::settings};

/// What the API server was asked: method, path, body.
type Asked = Arc<Mutex<Vec<(Method, String, Value)>>>;

/// An API server that says this to whatever it is asked, and what it was asked.
fn server(answer: impl Fn(&Method, &str, &Value) -> (u16, Value) + Clone + Send + 'static) -> (Client, Asked) {
    let asked = Asked::default();
    let told = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (asked, answer) = (Arc::clone(&asked), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
            let path = parts.uri.path().to_owned();
            let (code, said) = answer(&parts.method, &path, &body);
            asked.lock().push((parts.method, path, body));
            let response = Response::builder()
                .status(code)
                .body(Body::from(said.to_string().into_bytes()));
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(response?)
        }
    });
    (Client::new(service, names::OPERATOR_NAMESPACE), told)
}

fn controller(client: Client) -> Controller {
    let clock = SystemClock::shared();
    Controller {
        settings: settings(),
        live: watch::channel(None).1,
        health: watch::channel(Health::default()).1,
        clock: clock.clone(),
        metrics: Metrics::register(&mut Registry::default()),
        events: Events::new(client.clone(), names::OPERATOR_NAMESPACE, clock),
        teardown: Teardown {
            client: client.clone(),
            drain: Duration::ZERO,
        },
        memory: Memory::default(),
        client,
    }
}

fn backend(name: &str) -> NvcfBackend {
    let mut backend = NvcfBackend::new(name, NvcfBackendSpec::default());
    backend.metadata.finalizers = Some(vec![names::BACKEND_FINALIZER.to_owned()]);
    backend
}

#[tokio::test]
async fn a_deleted_backend_beside_the_clusters_own_is_let_go_and_takes_nothing_down() {
    let (client, asked) = server(|_, path, body| {
        let is_backend = path.contains("/nvcfbackends/");
        (200, if is_backend { json!(backend("a")) } else { body.clone() })
    });
    let mut controller = controller(client);
    let mut other = backend("a");
    other.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let backends = [other, backend("c")].map(|it| (it.name_any(), it));
    let live = Live {
        backends: BTreeMap::from(backends),
        ..Live::default()
    };
    controller.round(&live).await;
    assert_eq!(controller.memory.before.retired, None);
    let asked = asked.lock();
    assert!(asked.iter().all(|(method, ..)| method != Method::DELETE), "{asked:?}");
    let freed = json!({"metadata": {"finalizers": []}});
    let is_freed = |(_, path, body): &(Method, String, Value)| path.ends_with("/nvcfbackends/a") && *body == freed;
    assert!(asked.iter().any(is_freed), "{asked:?}");
    let is_told = |(_, path, body): &(Method, String, Value)| {
        path.ends_with("/events") && body["reason"] == "Uninstall" && body["involvedObject"]["name"] == "a"
    };
    assert!(asked.iter().any(is_told), "{asked:?}");
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "m"});
    (code, status)
}

#[tokio::test]
async fn a_definition_is_applied_also_where_the_backend_cannot_be_written_without_it() {
    let (client, asked) = server(|_, path, body| {
        if path.contains("/nvcfbackends") {
            return refusal(404, "NotFound");
        }
        (200, body.clone())
    });
    let mut controller = controller(client);
    let wanted = Wanted {
        name: "c".to_owned(),
        spec: NvcfBackendSpec::default(),
        is_stale: true,
    };
    let definitions = manifest::definitions().into_iter();
    let plan = Plan {
        backend: Some(wanted),
        apply: definitions.map(|it| (Key::of(&it).unwrap(), it)).collect(),
        ..Plan::default()
    };
    let error = controller.bring_up_to_date(&Live::default(), &plan).await.unwrap_err();
    assert!(error.is_not_found(), "the loop tries on: {error}");
    let asked = asked.lock();
    let is_applied = |(_, path, _): &(Method, String, Value)| {
        path.ends_with("/customresourcedefinitions/nvcfbackends.nvcf.nvidia.io")
    };
    assert!(asked.iter().any(is_applied), "{asked:?}");
}

#[tokio::test]
async fn definitions_that_are_missing_are_brought_whatever_fails_first_and_others_are_left_as_they_are() {
    let is_away = Mutex::new(true);
    let is_away = Arc::new(is_away);
    let (client, asked) = server(move |method, path, body| match *method {
        _ if std::mem::take(&mut *is_away.lock()) => refusal(503, "ServiceUnavailable"),
        Method::GET if path.ends_with("nvcfbackends.nvcf.nvidia.io") => refusal(404, "NotFound"),
        Method::GET => (200, manifest::definitions().remove(0)),
        _ => (200, body.clone()),
    });
    definitions::bring(&client).await;
    let asked = asked.lock();
    let written: Vec<&(Method, String, Value)> = asked.iter().filter(|(method, ..)| *method != Method::GET).collect();
    let [(method, _, body)] = written[..] else {
        panic!("{written:?}")
    };
    assert_eq!((method, body), (&Method::PATCH, &manifest::definitions()[0]));
}
