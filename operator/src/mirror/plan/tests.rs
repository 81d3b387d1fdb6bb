//! The plan, case by case: what is seen on the left, what comes of it on the right.

use serde_json::{Value, json};

use super::*;

const DOCKER: &str = "kubernetes.io/dockerconfigjson";

fn wanted(names: &[&str]) -> Wanted {
    Wanted {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        source: "nvca-operator".to_owned(),
        target: "nvca-system".to_owned(),
    }
}

/// A cluster, said shortly.
#[derive(Clone, Default)]
struct Cluster(Seen);

impl Cluster {
    /// The three fixed namespaces, and one that is nobody's business.
    fn new() -> Self {
        let fixed = ["nvca-operator", "nvca-system", BACKEND_NAMESPACE, "default"];
        fixed
            .into_iter()
            .fold(Self::default(), |it, name| it.namespace(&json!({"name": name})))
    }

    fn namespace(mut self, metadata: &Value) -> Self {
        let namespace = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        self.0.namespaces.push(Arc::new(namespace));
        self
    }

    fn workload(self, name: &str) -> Self {
        self.namespace(&json!({"name": name, "labels": {WORKLOAD_INSTANCE_TYPE: "pod_spec"}}))
    }

    fn secret(mut self, place: (&str, &str), more: &Value) -> Self {
        let mut secret = json!({"type": DOCKER, "data": {".dockerconfigjson": "e30="}});
        secret["metadata"] = json!({"namespace": place.0, "name": place.1, "uid": "u", "resourceVersion": "7"});
        json_patch::merge(&mut secret, more);
        let secret: Secret = serde_json::from_value(secret).unwrap();
        if is_labelled(&secret.metadata) {
            let copy = json!({"metadata": secret.metadata});
            self.0.copies.push(Arc::new(serde_json::from_value(copy).unwrap()));
        }
        self.0.secrets.push(Arc::new(secret));
        self
    }

    fn source(self, name: &str, more: &Value) -> Self {
        self.secret(("nvca-operator", name), more)
    }

    /// As the mirror makes it, and then some.
    fn copy(self, place: (&str, &str), more: &Value) -> Self {
        let mut copy = json!({"metadata": {"labels": {MANAGED_BY: MANAGER, ADDITIONAL_PULL_SECRET: "true"}}});
        json_patch::merge(&mut copy, more);
        self.secret(place, &copy)
    }

    fn plan(&self, names: &[&str]) -> Plan {
        plan(&wanted(names), &self.0)
    }

    /// `create ns/name`, sorted.
    fn actions(&self, names: &[&str]) -> Vec<String> {
        let word = |action: &Action| match action {
            Action::Create { .. } => "create",
            Action::Update { .. } => "update",
            Action::Replace { .. } => "replace",
            Action::Delete { .. } => "delete",
        };
        let plan = self.plan(names);
        let said = plan.actions.iter().map(|action| {
            let (namespace, name) = action.place();
            format!("{} {namespace}/{name}", word(action))
        });
        let mut said: Vec<_> = said.collect();
        said.sort();
        said
    }
}

#[test]
fn a_source_goes_to_the_target_the_backend_and_every_namespace_of_workloads_and_nowhere_else() {
    let cluster = Cluster::new().workload("sr-1").source("pull", &json!({}));
    let everywhere = [
        "create nvca-system/pull",
        "create nvcf-backend/pull",
        "create sr-1/pull",
    ];
    assert_eq!(cluster.actions(&["pull"]), everywhere);
    // A label on the source's own namespace makes it no target.
    let source = json!({"name": "nvca-operator", "labels": {WORKLOAD_INSTANCE_TYPE: "x"}});
    assert_eq!(cluster.namespace(&source).actions(&["pull"]), everywhere);
}

#[test]
fn a_target_that_is_the_source_or_the_backend_is_one_namespace() {
    let cluster = Cluster::new().source("pull", &json!({}));
    for (target, copies) in [("nvca-operator", 1), (BACKEND_NAMESPACE, 1), ("nvca-system", 2)] {
        let wanted = Wanted {
            target: target.to_owned(),
            ..wanted(&["pull"])
        };
        let plan = plan(&wanted, &cluster.0);
        assert_eq!((plan.actions.len(), plan.findings.len()), (copies, 0), "{target}");
    }
}

#[test]
fn nothing_is_done_where_everything_is_as_it_should_be() {
    let cluster = Cluster::new().source("pull", &json!({}));
    let cluster = cluster.copy(
        ("nvca-system", "pull"),
        &json!({"metadata": {"labels": {"other": "label"}}}),
    );
    let cluster = cluster.copy((BACKEND_NAMESPACE, "pull"), &json!({}));
    let expected = Plan {
        settled: 2,
        ..Plan::default()
    };
    assert_eq!(cluster.plan(&["pull"]), expected);
}

#[test]
fn a_missing_source_is_waited_for_and_its_copies_go() {
    let cluster = Cluster::new().copy(("nvca-system", "pull"), &json!({}));
    assert_eq!(cluster.actions(&["pull"]), ["delete nvca-system/pull"]);
    let name = "pull".to_owned();
    assert_eq!(
        cluster.plan(&["pull"]).findings,
        BTreeSet::from([Finding::NoSource { name }])
    );
}

#[test]
fn a_namespace_that_is_missing_or_going_is_waited_for() {
    let gone = json!({"name": "nvca-system", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    let going = json!({
        "name": "sr-1", "labels": {WORKLOAD_INSTANCE_TYPE: "x"}, "deletionTimestamp": "2026-01-01T00:00:00Z"});
    let cluster = Cluster::default()
        .namespace(&gone)
        .namespace(&going)
        .source("pull", &json!({}));
    // Neither written to nor tidied up.
    let cluster = cluster
        .copy(("nvca-system", "pull"), &json!({}))
        .copy(("sr-1", "old"), &json!({}));
    assert_eq!(cluster.actions(&["pull"]), [""; 0]);
    let missing = ["nvca-system", BACKEND_NAMESPACE].map(|name| Finding::NoNamespace {
        namespace: name.to_owned(),
    });
    assert_eq!(cluster.plan(&["pull"]).findings, BTreeSet::from(missing));
}

#[test]
fn a_copy_that_differs_in_data_or_labels_is_updated_and_one_that_cannot_be_is_replaced() {
    let rotated = json!({"data": {".dockerconfigjson": "e30K"}});
    let unlabelled = json!({"metadata": {"labels": {ADDITIONAL_PULL_SECRET: null}}});
    let other_type = json!({"type": "Opaque"});
    let fixed = json!({"data": {".dockerconfigjson": "e30K"}, "immutable": true});
    let more = json!({"data": {"more": "AA=="}});
    let fixed_alike = json!({"immutable": true, "metadata": {"labels": {ADDITIONAL_PULL_SECRET: "false"}}});
    for (edit, word) in [
        (rotated, "update"),
        (unlabelled, "update"),
        (more, "update"),
        (fixed_alike, "update"),
        (other_type, "replace"),
        (fixed, "replace"),
    ] {
        let cluster = Cluster::new().source("pull", &json!({}));
        let cluster = cluster
            .copy((BACKEND_NAMESPACE, "pull"), &json!({}))
            .copy(("nvca-system", "pull"), &edit);
        assert_eq!(
            cluster.actions(&["pull"]),
            [format!("{word} nvca-system/pull")],
            "{edit}"
        );
    }
}

#[test]
fn somebody_elses_secret_is_left_alone_whatever_its_name() {
    let helm =
        json!({"metadata": {"labels": {MANAGED_BY: "Helm", ADDITIONAL_PULL_SECRET: "true"}}, "data": {"a": "AA=="}});
    let cluster = Cluster::new()
        .source("pull", &json!({}))
        .copy((BACKEND_NAMESPACE, "pull"), &json!({}));
    for theirs in [json!({"data": {"a": "AA=="}}), helm] {
        let cluster = cluster.clone().secret(("nvca-system", "pull"), &theirs);
        assert_eq!(cluster.actions(&["pull"]), [""; 0]);
        let (namespace, name) = ("nvca-system".to_owned(), "pull".to_owned());
        let finding = Finding::Foreign { namespace, name };
        assert_eq!(cluster.plan(&["pull"]).findings, BTreeSet::from([finding]));
    }
}

#[test]
fn copies_of_names_not_listed_or_in_namespaces_not_meant_are_removed_by_the_version_that_was_seen() {
    let cluster = Cluster::new()
        .copy(("nvca-system", "old"), &json!({}))
        .copy(("default", "pull"), &json!({}));
    let cluster = cluster
        .copy(("nvca-operator", "mine"), &json!({}))
        .source("pull", &json!({}));
    let expected = ["delete default/pull", "delete nvca-system/old"];
    assert_eq!(cluster.actions(&[]), expected, "also where nothing is listed");
    let Action::Delete { copy } = &cluster.plan(&[]).actions[0] else {
        panic!("not a deletion");
    };
    assert_eq!(
        (copy.uid.as_deref(), copy.resource_version.as_deref()),
        (Some("u"), Some("7"))
    );
}

#[test]
fn a_copy_that_is_being_deleted_is_neither_deleted_again_nor_written() {
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "data": {"a": "AA=="}});
    let cluster = Cluster::new()
        .source("pull", &json!({}))
        .copy((BACKEND_NAMESPACE, "pull"), &json!({}));
    let cluster = cluster
        .copy(("nvca-system", "pull"), &going)
        .copy(("default", "pull"), &going);
    assert_eq!(cluster.actions(&["pull"]), [""; 0]);
}

#[test]
fn a_secret_that_belongs_to_its_namespace_is_not_copied() {
    let kind = "kubernetes.io/service-account-token";
    let cluster = Cluster::new()
        .source("pull", &json!({"type": kind}))
        .copy(("nvca-system", "pull"), &json!({}));
    assert_eq!(cluster.actions(&["pull"]), ["delete nvca-system/pull"]);
    let (name, kind) = ("pull".to_owned(), kind.to_owned());
    assert_eq!(
        cluster.plan(&["pull"]).findings,
        BTreeSet::from([Finding::Unfit { name, kind }])
    );
    let by_hand = Cluster::new().source("pull", &json!({"type": null}));
    assert_eq!(by_hand.actions(&["pull"]).len(), 2, "no type is Opaque");
}

#[test]
fn data_never_shows() {
    let cluster = Cluster::new()
        .source("pull", &json!({}))
        .copy(("nvca-system", "pull"), &json!({"data": {"a": "AA=="}}));
    let shown = format!("{:?} {:?}", cluster.plan(&["pull"]), cluster.0);
    assert!(
        shown.contains("Secret nvca-operator/pull") && !shown.contains("dockerconfigjson"),
        "{shown}"
    );
}
