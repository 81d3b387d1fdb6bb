//! What the chart may write, and what becomes of it.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

/// As the real chart renders it, with a few values set.
const RENDERED: &str = r#"
clusterId:
clusterGroupId: ""
clusterName: "edge-7"
clusterDescription: "edge-7"
clusterGroupName: "nvcf-default"
ncaID: "nvcf-default"
nvcaVersion: 2.52
oAuthClientId: ""
cloudProvider: "NCP"
region: us-west-1
attributes:
capabilities:
  - DynamicGPUDiscovery
  - SelfHosted
  - KAIScheduler
gpusB64: ""
cacheCSIVolumeMountOptionsConfig:
  disabled: false
  mountOptions: "ro,norecovery,nouuid"
icmsConfig:
  publicKeysetEndpoint: ""
  tokenURL: ""
  icmsServiceURL: "http://sis.example:8080"
  icmsServiceHostHeaderOverride: "sis.example"
miniService:
  helmReValServiceURL: ""
imageCredentialHelper:
  imageConfig:
    repository: "registry.example/helper"
    tag: "1.2"
sharedStorage:
  imageRepository: "registry.example/samba"
  imageTag: ""
otelCollector:
  enabled: false
  imageConfig:
agent:
  natsURL: "nats://nats.example:4222"
  oAuthTokenURL: ""
  tolerations:
    - {key: gpu, operator: Exists}
somethingNew: {a: 1}
"#;

fn map(data: Option<&[(&str, &str)]>) -> ConfigMap {
    let owned = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    ConfigMap {
        data: data.map(|pairs| -> BTreeMap<String, String> { owned(pairs) }),
        ..ConfigMap::default()
    }
}

#[test]
fn what_the_chart_renders_is_read_with_defaults_for_what_is_empty() {
    let dto = ClusterDto::of(&map(Some(&[(names::CLUSTER_DTO_KEY, RENDERED)]))).unwrap();
    assert_eq!(
        dto.sis(),
        ("http://sis.example:8080".to_owned(), Some("sis.example".to_owned()))
    );
    assert_eq!(dto.oauth_client_id, "nvca");
    assert_eq!(
        (dto.nvca_version.as_str(), dto.agent.nats_url.as_str()),
        ("2.52", "nats://nats.example:4222")
    );
    assert_eq!(dto.mini_service.reval_url, names::DEFAULT_REVAL_URL);
    assert_eq!(dto.image_credential_helper.image_config.tag, "1.2");
    assert_eq!(dto.agent.tolerations, [json!({"key": "gpu", "operator": "Exists"})]);
    let (account, request) = berth_sis::check::new_cluster(dto.new_cluster().unwrap()).unwrap();
    assert_eq!(account.as_str(), "nvcf-default");
    let expected = json!({"clusterName": "edge-7", "clusterGroupName": "nvcf-default", "clusterDescription": "edge-7",
        "ncaId": "nvcf-default", "cloudProvider": "NCP", "nvcaVersion": "2.52", "region": "us-west-1",
        "capabilities": ["DynamicGPUDiscovery", "SelfHosted", "KAIScheduler"], "oAuthClientId": "nvca"});
    assert_eq!(serde_json::to_value(request).unwrap(), expected);
}

#[test]
fn an_almost_empty_file_is_the_default_cluster() {
    let dto: ClusterDto = "nvcaVersion: 2.52.1\n".parse().unwrap();
    let named = [
        &dto.cluster_name,
        &dto.cluster_description,
        &dto.cluster_group_name,
        &dto.nca_id,
    ];
    assert!(named.iter().all(|it| *it == "nvcf-default"), "{dto:?}");
    assert_eq!((dto.cloud_provider.as_str(), dto.region.as_str()), ("NCP", "us-west-1"));
    assert_eq!(dto.sis(), (names::DEFAULT_SIS_URL.to_owned(), None));
}

#[test]
fn static_gpus_come_from_base64_and_only_where_nobody_finds_them() {
    let gpus = json!([{"name": "H100", "capacity": 8,
        "instanceTypes": [{"name": "NCP.GPU.H100_1x", "value": "NCP.GPU.H100", "default": true, "gpuCount": 1}]}]);
    let encoded = BASE64.encode(gpus.to_string());
    let fixed: ClusterDto = format!("gpusB64: {encoded}").parse().unwrap();
    let cluster = fixed.new_cluster().unwrap();
    assert_eq!(
        (cluster.gpus[0].name.as_str(), cluster.gpus[0].capacity),
        ("H100", Some(8))
    );
    let dynamic: ClusterDto = format!("capabilities: [DynamicGPUDiscovery]\ngpusB64: {encoded}")
        .parse()
        .unwrap();
    assert!(dynamic.new_cluster().unwrap().gpus.is_empty());
    for bad in ["'%%%'", &BASE64.encode("{\"name\": 1}")] {
        let dto: ClusterDto = format!("gpusB64: {bad}").parse().unwrap();
        let error = dto.new_cluster().unwrap_err();
        assert!(
            error.reason() == "GpusInvalid" && error.to_string().contains("gpusB64"),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_cluster_is_told_by_the_place_where_it_is() {
    for data in [
        None,
        Some(&[][..]),
        Some(&[(names::CLUSTER_DTO_KEY, " \n")]),
        Some(&[("other", "x")]),
    ] {
        let error = ClusterDto::of(&map(data)).unwrap_err();
        assert_eq!(error.reason(), "NotSelfManaged");
        assert!(error.to_string().contains("clusterSource=self-managed"), "{error}");
    }
    for bad in [
        "clusterName: [a",
        "capabilities: 7",
        "clusterName: {a: b}",
        "just words",
    ] {
        let error = bad.parse::<ClusterDto>().unwrap_err();
        assert_eq!(error.reason(), "ClusterDtoInvalid", "{bad}");
        assert!(
            error
                .to_string()
                .contains("cluster-dto.yaml of the ConfigMap nvcfbackend-self-managed"),
            "{error}"
        );
    }
}
