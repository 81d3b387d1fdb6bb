use serde_json::Map;

use super::*;
use crate::reconcile::{
    backend::{
        self,
        fixture::{dto, registration},
    },
    object::Key,
    settings::fixture::settings,
};

const NOW: u64 = 1_800_000_000_000;

fn objects(change: impl FnOnce(&mut NvcfBackendSpec)) -> Vec<Value> {
    objects_of(&settings(), change)
}

fn objects_of(settings: &Settings, change: impl FnOnce(&mut NvcfBackendSpec)) -> Vec<Value> {
    let mut spec = backend::spec(&dto(), &registration(), settings).unwrap();
    change(&mut spec);
    let certificates = Certificates::of(None, None, None, NOW).unwrap();
    let config = agent_config(&spec, settings).unwrap();
    all(Parts {
        spec: &spec,
        settings,
        config: &config,
        certificates: &certificates,
        policies: &[],
        pod_annotations: "{}",
        rollout: "",
    })
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut all = objects.iter();
    let found = all.find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

#[test]
fn every_object_is_of_an_owned_kind_has_the_labels_and_comes_once() {
    let objects = objects(|_| {});
    let keys: Vec<Key> = objects.iter().map(|it| Key::of(it).unwrap()).collect();
    let mut sorted = keys.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), keys.len());
    for object in &objects {
        assert_eq!(object["metadata"]["labels"][names::MANAGED_BY], OPERATOR, "{object}");
    }
    let last = keys.last().unwrap();
    assert_eq!(
        last.kind.name, "MutatingWebhookConfiguration",
        "nothing is asked of what is not there yet"
    );
}

#[test]
fn the_agents_pod_has_the_containers_ports_and_probes_of_the_real_one() {
    let objects = objects(|_| {});
    let pod = &find(&objects, "Deployment", "nvca")["spec"]["template"];
    let containers = pod["spec"]["containers"].as_array().unwrap();
    let names: Vec<_> = containers.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["agent", "webhook"]);
    assert_eq!(containers[0]["image"], "registry.example/nvca:2.52.1");
    assert_eq!(containers[0]["readinessProbe"]["httpGet"]["path"], "/healthz");
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["vault.hashicorp.com/role"], "nvca");
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], "nvca");
    let service = find(&objects, "Service", "nvca");
    let ports: Vec<_> = service["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["port"])
        .collect();
    assert_eq!(ports, [8000, 8443]);
    let account = find(&objects, "ServiceAccount", "nvca");
    assert_eq!(account["imagePullSecrets"], json!([{"name": "pull"}]));
}

#[test]
fn another_configuration_is_another_pod_and_the_same_is_the_same() {
    let template = |objects: &[Value]| find(objects, "Deployment", "nvca")["spec"]["template"].clone();
    let one = template(&objects(|_| {}));
    assert_eq!(one, template(&objects(|_| {})));
    let other = template(&objects(|spec| spec.cluster_config.cluster_id = "other".to_owned()));
    assert_ne!(one, other);
}

#[test]
fn what_an_object_says_shows_in_its_fingerprint_and_the_pod_has_none() {
    let deployment = |settings: &Settings| find(&objects_of(settings, |_| {}), "Deployment", "nvca").clone();
    let sum = |object: &Value| object["metadata"]["annotations"][APPLIED].as_str().unwrap().to_owned();
    let selected = Settings {
        node_selector: Some(("pool".to_owned(), "system".to_owned())),
        ..settings()
    };
    let (with, without) = (deployment(&selected), deployment(&settings()));
    assert_ne!(sum(&with), sum(&without));
    assert_eq!(sum(&without), sum(&deployment(&settings())));
    let pod = &without["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(pod[APPLIED], Value::Null, "an object's fingerprint rolls no pod out");
}

#[test]
fn the_agent_reads_what_it_is_told() {
    let objects = objects(|_| {});
    let text = &find(&objects, "ConfigMap", "agent-config")["data"]["config.yaml"];
    let config: AgentConfig = serde_saphyr::from_str(text.as_str().unwrap()).unwrap();
    assert!(config.has("KAIScheduler") && config.has("SelfHosted") && !config.has("DynamicGPUDiscovery"));
    assert_eq!(config.cluster.id, registration().cluster_id.to_string());
    assert_eq!(config.agent.sis_url, names::DEFAULT_SIS_URL);
    let yaml: Map<String, Value> = serde_saphyr::from_str(text.as_str().unwrap()).unwrap();
    assert!(yaml["agent"]["icmsurl"].is_string() && yaml["agent"]["NATSURL"].is_string());
    assert!(yaml["cluster"]["ncaid"].is_string());
}

#[test]
fn the_agent_is_told_the_gpus_that_the_chart_lists() {
    let objects = objects(|spec| {
        spec.cluster_config.gpu_discovery.fixed = Some(json!({"gpus": [{"name": "H100", "capacity": 8}]}));
    });
    let text = &find(&objects, "ConfigMap", "agent-config")["data"]["config.yaml"];
    let config: AgentConfig = serde_saphyr::from_str(text.as_str().unwrap()).unwrap();
    assert_eq!(config.agent.static_gpus[0].capacity, Some(8));
}

#[test]
fn with_a_secret_of_its_own_the_agent_is_not_injected() {
    let settings = Settings {
        agent_secret: Some("tokens".to_owned()),
        ..settings()
    };
    let objects = objects_of(&settings, |_| {});
    let template = &find(&objects, "Deployment", "nvca")["spec"]["template"];
    let annotations = template["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations.keys().all(|key| !key.contains("vault")), "{annotations:?}");
    let secret = json!({"name": "secrets", "secret": {"secretName": "tokens"}});
    assert!(template["spec"]["volumes"].as_array().unwrap().contains(&secret));
    let mount = &template["spec"]["containers"][0]["volumeMounts"][1];
    assert_eq!(
        *mount,
        json!({"name": "secrets", "mountPath": "/home/app/vault", "readOnly": true})
    );
}
