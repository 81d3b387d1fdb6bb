use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::Time};
use serde_json::json;

use super::*;
use crate::reconcile::{backend::fixture::registration, settings::fixture::settings};

const NOW: u64 = 1_800_000_000_000;
const DTO: &str = "clusterName: c\nnvcaVersion: 2.52.1\ncapabilities: [DynamicGPUDiscovery]\n";

fn map(name: &str, data: &[(&str, &str)]) -> (String, ConfigMap) {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some(
        data.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    );
    (name.to_owned(), map)
}

/// As the chart and the bootstrap leave it.
fn installed() -> Live {
    let registration = registration();
    Live {
        maps: BTreeMap::from([
            map(names::CLUSTER_DTO, &[(names::CLUSTER_DTO_KEY, DTO)]),
            map(
                names::REGISTRATION,
                &[
                    (names::CLUSTER_ID_KEY, registration.cluster_id.as_str()),
                    (names::CLUSTER_GROUP_ID_KEY, registration.cluster_group_id.as_str()),
                ],
            ),
            map(POD_ANNOTATIONS, &[("annotations", "{}")]),
            map(CUSTOM_POLICIES, &[]),
        ]),
        ..Live::default()
    }
}

fn of(live: &Live) -> Plan {
    plan(live, &settings(), NOW, &Before::default())
}

/// What is there once the plan is done.
fn done(mut live: Live) -> Live {
    let plan = of(&live);
    live.objects.extend(plan.apply);
    let wanted = plan.backend.unwrap();
    let mut backend = NvcfBackend::new(&wanted.name, wanted.spec);
    backend.metadata.finalizers = Some(vec![names::BACKEND_FINALIZER.to_owned()]);
    live.backends.insert(wanted.name, backend);
    live
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.problems.iter().map(Problem::reason).collect()
}

#[test]
fn everything_is_made_once_and_then_there_is_nothing_to_do() {
    let live = done(installed());
    let plan = of(&live);
    assert_eq!((plan.apply, plan.prune), (vec![], vec![]));
    assert!(!plan.backend.unwrap().is_stale);
    assert!(plan.problems.is_empty());
}

#[test]
fn without_a_registration_nothing_is_made_and_the_reason_is_told() {
    let mut live = installed();
    live.maps.remove(names::REGISTRATION);
    let plan = of(&live);
    assert!(plan.backend.is_none() && plan.apply.is_empty());
    assert_eq!(reasons(&plan), ["NotRegistered"]);
    live.maps.extend([map(
        names::REGISTRATION,
        &[(names::CLUSTER_ID_KEY, ""), (names::CLUSTER_GROUP_ID_KEY, "")],
    )]);
    assert_eq!(reasons(&of(&live)), ["NotRegistered"]);
}

#[test]
fn what_is_deleted_or_changed_by_hand_comes_back_and_nothing_else_is_touched() {
    let mut live = done(installed());
    let key = live
        .objects
        .keys()
        .find(|key| key.kind.name == "Deployment")
        .unwrap()
        .clone();
    live.objects.remove(&key);
    let service = live
        .objects
        .keys()
        .find(|key| key.kind.name == "Service")
        .unwrap()
        .clone();
    live.objects.get_mut(&service).unwrap()["spec"]["ports"][0]["port"] = json!(1);
    let keys: Vec<Key> = of(&live).apply.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [service, key]);
}

#[test]
fn another_registration_changes_the_backend_the_configuration_and_the_pod() {
    let mut live = done(installed());
    live.maps.extend([map(
        names::REGISTRATION,
        &[(names::CLUSTER_ID_KEY, "other"), (names::CLUSTER_GROUP_ID_KEY, "group")],
    )]);
    let plan = of(&live);
    let kinds: Vec<_> = plan.apply.iter().map(|(key, _)| key.kind.name).collect();
    assert_eq!(kinds, ["ConfigMap", "Deployment"]);
    let wanted = plan.backend.unwrap();
    assert!(wanted.is_stale);
    assert_eq!(wanted.spec.cluster_config.cluster_id, "other");
}

#[test]
fn a_second_backend_is_told_and_nothing_is_done_for_it() {
    let mut live = done(installed());
    live.backends.insert(
        "other".to_owned(),
        NvcfBackend::new("other", NvcfBackendSpec::default()),
    );
    let plan = of(&live);
    assert_eq!(reasons(&plan), ["SuperfluousBackend"]);
    assert!(plan.apply.is_empty() && plan.problems[0].is_minor());
    assert_eq!(plan.superfluous.len(), 1);
}

#[test]
fn bad_policies_annotations_and_overrides_are_told_and_end_nothing() {
    let mut live = installed();
    live.maps.remove(POD_ANNOTATIONS);
    live.maps.extend([map(CUSTOM_POLICIES, &[("mine", "kind: Pod")])]);
    let plan = of(&live);
    assert_eq!(reasons(&plan), ["NetworkPolicyInvalid", "PodAnnotationsMissing"]);
    assert!(!plan.apply.is_empty() && plan.problems.iter().all(Problem::is_minor));
    live.maps
        .extend([map(POD_ANNOTATIONS, &[("annotations", "{\"a\": 1}")])]);
    assert_eq!(reasons(&of(&live)), ["NetworkPolicyInvalid", "PodAnnotationsInvalid"]);

    let mut live = done(installed());
    live.backends.get_mut("c").unwrap().spec.overrides = Some(json!({"version": []}));
    let plan = of(&live);
    assert_eq!(reasons(&plan), ["OverridesInvalid"]);
    assert!(plan.apply.is_empty() && plan.prune.is_empty());
}

#[test]
fn a_list_of_gpus_that_cannot_be_used_is_told_and_leaves_everything_as_it_is() {
    for (list, tells) in [
        (json!([]), "it is empty"),
        (json!("H100"), "invalid type"),
        (json!(null), "invalid type"),
    ] {
        let mut live = done(installed());
        let discovery = json!({"static": {"gpus": list}});
        live.backends.get_mut("c").unwrap().spec.overrides =
            Some(json!({"clusterConfig": {"gpuDiscovery": discovery}}));
        let plan = of(&live);
        assert_eq!(reasons(&plan), ["GpusInvalid"]);
        assert!(plan.problems[0].to_string().contains(tells), "{}", plan.problems[0]);
        assert!(plan.apply.is_empty() && plan.prune.is_empty() && !plan.problems[0].is_minor());
    }
}

#[test]
fn what_the_user_merges_rolls_out_and_what_cannot_be_merged_leaves_everything_as_it_is() {
    let merge = |text: &str| map(names::AGENT_CONFIG_MERGE, &[(names::AGENT_CONFIG_KEY, text)]);
    let mut live = done(installed());
    live.maps.extend([merge("workload: {podScheduledThreshold: 20m}")]);
    let plan = of(&live);
    let kinds: Vec<_> = plan.apply.iter().map(|(key, _)| key.kind.name).collect();
    assert_eq!(kinds, ["ConfigMap", "Deployment"]);
    let text = plan.apply[0].1["data"][names::AGENT_CONFIG_KEY].as_str().unwrap();
    let config = crate::agent_config::AgentConfig::parse(text.as_bytes()).unwrap();
    assert_eq!(config.workload.times.pod_scheduled().as_secs(), 1200);
    assert_eq!(reasons(&plan), Vec::<&str>::new());

    let mut live = done(live);
    live.maps.extend([merge("workload: {podScheduledThreshold: soon}")]);
    let plan = of(&live);
    assert_eq!(reasons(&plan), ["MergeConfigInvalid"]);
    assert!(plan.apply.is_empty() && plan.prune.is_empty() && !plan.problems[0].is_minor());
    live.maps
        .extend([merge("workload: {podScheduledThreshold: 20m}\ncluster: {new: 1}")]);
    let plan = of(&live);
    assert_eq!(reasons(&plan), ["MergeConfigUnused"]);
    assert!(plan.apply.is_empty() && plan.problems[0].is_minor());
}

#[test]
fn a_field_that_is_not_wanted_any_more_is_taken_off() {
    let mut tainted = installed();
    let dto = format!("{DTO}agent: {{tolerations: [{{key: gpu, operator: Exists}}]}}\n");
    tainted
        .maps
        .extend([map(names::CLUSTER_DTO, &[(names::CLUSTER_DTO_KEY, &dto)])]);
    let mut live = done(tainted);
    let tolerations = |object: &Value| object["spec"]["template"]["spec"]["tolerations"].clone();
    let is_deployment = |key: &&Key| key.kind.name == "Deployment";
    let key = live.objects.keys().find(is_deployment).unwrap().clone();
    assert_eq!(tolerations(&live.objects[&key])[0]["key"], "gpu");
    live.maps
        .extend([map(names::CLUSTER_DTO, &[(names::CLUSTER_DTO_KEY, DTO)])]);
    let [(changed, object)] = <[_; 1]>::try_from(of(&live).apply).unwrap();
    assert_eq!((changed, tolerations(&object)), (key.clone(), Value::Null));
    live.objects.insert(key, object);
    assert_eq!(of(&live).apply, vec![]);
}

#[test]
fn a_policy_that_cannot_be_read_leaves_the_last_good_ones_until_it_can_be() {
    let entry = |name: &str| format!("kind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{podSelector: {{}}}}");
    let (own, instead) = (entry("mine"), entry("allow-ingress-monitoring"));
    let mut good = installed();
    good.maps
        .extend([map(CUSTOM_POLICIES, &[("instead", &instead), ("own", &own)])]);
    let mut live = done(good);
    for broken in [
        vec![("instead", instead.as_str()), ("own", "kind: NetworkPolice")],
        vec![("instead", "kind: NetworkPolice"), ("own", &own)],
        vec![("instead", "a: [b"), ("own", "a: [b")],
    ] {
        live.maps.extend([map(CUSTOM_POLICIES, &broken)]);
        let plan = of(&live);
        assert_eq!((plan.apply, plan.prune), (vec![], vec![]), "{broken:?}");
        let told = &plan.problems[0];
        assert_eq!(told.reason(), "NetworkPolicyInvalid");
        assert!(told.is_minor() && told.to_string().contains("kept"), "{told}");
    }
    live.maps.remove(CUSTOM_POLICIES);
    let lost = of(&live);
    assert_eq!(reasons(&lost), ["NetworkPoliciesMissing"]);
    assert_eq!((lost.apply, lost.prune), (vec![], vec![]));

    live.maps.extend([map(CUSTOM_POLICIES, &[])]);
    let plan = of(&live);
    let applied: Vec<String> = plan.apply.iter().map(|(key, _)| key.to_string()).collect();
    let pruned: Vec<String> = plan.prune.iter().map(Key::to_string).collect();
    assert_eq!(applied, ["NetworkPolicy nvcf-backend/allow-ingress-monitoring"]);
    assert_eq!(pruned, ["NetworkPolicy nvcf-backend/mine"]);
}

#[test]
fn an_override_rolls_out_and_the_backend_stays_the_users() {
    let mut live = done(installed());
    live.backends.get_mut("c").unwrap().spec.overrides =
        Some(json!({"featureGate": {"values": ["CordonMaintenance"]}}));
    let plan = of(&live);
    assert!(!plan.backend.unwrap().is_stale);
    let kinds: Vec<_> = plan.apply.iter().map(|(key, _)| key.kind.name).collect();
    assert_eq!(kinds, ["ConfigMap", "Deployment"]);
}

#[test]
fn a_deleted_backend_is_taken_down_and_not_made_again_until_the_chart_says_so() {
    let mut live = done(installed());
    live.backends.get_mut("c").unwrap().metadata.deletion_timestamp =
        Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    let plan_now = of(&live);
    assert!(plan_now.deleting.is_some() && plan_now.backend.is_none());
    let retired = Before {
        retired: cluster_text(&live),
        certificates: None,
    };
    live.backends.clear();
    live.objects.clear();
    let still = plan(&live, &settings(), NOW, &retired);
    assert!(still.backend.is_none() && still.apply.is_empty());
    live.maps.extend([map(
        names::CLUSTER_DTO,
        &[(
            names::CLUSTER_DTO_KEY,
            "clusterName: c\nnvcaVersion: \"3\"\ncapabilities: [DynamicGPUDiscovery]",
        )],
    )]);
    let again = plan(&live, &settings(), NOW, &retired);
    assert!(again.backend.is_some() && !again.apply.is_empty());
}

#[test]
fn a_deleted_backend_that_is_not_the_clusters_own_is_only_let_go() {
    let deleted = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    for (name, is_word_there) in [("a", true), ("z", true), ("a", false)] {
        let mut live = done(installed());
        let mut other = live.backends["c"].clone();
        other.metadata.name = Some(name.to_owned());
        other.metadata.deletion_timestamp.clone_from(&deleted);
        live.backends.insert(name.to_owned(), other);
        if !is_word_there {
            live.maps.remove(names::CLUSTER_DTO);
        }
        let plan = of(&live);
        assert!(plan.deleting.is_none() && plan.prune.is_empty(), "{name}");
        assert_eq!(plan.released.len(), 1, "{name}");
        assert_eq!(plan.backend.is_some(), is_word_there);

        live.backends
            .get_mut("c")
            .unwrap()
            .metadata
            .deletion_timestamp
            .clone_from(&deleted);
        let plan = of(&live);
        assert!(
            plan.deleting.is_some() && plan.released.is_empty(),
            "nothing stays: {name}"
        );
    }
}

#[test]
fn what_is_not_wanted_any_more_is_removed_but_no_namespace() {
    let mut live = done(installed());
    let labels = json!({names::NAME: "nvca", names::INSTANCE: "nvca"});
    for (kind, namespace, name, labels) in [
        ("ConfigMap", Some("nvca-system"), "old", &labels),
        ("Namespace", None, "old", &labels),
        // A copy somewhere else, and one of somebody else.
        ("ConfigMap", Some("backup"), "agent-config", &labels),
        ("ConfigMap", Some("nvca-system"), "theirs", &json!({})),
    ] {
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
        live.objects.insert(Key::of(&object).unwrap(), object);
    }
    let keys: Vec<String> = of(&live).prune.iter().map(Key::to_string).collect();
    assert_eq!(keys, ["ConfigMap nvca-system/old"]);
}
